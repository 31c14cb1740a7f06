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
 * error (projection_failure.c).  A cancel or a shutdown is no failure of the handler,
 * and ends the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "failure/failure.h"
#include "retention/archive.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

/* Events of a view that are read at once, to be counted. */
#define MAX_COUNTED_AT_ONCE	1000

/* Takes a snapshot and its horizon. */
void
projection_run_begin(ProjectionRun *run, Oid log, bool own_transaction)
{
	run->log = log;
	run->own_transaction = own_transaction;
	run->begun = GetCurrentTimestamp();
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
 * Events in SQL of each category c.category of a list, after one position and up to
 * another.  es_by_index makes the planner look them up, however rare the category is.
 */
#define OF_TYPE(types) \
	" AND (" types " IS NULL OR " ES_HAS_TYPE(types) ")"
#define OF_CATEGORIES(categories, after, upto, types, rest) \
	"SELECT FROM unnest(" categories ") AS c (category) CROSS JOIN LATERAL (" \
	"SELECT FROM @extschema@.es_events e" \
	" WHERE @extschema@.es_category(e.stream) = c.category" \
	" AND @extschema@.es_by_index(@extschema@.es_category(e.stream), c.category)" \
	" AND e.position > " after " AND e.position <= " upto OF_TYPE(types) rest ") e"

/*
 * Conditions in SQL on a row p of es_projections; $1 is the horizon, $3 when the run
 * began.  What has failed in this run waits for the next one, however short the pauses are.
 * What has events is asked for in the two ways for which there are indexes; of a query, in C.
 */
#define IS_RUNNING \
	"p.mode = 'async' AND p.state <> 'paused' AND p.position < $1"
#define IS_DUE \
	"(p.next_attempt IS NULL OR p.next_attempt <= clock_timestamp() AND p.ran_at <= $3)" \
	" AND (p.refresh IS NULL OR p.refreshed_at IS NULL" \
	" OR clock_timestamp() - p.refreshed_at >= p.min_interval)"
#define HAS_EVENTS \
	"CASE WHEN p.event_query IS NOT NULL THEN cardinality(@extschema@.es_source_positions(" \
	"p.event_query, p.categories, p.types, p.position, $1, 1)) > 0" \
	" WHEN p.categories IS NULL THEN EXISTS (SELECT FROM @extschema@.es_events e" \
	" WHERE e.position > p.position AND e.position <= $1" OF_TYPE("p.types") ")" \
	" ELSE EXISTS (" OF_CATEGORIES("p.categories", "p.position", "$1", "p.types", " LIMIT 1") ") END"
#define IS_NAMED \
	"($2 IS NULL OR p.name = $2)"

/* The values of $1 to $3; name: NULL for any. */
typedef struct ClaimValues
{
	Oid			types[3];
	Datum		values[3];
	char		nulls[3];
} ClaimValues;

static ClaimValues
claim_values(const ProjectionRun *run, const char *name)
{
	ClaimValues given = {{INT8OID, TEXTOID, TIMESTAMPTZOID}, {Int64GetDatum(run->horizon)},
	{' ', name ? ' ' : 'n', ' '}};

	given.values[1] = name ? CStringGetTextDatum(name) : (Datum) 0;
	given.values[2] = TimestampTzGetDatum(run->begun);
	return given;
}

/* Claims a projection that is due and has events to handle. */
Projection *
projection_claim(const ProjectionRun *run, const char *name)
{
	ClaimValues given = claim_values(run, name);
	int			level = projection_begin_lasting_plan();
	Projection *projection;

	projection = projection_select(run->log,
								   "p WHERE " IS_RUNNING " AND " IS_NAMED
								   " AND " IS_DUE " AND " HAS_EVENTS
								   " ORDER BY p.ran_at NULLS FIRST LIMIT 1"
								   " FOR UPDATE SKIP LOCKED",
								   3, given.types, given.values, given.nulls);
	AtEOXact_GUC(true, level);
	return projection;
}

/*
 * Returns true if a runner may find something due, now or later: events below the horizon
 * that a projection has not passed, whatever it waits for, or a parked event that is to
 * be retried.
 */
bool
projection_may_fall_due(Oid log, int64 horizon)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(horizon);
	bool		found;

	SPI_connect();
	found = own_sql_run(log,
						"SELECT FROM @extschema@.es_projections p"
						" WHERE " IS_RUNNING " OR p.mode = 'async'"
						" AND p.state <> 'paused'"
						" AND EXISTS (SELECT FROM @extschema@.es_failures f"
						" WHERE f.projection = p.name AND f.retry_at IS NOT NULL)"
						" LIMIT 1", 1, &type, &value, NULL) > 0;
	SPI_finish();
	return found;
}

/* Moves the checkpoints of projections that want none of the new events. */
void
projection_pass_over(const ProjectionRun *run, const char *name)
{
	ClaimValues given = claim_values(run, name);
	int			level = projection_begin_lasting_plan();

	(void) own_sql_run(run->log,
					   "UPDATE @extschema@.es_projections SET position = $1"
					   PROJECTION_GOES_ON " WHERE name IN (SELECT p.name"
					   " FROM @extschema@.es_projections p"
					   " WHERE " IS_RUNNING " AND " IS_NAMED
					   " AND NOT " HAS_EVENTS " FOR UPDATE SKIP LOCKED)",
					   2, given.types, given.values, given.nulls);
	AtEOXact_GUC(true, level);
}

