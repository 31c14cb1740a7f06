/*-------------------------------------------------------------------------
 *
 * event_array.c
 *		Batches of new events as a jsonb array of objects.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "log/log.h"
#include "append/append.h"

/*
 * The data of an event that has none: an empty object.
 */
Datum
event_array_no_data(void)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}

/*
 * Makes room for events of the stream.
 */
NewEvent *
event_array_make(text *stream, int count)
{
	NewEvent   *events;
	int			i;

	if (count > ES_MAX_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many events in one batch"),
				 errdetail("The batch has %d events, the limit is %d.", count,
						   ES_MAX_BATCH),
				 errhint("Append them in several calls in one transaction, or by COPY to es_import.")));
	events = palloc0(sizeof(NewEvent) * Max(count, 1));
	for (i = 0; i < count; i++)
		events[i].stream = stream;
	return events;
}

/* Names the event of a batch in an error's context. */
static void
batch_event_context(void *arg)
{
	errcontext("event %d of the batch", *(int *) arg);
}

/* The value of a key that must be a string. */
static char *
key_string(const JsonbValue *value, const char *key)
{
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of an event must be a string", key),
				 errdetail("Its value is of another JSON type.")));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * Reads one key of an event's object.  A null is as no key, except for the type.
 */
static void
read_event_key(NewEvent *event, const char *key, JsonbValue *value)
{
	if (strcmp(key, "type") == 0)
		event->type = cstring_to_text(key_string(value, key));
	else if (strcmp(key, "data") == 0)
	{
		if (value->type != jbvNull)
			event->data = JsonbPGetDatum(JsonbValueToJsonb(value));
	}
	else if (strcmp(key, "metadata") == 0)
	{
		if (value->type != jbvNull)
			event->metadata = JsonbPGetDatum(JsonbValueToJsonb(value));
	}
	else if (strcmp(key, "id") == 0)
	{
		event->has_id = value->type != jbvNull;
		if (event->has_id)
			event->id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in,
														   CStringGetDatum(key_string(value, key))));
	}
	else if (strcmp(key, "occurred_at") == 0)
	{
		event->has_occurred_at = value->type != jbvNull;
		if (event->has_occurred_at)
			event->occurred_at =
				DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
														CStringGetDatum(key_string(value, key)),
														ObjectIdGetDatum(InvalidOid),
														Int32GetDatum(-1)));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key \"%s\" in an event", key),
				 errdetail("The keys of an event are type, data, metadata, id and occurred_at."),
				 errhint("Put attributes of your own into data or metadata.")));
}

/*
 * Reads one object of the array into an event.
 */
static void
read_event_object(NewEvent *event, JsonbValue *object, Datum empty)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key;

	if (object->type != jbvBinary ||
		!JsonContainerIsObject(object->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event must be an object"),
				 errdetail("An element of the array is of another JSON type."),
				 errhint("Give an array such as '[{\"type\": \"deposited\", \"data\": {\"amount\": 5}}]'.")));
	event->data = empty;
	iterator = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) == WJB_KEY)
	{
		key = pnstrdup(value.val.string.val, value.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_event_key(event, key, &value);
	}
	if (event->type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event has no type"),
				 errdetail("The object has no key \"type\".")));
	event_check_type_name(event->type);
	if (event->metadata)
		event_check_metadata(event->metadata);
}

/*
 * Reads the array of objects: new events of the stream.
 */
NewEvent *
event_array_read(text *stream, Jsonb *array, int *count)
{
	NewEvent   *events;
	Datum		empty = event_array_no_data();
	ErrorContextCallback context;
	int			number;

	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be an array"),
				 errdetail("The argument is %s.",
						   JB_ROOT_IS_SCALAR(array) ? "a scalar" : "an object"),
				 errhint("Give an array of objects, also for one event.")));
	*count = JB_ROOT_COUNT(array);
	events = event_array_make(stream, *count);

	context.callback = batch_event_context;
	context.arg = &number;
	context.previous = error_context_stack;
	error_context_stack = &context;
	for (number = 1; number <= *count; number++)
	{
		CHECK_FOR_INTERRUPTS();
		read_event_object(&events[number - 1],
						  getIthJsonbValueFromContainer(&array->root, number - 1),
						  empty);
	}
	error_context_stack = context.previous;
	return events;
}
