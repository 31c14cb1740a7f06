/*-------------------------------------------------------------------------
 *
 * event_type_define.c
 *		Defining types of events: es_define_event_type, es_drop_event_type,
 *		es_describe_event_type, es_define_upcaster.
 *
 * A wrong definition is refused here, before it is stored.  The rows are written
 * by our own SQL; triggers of their tables notify all backends (event_type.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/regproc.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/personal_define.h"
#include "type/type.h"
#include "type/upcast.h"

PG_FUNCTION_INFO_V1(es_define_event_type);
PG_FUNCTION_INFO_V1(es_drop_event_type);
PG_FUNCTION_INFO_V1(es_describe_event_type);
PG_FUNCTION_INFO_V1(es_define_upcaster);

/* Arguments of es_define_event_type, in their order. */
enum
{
	ARG_TYPE, ARG_REQUIRED, ARG_COMPOSITE_KEY, ARG_ATTRIBUTES,
	ARG_SCHEMA_VERSION, ARG_DESCRIPTION, ARG_CATEGORY, ARG_COUNT,
	ARG_PERSONAL = ARG_COUNT, ARG_SUBJECT
};

/* Arguments of es_define_upcaster after the type. */
enum
{
	ARG_FROM_VERSION = 1, ARG_UPCASTER, ARG_UPCASTER_CATEGORY
};

/* The argument of es_drop_event_type and es_describe_event_type after the type. */
#define ARG_OF_CATEGORY		1

/* Columns of es_describe_event_type. */
#define DESCRIPTION_COLUMNS	9

/* Upcasters lead to versions of at most PG_INT32_MAX. */
#define MAX_FROM_VERSION	(PG_INT32_MAX - 1)

/* Times of storing, which are not the same when an append is tried again. */
static const char *const storing_times[] = {
	"recorded_at", "created_at", "inserted_at", "stored_at", "appended_at"
};

/* The words that attributes may have, for a hint. */
#define WORDS_HINT \
	"Use s or string, n or number, integer, b or boolean, object, array, any, or a scalar type of pg_catalog by its name, such as uuid, date, timestamptz or numeric."

/* Refuses a list of attributes with a null or an empty name. */
static void
check_attribute_names(const char *what, ArrayType *array)
{
	Datum	   *names;
	int			count = argument_texts(what, array, &names);
	int			i;

	for (i = 0; i < count; i++)
	{
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(names[i])) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not have empty elements", what),
					 errdetail("Element %d is an empty name.", i + 1)));
	}
}

/* Refuses a key that is empty, or that would differ at each retry. */
static void
check_composite_key(ArrayType *array)
{
	Datum	   *names;
	int			count;
	int			i;
	int			j;

	check_attribute_names("composite_key", array);
	names = composite_key_names(array, &count);
	for (i = 0; i < count; i++)
	{
		char	   *name = TextDatumGetCString(names[i]);

		for (j = 0; j < (int) lengthof(storing_times); j++)
		{
			if (strcmp(name, storing_times[j]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("attribute \"%s\" cannot be part of a composite key",
								name),
						 errdetail("Its name stands for the time of storing, which differs in each retry."),
						 errhint("Name attributes that say what happened, and when it happened if need be.")));
		}
	}
}

/* Appends a line if the word for an attribute is wrong. */
static void
check_attribute_word(StringInfo wrong, const char *name, const JsonbValue *word)
{
	char	   *given;
	Oid			type;

	if (word->type != jbvString)
	{
		appendStringInfo(wrong, "%sThat of attribute \"%s\" is not a string.",
						 wrong->len > 0 ? "\n" : "", name);
		return;
	}
	given = pnstrdup(word->val.string.val, word->val.string.len);
	if (event_type_kind(given, &type) == ATTRIBUTE_UNKNOWN)
		appendStringInfo(wrong, "%sThat of attribute \"%s\" is \"%s\".",
						 wrong->len > 0 ? "\n" : "", name, given);
	if (name[0] == '\0')
		appendStringInfo(wrong, "%sAn attribute has an empty name.",
						 wrong->len > 0 ? "\n" : "");
}

/* Refuses what is not an object of attributes' names and words. */
static void
check_attribute_words(Jsonb *attributes)
{
	JsonbIterator *iterator;
	JsonbValue	value;
	StringInfoData wrong;

	if (!JB_ROOT_IS_OBJECT(attributes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes must be an object"),
				 errdetail("The argument is %s.",
						   JB_ROOT_IS_SCALAR(attributes) ? "a scalar" :
						   "an array"),
				 errhint("Pass an object such as '{\"amount\": \"number\", \"at\": \"timestamptz\"}'.")));
	initStringInfo(&wrong);
	iterator = JsonbIteratorInit(&attributes->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(value.val.string.val,
									value.val.string.len);

		(void) JsonbIteratorNext(&iterator, &value, true);
		check_attribute_word(&wrong, name, &value);
	}
	if (wrong.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kinds of attributes"),
				 errdetail("%s", wrong.data),
				 errhint(WORDS_HINT)));
}

