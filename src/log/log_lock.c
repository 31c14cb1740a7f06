/*-------------------------------------------------------------------------
 *
 * log_lock.c
 *		The locks of an append, which it holds to the end of its transaction.
 *
 * A lock makes transactions that append to the same thing, a stream, wait for
 * each other; the others go on.  It is a heavyweight lock on a 64-bit hash of the
 * thing's name, in a class of the advisory locks that users cannot reach (theirs
 * are 1 and 2).  Two names with one hash wait for each other unnecessarily, which
 * costs time and nothing else.
 *
 * A transaction that appends an event with tags holds the lock of each tag from before it
 * draws a position, so that events with a tag in common have positions in the order of
 * their commits.  A condition on what has a tag holds that lock in share mode
 * (condition.c).
 *
 * One call takes all the locks that a write needs, in the same order in every
 * transaction: by class, then by hash, and of one thing the strongest mode.  So two
 * writes can only wait for each other in a circle if one of their transactions holds
 * locks of an earlier write.
 *
 * Each lock takes a place in shared memory, and an import may touch any number of
 * streams.  So a transaction that would hold more than ES_MAX_LOG_LOCKS of them
 * takes ShareRowExclusiveLock on es_events instead: as every appender holds
 * RowExclusiveLock there from before its first position to its end, the owner of
 * the stronger lock is alone with all streams.  While it waits for that lock the
 * appends of others go on (table_lock.c).  The locks that a call needs are
 * counted before it takes the first.  A rollback to a savepoint may release
 * locks, also the stronger one, so that the lock table is asked each time; the
 * count of locks is only ever too high.
 *
 * All of them are taken before RowExclusiveLock on es_events: a transaction that
 * waits for its first stream holds nothing yet that the owner of that stream could
 * need for the stronger lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/wait.h"
#include "eventstore.h"
#include "stats/stats.h"
#include "log/log.h"
#include "log/slots.h"
#include "log/tags.h"

/* How many locks the transaction with this local id has taken. */
static LocalTransactionId locking_lxid = InvalidLocalTransactionId;
static int	locks_taken = 0;

static LOCKTAG
lock_tag(const LogLock *lock)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (lock->hash >> 32),
						 (uint32) lock->hash, lock->class);
	return tag;
}

/* Sorts locks into the order of the header. */
static int
compare_locks(const void *a, const void *b)
{
	const LogLock *one = a;
	const LogLock *other = b;

	if (one->class != other->class)
		return one->class < other->class ? -1 : 1;
	if (one->hash != other->hash)
		return one->hash < other->hash ? -1 : 1;
	return other->mode - one->mode;
}

/* Sorts the locks, moves those that differ to the front, and returns their number. */
static int
sort_locks(LogLock *locks, int count)
{
	int			kept = 0;
	int			i;

	qsort(locks, count, sizeof(LogLock), compare_locks);
	for (i = 0; i < count; i++)
	{
		if (i == 0 || locks[i].class != locks[kept - 1].class ||
			locks[i].hash != locks[kept - 1].hash)
			locks[kept++] = locks[i];
	}
	return kept;
}

/*
 * Returns true if the transaction may take the locks, and need not lock the
 * whole log.
 */
static bool
locks_have_room(const LogLock *locks, int count)
{
	int			more = 0;
	int			i;

	if (locks_taken + count <= ES_MAX_LOG_LOCKS)
		return true;
	for (i = 0; i < count; i++)
	{
		LOCKTAG		tag = lock_tag(&locks[i]);

		if (!compat_lock_is_held(&tag, locks[i].mode))
			more++;
	}
	return locks_taken + more <= ES_MAX_LOG_LOCKS;
}

/* What an error's context calls a lock, by its class. */
static const char *const lock_kinds[] = {"stream", "tag", "conditions on"};

