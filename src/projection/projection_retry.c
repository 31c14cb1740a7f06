/*-------------------------------------------------------------------------
 *
 * projection_retry.c
 *		Parked events of a projection that are tried again: by runners when they
 *		are due, and by es_retry and es_discard.
 *
 * The first event of a parked stream has failed; the others wait behind it.  They
 * are tried in order, each in a subtransaction, until one fails.  An event leaves
 * es_failures in the transaction in which it takes effect.  The caller holds the
 * lock on the projection's row, so that no more events of the stream are parked,
 * and no other session tries them.
 *
 * An event that fails again is due after a pause (retry_at), which grows.  After
 * max_attempts it is parked for good: until es_retry or es_discard.  An attempt that
 * fails for a cause outside of the event (failure.c) does not count.
 *
 * A runner tries at most so many events of a stream as a batch has, and a worker only
 * for so long (projection_limit.c); the next is due at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

const RetryMode projection_retry_by_user = {
	.limit = PG_INT64_MAX,.warn = true
};

/* What attempt_failed_event needs. */
typedef struct EventRetry
{
	Projection *projection;
	int64		position;
	bool		own_transaction;
	bool		removed;		/* the event is not in the log any more */
	EventBatch	batch;
} EventRetry;

/* Refuses an event that the owner may not read any more. */
static void
refuse_hidden_event(const EventRetry *retry)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("projection \"%s\" cannot read the event that is to be retried",
					retry->projection->name),
			 errdetail("The event at position " INT64_FORMAT " is hidden from its owner.",
					   retry->position),
			 errhint("Give the owner the right to read it, or call es_discard() for it.")));
}

/*
 * Reads the event of a failure as a batch of its own, whatever the filter is by now.
 */
static void
read_failed_event(EventRetry *retry)
{
	Projection *projection = retry->projection;
	Projection	unfiltered = *projection;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	projection->position = unfiltered.position = retry->position - 1;
	unfiltered.categories.array = unfiltered.types.array = NULL;
	unfiltered.event_query = NULL;
	projection_read_batch(&unfiltered, snapshot, retry->position, 1,
						  &retry->batch);
	UnregisterSnapshot(snapshot);
	retry->removed = retry->batch.count == 0 &&
		failure_is_removed(projection->log, retry->position);
	if (retry->batch.count == 0 && !retry->removed)
		refuse_hidden_event(retry);
}

/* Reads the event and applies it. */
static bool
attempt_failed_event(void *arg)
{
	EventRetry *retry = arg;

	read_failed_event(retry);
	if (!retry->removed)
		projection_apply_batch(retry->projection, &retry->batch,
							   retry->own_transaction);
	return true;
}

/*
 * Returns the pause before the next attempt, in seconds; FAILURE_PARKED: there is
 * none.  After an error that does not count, the pause is twice as long as the last.
 */
static double
next_pause(const Projection *projection, const Failure *failure,
		   const ErrorData *error)
{
	if (!failure_is_external(error))
		return failure->attempts + 1 >= projection->max_attempts ?
			FAILURE_PARKED : failure_retry_pause(error, failure->attempts + 1);
	return failure_longer_pause(error, failure->failed ?
								failure->last_failed_at : GetCurrentTimestamp());
}

/*
 * Notes that an event failed again.  warn: warns of it, else only if it is parked for
 * good.
 */
static void
note_failed_retry(const Projection *projection, const Failure *failure,
				  const ErrorData *error, bool warn)
{
	double		pause = next_pause(projection, failure, error);
	char	   *event = psprintf("the event at position " INT64_FORMAT
								 " (version " INT64_FORMAT
								 " of stream \"%s\", type \"%s\")",
								 failure->position, failure->version,
								 failure->stream, failure->type);

	failure_record_attempt(projection->log, failure->id, error,
						   failure_is_external(error) ? 0 : 1, pause);
	if (warn)
		projection_warn(projection,
						psprintf("has failed %sat %s",
								 failure->failed ? "again " : "", event),
						error,
						psprintf("Later events of stream \"%s\" wait behind it.",
								 failure->stream));
	else if (pause == FAILURE_PARKED)
		projection_warn(projection, psprintf("has parked %s", event), error,
						FAILURE_HINT);
}