/* Returns which events the projection wants, as its owner may read them. */
static EventSource
projection_source(const Projection *projection)
{
	return (EventSource)
	{
		.log = projection->log,
			.reader = projection_owner_role(projection),
			.categories = projection->categories.array,
			.types = projection->types.array,
			.query = projection->event_query
	};
}

/*
 * Reads the next events that the projection wants, with its owner's privileges
 * and row security, except for those that are skipped.  Nothing else up to batch->upto is wanted.
 */
void
projection_read_batch(const Projection *projection, Snapshot snapshot, int64 upto,
					  int limit, EventBatch *batch)
{
	EventSource source = projection_source(projection);
	ReadLimit	read = {.count = limit};

	batch->history = projection->rebuilding ||
		projection->position < projection->history;
	if (!projection->rebuilding && batch->history)
		upto = Min(upto, projection->history);
	source.except = projection_skipped_positions(projection, projection->position, upto);
	event_reader_read(&source, snapshot, projection->position, upto,
					  &read, batch);
	if (projection->archived)
		archive_merge_batch(&source, snapshot, projection->position, limit, batch);
}

/* Returns how many events the next batch may have. */
int
projection_batch_limit(const Projection *projection)
{
	return projection->batch_limit > 0 ?
		projection->batch_limit : projection->batch_size;
}

/* Returns how many events the view has not seen that match its query. */
static int64
count_unseen_matches(const ProjectionRun *run, const Projection *projection)
{
	EventSource source = projection_source(projection);
	ReadLimit	limit = {.count = MAX_COUNTED_AT_ONCE};
	int64		after = projection->position;
	int64		count = 0;

	while (after < run->horizon)
	{
		EventBatch	batch = {.events = event_batch_make()};

		event_reader_read(&source, run->snapshot, after, run->horizon, &limit, &batch);
		tuplestore_end(batch.events);
		count += batch.count;
		after = batch.upto;
	}
	return count;
}

/* Returns how many events the view has not seen. */
static int64
count_unseen_events(const ProjectionRun *run, const Projection *projection)
{
	Oid			types[4] = {INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[4] = {
		Int64GetDatum(projection->position), Int64GetDatum(run->horizon),
		PointerGetDatum(projection->categories.array),
		PointerGetDatum(projection->types.array)
	};
	char		nulls[4] = {' ', ' ', projection->categories.array ? ' ' : 'n',
	projection->types.array ? ' ' : 'n'};
	bool		isnull;

	if (projection->event_query != NULL)
		return count_unseen_matches(run, projection);
	(void) own_sql_run(run->log, projection->categories.array != NULL ?
					   "SELECT count(*) FROM (" OF_CATEGORIES("$3", "$1", "$2", "$4", " OFFSET 0") ") e" :
					   "SELECT count(*) FROM @extschema@.es_events e"
					   " WHERE e.position > $1 AND e.position <= $2" OF_TYPE("$4"),
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

	projection_context_begin(&at, projection, batch->events);
	projection->failed_event = -1;
	all->constraints = NIL;
	all->deferred = false;
	AfterTriggerSetState(all);
	projection_context_end(&at);
}

/* Applies the batch, and all that it has deferred. */
void
projection_apply_batch(Projection *projection, const EventBatch *batch,
					   bool own_transaction)
{
	projection_apply(projection, batch->events, batch->history);
	if (own_transaction)
		fire_deferred_triggers(projection, batch);
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

	projection_apply_batch(application->projection, application->batch,
						   application->own_transaction);
	return true;
}

/* Applies the batch in a subtransaction; returns the error it ended with. */
ErrorData *
projection_try_batch(Projection *projection, const EventBatch *batch,
					 bool own_transaction)
{
	BatchApplication application = {projection, batch, own_transaction};

	return projection_limit_try(projection, attempt_apply, &application);
}

/*
 * Ends the batch after the events that were applied; returns those of the parked events
 * that belong to it.
 */
static List *
end_batch_early(const Projection *projection, EventBatch *batch, List *parked)
{
	batch->count = projection->applied;
	batch->upto = event_batch_position(projection->log, batch->events,
									   batch->count - 1);
	return park_upto(parked, batch->upto);
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
	ErrorData  *error = projection_limit_try(projection, attempt_read, &reading);

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
	error = projection_try_batch(projection, batch, run->own_transaction);
	if (error == NULL && projection->applied > 0 &&
		projection->applied < batch->count)
		*parked = end_batch_early(projection, batch, *parked);
	return error;
}

/* Runs one batch of a claimed projection, and notes how it ended. */
int64
projection_run_batch(const ProjectionRun *run, Projection *projection)
{
	TimestampTz started = GetCurrentTimestamp();
	List	   *parked = NIL;
	EventBatch	batch = {.events = event_batch_make()};
	ErrorData  *error;

	projection_limit_turn(projection->name);
	error = read_and_apply(run, projection, &batch, &parked);
	if (error == NULL)
	{
		projection_save_parked(projection, parked);
		park_release_removed(projection_failures(projection), parked, batch.upto);
		projection_note_success(projection, &batch, started);
	}
	else
		projection_note_failure(projection, &batch, error, started, parked);
	tuplestore_end(batch.events);
	return error == NULL ? batch.count : 0;
}
