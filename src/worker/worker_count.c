/*-------------------------------------------------------------------------
 *
 * worker_count.c
 *		How many workers a database may have: those that are started by hand must
 *		not take all of the server's background processes.
 *
 * One session at a time counts, starts one, and waits until that can be counted, which
 * is as soon as it is connected to the database.  A lock ensures that.  The server's list
 * of processes is read without a lock: a process that comes or goes meanwhile is
 * counted or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "base/base.h"
#include "worker/worker.h"

/* Class of the advisory lock, which users cannot reach. */
#define WORKER_COUNT_LOCK_CLASS		7

/* Milliseconds between two looks at a process that is starting. */
#define STARTING_PAUSE	5

/* Returns how many workers are connected to this database. */
static int
count_workers(void)
{
	int			count = 0;
	uint32		i;

	for (i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		const char *type;

		if (proc->pid == 0 || proc->databaseId != MyDatabaseId)
			continue;
		type = GetBackgroundWorkerTypeByPid(proc->pid);
		if (type != NULL && strcmp(type, "eventstore worker") == 0)
			count++;
	}
	return count;
}

static void
set_count_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, WORKER_COUNT_LOCK_CLASS);
}

void
worker_count_begin(int limit)
{
	LOCKTAG		tag;
	int			count;

	set_count_tag(&tag);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	count = count_workers();
	if (count >= limit)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no more workers can be started in this database"),
				 errdetail("It has %d, and eventstore.workers limits those that are started by hand.",
						   count),
				 errhint("Increase eventstore.workers, or end a worker by pg_terminate_backend().")));
}

void
worker_count_end(BackgroundWorkerHandle *handle, int pid)
{
	LOCKTAG		tag;
	pid_t		now;

	while (GetBackgroundWorkerPid(handle, &now) == BGWH_STARTED && now == pid)
	{
		PGPROC	   *proc = BackendPidGetProc(pid);

		if (proc != NULL && proc->databaseId == MyDatabaseId)
			break;
		sleep_nap(STARTING_PAUSE, "EventstoreWorkerStart");
	}
	set_count_tag(&tag);
	(void) LockRelease(&tag, ExclusiveLock, false);
}
