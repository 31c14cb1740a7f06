/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The launcher and the workers: who runs when.  The work itself is that
 *		of notify.c and projection.c.
 *
 * With shared_preload_libraries = 'eventstore' and a list of names in
 * eventstore.databases there is one launcher.  It is connected to no database,
 * keeps eventstore.workers processes in each of those that exist, and looks
 * after them every few seconds, or when one has ended.  A worker ends by
 * itself, with exit code 0, where there is no extension; it is started again
 * and again, so that CREATE EXTENSION needs no signal.  When the launcher
 * ends it takes its workers with it; the next one starts new ones.
 *
 * es_start_worker() starts one more, of which the launcher knows nothing.
 *
 * A worker goes in rounds:
 *
 *	1. remember how many transactions have ended (wakeup.c);
 *	2. announce what is new to listeners, if that is left to workers, and tell
 *	   standbys what they cannot find out by themselves;
 *	3. run projections, a batch a transaction, until none is due; and announce
 *	   in between when it is time;
 *	4. if there was anything to do, or a transaction had ended, rest for
 *	   eventstore.notify_interval, and cannot be woken: so a stream of commits
 *	   makes few rounds.  Else wait, to be woken by the next transaction that
 *	   ends, for at most eventstore.poll_interval: COMMIT PREPARED, which
 *	   wakes nobody, and projections that are to be tried again are found
 *	   then.
 *
 * It rests and waits outside of transactions.  An error ends the transaction
 * that it is in, is logged, and the next round comes after a pause; meanwhile
 * appenders notify by themselves.
 *
 * SIGTERM ends a worker wherever it is, with exit code 0, so that nobody
 * starts it again who does not want to: it cancels the running statement, whose
 * error is what brings it out of there.
 *
 * Killed at any moment, a worker leaves nothing half done: what it does is
 * committed together with the record that it is done, or is done again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "log/log.h"
#include "notify/notify.h"
#include "projection/projection.h"
#include "worker/worker.h"

#define EXTENSION "eventstore"

/* Milliseconds: from one look of the launcher to the next, and from the end
 * of a worker to the start of the one that takes its place. */
#define LOOK_INTERVAL	3000
#define RESTART_PAUSE	2000

/* Milliseconds after an error. */
#define ERROR_PAUSE		1000

/* Seconds until the server restarts a launcher, or a worker that was started
 * by hand. */
#define CRASH_PAUSE		3

#define MAX_WORKERS		8

extern PGDLLEXPORT void eventstore_launcher_main(Datum arg);
extern PGDLLEXPORT void eventstore_worker_main(Datum arg);

PG_FUNCTION_INFO_V1(es_start_worker);

/*
 * eventstore.workers: processes for each database.  An administrator wants
 * more where projections are many or slow, as one worker runs one of them at
 * a time.
 */
static int	workers = 2;

/*
 * eventstore.poll_interval: milliseconds that a worker waits at most.  An
 * administrator makes it longer where idle databases are many, and shorter
 * where what wakes nobody must not be late.
 */
static int	poll_interval = 1000;

/* A worker of the launcher. */
typedef struct Post
{
	BackgroundWorkerHandle *handle; /* NULL: nobody is there */
	TimestampTz ended_at;
} Post;

/* A database of the list. */
typedef struct Crew
{
	char	   *database;
	bool		told;			/* the log knows why there are no workers */
	Post		posts[MAX_WORKERS];
} Crew;

static Crew *crews = NULL;
static int	crew_count = 0;

/*
 * Both kinds of processes
 */

/*
 * Sleeps for some milliseconds, or less: until the latch is set.  event: what
 * pg_stat_activity shows meanwhile.
 */
static void
doze(long duration, const char *event)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 duration, compat_wait_event(event));
	ResetLatch(MyLatch);
}

static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* What launcher, workers and those started by hand have in common. */
static void
describe_process(BackgroundWorker *process, const char *function,
				 const char *type)
{
	memset(process, 0, sizeof(BackgroundWorker));
	process->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(process->bgw_library_name, EXTENSION,
			sizeof(process->bgw_library_name));
	strlcpy(process->bgw_function_name, function,
			sizeof(process->bgw_function_name));
	strlcpy(process->bgw_type, type, sizeof(process->bgw_type));
	strlcpy(process->bgw_name, type, sizeof(process->bgw_name));
}

