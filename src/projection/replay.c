/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Handling a range of the log in one transaction: for a rebuild, and for a
 *		projection that becomes sync.
 *
 * The events are read and applied in batches.  A batch that fails is divided until the
 * event that fails is alone, if events may be parked, or if it would not be known which
 * event it is, as a query gets all of them at once.  That event is then parked, and
 * later events of its stream behind it; or its error ends the transaction.
 * The projection's row is not touched: the caller writes the new checkpoint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection_failure.h"
#include "projection/rebuild.h"

/*
 * Parks the only event of the batch.  Its stream is parked from now on, and
 * batches have their full size again.
 */
static void
park_replayed_event(Projection *projection, const EventBatch *batch, ErrorData *error,
					Replay *replay)
{
	text	   *stream;

	replay->parked = park_first(projection->log, batch, error, 1,
								replay->parked, &stream);
	replay->streams = lappend(replay->streams, stream);
	projection->batch_limit = 0;
}

/*
 * Returns true if a batch that fails is to be divided.  A handler's error says by itself
 * at which event it was raised.
 */
static bool
is_divided(const Projection *projection, const EventBatch *batch,
		   const Replay *replay)
{
	return replay->park ||
		(projection->kind == PROJECTION_QUERY && batch->count > 1);
}

/* Lets a part of the batch, which has failed, be tried next. */
static void
divide_replayed_batch(Projection *projection, const EventBatch *batch,
					  Replay *replay)
{
	projection->batch_limit = projection->failed_event >= 0 ?
		Max(projection->failed_event, 1) : batch->count / 2;
	replay->suspect_upto = Max(replay->suspect_upto, batch->upto);
}

/*
 * Handles one batch.  Returns false if it failed and must be tried again as a
 * smaller one.  The error is raised without parking, and if its cause lies outside of
 * the event, as all events would be parked then.
 */
static bool
replay_batch(Projection *projection, EventBatch *batch, Replay *replay)
{
	ErrorData  *error = NULL;
	List	   *waiting;

	waiting = park_take(projection->log, batch, replay->streams, NIL);
	if (batch->count > 0)
	{
		if (is_divided(projection, batch, replay))
			error = projection_try_batch(projection, batch, false);
		else
			projection_apply(projection, batch->events, batch->history);
	}
	if (error != NULL && failure_is_external(error))
		ReThrowError(error);
	if (error != NULL && batch->count > 1)
	{
		divide_replayed_batch(projection, batch, replay);
		return false;
	}
	replay->parked = list_concat(replay->parked, waiting);
	if (error != NULL)
		park_replayed_event(projection, batch, error, replay);
	else
		replay->handled += batch->count;
	if (batch->upto >= replay->suspect_upto)
		projection->batch_limit = 0;
	return true;
}

/*
 * Handles all events after the projection's position up to replay->upto, and
 * moves the position there.
 */
static void
replay_batches(Projection *projection, Snapshot snapshot, Replay *replay)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore replay",
												  ALLOCSET_DEFAULT_SIZES);

	while (projection->position < replay->upto)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		EventBatch	batch = {0};

		CHECK_FOR_INTERRUPTS();
		batch.events = event_batch_make();
		projection_read_batch(projection, snapshot, replay->upto,
							  projection_batch_limit(projection), &batch);
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

/* Handles what is stable now, without making others wait. */
void
replay_to_horizon(Projection *projection, int64 at_least, Replay *replay)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	replay->upto = Max(horizon_find(projection->log, snapshot), at_least);
	replay_batches(projection, snapshot, replay);
	UnregisterSnapshot(snapshot);
}

/*
 * Handles all that is left.  No other session can append meanwhile, but a handler
 * can, which adds events.
 */
void
replay_to_end(Projection *projection, Replay *replay)
{
	while ((replay->upto = projection_last_position(projection->log)) >
		   projection->position)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		replay_batches(projection, snapshot, replay);
		UnregisterSnapshot(snapshot);
	}
}
