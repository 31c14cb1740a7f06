/*-------------------------------------------------------------------------
 *
 * event_check.c
 *		Checks new events against the definitions of their types (design:
 *		doc/internals/event_type.md).
 *
 * It runs when the events are known to be new and before positions are drawn: a
 * retry returns its first result, however the types are defined by then.  All
 * violations of all events are raised in one ES004.
 *
 * Whether a type of the server accepts a value is known only by trying, and
 * fails with an error: the values of many events are tried in one
 * subtransaction, and each in one of its own only if that fails.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "type/type.h"

/* How many violations are listed, and how much of a value or error in each. */
#define MAX_LINES		100
#define MAX_VALUE_BYTES	40
#define MAX_ERROR_BYTES	200

/* Events whose values are tried together. */
#define CHUNK_EVENTS	1000

/* A value that must be accepted by a type. */
typedef struct Trial
{
	FmgrInfo	input;
	Oid			io_param;
	char	   *value;
} Trial;

/* The check of one call's events. */
typedef struct Check
{
	Oid			log;
	const NewEvent *events;
	int			count;
	const NewEvent *event;		/* that is being checked */
	bool		each;			/* is each value tried alone? */
	List	   *trials;			/* else those of many events, together */
	MemoryContext scratch;		/* of some events */
	StringInfoData lines;
	int			violations;
	bool		undefined;		/* is a type not defined? */
} Check;

/* Adds a line for the event that is being checked. */
static void
			add_violation(Check *check, const char *format,...)
			pg_attribute_printf(2, 3);
static void
add_violation(Check *check, const char *format,...)
{
	StringInfo	lines = &check->lines;
	int			needed;
	int			start;

	if (++check->violations > MAX_LINES)
		return;
	if (lines->len > 0)
		appendStringInfoChar(lines, '\n');
	if (check->event->row > 0)
		appendStringInfo(lines, "Row " INT64_FORMAT ", stream \"%s\": ",
						 check->event->row,
						 text_to_cstring(check->event->stream));
	else if (check->count > 1)
		appendStringInfo(lines, "Event %d: ",
						 (int) (check->event - check->events) + 1);
	start = lines->len;
	for (;;)
	{
		va_list		args;

		va_start(args, format);
		needed = appendStringInfoVA(lines, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(lines, needed);
	}
	appendStringInfoChar(lines, '.');
	if (check->count == 1 && check->event->row == 0)
		lines->data[start] = pg_toupper((unsigned char) lines->data[start]);
}

/* What kind of value it is, in words. */
static const char *
value_kind(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return "null";
		case jbvString:
			return "a string";
		case jbvNumeric:
			return "a number";
		case jbvBool:
			return "a boolean";
		default:
			return value->type == jbvBinary &&
				JsonContainerIsArray(value->val.binary.data) ?
				"an array" : "an object";
	}
}

/* Returns true if the value is an object or an array. */
static bool
is_container(const JsonbValue *value)
{
	return value->type == jbvBinary;
}

/* The text of a scalar, as ->> gives it. */
static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
	}
}

/* The beginning of the text of a scalar, for a violation. */
static const char *
short_scalar_text(const JsonbValue *value)
{
	char	   *text = scalar_text(value);
	int			length = strlen(text);
	int			cut = pg_mbcliplen(text, length, MAX_VALUE_BYTES);

	return cut == length ? text : psprintf("%.*s...", cut, text);
}

/* Returns true if it is a number without a fraction. */
static bool
is_integer(const JsonbValue *value)
{
	Datum		number;

	if (value->type != jbvNumeric)
		return false;
	number = NumericGetDatum(value->val.numeric);
	return DatumGetBool(DirectFunctionCall2(numeric_eq, number,
											DirectFunctionCall2(numeric_trunc,
																number,
																Int32GetDatum(0))));
}

/*
 * Raises the error of the first type that does not accept its value.  The
 * settings are fixed.  Whether 13/02/2026 is a date must not depend on the session.
 */
static bool
try_values(void *arg)
{
	int			level = settings_begin(settings_fixed());
	ListCell   *cell;

	foreach(cell, (List *) arg)
	{
		Trial	   *trial = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		(void) InputFunctionCall(&trial->input, trial->value, trial->io_param,
								 -1);
	}
	settings_end(level);
	return true;
}

