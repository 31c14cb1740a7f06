/*-------------------------------------------------------------------------
 *
 * table_lock.c
 *		Taking a strong lock on a table without stopping those that use it.
 *
 * A request that waits in a table's lock queue stops every request after it, also
 * those for locks that would not conflict with the ones that are held.  One open
 * transaction would stop all others in this way.  So the wait is outside of the
 * queue:
 *
 *	1. Take the lock, if it is free.
 *	2. List the transactions that hold a conflicting lock, and wait until all of
 *	   them have ended, for each by its virtual transaction id, as CREATE INDEX
 *	   CONCURRENTLY does.  No request queues behind such a wait, and the server knows
 *	   it, as pg_blocking_pids() and the search for deadlocks follow it.
 *	3. Catch up with what came meanwhile, if the caller has something to do.
 *	4. Take the lock, if it is free now.  If not, others have come since step 2.
 *	   Stand in the queue, which keeps more from coming, for at most QUEUE_TIME.  As
 *	   the long ones have ended, this takes as long as a usual transaction.
 *	   If one of the new ones stays, leave the queue and go on with step 2; the next
 *	   time in the queue is twice as long, up to MAX_QUEUE_TIME.
 *
 * So no session waits for a request that waits itself for more than MAX_QUEUE_TIME, and
 * it does so only if transactions stay open one after the other.  If they always do so
 * for longer than that, the lock is never free, and lock_timeout ends the wait.
 *
 * Deadlocks.  Step 2 waits for one transaction at a time, so that a search for
 * deadlocks does not see that the others are waited for, too.  Any of them may wait
 * for this one.  So after deadlock_timeout, and from then on every SEARCH_INTERVAL,
 * step 2 is interrupted: this stands in the queue for SEARCH_TIME, where all holders
 * are seen, and a search begins at once.  It also cancels an autovacuum of the table,
 * as waiting in the queue would.  A circle is thus found within SEARCH_INTERVAL, and
 * the one that finds it is the victim.  If another such wait is part of it, the search
 * sees the one transaction that the other waits for at the moment.  So after each
 * search step 2 begins with another one of the list, and the circle is found after as
 * many searches as there are holders.  The model is test/models/lock.pml.
 *
 * A condition on an append only waits for the holders, and takes no lock
 * (table_lock_await_holders; log_lock.c says why).
 *
 * Several tables are locked all at once or not at all, so that nothing is held against
 * others during a wait for one of them.
 *
 * Timeouts.  Each step's wait ends by the server's lock_timeout, in a subtransaction,
 * which takes it out of the queue.  The setting of the session bounds the sum of all
 * waits.  A cancel, a shutdown or a deadlock ends the whole.  With log_lock_waits the
 * log has a line after deadlock_timeout, and one when the lock is there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "base/context.h"
#include "base/compat.h"
#include "base/wait.h"

/* In milliseconds. */
#define QUEUE_TIME			50
#define MAX_QUEUE_TIME		1000
#define SEARCH_INTERVAL		1000
#define SEARCH_TIME			10
#define SEARCH_DELAY		1	/* the least that deadlock_timeout can be */
#define FIRST_SLICE			20
#define CHECK_INTERVAL		100

/* An attempt to take a lock on all tables. */
typedef struct LockAttempt
{
	const PatientLock *lock;
	bool		done;
} LockAttempt;

/* A wait for a lock, and the session's settings. */
typedef struct TableWait
{
	const PatientLock *lock;
	Oid			relid;			/* the first table that others hold */
	int			lock_timeout;	/* 0: none */
	int			deadlock_timeout;
	bool		log_waits;
	bool		logged;
	int64		waited;			/* microseconds */
	int64		search_at;		/* of these, when the next search is due */
	int			searches;
	int			queue_time;
	VirtualTransactionId *holders;
	int			holder_count;
	VirtualTransactionId awaited;	/* one of them */
} TableWait;

