/*-------------------------------------------------------------------------
 *
 * retention_step.c
 *		One step of a rule: a bounded number of removals in one transaction.
 *
 *	1. The streams of the next events that are too old, and then those of new events, are
 *	   shortened, one after the other.
 *	2. If there are no more such events for now, streams are tried again that had to be
 *	   left.
 *
 * A walk is where all streams before it are done, so a step that ends early, or is rolled
 * back, is gone on with by the next one.
 *
 * A stream is looked at without a lock, and is locked only if something is to be removed.
 * A worker waits for the lock of a stream only while it has none, so that no appender waits
 * for another stream's; and not longer than appenders wait for before they look for a
 * deadlock.  The lock of a busy stream is got that way, as waiters are served in
 * turn.  A stream that is locked for longer is left for later.
 * The same is done with the locks of the subjects that its events are about.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "log/tags.h"
#include "retention/retention.h"
#include "retention/rule.h"

/* How long a stream's lock is waited for; less than the default of deadlock_timeout. */
#define LOCK_WAIT	"500ms"

/* So many streams are remembered to be tried again, or as tagged. */
#define MAX_LEFT	1000

/* What has become of a stream. */
typedef enum StreamResult
{
	STREAM_DONE,
	STREAM_LEFT,				/* for later */
	STREAM_AGAIN				/* the next step begins with it */
} StreamResult;

/* Locks that are waited for: of a stream, and of the subjects of its events. */
typedef struct StreamWait
{
	Oid			log;
	LogLock    *locks;
	int			count;
} StreamWait;

/* Returns true if the step is to end before the next stream. */
static bool
step_is_full(const RetentionStep *step)
{
	instr_time	now;

	if (step->events >= step->max_events || step->streams >= step->max_streams)
		return true;
	if (step->max_time == 0)
		return false;
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, step->began);
	return INSTR_TIME_GET_MILLISEC(now) >= step->max_time;
}

/* Waits for the locks of a stream, as work for a subtransaction. */
static bool
wait_for_stream(void *arg)
{
	const StreamWait *wait = arg;
	int			level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", LOCK_WAIT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	log_lock_all(wait->log, wait->locks, wait->count);
	AtEOXact_GUC(true, level);
	return true;
}

/* The locks of the stream, and of tags of its events. */
static StreamWait
stream_locks(Oid log, text *stream, Datum tags)
{
	StreamWait	wait = {.log = log,.count = 1};

	wait.locks = palloc(sizeof(LogLock) * (1 + (tags ? tags_count(tags) : 0)));
	wait.locks[0] = log_lock_of_stream(stream);
	if (tags)
		wait.count += tags_add_locks(tags, wait.locks + 1);
	return wait;
}

/*
 * Locks the stream, and tags of its events, to the end of the transaction.
 */
static StreamResult
step_lock_stream(RetentionStep *step, text *stream, Datum tags)
{
	StreamWait	wait = stream_locks(step->rule->log, stream, tags);
	int			count = log_lock_count();
	ErrorData  *error;

	if (count >= ES_MAX_LOG_LOCKS)
		return STREAM_AGAIN;
	if (log_lock_try_all(wait.log, wait.locks, wait.count))
	{
		step->locked++;
		return STREAM_DONE;
	}
	if (step->waited)
		return STREAM_LEFT;
	if (step->own_transaction && step->locked > 0)
		return STREAM_AGAIN;
	error = subtransaction_try(wait_for_stream, &wait);
	if (error == NULL)
	{
		step->locked++;
		return STREAM_DONE;
	}
	log_lock_forget(count);
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	step->waited = true;
	return STREAM_LEFT;
}

/* Notes that a stream has events with tags, which cannot be truncated. */
static void
note_tagged(RetentionRule *rule, text *stream)
{
	ListCell   *cell;

	if (list_length(rule->tagged_streams) >= MAX_LEFT)
		return;
	foreach(cell, rule->tagged_streams)
	{
		if (stream_equal(lfirst(cell), stream))
			return;
	}
	rule->tagged_streams = lappend(rule->tagged_streams, stream);
}

/*
 * Removes what is to be removed of a stream.  aged_position: events up to there are too
 * old.
 */