/* Tries a value of a type of the server, or puts it on the list. */
static void
check_scalar_value(Check *check, EventAttribute *attribute, const JsonbValue *value)
{
	Trial	   *trial;
	ErrorData  *error;
	int			length;

	if (is_container(value))
	{
		add_violation(check, "attribute \"%s\" is %s, not of type %s",
					  attribute->name, value_kind(value), attribute->word);
		return;
	}
	trial = palloc(sizeof(Trial));
	fmgr_info_copy(&trial->input, &attribute->input, CurrentMemoryContext);
	trial->io_param = attribute->io_param;
	trial->value = scalar_text(value);
	if (!check->each)
	{
		check->trials = lappend(check->trials, trial);
		return;
	}
	error = subtransaction_try(try_values, list_make1(trial));
	if (error == NULL)
		return;
	length = pg_mbcliplen(error->message, strlen(error->message),
						  MAX_ERROR_BYTES);
	if (attribute->personal)
		add_violation(check, "attribute \"%s\" is not of type %s", attribute->name,
					  attribute->word);
	else
		add_violation(check, "attribute \"%s\" is not of type %s: %.*s",
					  attribute->name, attribute->word, length, error->message);
}

/*
 * Returns true if the value has the attribute's kind.  Values of types of the
 * server are tried elsewhere.
 */
static bool
has_kind(const EventAttribute *attribute, const JsonbValue *value)
{
	switch (attribute->kind)
	{
		case ATTRIBUTE_STRING:
			return value->type == jbvString;
		case ATTRIBUTE_NUMBER:
			return value->type == jbvNumeric;
		case ATTRIBUTE_INTEGER:
			return is_integer(value);
		case ATTRIBUTE_BOOLEAN:
			return value->type == jbvBool;
		case ATTRIBUTE_OBJECT:
			return is_container(value) &&
				!JsonContainerIsArray(value->val.binary.data);
		case ATTRIBUTE_ARRAY:
			return is_container(value) &&
				JsonContainerIsArray(value->val.binary.data);
		default:
			return true;
	}
}

/* The kind that an attribute must have, in words. */
static const char *
kind_name(AttributeKind kind)
{
	switch (kind)
	{
		case ATTRIBUTE_STRING:
			return "a string";
		case ATTRIBUTE_NUMBER:
			return "a number";
		case ATTRIBUTE_INTEGER:
			return "an integer";
		case ATTRIBUTE_BOOLEAN:
			return "a boolean";
		case ATTRIBUTE_OBJECT:
			return "an object";
		default:
			return "an array";
	}
}

/* Checks a value that is not null. */
static void
check_attribute_value(Check *check, EventAttribute *attribute, const JsonbValue *value)
{
	if (attribute->key && is_container(value))
		add_violation(check, "attribute \"%s\" of the composite key is %s, not a scalar",
					  attribute->name, value_kind(value));
	else if (attribute->kind == ATTRIBUTE_UNKNOWN)
		add_violation(check, "attribute \"%s\" is to be of an unknown kind, \"%s\"",
					  attribute->name, attribute->word);
	else if (attribute->kind == ATTRIBUTE_SCALAR)
		check_scalar_value(check, attribute, value);
	else if (!has_kind(attribute, value))
		add_violation(check, "attribute \"%s\" is %s, not %s",
					  attribute->name,
					  attribute->kind == ATTRIBUTE_INTEGER && !attribute->personal &&
					  value->type == jbvNumeric ? short_scalar_text(value) :
					  value_kind(value), kind_name(attribute->kind));
}

/* Checks what metadata says about the schema version, which is at most the current one. */
static void
check_schema_version(Check *check, int current)
{
	int			version = schema_version_read(check->event->metadata);
	JsonbValue	buffer;
	JsonbValue *value;

	if (version == SCHEMA_VERSION_BAD)
	{
		value = event_attribute_value(DatumGetJsonbP(check->event->metadata),
									  "schema_version", &buffer);
		add_violation(check, "metadata has a schema_version that is %s, not a positive integer",
					  value->type == jbvNumeric ? short_scalar_text(value) :
					  value_kind(value));
	}
	else if (version > current)
		add_violation(check, "metadata has schema_version %d, but the type is defined as of version %d",
					  version, current);
}

