/*-------------------------------------------------------------------------
 *
 * projection_batch.c
 *		One batch of an async projection.
 *
 *	1. take a snapshot and its horizon (projection_run_begin);
 *	2. claim a projection that is due: lock its row by FOR UPDATE SKIP LOCKED,
 *	   so that any number of runners share the work and none waits;
 *	3. read the next events up to the horizon, in the same snapshot, and take
 *	   out those whose streams are parked;
 *	4. apply them;
 *	5. move the checkpoint, also over events that the projection does not want.
 *
 * The transaction that does it commits read model and checkpoint together:
 * every event takes effect exactly once, whatever crashes.
 *
 * If 3 or 4 fails, its subtransaction is rolled back, and the row remembers the
 * error, the number of attempts and when to try again.  After max_attempts the
 * batch is halved until the event that fails is alone.  Then the projection
 * stops, or the event is parked (failure.c).  A cancel or a shutdown is no
 * failure of the handler, and ends the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

/* How much the last batch counts in the average of the rate. */
#define RATE_WEIGHT		0.2

/* Takes a snapshot and its horizon. */
void
projection_run_begin(ProjectionRun *run, Oid log, bool own_transaction)
{
	run->log = log;
	run->own_transaction = own_transaction;
	run->snapshot = RegisterSnapshot(GetLatestSnapshot());
	run->horizon = horizon_find(log, run->snapshot);
}

/* Releases the snapshot. */
void
projection_run_end(ProjectionRun *run)
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
claim_values(const ProjectionRun *run, const char *name)
{
	ClaimValues projection_claim = {{INT8OID, TEXTOID}, {Int64GetDatum(run->horizon)},
	{' ', name ? ' ' : 'n'}};

	projection_claim.values[1] = name ? CStringGetTextDatum(name) : (Datum) 0;
	return projection_claim;
}

/* Claims a projection that is due and has events to handle. */
Projection *
projection_claim(const ProjectionRun *run, const char *name)
{
	ClaimValues given = claim_values(run, name);

	return projection_select(run->log,
							 "p WHERE " IS_RUNNING " AND " IS_NAMED
							 " AND " IS_DUE " AND " HAS_EVENTS
							 " ORDER BY p.ran_at NULLS FIRST LIMIT 1"
							 " FOR UPDATE SKIP LOCKED",
							 2, given.types, given.values, given.nulls);
}

/* Moves the checkpoints of projections that want none of the new events. */
void
projection_pass_over(const ProjectionRun *run, const char *name)
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

/*
 * Reads the next events that the projection wants, with its owner's privileges
 * and row security.  Nothing else up to batch->upto is wanted.
 */
void
projection_read_batch(const Projection *projection, Snapshot snapshot, int64 upto,
					  int limit, EventBatch *batch)
{
	EventSource source = {
		.log = projection->log,
		.reader = projection_owner_role(projection),
		.category = projection->category,
		.types = projection->types
	};

	batch->history = projection->rebuilding ||
		projection->position < projection->history;
	if (!projection->rebuilding && batch->history)
		upto = Min(upto, projection->history);
	event_reader_read(&source, snapshot, projection->position, upto, limit, batch);
}

/* Returns how many events the next batch may have. */
int
projection_batch_limit(const Projection *projection)
{
	return projection->batch_limit > 0 ?
		projection->batch_limit : projection->batch_size;
}

/* Returns how many events the view has not seen. */
static int64
count_unseen_events(const ProjectionRun *run, const Projection *projection)
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

/* What attempt_read needs. */
typedef struct BatchReading
{
	const ProjectionRun *run;
	const Projection *projection;
	EventBatch *batch;
} BatchReading;

/* Reads the next batch; fails if the owner has lost the right to. */
static bool
attempt_read(void *arg)
{
	BatchReading *reading = arg;
	const Projection *projection = reading->projection;

	if (projection->kind == PROJECTION_REFRESH)
	{
		reading->batch->count = count_unseen_events(reading->run, projection);
		reading->batch->upto = reading->run->horizon;
	}
	else
		projection_read_batch(projection, reading->run->snapshot,
							  reading->run->horizon, projection_batch_limit(projection),
							  reading->batch);
	return true;
}

/*
 * Fires deferred triggers and checks now, so that their errors are the batch's: any
 * of its events may be the cause.
 */
static void
fire_deferred_triggers(Projection *projection, const EventBatch *batch)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);
	ProjectionContext at;

	projection_context_begin(&at, projection,
							 projection->kind == PROJECTION_REFRESH ?
							 NULL : batch->events);
	projection->failed_event = -1;
	all->constraints = NIL;
	all->deferred = false;
	AfterTriggerSetState(all);
	projection_context_end(&at);
}