/* What came of a retry. */
typedef enum RetryResult
{
	RETRY_FAILED,
	RETRY_HANDLED,
	RETRY_REMOVED				/* the event is not in the log any more */
} RetryResult;

/* Tries one parked event again. */
static RetryResult
retry_event(Projection *projection, const Failure *failure,
			const RetryMode *mode)
{
	EventRetry	retry = {
		.projection = projection,
		.position = failure->position,
		.own_transaction = mode->own_transaction
	};
	ErrorData  *error;

	retry.batch.events = event_batch_make();
	error = projection_limit_try(projection, attempt_failed_event, &retry);
	tuplestore_end(retry.batch.events);
	if (error != NULL && mode->warn && retry.batch.count == 0)
		ReThrowError(error);	/* the event could not even be read */
	if (error == NULL && retry.removed)
		return RETRY_REMOVED;
	if (error == NULL)
		return failure_remove(projection->log, failure->id) ? RETRY_HANDLED : RETRY_FAILED;
	note_failed_retry(projection, failure, error, mode->warn);
	return RETRY_FAILED;
}

/*
 * Tries the parked events of a stream in order until one fails.
 */
int64
projection_retry_stream(Projection *projection, char *stream,
						const RetryMode *mode)
{
	Failure		failure = {.stream = stream};
	FailureOwner owner = projection_failures(projection);
	int64		passed = projection->position;
	int64		handled = 0;

	while (handled < mode->limit &&
		   !(handled > 0 && projection_limit_is_near()) &&
		   failure_first(owner, stream, &failure))
	{
		RetryResult result;

		CHECK_FOR_INTERRUPTS();
		result = retry_event(projection, &failure, mode);
		if (result == RETRY_HANDLED)
			handled++;
		else if (result == RETRY_FAILED || !failure_forget_removed(owner, stream, passed))
			return handled;
	}
	failure_release(projection_failures(projection), stream);
	return handled;
}

void
projection_discard(Projection *projection, const Failure *failure)
{
	Failure		next;

	(void) failure_remove(projection->log, failure->id);
	if (failure_first(projection_failures(projection), failure->stream, &next) &&
		!next.failed)
		(void) projection_retry_stream(projection, failure->stream,
									   &projection_retry_by_user);
}

/* Claims a projection some of whose parked events are due; NULL if there is none. */
static Projection *
claim_due_retry(Oid log, const char *name, TimestampTz begun)
{
	Oid			types[2] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[2] = {name ? CStringGetTextDatum(name) : (Datum) 0,
	TimestampTzGetDatum(begun)};
	int			level = projection_begin_lasting_plan();
	Projection *projection;

	projection = projection_select(log,
								   "p WHERE p.mode = 'async' AND p.state <> 'paused'"
								   " AND ($1 IS NULL OR p.name = $1)"
								   " AND EXISTS (SELECT FROM @extschema@.es_failures f"
								   " WHERE f.projection = p.name"
								   " AND " FAILURE_IS_DUE("f.", "$2") ")"
								   " ORDER BY p.ran_at NULLS FIRST LIMIT 1"
								   " FOR UPDATE SKIP LOCKED",
								   2, types, values, name ? "  " : "n ");
	AtEOXact_GUC(true, level);
	return projection;
}

/*
 * Retries the parked events of a stream that are due.  The log is locked before any
 * other table, as everywhere, since DROP EXTENSION begins with it.
 */
bool
projection_retry_due(Oid log, const char *name, bool own_transaction,
					 TimestampTz begun, int64 *handled)
{
	RetryMode	mode = {.own_transaction = own_transaction};
	Projection *projection;
	char	   *stream;

	LockRelationOid(log, AccessShareLock);
	projection = claim_due_retry(log, name, begun);
	stream = projection == NULL ? NULL :
		failure_due_stream(projection_failures(projection), begun);
	if (stream == NULL)
		return false;
	mode.limit = projection->batch_size;
	projection_limit_turn(projection->name);
	*handled += projection_retry_stream(projection, stream, &mode);
	return true;
}
