/*-------------------------------------------------------------------------
 *
 * failure.h
 *		Events that could not be handled: the table es_failures.
 *
 * A stream is parked for a projection or a subscription while events of it are
 * there: later events of the stream wait behind them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_FAILURE_H
#define EVENTSTORE_FAILURE_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/array.h"

#include "read/read.h"

/* failure.c */

/* Defines eventstore.max_retry_pause. */
extern void failure_init(void);

/* Stands for the pause until another attempt, if there will be none. */
#define FAILURE_PARKED	(-1.0)

/* Whose failures: a projection's or a subscription's. */
typedef struct FailureOwner
{
	Oid			log;
	const char *column;			/* "projection" or "subscription" */
	const char *name;
	int			partition;		/* -1: there are none */
} FailureOwner;

typedef enum FailureKind
{
	FAILURE_PROJECTION,
	FAILURE_SUBSCRIPTION,
	FAILURE_INBOX
} FailureKind;

/* A row of es_failures. */
typedef struct Failure
{
	int64		id;
	FailureKind kind;
	char	   *name;			/* of the projection or subscription */
	int			partition;
	char	   *stream;
	int64		position;
	int64		version;
	char	   *type;
	int			attempts;
	TimestampTz last_failed_at;
	bool		parked;			/* it is not tried again by itself */
	bool		failed;			/* else it waits behind another */
	char	   *message;		/* NULL: it waits */
} Failure;

/* What is done about an event that is parked for good. */
#define FAILURE_HINT \
	"es_failures() lists it. es_retry() tries it again, es_discard() discards it."

/*
 * Sets the four values that are stored of an error (sqlstate, message, detail,
 * context), and which of them are null.  error: NULL sets four nulls.
 */
extern void failure_error_values(const ErrorData *error, Datum *values,
								 char *nulls);

/*
 * Returns how long to wait after so many failed attempts, in seconds.  It
 * grows with each, and is random by half.
 */
extern double failure_pause(int attempts);

/*
 * Returns true if the cause of the error lies outside of the event: in a
 * configuration, another session, or the machine.
 */
extern bool failure_is_external(const ErrorData *error);

/*
 * The same for projections: grows to eventstore.max_retry_pause.  error: what the
 * last attempt ended with, or NULL.
 */
extern double failure_retry_pause(const ErrorData *error, int attempts);

/* Returns a pause that is twice as long as that since the last failure. */
extern double failure_longer_pause(const ErrorData *error,
								   TimestampTz last_failed_at);

/* Returns the pause, or eventstore.max_retry_pause if it is longer. */
extern double failure_bound_pause(double pause);

/*
 * Adds the event in the slot, if it is not there.  error: why it failed; NULL:
 * it only waits behind another.  pause: seconds until it is tried again by
 * itself; FAILURE_PARKED: it is not.
 */
extern void failure_add(FailureOwner owner, TupleTableSlot *event,
						const ErrorData *error, int attempts, double pause);

/*
 * Notes that an event was tried again so many times, and the last error.
 * pause: as for failure_add.
 */
extern void failure_record_attempt(Oid log, int64 id, const ErrorData *error,
								   int attempts, double pause);

/* Removes the failure; returns false if there is none with this id. */
extern bool failure_remove(Oid log, int64 id);

/* Removes all failures of the owner after a position. */
extern void failure_remove_after(FailureOwner owner, int64 position);

/* Reads the failure; returns false if there is none with this id. */
extern bool failure_find(Oid log, int64 id, Failure *failure);

/* Reads the first failure of the stream; returns false if it has none. */
extern bool failure_first(FailureOwner owner, const char *stream,
						  Failure *failure);

/*
 * Returns the streams that are parked, as a list of text.  among: only streams
 * of this array; NULL: all.
 */
extern List *failure_streams(FailureOwner owner, ArrayType *among);

/* Reads the failure at a position; returns false if there is none. */
extern bool failure_at(FailureOwner owner, int64 position, Failure *failure);

/*
 * Makes the first event of a parked stream due if it only waited behind
 * another, which is gone.
 */
extern void failure_release(FailureOwner owner, const char *stream);

/*
 * A condition in SQL on a row of es_failures with this prefix: it is to be retried, and has
 * not failed since a run began.
 */
#define FAILURE_IS_DUE(row, begun) \
	row "retry_at <= clock_timestamp() AND (" row "message IS NULL OR " \
	row "last_failed_at <= " begun ")"

/*
 * Returns a stream of a projection whose first event is due in a run that began then; NULL
 * if there is none.
 */
extern char *failure_due_stream(FailureOwner owner, TimestampTz begun);

/* Makes all failures due that are tried again by themselves. */
extern void failure_hasten(FailureOwner owner);

/* failure_removed.c */

/* Returns true if the event at the position, which was parked, is not in the log any more. */
extern bool failure_is_removed(Oid log, int64 position);

/*
 * Removes the failures of a stream whose events are not in the log any more, and makes what
 * waited behind them due.  passed: the owner has read the log up to there.  Returns false
 * if the first of the stream's failures is in the log.
 */
extern bool failure_forget_removed(FailureOwner owner, const char *stream, int64 passed);

/*
 * The rest is for subscriptions: partitions deliver failures again when they
 * are due.
 */

/*
 * Makes the failed events of a parked stream due; returns how many events of it
 * are parked.
 */
extern int64 failure_make_due(FailureOwner owner, const char *stream);

/* Removes a stream's failures up to a position; the next one becomes due. */
extern void failure_remove_stream(FailureOwner owner, const char *stream,
								  int64 upto);

/* operator.c */

/*
 * Returns true if the caller is an operator: it may act on what others own, without
 * their rights.
 */
extern bool operator_is_caller(Oid log);

/*
 * Returns true if the caller is an operator, or has the rights of the owner.  owner:
 * InvalidOid if it does not exist any more.
 */
extern bool operator_may_act(Oid log, Oid owner);

/*
 * Returns true if the caller sees the state of what any role owns: an operator, one that
 * may read es_failures, or a member of pg_read_all_stats.
 */
extern bool operator_sees_all(Oid log);

/* park.c */

/* An event that is parked. */
typedef struct ParkedEvent
{
	MinimalTuple event;
	int64		position;
	ErrorData  *error;			/* NULL: it waits behind another */
	int			attempts;		/* how often it was tried */
} ParkedEvent;

/* Returns those streams of the batch that are parked, as a list of text. */
extern List *park_streams(FailureOwner owner, EventBatch *batch);

/*
 * Takes the events of the streams out of the batch; returns the list, to which
 * they are added.
 */
extern List *park_take(Oid log, EventBatch *batch, const List *streams,
					   List *parked);

/*
 * Returns the list, to which it adds the first event of the batch, with the
 * error and the number of attempts.  stream: set to its stream, in the present
 * memory context.
 */
extern List *park_first(Oid log, const EventBatch *batch, ErrorData *error,
						int attempts, List *parked, text **stream);

/* Returns those of the list that are not after the position. */
extern List *park_upto(const List *parked, int64 position);

/*
 * Stores the list in es_failures.  pause: as for failure_add, for those events
 * that have failed.
 */
extern void park_save(FailureOwner owner, const List *parked, double pause);

/*
 * Looks whether these events wait behind some that were removed from the log, once they are
 * stored (failure_forget_removed).
 */
extern void park_release_removed(FailureOwner owner, const List *parked, int64 passed);

#endif							/* EVENTSTORE_FAILURE_H */