/* Returns the type, which is the first argument of all functions here. */
static text *
event_type_argument(FunctionCallInfo fcinfo)
{
	text	   *type;

	argument_not_null(fcinfo, ARG_TYPE, "type");
	type = PG_GETARG_TEXT_PP(ARG_TYPE);
	event_check_type_name(type);
	return type;
}

/* Returns the category that an argument names; NULL for none. */
static text *
category_argument(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return NULL;
	event_check_category(PG_GETARG_TEXT_PP(argument));
	return PG_GETARG_TEXT_PP(argument);
}

/* Refuses a wrong definition. */
static void
check_type_definition(FunctionCallInfo fcinfo)
{
	event_check_reserved(event_type_argument(fcinfo), "an event's type");
	argument_not_null(fcinfo, ARG_REQUIRED, "required");
	argument_not_null(fcinfo, ARG_SCHEMA_VERSION, "schema_version");
	check_attribute_names("required", PG_GETARG_ARRAYTYPE_P(ARG_REQUIRED));
	if (!PG_ARGISNULL(ARG_COMPOSITE_KEY))
		check_composite_key(PG_GETARG_ARRAYTYPE_P(ARG_COMPOSITE_KEY));
	if (!PG_ARGISNULL(ARG_ATTRIBUTES))
		check_attribute_words(PG_GETARG_JSONB_P(ARG_ATTRIBUTES));
	argument_range("schema_version", PG_GETARG_INT64(ARG_SCHEMA_VERSION), 1,
				   PG_INT32_MAX);
	(void) category_argument(fcinfo, ARG_CATEGORY);
	if (PG_ARGISNULL(ARG_PERSONAL) && !PG_ARGISNULL(ARG_SUBJECT))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a subject is of personal attributes"),
				 errdetail("The argument personal is null."),
				 errhint("Name the attributes that are about the subject.")));
}

/* Stores which attributes are personal. */
static void
define_personal(FunctionCallInfo fcinfo, Oid log)
{
	PersonalDefinition definition = {
		.log = log,
		.type = PG_GETARG_TEXT_PP(ARG_TYPE),
		.category = category_argument(fcinfo, ARG_CATEGORY),
		.attributes = PG_GETARG_ARRAYTYPE_P(ARG_PERSONAL)
	};

	if (!PG_ARGISNULL(ARG_SUBJECT))
		definition.subject = PG_GETARG_TEXT_PP(ARG_SUBJECT);
	personal_define(&definition);
}

/* Refuses a composite key that has attributes which are personal already. */
static void
check_key_is_not_personal(FunctionCallInfo fcinfo, Oid log)
{
	int			type_count;
	const EventType *types = event_type_all(log, &type_count);
	char	   *type = TextDatumGetCString(PG_GETARG_DATUM(ARG_TYPE));
	Datum	   *names;
	int			count;
	int			i;
	int			j;

	if (PG_ARGISNULL(ARG_COMPOSITE_KEY))
		return;
	names = composite_key_names(PG_GETARG_ARRAYTYPE_P(ARG_COMPOSITE_KEY), &count);
	for (i = 0; i < type_count; i++)
	{
		for (j = 0; j < count && strcmp(types[i].type, type) == 0; j++)
		{
			char	   *name = TextDatumGetCString(names[j]);

			if (event_type_is_personal(&types[i], name))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("attribute \"%s\" cannot be part of a composite key", name),
						 errdetail("It is personal, and the id would be a hash of it."),
						 errhint("Use another key, such as the subject and a number.")));
		}
	}
}

/*
 * es_define_event_type(type, required, composite_key, attributes, schema_version,
 * description, category, personal, subject): defines a type, for all categories or for
 * one, or replaces this definition.
 */
Datum
es_define_event_type(PG_FUNCTION_ARGS)
{
	Oid			types[ARG_COUNT] = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID,
	JSONBOID, INT8OID, TEXTOID, TEXTOID};
	Datum		values[ARG_COUNT];
	char		nulls[ARG_COUNT];
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	int			i;

	PreventCommandIfReadOnly("es_define_event_type()");
	check_type_definition(fcinfo);
	if (PG_ARGISNULL(ARG_PERSONAL))
		personal_refuse_forgotten(log, PG_GETARG_TEXT_PP(ARG_TYPE));
	check_key_is_not_personal(fcinfo, log);
	for (i = 0; i < ARG_COUNT; i++)
	{
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
	SPI_connect();
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_event_types (type, required,"
					   " composite_key, attributes, schema_version, description,"
					   " category) VALUES ($1, $2, $3, $4, $5, $6, $7)"
					   " ON CONFLICT (type, category) DO UPDATE SET"
					   " (required, composite_key, attributes, schema_version,"
					   " description, defined_at) = (excluded.required,"
					   " excluded.composite_key, excluded.attributes,"
					   " excluded.schema_version, excluded.description,"
					   " excluded.defined_at)",
					   ARG_COUNT, types, values, nulls);
	if (!PG_ARGISNULL(ARG_PERSONAL))
		define_personal(fcinfo, log);
	SPI_finish();
	PG_RETURN_VOID();
}

