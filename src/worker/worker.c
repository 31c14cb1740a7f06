/*-------------------------------------------------------------------------
 *
 * worker.c
 *		A worker: what a background process does for a database, and when.
 *		The work itself is that of announce.c, published_horizon.c,
 *		projection_run.c and retention_run.c.
 *
 * A worker goes in rounds:
 *
 *	1. remember how many transactions of appenders have ended (wakeup.c);
 *	2. notify listeners of what is new, if that is left to workers, and publish
 *	   the horizon for standbys, which cannot find it themselves;
 *	3. run rules of retention and projections, a step or a batch a transaction, until no
 *	   projection is due, and do step 2 in between when it is time;
 *	4. if there was anything to do, or a transaction had ended, pause for
 *	   eventstore.notify_interval, and cannot be woken: so a stream of commits
 *	   makes few rounds.  Else wait for the next transaction that ends, for at
 *	   most eventstore.poll_interval.  COMMIT PREPARED, which wakes nothing,
 *	   and projections that are to be tried again are found then.  In a database
 *	   without a slot nothing wakes it: leave.c says how long it sleeps there.
 *
 * Most rounds in a stream of commits find little to do, and processor time that workers
 * take is missing for appenders.  So the pause of a worker that finds nothing but that
 * another has just notified grows to some intervals, and where no projection was due for
 * some rounds, not every round looks for one.
 *
 * It pauses and waits outside of transactions.  An error ends the transaction
 * that it is in and is logged.  If that was the transaction of a projection's batch,
 * the next round begins with noting it for the projection, which then pauses.  Else the
 * round follows after a pause, which grows from error to error; meanwhile appenders
 * notify by themselves.
 *
 * SIGTERM ends a worker wherever it is, with exit code 0, so that the server
 * does not start it again.  It cancels the running statement, whose error
 * brings the worker back to its loop.
 *
 * A worker that is killed at any moment leaves nothing half done: what it does
 * is committed together with the record that it is done, or is done again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "commands/prepare.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/context.h"
#include "log/closed.h"
#include "log/log.h"
#include "notify/notify.h"
#include "retention/rule.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"
#include "worker/worker.h"


/*
 * What a worker that is not needed waits at most in a stream of commits, in intervals of
 * notifications: before the next round, and before it looks again for projections that
 * are due.  It is a stream after so many rounds in a row before which one had ended.
 */
#define LONGEST_PAUSE_INTERVALS 5
#define LOOK_INTERVALS	3
#define ROUNDS_OF_STREAM	4

/* Milliseconds after an error, and at most, after many. */
#define ERROR_PAUSE		1000
#define LAST_ERROR_PAUSE	60000

/* Milliseconds between two looks for rules that were set. */
#define RETENTION_LOOK_INTERVAL	1000

extern PGDLLEXPORT void eventstore_worker_main(Datum arg);

/*
 * eventstore.poll_interval: milliseconds that a worker waits at most.  An
 * administrator makes it longer if many databases are idle, and shorter if work
 * that wakes no worker must not be late.
 */
static int	poll_interval = 1000;

void
worker_reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

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
 * Ends if it is time, and serves the server's other requests.  A request to
 * cancel a statement that has ended already must not cancel the next one.  A
 * SIGTERM that comes after the first line sets its request again.
 */
static void
handle_worker_interrupts(void)
{
	QueryCancelPending = false;
	if (ShutdownRequestPending)
		proc_exit(0);
	CHECK_FOR_INTERRUPTS();
	worker_reload_settings();
}

static void
set_worker_option(const char *name, const char *value)
{
	/* a server version may not have it */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Overrides settings of the database that would stop its workers.
 */
static void
set_worker_options(void)
{
	set_worker_option("statement_timeout", "0");
	set_worker_option("lock_timeout", "0");
	set_worker_option("transaction_timeout", "0");
	set_worker_option("idle_in_transaction_session_timeout", "0");
	set_worker_option("default_transaction_isolation", "read committed");
	set_worker_option("default_transaction_read_only", "off");
	set_worker_option("default_transaction_deferrable", "off");
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name,
					PGC_USERSET, PGC_S_SESSION);
}

/* Joins the workers of this database in shared memory. */
static bool
join_worker_slot(void)
{
	bool		joined;

	StartTransactionCommand();
	joined = worker_slot_join(get_database_name(MyDatabaseId));
	CommitTransactionCommand();
	return joined;
}

/* own_sql_schema_changes() when the transaction began. */
static uint64 begun_after_changes;

/*
 * Returns true if the error that is raised comes of a new name of the extension's schema: our
 * statements are written with its name, and nothing is locked against ALTER SCHEMA while one
 * is analyzed.  The next try finds the new name.
 */
