/*-------------------------------------------------------------------------
 *
 * projection_run.c
 *		Running async projections: es_run_projections, es_work and, through
 *		projection_run_due, the workers.
 *
 * One batch:
 *
 *	1. take a snapshot and its horizon;
 *	2. claim a projection that is due: lock its row by FOR UPDATE SKIP LOCKED,
 *	   so that any number of runners share the work and none waits;
 *	3. read the next events up to the horizon, in the same snapshot; put those
 *	   of parked streams aside;
 *	4. apply them;
 *	5. move the checkpoint, also over events that the projection does not want.
 *
 * The transaction that does it commits read model and checkpoint together:
 * every event takes effect exactly once, whatever crashes.
 *
 * If 3 or 4 fails its subtransaction is rolled back, and the row remembers the
 * error, the number of attempts and when to try again.  After max_attempts the
 * batch is halved until the event that fails is alone.  Then the projection
 * stops, or the event is parked (failure.c).  A cancel or shutdown is no
 * failure of the handler, and ends the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_run_projections);
PG_FUNCTION_INFO_V1(es_work);

/* How long an idle es_work sleeps, in milliseconds. */
#define IDLE_SLEEP		100

/* How much the last batch counts in the average of the rate. */
#define RATE_WEIGHT		0.2

/* A look at the log, under which batches are run. */
typedef struct Run
{
	Oid			log;
	Snapshot	snapshot;
	int64		horizon;
	bool		own_transaction;	/* nobody else's work is in it */
} Run;

static void
begin_run(Run *run, Oid log, bool own_transaction)
{
	run->log = log;
	run->own_transaction = own_transaction;
	run->snapshot = RegisterSnapshot(GetLatestSnapshot());
	run->horizon = horizon_find(log, run->snapshot);
}

static void
end_run(Run *run)
{
	UnregisterSnapshot(run->snapshot);
}

/*
 * Conditions in SQL on a row p of es_projections; $1 is the horizon.  What has
 * events is asked for in the two ways for which there are indexes.
 */
#define IS_RUNNING \
	"p.mode = 'async' AND p.state = 'running' AND p.position < $1"
#define IS_DUE \
	"coalesce(p.next_attempt <= clock_timestamp(), true)" \
	" AND (p.refresh IS NULL OR p.refreshed_at IS NULL" \
	" OR clock_timestamp() - p.refreshed_at >= p.min_interval)"
#define EVENTS_OF(category) \
	"EXISTS (SELECT FROM @extschema@.es_events e" \
	" WHERE e.position > p.position AND e.position <= $1" \
	" AND (p.types IS NULL OR e.type = ANY (p.types))" category ")"
#define HAS_EVENTS \
	"CASE WHEN p.category IS NULL THEN " EVENTS_OF("") " ELSE " \
	EVENTS_OF(" AND @extschema@.es_category(e.stream) = p.category") " END"
#define IS_NAMED \
	"($2 IS NULL OR p.name = $2)"

/* The values of $1 and $2; name: NULL for any. */
typedef struct ClaimValues
{
	Oid			types[2];
	Datum		values[2];
	char		nulls[2];
} ClaimValues;

static ClaimValues
claim_values(const Run *run, const char *name)
{
	ClaimValues claim = {{INT8OID, TEXTOID}, {Int64GetDatum(run->horizon)},
	{' ', name ? ' ' : 'n'}};

	claim.values[1] = name ? CStringGetTextDatum(name) : (Datum) 0;
	return claim;
}

/* How many events the next batch may have. */
static int
batch_limit(const Projection *projection)
{
	return projection->batch_limit > 0 ?
		projection->batch_limit : projection->batch_size;
}

/*
 * Claims a projection that is due and has events to handle; NULL if there is
 * none.  name: only this one; NULL: any.
 */
static Projection *
claim(const Run *run, const char *name)
{
	ClaimValues given = claim_values(run, name);

	return projection_select(run->log,
							 "p WHERE " IS_RUNNING " AND " IS_NAMED
							 " AND " IS_DUE " AND " HAS_EVENTS
							 " ORDER BY p.ran_at NULLS FIRST LIMIT 1"
							 " FOR UPDATE SKIP LOCKED",
							 2, given.types, given.values, given.nulls);
}

/*
 * Moves the checkpoints of projections that want none of the new events.
 */