static bool
start_worker(Oid database, int restart_time, BackgroundWorkerHandle **handle)
{
	BackgroundWorker process;

	describe_process(&process, "eventstore_worker_main", "eventstore worker");
	process.bgw_restart_time = restart_time;
	process.bgw_main_arg = ObjectIdGetDatum(database);
	process.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&process, handle);
}

/*
 * The launcher
 */

/* Takes the workers along, as the next launcher would not know them. */
static void
end_workers(int code, Datum arg)
{
	int			i;
	int			j;

	for (i = 0; i < crew_count; i++)
	{
		for (j = 0; j < workers; j++)
		{
			if (crews[i].posts[j].handle != NULL)
				TerminateBackgroundWorker(crews[i].posts[j].handle);
		}
	}
}

static void
make_crews(void)
{
	List	   *names = worker_slot_databases();
	ListCell   *lc;

	crews = palloc0(sizeof(Crew) * Max(list_length(names), 1));
	foreach(lc, names)
		crews[crew_count++].database = lfirst(lc);
}

/* Is somebody to be started here, now? */
static bool
is_vacant(Post *post)
{
	pid_t		pid;

	if (post->handle != NULL &&
		GetBackgroundWorkerPid(post->handle, &pid) == BGWH_STOPPED)
	{
		pfree(post->handle);
		post->handle = NULL;
		post->ended_at = GetCurrentTimestamp();
	}
	return post->handle == NULL &&
		TimestampDifferenceExceeds(post->ended_at, GetCurrentTimestamp(),
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
tell_no_database(Crew *crew)
{
	if (!crew->told)
		ereport(LOG,
				(errcode(ERRCODE_UNDEFINED_DATABASE),
				 errmsg("eventstore starts no workers for database \"%s\"",
						crew->database),
				 errdetail("The database does not exist, or does not allow connections."),
				 errhint("Create it, and they start within seconds; or take it out of eventstore.databases.")));
	crew->told = true;
}

static void
tell_no_process(Crew *crew)
{
	if (!crew->told)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("eventstore cannot start all workers for database \"%s\"",
						crew->database),
				 errdetail("All %d background processes of max_worker_processes are taken.",
						   max_worker_processes),
				 errhint("Increase max_worker_processes: eventstore needs one, and %d for each of %d databases.",
						 workers, crew_count)));
	crew->told = true;
}

/*
 * Starts who is missing in one database.  Handles are kept as long as the
 * launcher lives.
 */
static void
fill_crew(Crew *crew)
{
	Oid			database = InvalidOid;
	int			i;

	for (i = 0; i < workers; i++)
	{
		if (!is_vacant(&crew->posts[i]))
			continue;
		if (!OidIsValid(database))
			database = find_database(crew->database);
		if (!OidIsValid(database))
		{
			tell_no_database(crew);
			return;
		}
		MemoryContextSwitchTo(TopMemoryContext);
		if (!start_worker(database, BGW_NEVER_RESTART, &crew->posts[i].handle))
		{
			tell_no_process(crew);
			return;
		}
	}
	crew->told = false;
}

/*
 * The launcher.  By exit code 1 it is started again, as the server's own one
 * for logical replication; when the server stops nobody does.
 */
void
eventstore_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(TopMemoryContext);
	make_crews();
	before_shmem_exit(end_workers, (Datum) 0);
	for (;;)
	{
		int			i;

		if (ShutdownRequestPending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		reload_settings();
		for (i = 0; i < crew_count; i++)
			fill_crew(&crews[i]);
		doze(LOOK_INTERVAL, "EventstoreLauncher");
	}
}

/*
 * A worker
 */

