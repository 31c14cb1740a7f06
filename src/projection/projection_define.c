/*-------------------------------------------------------------------------
 *
 * projection_define.c
 *		Making, pausing and dropping projections: es_create_projection,
 *		es_pause_projection, es_resume_projection, es_drop_projection.
 *
 * A definition that is wrong is refused (projection_definition.c).  Each function
 * locks the projection's row first, so that it waits for the batch that is
 * running, if there is one.  How a projection becomes sync is in projection_mode.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "notify/notify.h"
#include "failure/failure.h"
#include "retention/rule.h"
#include "projection/projection_define.h"
#include "projection/projection_failure.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_create_projection);
PG_FUNCTION_INFO_V1(es_pause_projection);
PG_FUNCTION_INFO_V1(es_resume_projection);
PG_FUNCTION_INFO_V1(es_drop_projection);

/* What pauses a projection, which may be paused already. */
#define SET_PAUSED	"state = 'paused', paused_at = coalesce(paused_at, clock_timestamp())"

/* Arguments of es_create_projection, in their order. */
static const DefinitionPart create_parts[] = {
	DEFINE_NAME, DEFINE_HANDLER, DEFINE_QUERY, DEFINE_HANDLER_SCHEMA,
	DEFINE_REFRESH, DEFINE_TABLES, DEFINE_CATEGORY, DEFINE_TYPES, DEFINE_MODE,
	DEFINE_START_POSITION, DEFINE_BATCH_SIZE, DEFINE_ON_FAILURE,
	DEFINE_MAX_ATTEMPTS, DEFINE_MIN_INTERVAL, DEFINE_EVENT_QUERY
};

/* Those that must not be null. */
static const struct
{
	DefinitionPart part;
	const char *name;
}			required[] = {
	{DEFINE_NAME, "name"}, {DEFINE_TABLES, "tables"}, {DEFINE_MODE, "mode"},
	{DEFINE_BATCH_SIZE, "batch_size"}, {DEFINE_ON_FAILURE, "on_failure"},
	{DEFINE_MAX_ATTEMPTS, "max_attempts"},
	{DEFINE_MIN_INTERVAL, "min_interval"}
};

/* Refuses a definition that is wrong by itself. */
static void
check_new_definition(FunctionCallInfo fcinfo, const Definition *definition)
{
	int			i;

	for (i = 0; i < (int) lengthof(required); i++)
		argument_not_null(fcinfo, required[i].part, required[i].name);
	argument_name("a projection",
				  TextDatumGetCString(definition->parts[DEFINE_NAME].value),
				  NAMEDATALEN - 1);
	if (definition_count_kinds(definition) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a projection has exactly one of handler, query, handler_schema and refresh"),
				 errdetail("%d of them are given.",
						   definition_count_kinds(definition))));
	definition_check(definition, definition_has(definition, DEFINE_REFRESH));
}

/* Stores the row of a projection, which is async so far. */
static void
insert_projection(const Definition *definition)
{
	Oid			types[18] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGCLASSOID,
		REGCLASSARRAYOID, TEXTARRAYOID, TEXTARRAYOID, OIDOID, INT8OID, INT8OID,
	TEXTOID, INT8OID, INTERVALOID, JSONBOID, TEXTOID, INT8OID, TEXTARRAYOID};
	Datum		values[18];
	char		nulls[18];
	int64		horizon = horizon_now(definition->log);
	int			i;

	for (i = 0; i < DEFINE_PARTS; i++)
		values[i] = definition_stored(definition, i, &nulls[i]);
	values[DEFINE_MODE] = ObjectIdGetDatum(GetUserId());	/* $9: the owner */
	if (!definition_has(definition, DEFINE_START_POSITION))
		values[DEFINE_START_POSITION] = Int64GetDatum(horizon);
	nulls[DEFINE_START_POSITION] = ' ';
	values[15] = CStringGetTextDatum(run_as_session_path(definition->log));
	values[16] = Int64GetDatum(horizon);
	values[17] = settings_of_session();
	nulls[15] = nulls[16] = nulls[17] = ' ';
	(void) own_sql_run(definition->log,
					   "INSERT INTO @extschema@.es_projections (name, handler,"
					   " query, handler_schema, refresh, tables, categories, types,"
					   " mode, owner, start_position, position, batch_size,"
					   " on_failure, max_attempts, min_interval, event_query,"
					   " search_path, history, settings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8,"
					   " 'async', $9, $10, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
					   18, types, values, nulls);
}

/* Refuses a name that is taken. */
void
projection_check_name_is_free(Oid log, const char *name)
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
	Definition	definition;
	Projection *projection;
	char	   *name;

	PreventCommandIfReadOnly("es_create_projection()");
	retention_keep_out();
	projection_check_outside_handler("es_create_projection()");
	definition_take(&definition, fcinfo, create_parts, lengthof(create_parts));
	check_new_definition(fcinfo, &definition);
	name = TextDatumGetCString(definition.parts[DEFINE_NAME].value);
	SPI_connect();
	projection_check_name_is_free(definition.log, name);
	insert_projection(&definition);
	projection = projection_lock_own(definition.log, name);
	projection_check_definition(projection);
	if (strcmp(TextDatumGetCString(definition.parts[DEFINE_MODE].value), "sync") == 0)
	{
		isolation_check("es_create_projection()");
		projection_begin_sync(projection);
	}
	else
		autostart_want_after_commit();
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Opens SPI and the projection that the first argument names.  lock: finds it, if the
 * caller may change it so.  The change may make it due.
 */
Projection *
projection_begin_change(FunctionCallInfo fcinfo, const char *function,
						Projection *(*lock) (Oid log, const char *name))
{
	argument_not_null(fcinfo, 0, "name");
	PreventCommandIfReadOnly(function);
	projection_check_outside_handler(function);
	isolation_check(function);
	autostart_want_after_commit();
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
	Projection *projection = projection_begin_change(fcinfo, "es_pause_projection()", projection_lock_operated);

	if (projection->sync && projection->running)
		leave_sync(projection, SET_PAUSED ", position = $2");
	else
		projection_update(projection, SET_PAUSED, 0, NULL, NULL, NULL);
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
	Projection *projection = projection_begin_change(fcinfo, "es_resume_projection()", projection_lock_operated);

	if (!projection->running || projection->message != NULL)
		projection_update(projection, "state = 'running', paused_at = NULL" PROJECTION_NO_ERROR,
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
void
projection_change_mode(Projection *projection, const char *mode)
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

/*
 * es_drop_projection(name): its tables stay.
 */
Datum
es_drop_projection(PG_FUNCTION_ARGS)
{
	Projection *projection;
	Oid			type = TEXTOID;
	Datum		value = PG_GETARG_DATUM(0);

	argument_not_null(fcinfo, 0, "name");
	/* in this order, as in a rebuild */
	(void) rebuild_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	projection = projection_begin_change(fcinfo, "es_drop_projection()", projection_lock_own);
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
