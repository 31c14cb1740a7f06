/*-------------------------------------------------------------------------
 *
 * horizon.c
 *		es_horizon(): up to which position nothing can appear any more.
 *
 * The proof is in doc/horizon.md; this is what it stands on.
 *
 * Appenders (log.c) hold RowExclusiveLock on es_events and have a transaction
 * id before they draw a position, and keep both to their end.  An event's
 * next_xid is the next transaction id at a moment after its position was drawn,
 * so that whoever owns an earlier position has an id below the next_xid.
 *
 * Here, for the snapshot S of the calling statement:
 *
 *	1. Doubt.  Candidates are the ids that S sees as running, and those from
 *	   S.xmax up to the next one now.  First the holders of conflicting locks
 *	   on es_events are listed; they may own a position that S does not see.
 *	   Then each other candidate is asked whether it is still in progress: if
 *	   it is, it owns none, since it would have been listed.  If it is not, it
 *	   may have committed one after S was taken, unless it was rolled back.  W
 *	   is the smallest id that may.  On a standby locks tell nothing; there W
 *	   is S.xmin, and a worker of the primary tells what it has decided
 *	   (published_horizon.c).
 *
 *	2. Search.  The position index is walked backward under S, to the first
 *	   event whose next_xid is not above W, or that the primary has decided:
 *	   everything below it is decided.  A gap below an event whose next_xid is
 *	   above W is in doubt; the horizon is the event below the lowest such
 *	   gap, or the last event.
 *
 * Nothing is locked but es_events against being dropped, and nothing waits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_horizon);

/* Milliseconds from one word to standbys to the next. */
#define TELL_INTERVAL	100

/* What a horizon was computed for, and the result. */
typedef struct HorizonCache
{
	LocalTransactionId lxid;
	SubTransactionId subid;
	TransactionId xmin;
	TransactionId xmax;
	uint32		xcnt;
	CommandId	curcid;
	uint64		completions;	/* of transactions, when S was taken */
	int64		horizon;
} HorizonCache;

/* Which transaction ids may own a position that S does not see. */
typedef struct Doubt
{
	FullTransactionId next;		/* the next id to be given */
	FullTransactionId limit;	/* W: no id below it may own one */
	TransactionId *holders;		/* ids with a write lock on es_events */
	int			holder_count;
	bool		holders_unknown;	/* an id may be missing in holders */
	int64		decided;		/* up to here the primary knows of no doubt */
} Doubt;

/*
 * The id with its epoch, which is that of the next id or the one before.
 */
static FullTransactionId
full_xid(const Doubt *doubt, TransactionId xid)
{
	uint64		next = U64FromFullTransactionId(doubt->next);

	return FullTransactionIdFromU64(next -
									(uint32) (XidFromFullTransactionId(doubt->next) - xid));
}

static void
add_holder(Doubt *doubt, TransactionId xid)
{
	if (TransactionIdIsNormal(xid))
		doubt->holders[doubt->holder_count++] = xid;
}

/*
 * Lists the transactions that hold a write lock on es_events.  The lock table
 * knows them by virtual id.  A prepared transaction keeps the virtual id of
 * the backend that prepared it; while it is being prepared its id is first in
 * both places, then only with the prepared ones: hence the order of the two
 * look-ups.
 */
static void
list_holders(Doubt *doubt, Oid log)
{
	LOCKTAG		tag;
	VirtualTransactionId *vxids;
	int			count;
	int			i;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, log);
	vxids = GetLockConflicts(&tag, ShareLock, &count);
	doubt->holders = palloc(sizeof(TransactionId) * 2 * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		bool		have_more = false;

		if (VirtualTransactionIdIsRecoveredPreparedXact(vxids[i]))
		{
			add_holder(doubt, vxids[i].localTransactionId);
			continue;
		}
		add_holder(doubt, compat_vxid_current_xid(vxids[i]));
		add_holder(doubt, TwoPhaseGetXidByVirtualXID(vxids[i], &have_more));
		if (have_more)
			doubt->holders_unknown = true;
	}
}

