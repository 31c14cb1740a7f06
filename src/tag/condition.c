/*-------------------------------------------------------------------------
 *
 * condition.c
 *		Conditions of appends: no event beyond a position matches a query.
 *
 * The protocol (doc/internals/condition.md has the proof, test/models/condition.pml the
 * model):
 *
 *	1. A transaction that appends an event with tags holds the lock of each tag
 *	   exclusively, from before it draws a position to its end (log_lock.c).  So events
 *	   with a tag in common have positions in the order of their commits.
 *	2. A condition holds, for each item with tags, the lock of one of them in share mode:
 *	   an event that matches the item has them all.  Then it takes the lock of appenders,
 *	   and then a snapshot.  What matches and was committed before is visible to it.  What
 *	   comes later waits for the end of this transaction, and lies beyond it.
 *	3. For an item without tags there is no such lock, and one on the whole log would stop
 *	   all appends.  Such conditions are checked one at a time, to the end of their
 *	   transactions.  The append draws its positions first, and waits for all transactions
 *	   that may own a lower one.  Others draw higher ones, and come after it in the order
 *	   of positions.  So the events between are all that there is to check.
 *	4. Which events are stored already is looked up before: the events of a retry match
 *	   its own condition.
 *
 * A transaction that has locked the whole log, because it appends to very many streams,
 * needs no other lock and no wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/tags.h"
#include "tag/tag.h"

/* How many events that match are counted for an error. */
#define MAX_COUNTED	1000

/*
 * Refuses a caller that may not read all events.
 */
void
query_check_reader(Oid log, const char *what)
{
	if (role_may_read_all(log, GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("cannot %s as role \"%s\"", what, GetUserNameFromId(GetUserId(), false)),
			 pg_class_aclcheck(log, GetUserId(), ACL_SELECT) == ACLCHECK_OK ?
			 errdetail("Row security hides some events from the role.") :
			 errdetail("The role has no SELECT on table \"%s\".", get_rel_name(log)),
			 errhint("Whether an event matches reveals something about it. Use a role that may read all events.")));
}

/* Returns the position of the last event that has the tag; 0 without one. */
static int64
last_position_of(Oid log, Datum tag)
{
	QueryItem	item = {.tags = {.values = &tag,.count = 1}};
	EventQuery	query = {.items = &item,.count = 1};
	MatchRange	range = {.after = 0,.upto = PG_INT64_MAX,.backward = true};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Match	   *match = match_begin(log, &query, &range, snapshot);
	int64		position = match_next(match);

	match_end(match);
	UnregisterSnapshot(snapshot);
	return position;
}

/*
 * Returns the tag of the item that is locked: the one whose last event is the oldest.  A tag
 * that many events have, such as that of a tenant, has a recent one, and its lock would
 * make all of them wait.
 */
Datum
query_quietest_tag(Oid log, const QueryItem *item)
{
	Datum		quietest = item->tags.values[0];
	int64		least = PG_INT64_MAX;
	int			i;

	for (i = 0; item->tags.count > 1 && i < item->tags.count; i++)
	{
		int64		position = last_position_of(log, item->tags.values[i]);

		if (position < least)
		{
			least = position;
			quietest = item->tags.values[i];
		}
	}
	return quietest;
}

/*
 * Adds the lock of a tag for each item that has tags.  Returns how many.
 */
int
query_add_locks(Oid log, const EventQuery *query, LogLock *locks)
{
	int			count = 0;
	int			i;

	for (i = 0; i < query->count; i++)
	{
		if (query->items[i].tags.count > 0)
			locks[count++] = log_lock_of_tag(DatumGetTextPP(query_quietest_tag(log, &query->items[i])),
											 ShareLock);
	}
	return count;
}

/*
 * Counts what a condition locks: a tag for each item, or the lock of conditions.
 */
int
condition_lock_count(const Condition *condition)
{
	return condition == NULL ? 0 : condition->query->count + 1;
}

/*
 * Adds the locks of a condition.  Returns how many.
 */
int
condition_add_locks(const Condition *condition, LogLock *locks)
{
	int			count;

	if (condition == NULL)
		return 0;
	count = query_add_locks(condition->log, condition->query, locks);
	if (condition->query->has_untagged)
		locks[count++] = log_lock_of_conditions(condition->log);
	return count;
}

/*
 * Returns true if the locks do not keep all events away that the condition excludes.
 */
bool
condition_needs_position(const Condition *condition)
{
	return condition->query->has_untagged && !log_lock_is_whole(condition->log);
}

/* Raises that the condition does not hold.  count: of matches, at most. */
static void
fail_condition(const Condition *condition, int64 position, int count)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_CONDITION_FAILED),
			 errmsg("the condition of the append does not hold"),
			 count == 1 ?
			 errdetail("One event beyond position " INT64_FORMAT " matches the query, at position " INT64_FORMAT ".",
					   condition->after, position) :
			 errdetail("%d%s events beyond position " INT64_FORMAT " match the query, the first one at position " INT64_FORMAT ".",
					   count, count == MAX_COUNTED ? " or more" : "",
					   condition->after, position),
			 errhint("Query again, decide on what there is now, and append beyond the last position that you have read.")));
}

/*
 * Counts what the condition excludes, up to a bound, and gives the position of the first.
 */
static int
count_excluded(const Condition *condition, int64 before, int bound, int64 *first)
{
	MatchRange	range = {
		.after = condition->after,
		.upto = before > 0 ? before - 1 : PG_INT64_MAX
	};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Match	   *match = match_begin(condition->log, condition->query, &range, snapshot);
	int			count = 0;

	*first = match_next(match);
	if (*first != 0)
		count++;
	while (count > 0 && count < bound && match_next(match) != 0)
		count++;
	match_end(match);
	UnregisterSnapshot(snapshot);
	return count;
}

/*
 * Refuses what does not hold.
 */
void
condition_check(const Condition *condition, int64 before)
{
	int64		first;
	int			count = count_excluded(condition, before, MAX_COUNTED, &first);

	if (count > 0)
		fail_condition(condition, first, count);
}

/*
 * Returns true if it holds.
 */
bool
condition_holds(const Condition *condition, int64 before)
{
	int64		first;

	return count_excluded(condition, before, 1, &first) == 0;
}
