/*-------------------------------------------------------------------------
 *
 * query.c
 *		Queries: which events a decision rests on.
 *
 * A query is a jsonb array of items, each an object with types and tags.  An event
 * matches an item if its type is one of the types and it has all of the tags; what is
 * left out excludes nothing.  It matches the query if it matches any item.
 *
 * A query that would match nothing, or everything, by mistake is refused: [], [{"types":
 * []}], null, an unknown key.  [{}] is every event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/context.h"
#include "log/log.h"
#include "log/tags.h"
#include "tag/tag.h"

/* Names the item of a query in an error's context. */
static void
add_item_context(void *arg)
{
	errcontext("item %d of the query", *(int *) arg);
}

/* The strings of an item's key, as an array of text. */
static ArrayType *
item_strings(const JsonbValue *value, const char *key)
{
	ArrayType  *strings;
	int			wrong;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of a query's item must be an array of strings", key),
				 errdetail("The value is of another JSON type."),
				 errhint("Leave \"%s\" out to match any.", key)));
	if (JsonContainerSize(value->val.binary.data) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of a query's item must not be empty", key),
				 errdetail("It is an empty array."),
				 errhint("Leave \"%s\" out to match any.", key)));
	strings = argument_json_texts(value->val.binary.data, &wrong);
	if (strings == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of a query's item must be an array of strings", key),
				 errdetail("Element %d is of another JSON type.", wrong),
				 errhint("Pass an array such as [\"one\", \"other\"].")));
	return strings;
}

/* Reads one key of an item. */
static void
read_item_key(QueryItem *item, const char *key, const JsonbValue *value)
{
	if (strcmp(key, "types") == 0)
	{
		ArrayType  *types = item_strings(value, key);

		event_check_type_names(types);
		item->types = text_set_make(types);
		text_set_sort(&item->types);
	}
	else if (strcmp(key, "tags") == 0)
		item->tags = text_set_make(DatumGetArrayTypeP(tags_check(PointerGetDatum(item_strings(value, key)))));
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key \"%s\" in an item of a query", key),
				 errdetail("The keys of an item are types and tags."),
				 errhint("An event must have one of the types and all of the tags.")));
}

/* Reads one item. */
static void
read_item(QueryItem *item, const JsonbValue *object)
{
	JsonbIterator *iterator;
	JsonbValue	value;
	char	   *key;

	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an item of a query must be an object"),
				 errdetail("It is of another JSON type."),
				 errhint("Pass an item such as {\"types\": [\"enrolled\"], \"tags\": [\"course:c1\"]}.")));
	iterator = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		key = pnstrdup(value.val.string.val, value.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_item_key(item, key, &value);
	}
}

/* Refuses a query that is no array of some items. */
static void
check_query_array(Jsonb *query)
{
	if (!JB_ROOT_IS_ARRAY(query) || JB_ROOT_IS_SCALAR(query))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query must be an array"),
				 errdetail("The argument is %s.", JB_ROOT_IS_SCALAR(query) ? "a scalar" : "an object"),
				 errhint("Pass an array of items, even for one item.")));
	if (JB_ROOT_COUNT(query) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query must have an item"),
				 errdetail("The array is empty."),
				 errhint("[{}] matches every event.")));
	if (JB_ROOT_COUNT(query) > ES_MAX_QUERY_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a query has too many items"),
				 errdetail("It has %d items, the limit is %d.", (int) JB_ROOT_COUNT(query),
						   ES_MAX_QUERY_ITEMS),
				 errhint("Items with the same tags can be one item with several types.")));
}

/* Returns true if both sets, which are sorted, have the same elements. */
static bool
is_same_set(const TextSet *one, const TextSet *other)
{
	int			i;

	for (i = 0; i < one->count && i < other->count; i++)
	{
		if (!stream_equal(DatumGetTextPP(one->values[i]), DatumGetTextPP(other->values[i])))
			return false;
	}
	return one->count == other->count;
}

/* Returns true if the query has the item already. */
static bool
has_item(const EventQuery *query, const QueryItem *item)
{
	int			i;

	for (i = 0; i < query->count; i++)
	{
		if (is_same_set(&query->items[i].types, &item->types) &&
			is_same_set(&query->items[i].tags, &item->tags))
			return true;
	}
	return false;
}

/*
 * Reads a query.  An item that is repeated counts once.
 */
EventQuery *
query_read(Jsonb *json)
{
	EventQuery *query = palloc0(sizeof(EventQuery));
	ErrorContextCallback context;
	int			number;

	check_query_array(json);
	query->json = json;
	query->items = palloc0(sizeof(QueryItem) * JB_ROOT_COUNT(json));
	context_push(&context, add_item_context, &number);
	for (number = 1; number <= (int) JB_ROOT_COUNT(json); number++)
	{
		QueryItem  *item = &query->items[query->count];

		memset(item, 0, sizeof(QueryItem));
		read_item(item, getIthJsonbValueFromContainer(&json->root, number - 1));
		query->has_untagged = query->has_untagged || item->tags.count == 0;
		if (!has_item(query, item))
			query->count++;
	}
	context_pop(&context);
	return query;
}