static void
pass_over(const Run *run, const char *name)
{
	ClaimValues given = claim_values(run, name);

	(void) own_sql_run(run->log,
					   "UPDATE @extschema@.es_projections SET position = $1"
					   " WHERE name IN (SELECT p.name"
					   " FROM @extschema@.es_projections p"
					   " WHERE " IS_RUNNING " AND " IS_NAMED
					   " AND NOT " HAS_EVENTS " FOR UPDATE SKIP LOCKED)",
					   2, given.types, given.values, given.nulls);
}

/* Fires deferred triggers and checks, so that their errors are the batch's. */
static void
fire_deferred(void)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);

	all->constraints = NIL;
	all->deferred = false;
	AfterTriggerSetState(all);
}

/* What apply_batch needs. */
typedef struct Application
{
	Projection *projection;
	const EventBatch *batch;
	bool		own_transaction;
} Application;

static bool
apply_batch(void *arg)
{
	Application *application = arg;

	projection_apply(application->projection, application->batch->events,
					 application->batch->history);
	if (application->own_transaction)
		fire_deferred();
	return true;
}

/*
 * Attempts to apply the batch.  Returns the error that it ended with; NULL if
 * there was none.
 */
ErrorData *
projection_try(Projection *projection, const EventBatch *batch,
			   bool own_transaction)
{
	Application application = {projection, batch, own_transaction};

	return subtransaction_try(apply_batch, &application);
}

/*
 * Stores what was set aside in es_failures.
 */
void
projection_save_parked(const Projection *projection, List *parked)
{
	park_save(projection_failures(projection), parked, FAILURE_PARKED);
}

/*
 * Moves the checkpoint.  clear: forget errors, nothing is suspected any more.
 */
static void
move_checkpoint(const Projection *projection, const EventBatch *batch,
				TimestampTz started, bool clear)
{
	double		seconds = (GetCurrentTimestamp() - started) / 1000000.0;
	Oid			types[4] = {INT8OID, INT8OID, FLOAT8OID, FLOAT8OID};
	Datum		values[4] = {
		Int64GetDatum(batch->upto), Int64GetDatum(batch->count),
		Float8GetDatum(batch->count / Max(seconds, 0.000001)),
		Float8GetDatum(RATE_WEIGHT)
	};
	bool		refreshed = projection->kind == PROJECTION_REFRESH &&
	batch->count > 0;
	char	   *set = psprintf("position = $2, handled = handled + $3,"
							   " ran_at = clock_timestamp()%s%s%s",
							   batch->count > 0 ?
							   ", rate = coalesce(rate + $5 * ($4 - rate), $4)" : "",
							   refreshed ? ", refreshed_at = clock_timestamp()" : "",
							   clear ? PROJECTION_NO_ERROR : "");

	projection_update(projection, set, batch->count > 0 ? 4 : 2, types,
					  values, NULL);
}

/*
 * Notes a success.  While a bad event is looked for it is still before us.
 */
static void
note_success(const Projection *projection, const EventBatch *batch,
			 TimestampTz started)
{
	bool		searching = projection->batch_limit > 0 &&
	batch->upto < projection->suspect_upto;

	move_checkpoint(projection, batch, started,
					projection->attempts > 0 && !searching);
}

/*
 * Writes a failure of the batch into the row.  pause: seconds to the next
 * attempt.  batch_limit: for the next batch, 0 for none.
 */