static bool
is_of_renamed_schema(void)
{
	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_SCHEMA:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
			return own_sql_schema_changes() != begun_after_changes;
		default:
			return false;
	}
}

/*
 * Starts a transaction and returns the log.  It is locked against being dropped
 * before anything else is locked, as DROP EXTENSION does; whichever of both is
 * second waits without a lock.  The worker ends if there is no log.
 */
Oid
worker_begin_transaction(const char *activity)
{
	Oid			schema;
	Oid			log = InvalidOid;
	Relation	rel;

	worker_slot_set_working(true);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	schema = log_find_extension(NULL);
	if (OidIsValid(schema))
		log = get_relname_relid("es_events", schema);
	rel = OidIsValid(log) ? try_relation_open(log, AccessShareLock) : NULL;
	if (rel != NULL)
	{
		relation_close(rel, NoLock);
		begun_after_changes = own_sql_schema_changes();
		return log;
	}
	CommitTransactionCommand();
	proc_exit(0);
}

/*
 * Ends the transaction, and releases advisory locks of the session, which would keep
 * the same handler waiting in another worker, in an open transaction.
 */
void
worker_end_transaction(MemoryContext context)
{
	CommitTransactionCommand();
	LockReleaseAll(USER_LOCKMETHOD, true);
	worker_slot_set_working(false);
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
}

/* Sets what the commit of the present transaction waits for. */
void
worker_set_synchronous_commit(const char *value)
{
	(void) set_config_option("synchronous_commit", value, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* Returns what this process has used of a processor, in milliseconds. */
static double
processor_time(void)
{
	struct timespec used;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0)
		return 0;
	return used.tv_sec * 1000.0 + used.tv_nsec / 1000000.0;
}

/* In this round: another worker has just notified; this one ran a projection. */
static bool notified_by_other;
static bool ran_projection;

/* Rounds in a row before which a transaction had ended, and no projection was due. */
static int	rounds_without = 0;

/*
 * Notifies listeners of what is new, if that is left to workers.  Returns true
 * if it is to be called again soon.
 */
static bool
notify_listeners(MemoryContext context)
{
	AnnounceResult result;
	double		before;
	Oid			log;

	if (!notify_is_by_worker())
	{
		worker_slot_set_notifying(false);
		return false;
	}
	log = worker_begin_transaction("notifying listeners");
	PushActiveSnapshot(GetTransactionSnapshot());
	result = announce_run(log);
	PopActiveSnapshot();

	/* what a crash takes back is notified again: do not wait for the disk */
	worker_set_synchronous_commit("off");
	before = processor_time();
	worker_end_transaction(context);
	if (result == ANNOUNCE_DONE)
		announce_set_cost(processor_time() - before);
	notified_by_other = result == ANNOUNCE_LATER;

	/* from now on es_notified says what was left to workers */
	if (result != ANNOUNCE_LATER && leave_is_awake())
		worker_slot_set_notifying(true);
	return result != ANNOUNCE_NOTHING_NEW;
}

/*
 * An error that has ended the transaction of a projection's batch, and is still to be
 * noted for the projection; NULL: none is.
 */
static ErrorData *lost_batch_error = NULL;
static char lost_batch_name[NAMEDATALEN];

/*
 * Remembers the error that is raised, if it is one of a projection's batch.  A cancel is
 * no failure.
 */
static void
remember_lost_batch(void)
{
	const char *name = projection_limit_present();

	if (name == NULL || lost_batch_error != NULL ||
		geterrcode() == ERRCODE_QUERY_CANCELED)
		return;
	MemoryContextSwitchTo(TopMemoryContext);
	lost_batch_error = CopyErrorData();
	strlcpy(lost_batch_name, name, sizeof(lost_batch_name));
	projection_limit_turn(NULL);
}

/* Notes it.  If that fails, too, the projection has its next attempt soon. */
static void
note_lost_batch(MemoryContext context)
{
	ErrorData  *error = lost_batch_error;
	Oid			log;

	if (error == NULL)
		return;
	lost_batch_error = NULL;
	log = worker_begin_transaction("running projections");
	PushActiveSnapshot(GetTransactionSnapshot());
	projection_note_lost_batch(log, lost_batch_name, error);
	PopActiveSnapshot();
	worker_end_transaction(context);
	FreeErrorData(error);
}

/*
 * Cleans up after an error, and logs it unless SIGTERM raised it or the schema was renamed
 * meanwhile.
 */
void
worker_recover(MemoryContext context)
{
	HOLD_INTERRUPTS();
	remember_lost_batch();
	if ((!ShutdownRequestPending || geterrcode() != ERRCODE_QUERY_CANCELED) &&
		!is_of_renamed_schema())
		EmitErrorReport();
	AbortCurrentTransaction();
	LockReleaseAll(USER_LOCKMETHOD, true);
	MemoryContextSwitchTo(context);
	FlushErrorState();
	MemoryContextReset(context);
	worker_slot_set_working(false);
	RESUME_INTERRUPTS();
}

/*
 * Notifies listeners, unless the server's queue of notifications was full a
 * moment ago.  That error keeps the worker from nothing else, and appenders
 * still leave their notifications to it: an appender would get the same error,
 * and its transaction would fail, whereas a worker notifies later.
 */
static bool
try_notify_listeners(MemoryContext context)
{
	static TimestampTz full_at = 0;
	volatile bool again = false;

	if (!TimestampDifferenceExceeds(full_at, GetCurrentTimestamp(), ERROR_PAUSE))
		return false;
	PG_TRY();
	{
		again = notify_listeners(context);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		worker_recover(context);
		worker_slot_go_on_serving();
		full_at = GetCurrentTimestamp();
		/* no NOTIFY gets so far as to free what all have read; this does */
		(void) DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0);
	}
	PG_END_TRY();
	return again;
}

