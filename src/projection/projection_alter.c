/*-------------------------------------------------------------------------
 *
 * projection_alter.c
 *		es_alter_projection(): new settings, new code, another filter; and
 *		es_rename_projection().
 *
 * Code and filter take effect from the checkpoint on.  The read model stays as it is
 * until a rebuild.  These steps make sure that each event is handled by either the old
 * definition or the new one:
 *
 *	1. the lock of rebuilds is taken, so that none goes on with the old;
 *	2. the row is locked, so that no batch is running.  A runner reads the row under
 *	   its lock, and applies the whole batch by what it has read;
 *	3. for a sync projection the log is locked, too: open appends are waited for, and
 *	   later ones come after the change.  An invalidation of es_events makes sessions
 *	   read the row again (projection_sync.c);
 *	4. the row is changed, and checked as that of a new projection.
 *
 * A change of settings takes the lock of the row only.  A new name takes all of the
 * locks, since a sync projection gets a trigger of that name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "base/base.h"
#include "base/role.h"
#include "failure/failure.h"
#include "projection/projection_define.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_alter_projection);
PG_FUNCTION_INFO_V1(es_rename_projection);

/* Arguments of es_alter_projection, in their order. */
static const DefinitionPart alter_parts[] = {
	DEFINE_NAME, DEFINE_MODE, DEFINE_BATCH_SIZE, DEFINE_ON_FAILURE,
	DEFINE_MAX_ATTEMPTS, DEFINE_MIN_INTERVAL, DEFINE_HANDLER, DEFINE_QUERY,
	DEFINE_HANDLER_SCHEMA, DEFINE_CATEGORY, DEFINE_TYPES, DEFINE_START_POSITION
};

/* The numbers of some of them, and of those that follow. */
enum
{
	ARG_CATEGORY = 9, ARG_TYPES, ARG_ALL_CATEGORIES = 12, ARG_ALL_TYPES,
	ARG_EVENT_QUERY, ARG_ANY_EVENT
};

/* What is to be changed. */
typedef struct Alteration
{
	Definition	definition;
	bool		all_categories;
	bool		all_types;
	bool		any_event;
	bool		code;			/* is there new code? */
	bool		filter;			/* another filter? */
} Alteration;

/* Takes the arguments. */
static void
take_alteration(Alteration *alteration, FunctionCallInfo fcinfo)
{
	const Definition *definition = &alteration->definition;

	argument_not_null(fcinfo, 0, "name");
	definition_take(&alteration->definition, fcinfo, alter_parts,
					lengthof(alter_parts));
	alteration->all_categories = argument_is_true(fcinfo, ARG_ALL_CATEGORIES);
	alteration->all_types = argument_is_true(fcinfo, ARG_ALL_TYPES);
	alteration->any_event = argument_is_true(fcinfo, ARG_ANY_EVENT);
	alteration->definition.parts[DEFINE_EVENT_QUERY] = fcinfo->args[ARG_EVENT_QUERY];
	argument_list_or_all(fcinfo, ARG_CATEGORY, "category", ARG_ALL_CATEGORIES,
						 "all_categories");
	argument_list_or_all(fcinfo, ARG_TYPES, "types", ARG_ALL_TYPES, "all_types");
	argument_list_or_all(fcinfo, ARG_EVENT_QUERY, "event_query", ARG_ANY_EVENT, "any_event");
	alteration->code = definition_count_kinds(definition) > 0;
	alteration->filter = alteration->all_categories || alteration->all_types ||
		alteration->any_event || definition_has(definition, DEFINE_CATEGORY) ||
		definition_has(definition, DEFINE_TYPES) ||
		definition_has(definition, DEFINE_EVENT_QUERY);
}

/* Refuses what is wrong by itself, or for this projection. */
static void
check_alteration(const Alteration *alteration, const Projection *projection)
{
	int			kinds = definition_count_kinds(&alteration->definition);

	if (kinds > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a projection has exactly one of handler, query, handler_schema and refresh"),
				 errdetail("%d of them are given.", kinds)));
	if (kinds > 0 && projection->kind == PROJECTION_REFRESH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" refreshes a view and has no code",
						projection->name),
				 errdetail("Its materialized view is what the projection is made of."),
				 errhint("Drop it and create one with a handler or a query.")));
	definition_check(&alteration->definition,
					 projection->kind == PROJECTION_REFRESH);
}

/* Changes settings; null leaves one as it is. */
static void
update_settings(const Alteration *alteration, const Projection *projection)
{
	static const DefinitionPart parts[5] = {DEFINE_BATCH_SIZE, DEFINE_ON_FAILURE,
	DEFINE_MAX_ATTEMPTS, DEFINE_MIN_INTERVAL, DEFINE_START_POSITION};
	Oid			types[5] = {INT8OID, TEXTOID, INT8OID, INTERVALOID, INT8OID};
	Datum		values[5];
	char		nulls[5];
	int			i;

	for (i = 0; i < 5; i++)
		values[i] = definition_stored(&alteration->definition, parts[i], &nulls[i]);
	projection_update(projection,
					  "batch_size = coalesce($2, batch_size),"
					  " on_failure = coalesce($3, on_failure),"
					  " max_attempts = coalesce($4, max_attempts),"
					  " min_interval = coalesce($5, min_interval),"
					  " start_position = coalesce($6, start_position),"
					  " next_attempt = NULL",
					  5, types, values, nulls);
}

