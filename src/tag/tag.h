/*-------------------------------------------------------------------------
 *
 * tag.h
 *		Queries by types and tags, and conditions of appends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_TAG_H
#define EVENTSTORE_TAG_H

#include "executor/tuptable.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "base/base.h"
#include "log/log.h"

/* query.c */

/* What an event must be. */
typedef struct QueryItem
{
	TextSet		types;			/* of one of them; array NULL: of any */
	TextSet		tags;			/* with all of them, sorted; array NULL: any */
} QueryItem;

/* An event matches if it matches any item. */
typedef struct EventQuery
{
	Jsonb	   *json;			/* as it was given */
	QueryItem  *items;
	int			count;
	bool		has_untagged;	/* has an item no tags? */
} EventQuery;

/* Reads a query, which must stay where it is.  Errors: it is none. */
extern EventQuery *query_read(Jsonb *json);

/*
 * Refuses a caller that may not read all events: whether an event matches says something
 * about it.  what: the caller wants, "append by a condition".
 */
extern void query_check_reader(Oid log, const char *what);

/* query_filter.c: queries of subscriptions and projections; NULL: any event */

/* Refuses what is no query, or has types that no event can have. */
extern void query_check_filter(Oid log, Datum json, const char *argument);

/*
 * Returns true if the events that match can be looked up: each item has tags, or types all
 * of which have an index.
 */
extern bool query_is_indexed(Relation log, const EventQuery *query);

/*
 * Returns true if the event, a row of es_events, matches.  A notice matches with the types of
 * the events that it stands for, too.
 */
extern bool query_matches(const EventQuery *query, TupleTableSlot *event);

/*
 * Returns a query that more events match, with one tag at most for each item, so that
 * finding the next one takes no longer than reading it.  The query is indexed.
 */
extern EventQuery *query_widen(Oid log, const EventQuery *query);

/* match.c: positions of the events that match */

/* Which of them. */
typedef struct MatchRange
{
	int64		after;			/* beyond this position */
	int64		upto;			/* and not beyond this one */
	bool		backward;		/* from the last to the first */
} MatchRange;

typedef struct Match Match;

/* Begins to look for events as they are to the snapshot, which is registered. */
extern Match *match_begin(Oid log, const EventQuery *query, const MatchRange *range,
						  Snapshot snapshot);

/* Returns the position of the next event, each once, in order; 0 after the last one. */
extern int64 match_next(Match *match);
extern void match_end(Match *match);

/* Takes the next positions, fewer than so many after the last one.  There is room for them. */
extern void match_take(Match *match, Int8Array *positions, int count);

/* match_row.c: their rows */

typedef struct MatchRows MatchRows;

/* The same of rows of es_events, which are looked up whether the user may read them or not. */
extern MatchRows *match_rows_begin(Oid log, const EventQuery *query,
								   const MatchRange *range, Snapshot snapshot);

/* The same of those at positions that the caller knows. */
extern MatchRows *match_rows_at(Oid log, const EventQuery *query,
								const Int8Array *positions, Snapshot snapshot);
extern TupleTableSlot *match_rows_next(MatchRows *rows);
extern void match_rows_end(MatchRows *rows);

/* condition.c */

/* No event beyond a position may match a query. */
typedef struct Condition
{
	Oid			log;			/* es_events */
	EventQuery *query;
	int64		after;
} Condition;

/* Counts what a condition locks, at most; NULL: nothing. */
extern int	condition_lock_count(const Condition *condition);

/* Adds the locks that keep events from being appended which it excludes. */
extern int	condition_add_locks(const Condition *condition, LogLock *locks);

/*
 * Returns true if these locks do not suffice: it is to be checked as of a position that was
 * drawn, when all have ended that may own a lower one.
 */
extern bool condition_needs_position(const Condition *condition);

/*
 * Refuses what does not hold, among what is committed now.  before: the position as of
 * which it is checked; 0: none.  Error: ES007.
 */
extern void condition_check(const Condition *condition, int64 before);

/*
 * Returns the tag of the item whose last event is the oldest.  A tag that many events have
 * has a recent one.
 */
extern Datum query_quietest_tag(Oid log, const QueryItem *item);

/* Returns true if it holds. */
extern bool condition_holds(const Condition *condition, int64 before);

/* Adds the locks of tags of which each event has one that matches the query's items. */
extern int	query_add_locks(Oid log, const EventQuery *query, LogLock *locks);

#endif							/* EVENTSTORE_TAG_H */