/*
 * Publishes the horizon for standbys, without waiting for them.  Returns true
 * if it is to be called again soon.
 */
static bool
publish_horizon(MemoryContext context)
{
	Oid			log = worker_begin_transaction("publishing the horizon");
	bool		again;

	worker_set_synchronous_commit("local");
	PushActiveSnapshot(GetTransactionSnapshot());
	again = horizon_publish(log);
	PopActiveSnapshot();
	worker_end_transaction(context);
	return again;
}

/* Step 2 of a round.  Returns true if it is to be done again soon. */
static bool
notify_and_publish(MemoryContext context, bool notifies)
{
	bool		again = notifies && try_notify_listeners(context);

	return publish_horizon(context) || again;
}

/*
 * Discards what a handler has left in the session: cursors, prepared statements and
 * temporary tables.  The next handler finds a session as new.  Settings are put back
 * by run_as_end, a background process cannot LISTEN, and plans are kept.
 */
static void
discard_session_objects(void)
{
	Oid			schema;
	Oid			toast;

	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	GetTempNamespaceState(&schema, &toast);
	if (OidIsValid(schema))
		ResetTempTableNamespace();
}

/* Names the projection in an error of its transaction's commit. */
static void
add_commit_context(void *arg)
{
	const char *name = projection_limit_present();

	if (name != NULL)
		errcontext("commit of a batch of projection \"%s\"", name);
}

/*
 * Runs one batch of a projection, if one is due.  SPI wants a snapshot to be
 * there, as it is where a client's statement runs.
 */
static bool
run_due_projection(MemoryContext context)
{
	Oid			log = worker_begin_transaction("running projections");
	ErrorContextCallback at;
	bool		ran;

	PushActiveSnapshot(GetTransactionSnapshot());
	ran = !log_restore_is_going_on(log) && projection_run_due(log);
	PopActiveSnapshot();
	if (ran)
		discard_session_objects();
	context_push(&at, add_commit_context, NULL);
	worker_end_transaction(context);
	context_pop(&at);
	projection_limit_turn(NULL);
	return ran;
}

/* When a rule of retention may be due, and when the worker has looked last. */
static TimestampTz retention_at = 0;
static TimestampTz retention_looked_at = 0;

/*
 * Does one step of a rule of retention, if one is due.  A rule may have been set since the
 * last look, so there is one each second.  It is no work that keeps a worker awake, or alive:
 * what is late is removed later.
 */
static void
run_retention(MemoryContext context)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid			log;
	long		wait;

	if (now < retention_at && now >= retention_looked_at &&
		!TimestampDifferenceExceeds(retention_looked_at, now, RETENTION_LOOK_INTERVAL))
		return;
	retention_looked_at = now;
	retention_at = TimestampTzPlusMilliseconds(now, ERROR_PAUSE);
	log = worker_begin_transaction("removing events");

	/* what a crash takes back is removed again */
	worker_set_synchronous_commit("off");
	PushActiveSnapshot(GetTransactionSnapshot());
	wait = retention_run_due(log);
	PopActiveSnapshot();
	worker_end_transaction(context);
	retention_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait);
}

/* Returns how long the worker may sleep, at most so many milliseconds. */
static long
sleep_until_retention(long longest)
{
	return Min(longest,
			   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), retention_at) + 1);
}

