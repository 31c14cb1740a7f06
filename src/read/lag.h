/*-------------------------------------------------------------------------
 *
 * lag.h
 *		How far consumers of the log are behind.
 *
 * Projections, or partitions of subscriptions, are looked at together: lag_answer calls
 * for each what adds it, by lag_add_group and lag_add_range.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_LAG_H
#define EVENTSTORE_LAG_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "log/event.h"
#include "tag/tag.h"

/* lag.c: what consumers have before them, at a cost that does not grow with it */

/* The events that a consumer, or a partition of one, wants and has not handled. */
typedef struct Lag
{
	int64		events;			/* if it is an estimate, at least 1 */
	bool		is_estimate;
	TimestampTz since;			/* when the first of them was recorded; of an
								 * estimate, perhaps a time before that; 0:
								 * there is none */
} Lag;

/* A look at all consumers, and those of them that want the same events. */
typedef struct LagLook LagLook;
typedef struct LagGroup LagGroup;

/* Adds consumers of events; NULL: any.  partitions: 1 if they are not divided. */
extern LagGroup *lag_add_group(LagLook *look, ArrayType *categories, ArrayType *types,
							   const EventQuery *query, int partitions);

/*
 * Adds events after a position and up to another to the lag of a partition of the
 * group, which has one such range.
 */
extern void lag_add_range(LagGroup *group, int partition, int64 after, int64 upto,
						  Lag *lag);

/* Adds a consumer, a row of the statement, to the look. */
typedef void (*LagAdder) (LagLook *look, HeapTuple row, TupleDesc desc, int64 horizon,
						  Lag *lag, void *state);

/*
 * Returns the rows of es_projection_lag() or es_subscription_lag().  The statement has a
 * row for each consumer, named by its first two columns.  Its parameters: $1 does the
 * caller see all of them, $2 the caller, $3 the horizon.
 */
extern void lag_answer(FunctionCallInfo fcinfo, Oid log, bool sees_all,
					   const char *consumers, LagAdder add, void *state);

/* lag_scan.c: the events of a category that are looked at for that */

/* The events after the position of a range that a partition of the group has left. */
typedef struct LagRange
{
	int64		after;
	int64		upto;
	Lag		   *lag;			/* NULL: nothing is left */
} LagRange;

struct LagGroup
{
	TextSet		categories;
	TextSet		types;
	const EventQuery *query;	/* NULL: any */
	const EventQuery *wide;		/* which events are looked at; NULL: those of
								 * the categories */
	int			partitions;
	LagRange   *ranges;			/* by partition */
	int64		after;			/* the least of theirs, and the greatest */
	int64		upto;
};

/* Where the events that are looked at come from, and how many more may be. */
typedef struct LagSource
{
	Relation	log;
	Snapshot	snapshot;
	Relation	positions;		/* the index of positions */
	Relation	categories;		/* that of categories; NULL: it is missing */
	TupleTableSlot *slot;
} LagSource;

/*
 * Adds what the groups want of a category, 0 for the whole log, to their lags.  A group
 * that looks events up by a query is the only one.  May spend so much work, in the units of
 * LAG_EVENT, and leaves what is left of it.  Without estimate, returns false and adds
 * nothing if that is not enough to count all.
 */
#define LAG_EVENT	64
extern bool lag_scan_category(const LagSource *source, Datum category, List *groups,
							  int64 *work, bool estimate);

#endif							/* EVENTSTORE_LAG_H */