/* The values of $1 and $2 in statements on the definitions of a type. */
typedef struct TypeKey
{
	Oid			types[2];
	Datum		values[2];
	char		nulls[2];
} TypeKey;

static TypeKey
type_key(text *type, text *category)
{
	TypeKey		key = {{TEXTOID, TEXTOID},
	{PointerGetDatum(type), PointerGetDatum(category)},
	{' ', category ? ' ' : 'n'}};

	return key;
}

/* Returns the categories for which the type is defined, as a list; NULL for none. */
static char *
defined_categories(Oid log, text *type)
{
	Oid			types = TEXTOID;
	Datum		value = PointerGetDatum(type);

	(void) own_sql_run(log,
					   "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(category), ', '"
					   " ORDER BY category) FROM @extschema@.es_event_types WHERE type = $1",
					   1, &types, &value, NULL);
	return own_sql_text(1);
}

/* Refuses a type of which nothing is defined, for all categories or for one. */
static void
refuse_unknown_type(Oid log, text *type, text *category)
{
	char	   *others = defined_categories(log, type);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 category == NULL ?
			 errmsg("event type \"%s\" is not defined", text_to_cstring(type)) :
			 errmsg("event type \"%s\" is not defined for category \"%s\"",
					text_to_cstring(type), text_to_cstring(category)),
			 others == NULL ?
			 errdetail("Neither the type nor an upcaster of it is defined.") :
			 errdetail("It is defined for the categories %s.", others),
			 errhint("The table es_event_types has all types that are defined.")));
}

/*
 * es_drop_event_type(type, category): removes the definition of the type, that for
 * all categories or that for one, and its upcasters.
 */
Datum
es_drop_event_type(PG_FUNCTION_ARGS)
{
	text	   *type = event_type_argument(fcinfo);
	text	   *category = category_argument(fcinfo, ARG_OF_CATEGORY);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	TypeKey		key = type_key(type, category);
	uint64		dropped;

	PreventCommandIfReadOnly("es_drop_event_type()");
	personal_refuse_forgotten(log, type);
	SPI_connect();
	dropped = own_sql_run(log,
						  "DELETE FROM @extschema@.es_event_types"
						  " WHERE type = $1 AND category IS NOT DISTINCT FROM $2",
						  2, key.types, key.values, key.nulls);
	dropped += own_sql_run(log,
						   "DELETE FROM @extschema@.es_upcasters"
						   " WHERE type = $1 AND category IS NOT DISTINCT FROM $2",
						   2, key.types, key.values, key.nulls);
	if (dropped == 0)
		refuse_unknown_type(log, type, category);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * The definition that holds for the type in the category, with its personal attributes,
 * and its upcasters: those of the category if the type is defined for it, else those of
 * all categories.
 */
static const char *const describe_sql =
"SELECT $1, s.category, t.required, t.composite_key, t.attributes,"
" t.schema_version, t.description, u.upcasters, p.personal"
" FROM (SELECT (SELECT c.category FROM @extschema@.es_event_types c"
" WHERE c.type = $1 AND c.category = $2)) AS s (category)"
" CROSS JOIN LATERAL (SELECT pg_catalog.jsonb_object_agg(v.from_version,"
" v.upcaster) FROM @extschema@.es_upcasters v"
" WHERE v.type = $1 AND v.category IS NOT DISTINCT FROM s.category) AS u (upcasters)"
" CROSS JOIN LATERAL (SELECT pg_catalog.jsonb_object_agg(a.attribute, d.subject)"
" FROM @extschema@.es_personal_attributes d"
" CROSS JOIN LATERAL pg_catalog.unnest(d.attributes) AS a (attribute)"
" WHERE d.type = $1 AND d.category IS NOT DISTINCT FROM s.category) AS p (personal)"
" LEFT JOIN @extschema@.es_event_types t"
" ON t.type = $1 AND t.category IS NOT DISTINCT FROM s.category"
" WHERE t.type IS NOT NULL OR u.upcasters IS NOT NULL";

/*
 * es_describe_event_type(type, category): one row, with the definition, its personal
 * attributes and the upcasters.
 */
Datum
es_describe_event_type(PG_FUNCTION_ARGS)
{
	text	   *type = event_type_argument(fcinfo);
	text	   *category = category_argument(fcinfo, ARG_OF_CATEGORY);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	TypeKey		key = type_key(type, category);
	TupleDesc	desc;
	HeapTuple	row = NULL;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != DESCRIPTION_COLUMNS)
		elog(ERROR, "es_describe_event_type must return a row");
	SPI_connect();
	if (own_sql_select(log, describe_sql, 2, key.types, key.values, key.nulls) == 0)
		refuse_unknown_type(log, type, category);
	row = SPI_copytuple(SPI_tuptable->vals[0]);
	SPI_finish();
	HeapTupleHeaderSetTypeId(row->t_data, desc->tdtypeid);
	HeapTupleHeaderSetTypMod(row->t_data, desc->tdtypmod);
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(row, BlessTupleDesc(desc)));
}

