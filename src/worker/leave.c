/*-------------------------------------------------------------------------
 *
 * leave.c
 *		What an idle worker does in a database without a slot in shared memory.
 *		It naps, sleeps, or leaves.
 *
 * Nothing wakes it there.  For some seconds after it had something to do it is awake:
 * it looks often, and promises to notify.  Then it takes the promise back, so that
 * appenders notify by themselves, and looks rarely.
 *
 * A worker that an append started (autostart.c) leaves then, unless something can become
 * due for which no session would start a worker:
 *
 *	1. it checks whether anything can;
 *	2. it releases all the locks by which it is seen;
 *	3. it looks again: at the holders of a lock on the log, and then at what is
 *	   committed.  An appender that relied on it has held such a lock since before
 *	   step 2;
 *	4. it ends, or serves again, unless another worker does by now.
 *
 * doc/internals/autostart.md has the proof, and test/models/autostart.pml a model.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "notify/notify.h"
#include "projection/projection.h"
#include "worker/worker.h"

/*
 * How long a worker is awake after it had something to do, in milliseconds.  DROP DATABASE
 * waits for five seconds.
 */
#define SHORTEST_AWAKE	2000
#define LONGEST_AWAKE	4000

/* The longest nap of one that is awake, in milliseconds. */
#define LONGEST_NAP		100

static bool has_slot = false;
static bool leaves = false;		/* it was started by itself */
static bool awake = true;
static TimestampTz busy_at;		/* when it last had something to do */
static long awake_for = SHORTEST_AWAKE;
static long nap;				/* the last one */

/* Ends a worker whose library is not that of the extension. */
static void
check_library_version(void)
{
	char	   *version = NULL;
	bool		fits;

	StartTransactionCommand();
	fits = OidIsValid(log_find_extension(&version)) &&
		strcmp(version, EVENTSTORE_VERSION) == 0;
	if (version != NULL && !fits)
		ereport(LOG,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no eventstore worker serves database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errdetail("The library is of version %s, the extension of version %s.",
						   EVENTSTORE_VERSION, version),
				 errhint("ALTER EXTENSION eventstore UPDATE, or install the library of the extension's version.")));
	CommitTransactionCommand();
	if (!fits)
		proc_exit(0);
}

/* The server's lock comes first: without it, the place is for another database. */
void
leave_begin(bool joined)
{
	has_slot = joined;
	leaves = worker_process_is_autostarted();
	busy_at = GetCurrentTimestamp();
	nap = notify_interval;
	if (!leaves)
		return;
	if (has_slot || !worker_slot_serve() ||
		!worker_lock_take_place(autostart_workers))
		proc_exit(0);
	check_library_version();
}

bool
leave_serve(void)
{
	bool		serves = worker_slot_serve();

	if (leaves && !serves)
		proc_exit(0);

	/* an error may have released it */
	if (leaves)
		(void) worker_lock_take_place(autostart_workers);
	return serves;
}

bool
leave_is_awake(void)
{
	return has_slot || awake;
}

/*
 * Where work comes in intervals that are almost as long as the worker is awake, it stays
 * so for longer, as starting a process is not free.
 */
void
leave_note_work(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		interval = TimestampDifferenceMilliseconds(busy_at, now);

	awake_for = Max(awake_for, Min(2 * interval, LONGEST_AWAKE));
	busy_at = now;
	nap = notify_interval;
	awake = true;
}

/* Returns true if nothing can fall due: steps 1 and 3 of the header. */
static bool
find_nothing(MemoryContext context)
{
	Oid			log = worker_begin_transaction("looking for work before leaving");
	bool		found = log_lock_has_holder(log);

	worker_set_synchronous_commit("local");
	if (!found)
	{
		int64		horizon;

		PushActiveSnapshot(GetTransactionSnapshot());
		horizon = horizon_find(log, GetActiveSnapshot());
		found = announce_is_behind(log, horizon) ||
			projection_may_fall_due(log, horizon) || horizon_publish(log);
		PopActiveSnapshot();
	}
	worker_end_transaction(context);
	return !found;
}

/* The same; after an error something may. */
static bool
try_find_nothing(MemoryContext context)
{
	volatile bool nothing = false;

	PG_TRY();
	{
		nothing = find_nothing(context);
	}
	PG_CATCH();
	{
		worker_recover(context);
	}
	PG_END_TRY();
	return nothing;
}

/* Leaves, or returns false: steps 1 to 4. */
static bool
try_leave(MemoryContext context)
{
	if (!try_find_nothing(context))
		return false;
	worker_lock_release_all();
	if (try_find_nothing(context))
		proc_exit(0);
	return leave_serve();
}

void
leave_rest(MemoryContext context, long sleep)
{
	long		idle = TimestampDifferenceMilliseconds(busy_at,
													   GetCurrentTimestamp());

	if (idle < awake_for && (!leaves || autostart_workers > 0))
	{
		nap = Min(nap * 2, LONGEST_NAP);
		sleep_until_latch(nap, "EventstoreWorkerIdle");
		return;
	}
	awake = false;
	worker_slot_set_notifying(false);
	(void) pgstat_report_stat(true);
	if (!leaves || !try_leave(context))
		sleep_until_latch(sleep, "EventstoreWorkerIdle");
}