/* The milliseconds that it has waited. */
static long
waited_milliseconds(const TableWait *wait)
{
	return (long) (wait->waited / 1000);
}

/* The context of errors. */
static void
add_table_context(void *arg)
{
	const TableWait *wait = arg;

	if (wait_context_applies())
		errcontext("while locking table \"%s\" %s", get_rel_name(wait->relid),
				   wait->lock->purpose);
}

/* Makes a sentence of the holders: their processes, as far as they have one. */
static char *
describe_holders(const TableWait *wait)
{
	StringInfoData list;
	int			i;

	initStringInfo(&list);
	for (i = 0; i < wait->holder_count; i++)
	{
		int			pid = compat_vxid_pid(wait->holders[i]);

		appendStringInfoString(&list, list.len == 0 ? "" : ", ");
		if (pid != 0)
			appendStringInfo(&list, "process %d", pid);
		else
			appendStringInfoString(&list, "a prepared transaction, or one that has just ended");
	}
	if (list.len == 0)
		return pstrdup("Another request for a lock on the table waits before it.");
	return psprintf("A conflicting lock is held by %s.", list.data);
}

/* Adds the holders of a conflicting lock on a table to the list. */
static void
add_holders(TableWait *wait, Oid relid)
{
	LOCKTAG		tag;
	int			count;
	VirtualTransactionId *holders;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, wait->lock->mode, &count);
	if (count > 0)
	{
		if (wait->holder_count == 0)
			wait->relid = relid;
		wait->holders = repalloc(wait->holders, sizeof(VirtualTransactionId) *
								 (wait->holder_count + count));
		memcpy(wait->holders + wait->holder_count, holders,
			   sizeof(VirtualTransactionId) * count);
		wait->holder_count += count;
	}
	pfree(holders);
}

/* Lets the caller refuse holders of a table. */
static void
check_holders(const TableWait *wait, Oid relid, int first)
{
	int			i;

	for (i = first; wait->lock->check_holder != NULL && i < wait->holder_count; i++)
		wait->lock->check_holder(wait->holders[i], relid, waited_milliseconds(wait));
}

/* Lists the holders of a conflicting lock. */
static void
list_holders(TableWait *wait)
{
	ListCell   *cell;

	wait->holder_count = 0;
	foreach(cell, wait->lock->relids)
	{
		int			first = wait->holder_count;

		add_holders(wait, lfirst_oid(cell));
		check_holders(wait, lfirst_oid(cell), first);
	}
}

/* Logs a long wait once. */
static void
log_wait(TableWait *wait)
{
	if (!wait->log_waits || wait->logged)
		return;
	wait->logged = true;
	ereport(LOG,
			(errmsg("process %d still waiting for %s on table \"%s\" after %ld ms",
					MyProcPid, GetLockmodeName(DEFAULT_LOCKMETHOD, wait->lock->mode),
					get_rel_name(wait->relid), waited_milliseconds(wait)),
			 errdetail_log("%s", describe_holders(wait))));
}

/* Logs the end of a wait whose length was logged. */
static void
log_end_of_wait(const TableWait *wait)
{
	if (wait->logged)
		ereport(LOG,
				(errmsg("process %d acquired %s on table \"%s\" after %ld ms",
						MyProcPid, GetLockmodeName(DEFAULT_LOCKMETHOD, wait->lock->mode),
						get_rel_name(wait->relid), waited_milliseconds(wait))));
}

/* Raises the error of a lock_timeout that is over. */
static void
check_lock_timeout(const TableWait *wait)
{
	if (wait->lock_timeout == 0 || waited_milliseconds(wait) < wait->lock_timeout)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("canceling statement due to lock timeout"),
			 errdetail("It waited %ld ms for %s on table \"%s\". %s",
					   waited_milliseconds(wait),
					   GetLockmodeName(DEFAULT_LOCKMETHOD, wait->lock->mode),
					   get_rel_name(wait->relid), describe_holders(wait)),
			 errhint("Try again when the other transactions have ended, or with a longer lock_timeout.")));
}