/* Waits for a lock, counts that, and lets errors name what is waited for. */
static void
wait_for_lock(const LogLock *lock, const LOCKTAG *tag)
{
	StatsEntry *stats = lock->class == LOG_LOCK_STREAM ? stream_stats(lock->name) : NULL;
	WaitContext context;
	instr_time	start;
	instr_time	end;

	stats_count(stats, STATS_LOCK_WAITS, 1);
	INSTR_TIME_SET_CURRENT(start);
	wait_context_begin(&context, lock_kinds[lock->class - LOG_LOCK_STREAM],
					   text_to_cstring(lock->name), -1);
	PG_TRY();
	{
		(void) LockAcquire(tag, lock->mode, false, false);
	}
	PG_FINALLY();
	{
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		stats_count(stats, STATS_LOCK_WAIT_TIME,
					INSTR_TIME_GET_MICROSEC(end));
	}
	PG_END_TRY();
	wait_context_end(&context);
}

/*
 * Takes one lock, and counts it if it is new.  Returns false if another transaction has it
 * and the caller does not wait.
 */
static bool
take_lock(const LogLock *lock, bool wait)
{
	LOCKTAG		tag = lock_tag(lock);
	LockAcquireResult result = LockAcquire(&tag, lock->mode, false, true);

	if (result == LOCKACQUIRE_NOT_AVAIL)
	{
		if (!wait)
			return false;
		wait_for_lock(lock, &tag);
	}
	if (result != LOCKACQUIRE_ALREADY_HELD)
		locks_taken++;
	return true;
}

/* Begins to count, in a transaction's first call. */
static void
count_from_begin(void)
{
	if (locking_lxid == compat_my_lxid())
		return;
	locking_lxid = compat_my_lxid();
	locks_taken = 0;
}

/*
 * The lock that makes a transaction the only one that can append to the stream.
 */
LogLock
log_lock_of_stream(text *stream)
{
	LogLock		lock = {
		.class = LOG_LOCK_STREAM,
		.mode = ExclusiveLock,
		.hash = stream_hash(stream),
		.name = stream
	};

	return lock;
}

/*
 * The lock of a tag, by an event that has it (ExclusiveLock), or by who wants none to be
 * appended (ShareLock).
 */
LogLock
log_lock_of_tag(text *tag, LOCKMODE mode)
{
	LogLock		lock = {
		.class = LOG_LOCK_TAG,
		.mode = mode,
		.hash = stream_hash(tag),
		.name = tag
	};

	return lock;
}

/*
 * The lock that makes a condition the only one of those that no tag's lock guards.
 */
LogLock
log_lock_of_conditions(Oid log)
{
	LogLock		lock = {
		.class = LOG_LOCK_CONDITION,
		.mode = ExclusiveLock,
		.name = cstring_to_text(get_rel_name(log))
	};

	return lock;
}

/*
 * Takes the lock that every append holds, to the end of the transaction.  It waits for
 * a transaction that has locked the whole log; errors of that wait name the log.
 */
void
log_lock_to_append(Oid log)
{
	WaitContext context;

	if (ConditionalLockRelationOid(log, RowExclusiveLock))
		return;
	wait_context_begin(&context, "table", get_rel_name(log), -1);
	LockRelationOid(log, RowExclusiveLock);
	wait_context_end(&context);
}

/*
 * Waits for a transaction that has locked the whole log, and so has no lock of its streams.  The
 * lock is not held: a caller that will wait for tags must not have it.
 */
void
log_lock_await_whole(Oid log, text *stream)
{
	log_lock_to_append(log);
	slots_check_relid(log, stream);
	UnlockRelationOid(log, RowExclusiveLock);
}

/*
 * Returns true if another transaction has that lock, or a stronger one.  One that has
 * released it is visible to later snapshots, if it was committed.
 */
bool
log_lock_has_holder(Oid log)
{
	LOCKTAG		tag;
	int			count;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, log);
	pfree(GetLockConflicts(&tag, ShareLock, &count));
	return count > 0;
}

/*
 * Returns true if the transaction has locked the log against all appends of others.
 */
bool
log_lock_is_whole(Oid log)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, log);
	return compat_lock_is_held(&tag, ShareRowExclusiveLock);
}

