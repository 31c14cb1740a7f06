/*-------------------------------------------------------------------------
 *
 * projection_limit.c
 *		How long a worker spends on a batch of a projection.
 *
 * A worker runs one batch at a time.  A handler that sleeps, waits for a lock or does
 * not end would keep the worker from every other projection, and hold what its open
 * transaction holds: its snapshot, so that nothing is vacuumed; the projection's row,
 * so that it cannot be changed; the horizon, if it has appended.  In a worker therefore
 *
 *	- a batch that takes longer than eventstore.handler_timeout is canceled by the
 *	  server's timer for statements.  It has failed, with 57014, and what follows is as
 *	  for other errors (projection_failure.c): a smaller batch, or the pause;
 *	- a wait for a lock ends after half of it, with 55P03, which is no fault of the event;
 *	- a handler that gets events one by one gets no further one after a tenth of it.
 *	  What it has handled by then is a batch.  So handlers that are slow, but end, are
 *	  not canceled, and others have their turn.
 *
 * REFRESH MATERIALIZED VIEW takes as long as it takes: it cannot be done in parts.
 *
 * In sessions of clients statement_timeout and lock_timeout do the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/timeout.h"

#include "base/base.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

/*
 * eventstore.handler_timeout: milliseconds that a worker spends on a batch; 0: as long
 * as it takes.  An administrator makes it longer if a normal batch takes longer, and
 * shorter if one projection must not keep others waiting.
 */
static int	handler_timeout = 60000;

/* Is this process a worker?  When did it turn to the present projection? */
static bool in_worker = false;
static instr_time turned_at;

/* The projection that has its batch; empty: none has. */
static char present[NAMEDATALEN];

void
projection_limit_init(void)
{
	DefineCustomIntVariable("eventstore.handler_timeout",
							"Longest time that a worker spends on a batch of a projection.",
							"0 turns the limit off.",
							&handler_timeout, 60000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

void
projection_limit_enforce(void)
{
	in_worker = true;
}

void
projection_limit_turn(const char *projection)
{
	strlcpy(present, projection == NULL ? "" : projection, sizeof(present));
	if (in_worker && projection != NULL)
		INSTR_TIME_SET_CURRENT(turned_at);
}

const char *
projection_limit_present(void)
{
	return present[0] == '\0' ? NULL : present;
}

bool
projection_limit_is_near(void)
{
	instr_time	passed;

	if (!in_worker || handler_timeout == 0)
		return false;
	INSTR_TIME_SET_CURRENT(passed);
	INSTR_TIME_SUBTRACT(passed, turned_at);
	return INSTR_TIME_GET_MILLISEC(passed) * 10 > handler_timeout;
}

/* Starts the limit, and returns what ends it. */
static int
begin_limit(const Projection *projection)
{
	int			level = NewGUCNestLevel();
	char		wait[16];

	snprintf(wait, sizeof(wait), "%d", Max(handler_timeout / 2, 1));
	(void) set_config_option("lock_timeout", wait, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (projection->kind != PROJECTION_REFRESH)
		enable_timeout_after(STATEMENT_TIMEOUT, handler_timeout);
	return level;
}

/*
 * Ends the limit; returns true if the time was over.  A cancel by the limit that has
 * found nothing to cancel must not cancel the next statement.
 */
static bool
end_limit(const Projection *projection, int level)
{
	bool		over = projection->kind != PROJECTION_REFRESH &&
	!get_timeout_active(STATEMENT_TIMEOUT);

	disable_timeout(STATEMENT_TIMEOUT, false);
	if (over && !ShutdownRequestPending)
		QueryCancelPending = false;
	AtEOXact_GUC(false, level);
	return over;
}

/* Says what has canceled the batch. */
static void
describe_cancel(ErrorData *error)
{
	error->message = psprintf("the batch was canceled after %d ms",
							  handler_timeout);
	error->detail = pstrdup("eventstore.handler_timeout is the longest time that a worker spends on a batch."
							" ALTER DATABASE ... SET eventstore.handler_timeout makes it longer for new workers.");
}

/*
 * Does the work in a subtransaction, as subtransaction_try, within the limit.
 */
ErrorData *
projection_limit_try(const Projection *projection, bool (*work) (void *arg),
					 void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile int level;

	if (!in_worker || handler_timeout == 0)
		return subtransaction_try(work, arg);
	level = begin_limit(projection);
	PG_TRY();
	{
		error = subtransaction_try(work, arg);
		(void) end_limit(projection, level);
	}
	PG_CATCH();
	{
		if (!end_limit(projection, level) || ShutdownRequestPending ||
			geterrcode() != ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		describe_cancel(error);
	}
	PG_END_TRY();
	return error;
}
