/*-------------------------------------------------------------------------
 *
 * wait_context.c
 *		Names the lock that a session waits for in the context of errors.
 *
 * The server identifies a lock by numbers, those of a hash or of a row.  A deadlock, a
 * timeout or a cancel during the wait, and the server's log lines on long waits, have
 * the name in their context.  Other errors of the statement that locks do not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/base.h"
#include "base/context.h"
#include "base/wait.h"

/*
 * Returns true if the error that is raised may be that of a wait, or is a line of the
 * log.
 */
bool
wait_context_applies(void)
{
	int			code = geterrcode();

	return code == ERRCODE_SUCCESSFUL_COMPLETION ||
		code == ERRCODE_T_R_DEADLOCK_DETECTED ||
		code == ERRCODE_LOCK_NOT_AVAILABLE ||
		ERRCODE_TO_CATEGORY(code) == ERRCODE_OPERATOR_INTERVENTION;
}

/* The callback: says what is being locked. */
static void
add_wait_context(void *arg)
{
	const WaitContext *context = arg;

	if (!wait_context_applies())
		return;
	if (context->partition < 0)
		errcontext("while locking %s \"%s\"", context->what, context->name);
	else
		errcontext("while locking partition %d of %s \"%s\"",
				   context->partition, context->what, context->name);
}

/*
 * From now on errors of waits say what is being locked.
 */
void
wait_context_begin(WaitContext *context, const char *what, const char *name,
				   int partition)
{
	context->what = what;
	context->name = name;
	context->partition = partition;
	context_push(&context->callback, add_wait_context, context);
}

/*
 * It is locked.  An error ends the context by itself.
 */
void
wait_context_end(const WaitContext *context)
{
	context_pop(&context->callback);
}
