/*-------------------------------------------------------------------------
 *
 * reset_lock.c
 *		Being alone with the store.
 *
 * AccessExclusiveLock is taken on all tables in one step or on none, so that nothing is
 * held against others during the wait (table_lock.c).  Workers, and autovacuum, are waited
 * for: they go on by themselves, and end soon.  A session that uses a table gets a second
 * to end its transaction, as that of a connection that is just being closed.  Then the
 * call fails: such a session would see the log vanish, and what the test that runs there
 * has appended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/wait.h"
#include "reset/reset.h"

/* Milliseconds that another session has to end its transaction. */
#define PATIENCE	1000

/* Returns true if the process ends its transaction by itself. */
static bool
ends_by_itself(PGPROC *proc)
{
	const char *type = GetBackgroundWorkerTypeByPid(proc->pid);

	return (proc->statusFlags & PROC_IS_AUTOVACUUM) != 0 ||
		(type != NULL && strcmp(type, "eventstore worker") == 0);
}

/* Raises the error. */
static void
fail_in_use(Oid relid, const char *holder)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the store is used by another session, and cannot be emptied"),
			 errdetail("%s has a lock on table \"%s\".", holder, get_rel_name(relid)),
			 errhint("End its transaction first. A test in one transaction that is rolled back needs no es_reset().")));
}

/* Refuses a prepared transaction. */
static void
refuse_prepared(VirtualTransactionId holder, Oid relid)
{
	bool		have_more = false;

	if (VirtualTransactionIdIsRecoveredPreparedXact(holder) ||
		TransactionIdIsValid(TwoPhaseGetXidByVirtualXID(holder, &have_more)))
		fail_in_use(relid, "A prepared transaction");
}

/* Refuses other sessions, once they had their time. */
static void
refuse_session(VirtualTransactionId holder, Oid relid, long waited)
{
	int			pid = compat_vxid_pid(holder);
	PGPROC	   *proc = pid != 0 ? BackendPidGetProc(pid) : NULL;
	char	   *role;

	if (proc == NULL)
	{
		refuse_prepared(holder, relid);
		return;
	}
	if (ends_by_itself(proc) || waited < PATIENCE)
		return;
	role = GetUserNameFromId(proc->roleId, true);
	fail_in_use(relid, psprintf("Process %d of role \"%s\"", pid, role ? role : "?"));
}

void
reset_lock(List *tables)
{
	PatientLock lock = {
		.relids = tables,
		.mode = AccessExclusiveLock,
		.purpose = "to empty the store",
		.check_holder = refuse_session
	};

	table_lock_patiently(&lock);
}
