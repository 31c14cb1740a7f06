/*-------------------------------------------------------------------------
 *
 * horizon_search.c
 *		Searching the log for the lowest gap in doubt (doc/internals/horizon.md, step 2).
 *
 * Below an event whose next_xid is not above the oldest transaction in doubt
 * everything is stable: such an event proves it.  A gap below an event that proves
 * nothing is in doubt.  So is no gap up to a position that is known to be stable, whether
 * there is an event or it was removed.
 *
 *	1. If a position is known to be stable, walk forward from there, a few steps.  The
 *	   first gap in doubt is the end: the horizon is the event below it.  So is the end
 *	   of the log.
 *
 *	2. Walk backward from the last event, a few steps, to one that proves, or that is
 *	   known to be stable.  The horizon is the event below the lowest gap on the way, or
 *	   the last event.
 *
 *	3. Mostly one of these has decided.  Otherwise an appender has been open for long,
 *	   and the events above its gap prove nothing.  Find about the last event that proves
 *	   by bisection, and go on from there forward and from above backward, in turn, until
 *	   one of the walks decides or they meet.
 *
 * An event that logical replication has brought proves nothing.  A search that is to stop
 * there does so at the first one that it comes to.
 *
 * The forward walk may end below the backward one, at a gap that a later event would
 * prove to be stable.  Both are safe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "log/log.h"
#include "log/replica.h"

/* Steps in one direction before the other is tried. */
#define FIRST_STEPS	16

/* Positions that are walked rather than bisected. */
#define WALKED		256

typedef struct HorizonSearch
{
	Relation	log;
	Relation	index;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	FullTransactionId oldest;	/* transaction in doubt */
	IndexScanDesc backward;		/* null: not begun */
	int64		upper;			/* where it is; the greatest bigint: not begun */
	IndexScanDesc forward;		/* null: not begun */
	int64		stable;			/* where it is: everything up to here is
								 * stable */
	int64		horizon;		/* by what the walk backward has found */
	bool		stop_at_applied;	/* at an event that was applied */
} HorizonSearch;

/* An event that the walk has come to. */
typedef struct WalkedEvent
{
	int64		position;
	bool		proves;			/* everything below is stable */
} WalkedEvent;

/* Fetches the next event.  Returns false at the end of the log. */
static bool
next_event(HorizonSearch *search, IndexScanDesc scan, ScanDirection direction,
		   WalkedEvent *event)
{
	bool		isnull;
	FullTransactionId next_xid;

	CHECK_FOR_INTERRUPTS();
	if (!index_getnext_slot(scan, direction, search->slot))
		return false;
	event->position = DatumGetInt64(slot_getattr(search->slot,
												 Anum_es_events_position,
												 &isnull));
	next_xid = DatumGetFullTransactionId(slot_getattr(search->slot,
													  Anum_es_events_next_xid,
													  &isnull));
	event->proves = !FullTransactionIdFollows(next_xid, search->oldest);
	if (unlikely(U64FromFullTransactionId(next_xid) == NEXT_XID_APPLIED) && search->stop_at_applied)
		search->horizon = HORIZON_APPLIED;
	return true;
}

/* Returns true if the search is to stop, as it has come to an applied event. */
static inline bool
is_stopped(const HorizonSearch *search)
{
	return unlikely(search->horizon == HORIZON_APPLIED);
}

/* Lets the walk forward go on after the position. */
static void
set_forward(HorizonSearch *search, int64 position)
{
	ScanKeyData key;

	if (search->forward == NULL)
		search->forward = compat_index_beginscan(search->log, search->index,
												 search->snapshot, 1);
	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(position));
	index_rescan(search->forward, &key, 1, NULL, 0);
}

/* A step forward.  Returns true if it decides. */
static bool
step_forward(HorizonSearch *search)
{
	WalkedEvent event;

	if (search->forward == NULL)
		set_forward(search, search->stable);
	if (!next_event(search, search->forward, ForwardScanDirection, &event))
	{
		if (search->upper == PG_INT64_MAX)
			search->horizon = search->stable;
		return true;
	}
	if (is_stopped(search))
		return true;
	if (event.position != search->stable + 1 && !event.proves)
	{
		search->horizon = search->stable;
		return true;
	}
	search->stable = event.position;
	return event.position >= search->upper;
}

/* A step backward.  Returns true if it decides. */
static bool
step_backward(HorizonSearch *search)
{
	WalkedEvent event;

	if (search->backward == NULL)
	{
		search->backward = compat_index_beginscan(search->log, search->index,
												  search->snapshot, 0);
		index_rescan(search->backward, NULL, 0, NULL, 0);
	}
	if (!next_event(search, search->backward, BackwardScanDirection, &event))
	{
		if (search->upper - 1 > search->stable)
			search->horizon = search->stable;
		return true;
	}
	if (is_stopped(search))
		return true;
	if (Max(event.position, search->stable) < search->upper - 1)
		search->horizon = Max(event.position, search->stable);
	search->upper = event.position;
	return event.proves || event.position <= search->stable;
}

/*
 * Moves the walk forward to about the last event that proves.  next_xids ascend but for
 * neighbours, and any event that proves is a place to go on from.
 */
static void
bisect(HorizonSearch *search)
{
	int64		low = search->stable;
	int64		high = search->upper;

	while (high - low > WALKED && !is_stopped(search))
	{
		int64		middle = low + (high - low) / 2;
		WalkedEvent event;

		set_forward(search, middle);
		if (next_event(search, search->forward, ForwardScanDirection, &event) &&
			event.position < search->upper && event.proves)
			low = event.position;
		else
			high = middle;
	}
	search->stable = low;
	set_forward(search, low);
}

static bool
walk_some(HorizonSearch *search, bool (*step) (HorizonSearch *search))
{
	for (int i = 0; i < FIRST_STEPS; i++)
	{
		if (step(search))
			return true;
	}
	return false;
}

static void
walk(HorizonSearch *search)
{
	if ((search->stable > 0 && walk_some(search, step_forward)) ||
		walk_some(search, step_backward))
		return;
	bisect(search);
	while (!is_stopped(search) && !step_forward(search) && !step_backward(search))
		;
}

int64
horizon_search(Relation log, Snapshot snapshot, FullTransactionId oldest,
			   int64 stable, bool stop_at_applied)
{
	HorizonSearch search = {
		.log = log,
		.index = log_index_open_position(log),
		.snapshot = snapshot,
		.slot = table_slot_create(log, NULL),
		.oldest = oldest,
		.upper = PG_INT64_MAX,
		.stable = stable,
		.stop_at_applied = stop_at_applied
	};

	walk(&search);
	if (search.forward != NULL)
		index_endscan(search.forward);
	if (search.backward != NULL)
		index_endscan(search.backward);
	ExecDropSingleTupleTableSlot(search.slot);
	index_close(search.index, AccessShareLock);
	return search.horizon;
}
