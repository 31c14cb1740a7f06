/*-------------------------------------------------------------------------
 *
 * projection_failure.h
 *		What fails is named, and tried again.
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
	const Projection *projection;
	Relation	log;
	Tuplestorestate *events;	/* NULL: a view is refreshed */
	TupleTableSlot *event;		/* the one at hand; NULL: all of them */
} ProjectionContext;

/*
 * Until the end of the context, errors name the projection and the event at hand,
 * or the batch, or the refresh of a view.
 */
extern void projection_context_begin(ProjectionContext *context,
									 const Projection *projection,
									 Tuplestorestate *events);
extern void projection_context_end(const ProjectionContext *context);

/* projection_batch.c */

/*
 * Applies the batch; an error is raised.  own_transaction: nothing else is done in
 * the transaction, and deferred triggers are part of the batch.
 */
extern void projection_apply_batch(Projection *projection,
								   const EventBatch *batch,
								   bool own_transaction);

/*
 * Applies the batch in a subtransaction; returns the error that it ended with,
 * NULL if there was none.  own_transaction: as for projection_apply_batch.
 */
extern ErrorData *projection_try_batch(Projection *projection,
									   const EventBatch *batch,
									   bool own_transaction);

/* projection_limit.c: how long a worker spends on a batch. */

/* Defines eventstore.handler_timeout. */
extern void projection_limit_init(void);

/* From now on the limit holds in this process, a worker. */
extern void projection_limit_enforce(void);

/*
 * The runner turns to a projection, whose batch begins, or to none: NULL.  Returns which
 * one that was: the one to which an error of the transaction's end belongs.
 */
extern void projection_limit_turn(const char *projection);
extern const char *projection_limit_present(void);

/* Returns true if the worker has spent so long on it that others should have their turn. */
extern bool projection_limit_is_near(void);

/*
 * Does the work in a subtransaction, as subtransaction_try does; in a worker within the
 * limit, beyond which it is canceled.
 */
extern ErrorData *projection_limit_try(const Projection *projection,
									   bool (*work) (void *arg), void *arg);

/* projection_failure.c: what follows a batch. */

/* Notes that a batch was applied, and moves the checkpoint. */
extern void projection_note_success(const Projection *projection,
									const EventBatch *batch,
									TimestampTz started);

/*
 * Notes that a batch failed, and what follows.  parked: events of the batch that
 * wait behind parked ones.
 */
extern void projection_note_failure(const Projection *projection,
									const EventBatch *batch,
									ErrorData *error, TimestampTz started,
									List *parked);

/*
 * Notes an error that ended the whole transaction of a batch, at its commit, say, so
 * that nothing of the batch was noted.
 */
extern void projection_note_lost_batch(Oid log, const char *name,
									   const ErrorData *error);

/* Stores parked events (park.c's) in es_failures. */
extern void projection_save_parked(const Projection *projection,
								   List *parked);

/*
 * Warns of an error: projection "name" what: message.  what: such as "has failed at
 * the event ...".
 */
extern void projection_warn(const Projection *projection, const char *what,
							const ErrorData *error, const char *hint);

/* projection_retry.c: parked events. */

/* How events are retried. */
typedef struct RetryMode
{
	int64		limit;			/* at most so many of a stream */
	bool		warn;			/* of each one that fails */
	bool		own_transaction;	/* as for projection_apply_batch */
} RetryMode;

/* How es_retry and es_discard do it. */
extern const RetryMode projection_retry_by_user;

/* Removes the failure; events of its stream that only waited behind it are handled. */
extern void projection_discard(Projection *projection, const Failure *failure);

/*
 * Tries the parked events of the stream in order until one fails; returns how many
 * took effect.
 */
extern int64 projection_retry_stream(Projection *projection, char *stream,
									 const RetryMode *mode);

/*
 * Retries the parked events of a stream of a projection that are due; returns
 * false if none are.  name: only this projection's; NULL: any.  begun: what has failed
 * since then is not due.  handled: how many took effect is added.
 */
extern bool projection_retry_due(Oid log, const char *name, bool own_transaction,
								 TimestampTz begun, int64 *handled);

/* projection_skip.c: events that are left out by name. */

/*
 * Returns the positions of events after one position and up to another that the
 * projection leaves out.
 */
extern Int8Array projection_skipped_positions(const Projection *projection,
											  int64 after, int64 upto);

/* Forgets all of them: the projection is dropped. */
extern void projection_forget_skipped(const Projection *projection);

#endif							/* EVENTSTORE_PROJECTION_FAILURE_H */
