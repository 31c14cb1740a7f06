/*-------------------------------------------------------------------------
 *
 * projection_define.c
 *		Making, changing and dropping projections: es_create_projection,
 *		es_alter_projection, es_pause_projection, es_resume_projection,
 *		es_drop_projection.
 *
 * A definition that is wrong is refused here, before it is stored, as far as
 * that can be known.  Each function locks the projection's row first, so that
 * it waits for the batch that is running, if there is one.  How a projection
 * becomes sync is in projection_mode.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/base.h"
#include "log/log.h"
#include "type/type.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_create_projection);
PG_FUNCTION_INFO_V1(es_alter_projection);
PG_FUNCTION_INFO_V1(es_pause_projection);
PG_FUNCTION_INFO_V1(es_resume_projection);
PG_FUNCTION_INFO_V1(es_drop_projection);

#define MAX_BATCH_SIZE		1000000
#define MAX_MAX_ATTEMPTS	1000

/* Arguments of es_create_projection, in their order. */
enum
{
	ARG_NAME, ARG_HANDLER, ARG_QUERY, ARG_HANDLER_SCHEMA, ARG_REFRESH,
	ARG_TABLES, ARG_CATEGORY, ARG_TYPES, ARG_MODE, ARG_START_POSITION,
	ARG_BATCH_SIZE, ARG_ON_FAILURE, ARG_MAX_ATTEMPTS, ARG_MIN_INTERVAL
};

static const char *const arg_names[] = {
	"name", "handler", "query", "handler_schema", "refresh", "tables",
	"category", "types", "mode", "start_position", "batch_size", "on_failure",
	"max_attempts", "min_interval"
};

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

/* Refuses a definition that is not of exactly one of the four kinds. */
static void
check_one_kind(FunctionCallInfo fcinfo)
{
	int			given = 0;
	int			arg;

	for (arg = ARG_HANDLER; arg <= ARG_REFRESH; arg++)
		given += PG_ARGISNULL(arg) ? 0 : 1;
	if (given != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a projection has exactly one of handler, query, handler_schema and refresh"),
				 errdetail("%d of them are given.", given)));
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

/*
 * Refuses arguments that are wrong by themselves.
 */
