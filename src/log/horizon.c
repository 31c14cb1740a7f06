/*-------------------------------------------------------------------------
 *
 * horizon.c
 *		es_horizon(): the highest position up to which no event can appear any
 *		more.
 *
 * The proof is in doc/internals/horizon.md.  It depends on two facts.  An appender
 * (log.c) holds RowExclusiveLock on es_events and has a transaction id before it draws
 * a position, and keeps both until it ends.  An event's next_xid is the next
 * transaction id at a moment after its position was drawn, so that the owner of any
 * lower position has an id below it.
 *
 * For the snapshot S of the calling statement:
 *
 *	1. Find the oldest transaction in doubt: the smallest id that may own a
 *	   position that S does not see.  Candidates are the ids that S sees as
 *	   running, and those from S.xmax up to the next one now.  First list the
 *	   holders of conflicting locks on es_events; each of them may own one.  Then
 *	   ask of each other candidate whether it is still in progress.  If it is, it
 *	   owns none, since it would have been listed.  If it is not, it may own one
 *	   that was committed after S was taken, unless it was rolled back.  On a
 *	   standby the locks of the primary are not known; there S.xmin is the oldest,
 *	   and a worker of the primary publishes what is stable (published_horizon.c).
 *
 *	2. Search the position index under S (horizon_search.c) for the lowest gap that
 *	   is in doubt.  The horizon is the event below it, or the last event.
 *
 * On the primary a session keeps the position that it has found.  What was stable for
 * a snapshot is stable for every later one, so the next search need not go below it.  Nor
 * need it go below what removals have left as a floor (removed.c).
 *
 * A log whose events come by a subscription has the horizon of its publisher (replica.c).
 *
 * The only lock is one that keeps es_events from being dropped, and nothing waits.
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
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/replica.h"

PG_FUNCTION_INFO_V1(es_horizon);

/* The least time in milliseconds between two horizons that are published. */
#define PUBLISH_INTERVAL	100

/* What a horizon was computed for, and the result. */
typedef struct HorizonCache
{
	LocalTransactionId lxid;
	SubTransactionId subid;
	TransactionId xmin;
	TransactionId xmax;
	uint32		xcnt;
	CommandId	curcid;
	int64		horizon;
} HorizonCache;

/*
 * A position up to which everything was found to be stable, and the snapshot for which
 * it was: its xmax and how many transactions below it were running.
 */
typedef struct KeptPosition
{
	Oid			log;
	Oid			file;			/* relfilenode */
	FullTransactionId xmax;
	uint32		xcnt;
	int64		position;
} KeptPosition;

static KeptPosition kept;

/* The transactions that may own a position that S does not see. */
typedef struct InDoubt
{
	FullTransactionId next;		/* the next id to be given */
	FullTransactionId oldest;	/* no id below it may own one */
	TransactionId *holders;		/* ids with a write lock on es_events */
	int			holder_count;
	bool		holders_unknown;	/* an id may be missing among them */
	int64		stable;			/* up to here, as is known already */
} InDoubt;

/*
 * The file of the log, as the catalogs have it.
 */
Oid
log_file(Oid log)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(log));
	Oid			file;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", log);
	file = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
	ReleaseSysCache(tuple);
	return file;
}

/*
 * The id with its epoch, which is that of the next id or the one before.
 */
static FullTransactionId
xid_with_epoch(const InDoubt *in_doubt, TransactionId xid)
{
	uint64		next = U64FromFullTransactionId(in_doubt->next);

	return FullTransactionIdFromU64(next -
									(uint32) (XidFromFullTransactionId(in_doubt->next) - xid));
}

static void
add_lock_holder(InDoubt *in_doubt, TransactionId xid)
{
	if (TransactionIdIsNormal(xid))
		in_doubt->holders[in_doubt->holder_count++] = xid;
}

/*
 * Lists the transactions that hold a write lock on es_events.  The lock table
 * knows them by virtual id.  A prepared transaction keeps the virtual id of
 * the backend that prepared it.  While it is being prepared, its id is first in
 * both places, then only with the prepared ones, which is why that place is
 * looked up last.
 */
static void
list_lock_holders(InDoubt *in_doubt, Oid log)
{
	LOCKTAG		tag;
	VirtualTransactionId *vxids;
	int			count;
	int			i;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, log);
	vxids = GetLockConflicts(&tag, ShareLock, &count);
	in_doubt->holders = palloc(sizeof(TransactionId) * 2 * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		bool		have_more = false;

		if (VirtualTransactionIdIsRecoveredPreparedXact(vxids[i]))
		{
			add_lock_holder(in_doubt, vxids[i].localTransactionId);
			continue;
		}
		add_lock_holder(in_doubt, compat_vxid_current_xid(vxids[i]));
		add_lock_holder(in_doubt, TwoPhaseGetXidByVirtualXID(vxids[i], &have_more));
		if (have_more)
			in_doubt->holders_unknown = true;
	}
}