static StreamResult
shorten_stream(RetentionStep *step, text *stream, int64 aged_position)
{
	int64		room = Max(step->max_events - step->events, 1);
	RetentionTarget target;
	StreamResult locked;

	target_find(step->rule, &step->hold, stream, aged_position, room, &target);
	if (target.count > 0 && target.tagged)
	{
		note_tagged(step->rule, stream);
		return STREAM_DONE;
	}
	if (target.count > 0)
	{
		locked = step_lock_stream(step, stream, target.tags);
		if (locked != STREAM_DONE)
			return locked;
		step->events += removal_truncate(step->rule->log, stream, target.before,
										 step->rule->metadata, target.count, true);
		step->streams++;
		if (target.count == room)
			return STREAM_AGAIN;
	}
	return target.parked ? STREAM_LEFT : STREAM_DONE;
}

/* Leaves a stream for later.  Returns false if too many are. */
static bool
leave_stream(RetentionRule *rule, text *stream)
{
	ListCell   *cell;

	foreach(cell, rule->left_streams)
	{
		if (stream_equal(lfirst(cell), stream))
			return true;
	}
	if (list_length(rule->left_streams) >= MAX_LEFT)
		return false;
	rule->left_streams = lappend(rule->left_streams, stream);
	return true;
}

/*
 * Shortens the streams of a batch.  Returns the position up to which that is done: the
 * batch's, or one before it, where the next step begins.
 */
static int64
shorten_streams(RetentionStep *step, const RetentionBatch *batch, int64 aged_position,
				bool *ended)
{
	ListCell   *cell;

	*ended = false;
	foreach(cell, batch->streams)
	{
		const BatchStream *stream = lfirst(cell);
		StreamResult result = STREAM_AGAIN;

		CHECK_FOR_INTERRUPTS();
		if (!step_is_full(step))
			result = shorten_stream(step, stream->name, aged_position);
		if (result == STREAM_AGAIN)
		{
			step->more = true;
			return stream->at - 1;
		}
		if (result == STREAM_LEFT && !leave_stream(step->rule, stream->name))
			return stream->at - 1;
	}
	*ended = batch->ended;
	if (!batch->ended)
		step->more = true;
	return batch->upto;
}

/* Walks over a batch of events that are too old.  Returns false if there are more. */
static bool
walk_aged(RetentionStep *step)
{
	RetentionRule *rule = step->rule;
	RetentionBatch batch;
	bool		ended;

	if (rule->max_age == NULL)
		return true;
	batch_find_aged(rule, step->hold.position, &batch);
	step->looked += batch.looked;
	if (batch.young_at != 0)
		step->due_at = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															   TimestampTzGetDatum(batch.young_at),
															   IntervalPGetDatum(rule->max_age)));
	rule->aged_position = shorten_streams(step, &batch, batch.upto, &ended);
	return ended;
}

/* The same of new events. */
static bool
walk_new(RetentionStep *step)
{
	RetentionRule *rule = step->rule;
	RetentionBatch batch;
	bool		ended;

	batch_find_new(rule, step->hold.position, &batch);
	step->looked += batch.looked;
	rule->seen_position = shorten_streams(step, &batch, rule->aged_position, &ended);
	return ended;
}

/* Tries streams again that were left.  Those that must still be left come last. */
static void
shorten_left_streams(RetentionStep *step)
{
	List	   *before = step->rule->left_streams;
	List	   *after = NIL;
	ListCell   *cell;

	step->rule->left_streams = NIL;
	foreach(cell, before)
	{
		StreamResult result = STREAM_AGAIN;

		CHECK_FOR_INTERRUPTS();
		if (!step->more && !step_is_full(step))
			result = shorten_stream(step, lfirst(cell), step->rule->aged_position);
		if (result == STREAM_LEFT)
			after = lappend(after, lfirst(cell));
		else if (result == STREAM_AGAIN)
		{
			step->rule->left_streams = lappend(step->rule->left_streams, lfirst(cell));
			step->more = true;
		}
	}
	step->rule->left_streams = list_concat(step->rule->left_streams, after);
}

void
step_run(RetentionStep *step)
{
	step->more = step->waited = false;
	INSTR_TIME_SET_CURRENT(step->began);
	if (walk_aged(step) && !step->more && walk_new(step) && !step->more)
		shorten_left_streams(step);
}