static void
write_failure(const Projection *projection, const ErrorData *error,
			  bool give_up, double pause, int batch_limit,
			  int64 suspect_upto)
{
	Oid			types[9] = {INT4OID, FLOAT8OID, INT4OID, INT8OID, BOOLOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[9] = {
		Int32GetDatum(projection->attempts + 1), Float8GetDatum(pause),
		Int32GetDatum(batch_limit), Int64GetDatum(suspect_upto),
		BoolGetDatum(give_up)
	};
	char		nulls[9];

	memset(nulls, ' ', sizeof(nulls));
	failure_error_values(error, &values[5], &nulls[5]);
	projection_update(projection,
					  "attempts = $2,"
					  " next_attempt = clock_timestamp() + make_interval(secs => $3),"
					  " batch_limit = nullif($4, 0), suspect_upto = nullif($5, 0),"
					  " state = CASE WHEN $6 THEN 'failed' ELSE state END,"
					  " sqlstate = $7, message = $8, detail = $9, context = $10,"
					  " ran_at = clock_timestamp()",
					  9, types, values, nulls);
}

/*
 * Sets the only event of a batch aside, with those that wait behind others,
 * and goes on after it.
 */
static void
park_and_move(const Projection *projection, const EventBatch *batch,
			  ErrorData *error, TimestampTz started, List *parked)
{
	EventBatch	rest = {.upto = batch->upto};
	text	   *stream;

	parked = park_first(projection->log, batch, error,
						projection->attempts + 1, parked, &stream);
	projection_save_parked(projection, parked);
	move_checkpoint(projection, &rest, started, true);
}

/*
 * Decides what follows a failure: another attempt, a smaller batch, or the
 * end of the search.
 */
static void
note_failure(const Projection *projection, const EventBatch *batch,
			 ErrorData *error, TimestampTz started, List *parked)
{
	int			attempts = projection->attempts + 1;
	int64		suspect_upto = Max(projection->suspect_upto, batch->upto);

	if (attempts < projection->max_attempts)
		write_failure(projection, error, false, failure_pause(attempts),
					  projection->batch_limit, projection->suspect_upto);
	else if (batch->count > 1 && projection->kind != PROJECTION_REFRESH)
		write_failure(projection, error, false, 0, batch->count / 2,
					  suspect_upto);
	else if (projection->park && batch->count == 1)
		park_and_move(projection, batch, error, started, parked);
	else
		write_failure(projection, error, true, 0, projection->batch_limit,
					  suspect_upto);
}

/* How many events the view has not seen. */
static int64
count_new(const Run *run, const Projection *projection)
{
	Oid			types[4] = {INT8OID, INT8OID, TEXTOID, TEXTARRAYOID};
	Datum		values[4] = {
		Int64GetDatum(projection->position), Int64GetDatum(run->horizon),
		PointerGetDatum(projection->category),
		PointerGetDatum(projection->types)
	};
	char		nulls[4] = {' ', ' ', projection->category ? ' ' : 'n',
	projection->types ? ' ' : 'n'};
	bool		isnull;

	(void) own_sql_run(run->log,
					   "SELECT count(*) FROM @extschema@.es_events e"
					   " WHERE e.position > $1 AND e.position <= $2"
					   " AND ($3 IS NULL OR @extschema@.es_category(e.stream) = $3)"
					   " AND ($4 IS NULL OR e.type = ANY ($4))",
					   4, types, values, nulls);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* What read_batch needs. */
typedef struct Reading
{
	const Run  *run;
	const Projection *projection;
	EventBatch *batch;
} Reading;

/* Reads the next batch; the owner may not be allowed to any more. */
static bool
read_batch(void *arg)
{
	Reading    *reading = arg;
	const Projection *projection = reading->projection;

	if (projection->kind == PROJECTION_REFRESH)
	{
		reading->batch->count = count_new(reading->run, projection);
		reading->batch->upto = reading->run->horizon;
	}
	else
		projection_read(projection, reading->run->snapshot,
						reading->run->horizon, batch_limit(projection),
						reading->batch);
	return true;
}

/*
 * Reads a batch and applies it, but for those events that must wait behind
 * parked ones.  Returns the error that this ended with.
 */
static ErrorData *
try_batch(const Run *run, Projection *projection, EventBatch *batch,
		  List **parked)
{
	Reading		reading = {run, projection, batch};
	ErrorData  *error = subtransaction_try(read_batch, &reading);

	if (error != NULL)
	{
		batch->count = 0;
		batch->upto = projection->position;
		return error;
	}
	if (projection->kind != PROJECTION_REFRESH)
		*parked = park_take(run->log, batch,
							failure_streams(projection_failures(projection),
											NULL),
							*parked);
	if (batch->count == 0)
		return NULL;
	return projection_try(projection, batch, run->own_transaction);
}

/*
 * Runs one batch of a projection that is claimed.  Returns how many events
 * were handled.
 */
static int64
run_batch(const Run *run, Projection *projection)
{
	TimestampTz started = GetCurrentTimestamp();
	List	   *parked = NIL;
	EventBatch	batch = {.events = event_batch_make()};
	ErrorData  *error = try_batch(run, projection, &batch, &parked);

	if (error == NULL)
	{
		projection_save_parked(projection, parked);
		note_success(projection, &batch, started);
	}
	else
		note_failure(projection, &batch, error, started, parked);
	tuplestore_end(batch.events);
	return error == NULL ? batch.count : 0;
}

/*
 * Runs one batch of one projection that is due, in the present transaction,
 * which is ours alone.  False if nothing was due.
 */
bool
projection_run_due(Oid log)
{
	Run			run;
	Projection *projection;

	SPI_connect();
	begin_run(&run, log, true);
	projection = claim(&run, NULL);
	if (projection != NULL)
		(void) run_batch(&run, projection);
	else
		pass_over(&run, NULL);
	end_run(&run);
	SPI_finish();
	return projection != NULL;
}

/*
 * Runs batches of what is due, at most so many.
 */
static int64
run_batches(const Run *run, const char *name, int max_batches)
{
	int64		handled = 0;
	Projection *projection;

	while (max_batches-- > 0)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "eventstore run",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		projection = claim(run, name);
		if (projection != NULL)
			handled += run_batch(run, projection);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextDelete(context);
		if (projection == NULL)
			break;
	}
	return handled;
}

/*
 * es_run_projections(name, max_batches) returns bigint: runs what is due in
 * the caller's transaction; returns how many events were handled.
 */
Datum
es_run_projections(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name = PG_ARGISNULL(0) ? NULL :
	text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			max_batches = PG_ARGISNULL(1) ? PG_INT32_MAX :
	PG_GETARG_INT32(1);
	int64		handled;
	Run			run;

	PreventCommandIfReadOnly("es_run_projections()");
	projection_check_outside("es_run_projections()");
	SPI_connect();
	if (name != NULL)
		(void) projection_get(log, name, "");
	begin_run(&run, log, false);
	handled = run_batches(&run, name, max_batches);
	pass_over(&run, name);
	end_run(&run);
	SPI_finish();
	PG_RETURN_INT64(handled);
}

/* Refuses a CALL in a transaction block, where nothing can be committed. */
static void
check_nonatomic(FunctionCallInfo fcinfo)
{
	if (fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("es_work cannot run in a transaction block"),
			 errdetail("It commits after each batch."),
			 errhint("CALL it by itself, or use es_run_projections() in a transaction.")));
}

