/*-------------------------------------------------------------------------
 *
 * projection_failure.c
 *		What follows a batch of an async projection: it goes on, or the event that
 *		failed is found and tried again.
 *
 *	1. Find the event.  A handler fails at an event that is known: the events before
 *	   it are applied by themselves next.  A query or a deferred trigger may have
 *	   failed at any event of the batch: it is halved until one is alone.  The parts
 *	   are tried at once, and those before the event take effect.  batch_limit and
 *	   suspect_upto of the row hold the state of the search.
 *	2. Find the cause.  If it lies outside of the event (failure.c), the projection
 *	   waits at the event and tries again for as long as it takes.  The attempts do
 *	   not count.
 *	3. An event that is itself the cause is parked at once, if on_failure is 'park'.
 *	   Other streams go on, and projection_retry.c tries it again.  Otherwise the
 *	   projection waits at the event, and has failed after max_attempts.  It still
 *	   tries again, as handlers are replaced without notice.
 *
 * An error may also end the whole transaction, at its commit.  Then nothing is noted, and
 * the projection would be the first in the next round again.  So a worker notes it in
 * a transaction of its own (projection_note_lost_batch).
 *
 * Pauses between attempts grow to eventstore.max_retry_pause.  The first success
 * clears all that was noted.
 *
 * The server's log gets a line when a projection has failed, has waited for some
 * attempts, or parks an event for good; not for each attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

/* How much the last batch counts in the average of the rate. */
#define RATE_WEIGHT		0.2

/* The least pause of a projection that has failed, in seconds. */
#define FAILED_PAUSE	30

/* After so many failed attempts in a row the log says that a projection waits. */
#define ATTEMPTS_UNSAID	3

/* Stores parked events in es_failures. */
void
projection_save_parked(const Projection *projection, List *parked)
{
	park_save(projection_failures(projection), parked,
			  projection->max_attempts > 1 ? failure_retry_pause(NULL, 1) :
			  FAILURE_PARKED);
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
							   clear ? PROJECTION_GOES_ON : "");

	projection_update(projection, set, batch->count > 0 ? 4 : 2, types,
					  values, NULL);
}

/*
 * Notes a success.  While a bad event is searched for, it still lies ahead, and
 * the error stays.
 */
void
projection_note_success(const Projection *projection, const EventBatch *batch,
						TimestampTz started)
{
	bool		clear = projection->message != NULL &&
	batch->upto >= projection->suspect_upto;

	move_checkpoint(projection, batch, started, clear);
	if (clear && projection->attempts >= ATTEMPTS_UNSAID)
		ereport(LOG,
				(errmsg("projection \"%s\" goes on after %d failed attempts",
						projection->name, projection->attempts)));
}

/* Warns of an error. */
void
projection_warn(const Projection *projection, const char *what,
				const ErrorData *error, const char *hint)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("projection \"%s\" %s: %s", projection->name, what,
					error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("%s", hint),
			 error->context ? errcontext("%s", error->context) : 0));
}

/*
 * Warns of the first event of the batch, if it has any.  what: the predicate of
 * the message; at: the words before the name of the event.
 */
static void
warn_of_event(const Projection *projection, const EventBatch *batch,
			  const char *what, const char *at, const ErrorData *error,
			  const char *hint)
{
	if (batch->count > 0 && projection->kind != PROJECTION_REFRESH)
	{
		Relation	log = table_open(projection->log, AccessShareLock);

		what = psprintf("%s%s the %s", what, at,
						event_batch_describe_first(log, batch->events));
		table_close(log, AccessShareLock);
	}
	projection_warn(projection, what, error, hint);
}

/* What is written of a failure. */
typedef struct BatchFailure
{
	const ErrorData *error;
	int			attempts;
	int			attempts_used;
	double		pause;			/* seconds to the next attempt */
	int64		position;		/* of the event; 0: it is not known */
	int			batch_limit;	/* for the next batch; 0: none */
	int64		suspect_upto;
} BatchFailure;