/* SIGTERM: ends the running statement, and then the worker. */
static void
end_worker(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Ends if it is time, and lets the server's other requests be served.  A
 * request to cancel a statement that came too late is not for the next one;
 * SIGTERM after the first line leaves its own to that.
 */
static void
handle_interrupts(void)
{
	QueryCancelPending = false;
	if (ShutdownRequestPending)
		proc_exit(0);
	CHECK_FOR_INTERRUPTS();
	reload_settings();
}

static void
set_option(const char *name, const char *value)
{
	/* a server version may not have it */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * What is set for a database's sessions must not stop its workers.
 */
static void
set_options(void)
{
	set_option("statement_timeout", "0");
	set_option("lock_timeout", "0");
	set_option("transaction_timeout", "0");
	set_option("idle_in_transaction_session_timeout", "0");
	set_option("default_transaction_isolation", "read committed");
	set_option("default_transaction_read_only", "off");
	set_option("default_transaction_deferrable", "off");
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name,
					PGC_USERSET, PGC_S_SESSION);
}

/* Joins the workers of this database in shared memory. */
static bool
join(void)
{
	bool		joined;

	StartTransactionCommand();
	joined = worker_slot_join(get_database_name(MyDatabaseId));
	CommitTransactionCommand();
	return joined;
}

/* The schema of our extension, 0 if there is no extension. */
static Oid
find_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/*
 * Starts a transaction and returns the log, which is locked against being
 * dropped before anything else is: DROP EXTENSION does the same, so that who
 * comes second waits with no lock in hand.  The worker ends if there is none.
 */
static Oid
begin_work(const char *activity)
{
	Oid			schema;
	Oid			log = InvalidOid;
	Relation	rel;

	worker_slot_set_working(true);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	schema = find_schema();
	if (OidIsValid(schema))
		log = get_relname_relid("es_events", schema);
	rel = OidIsValid(log) ? try_relation_open(log, AccessShareLock) : NULL;
	if (rel != NULL)
	{
		relation_close(rel, NoLock);
		return log;
	}
	CommitTransactionCommand();
	proc_exit(0);
}

static void
end_work(MemoryContext context)
{
	CommitTransactionCommand();
	worker_slot_set_working(false);
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
}

/* Sets when the commit of the present transaction is done. */
static void
set_commit(const char *value)
{
	(void) set_config_option("synchronous_commit", value, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* What this process has used of a processor, in milliseconds. */
static double
processor_time(void)
{
	struct timespec used;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0)
		return 0;
	return used.tv_sec * 1000.0 + used.tv_nsec / 1000000.0;
}

/*
 * Announces what is new, if that is left to workers, of whom appenders know.
 * True if it is to come again soon.
 */
static bool
announce(MemoryContext context)
{
	AnnounceResult result;
	double		before;
	Oid			log;

	if (!notify_is_by_worker())
	{
		worker_slot_set_notifying(false);
		return false;
	}
	log = begin_work("announcing events");
	PushActiveSnapshot(GetTransactionSnapshot());
	result = announce_run(log);
	PopActiveSnapshot();

	/*
	 * what a crash takes back is announced again: no need to wait for the
	 * disk
	 */
	set_commit("off");
	before = processor_time();
	end_work(context);
	if (result == ANNOUNCE_DONE)
		announce_set_cost(processor_time() - before);

	/* There is a record now of what lies behind. */
	if (result != ANNOUNCE_LATER)
		worker_slot_set_notifying(true);
	return result != ANNOUNCE_NOTHING_NEW;
}

/* Logs an error, if it is none that SIGTERM has made, and leaves nothing of it. */
static void
recover(MemoryContext context)
{
	HOLD_INTERRUPTS();
	if (!ShutdownRequestPending || geterrcode() != ERRCODE_QUERY_CANCELED)
		EmitErrorReport();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	FlushErrorState();
	MemoryContextReset(context);
	worker_slot_set_working(false);
	RESUME_INTERRUPTS();
}

/*
 * Announces, unless the server's queue of notifications was full a moment
 * ago.  That error keeps the worker from nothing else, and it goes on to offer
 * that it sends: an appender would get the same error, and lose its
 * transaction by it, whereas a worker announces later.
 */
static bool
try_announce(MemoryContext context)
{
	static TimestampTz full_at = 0;
	volatile bool again = false;

	if (!TimestampDifferenceExceeds(full_at, GetCurrentTimestamp(), ERROR_PAUSE))
		return false;
	PG_TRY();
	{
		again = announce(context);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		recover(context);
		full_at = GetCurrentTimestamp();
		/* as nobody gets so far as to free what all have read, but who asks */
		(void) DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0);
	}
	PG_END_TRY();
	return again;
}

/*
 * Tells standbys the horizon, at once but waiting for none of them.  True if
 * it is to come again soon.
 */
static bool
tell_standbys(MemoryContext context)
{
	Oid			log = begin_work("telling standbys the horizon");
	bool		again;

	set_commit("local");
	PushActiveSnapshot(GetTransactionSnapshot());
	again = horizon_publish(log);
	PopActiveSnapshot();
	end_work(context);
	return again;
}

/* Step 2 of a round.  True if it is to be done again soon. */
static bool
tell(MemoryContext context, bool announces)
{
	bool		again = announces && try_announce(context);

	return tell_standbys(context) || again;
}

/*
 * Runs one batch of a projection, if one is due.  SPI wants a snapshot to be
 * there, as it is where a client's statement runs.
 */
static bool
run_projection(MemoryContext context)
{
	Oid			log = begin_work("running projections");
	bool		ran;

	PushActiveSnapshot(GetTransactionSnapshot());
	ran = projection_run_due(log);
	PopActiveSnapshot();
	end_work(context);
	return ran;
}

/*
 * Steps 2 and 3 of a round.  True if there was anything to do.
 */
static bool
run_round(MemoryContext context, bool announces)
{
	TimestampTz told = GetCurrentTimestamp();
	bool		busy;

	handle_interrupts();
	busy = tell(context, announces);
	while (run_projection(context))
	{
		busy = true;
		handle_interrupts();
		if (TimestampDifferenceExceeds(told, GetCurrentTimestamp(),
									   notify_interval))
		{
			told = GetCurrentTimestamp();
			tell(context, announces);
		}
	}
	return busy;
}

/* A round; false after an error. */
static bool
try_round(MemoryContext context, bool announces, bool *busy)
{
	volatile bool done = false;

	PG_TRY();
	{
		if (run_round(context, announces))
			*busy = true;
		done = true;
	}
	PG_CATCH();
	{
		recover(context);
		worker_slot_set_notifying(false);
	}
	PG_END_TRY();
	return done;
}

/* Waits for the next transaction that ends. */
static void
wait_for_end(uint64 ends)
{
	(void) pgstat_report_stat(true);
	if (wakeup_begin_wait(ends))
		doze(poll_interval, "EventstoreWorkerIdle");
	wakeup_end_wait();
}

/* A worker of the database whose oid is given. */
void
eventstore_worker_main(Datum arg)
{
	MemoryContext context;
	bool		announces;
	uint64		seen = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg),
											  InvalidOid, 0);
	pqsignal(SIGTERM, end_worker);
	set_options();
	context = AllocSetContextCreate(TopMemoryContext, "eventstore worker",
									ALLOCSET_DEFAULT_SIZES);
	announces = join();
	for (;;)
	{
		uint64		ends = wakeup_count();
		bool		busy = ends != seen;
		bool		done;

		seen = ends;
		MemoryContextSwitchTo(context);
		done = try_round(context, announces, &busy);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) pgstat_report_stat(false);
		if (!done)
			doze(ERROR_PAUSE, "EventstoreWorkerError");
		else if (busy)
			doze(notify_interval, "EventstoreWorkerPause");
		else
			wait_for_end(seen);
	}
}