static bool
is_holder(const Doubt *doubt, TransactionId xid)
{
	int			i;

	for (i = 0; i < doubt->holder_count; i++)
	{
		if (TransactionIdEquals(doubt->holders[i], xid))
			return true;
	}
	return false;
}

/*
 * Can this candidate own a position that S does not see?  The log of commits
 * is only asked about what is no longer in progress, as it may lag behind.
 */
static bool
may_own(const Doubt *doubt, TransactionId xid)
{
	return doubt->holders_unknown ||
		is_holder(doubt, xid) ||
		(!TransactionIdIsInProgress(xid) && TransactionIdDidCommit(xid));
}

/*
 * Finds W as a standby does, where locks tell nothing.
 */
static void
find_limit_by_xmin(Doubt *doubt, Snapshot snapshot)
{
	doubt->next = ReadNextFullTransactionId();
	doubt->limit = full_xid(doubt, snapshot->xmin);
}

/*
 * Finds W.  If nobody may own an invisible position there is no doubt at all:
 * W is above every next_xid, also above one that a crash has left ahead of the
 * ids.
 */
static void
find_limit(Doubt *doubt, Oid log, Snapshot snapshot)
{
	FullTransactionId xid;
	uint32		i;

	doubt->next = ReadNextFullTransactionId();
	doubt->limit = FullTransactionIdFromU64(PG_UINT64_MAX);
	list_holders(doubt, log);
	for (i = 0; i < snapshot->xcnt; i++)
	{
		xid = full_xid(doubt, snapshot->xip[i]);
		if (FullTransactionIdPrecedes(xid, doubt->limit) &&
			may_own(doubt, snapshot->xip[i]))
			doubt->limit = xid;
	}
	for (xid = full_xid(doubt, snapshot->xmax);
		 FullTransactionIdPrecedes(xid, doubt->next) &&
		 FullTransactionIdPrecedes(xid, doubt->limit);
		 FullTransactionIdAdvance(&xid))
	{
		CHECK_FOR_INTERRUPTS();
		if (may_own(doubt, XidFromFullTransactionId(xid)))
			doubt->limit = xid;
	}
}

/*
 * Walks the log backward from its last event to the first decided one.
 */
static int64
search_backward(const Doubt *doubt, IndexScanDesc scan, TupleTableSlot *slot)
{
	int64		horizon = 0;
	int64		upper = 0;		/* the event before; 0: this is the last */

	while (index_getnext_slot(scan, BackwardScanDirection, slot))
	{
		bool		isnull;
		int64		position;
		FullTransactionId next_xid;

		CHECK_FOR_INTERRUPTS();
		position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
											  &isnull));
		next_xid = DatumGetFullTransactionId(slot_getattr(slot,
														  Anum_es_events_next_xid,
														  &isnull));
		if (upper == 0 || position != upper - 1)
			horizon = position;
		if (!FullTransactionIdFollows(next_xid, doubt->limit) ||
			position <= doubt->decided)
			return horizon;
		upper = position;
	}
	return upper > 1 ? 0 : horizon;
}

/*
 * The horizon that follows from the doubt.
 */