/* What attempt_apply needs. */
typedef struct BatchApplication
{
	Projection *projection;
	const EventBatch *batch;
	bool		own_transaction;
} BatchApplication;

static bool
attempt_apply(void *arg)
{
	BatchApplication *application = arg;

	projection_apply(application->projection, application->batch->events,
					 application->batch->history);
	if (application->own_transaction)
		fire_deferred_triggers(application->projection, application->batch);
	return true;
}

/* Applies the batch in a subtransaction; returns the error it ended with. */
ErrorData *
projection_try_batch(Projection *projection, const EventBatch *batch,
					 bool own_transaction)
{
	BatchApplication application = {projection, batch, own_transaction};

	return subtransaction_try(attempt_apply, &application);
}

/* Stores parked events in es_failures. */
void
projection_save_parked(const Projection *projection, List *parked)
{
	park_save(projection_failures(projection), parked, FAILURE_PARKED);
}

/*
 * Moves the checkpoint.  clear: forget errors, as no event is suspected any
 * more.
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
 * Notes a success.  While a bad event is searched for, it still lies ahead, and
 * the error stays.
 */
static void
note_batch_success(const Projection *projection, const EventBatch *batch,
				   TimestampTz started)
{
	bool		searching = projection->batch_limit > 0 &&
	batch->upto < projection->suspect_upto;

	move_checkpoint(projection, batch, started,
					projection->attempts > 0 && !searching);
}

/*
 * Writes a failure of the batch into the row.  stop: the projection has failed.
 * pause: seconds to the next attempt.  batch_limit: for the next batch, 0 for
 * none.
 */
static void
write_batch_failure(const Projection *projection, const ErrorData *error,
					bool stop, double pause, int batch_limit,
					int64 suspect_upto)
{
	Oid			types[9] = {INT4OID, FLOAT8OID, INT4OID, INT8OID, BOOLOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[9] = {
		Int32GetDatum(projection->attempts + 1), Float8GetDatum(pause),
		Int32GetDatum(batch_limit), Int64GetDatum(suspect_upto),
		BoolGetDatum(stop)
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
 * Parks the only event of a batch, and those that wait behind parked ones, and
 * moves the checkpoint after it.
 */
static void
park_failed_event(const Projection *projection, const EventBatch *batch,
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
 * Notes a failure and what follows it: another attempt, a smaller batch, or
 * the end of the search.
 */
static void
note_batch_failure(const Projection *projection, const EventBatch *batch,
				   ErrorData *error, TimestampTz started, List *parked)
{
	int			attempts = projection->attempts + 1;
	int64		suspect_upto = Max(projection->suspect_upto, batch->upto);

	if (attempts < projection->max_attempts)
		write_batch_failure(projection, error, false, failure_pause(attempts),
							projection->batch_limit, projection->suspect_upto);
	else if (batch->count > 1 && projection->kind != PROJECTION_REFRESH)
		write_batch_failure(projection, error, false, 0, batch->count / 2,
							suspect_upto);
	else if (projection->park && batch->count == 1)
		park_failed_event(projection, batch, error, started, parked);
	else
		write_batch_failure(projection, error, true, 0, projection->batch_limit,
							suspect_upto);
}

/*
 * Reads a batch and applies it, except for the events that must wait behind
 * parked ones, which are added to the list.  Returns the error that this ended
 * with, NULL if there was none.
 */
static ErrorData *
read_and_apply(const ProjectionRun *run, Projection *projection, EventBatch *batch,
			   List **parked)
{
	BatchReading reading = {run, projection, batch};
	ErrorData  *error = subtransaction_try(attempt_read, &reading);

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
	return projection_try_batch(projection, batch, run->own_transaction);
}

/* Runs one batch of a claimed projection, and notes how it ended. */
int64
projection_run_batch(const ProjectionRun *run, Projection *projection)
{
	TimestampTz started = GetCurrentTimestamp();
	List	   *parked = NIL;
	EventBatch	batch = {.events = event_batch_make()};
	ErrorData  *error = read_and_apply(run, projection, &batch, &parked);

	if (error == NULL)
	{
		projection_save_parked(projection, parked);
		note_batch_success(projection, &batch, started);
	}
	else
		note_batch_failure(projection, &batch, error, started, parked);
	tuplestore_end(batch.events);
	return error == NULL ? batch.count : 0;
}