/*
 * Starting a worker by hand
 */

static void
fail_without_slot(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no worker can be started"),
			 errdetail("All %d background processes of max_worker_processes are taken.",
					   max_worker_processes),
			 errhint("Increase max_worker_processes, which takes a restart of the server.")));
}

static void
fail_without_start(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("the worker has ended"),
			 errdetail("It was started, and ended before anybody saw it."),
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
	if (!start_worker(MyDatabaseId, CRASH_PAUSE, &handle))
		fail_without_slot();
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		fail_without_start();
	PG_RETURN_INT32(pid);
}

static void
register_launcher(void)
{
	BackgroundWorker process;

	describe_process(&process, "eventstore_launcher_main",
					 "eventstore launcher");
	process.bgw_restart_time = CRASH_PAUSE;
	RegisterBackgroundWorker(&process);
}

/*
 * Defines the settings, and registers the launcher while the server loads its
 * libraries.
 */
void
worker_init(void)
{
	DefineCustomIntVariable("eventstore.poll_interval",
							"Longest time that a worker waits before it looks by itself.",
							NULL, &poll_interval, 1000, 10, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomIntVariable("eventstore.workers",
							"Number of workers for each database.",
							NULL, &workers, 2, 1, MAX_WORKERS,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	/* pg_upgrade's server is nobody's to write to */
	if (worker_slot_databases() != NIL && !IsBinaryUpgrade)
		register_launcher();
}