/* Changes the filter. */
static void
update_filter(const Alteration *alteration, const Projection *projection)
{
	Oid			types[6] = {BOOLOID, TEXTARRAYOID, BOOLOID, TEXTARRAYOID, BOOLOID, JSONBOID};
	Datum		values[6];
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = BoolGetDatum(alteration->all_categories);
	values[1] = definition_stored(&alteration->definition, DEFINE_CATEGORY, &nulls[1]);
	values[2] = BoolGetDatum(alteration->all_types);
	values[3] = definition_stored(&alteration->definition, DEFINE_TYPES, &nulls[3]);
	values[4] = BoolGetDatum(alteration->any_event);
	values[5] = definition_stored(&alteration->definition, DEFINE_EVENT_QUERY, &nulls[5]);
	projection_update(projection,
					  "categories = CASE WHEN NOT $2 THEN coalesce($3, categories) END,"
					  " types = CASE WHEN NOT $4 THEN coalesce($5, types) END,"
					  " event_query = CASE WHEN NOT $6 THEN coalesce($7, event_query) END",
					  6, types, values, nulls);
}

/* Changes the code, and with it what it is run with. */
static void
update_code(const Alteration *alteration, const Projection *projection)
{
	const Definition *definition = &alteration->definition;
	Oid			types[5] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID};
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	values[0] = definition_stored(definition, DEFINE_HANDLER, &nulls[0]);
	values[1] = definition_stored(definition, DEFINE_QUERY, &nulls[1]);
	values[2] = definition_stored(definition, DEFINE_HANDLER_SCHEMA, &nulls[2]);
	values[3] = CStringGetTextDatum(run_as_session_path(projection->log));
	values[4] = settings_of_session();
	projection_update(projection,
					  "handler = $2, query = $3, handler_schema = $4,"
					  " search_path = $5, settings = $6",
					  5, types, values, nulls);
}

/* Says what the change does not reach, if the projection has handled anything. */
static void
notice_handled_events(const Projection *projection, int64 position)
{
	if (position <= projection->start_position ||
		projection->kind == PROJECTION_REFRESH)
		return;
	ereport(NOTICE,
			(errmsg("projection \"%s\" is changed for events after position " INT64_FORMAT,
					projection->name, position),
			 errdetail("What it has handled before stays as it is."),
			 projection->tables == NIL ? 0 :
			 errhint("es_rebuild_projection() rebuilds it from all events after position " INT64_FORMAT ".",
					 projection->start_position)));
}

/*
 * Changes code and filter: steps 3 and 4 of the header.  What was wrong is forgotten,
 * as its cause may be gone.  Returns the projection as it is now.
 */
static Projection *
change_definition(const Alteration *alteration, Projection *projection)
{
	bool		locked = projection_lock_sync(projection, "to change sync projection");
	bool		failed = projection->failed;

	if (alteration->code)
		update_code(alteration, projection);
	if (alteration->filter)
		update_filter(alteration, projection);
	projection_update(projection, "name = name" PROJECTION_GOES_ON, 0, NULL, NULL,
					  NULL);
	failure_hasten(projection_failures(projection));
	projection = projection_lock_own(projection->log, projection->name);
	projection_check_definition(projection);
	if (locked)
		CacheInvalidateRelcacheByRelid(projection->log);
	notice_handled_events(projection, locked ?
						  projection_last_position(projection->log) :
						  projection->position);
	if (failed && projection->sync)
		projection_begin_sync(projection);
	return projection;
}

/*
 * es_alter_projection(name, mode, batch_size, on_failure, max_attempts, min_interval,
 * handler, query, handler_schema, category, types, start_position, all_categories,
 * all_types, event_query, any_event): changes what is not null.
 */
Datum
es_alter_projection(PG_FUNCTION_ARGS)
{
	Alteration	alteration;
	const Definition *definition = &alteration.definition;
	Projection *projection;

	take_alteration(&alteration, fcinfo);
	/* in this order, as in a rebuild */
	if (alteration.code || alteration.filter ||
		definition_has(definition, DEFINE_START_POSITION))
		(void) rebuild_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	projection = projection_begin_change(fcinfo, "es_alter_projection()",
										 projection_lock_own);
	check_alteration(&alteration, projection);
	update_settings(&alteration, projection);
	if (alteration.code || alteration.filter)
		projection = change_definition(&alteration, projection);
	if (definition_has(definition, DEFINE_MODE))
		projection_change_mode(projection,
							   TextDatumGetCString(definition->parts[DEFINE_MODE].value));
	SPI_finish();
	PG_RETURN_VOID();
}

/* Gives the projection's rows the new name. */
static void
rename_projection_rows(const Projection *projection, const char *new_name)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(projection->name),
	CStringGetTextDatum(new_name)};

	(void) own_sql_run(projection->log,
					   "UPDATE @extschema@.es_projections SET name = $2 WHERE name = $1",
					   2, types, values, NULL);
	(void) own_sql_run(projection->log,
					   "UPDATE @extschema@.es_failures SET projection = $2"
					   " WHERE projection = $1", 2, types, values, NULL);
	(void) own_sql_run(projection->log,
					   "UPDATE @extschema@.es_skipped_events SET projection = $2"
					   " WHERE projection = $1", 2, types, values, NULL);
}

/*
 * es_rename_projection(name, new_name): all that belongs to it goes with it.
 */
Datum
es_rename_projection(PG_FUNCTION_ARGS)
{
	Projection *projection;
	char	   *new_name;
	bool		sync;

	argument_not_null(fcinfo, 0, "name");
	argument_not_null(fcinfo, 1, "new_name");
	new_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	argument_name("a projection", new_name, NAMEDATALEN - 1);
	/* in this order, as in a rebuild */
	(void) rebuild_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	projection = projection_begin_change(fcinfo, "es_rename_projection()",
										 projection_lock_own);
	projection_check_name_is_free(projection->log, new_name);
	sync = projection_lock_sync(projection, "to rename sync projection");
	rename_projection_rows(projection, new_name);
	if (sync)
		projection_rename_trigger(projection, new_name);
	SPI_finish();
	PG_RETURN_VOID();
}
