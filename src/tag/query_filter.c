/*-------------------------------------------------------------------------
 *
 * query_filter.c
 *		Queries as filters of subscriptions and projections.
 *
 * A filter is checked when it is set, and stored as it was given.  Its events are looked up
 * (match.c) if each item has tags, or types that have indexes.  Others are read one by
 * one, and each is compared with the query here, as is each event of an append for a sync
 * projection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "base/base.h"
#include "base/context.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/tags.h"
#include "type/type.h"
#include "tag/tag.h"

/* Names the argument of a filter in an error's context. */
static void
add_argument_context(void *arg)
{
	errcontext("argument %s", (const char *) arg);
}

/*
 * Refuses what is no query, and types that no event can have.
 */
void
query_check_filter(Oid log, Datum json, const char *argument)
{
	ErrorContextCallback context;
	EventQuery *query;
	int			i;

	context_push(&context, add_argument_context, unconstify(char *, argument));
	query = query_read(DatumGetJsonbP(json));
	for (i = 0; i < query->count; i++)
	{
		if (query->items[i].types.array != NULL)
			event_type_check_filter(log, query->items[i].types.array);
	}
	context_pop(&context);
}

/* Returns true if each of the types has an index. */
static bool
are_types_indexed(Relation log, const TextSet *types)
{
	List	   *indexes = types->array == NULL ? NIL : log_type_index_open_all(log, types);
	ListCell   *cell;

	foreach(cell, indexes)
		index_close(lfirst(cell), AccessShareLock);
	return indexes != NIL;
}

/*
 * Returns true if the events that match can be looked up.
 */
bool
query_is_indexed(Relation log, const EventQuery *query)
{
	int			i;

	for (i = 0; query != NULL && i < query->count; i++)
	{
		if (query->items[i].tags.count == 0 && !are_types_indexed(log, &query->items[i].types))
			return false;
	}
	return query != NULL;
}

/* Returns true if the event's tags have all of the item's. */
static bool
has_all_tags(const TextSet *tags, const QueryItem *item)
{
	int			i;

	for (i = 0; i < item->tags.count; i++)
	{
		if (tags->array == NULL ||
			!text_set_has_type(tags, DatumGetTextPP(item->tags.values[i])))
			return false;
	}
	return true;
}

/* Returns true if the event matches an item by its type, and by the tags if they are known. */
static bool
matches_item(const EventQuery *query, TupleTableSlot *event, const TextSet *tags)
{
	int			i;

	for (i = 0; i < query->count; i++)
	{
		const QueryItem *item = &query->items[i];

		if (notice_or_event_has_type(event, &item->types) &&
			(tags != NULL ? has_all_tags(tags, item) : item->tags.array == NULL))
			return true;
	}
	return false;
}

/*
 * Returns true if the event matches.  Tags are not looked at where the type suffices.
 */
bool
query_matches(const EventQuery *query, TupleTableSlot *event)
{
	Datum		tags;
	ArrayType  *array;
	TextSet		set;
	bool		isnull;
	bool		found;

	if (query == NULL || matches_item(query, event, NULL))
		return true;
	tags = slot_getattr(event, Anum_es_events_tags, &isnull);
	if (isnull)
		return false;
	array = DatumGetArrayTypeP(tags);
	set = text_set_make(array);
	found = matches_item(query, event, &set);
	pfree(set.values);
	if (PointerGetDatum(array) != tags)
		pfree(array);
	return found;
}

/* Leaves one tag of the item, which all events that match have, too. */
static void
widen_item(Oid log, const QueryItem *item, QueryItem *wide)
{
	Datum	   *tag = palloc(sizeof(Datum));

	*tag = query_quietest_tag(log, item);
	wide->tags.values = tag;
	wide->tags.count = 1;
	wide->tags.array = construct_array(tag, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Returns a query of one tag for each item that has tags, and of the types for others.  To
 * find its next event never takes long.
 */
EventQuery *
query_widen(Oid log, const EventQuery *query)
{
	EventQuery *wide = palloc0(sizeof(EventQuery));
	int			i;

	wide->count = query->count;
	wide->items = palloc0(sizeof(QueryItem) * query->count);
	for (i = 0; i < query->count; i++)
	{
		if (query->items[i].tags.count > 0)
			widen_item(log, &query->items[i], &wide->items[i]);
		else
			wide->items[i] = query->items[i];
	}
	return wide;
}
