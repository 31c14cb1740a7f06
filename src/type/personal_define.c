/*-------------------------------------------------------------------------
 *
 * personal_define.c
 *		Which attributes of a type are about a person: es_define_personal_attributes(),
 *		and the arguments personal and subject of es_define_event_type()
 *		(doc/internals/personal.md).
 *
 * A definition is a row of es_personal_attributes.  Rows are never deleted: one that was given
 * up has no attributes.  So a store that has personal data in its log is known to have some.
 *
 * What would leave a personal attribute in plaintext is refused: in a composite key, whose id is
 * a hash of it; in an index on attributes; as the name of a person; in two definitions of a type;
 * and a definition of the type that does not mention it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/log.h"
#include "type/personal_define.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_define_personal_attributes);

/* Arguments of es_define_personal_attributes, in their order. */
enum
{
	ARG_TYPE, ARG_ATTRIBUTES, ARG_SUBJECT, ARG_CATEGORY
};

static const char *const store_definition =
"INSERT INTO @extschema@.es_personal_attributes (type, category, subject, attributes)"
" VALUES ($1, $2, $3, $4) ON CONFLICT (type, category, subject) DO UPDATE SET"
" (attributes, defined_at) = (excluded.attributes, excluded.defined_at)";

static const char *const give_up_definitions =
"UPDATE @extschema@.es_personal_attributes SET attributes = '{}', defined_at = DEFAULT"
" WHERE type = $1 AND category IS NOT DISTINCT FROM $2 AND attributes <> '{}'";

/* Refuses a definition.  detail: a sentence. */
static void
refuse_personal(const char *attribute, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("attribute \"%s\" cannot be personal", attribute),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

static bool
same_text(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

/* Refuses an attribute that another definition of the type has as well, or names a person by. */
static void
check_other_parts(const PersonalDefinition *definition, const EventType *type,
				  const char *attribute)
{
	const char *subject = definition->subject ? text_to_cstring(definition->subject) : NULL;
	ListCell   *cell;

	foreach(cell, type->personal)
	{
		const PersonalPart *part = lfirst(cell);
		ListCell   *name;

		if (part->attributes != NIL && same_text(part->subject, attribute))
			refuse_personal(attribute, "Another definition of the type has it as subject.",
							"Name a person by a pseudonym, such as a number.");
		if (same_text(part->subject, subject))
			continue;
		foreach(name, part->attributes)
		{
			if (same_text(lfirst(name), attribute))
				refuse_personal(attribute, "It is about another person in another definition of the type.",
								"Give that up first, or use an attribute for each person.");
			if (same_text(lfirst(name), subject))
				refuse_personal(subject, "It is to be the subject of other attributes.",
								"Name a person by a pseudonym, such as a number.");
		}
	}
}

/* Refuses an attribute that the definition of the type has in its key. */
static void
check_not_in_key(const EventType *type, const char *attribute)
{
	ListCell   *cell;

	foreach(cell, type->attributes)
	{
		const EventAttribute *known = lfirst(cell);

		if (known->key && strcmp(known->name, attribute) == 0)
			refuse_personal(attribute, "It is a part of the composite key, and ids are hashes of that.",
							"Use another key, such as the subject and a number.");
	}
}

/* Refuses what cannot be personal. */
static void
check_personal_attribute(const PersonalDefinition *definition, const EventType *type,
						 const char *attribute)
{
	if (attribute[0] == '\0')
		refuse_personal(attribute, "Its name is empty.", "Name attributes of data.");
	if (definition->subject != NULL && same_text(text_to_cstring(definition->subject), attribute))
		refuse_personal(attribute, "It is the subject.",
						"Name a person by a pseudonym, such as a number.");
	check_not_in_key(type, attribute);
	check_other_parts(definition, type, attribute);
	if (attribute_index_exists(definition->log, type->type, attribute))
		refuse_personal(attribute, "There is an index on it, which es_index_attribute() has made.",
						"Drop the index first. What it has of stored events is plaintext.");
}

/* The type's definition, which must be there. */
static const EventType *
find_defined_type(const PersonalDefinition *definition)
{
	const EventType *types;
	const char *type = text_to_cstring(definition->type);
	const char *category = definition->category ? text_to_cstring(definition->category) : NULL;
	int			count;
	int			i;

	types = event_type_all(definition->log, &count);
	for (i = 0; i < count; i++)
	{
		if (same_text(types[i].type, type) && same_text(types[i].category, category))
			return &types[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 category == NULL ?
			 errmsg("event type \"%s\" is not defined", type) :
			 errmsg("event type \"%s\" is not defined for category \"%s\"", type, category),
			 errdetail("Personal attributes are a part of a type's definition."),
			 errhint("Define the type by es_define_event_type() first.")));
}

static void
check_personal_subject(text *subject)
{
	if (subject != NULL && VARSIZE_ANY_EXHDR(subject) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("subject must not be empty"),
				 errdetail("It names the attribute whose value names the person."),
				 errhint("Leave it out where the stream's id does, such as 17 in person-17.")));
	if (subject != NULL && VARSIZE_ANY_EXHDR(subject) > ES_MAX_TYPE_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a subject's attribute is too long"),
				 errdetail("It has %d bytes, the limit is %d.",
						   (int) VARSIZE_ANY_EXHDR(subject), ES_MAX_TYPE_LENGTH)));
}