/* Removes an upcaster. */
static void
remove_upcaster(Oid log, text *type, int from_version, text *category)
{
	Oid			types[3] = {TEXTOID, INT4OID, TEXTOID};
	Datum		values[3] = {PointerGetDatum(type), Int32GetDatum(from_version),
	PointerGetDatum(category)};

	if (own_sql_run(log,
					"DELETE FROM @extschema@.es_upcasters"
					" WHERE type = $1 AND from_version = $2"
					" AND category IS NOT DISTINCT FROM $3",
					3, types, values, category ? NULL : "  n") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no such upcaster"),
				 category == NULL ?
				 errdetail("Type \"%s\" has none from version %d.",
						   text_to_cstring(type), from_version) :
				 errdetail("Type \"%s\" has none from version %d for category \"%s\".",
						   text_to_cstring(type), from_version,
						   text_to_cstring(category)),
				 errhint("The table es_upcasters has all of them.")));
}

/* Stores an upcaster, which runs as the current user. */
static void
store_upcaster(Oid log, text *type, int from_version, Oid function, text *category)
{
	Oid			types[7] = {TEXTOID, INT4OID, TEXTOID, OIDOID, TEXTOID,
	TEXTARRAYOID, TEXTOID};
	Datum		values[7] = {
		PointerGetDatum(type),
		Int32GetDatum(from_version),
		CStringGetTextDatum(format_procedure_qualified(function)),
		ObjectIdGetDatum(GetUserId()),
		CStringGetTextDatum(run_as_session_path(log)),
		settings_of_session(),
		PointerGetDatum(category)
	};

	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_upcasters (type, from_version,"
					   " upcaster, owner, search_path, settings, category)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7)"
					   " ON CONFLICT (type, category, from_version) DO UPDATE SET"
					   " (upcaster, owner, search_path, settings, defined_at) ="
					   " (excluded.upcaster, excluded.owner,"
					   " excluded.search_path, excluded.settings,"
					   " excluded.defined_at)",
					   7, types, values, category ? NULL : "      n");
}

/*
 * Refuses an upcaster for a category for which the type is not defined.  It would
 * take over from all upcasters of the type for this category.  The definition stays
 * until the transaction ends.
 */
static void
check_type_of_category(Oid log, text *type, text *category)
{
	TypeKey		key = type_key(type, category);

	if (own_sql_run(log,
					"SELECT FROM @extschema@.es_event_types"
					" WHERE type = $1 AND category = $2 FOR KEY SHARE",
					2, key.types, key.values, NULL) > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event type \"%s\" is not defined for category \"%s\"",
					text_to_cstring(type), text_to_cstring(category)),
			 errdetail("The upcasters of a category are called where the type is defined for it."),
			 errhint("Define the type by es_define_event_type() with this category first, or leave the category out.")));
}

/*
 * es_define_upcaster(type, from_version, upcaster, category): defines the upcaster;
 * null removes it.
 */
Datum
es_define_upcaster(PG_FUNCTION_ARGS)
{
	text	   *type = event_type_argument(fcinfo);
	text	   *category = category_argument(fcinfo, ARG_UPCASTER_CATEGORY);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	int			from_version;
	Oid			upcaster = InvalidOid;

	PreventCommandIfReadOnly("es_define_upcaster()");
	argument_not_null(fcinfo, ARG_FROM_VERSION, "from_version");
	from_version = argument_int32(fcinfo, ARG_FROM_VERSION, "from_version", 1,
								  MAX_FROM_VERSION);
	if (!PG_ARGISNULL(ARG_UPCASTER))
		upcaster = upcast_find_function(text_to_cstring(PG_GETARG_TEXT_PP(ARG_UPCASTER)));
	SPI_connect();
	if (PG_ARGISNULL(ARG_UPCASTER))
		remove_upcaster(log, type, from_version, category);
	else
	{
		if (category != NULL)
			check_type_of_category(log, type, category);
		store_upcaster(log, type, from_version, upcaster, category);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