/* Writes a failure into the projection's row. */
static void
write_failure(const Projection *projection, const BatchFailure *failure)
{
	Oid			types[10] = {INT4OID, INT4OID, FLOAT8OID, INT8OID, INT4OID,
	INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[10] = {
		Int32GetDatum(failure->attempts),
		Int32GetDatum(failure->attempts_used),
		Float8GetDatum(failure->pause), Int64GetDatum(failure->position),
		Int32GetDatum(failure->batch_limit),
		Int64GetDatum(failure->suspect_upto)
	};
	char		nulls[10];

	memset(nulls, ' ', sizeof(nulls));
	failure_error_values(failure->error, &values[6], &nulls[6]);
	projection_update(projection,
					  "attempts = $2, attempts_used = $3,"
					  " state = CASE WHEN $3 >= max_attempts THEN 'failed' ELSE state END,"
					  " next_attempt = clock_timestamp() + make_interval(secs => nullif($4, 0)),"
					  " failing_since = coalesce(failing_since, clock_timestamp()),"
					  " failed_position = nullif($5, 0),"
					  " batch_limit = nullif($6, 0), suspect_upto = nullif($7, 0),"
					  " sqlstate = $8, message = $9, detail = $10, context = $11,"
					  " ran_at = clock_timestamp()",
					  10, types, values, nulls);
}

/* Says that a projection has failed, or that it waits. */
static void
say_failed_attempt(const Projection *projection, const EventBatch *batch,
				   const BatchFailure *failure)
{
	bool		used_up = failure->attempts_used >= projection->max_attempts;

	if (used_up && !projection->failed)
		warn_of_event(projection, batch, "has failed", " at", failure->error,
					  "It tries again by itself, ever less often. es_resume_projection() lets it try at once.");
	else if (!used_up && failure->attempts == ATTEMPTS_UNSAID &&
			 failure_is_external(failure->error))
		warn_of_event(projection, batch, "waits", " at", failure->error,
					  "It goes on by itself when the cause is gone. es_resume_projection() lets it try at once.");
}

/*
 * Lets the projection wait at the first event of the batch, which has failed, or
 * where it is if no event could be read.
 */
static void
wait_at_event(const Projection *projection, const EventBatch *batch,
			  const ErrorData *error)
{
	bool		counts = !failure_is_external(error);
	BatchFailure failure = {
		.error = error,
		.attempts = projection->attempts + 1,
		.attempts_used = projection->attempts_used + (counts ? 1 : 0),
		.batch_limit = projection->batch_limit,
		.suspect_upto = projection->suspect_upto
	};

	failure.pause = failure_retry_pause(error, failure.attempts);
	if (failure.attempts_used >= projection->max_attempts)
		failure.pause = failure_bound_pause(Max(failure.pause, FAILED_PAUSE));
	if (batch->count > 0 && projection->kind != PROJECTION_REFRESH)
	{
		failure.position = event_batch_position(projection->log,
												batch->events, 0);
		failure.batch_limit = 1;
		failure.suspect_upto = failure.position;
	}
	write_failure(projection, &failure);
	say_failed_attempt(projection, batch, &failure);
}

/* Lets a part of the batch be tried next, at once. */
static void
search_event(const Projection *projection, const EventBatch *batch,
			 const ErrorData *error, int limit)
{
	BatchFailure failure = {
		.error = error,
		.attempts = projection->attempts,
		.attempts_used = projection->attempts_used,
		.batch_limit = limit,
		.suspect_upto = batch->upto
	};

	if (projection->failed_event > 0)
		failure.position = event_batch_position(projection->log,
												batch->events,
												projection->failed_event);
	write_failure(projection, &failure);
}

/*
 * Parks the first event of a batch, and those before it that wait behind parked
 * ones, and moves the checkpoint after it.
 */
static void
park_failed_event(const Projection *projection, const EventBatch *batch,
				  ErrorData *error, TimestampTz started, List *waiting)
{
	EventBatch	rest = {.upto = batch->count == 1 ? batch->upto :
	event_batch_position(projection->log, batch->events, 0)};
	List	   *parked;
	text	   *stream;

	parked = park_first(projection->log, batch, error, 1,
						park_upto(waiting, rest.upto), &stream);
	projection_save_parked(projection, parked);
	move_checkpoint(projection, &rest, started, true);
	if (projection->max_attempts == 1)
		warn_of_event(projection, batch, "has parked", "", error, FAILURE_HINT);
}

/*
 * Returns true if the batch must be applied in parts to find the event that
 * failed, and sets the number of events in the first part.
 */
static bool
divide_batch(const Projection *projection, const EventBatch *batch,
			 int *limit)
{
	if (batch->count <= 1 || projection->kind == PROJECTION_REFRESH ||
		projection->failed_event == 0)
		return false;
	*limit = projection->failed_event > 0 ? projection->failed_event :
		batch->count / 2;
	return true;
}

/* Notes a failure, and what follows, as the header of this file says. */
void
projection_note_failure(const Projection *projection, const EventBatch *batch,
						ErrorData *error, TimestampTz started, List *parked)
{
	int			limit;

	if (divide_batch(projection, batch, &limit))
		search_event(projection, batch, error, limit);
	else if (projection->park && batch->count > 0 &&
			 !failure_is_external(error))
		park_failed_event(projection, batch, error, started, parked);
	else
		wait_at_event(projection, batch, error);
}

/*
 * Notes an error that ended the transaction of a batch.  The projection pauses, so that
 * it does not keep others waiting with the same error again and again.
 */
void
projection_note_lost_batch(Oid log, const char *name, const ErrorData *error)
{
	EventBatch	none = {.count = 0};
	Projection *projection;

	SPI_connect();
	projection = projection_find(log, name, "FOR UPDATE SKIP LOCKED");
	if (projection != NULL)
		wait_at_event(projection, &none, error);
	SPI_finish();
}