static void
check_definition_arguments(FunctionCallInfo fcinfo, Oid log)
{
	static const int required[] = {
		ARG_NAME, ARG_TABLES, ARG_MODE, ARG_BATCH_SIZE, ARG_ON_FAILURE,
		ARG_MAX_ATTEMPTS, ARG_MIN_INTERVAL
	};
	int			i;

	for (i = 0; i < (int) lengthof(required); i++)
		argument_not_null(fcinfo, required[i], arg_names[required[i]]);
	argument_name("a projection",
				  text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)), NAMEDATALEN - 1);
	check_one_kind(fcinfo);
	argument_word("mode", text_to_cstring(PG_GETARG_TEXT_PP(ARG_MODE)),
				  "sync", "async");
	check_on_failure(PG_GETARG_TEXT_PP(ARG_ON_FAILURE),
					 !PG_ARGISNULL(ARG_REFRESH));
	argument_range("batch_size", PG_GETARG_INT64(ARG_BATCH_SIZE), 1,
				   MAX_BATCH_SIZE);
	argument_range("max_attempts", PG_GETARG_INT64(ARG_MAX_ATTEMPTS), 1,
				   MAX_MAX_ATTEMPTS);
	if (!PG_ARGISNULL(ARG_START_POSITION))
		log_sequence_check(log, "start_position",
						   PG_GETARG_INT64(ARG_START_POSITION));
	argument_interval("min_interval", PG_GETARG_INTERVAL_P(ARG_MIN_INTERVAL),
					  true);
	if (!PG_ARGISNULL(ARG_CATEGORY))
		event_check_category(PG_GETARG_TEXT_PP(ARG_CATEGORY));
	if (!PG_ARGISNULL(ARG_TYPES))
		event_type_check_filter(log, PG_GETARG_ARRAYTYPE_P(ARG_TYPES));
	check_read_model_tables(log, PG_GETARG_ARRAYTYPE_P(ARG_TABLES));
	if (!PG_ARGISNULL(ARG_REFRESH))
		check_owned_relation(log, PG_GETARG_OID(ARG_REFRESH), "m",
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

/* Returns the argument as it is stored: handlers and schemas by name. */
static Datum
stored_argument(FunctionCallInfo fcinfo, Oid log, int arg)
{
	if (PG_ARGISNULL(arg))
		return (Datum) 0;
	if (arg == ARG_HANDLER)
		return CStringGetTextDatum(user_function_name(projection_find_handler(log,
																			  text_to_cstring(PG_GETARG_TEXT_PP(arg)))));
	if (arg == ARG_HANDLER_SCHEMA)
		return CStringGetTextDatum(handler_schema_name(PG_GETARG_OID(arg)));
	return PG_GETARG_DATUM(arg);
}

/* Stores the row of a projection, which is async so far. */
static void
insert_projection(FunctionCallInfo fcinfo, Oid log)
{
	Oid			types[17] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGCLASSOID,
		REGCLASSARRAYOID, TEXTOID, TEXTARRAYOID, NAMEOID, INT8OID, INT8OID,
	TEXTOID, INT8OID, INTERVALOID, TEXTOID, INT8OID, TEXTARRAYOID};
	Datum		values[17];
	char		nulls[17];
	int64		horizon = horizon_now(log);
	int			i;

	for (i = 0; i <= ARG_MIN_INTERVAL; i++)
	{
		values[i] = stored_argument(fcinfo, log, i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[ARG_MODE] = DirectFunctionCall1(namein,	/* $9: the owner */
										   CStringGetDatum(GetUserNameFromId(GetUserId(), false)));
	if (PG_ARGISNULL(ARG_START_POSITION))
		values[ARG_START_POSITION] = Int64GetDatum(horizon);
	nulls[ARG_START_POSITION] = ' ';
	values[14] = CStringGetTextDatum(run_as_session_path());
	values[15] = Int64GetDatum(horizon);
	values[16] = settings_of_session();
	nulls[14] = nulls[15] = nulls[16] = ' ';
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_projections (name, handler,"
					   " query, handler_schema, refresh, tables, category, types,"
					   " mode, owner, start_position, position, batch_size,"
					   " on_failure, max_attempts, min_interval, search_path,"
					   " history, settings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8,"
					   " 'async', $9, $10, $10, $11, $12, $13, $14, $15, $16, $17)",
					   17, types, values, nulls);
}

/* Refuses a name that is taken. */
static void
check_name_is_free(Oid log, const char *name)
{
	if (projection_find(log, name, "") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("projection \"%s\" already exists", name),
				 errdetail("There is a projection of this name in this database."),
				 errhint("es_alter_projection() changes it, es_drop_projection() drops it.")));
}

/*
 * es_create_projection(...): makes a projection; a sync one catches up with
 * the log first.
 */
Datum
es_create_projection(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Projection *projection;
	char	   *name;

	PreventCommandIfReadOnly("es_create_projection()");
	projection_check_outside_handler("es_create_projection()");
	check_definition_arguments(fcinfo, log);
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	SPI_connect();
	check_name_is_free(log, name);
	insert_projection(fcinfo, log);
	projection = projection_lock_own(log, name);
	projection_check_definition(projection);
	if (strcmp(text_to_cstring(PG_GETARG_TEXT_PP(ARG_MODE)), "sync") == 0)
	{
		isolation_check("es_create_projection()");
		projection_begin_sync(projection);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Opens SPI and the projection that the first argument names.  lock: finds it, if the
 * caller may change it so.
 */
static Projection *
begin_projection_change(FunctionCallInfo fcinfo, const char *function,
						Projection *(*lock) (Oid log, const char *name))
{
	argument_not_null(fcinfo, ARG_NAME, arg_names[ARG_NAME]);
	PreventCommandIfReadOnly(function);
	projection_check_outside_handler(function);
	isolation_check(function);
	SPI_connect();
	return lock(log_relid(fcinfo->flinfo->fn_oid),
				text_to_cstring(PG_GETARG_TEXT_PP(0)));
}

/* Ends being sync, and writes the row; in set, $2 is the checkpoint. */
static void
leave_sync(Projection *projection, const char *set)
{
	Oid			type = INT8OID;
	Datum		value;

	projection_end_sync(projection);
	value = Int64GetDatum(projection->position);
	projection_update(projection, set, 1, &type, &value, NULL);
}

/*
 * es_pause_projection(name): until it is resumed the projection gets no events.
 */
Datum
es_pause_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = begin_projection_change(fcinfo, "es_pause_projection()", projection_lock_operated);

	if (projection->sync && projection->running)
		leave_sync(projection, "state = 'paused', position = $2");
	else
		projection_update(projection, "state = 'paused'", 0, NULL, NULL, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_resume_projection(name): goes on at once where the projection was paused, has
 * failed or waits, and clears its errors.
 */
Datum
es_resume_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = begin_projection_change(fcinfo, "es_resume_projection()", projection_lock_operated);

	if (!projection->running || projection->message != NULL)
		projection_update(projection, "state = 'running'" PROJECTION_NO_ERROR,
						  0, NULL, NULL, NULL);
	projection->batch_limit = 0;
	if (!projection->running && projection->sync)
	{
		projection->running = true;
		projection_begin_sync(projection);
	}
	failure_hasten(projection_failures(projection));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Changes the mode.  A projection that is paused or failed gets or loses its
 * trigger only when it is resumed.
 */
static void
change_mode(Projection *projection, const char *mode)
{
	bool		sync = strcmp(mode, "sync") == 0;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(mode);

	if (sync == projection->sync)
		return;
	if (sync)
		projection_check_sync(projection);
	if (!projection->running)
		projection_update(projection, "mode = $2", 1, &type, &value, NULL);
	else if (sync)
		projection_begin_sync(projection);
	else
		leave_sync(projection, "mode = 'async', position = $2");
}

/* Refuses new settings that are wrong by themselves. */
static void
check_new_settings(FunctionCallInfo fcinfo, const Projection *projection)
{
	if (!PG_ARGISNULL(1))
		argument_word("mode", text_to_cstring(PG_GETARG_TEXT_PP(1)), "sync",
					  "async");
	if (!PG_ARGISNULL(2))
		argument_range("batch_size", PG_GETARG_INT64(2), 1, MAX_BATCH_SIZE);
	if (!PG_ARGISNULL(3))
		check_on_failure(PG_GETARG_TEXT_PP(3),
						 projection->kind == PROJECTION_REFRESH);
	if (!PG_ARGISNULL(4))
		argument_range("max_attempts", PG_GETARG_INT64(4), 1, MAX_MAX_ATTEMPTS);
	if (!PG_ARGISNULL(5))
		argument_interval("min_interval", PG_GETARG_INTERVAL_P(5), true);
}

/*
 * es_alter_projection(name, mode, batch_size, on_failure, max_attempts,
 * min_interval): changes what is not null.
 */
Datum
es_alter_projection(PG_FUNCTION_ARGS)
{
	Oid			types[4] = {INT8OID, TEXTOID, INT8OID, INTERVALOID};
	Datum		values[4];
	char		nulls[4];
	Projection *projection;
	int			i;

	projection = begin_projection_change(fcinfo, "es_alter_projection()", projection_lock_own);
	check_new_settings(fcinfo, projection);
	for (i = 0; i < 4; i++)
	{
		nulls[i] = PG_ARGISNULL(i + 2) ? 'n' : ' ';
		values[i] = PG_ARGISNULL(i + 2) ? (Datum) 0 : PG_GETARG_DATUM(i + 2);
	}
	projection_update(projection,
					  "batch_size = coalesce($2, batch_size),"
					  " on_failure = coalesce($3, on_failure),"
					  " max_attempts = coalesce($4, max_attempts),"
					  " min_interval = coalesce($5, min_interval), next_attempt = NULL",
					  4, types, values, nulls);
	if (!PG_ARGISNULL(1))
		change_mode(projection, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_drop_projection(name): its tables stay.
 */
Datum
es_drop_projection(PG_FUNCTION_ARGS)
{
	Projection *projection;
	Oid			type = TEXTOID;
	Datum		value = PG_GETARG_DATUM(0);

	argument_not_null(fcinfo, ARG_NAME, arg_names[ARG_NAME]);
	/* in this order, as in a rebuild */
	(void) rebuild_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	projection = begin_projection_change(fcinfo, "es_drop_projection()", projection_lock_own);
	projection_end_trigger(projection);
	failure_remove_after(projection_failures(projection), 0);
	projection_forget_skipped(projection);
	(void) own_sql_run(projection->log,
					   "DELETE FROM @extschema@.es_projections WHERE name = $1",
					   1, &type, &value, NULL);
	projection_drop_left_triggers(projection->log);
	SPI_finish();
	PG_RETURN_VOID();
}
