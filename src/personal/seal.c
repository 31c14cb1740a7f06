/*-------------------------------------------------------------------------
 *
 * seal.c
 *		Encrypts the personal attributes of new events.
 *
 * What is personal is said by the definition of the event's type (type/personal_define.c).  An
 * attribute leaves a null in data, where a reader that may not see it finds it, and its value
 * goes to metadata, encrypted (envelope.h).  An attribute that is missing or null is not about
 * anybody.
 *
 * It is done in two steps of a write (append/write.c): events get the tags of their subjects with the
 * other tags, before these are locked; and they are encrypted when all checks have passed, and
 * retries are known, before a position is drawn.  The lock of the tag is that of the subject: whoever
 * erases it takes the same lock, so that a key that is used is not erased before the events are
 * committed.
 *
 * An event of an earlier schema version is stored as of its type's.  In the data as they came the
 * attributes may have other names.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/tags.h"
#include "personal/envelope.h"
#include "type/type.h"

/* Levels that a personal attribute may have. */
#define MAX_DEPTH	1000

/* What is encrypted in an event about one subject. */
typedef struct SubjectPart
{
	text	   *subject;
	List	   *attributes;		/* of their names */
} SubjectPart;

/* Raises that an event cannot be stored.  detail: a sentence. */
static void
fail_event(const NewEvent *event, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT),
			 errmsg("invalid event of type \"%s\"", text_to_cstring(event->type)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint),
			 event->row > 0 ? errcontext("row " INT64_FORMAT " of the import", event->row) : 0));
}

static void
fail_subject(const NewEvent *event, const char *detail)
{
	fail_event(event, detail,
			   "An event with personal attributes needs the name of the person that they are about, a pseudonym.");
}

/* Refuses a value whose text a reader could not parse, as that takes more of the stack than here. */
static void
check_depth(const NewEvent *event, const char *name, const JsonbValue *value)
{
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	part;
	int			depth = 0;

	while ((token = JsonbIteratorNext(&iterator, &part, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
			depth++;
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			depth--;
		if (depth > MAX_DEPTH)
			fail_event(event, psprintf("Attribute \"%s\", which is personal, is nested more than %d levels deep.",
									   name, MAX_DEPTH), "Store it flatter, or as a string.");
	}
}

/* Returns true if the data has the attribute, and it is not null. */
static bool
has_value(const NewEvent *event, Jsonb *data, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = event_attribute_value(data, name, &buffer);

	if (value != NULL && value->type == jbvBinary)
		check_depth(event, name, value);
	return value != NULL && value->type != jbvNull;
}

/* The subject that an attribute names. */
static text *
subject_of_attribute(const NewEvent *event, Jsonb *data, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = event_attribute_value(data, name, &buffer);
	Datum		number;

	if (value == NULL || value->type == jbvNull)
		fail_subject(event, psprintf("Attribute \"%s\", which is the subject, is %s.", name,
									 value == NULL ? "missing" : "null"));
	if (value->type == jbvString)
		return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
	if (value->type != jbvNumeric)
		fail_subject(event, psprintf("Attribute \"%s\", which is the subject, is neither a string nor a number.", name));
	/* 17 and 17.0 are the same number to jsonb, and the same person */
	number = DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(value->val.numeric));
	return cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out, number)));
}

/* Whom a part of the event is about. */
static text *
find_subject(const NewEvent *event, Jsonb *data, const PersonalPart *part)
{
	text	   *subject = part->subject == NULL ? subject_of_stream(event->stream) :
	subject_of_attribute(event, data, part->subject);
	int			length;

	if (subject == NULL)
		fail_subject(event, psprintf("Stream \"%s\" has no id behind a \"-\", which would be the subject.",
									 text_to_cstring(event->stream)));
	length = VARSIZE_ANY_EXHDR(subject);
	if (length == 0 || length > ES_MAX_SUBJECT_LENGTH)
		fail_subject(event, psprintf("The subject has %d bytes. It must have 1 to %d.", length,
									 ES_MAX_SUBJECT_LENGTH));
	return subject;
}

/* Adds attributes to what is about the subject. */
static List *
add_subject_part(List *parts, text *subject, List *attributes)
{
	SubjectPart *added;
	ListCell   *cell;

	foreach(cell, parts)
	{
		SubjectPart *part = lfirst(cell);

		if (stream_equal(part->subject, subject))
		{
			part->attributes = list_concat(part->attributes, attributes);
			return parts;
		}
	}
	added = palloc(sizeof(SubjectPart));
	added->subject = subject;
	added->attributes = attributes;
	return lappend(parts, added);
}

/* What is to be encrypted in the event: a List of SubjectPart. */
static List *
find_parts(const NewEvent *event, const EventType *type)
{
	Jsonb	   *data = event_new_data(event);
	List	   *parts = NIL;
	ListCell   *cell;

	if (!JB_ROOT_IS_OBJECT(data))
		return NIL;
	foreach(cell, type->personal)
	{
		const PersonalPart *part = lfirst(cell);
		List	   *found = NIL;
		ListCell   *name;

		foreach(name, part->attributes)
		{
			if (has_value(event, data, lfirst(name)))
				found = lappend(found, pstrdup(lfirst(name)));
		}
		if (found != NIL)
			parts = add_subject_part(parts, find_subject(event, data, part), found);
	}
	return parts;
}