static bool
is_lock_holder(const InDoubt *in_doubt, TransactionId xid)
{
	int			i;

	for (i = 0; i < in_doubt->holder_count; i++)
	{
		if (TransactionIdEquals(in_doubt->holders[i], xid))
			return true;
	}
	return false;
}

/*
 * Returns true if this candidate may own a position that S does not see.  The
 * commit log is asked only about transactions that are no longer in progress, as
 * it may lag behind.
 */
static bool
may_own_position(const InDoubt *in_doubt, TransactionId xid)
{
	return in_doubt->holders_unknown ||
		is_lock_holder(in_doubt, xid) ||
		(!TransactionIdIsInProgress(xid) && TransactionIdDidCommit(xid));
}

/*
 * Finds the oldest transaction in doubt as a standby does, without locks.
 */
static void
find_oldest_by_xmin(InDoubt *in_doubt, Snapshot snapshot)
{
	in_doubt->next = ReadNextFullTransactionId();
	in_doubt->oldest = xid_with_epoch(in_doubt, snapshot->xmin);
}

/*
 * Finds the oldest transaction in doubt.  If there is none, the result is above
 * every next_xid but that of applied events, also above one that a crash has left ahead of
 * the ids.
 */
static void
find_oldest_in_doubt(InDoubt *in_doubt, Oid log, Snapshot snapshot)
{
	FullTransactionId xid;
	uint32		i;

	in_doubt->next = ReadNextFullTransactionId();
	in_doubt->oldest = FullTransactionIdFromU64(NEXT_XID_APPLIED - 1);
	list_lock_holders(in_doubt, log);
	for (i = 0; i < snapshot->xcnt; i++)
	{
		xid = xid_with_epoch(in_doubt, snapshot->xip[i]);
		if (FullTransactionIdPrecedes(xid, in_doubt->oldest) &&
			may_own_position(in_doubt, snapshot->xip[i]))
			in_doubt->oldest = xid;
	}
	for (xid = xid_with_epoch(in_doubt, snapshot->xmax);
		 FullTransactionIdPrecedes(xid, in_doubt->next) &&
		 FullTransactionIdPrecedes(xid, in_doubt->oldest);
		 FullTransactionIdAdvance(&xid))
	{
		CHECK_FOR_INTERRUPTS();
		if (may_own_position(in_doubt, XidFromFullTransactionId(xid)))
			in_doubt->oldest = xid;
	}
}

/*
 * Returns true if the snapshot is that of the kept position, or a later one.  Those
 * with the same xmax know of ever fewer running transactions below it.
 */
static bool
is_later(const InDoubt *in_doubt, Snapshot snapshot)
{
	FullTransactionId xmax = xid_with_epoch(in_doubt, snapshot->xmax);

	return FullTransactionIdFollows(xmax, kept.xmax) ||
		(FullTransactionIdEquals(xmax, kept.xmax) && snapshot->xcnt <= kept.xcnt);
}

/* Returns true if a position of this log, in its present file, is kept. */
static bool
is_kept_of(Relation log)
{
	return kept.log == RelationGetRelid(log) && kept.file == log->rd_rel->relfilenode;
}

/*
 * The position up to which everything is known to be stable for the snapshot: it was
 * for an earlier one.  0: none is known.
 */
static int64
kept_position(const InDoubt *in_doubt, Relation log, Snapshot snapshot)
{
	if (!is_kept_of(log) || !is_later(in_doubt, snapshot))
		return 0;
	return kept.position;
}

/*
 * Keeps what was found.  A transaction with an id sees events of its own, which may be
 * rolled back, or be prepared and appear to this backend later.
 */
static void
keep_position(const InDoubt *in_doubt, Relation log, Snapshot snapshot,
			  int64 position)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	if (is_kept_of(log) && !is_later(in_doubt, snapshot))
		return;
	kept = (KeptPosition)
	{
		.log = RelationGetRelid(log),
			.file = log->rd_rel->relfilenode,
			.xmax = xid_with_epoch(in_doubt, snapshot->xmax),
			.xcnt = snapshot->xcnt,
			.position = position
	};
}

/*
 * Searches the log.  An event that logical replication has brought proves nothing, so that
 * the search ends at the first one, and begins again at what was published.  If its
 * subscription has come meanwhile, the replica's horizon counts.
 */
