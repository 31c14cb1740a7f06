/*-------------------------------------------------------------------------
 *
 * autostart.c
 *		Starting a worker where none serves the database: a dynamic background
 *		process, without shared_preload_libraries.
 *
 * doc/internals/autostart.md has the protocol and why it leaves out no event.  Here is
 * the side that starts one:
 *
 *	- an append that sees no promise, and rows that logical replication applies, before
 *	  their commit.  They hold a lock on the log, which a worker that is leaving sees;
 *	- what makes a projection due without such a lock, after its commit;
 *	- a caller that waits for a projection, now.
 *
 * Before a process is registered: no worker serves the database, this session has the
 * token (not after a commit, where nothing may fail), a place is free, and as many
 * processes of the server are left for others as there are places.  The caller does not
 * wait for the process.  Nothing here is an error; the caller goes on without a worker.
 *
 * An attempt fails if no process was registered, or if no worker serves the database when
 * that process should.  After that the session pauses before the next one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "log/log.h"
#include "log/replica.h"
#include "notify/notify.h"

/* Pauses between two attempts of a session, in milliseconds. */
#define FIRST_PAUSE		1000
#define LONGEST_PAUSE	10000

/*
 * Times after its start at which a worker serves for certain: from the first one to the
 * second one (leave.c), in milliseconds.
 */
#define SERVES_FROM		500
#define SERVES_UNTIL	2000

/*
 * eventstore.autostart_workers: how many workers that were started by appends may run in
 * the cluster.  An administrator allows more if there are many databases, and none if
 * processes are scarce.
 */
int			autostart_workers = 2;

static bool wanted = false;		/* before the commit of this transaction */
static bool wanted_after = false;	/* after it */

static TimestampTz tried_at = 0;	/* the last attempt */
static long attempt_pause = FIRST_PAUSE;	/* after it */
static bool in_vain = false;	/* it was */

/*
 * Returns true if workers of this database start by themselves: it has no slot in
 * shared memory, and will have none.
 */
static bool
is_possible(void)
{
	return autostart_workers > 0 && worker_slot_number() < 0;
}

/* Returns true if the launcher will start workers here.  It is looked up once. */
static bool
is_launchers(void)
{
	static int	listed = -1;

	if (listed < 0)
		listed = worker_slot_is_listed(get_database_name(MyDatabaseId));
	return listed;
}

/* Returns true if a process is left, and as many as there are places for others. */
static bool
has_room(void)
{
	return worker_process_free_count() > autostart_workers;
}

/* Starts a worker; returns false if that cannot be now. */
static bool
attempt_start(void)
{
	switch (worker_lock_take_tokens(autostart_workers))
	{
		case TOKEN_TAKEN:
			return has_room() && worker_process_autostart();
		case TOKEN_OF_ANOTHER:
			return true;
		default:
			return false;
	}
}

/* Starts a worker if none serves the database, and it is not too soon for that. */
static void
start_if_unserved(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		elapsed;

	if (worker_lock_is_served())
	{
		in_vain = false;
		attempt_pause = FIRST_PAUSE;
		return;
	}
	elapsed = TimestampDifferenceMilliseconds(tried_at, now);
	if (tried_at != 0 && elapsed >= SERVES_FROM && elapsed < SERVES_UNTIL)
		in_vain = true;
	if (tried_at != 0 && elapsed < attempt_pause)
		return;
	attempt_pause = in_vain ? Min(attempt_pause * 2, LONGEST_PAUSE) : FIRST_PAUSE;
	tried_at = now;
	in_vain = !attempt_start();
}

/* Nothing is started where nothing may be written. */
static bool
may_start(void)
{
	return !RecoveryInProgress() && !IsBinaryUpgrade && !is_launchers();
}

void
autostart_want(void)
{
	wanted = wanted || is_possible();
}

void
autostart_want_after_commit(void)
{
	wanted_after = wanted_after || (is_possible() && may_start());
}

void
autostart_now(void)
{
	if (is_possible() && may_start())
		start_if_unserved();
}

void
autostart_before_commit(void)
{
	worker_lock_end_tokens();
	if (log_guard_take_applied())
		autostart_want();
	if (wanted && may_start())
		start_if_unserved();
	wanted = false;
}

/*
 * No other process is sure to see what the transaction has done.  So neither a token nor
 * a pause keeps it from starting a worker.
 */
void
autostart_after_commit(void)
{
	if (wanted_after && !worker_lock_is_served() &&
		worker_lock_place_is_free(autostart_workers) && has_room())
		(void) worker_process_autostart();
	wanted_after = false;
}

void
autostart_forget(void)
{
	wanted = false;
	wanted_after = false;
	(void) log_guard_take_applied();
}

void
autostart_init(void)
{
	DefineCustomIntVariable("eventstore.autostart_workers",
							"Number of workers in the cluster that start by themselves.",
							"Where no worker serves a database, an append starts one, which leaves when it is idle.",
							&autostart_workers, 2, 0, AUTOSTART_MAX_WORKERS,
							PGC_SUSET, 0, NULL, NULL, NULL);
}
