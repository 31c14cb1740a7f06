/*-------------------------------------------------------------------------
 *
 * projection_failure.h
 *		What fails is named.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PROJECTION_FAILURE_H
#define EVENTSTORE_PROJECTION_FAILURE_H

#include "executor/tuptable.h"
#include "utils/elog.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

#include "projection/projection.h"

/* projection_context.c: what errors belong to. */

/* What is being applied, as an error's context says it. */
typedef struct ProjectionContext
{
	ErrorContextCallback callback;
	const char *name;			/* of the projection */
	Relation	log;
	Tuplestorestate *events;	/* NULL: a view is refreshed */
	TupleTableSlot *event;		/* the one at hand; NULL: all of them */
} ProjectionContext;

/*
 * Until the end of the context, errors name the projection and the event at hand,
 * or the batch.  events: NULL for the refresh of a view.
 */
extern void projection_context_begin(ProjectionContext *context,
									 const Projection *projection,
									 Tuplestorestate *events);
extern void projection_context_end(const ProjectionContext *context);

#endif							/* EVENTSTORE_PROJECTION_FAILURE_H */