/*
 * Returns true if the transaction may own a position.  One that has the lock, but no id
 * yet, draws its first one later, as an id comes before a position.  Others that have a
 * lock on the log and no id are a VACUUM, or an index that is made concurrently.
 */
static bool
may_own_position_now(VirtualTransactionId vxid)
{
	bool		have_more = false;

	return VirtualTransactionIdIsRecoveredPreparedXact(vxid) ||
		TransactionIdIsValid(compat_vxid_current_xid(vxid)) ||
		TransactionIdIsValid(TwoPhaseGetXidByVirtualXID(vxid, &have_more)) || have_more;
}

/*
 * Waits for all others that may own a position.  What waits here is cheap to repeat, and an
 * import that it waits for is not: this is the victim of a deadlock.
 */
void
log_lock_await_appenders(Oid log, const char *purpose)
{
	PatientLock lock = {
		.relids = list_make1_oid(log),
		.mode = ShareLock,
		.purpose = purpose
	};

	table_lock_await_holders(&lock, may_own_position_now);
	list_free(lock.relids);
}

/* Releases locks that were taken for a moment. */
static void
release_locks(Oid log, const LogLock *locks, int count)
{
	int			i;

	UnlockRelationOid(log, RowExclusiveLock);
	for (i = 0; i < count; i++)
	{
		LOCKTAG		tag = lock_tag(&locks[i]);

		LockRelease(&tag, locks[i].mode, false);
	}
}

/*
 * Waits until nobody appends to what the locks are of.  A transaction that has locked the whole log
 * has none of these locks.
 */
Snapshot
log_lock_barrier(Oid log, LogLock *locks, int count)
{
	Snapshot	snapshot;
	int			i;

	count = sort_locks(locks, count);
	for (i = 0; i < count; i++)
	{
		LOCKTAG		tag = lock_tag(&locks[i]);

		if (LockAcquire(&tag, locks[i].mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
			wait_for_lock(&locks[i], &tag);
	}
	log_lock_to_append(log);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	release_locks(log, locks, count);
	return snapshot;
}

/*
 * Locks the log against all appends of others, which go on until the lock is there.
 */
void
log_lock_whole(Oid log, const char *purpose, void (*catch_up) (void *arg),
			   void *arg)
{
	PatientLock lock = {
		.relids = list_make1_oid(log),
		.mode = ShareRowExclusiveLock,
		.purpose = purpose,
		.catch_up = catch_up,
		.arg = arg
	};

	table_lock_patiently(&lock);
}

/*
 * Takes all the locks, which are sorted by that, or locks the whole log.
 */
void
log_lock_all(Oid log, LogLock *locks, int count)
{
	int			i;

	count_from_begin();
	if (count > 1)
		count = sort_locks(locks, count);
	if (locks_have_room(locks, count))
	{
		for (i = 0; i < count; i++)
			(void) take_lock(&locks[i], true);
	}
	else
		log_lock_whole(log, psprintf("to append to more than %d streams and tags",
									 ES_MAX_LOG_LOCKS), NULL, NULL);
}

/*
 * Takes those that no other transaction has.  Returns false if any is missing.
 */
bool
log_lock_try_all(Oid log, LogLock *locks, int count)
{
	int			i;

	count_from_begin();
	if (log_lock_is_whole(log))
		return true;
	count = sort_locks(locks, count);
	if (!locks_have_room(locks, count))
		return false;
	for (i = 0; i < count; i++)
	{
		if (!take_lock(&locks[i], false))
			return false;
	}
	return true;
}

/*
 * Counts the locks that the transaction has taken.
 */
int
log_lock_count(void)
{
	count_from_begin();
	return locks_taken;
}

/*
 * Lets those that were taken since it had so many no longer count: a rollback to a savepoint
 * has released them.
 */
void
log_lock_forget(int count)
{
	locks_taken = Min(locks_taken, count);
}

/*
 * Locks one stream alone.
 */
void
log_lock_stream(Oid log, text *stream)
{
	LogLock		lock = log_lock_of_stream(stream);

	log_lock_all(log, &lock, 1);
}