/* Checks the attributes of the event. */
static void
check_event_data(Check *check, const EventType *type)
{
	Jsonb	   *data = event_new_data(check->event);
	ListCell   *cell;

	if (!JB_ROOT_IS_OBJECT(data))
	{
		add_violation(check, "the data is %s, not an object",
					  JB_ROOT_IS_SCALAR(data) ? "a scalar" : "an array");
		return;
	}
	foreach(cell, type->attributes)
	{
		EventAttribute *attribute = lfirst(cell);
		JsonbValue	buffer;
		JsonbValue *value = event_attribute_value(data, attribute->name, &buffer);

		if (value != NULL && value->type != jbvNull)
			check_attribute_value(check, attribute, value);
		else if (attribute->required)
			add_violation(check, "attribute \"%s\" is %s", attribute->name,
						  value == NULL ? "missing" : "null");
	}
}

/* Adds that the type is not defined. */
static void
add_undefined(Check *check)
{
	const NewEvent *event = check->event;

	check->undefined = true;
	if (event_type_is_defined(check->log, event->type))
		add_violation(check, "type \"%s\" is not defined for category \"%s\"",
					  text_to_cstring(event->type),
					  stream_category(event->stream));
	else
		add_violation(check, "type \"%s\" is not defined",
					  text_to_cstring(event->type));
}

/* Checks one event. */
static void
check_event(Check *check)
{
	const EventType *type = event_type_find(check->log, check->event->stream,
											check->event->type);

	if (type != NULL)
	{
		check_schema_version(check, type->schema_version);
		check_event_data(check, type);
	}
	else
	{
		/* the store's own events have no definitions */
		if (event_type_strict && !event_is_reserved(check->event->type))
			add_undefined(check);
		if (event_type_has_upcaster(check->log, check->event->type))
			check_schema_version(check, PG_INT32_MAX);
	}
}

/* Tries the values on the list.  Returns false if one was not accepted. */
static bool
try_listed_values(Check *check)
{
	bool		accepted = check->trials == NIL ||
	subtransaction_try(try_values, check->trials) == NULL;

	check->trials = NIL;
	MemoryContextReset(check->scratch);
	return accepted;
}

/*
 * Checks all events.  Returns false if a value was not accepted; which one is
 * found by trying each.
 */
static bool
check_events(Check *check)
{
	int			i;

	initStringInfo(&check->lines);
	check->violations = 0;
	for (i = 0; i < check->count; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(check->scratch);
		bool		accepted = true;

		CHECK_FOR_INTERRUPTS();
		check->event = &check->events[i];
		check_event(check);
		if (i + 1 == check->count || (i + 1) % CHUNK_EVENTS == 0)
			accepted = try_listed_values(check);
		MemoryContextSwitchTo(oldcontext);
		if (!accepted)
			return false;
	}
	return true;
}

/* Returns the call that shows what an event must be like. */
static char *
describe_call(const Check *check)
{
	const NewEvent *event = &check->events[0];
	const EventType *type = event_type_find(check->log, event->stream, event->type);

	return type == NULL || type->category == NULL ?
		psprintf("es_describe_event_type(%s)",
				 quote_literal_cstr(text_to_cstring(event->type))) :
		psprintf("es_describe_event_type(%s, %s)",
				 quote_literal_cstr(type->type), quote_literal_cstr(type->category));
}

/* Raises the violations. */
static void
raise_violations(Check *check)
{
	char	   *type = text_to_cstring(check->events[0].type);

	if (check->violations > MAX_LINES)
		appendStringInfo(&check->lines, "\nand %d more.",
						 check->violations - MAX_LINES);
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT),
			 check->count == 1 ?
			 errmsg("invalid event of type \"%s\"", type) :
			 errmsg("invalid events"),
			 errdetail("%s", check->lines.data),
			 check->undefined ?
			 errhint("eventstore.strict_types is on: define the type by es_define_event_type() first.") :
			 check->count == 1 ?
			 errhint("%s shows what an event must be like.", describe_call(check)) :
			 errhint("es_describe_event_type() shows what events of a type must be like.")));
}

/* Checks the events, and raises all violations. */
static void
check_new_events(Oid log, const NewEvent *events, int count)
{
	Check		check = {.log = log,.events = events,.count = count};

	check.scratch = AllocSetContextCreate(CurrentMemoryContext,
										  "eventstore events",
										  ALLOCSET_DEFAULT_SIZES);
	if (!check_events(&check))
	{
		check.each = true;
		(void) check_events(&check);
	}
	if (check.violations > 0)
		raise_violations(&check);
}

void
event_check(Oid log, const NewEvent *events, int count)
{
	MemoryContext context;
	MemoryContext oldcontext;

	if (count == 0 || !event_type_is_checked(log))
		return;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"eventstore event check",
									ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	check_new_events(log, events, count);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
