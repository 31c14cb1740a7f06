/*-------------------------------------------------------------------------
 *
 * visible_events.c
 *		The events of a match that the current user may see, where row security hides some.
 *
 * Positions that match are read in chunks, by SQL as the user.  The first chunk has as many
 * as are wanted.  If too many of them are hidden the next ones are larger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "tag/tag.h"

/* Positions that are read at once, at most. */
#define MAX_CHUNK	1000

/* Takes the events at some positions that the user may see.  Returns how many. */
static int64
take_visible(const VisibleEvents *wanted, Relation log, Int8Array positions, int64 most)
{
	Oid			types[1] = {INT8ARRAYOID};
	Datum		values[1] = {PointerGetDatum(int8_array_make(positions))};
	Tuplestorestate *events = event_batch_make();
	TupleTableSlot *slot = event_slot_make(log);
	int64		count = 0;

	event_sql_run(GetUserId(), wanted->snapshot,
				  event_sql_make(log, wanted->backward ?
								 "e.position = ANY ($1) ORDER BY e.position DESC" :
								 "e.position = ANY ($1) ORDER BY e.position"),
				  1, types, values, NULL, events);
	while (count < most && tuplestore_gettupleslot(events, true, false, slot))
	{
		wanted->take(wanted->taker, slot);
		count++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(events);
	return count;
}

void
visible_events_read(Match *match, const VisibleEvents *wanted)
{
	Relation	log = table_open(wanted->log, AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eventstore chunk",
												  ALLOCSET_DEFAULT_SIZES);
	Int8Array	positions = {.values = palloc(sizeof(int64) * MAX_CHUNK)};
	int64		left = wanted->max_count;
	int64		chunk = Min(left, MAX_CHUNK);
	bool		more = left > 0;

	while (more)
	{
		MemoryContext caller;

		match_take(match, &positions, chunk);
		caller = MemoryContextSwitchTo(context);
		if (positions.count > 0)
			left -= take_visible(wanted, log, positions, left);
		more = left > 0 && positions.count == chunk;
		chunk = Min(2 * chunk, MAX_CHUNK);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	pfree(positions.values);
	table_close(log, AccessShareLock);
}