/* The definition of the event's type, if any of its attributes are personal. */
static const EventType *
personal_type(Oid log, const NewEvent *event)
{
	const EventType *type = event_type_find(log, event->stream, event->type);

	return type != NULL && type->personal != NIL ? type : NULL;
}

void
seal_check_metadata(Datum metadata)
{
	if (metadata == (Datum) 0 || !open_is_sealed(metadata))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT),
			 errmsg("metadata must not have the key \"" ENVELOPE_KEY "\""),
			 errdetail("The store keeps there what it has encrypted."),
			 errhint("Pass the attributes in data.")));
}

/* Refuses an event of a schema version that nothing has brought to its type's. */
static void
check_sealed_version(const NewEvent *event, const EventType *type)
{
	int			version = schema_version_read(event->metadata);

	if (event->upcast == (Datum) 0 && version != SCHEMA_VERSION_BAD &&
		Max(version, 1) < type->schema_version)
		fail_event(event,
				   psprintf("It is of schema version %d, and personal attributes have the names of version %d.",
							Max(version, 1), type->schema_version),
				   "Define an upcaster, or bring the data to the current version. es_import_log does not upcast.");
}

void
seal_identify(Oid log, NewEvent *events, int count)
{
	int			i;

	if (!event_type_has_personal(log))
		return;
	for (i = 0; i < count; i++)
	{
		const EventType *type = personal_type(log, &events[i]);
		ListCell   *cell;

		CHECK_FOR_INTERRUPTS();
		if (type == NULL)
			event_type_check_personal(log, events[i].type);
		seal_check_metadata(events[i].metadata);
		if (type != NULL)
			check_sealed_version(&events[i], type);
		foreach(cell, type == NULL ? NIL : find_parts(&events[i], type))
		{
			Datum		tag = PointerGetDatum(subject_tag(((SubjectPart *) lfirst(cell))->subject));

			events[i].is_personal = true;
			events[i].tags = tags_add(events[i].tags, &tag, 1);
		}
	}
}

/* Makes an object of the attributes, with their values or with nulls. */
static Datum
pick_attributes(Jsonb *data, List *names, bool nulls)
{
	JsonbParseState *state = NULL;
	ListCell   *cell;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	foreach(cell, names)
	{
		JsonbValue	none = {.type = jbvNull};
		JsonbValue	buffer;
		JsonbValue	key = {
			.type = jbvString,
			.val.string.val = lfirst(cell),
			.val.string.len = strlen(lfirst(cell))
		};

		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE,
							  nulls ? &none : event_attribute_value(data, lfirst(cell), &buffer));
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Encrypts what is about one subject.  Returns base64. */
static char *
seal_part(Oid log, const NewEvent *event, const SubjectPart *part)
{
	Datum		object = pick_attributes(DatumGetJsonbP(event->data), part->attributes, false);
	CipherText	known = envelope_known(part->subject, &event->id, event->stream, event->type,
									   schema_version_read(event->metadata));
	uint8		key[CIPHER_KEY_BYTES];
	char	   *sealed;

	subject_key_get(log, part->subject, key);
	sealed = envelope_seal(key, known, object);
	OPENSSL_cleanse(key, sizeof(key));
	return sealed;
}

/* The event as of its type's schema version. */
static void
take_current_version(NewEvent *event, const EventType *type)
{
	if (event->upcast == (Datum) 0)
		return;
	event->data = event->upcast;
	event->upcast = (Datum) 0;
	event->metadata = schema_version_add(event->metadata, type->version_metadata);
}

/* Refuses a subject whose tag is not locked: the type was defined anew since the event got its tags. */
static void
check_subject_is_locked(const NewEvent *event, text *subject)
{
	Datum		tag = PointerGetDatum(subject_tag(subject));
	Datum	   *missing;

	if (tags_missing(tags_add((Datum) 0, &tag, 1), event->tags, &missing) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("type \"%s\" was defined anew while an event of it was appended",
						text_to_cstring(event->type)),
				 errdetail("The event is about subject \"%s\" by the new definition alone.",
						   text_to_cstring(subject)),
				 errhint("Append it again.")));
}

static void
seal_event(Oid log, NewEvent *event, const EventType *type)
{
	List	   *parts = find_parts(event, type);
	List	   *subjects = NIL;
	List	   *values = NIL;
	Datum		envelope;
	ListCell   *cell;

	if (parts == NIL)
		return;
	take_current_version(event, type);
	if (!event->has_id)
		uuid_generate_v7(&event->id);
	event->has_id = true;
	foreach(cell, parts)
	{
		SubjectPart *part = lfirst(cell);

		check_subject_is_locked(event, part->subject);
		subjects = lappend(subjects, text_to_cstring(part->subject));
		values = lappend(values, seal_part(log, event, part));
	}
	foreach(cell, parts)
		event->data = DirectFunctionCall2(jsonb_concat, event->data,
										  pick_attributes(NULL, ((SubjectPart *) lfirst(cell))->attributes, true));
	envelope = envelope_metadata(subjects, values);
	event->metadata = event->metadata == (Datum) 0 ? envelope :
		DirectFunctionCall2(jsonb_concat, event->metadata, envelope);
}

void
seal_events(Oid log, NewEvent *events, int count)
{
	int			i;

	if (!event_type_has_personal(log))
		return;
	for (i = 0; i < count; i++)
	{
		const EventType *type = personal_type(log, &events[i]);

		CHECK_FOR_INTERRUPTS();
		if (type != NULL)
			seal_event(log, &events[i], type);
	}
}