/*
 * Does work that waits under other settings, and restores those of the session.
 * Returns its error.
 */
static ErrorData *
try_to_wait(TableWait *wait, bool (*work) (void *arg), int lock_timeout,
			int deadlock_timeout)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		LockTimeout = lock_timeout;
		DeadlockTimeout = deadlock_timeout;
		log_lock_waits = false;
		error = subtransaction_try(work, wait);
	}
	PG_FINALLY();
	{
		LockTimeout = wait->lock_timeout;
		DeadlockTimeout = wait->deadlock_timeout;
		log_lock_waits = wait->log_waits;
	}
	PG_END_TRY();
	return error;
}

/*
 * Does work that waits, for at most this number of milliseconds, and counts the time.
 * Returns false if the work did not finish.  search: look for deadlocks at once.
 */
static bool
wait_at_most(TableWait *wait, bool (*work) (void *arg), int64 milliseconds,
			 bool search)
{
	ErrorData  *error;
	instr_time	start;
	instr_time	end;

	check_lock_timeout(wait);
	if (wait->lock_timeout > 0)
		milliseconds = Min(milliseconds, wait->lock_timeout - waited_milliseconds(wait));
	INSTR_TIME_SET_CURRENT(start);
	error = try_to_wait(wait, work, (int) Max(milliseconds, 1),
						search ? SEARCH_DELAY : wait->deadlock_timeout);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	wait->waited += INSTR_TIME_GET_MICROSEC(end);
	if (error == NULL)
		return true;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

/* Takes the lock on each table that is free; returns false if one is not. */
static bool
lock_each_if_free(void *arg)
{
	LockAttempt *attempt = arg;
	ListCell   *cell;

	foreach(cell, attempt->lock->relids)
	{
		if (!ConditionalLockRelationOid(lfirst_oid(cell), attempt->lock->mode))
			return false;
	}
	attempt->done = true;
	return true;
}

/*
 * Takes the lock if it is free on all tables, else on none.  Returns true if it is
 * there.
 */
static bool
lock_if_free(const PatientLock *lock)
{
	LockAttempt attempt = {.lock = lock};
	ErrorData  *error;

	if (list_length(lock->relids) == 1)
		return lock_each_if_free(&attempt);
	error = subtransaction_try(lock_each_if_free, &attempt);
	if (error != NULL)
		ReThrowError(error);
	return attempt.done;
}

/* Waits for the end of a transaction; work of wait_at_most. */
static bool
await_holder(void *arg)
{
	TableWait  *wait = arg;

	(void) VirtualXactLock(wait->awaited, true);
	return true;
}

/* Waits in the queue; work of wait_at_most. */
static bool
await_lock(void *arg)
{
	TableWait  *wait = arg;
	ListCell   *cell;

	foreach(cell, wait->lock->relids)
	{
		wait->relid = lfirst_oid(cell);
		LockRelationOid(wait->relid, wait->lock->mode);
	}
	return true;
}

/*
 * Step 2: waits until the present holders of a conflicting lock have ended, after each
 * search beginning with another one.  Returns false if it is time for a search before.
 */
static bool
await_holders(TableWait *wait)
{
	int			i;

	list_holders(wait);
	for (i = 0; i < wait->holder_count; i++)
	{
		int64		left = wait->search_at - wait->waited;

		if (wait->lock->check_holder != NULL)
			left = Min(left, CHECK_INTERVAL * INT64CONST(1000));
		wait->awaited = wait->holders[(wait->searches + i) % wait->holder_count];
		if (left <= 0 ||
			!wait_at_most(wait, await_holder, left / 1000 + 1, false))
			return false;
	}
	return true;
}

/* Step 4, and the search.  Returns true if the lock is there. */
static bool
await_turn(TableWait *wait, bool others_ended)
{
	bool		search = wait->waited >= wait->search_at;
	int			milliseconds = others_ended ? wait->queue_time : SEARCH_TIME;

	if (lock_if_free(wait->lock))
		return true;
	if (search)
		log_wait(wait);
	if (wait_at_most(wait, await_lock, milliseconds, search))
		return true;
	if (search)
	{
		wait->search_at = wait->waited +
			Max(wait->deadlock_timeout, SEARCH_INTERVAL) * INT64CONST(1000);
		wait->searches++;
	}
	if (others_ended)
		wait->queue_time = Min(wait->queue_time * 2, MAX_QUEUE_TIME);
	return false;
}

/* Begins a wait. */
static TableWait
begin_wait(const PatientLock *lock)
{
	TableWait	wait = {
		.lock = lock,
		.relid = linitial_oid(lock->relids),
		.lock_timeout = LockTimeout,
		.deadlock_timeout = DeadlockTimeout,
		.log_waits = log_lock_waits,
		.search_at = DeadlockTimeout * INT64CONST(1000),
		.queue_time = QUEUE_TIME,
		.holders = palloc(sizeof(VirtualTransactionId))
	};

	return wait;
}

/* Waits for a lock that is not free: steps 2 to 4. */
static void
await_table_lock(const PatientLock *lock)
{
	TableWait	wait = begin_wait(lock);
	ErrorContextCallback context;
	bool		others_ended;

	context_push(&context, add_table_context, &wait);
	do
	{
		others_ended = await_holders(&wait);
		if (others_ended && lock->catch_up != NULL)
			lock->catch_up(lock->arg);
	} while (!await_turn(&wait, others_ended));
	log_end_of_wait(&wait);
	context_pop(&context);
	pfree(wait.holders);
}

/*
 * Takes the lock to the end of the transaction.
 */
void
table_lock_patiently(const PatientLock *lock)
{
	if (!lock_if_free(lock))
		await_table_lock(lock);
}

/* Returns true if the transaction is one of the holders. */
static bool
is_holder(const TableWait *wait, VirtualTransactionId vxid)
{
	int			i;

	for (i = 0; i < wait->holder_count; i++)
	{
		if (VirtualTransactionIdEquals(wait->holders[i], vxid))
			return true;
	}
	return false;
}

/* Leaves those holders for which the function returns true. */
static void
keep_holders(TableWait *wait, bool (*matters) (VirtualTransactionId vxid))
{
	int			kept = 0;
	int			i;

	for (i = 0; i < wait->holder_count; i++)
	{
		if (matters(wait->holders[i]))
			wait->holders[kept++] = wait->holders[i];
	}
	wait->holder_count = kept;
}

/* Leaves those holders that still are. */
static void
keep_present_holders(TableWait *wait)
{
	TableWait	now = begin_wait(wait->lock);
	int			kept = 0;
	int			i;

	list_holders(&now);
	for (i = 0; i < wait->holder_count; i++)
	{
		if (is_holder(&now, wait->holders[i]))
			wait->holders[kept++] = wait->holders[i];
	}
	wait->holder_count = kept;
	pfree(now.holders);
}

/*
 * Waits in slices, after each of which it looks who still holds a lock: one that has been
 * rolled back to a savepoint does not, and may wait for this transaction.  Each slice
 * searches for deadlocks at once, and is for another of them, so that a circle is found
 * here.
 */
void
table_lock_await_holders(const PatientLock *lock, bool (*matters) (VirtualTransactionId vxid))
{
	TableWait	wait = begin_wait(lock);
	ErrorContextCallback context;
	int			slice = FIRST_SLICE;

	list_holders(&wait);
	keep_holders(&wait, matters);
	context_push(&context, add_table_context, &wait);
	while (wait.holder_count > 0)
	{
		wait.awaited = wait.holders[wait.searches++ % wait.holder_count];
		if (!wait_at_most(&wait, await_holder, slice, true) && wait.waited >= wait.search_at)
			log_wait(&wait);
		slice = Min(slice * 2, MAX_QUEUE_TIME);
		keep_present_holders(&wait);
	}
	context_pop(&context);
	pfree(wait.holders);
}
