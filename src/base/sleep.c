/*-------------------------------------------------------------------------
 *
 * sleep.c
 *		Sleeping in the middle of a statement.
 *
 * A function that waits for long must not keep its statement's snapshot, which
 * would hold VACUUM back in the whole database.  The snapshot is the
 * executor's; it can be released, and replaced by a new one, if nothing in the
 * statement looks at it: if the statement is one that the client has sent, so that
 * no caller has a snapshot of its own, and if it reads no table.  SELECT * FROM
 * es_poll(...) is such a statement.  What it calls after that sees the new snapshot,
 * as a later statement at READ COMMITTED would.
 *
 * Everywhere else, in a function, a cursor, EXPLAIN, at other isolation
 * levels, it sleeps with the snapshot that it has.
 *
 * An error while the snapshot is released ends the statement; the portal is
 * marked as failed then, and the executor is not asked for it any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"

/* Milliseconds before a time-out that are for what comes after the sleep. */
#define LEAST_RESERVE	50

/*
 * Sleeps until the time has passed or the latch is set.  event: what
 * pg_stat_activity shows meanwhile.
 */
void
sleep_until_latch(long milliseconds, const char *event)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, compat_wait_event(event));
	ResetLatch(MyLatch);
}

/*
 * Sleeps until the time has passed or a signal comes, and serves interrupts.
 */
void
sleep_nap(long milliseconds, const char *event)
{
	sleep_until_latch(milliseconds, event);
	CHECK_FOR_INTERRUPTS();
}

/*
 * The time that is the interval from now, by a clock that is not set.
 */
Deadline
sleep_deadline(Datum interval)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(now),
															  interval));
	Deadline	deadline = {.milliseconds = (end - now + 999) / 1000};

	INSTR_TIME_SET_CURRENT(deadline.start);
	return deadline;
}

/* Milliseconds that are left, at most INT_MAX; none is 0. */
long
sleep_left(const Deadline *deadline)
{
	instr_time	passed;
	int64		left;

	INSTR_TIME_SET_CURRENT(passed);
	INSTR_TIME_SUBTRACT(passed, deadline->start);
	left = deadline->milliseconds - (int64) INSTR_TIME_GET_MILLISEC(passed);
	return Min(Max(left, 0), INT_MAX);
}

/* Ends the time before a time-out in milliseconds, which began at the start. */
static void
heed_timeout(Deadline *deadline, TimestampTz start, int timeout)
{
	int64		passed = (GetCurrentTimestamp() - start) / 1000;
	int64		reserve = Max(timeout / 10, LEAST_RESERVE);

	if (timeout <= 0)
		return;
	deadline->milliseconds = Min(deadline->milliseconds,
								 Max(timeout - reserve - passed, 0));
}

void
sleep_heed_timeouts(Deadline *deadline)
{
	heed_timeout(deadline, GetCurrentStatementStartTimestamp(), StatementTimeout);
	heed_timeout(deadline, GetCurrentTransactionStartTimestamp(),
				 compat_transaction_timeout());
}

/* Returns true if the plan itself reads no table. */
static bool
reads_nothing(const PlannedStmt *plan)
{
	return plan->commandType == CMD_SELECT && plan->relationOids == NIL &&
		plan->subplans == NIL && plan->rowMarks == NIL &&
		!plan->hasModifyingCTE;
}

/*
 * Finds out whether the set-returning function that is called can release its
 * statement's snapshot while it sleeps.
 */
Sleeper
sleep_prepare(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Portal		portal = ActivePortal;
	Sleeper		sleeper = {NULL, NULL};
	QueryDesc  *query;

	if (IsolationUsesXactSnapshot() || portal == NULL ||
		portal->strategy != PORTAL_ONE_SELECT || portal->queryDesc == NULL)
		return sleeper;
	query = portal->queryDesc;
	if (query->estate != result->econtext->ecxt_estate ||
		query->estate->es_snapshot != query->snapshot ||
		GetActiveSnapshot() != query->snapshot ||
		!reads_nothing(query->plannedstmt))
		return sleeper;
	sleeper.query = query;
	sleeper.owner = portal->resowner;
	return sleeper;
}

/*
 * Releases the snapshot, which is active and registered twice.
 */
void
sleep_release_snapshot(const Sleeper *sleeper)
{
	QueryDesc  *query = sleeper->query;
	Snapshot	snapshot;

	if (query == NULL)
		return;
	snapshot = query->snapshot;
	query->snapshot = query->estate->es_snapshot = InvalidSnapshot;
	PopActiveSnapshot();
	UnregisterSnapshotFromOwner(snapshot, sleeper->owner);
	UnregisterSnapshotFromOwner(snapshot, sleeper->owner);
	InvalidateCatalogSnapshot();
}

/*
 * Takes a new snapshot in its place.
 */
void
sleep_restore_snapshot(const Sleeper *sleeper)
{
	QueryDesc  *query = sleeper->query;
	Snapshot	snapshot;

	if (query == NULL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	snapshot = GetActiveSnapshot();
	query->snapshot = RegisterSnapshotOnOwner(snapshot, sleeper->owner);
	query->estate->es_snapshot = RegisterSnapshotOnOwner(snapshot,
														 sleeper->owner);
}
