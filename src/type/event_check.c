/*-------------------------------------------------------------------------
 *
 * event_check.c
 *		New events against the definitions of their types (design:
 *		doc/event_type.md).
 *
 * In two steps, since a retry returns its first result however the types are
 * defined by then:
 *
 *	1. event_identify, before anything is locked: an event that says an
 *	   earlier schema version is brought up, in memory only; one that says none
 *	   gets its type's; one without an id gets that of its composite key;
 *	2. event_check, when the events are known to be new and before positions
 *	   are drawn: all violations of all events, in one ES004.
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

/*
 * Violations that are told one by one, and the bytes of an error or a value in
 * one.
 */
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
	const NewEvent *event;		/* at hand */
	bool		one_stream;		/* and not rows of an import */
	bool		each;			/* is each value tried alone? */
	List	   *trials;			/* else many together, later */
	MemoryContext scratch;		/* of some events */
	StringInfoData lines;
	int			violations;
	bool		undefined;		/* is a type not defined? */
} Check;

/* Is there nothing to be done for any event? */
static inline bool
is_idle(Oid log)
{
	AcceptInvalidationMessages();
	return !event_type_any(log) && !event_type_strict;
}

/* Adds a line for the event at hand. */
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
	if (check->count > 1 && check->one_stream)
		appendStringInfo(lines, "Event %d: ",
						 (int) (check->event - check->events) + 1);
	else if (check->count > 1)
		appendStringInfo(lines, "Stream \"%s\": ",
						 text_to_cstring(check->event->stream));
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
	if (check->count == 1)
		lines->data[start] = pg_toupper((unsigned char) lines->data[start]);
}

/* What a value is. */
static const char *
kind_of(const JsonbValue *value)
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

/* Is the value an object, or an array? */
static bool
is_container(const JsonbValue *value)
{
	return value->type == jbvBinary;
}

/* The text of a scalar, as ->> gives it. */
static char *
text_of(const JsonbValue *value)
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

/* The text of a scalar for a violation, which does not repeat much of it. */
static const char *
short_text_of(const JsonbValue *value)
{
	char	   *text = text_of(value);
	int			length = strlen(text);
	int			cut = pg_mbcliplen(text, length, MAX_VALUE_BYTES);

	return cut == length ? text : psprintf("%.*s...", cut, text);
}

/* Is it a number without a fraction? */
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

/* Tries whether the types accept their values, or raises their error. */
static bool
try_values(void *arg)
{
	ListCell   *cell;

	foreach(cell, (List *) arg)
	{
		Trial	   *trial = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		(void) InputFunctionCall(&trial->input, trial->value, trial->io_param,
								 -1);
	}
	return true;
}

/* Tries a value, now or later. */
static void
check_scalar(Check *check, EventAttribute *attribute, const JsonbValue *value)
{
	Trial	   *trial;
	ErrorData  *error;
	int			length;

	if (is_container(value))
	{
		add_violation(check, "attribute \"%s\" is %s, not of type %s",
					  attribute->name, kind_of(value), attribute->word);
		return;
	}
	trial = palloc(sizeof(Trial));
	fmgr_info_copy(&trial->input, &attribute->input, CurrentMemoryContext);
	trial->io_param = attribute->io_param;
	trial->value = text_of(value);
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
	add_violation(check, "attribute \"%s\" is not of type %s: %.*s",
				  attribute->name, attribute->word, length, error->message);
}

/* Has the value the attribute's kind?  Scalars are checked elsewhere. */
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

/* What an attribute must be, in words. */
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

/* Checks a value that is there. */
static void
check_value(Check *check, EventAttribute *attribute, const JsonbValue *value)
{
	if (attribute->key && is_container(value))
		add_violation(check, "attribute \"%s\" of the composite key is %s, not a scalar",
					  attribute->name, kind_of(value));
	else if (attribute->kind == ATTRIBUTE_UNKNOWN)
		add_violation(check, "attribute \"%s\" is to be of an unknown kind, \"%s\"",
					  attribute->name, attribute->word);
	else if (attribute->kind == ATTRIBUTE_SCALAR)
		check_scalar(check, attribute, value);
	else if (!has_kind(attribute, value))
		add_violation(check, "attribute \"%s\" is %s, not %s",
					  attribute->name,
					  attribute->kind == ATTRIBUTE_INTEGER &&
					  value->type == jbvNumeric ? short_text_of(value) :
					  kind_of(value), kind_name(attribute->kind));
}

/* The value of an attribute; NULL if it is not there. */
static JsonbValue *
find_value(Jsonb *data, const char *name, JsonbValue *buffer)
{
	return getKeyJsonValueFromContainer(&data->root, name, strlen(name),
										buffer);
}

/* Checks what metadata says about the schema version. */
static void
check_version(Check *check, const EventType *type)
{
	int			version = event_type_version(check->event->metadata);
	JsonbValue	buffer;
	JsonbValue *value;

	if (version == SCHEMA_VERSION_BAD)
	{
		value = find_value(DatumGetJsonbP(check->event->metadata),
						   "schema_version", &buffer);
		add_violation(check, "metadata has a schema_version that is %s, not a positive integer",
					  value->type == jbvNumeric ? short_text_of(value) :
					  kind_of(value));
	}
	else if (version > type->schema_version)
		add_violation(check, "metadata has schema_version %d, but the type is defined as of version %d",
					  version, type->schema_version);
}

/* The data that is checked. */
static Jsonb *
present_data(const NewEvent *event)
{
	return DatumGetJsonbP(event->present != (Datum) 0 ? event->present :
						  event->data);
}

