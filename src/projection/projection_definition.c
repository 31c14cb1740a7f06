/*-------------------------------------------------------------------------
 *
 * projection_definition.c
 *		The definition of a projection, as arguments of es_create_projection and
 *		es_alter_projection.  Both refuse the same, and store it in the same way.
 *
 * What is wrong by itself is refused here, before it is stored.  Whether the parts
 * work together is for projection_check_definition, which needs the whole projection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/type.h"
#include "projection/projection_define.h"

#define MAX_BATCH_SIZE		1000000
#define MAX_MAX_ATTEMPTS	1000

/* Takes the arguments of the call, which are these parts. */
void
definition_take(Definition *definition, FunctionCallInfo fcinfo,
				const DefinitionPart *parts, int count)
{
	int			i;

	definition->log = log_relid(fcinfo->flinfo->fn_oid);
	for (i = 0; i < DEFINE_PARTS; i++)
		definition->parts[i].isnull = true;
	for (i = 0; i < count; i++)
		definition->parts[parts[i]] = fcinfo->args[i];
}

/* Returns true if the part is given. */
bool
definition_has(const Definition *definition, DefinitionPart part)
{
	return !definition->parts[part].isnull;
}

/* Returns how many of the four kinds are given. */
int
definition_count_kinds(const Definition *definition)
{
	int			given = 0;
	int			part;

	for (part = DEFINE_HANDLER; part <= DEFINE_REFRESH; part++)
		given += definition_has(definition, part) ? 1 : 0;
	return given;
}

/*
 * Refuses a relation that is not of the kinds (pg_class.relkind), or that the
 * caller does not own.
 */
static void
check_owned_relation(Oid log, Oid relid, const char *kinds, const char *what)
{
	char		kind = get_rel_relkind(relid);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with oid %u does not exist", relid),
				 errdetail("It was named as %s of a projection.", what)));
	if (strchr(kinds, kind) == NULL ||
		get_rel_persistence(relid) == RELPERSISTENCE_TEMP ||
		getExtensionOfObject(RelationRelationId, relid) ==
		getExtensionOfObject(RelationRelationId, log))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not %s", get_rel_name(relid), what),
				 errdetail("A projection stores its rows in %s of its owner.",
						   what)));
	if (!has_privs_of_role(GetUserId(), run_as_owner(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of \"%s\"", get_rel_name(relid)),
				 errdetail("Its owner is \"%s\".",
						   GetUserNameFromId(run_as_owner(relid), false)),
				 errhint("Let the projection be created by the owner of its tables.")));
}

/*
 * Refuses tables that the caller does not own, and two of one name: a rebuild
 * fills temporary tables with their names.
 */
static void
check_read_model_tables(Oid log, ArrayType *tables)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			i;
	int			j;

	deconstruct_array(tables, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &values, &nulls, &count);
	for (i = 0; i < count; i++)
	{
		check_owned_relation(log, nulls[i] ? InvalidOid : DatumGetObjectId(values[i]),
							 "rp", "a table");
		for (j = 0; j < i; j++)
		{
			if (strcmp(get_rel_name(DatumGetObjectId(values[i])),
					   get_rel_name(DatumGetObjectId(values[j]))) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_TABLE),
						 errmsg("two tables of the projection are named \"%s\"",
								get_rel_name(DatumGetObjectId(values[i]))),
						 errdetail("A rebuild fills tables of these names, without their schemas.")));
		}
	}
}

/*
 * Refuses an unknown on_failure, and one that makes no sense for a materialized
 * view.
 */
static void
check_on_failure(text *on_failure, bool refresh)
{
	const char *word = text_to_cstring(on_failure);

	argument_word("on_failure", word, "stop", "park");
	if (refresh && strcmp(word, "park") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a projection that refreshes a view cannot park events"),
				 errdetail("The view is refreshed as a whole, not event by event."),
				 errhint("Leave on_failure at 'stop'.")));
}

/* Refuses a number that is given and out of range. */
static void
check_defined_range(const Definition *definition, DefinitionPart part, const char *name,
					int64 greatest)
{
	if (definition_has(definition, part))
		argument_range(name, DatumGetInt64(definition->parts[part].value), 1,
					   greatest);
}

/* Refuses settings that are wrong by themselves. */
static void
check_settings(const Definition *definition, bool refresh)
{
	const NullableDatum *parts = definition->parts;

	if (definition_has(definition, DEFINE_MODE))
		argument_word("mode", TextDatumGetCString(parts[DEFINE_MODE].value),
					  "sync", "async");
	if (definition_has(definition, DEFINE_ON_FAILURE))
		check_on_failure(DatumGetTextPP(parts[DEFINE_ON_FAILURE].value), refresh);
	check_defined_range(definition, DEFINE_BATCH_SIZE, "batch_size", MAX_BATCH_SIZE);
	check_defined_range(definition, DEFINE_MAX_ATTEMPTS, "max_attempts",
						MAX_MAX_ATTEMPTS);
	if (definition_has(definition, DEFINE_MIN_INTERVAL))
		argument_interval("min_interval",
						  DatumGetIntervalP(parts[DEFINE_MIN_INTERVAL].value), true);
}

/* Refuses what is wrong by itself. */
void
definition_check(const Definition *definition, bool refresh)
{
	const NullableDatum *parts = definition->parts;

	check_settings(definition, refresh);
	if (definition_has(definition, DEFINE_START_POSITION))
		log_sequence_check(definition->log, "start_position",
						   DatumGetInt64(parts[DEFINE_START_POSITION].value));
	if (definition_has(definition, DEFINE_CATEGORY))
		categories_check(DatumGetArrayTypeP(parts[DEFINE_CATEGORY].value));
	if (definition_has(definition, DEFINE_TYPES))
		event_type_check_filter(definition->log,
								DatumGetArrayTypeP(parts[DEFINE_TYPES].value));
	if (definition_has(definition, DEFINE_EVENT_QUERY))
		query_check_filter(definition->log, parts[DEFINE_EVENT_QUERY].value, "event_query");
	if (definition_has(definition, DEFINE_TABLES))
		check_read_model_tables(definition->log,
								DatumGetArrayTypeP(parts[DEFINE_TABLES].value));
	if (definition_has(definition, DEFINE_REFRESH))
		check_owned_relation(definition->log,
							 DatumGetObjectId(parts[DEFINE_REFRESH].value), "m",
							 "a materialized view");
}

/* Returns the name of a schema of handlers.  Errors: it does not exist. */
static char *
handler_schema_name(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("the schema of handlers does not exist"),
				 errdetail("There is no schema with oid %u.", schema)));
	return name;
}

/* Returns the part as it is stored: handlers and schemas by name. */
Datum
definition_stored(const Definition *definition, DefinitionPart part, char *null)
{
	Datum		value = definition->parts[part].value;

	*null = definition_has(definition, part) ? ' ' : 'n';
	if (*null == 'n')
		return (Datum) 0;
	if (part == DEFINE_HANDLER)
		return CStringGetTextDatum(user_function_name(projection_find_handler(definition->log,
																			  TextDatumGetCString(value))));
	if (part == DEFINE_HANDLER_SCHEMA)
		return CStringGetTextDatum(handler_schema_name(DatumGetObjectId(value)));
	return value;
}
