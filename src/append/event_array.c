/*-------------------------------------------------------------------------
 *
 * event_array.c
 *		Batches of new events as a jsonb array of objects.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/context.h"
#include "log/log.h"
#include "log/tags.h"
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
 * Returns the string after as many digits as the pattern has 9s, and the characters
 * of the pattern between them; NULL if it begins otherwise.
 */
static const char *
skip_pattern(const char *string, const char *pattern)
{
	for (; *pattern != '\0'; pattern++, string++)
	{
		if (*pattern == '9' ? !isdigit((unsigned char) *string) :
			*string != *pattern)
			return NULL;
	}
	return string;
}

/* Returns the string after a fraction of seconds, if it begins with one. */
static const char *
skip_fraction(const char *string)
{
	if (skip_pattern(string, ".9") == NULL)
		return string;
	string++;
	while (isdigit((unsigned char) *string))
		string++;
	return string;
}

/* Returns the string after an offset from UTC; NULL if it begins with none. */
static const char *
skip_offset(const char *string)
{
	const char *end;

	if (*string == 'Z')
		return string + 1;
	if (*string != '+' && *string != '-')
		return NULL;
	string++;
	if ((end = skip_pattern(string, "99:99")) == NULL &&
		(end = skip_pattern(string, "9999")) == NULL)
		end = skip_pattern(string, "99");
	return end;
}

/*
 * Returns true if the string is a timestamp in the extended format of ISO 8601, such as
 * 2026-01-31T20:00:00.5+01:00, whose seconds may be left out.  The server's own input
 * accepts much more, and depends on the session's settings.
 */
static bool
is_iso_moment(const char *string)
{
	const char *seconds;

	string = skip_pattern(string, "9999-99-99T99:99");
	if (string != NULL && (seconds = skip_pattern(string, ":99")) != NULL)
		string = skip_fraction(seconds);
	if (string != NULL)
		string = skip_offset(string);
	return string != NULL && *string == '\0';
}

/* The timestamp in a string, whatever the session's settings are. */
static TimestampTz
iso_moment(const char *string)
{
	if (!is_iso_moment(string))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
				 errmsg("\"occurred_at\" of an event must be a timestamp in ISO 8601"),
				 errdetail("It is \"%s\".", string),
				 errhint("Write date, time and offset, such as \"2026-01-31T20:00:00.5+01:00\" or \"2026-01-31T19:00:00Z\".")));
	return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
												   CStringGetDatum(string),
												   ObjectIdGetDatum(InvalidOid),
												   Int32GetDatum(-1)));
}

/* Refuses tags that are no array of strings. */
static void
fail_tags(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"tags\" of an event must be an array of strings"),
			 errdetail("%s", detail),
			 errhint("Pass an array such as [\"course:c1\", \"student:s1\"].")));
}

/* The strings of a JSON array, as an array of text; 0 for null. */
static Datum
json_tags(const JsonbValue *value)
{
	ArrayType  *tags;
	int			wrong;

	if (value->type == jbvNull)
		return (Datum) 0;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		fail_tags("The value is of another JSON type.");
	tags = argument_json_texts(value->val.binary.data, &wrong);
	if (tags == NULL)
		fail_tags(psprintf("Element %d is of another JSON type.", wrong));
	return PointerGetDatum(tags);
}

/*
 * The same of a jsonb by itself.
 */
Datum
event_array_tags(Datum tags, int number)
{
	Jsonb	   *array = DatumGetJsonbP(tags);
	JsonbValue	value;
	ErrorContextCallback context;
	Datum		result;

	if (!JB_ROOT_IS_SCALAR(array) || !JsonbExtractScalar(&array->root, &value))
	{
		value.type = jbvBinary;
		value.val.binary.data = &array->root;
		value.val.binary.len = VARSIZE(array) - VARHDRSZ;
	}
	context_push(&context, batch_event_context, &number);
	result = json_tags(&value);
	context_pop(&context);
	return result;
}

/* The expected version that a number or a word of JSON is. */
static ExpectedVersion
json_expected_version(const JsonbValue *value)
{
	char	   *string;

	if (value->type == jbvNumeric)
		string = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	else
		string = key_string(value, "expected_version");
	return expected_version_of(string);
}