/* Returns true if this round of a stream need not look for projections that are due. */
static bool
may_skip_projections(void)
{
	static TimestampTz looked_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (rounds_without >= ROUNDS_OF_STREAM &&
		!TimestampDifferenceExceeds(looked_at, now, notify_interval * LOOK_INTERVALS))
		return true;
	looked_at = now;
	return false;
}

/*
 * Steps 2 and 3 of a round.  Returns true if there was anything to do.
 */
static bool
run_round(MemoryContext context, bool notifies)
{
	TimestampTz notified_at = GetCurrentTimestamp();
	bool		busy;

	notified_by_other = ran_projection = false;
	handle_worker_interrupts();
	note_lost_batch(context);
	busy = notify_and_publish(context, notifies);
	run_retention(context);
	if (busy && may_skip_projections())
		return true;
	while (run_due_projection(context))
	{
		busy = ran_projection = true;
		handle_worker_interrupts();
		run_retention(context);
		if (TimestampDifferenceExceeds(notified_at, GetCurrentTimestamp(),
									   notify_interval))
		{
			notified_at = GetCurrentTimestamp();
			notify_and_publish(context, notifies);
		}
	}
	return busy;
}

/*
 * Returns the pause after a round in which there was something to do, or a transaction
 * had ended: the last one, or a longer one if another worker does what there is.
 */
static int
pause_of_stream(int pause)
{
	if (!notified_by_other || rounds_without < ROUNDS_OF_STREAM)
		return notify_interval;
	return Min(Max(pause, notify_interval) * 2, notify_interval * LONGEST_PAUSE_INTERVALS);
}

/* Runs a round; returns false after an error. */
static bool
try_round(MemoryContext context, bool notifies, bool *busy)
{
	volatile bool done = false;

	PG_TRY();
	{
		if (run_round(context, notifies))
			*busy = true;
		done = true;
	}
	PG_CATCH();
	{
		worker_recover(context);
		worker_slot_set_notifying(false);
	}
	PG_END_TRY();
	return done;
}

/*
 * Pauses after an error, the longer the more rounds have failed: not if the next round
 * only notes it for a projection.
 */
static void
pause_after_error(int failed_rounds)
{
	int			pause = ERROR_PAUSE;

	if (lost_batch_error != NULL)
		return;
	while (--failed_rounds > 0 && pause < LAST_ERROR_PAUSE)
		pause *= 2;
	pause = Min(pause, LAST_ERROR_PAUSE);
	if (pause > ERROR_PAUSE)
		ereport(LOG,
				(errmsg("eventstore worker pauses for %d s after an error",
						pause / 1000)));
	sleep_until_latch(pause, "EventstoreWorkerError");
}

/* Waits for the next transaction of an appender that ends. */
static void
wait_for_appender(uint64 count)
{
	(void) pgstat_report_stat(true);
	if (wakeup_begin_wait(count))
		sleep_until_latch(sleep_until_retention(poll_interval), "EventstoreWorkerIdle");
	wakeup_end_wait();
}

/* A worker of the database whose oid is given. */
void
eventstore_worker_main(Datum arg)
{
	MemoryContext context;
	bool		has_slot;
	uint64		seen = 0;
	int			failed_rounds = 0;
	int			pause = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg),
											  InvalidOid, 0);
	pqsignal(SIGTERM, end_worker);
	set_worker_options();
	projection_limit_enforce();
	context = AllocSetContextCreate(TopMemoryContext, "eventstore worker",
									ALLOCSET_DEFAULT_SIZES);
	has_slot = join_worker_slot();
	leave_begin(has_slot);
	for (;;)
	{
		uint64		count = wakeup_count();
		bool		ended = count != seen;
		bool		busy = ended;
		bool		done;

		seen = count;
		MemoryContextSwitchTo(context);
		done = try_round(context, has_slot || leave_serve(), &busy);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) pgstat_report_stat(false);
		failed_rounds = done ? 0 : failed_rounds + 1;
		if (busy)
			leave_note_work();
		rounds_without = ended && !ran_projection ? rounds_without + 1 : 0;
		if (!done)
			pause_after_error(failed_rounds);
		else if (busy)
		{
			pause = pause_of_stream(pause);
			sleep_until_latch(pause, "EventstoreWorkerPause");
		}
		else if (has_slot)
			wait_for_appender(seen);
		else
			leave_rest(context, sleep_until_retention(poll_interval));
	}
}

void
worker_init(void)
{
	DefineCustomIntVariable("eventstore.poll_interval",
							"Longest time that a worker waits before it looks by itself.",
							NULL, &poll_interval, 1000, 10, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}