/* Runs what is due, a batch a transaction, until nothing is. */
static void
work(Oid log)
{
	bool		busy;

	do
	{
		CHECK_FOR_INTERRUPTS();
		busy = projection_run_due(log);
		SPI_commit();
	} while (busy);
}

/*
 * es_work(stop_when_idle): runs what is due, and commits after each batch.
 */
Datum
es_work(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	bool		stop_when_idle = PG_ARGISNULL(0) || PG_GETARG_BOOL(0);

	check_nonatomic(fcinfo);
	PreventCommandIfReadOnly("es_work()");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	work(log);
	while (!stop_when_idle)
	{
		sleep_nap(IDLE_SLEEP, "EventstoreWork");
		work(log);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Sets the only event of the batch aside; its stream is parked from now on,
 * and batches have their full size again.
 */
static void
replay_park(Projection *projection, const EventBatch *batch, ErrorData *error,
			Replay *replay)
{
	text	   *stream;

	replay->parked = park_first(projection->log, batch, error, 1,
								replay->parked, &stream);
	replay->streams = lappend(replay->streams, stream);
	projection->batch_limit = 0;
}

/*
 * Handles one batch of a replay.  False if it failed and must be tried again
 * in a smaller one; without parking the error is raised.
 */
static bool
replay_batch(Projection *projection, EventBatch *batch, Replay *replay)
{
	ErrorData  *error = NULL;
	List	   *waiting;

	waiting = park_take(projection->log, batch, replay->streams, NIL);
	if (batch->count > 0)
	{
		if (replay->park)
			error = projection_try(projection, batch, false);
		else
			projection_apply(projection, batch->events, batch->history);
	}
	if (error != NULL && batch->count > 1)
	{
		projection->batch_limit = batch->count / 2;
		return false;
	}
	replay->parked = list_concat(replay->parked, waiting);
	if (error != NULL)
		replay_park(projection, batch, error, replay);
	else
		replay->handled += batch->count;
	return true;
}

/*
 * Handles all events after the projection's position up to another one, in
 * the present transaction, and moves projection->position there; the row is
 * the caller's to update.  replay: what to do about errors, and what was done.
 */
void
replay_projection(Projection *projection, Snapshot snapshot, int64 upto,
				  Replay *replay)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore replay",
												  ALLOCSET_DEFAULT_SIZES);

	while (projection->position < upto)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		EventBatch	batch;

		CHECK_FOR_INTERRUPTS();
		batch.events = event_batch_make();
		projection_read(projection, snapshot, upto, batch_limit(projection),
						&batch);
		MemoryContextSwitchTo(oldcontext);
		if (replay_batch(projection, &batch, replay))
			projection->position = batch.upto;
		tuplestore_end(batch.events);
		MemoryContextReset(context);
		if (replay->progress)
			replay->progress(projection, replay);
	}
	MemoryContextDelete(context);
}
