/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		Starting workers: the launcher, and es_start_worker().
 *
 * With shared_preload_libraries = 'eventstore' and a list of names in
 * eventstore.databases there is one launcher.  It is connected to no database,
 * keeps eventstore.workers processes in each of those that exist, and checks
 * them every few seconds, or when one has ended.  A worker ends by itself,
 * with exit code 0, where there is no extension; it is started again and
 * again, so that CREATE EXTENSION needs no signal.  When the launcher ends it
 * ends its workers; the next launcher starts new ones.
 *
 * es_start_worker() starts one more, of which the launcher knows nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "notify/notify.h"
#include "worker/worker.h"

/* Milliseconds: from one look of the launcher to the next, and from the end
 * of a worker to the start of its successor. */
#define LOOK_INTERVAL	3000
#define RESTART_PAUSE	2000

/* Seconds until the server restarts a launcher, or a worker that was started
 * by hand. */
#define CRASH_PAUSE		3

#define MAX_WORKERS		8

extern PGDLLEXPORT void eventstore_launcher_main(Datum arg);

PG_FUNCTION_INFO_V1(es_start_worker);

/*
 * eventstore.workers: processes for each database.  An administrator increases
 * it if projections are many or slow, as a worker runs one of them at a time.
 */
static int	workers = 2;

/* A worker of the launcher. */
typedef struct LauncherWorker
{
	BackgroundWorkerHandle *handle; /* NULL: it does not run */
	TimestampTz ended_at;
} LauncherWorker;

/* A database of the list. */
typedef struct LauncherDatabase
{
	char	   *name;
	bool		logged;			/* the log says why workers are missing */
	LauncherWorker workers[MAX_WORKERS];
} LauncherDatabase;

static LauncherDatabase *databases = NULL;
static int	database_count = 0;

/*
 * The launcher
 */

/* Ends the workers, as the next launcher would not know them. */
static void
end_workers(int code, Datum arg)
{
	int			i;
	int			j;

	for (i = 0; i < database_count; i++)
	{
		for (j = 0; j < workers; j++)
		{
			if (databases[i].workers[j].handle != NULL)
				TerminateBackgroundWorker(databases[i].workers[j].handle);
		}
	}
}

static void
make_launcher_databases(void)
{
	List	   *names = worker_slot_databases();
	ListCell   *lc;

	databases = palloc0(sizeof(LauncherDatabase) * Max(list_length(names), 1));
	foreach(lc, names)
		databases[database_count++].name = lfirst(lc);
}

/* Returns true if the worker is to be started now. */
static bool
is_worker_missing(LauncherWorker *worker)
{
	pid_t		pid;

	if (worker->handle != NULL &&
		GetBackgroundWorkerPid(worker->handle, &pid) == BGWH_STOPPED)
	{
		pfree(worker->handle);
		worker->handle = NULL;
		worker->ended_at = GetCurrentTimestamp();
	}
	return worker->handle == NULL &&
		TimestampDifferenceExceeds(worker->ended_at, GetCurrentTimestamp(),
								   RESTART_PAUSE);
}

/*
 * The oid of a database that can be connected to, else 0.  One that is being
 * dropped has a connection limit below -1.  The index can only be used once a
 * backend has left behind what it knows of the shared catalogs.
 */
static Oid
find_database(const char *name)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			oid = InvalidOid;

	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_database_datname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(name));
	scan = systable_beginscan(rel, DatabaseNameIndexId,
							  criticalSharedRelcachesBuilt, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);

		if (row->datallowconn && row->datconnlimit >= -1)
			oid = row->oid;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return oid;
}

/* Says in the log why a database has no workers, once. */
static void
log_missing_database(LauncherDatabase *database)
{
	if (!database->logged)
		ereport(LOG,
				(errcode(ERRCODE_UNDEFINED_DATABASE),
				 errmsg("eventstore starts no workers for database \"%s\"",
						database->name),
				 errdetail("The database does not exist, or does not allow connections."),
				 errhint("Create the database, and the workers start within seconds; or remove it from eventstore.databases.")));
	database->logged = true;
}

static void
log_missing_process(LauncherDatabase *database)
{
	if (!database->logged)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("eventstore cannot start all workers for database \"%s\"",
						database->name),
				 errdetail("All %d background processes of max_worker_processes are taken.",
						   max_worker_processes),
				 errhint("Increase max_worker_processes: eventstore needs one, and %d for each of %d databases.",
						 workers, database_count)));
	database->logged = true;
}

/*
 * Starts the workers that are missing in one database.  Handles are kept as
 * long as the launcher lives.
 */
static void
start_missing_workers(LauncherDatabase *database)
{
	Oid			oid = InvalidOid;
	int			i;

	for (i = 0; i < workers; i++)
	{
		LauncherWorker *worker = &database->workers[i];

		if (!is_worker_missing(worker))
			continue;
		if (!OidIsValid(oid))
			oid = find_database(database->name);
		if (!OidIsValid(oid))
		{
			log_missing_database(database);
			return;
		}
		MemoryContextSwitchTo(TopMemoryContext);
		if (!worker_process_start(oid, BGW_NEVER_RESTART, &worker->handle))
		{
			log_missing_process(database);
			return;
		}
	}
	database->logged = false;
}

/*
 * The launcher's process.  By exit code 1 it is started again, as the server's
 * own launcher for logical replication; not when the server stops.
 */
void
eventstore_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(TopMemoryContext);
	make_launcher_databases();
	before_shmem_exit(end_workers, (Datum) 0);
	for (;;)
	{
		int			i;

		if (ShutdownRequestPending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		worker_reload_settings();
		for (i = 0; i < database_count; i++)
			start_missing_workers(&databases[i]);
		sleep_until_latch(LOOK_INTERVAL, "EventstoreLauncher");
	}
}

static void
register_launcher(void)
{
	BackgroundWorker process;

	worker_process_describe(&process, "eventstore_launcher_main",
							"eventstore launcher");
	process.bgw_restart_time = CRASH_PAUSE;
	RegisterBackgroundWorker(&process);
}

void
launcher_init(void)
{
	/* known without preloading, too, so that its line is no invalid parameter */
	DefineCustomIntVariable("eventstore.workers",
							"Number of workers for each database.",
							NULL, &workers, 2, 1, MAX_WORKERS,
							process_shared_preload_libraries_in_progress ?
							PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	/* nothing may write to the server of pg_upgrade */
	if (worker_slot_databases() != NIL && !IsBinaryUpgrade)
		register_launcher();
}

/*
 * Starting a worker by hand
 */

static void
refuse_without_process(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no worker can be started"),
			 errdetail("All %d background processes of max_worker_processes are taken.",
					   max_worker_processes),
			 errhint("Increase max_worker_processes, which takes a restart of the server.")));
}

static void
refuse_without_start(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("the worker has ended"),
			 errdetail("It was started, and ended at once."),
			 errhint("The server's log may have the reason.")));
}

/*
 * es_start_worker() returns integer: starts a worker for this database and
 * returns its process id.
 */
Datum
es_start_worker(PG_FUNCTION_ARGS)
{
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errdetail("A worker writes, and a server in recovery cannot be written to."),
				 errhint("Start it on the primary.")));
	/* as many as the launcher has started, or one that has started by itself */
	worker_count_begin(workers + (worker_slot_number() >= 0 ? workers :
								  autostart_workers > 0 ? 1 : 0));
	if (!worker_process_start(MyDatabaseId, CRASH_PAUSE, &handle))
		refuse_without_process();
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		refuse_without_start();
	worker_count_end(handle, pid);
	PG_RETURN_INT32(pid);
}
