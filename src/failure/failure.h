/*-------------------------------------------------------------------------
 *
 * failure.h
 *		Events that could not be handled.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_FAILURE_H
#define EVENTSTORE_FAILURE_H

#include "executor/tuptable.h"
#include "utils/array.h"

#include "read/read.h"

/* failure.c */

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
	int			attempts;
	bool		failed;			/* else it waits behind another */
} Failure;

extern void failure_error_values(const ErrorData *error, Datum *values,
								 char *nulls);
extern double failure_pause(int attempts);
extern void failure_add(FailureOwner owner, TupleTableSlot *event,
						const ErrorData *error, int attempts, double pause);
extern void failure_record_attempt(Oid log, int64 id, const ErrorData *error,
								   int attempts, double pause);
extern bool failure_remove(Oid log, int64 id);
extern void failure_remove_after(FailureOwner owner, int64 position);
extern bool failure_find(Oid log, int64 id, Failure *failure);
extern bool failure_first(FailureOwner owner, const char *stream,
						  Failure *failure);
extern List *failure_streams(FailureOwner owner, ArrayType *among);
extern void failure_release(FailureOwner owner, const char *stream);
extern int64 failure_make_due(FailureOwner owner, const char *stream);
extern void failure_remove_stream(FailureOwner owner, const char *stream,
								  int64 upto);
extern bool failure_at(FailureOwner owner, int64 position, Failure *failure);

/* park.c */

/* An event that is set aside. */
typedef struct ParkedEvent
{
	MinimalTuple event;
	int64		position;
	ErrorData  *error;			/* NULL: it waits behind another */
	int			attempts;		/* how often it was tried */
} ParkedEvent;

extern List *park_streams(FailureOwner owner, EventBatch *batch);
extern List *park_take(Oid log, EventBatch *batch, const List *streams,
					   List *aside);
extern List *park_first(Oid log, const EventBatch *batch, ErrorData *error,
						int attempts, List *aside, text **stream);
extern void park_save(FailureOwner owner, const List *aside,
					  double pause);

#endif							/* EVENTSTORE_FAILURE_H */