/*
 * Reads a key that an event has which names its stream.  Returns false if it is another
 * one.
 */
static bool
read_stream_key(NewEvent *event, const char *key, const JsonbValue *value)
{
	if (strcmp(key, "stream") == 0)
	{
		if (value->type != jbvNull)
			event->stream = cstring_to_text(key_string(value, key));
	}
	else if (strcmp(key, "expected_version") == 0)
	{
		if (value->type != jbvNull)
			event->expected = json_expected_version(value);
	}
	else
		return false;
	return true;
}

/*
 * Reads one key of an event's object.  A null is as no key, except for the type and
 * for data, which may be JSON's null.
 */
static void
read_event_key(NewEvent *event, const char *key, JsonbValue *value, bool names_stream)
{
	if (names_stream && read_stream_key(event, key, value))
		return;
	if (strcmp(key, "type") == 0)
		event->type = cstring_to_text(key_string(value, key));
	else if (strcmp(key, "data") == 0)
		event->data = JsonbPGetDatum(JsonbValueToJsonb(value));
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
			event->occurred_at = iso_moment(key_string(value, key));
	}
	else if (strcmp(key, "tags") == 0)
		event->tags = json_tags(value);
	else if (strcmp(key, "body") == 0)
	{
		if (value->type != jbvNull)
			event->body = DirectFunctionCall2(binary_decode,
											  CStringGetTextDatum(key_string(value, key)),
											  CStringGetTextDatum("base64"));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key \"%s\" in an event", key),
				 errdetail("The keys of an event are type, data, metadata, id, occurred_at, tags%s and body.",
						   names_stream ? ", stream, expected_version" : ""),
				 errhint("Put attributes of your own into data or metadata.")));
}

/* Gives an event that names no stream that of its first tag. */
static void
complete_stream(NewEvent *event)
{
	if (event->stream == NULL)
	{
		Datum	   *tags;

		if (event->tags == (Datum) 0)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an event has neither a stream nor tags"),
					 errdetail("The object has no key \"stream\", and no tag from which one could be made."),
					 errhint("Name the event's stream, or tag the event, which then goes to the stream \"event-\" and its first tag.")));
		(void) tags_values(event->tags, &tags);
		event->stream = cstring_to_text(psprintf("event-%s", TextDatumGetCString(tags[0])));
	}
	stream_check_new(event->stream);
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
	bool		names_stream = event->stream == NULL;

	if (object->type != jbvBinary ||
		!JsonContainerIsObject(object->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event must be an object"),
				 errdetail("An element of the array is of another JSON type."),
				 errhint("Pass an array such as '[{\"type\": \"deposited\", \"data\": {\"amount\": 5}}]'.")));
	event->data = empty;
	event->expected = EXPECTED_ANY;
	iterator = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) == WJB_KEY)
	{
		key = pnstrdup(value.val.string.val, value.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_event_key(event, key, &value, names_stream);
	}
	if (event->type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event has no type"),
				 errdetail("The object has no key \"type\".")));
	event_check_new(event);
	if (names_stream)
		complete_stream(event);
}

/* Refuses more events than one append under a condition may have, before they are read. */
static void
check_conditional(int count)
{
	if (count > ES_MAX_CONDITIONAL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many events for a conditional append"),
				 errdetail("There are %d, the limit is %d.", count, ES_MAX_CONDITIONAL),
				 errhint("Append events that do not depend on the condition by es_append_batch().")));
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
				 errhint("Pass an array of objects, even for one event.")));
	*count = JB_ROOT_COUNT(array);
	if (stream == NULL)
		check_conditional(*count);
	events = event_array_make(stream, *count);

	context_push(&context, batch_event_context, &number);
	for (number = 1; number <= *count; number++)
	{
		CHECK_FOR_INTERRUPTS();
		read_event_object(&events[number - 1],
						  getIthJsonbValueFromContainer(&array->root, number - 1),
						  empty);
	}
	context_pop(&context);
	return events;
}

/*
 * Refuses events that are wrong by themselves.
 */
void
event_array_check(NewEvent *events, int count)
{
	ErrorContextCallback context;
	int			number;

	context_push(&context, batch_event_context, &number);
	for (number = 1; number <= count; number++)
		event_check_new(&events[number - 1]);
	context_pop(&context);
}