static int64
search(const InDoubt *in_doubt, Relation log, Snapshot snapshot)
{
	int64		stable = Max(in_doubt->stable, removed_horizon(log, snapshot));
	Oid			relid = RelationGetRelid(log);
	int64		horizon = horizon_search(log, snapshot, in_doubt->oldest, stable, true);

	if (likely(horizon != HORIZON_APPLIED))
		return horizon;
	AcceptInvalidationMessages();
	if (replica_is_subscribed(relid))
		return replica_horizon(relid, snapshot);
	stable = Max(stable, published_horizon_read(relid, snapshot));
	return horizon_search(log, snapshot, in_doubt->oldest, stable, false);
}

/*
 * The horizon of the log for a reader with the snapshot.
 */
int64
horizon_find(Oid relid, Snapshot snapshot)
{
	InDoubt		in_doubt = {0};
	Relation	log = table_open(relid, AccessShareLock);
	int64		horizon;

	if (unlikely(replica_is_subscribed(relid)))
		horizon = replica_horizon(relid, snapshot);
	else if (snapshot->takenDuringRecovery)
	{
		find_oldest_by_xmin(&in_doubt, snapshot);
		in_doubt.stable = published_horizon_read(relid, snapshot);
		horizon = search(&in_doubt, log, snapshot);
	}
	else
	{
		find_oldest_in_doubt(&in_doubt, relid, snapshot);
		in_doubt.stable = kept_position(&in_doubt, log, snapshot);
		horizon = search(&in_doubt, log, snapshot);
		keep_position(&in_doubt, log, snapshot, horizon);
	}
	table_close(log, AccessShareLock);
	return horizon;
}

/*
 * The horizon that a standby finds by itself at this moment of the primary, with what
 * is published to it.
 */
static int64
find_standby_horizon(Oid relid, Snapshot snapshot)
{
	InDoubt		in_doubt = {.stable = published_horizon_read(relid, snapshot)};
	Relation	log = table_open(relid, AccessShareLock);
	int64		horizon;

	find_oldest_by_xmin(&in_doubt, snapshot);
	horizon = search(&in_doubt, log, snapshot);
	table_close(log, AccessShareLock);
	return horizon;
}

/*
 * Publishes the horizon of the active snapshot, if standbys would not find it by
 * themselves, or subscribers are to get it.
 */
bool
horizon_publish(Oid log)
{
	static TimestampTz published_at = 0;
	Snapshot	snapshot = GetActiveSnapshot();
	TimestampTz now = GetCurrentTimestamp();
	int64	   *known;
	bool		to_subscribers;
	int64		horizon;

	if (!XLogStandbyInfoActive() || replica_is_subscribed(log))
		return false;
	known = published_horizon_known(log, snapshot, &to_subscribers);
	horizon = horizon_find(log, snapshot);
	if (horizon <= *known)
		return false;
	if (!TimestampDifferenceExceeds(published_at, now, PUBLISH_INTERVAL) ||
		((to_subscribers || find_standby_horizon(log, snapshot) < horizon) &&
		 !published_horizon_write(log, horizon)))
		return true;
	*known = horizon;
	published_at = now;
	return false;
}

/*
 * Returns true if the cached horizon is that of this snapshot.  Snapshots are
 * compared by what they see, since their addresses are used again: two with the same
 * xmax and the same number of running transactions see the same.
 */
static bool
horizon_cache_serves(const HorizonCache *cache, const HorizonCache *now)
{
	return cache->lxid == now->lxid &&
		cache->subid == now->subid &&
		cache->xmin == now->xmin &&
		cache->xmax == now->xmax &&
		cache->xcnt == now->xcnt &&
		cache->curcid == now->curcid;
}

/*
 * The greatest horizon that was found for the snapshot of a transaction that reads
 * with one.  Such a transaction knows less and less of those that were running when
 * its snapshot was taken: when one of them commits, an old gap is in doubt again.
 * But what was stable for the snapshot stays so.
 */
static int64
greatest_of_snapshot(const HorizonCache *now)
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
 * es_horizon() returns bigint: the highest position up to which no event can appear
 * any more for a reader with the calling statement's snapshot; 0 if there is none.
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
		.curcid = snapshot->curcid
	};

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
									   sizeof(HorizonCache));
		fcinfo->flinfo->fn_extra = cache;
	}
	if (!horizon_cache_serves(cache, &now))
	{
		now.horizon = horizon_find(log_relid(fcinfo->flinfo->fn_oid),
								   snapshot);
		now.horizon = greatest_of_snapshot(&now);
		*cache = now;
	}
	PG_RETURN_INT64(cache->horizon);
}

/*
 * The horizon of this moment, at every isolation level.
 */
int64
horizon_now(Oid log)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		horizon = horizon_find(log, snapshot);

	UnregisterSnapshot(snapshot);
	return horizon;
}
