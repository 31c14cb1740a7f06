/*-------------------------------------------------------------------------
 *
 * context.h
 *		What an error belongs to, in its context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_CONTEXT_H
#define EVENTSTORE_CONTEXT_H

#include "utils/elog.h"

/* Until context_pop, or an error, the callback adds to the context of errors. */
static inline void
context_push(ErrorContextCallback *context, void (*callback) (void *arg), void *arg)
{
	context->callback = callback;
	context->arg = arg;
	context->previous = error_context_stack;
	error_context_stack = context;
}

static inline void
context_pop(const ErrorContextCallback *context)
{
	error_context_stack = context->previous;
}

#endif							/* EVENTSTORE_CONTEXT_H */
