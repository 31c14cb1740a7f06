/*-------------------------------------------------------------------------
 *
 * projection_context.c
 *		Names the projection and the event of an error in its context.
 *
 * While a batch is applied, the context of errors names the projection, and the
 * event that its handler has, or the first and the last event of the batch.  The
 * names are made when there is an error; before that it costs nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"

#include "base/base.h"
#include "base/context.h"
#include "base/role.h"
#include "read/read.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

/* The callback: names what is being applied. */
static void
add_projection_context(void *arg)
{
	const ProjectionContext *context = arg;
	const char *what = "the refresh of its view";

	if (context->event != NULL && !TTS_EMPTY(context->event))
		what = event_slot_describe(context->event, true);
	else if (context->events != NULL)
		what = event_batch_describe(context->log, context->events);
	errcontext("projection \"%s\", %s", context->projection->name, what);
	run_as_path_context(context->projection->log,
						context->projection->search_path);
}

/*
 * From now on errors name the projection and the batch, or the refresh of a view.
 */
void
projection_context_begin(ProjectionContext *context,
						 const Projection *projection,
						 Tuplestorestate *events)
{
	context->projection = projection;
	context->events = projection->kind == PROJECTION_REFRESH ? NULL : events;
	context->event = NULL;
	context->log = table_open(projection->log, AccessShareLock);
	context_push(&context->callback, add_projection_context, context);
}

/* Ends it.  An error ends the context by itself. */
void
projection_context_end(const ProjectionContext *context)
{
	context_pop(&context->callback);
	table_close(context->log, AccessShareLock);
}