static int64
search(const Doubt *doubt, Relation log, Snapshot snapshot)
{
	Relation	index = log_index_open_position(log);
	TupleTableSlot *slot = table_slot_create(log, NULL);
	IndexScanDesc scan = compat_index_beginscan(log, index, snapshot, 0);
	int64		horizon;

	index_rescan(scan, NULL, 0, NULL, 0);
	horizon = search_backward(doubt, scan, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return horizon;
}

/*
 * The horizon of the log for who reads with the snapshot, which must not be
 * an older one than an earlier call's in the same transaction.
 */
int64
horizon_find(Oid relid, Snapshot snapshot)
{
	Doubt		doubt = {0};
	Relation	log = table_open(relid, AccessShareLock);
	int64		horizon;

	if (snapshot->takenDuringRecovery)
	{
		find_limit_by_xmin(&doubt, snapshot);
		doubt.decided = published_horizon_read(relid, snapshot);
	}
	else
		find_limit(&doubt, relid, snapshot);
	horizon = search(&doubt, log, snapshot);
	table_close(log, AccessShareLock);
	return horizon;
}

/*
 * The horizon that a standby finds by itself at this moment of the primary;
 * the search ends at what is known to be decided.
 */
static int64
find_as_standby(Oid relid, Snapshot snapshot, int64 decided)
{
	Doubt		doubt = {.decided = decided};
	Relation	log = table_open(relid, AccessShareLock);
	int64		horizon;

	find_limit_by_xmin(&doubt, snapshot);
	horizon = search(&doubt, log, snapshot);
	table_close(log, AccessShareLock);
	return horizon;
}

/*
 * Tells standbys the horizon of the active snapshot, for a worker of the
 * primary, if they would not find it by themselves.  True if it is to come
 * again soon.
 */
bool
horizon_publish(Oid log)
{
	static Oid	told_log = InvalidOid;
	static int64 told = 0;		/* up to here standbys know */
	static TimestampTz told_at = 0;
	Snapshot	snapshot = GetActiveSnapshot();
	TimestampTz now = GetCurrentTimestamp();
	int64		horizon;

	if (!XLogStandbyInfoActive())
		return false;
	if (told_log != log)
		told = published_horizon_read(log, snapshot);
	told_log = log;
	horizon = horizon_find(log, snapshot);
	if (horizon <= told)
		return false;
	if (!TimestampDifferenceExceeds(told_at, now, TELL_INTERVAL) ||
		(find_as_standby(log, snapshot, told) < horizon &&
		 !published_horizon_write(log, horizon)))
		return true;
	told = horizon;
	told_at = now;
	return false;
}

/*
 * Is the cached horizon that of this snapshot?  Snapshots are told apart by
 * what they see, since their addresses are used again.
 */
static bool
cache_serves(const HorizonCache *cache, const HorizonCache *now)
{
	return cache->completions != 0 &&
		cache->completions == now->completions &&
		cache->lxid == now->lxid &&
		cache->subid == now->subid &&
		cache->xmin == now->xmin &&
		cache->xmax == now->xmax &&
		cache->xcnt == now->xcnt &&
		cache->curcid == now->curcid;
}

/*
 * A transaction that reads with one snapshot knows less and less of who was
 * running when it was taken: when such a one commits, an old gap is in doubt
 * again.  What was decided for the snapshot stays decided, so that the
 * greatest horizon of the transaction is kept.
 */
static int64
keep_greatest(const HorizonCache *now)
{
	static LocalTransactionId lxid = InvalidLocalTransactionId;
	static CommandId curcid = 0;
	static int64 greatest = 0;

	if (!IsolationUsesXactSnapshot())
		return now->horizon;
	if (lxid != now->lxid || curcid > now->curcid || greatest < now->horizon)
	{
		lxid = now->lxid;
		curcid = now->curcid;
		greatest = now->horizon;
	}
	return greatest;
}

/*
 * es_horizon() returns bigint: the highest position up to which nothing can
 * appear any more for who reads with the calling statement's snapshot; 0 if
 * there is none.
 */
Datum
es_horizon(PG_FUNCTION_ARGS)
{
	HorizonCache *cache = fcinfo->flinfo->fn_extra;
	Snapshot	snapshot = GetActiveSnapshot();
	HorizonCache now = {
		.lxid = compat_my_lxid(),
		.subid = GetCurrentSubTransactionId(),
		.xmin = snapshot->xmin,
		.xmax = snapshot->xmax,
		.xcnt = snapshot->xcnt,
		.curcid = snapshot->curcid,
		.completions = snapshot->snapXactCompletionCount
	};

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
									   sizeof(HorizonCache));
		fcinfo->flinfo->fn_extra = cache;
	}
	if (!cache_serves(cache, &now))
	{
		now.horizon = horizon_find(log_relid(fcinfo->flinfo->fn_oid),
								   snapshot);
		now.horizon = keep_greatest(&now);
		*cache = now;
	}
	PG_RETURN_INT64(cache->horizon);
}

/*
 * The horizon of this moment, whatever the isolation level.
 */
int64
horizon_now(Oid log)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		horizon = horizon_find(log, snapshot);

	UnregisterSnapshot(snapshot);
	return horizon;
}