static void
check_personal_definition(const PersonalDefinition *definition)
{
	const EventType *type = find_defined_type(definition);
	Datum	   *names;
	int			count = argument_texts("personal", definition->attributes, &names);
	int			i;
	int			j;

	check_personal_subject(definition->subject);
	for (i = 0; i < count; i++)
	{
		char	   *attribute = TextDatumGetCString(names[i]);

		check_personal_attribute(definition, type, attribute);
		for (j = 0; j < i; j++)
		{
			if (same_text(attribute, TextDatumGetCString(names[j])))
				refuse_personal(attribute, "It is named twice.", "Name each attribute once.");
		}
	}
}

/*
 * Stores a definition; an empty one gives up all of the type, or that of one subject.
 */
void
personal_define(const PersonalDefinition *definition)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID};
	Datum		values[4] = {
		PointerGetDatum(definition->type), PointerGetDatum(definition->category),
		PointerGetDatum(definition->subject), PointerGetDatum(definition->attributes)
	};
	char		nulls[5] = "    ";
	bool		gives_up = ArrayGetNItems(ARR_NDIM(definition->attributes),
										  ARR_DIMS(definition->attributes)) == 0;

	nulls[1] = definition->category ? ' ' : 'n';
	nulls[2] = definition->subject ? ' ' : 'n';
	check_personal_definition(definition);
	if (gives_up && definition->subject == NULL)
		(void) own_sql_run(definition->log, give_up_definitions, 2, types, values, nulls);
	else
		(void) own_sql_run(definition->log, store_definition, 4, types, values, nulls);
}

/*
 * Refuses a definition of the type that would store attributes in plaintext which were encrypted
 * so far, as that of an old program does.
 */
void
personal_refuse_forgotten(Oid log, text *type)
{
	char	   *name = text_to_cstring(type);
	int			count;
	const EventType *types;
	int			i;

	AcceptInvalidationMessages();
	types = event_type_all(log, &count);
	for (i = 0; i < count; i++)
	{
		ListCell   *cell;

		foreach(cell, strcmp(types[i].type, name) == 0 ? types[i].personal : NIL)
		{
			if (((PersonalPart *) lfirst(cell))->attributes == NIL)
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("type \"%s\" has personal attributes", name),
					 errdetail("They would be stored in plaintext from now on."),
					 errhint("Pass the arguments personal and subject, or personal => '{}' to take them back.")));
		}
	}
}

/*
 * es_define_personal_attributes(type, attributes, subject, category)
 */
Datum
es_define_personal_attributes(PG_FUNCTION_ARGS)
{
	PersonalDefinition definition = {.log = log_relid(fcinfo->flinfo->fn_oid)};

	PreventCommandIfReadOnly("es_define_personal_attributes()");
	argument_not_null(fcinfo, ARG_TYPE, "type");
	argument_not_null(fcinfo, ARG_ATTRIBUTES, "attributes");
	definition.type = PG_GETARG_TEXT_PP(ARG_TYPE);
	event_check_type_name(definition.type);
	definition.attributes = PG_GETARG_ARRAYTYPE_P(ARG_ATTRIBUTES);
	if (!PG_ARGISNULL(ARG_SUBJECT))
		definition.subject = PG_GETARG_TEXT_PP(ARG_SUBJECT);
	if (!PG_ARGISNULL(ARG_CATEGORY))
	{
		definition.category = PG_GETARG_TEXT_PP(ARG_CATEGORY);
		event_check_category(definition.category);
	}
	SPI_connect();
	AcceptInvalidationMessages();
	personal_define(&definition);
	SPI_finish();
	PG_RETURN_VOID();
}
