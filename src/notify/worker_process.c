/*-------------------------------------------------------------------------
 *
 * worker_process.c
 *		The processes of launcher and workers, as the server starts them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/proc.h"

#include "notify/notify.h"

/* In bgw_extra: the worker was started by no user, and leaves when it is idle. */
#define AUTOSTARTED "autostarted"

/*
 * Describes a process, as far as launcher and workers have it in common.
 */
void
worker_process_describe(BackgroundWorker *process, const char *function,
						const char *type)
{
	memset(process, 0, sizeof(BackgroundWorker));
	process->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(process->bgw_library_name, "eventstore",
			sizeof(process->bgw_library_name));
	strlcpy(process->bgw_function_name, function,
			sizeof(process->bgw_function_name));
	strlcpy(process->bgw_type, type, sizeof(process->bgw_type));
	strlcpy(process->bgw_name, type, sizeof(process->bgw_name));
}

static void
describe_worker(BackgroundWorker *process, Oid database, int restart_time)
{
	worker_process_describe(process, "eventstore_worker_main",
							"eventstore worker");
	process->bgw_restart_time = restart_time;
	process->bgw_main_arg = ObjectIdGetDatum(database);
}

bool
worker_process_start(Oid database, int restart_time,
					 BackgroundWorkerHandle **handle)
{
	BackgroundWorker process;

	describe_worker(&process, database, restart_time);
	process.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&process, handle);
}

/*
 * Starts a worker of this database that leaves when it is idle.  It allocates nothing
 * and cannot fail, so that it may be called when a transaction has been committed.
 */
bool
worker_process_autostart(void)
{
	BackgroundWorker process;

	describe_worker(&process, MyDatabaseId, BGW_NEVER_RESTART);
	strlcpy(process.bgw_extra, AUTOSTARTED, sizeof(process.bgw_extra));
	return RegisterDynamicBackgroundWorker(&process, NULL);
}

/* Returns true if this process is such a worker. */
bool
worker_process_is_autostarted(void)
{
	return strcmp(MyBgworkerEntry->bgw_extra, AUTOSTARTED) == 0;
}

/*
 * How many background processes of max_worker_processes do not run.  One that was
 * registered a moment ago may not run yet.
 */
int
worker_process_free_count(void)
{
	int			count = 0;
	uint32		i;

	for (i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];

		if (proc->procgloballist == &ProcGlobal->bgworkerFreeProcs &&
			proc->procLatch.owner_pid == 0)
			count++;
	}
	return count;
}