/* Checks the attributes of the event at hand. */
static void
check_data(Check *check, const EventType *type)
{
	Jsonb	   *data = present_data(check->event);
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
		JsonbValue *value = find_value(data, attribute->name, &buffer);

		if (value != NULL && value->type != jbvNull)
			check_value(check, attribute, value);
		else if (attribute->required)
			add_violation(check, "attribute \"%s\" is %s", attribute->name,
						  value == NULL ? "missing" : "null");
	}
}

/* Checks the event at hand. */
static void
check_event(Check *check)
{
	const EventType *type = event_type_find(check->log, check->event->type);

	if (type != NULL)
	{
		check_version(check, type);
		check_data(check, type);
	}
	else if (event_type_strict)
	{
		check->undefined = true;
		add_violation(check, "type \"%s\" is not defined",
					  text_to_cstring(check->event->type));
	}
}

/* Tries the values that wait for it; false if one was not accepted. */
static bool
try_waiting(Check *check)
{
	bool		accepted = check->trials == NIL ||
	subtransaction_try(try_values, check->trials) == NULL;

	check->trials = NIL;
	MemoryContextReset(check->scratch);
	return accepted;
}

/*
 * Checks all events.  False if a value was not accepted, and is to be found by
 * trying each.
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
			accepted = try_waiting(check);
		MemoryContextSwitchTo(oldcontext);
		if (!accepted)
			return false;
	}
	return true;
}

/* Raises what was found. */
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
			 errhint("es_describe_event_type(%s) shows what an event must be like.",
					 quote_literal_cstr(type)) :
			 errhint("es_describe_event_type() shows what events of a type must be like.")));
}

/*
 * Checks the events; ES004 with all that is wrong.
 */
static void
check_all(Oid log, const NewEvent *events, int count)
{
	Check		check = {.log = log,.events = events,.count = count};

	check.one_stream = events[0].stream == events[count - 1].stream;
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

/*
 * Checks new events against the definitions of their types.
 */
void
event_check(Oid log, const NewEvent *events, int count)
{
	MemoryContext context;
	MemoryContext oldcontext;

	if (count == 0 || is_idle(log))
		return;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"eventstore event check",
									ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	check_all(log, events, count);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}

/* Can an id be made of the data? */
static bool
has_key(const EventType *type, Jsonb *data)
{
	ListCell   *cell;

	if (!JB_ROOT_IS_OBJECT(data))
		return false;
	foreach(cell, type->attributes)
	{
		EventAttribute *attribute = lfirst(cell);
		JsonbValue	buffer;
		JsonbValue *value;

		if (!attribute->key)
			continue;
		value = find_value(data, attribute->name, &buffer);
		if (value == NULL || value->type == jbvNull || is_container(value))
			return false;
	}
	return true;
}

/* Gives the event the id of its composite key; false if it has not all of it. */
static bool
make_id(NewEvent *event, const EventType *type)
{
	Jsonb	   *data;

	if (event->has_id || type->composite_key == NULL)
		return true;
	data = present_data(event);
	if (!has_key(type, data))
		return false;
	event->id = *composite_key_id(event->type, data, type->composite_key);
	event->has_id = true;
	return true;
}

/* Says in the metadata as of which version the event is written. */
static void
stamp_version(NewEvent *event, const EventType *type)
{
	if (type->stamp == (Datum) 0)
		return;
	if (event->metadata == (Datum) 0)
		event->metadata = datumCopy(type->stamp, false, -1);
	else
		event->metadata = DirectFunctionCall2(jsonb_concat, event->metadata,
											  type->stamp);
}

/* Data of an earlier schema version as of the type's; 0 if it is the same. */
static Datum
bring_up(Upcasting *upcasting, const NewEvent *event, const EventType *type,
		 MemoryContext keep)
{
	Datum		data = upcast_data(upcasting, 0, event->type, event->data,
								   event->metadata, type->schema_version);
	MemoryContext oldcontext;

	if (data == event->data)
		return (Datum) 0;
	oldcontext = MemoryContextSwitchTo(keep);
	data = PointerGetDatum(PG_DETOAST_DATUM_COPY(data));
	MemoryContextSwitchTo(oldcontext);
	return data;
}

/*
 * Prepares an event of a type that is defined; false if it has no id and none
 * can be made.  keep: the memory of what is given to the event.
 */
static bool
identify(Oid log, Upcasting *upcasting, NewEvent *event, MemoryContext keep)
{
	const EventType *type = event_type_find(log, event->type);
	MemoryContext oldcontext;
	int			version;

	if (type == NULL)
		return true;
	version = event_type_version(event->metadata);
	if (version == SCHEMA_VERSION_NONE)
	{
		oldcontext = MemoryContextSwitchTo(keep);
		stamp_version(event, type);
		MemoryContextSwitchTo(oldcontext);
	}
	else if (version != SCHEMA_VERSION_BAD && version < type->schema_version)
	{
		event->present = bring_up(upcasting, event, type, keep);
		type = event_type_find(log, event->type);	/* users' code has run */
	}
	return type == NULL || make_id(event, type);
}

/* Prepares all events; false if an id cannot be made. */
static bool
identify_all(Oid log, NewEvent *events, int count)
{
	Upcasting  *upcasting = upcast_begin(log);
	MemoryContext keep = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(keep, "eventstore event",
												  ALLOCSET_DEFAULT_SIZES);
	bool		done = true;
	int			i;

	MemoryContextSwitchTo(context);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!identify(log, upcasting, &events[i], keep))
			done = false;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(keep);
	MemoryContextDelete(context);
	upcast_end(upcasting);
	return done;
}

/*
 * Gives new events the ids and schema versions that their types give them.  If
 * one has not what its id is made of, the call fails with all that is wrong
 * with its events.
 */
void
event_identify(Oid log, NewEvent *events, int count)
{
	if (!is_idle(log) && !identify_all(log, events, count))
		event_check(log, events, count);
}
