/*-------------------------------------------------------------------------
 *
 * projection.c
 *		A projection: its row in es_projections, and its owner.
 *
 * The row is read and written as the owner of the log.  Whatever changes a
 * projection, or handles events for it, locks the row first: by FOR UPDATE, or
 * by FOR UPDATE SKIP LOCKED where it can go on with another projection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "base/wait.h"
#include "failure/failure.h"
#include "projection/projection.h"

/*
 * The columns of es_projections that are read, in this order.
 */
enum
{
	LOAD_OWNER = 1, LOAD_SEARCH_PATH, LOAD_HANDLER, LOAD_QUERY,
	LOAD_HANDLER_SCHEMA, LOAD_REFRESH, LOAD_TABLES, LOAD_CATEGORIES, LOAD_TYPES,
	LOAD_MODE, LOAD_STATE, LOAD_ON_FAILURE, LOAD_START_POSITION,
	LOAD_POSITION, LOAD_HISTORY, LOAD_BATCH_SIZE, LOAD_MAX_ATTEMPTS,
	LOAD_ATTEMPTS, LOAD_BATCH_LIMIT, LOAD_SUSPECT_UPTO, LOAD_NAME,
	LOAD_MESSAGE, LOAD_CREATED_AT, LOAD_SETTINGS,
	LOAD_ATTEMPTS_USED, LOAD_EVENT_QUERY
};

#define LOAD_SQL \
	"SELECT owner, search_path, handler, query, handler_schema, refresh," \
	" tables, categories, types, mode, state, on_failure, start_position," \
	" position, history, batch_size, max_attempts, attempts, batch_limit," \
	" suspect_upto, name, message, created_at, settings, attempts_used," \
	" event_query" \
	" FROM @extschema@.es_projections "

static bool
loaded_column_is(int column, const char *word)
{
	return strcmp(own_sql_text(column), word) == 0;
}

/* Takes the one of the four kinds that the row is of. */
static void
load_kind(Projection *projection)
{
	if ((projection->target = own_sql_text(LOAD_HANDLER)) != NULL)
		projection->kind = PROJECTION_HANDLER;
	else if ((projection->target = own_sql_text(LOAD_QUERY)) != NULL)
		projection->kind = PROJECTION_QUERY;
	else if ((projection->target = own_sql_text(LOAD_HANDLER_SCHEMA)) != NULL)
		projection->kind = PROJECTION_SCHEMA;
	else
	{
		projection->kind = PROJECTION_REFRESH;
		projection->refresh = DatumGetObjectId(own_sql_value(LOAD_REFRESH));
	}
}

/* Returns the set of a column, any for null. */
static TextSet
load_text_set(int column)
{
	Datum		array = own_sql_value(column);

	return text_set_make(array ? DatumGetArrayTypePCopy(array) : NULL);
}

/* Takes categories, types and the query, the filter. */
static void
load_filter(Projection *projection)
{
	Datum		query = own_sql_value(LOAD_EVENT_QUERY);

	projection->categories = load_text_set(LOAD_CATEGORIES);
	projection->types = load_text_set(LOAD_TYPES);
	if (query != (Datum) 0)
		projection->event_query = query_read(DatumGetJsonbPCopy(query));
}

static void
load_read_model(Projection *projection)
{
	Datum	   *tables;
	int			count;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(own_sql_value(LOAD_TABLES)), REGCLASSOID,
					  sizeof(Oid), true, TYPALIGN_INT, &tables, NULL, &count);
	for (i = 0; i < count; i++)
		projection->tables = lappend_oid(projection->tables,
										 DatumGetObjectId(tables[i]));
}

/* Makes a projection of the row that was just read. */
static Projection *
make_projection(Oid log)
{
	Projection *projection = palloc0(sizeof(Projection));

	projection->log = log;
	projection->name = own_sql_text(LOAD_NAME);
	projection->created_at = DatumGetTimestampTz(own_sql_value(LOAD_CREATED_AT));
	projection->owner = *(Role *) DatumGetPointer(own_sql_value(LOAD_OWNER));
	projection->search_path = own_sql_text(LOAD_SEARCH_PATH);
	projection->settings = settings_read(own_sql_value(LOAD_SETTINGS));
	load_kind(projection);
	load_filter(projection);
	load_read_model(projection);
	projection->sync = loaded_column_is(LOAD_MODE, "sync");
	projection->running = loaded_column_is(LOAD_STATE, "running");
	projection->failed = loaded_column_is(LOAD_STATE, "failed");
	projection->message = own_sql_text(LOAD_MESSAGE);
	projection->park = loaded_column_is(LOAD_ON_FAILURE, "park");
	projection->start_position = DatumGetInt64(own_sql_value(LOAD_START_POSITION));
	projection->position = DatumGetInt64(own_sql_value(LOAD_POSITION));
	projection->history = DatumGetInt64(own_sql_value(LOAD_HISTORY));
	projection->batch_size = DatumGetInt32(own_sql_value(LOAD_BATCH_SIZE));
	projection->max_attempts = DatumGetInt32(own_sql_value(LOAD_MAX_ATTEMPTS));
	projection->attempts = DatumGetInt32(own_sql_value(LOAD_ATTEMPTS));
	projection->attempts_used = DatumGetInt32(own_sql_value(LOAD_ATTEMPTS_USED));
	projection->batch_limit = DatumGetInt32(own_sql_value(LOAD_BATCH_LIMIT));
	projection->suspect_upto = DatumGetInt64(own_sql_value(LOAD_SUSPECT_UPTO));
	return projection;
}

/* Reads the first projection that fits the rest of the statement. */
Projection *
projection_select(Oid log, const char *rest, int nargs, Oid *types,
				  Datum *values, const char *nulls)
{
	Projection *projection;
	char	   *sql = psprintf(LOAD_SQL "%s", rest);

	if (own_sql_run(log, sql, nargs, types, values, nulls) == 0)
		return NULL;
	projection = make_projection(log);
	SPI_freetuptable(SPI_tuptable);
	return projection;
}

/*
 * Lets the statements that look for events be planned once, as that takes longer than
 * to run them, and by the indexes of the log alone, as the plan lasts while it grows.
 * es_projections is scanned at a cost that would have the plan compiled each time.
 */
int
projection_begin_lasting_plan(void)
{
	int			level = settings_begin_by_index();

	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Reads the projection of this name; returns NULL if there is none. */
Projection *
projection_find(Oid log, const char *name, const char *locking)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	return projection_select(log, psprintf("WHERE name = $1 %s", locking),
							 1, &type, &value, NULL);
}

/* Refuses a name that no projection has. */
static void
check_projection_found(const Projection *projection, const char *name)
{
	if (projection == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", name),
				 errdetail("There is no projection of this name in this database."),
				 errhint("es_projection_status lists the projections.")));
}

/* Reads the projection of this name; an error if there is none. */
Projection *
projection_get(Oid log, const char *name, const char *locking)
{
	Projection *projection;
	WaitContext context;

	wait_context_begin(&context, "projection", name, -1);
	projection = projection_find(log, name, locking);
	/* another one may have got the name while its row was waited for */
	if (projection == NULL && locking[0] != '\0')
		projection = projection_find(log, name, locking);
	wait_context_end(&context);
	check_projection_found(projection, name);
	return projection;
}

/* Reads the projection as the active snapshot sees it. */
Projection *
projection_get_visible(Oid log, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);
	Projection *projection = NULL;

	if (own_sql_select(log, LOAD_SQL "WHERE name = $1", 1, &type, &value,
					   NULL) > 0)
	{
		projection = make_projection(log);
		SPI_freetuptable(SPI_tuptable);
	}
	check_projection_found(projection, name);
	return projection;
}

bool
projection_is_own(const Projection *projection)
{
	Oid			owner = role_find(&projection->owner);

	return superuser() ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner));
}

/* Refuses a projection that the caller does not own. */
static void
check_projection_owner(const Projection *projection)
{
	if (!projection_is_own(projection))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", projection->name),
				 errdetail("Its owner is \"%s\".", role_name(&projection->owner)),
				 errhint("Ask the owner, or become a member of that role.")));
}

/* Refuses a projection that the caller neither owns nor operates. */
void
projection_check_operator(const Projection *projection)
{
	if (!operator_is_caller(projection->log))
		check_projection_owner(projection);
}

/* Returns what stands for the projection in failure.c. */
FailureOwner
projection_failures(const Projection *projection)
{
	FailureOwner owner = {projection->log, "projection", projection->name, -1};

	return owner;
}

/* Returns the owner's role; an error if it does not exist any more. */
Oid
projection_owner_role(const Projection *projection)
{
	Oid			owner = role_find(&projection->owner);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of projection \"%s\" does not exist",
						projection->name),
				 errdetail("%s", role_missing_detail(&projection->owner)),
				 errhint("%s", role_missing_hint(&projection->owner,
												 "drop the projection and create it again, with its position as start_position"))));
	return owner;
}

/* Becomes the projection's owner, with its settings. */
RunAs
projection_run_as(const Projection *projection, bool restricted,
				  const char *search_path)
{
	RunAs		saved = run_as(projection_owner_role(projection), restricted,
							   search_path);

	settings_apply(projection->settings);
	return saved;
}

/* Reads the caller's projection and locks its row. */
Projection *
projection_lock_own(Oid log, const char *name)
{
	Projection *projection = projection_get(log, name, "FOR UPDATE");

	check_projection_owner(projection);
	return projection;
}

/* The same of one that the caller owns or operates. */
Projection *
projection_lock_operated(Oid log, const char *name)
{
	Projection *projection = projection_get(log, name, "FOR UPDATE");

	projection_check_operator(projection);
	return projection;
}

/* Changes columns of the projection's row; $1 is its name. */
void
projection_update(const Projection *projection, const char *set, int nargs,
				  const Oid *types, const Datum *values, const char *nulls)
{
	Oid			all_types[PROJECTION_MAX_VALUES + 1] = {TEXTOID};
	Datum		all_values[PROJECTION_MAX_VALUES + 1];
	char		all_nulls[PROJECTION_MAX_VALUES + 1] = {' '};
	int			i;

	Assert(nargs <= PROJECTION_MAX_VALUES);
	all_values[0] = CStringGetTextDatum(projection->name);
	for (i = 0; i < nargs; i++)
	{
		all_types[i + 1] = types[i];
		all_values[i + 1] = values[i];
		all_nulls[i + 1] = nulls ? nulls[i] : ' ';
	}
	(void) own_sql_run(projection->log,
					   psprintf("UPDATE @extschema@.es_projections SET %s WHERE name = $1",
								set),
					   nargs + 1, all_types, all_values, all_nulls);
}

/* Returns the position of the last stored event. */
int64
projection_last_position(Oid log)
{
	int64		position;

	(void) own_sql_run(log,
					   "SELECT coalesce(max(position), 0) FROM @extschema@.es_events",
					   0, NULL, NULL, NULL);
	position = DatumGetInt64(own_sql_value(1));
	SPI_freetuptable(SPI_tuptable);
	return position;
}

/* Returns the quoted name of a relation with its schema. */
char *
projection_relation_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a relation of the projection does not exist"),
				 errdetail("There is no relation with oid %u any more.", relid),
				 errhint("Drop the projection and create it again.")));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  name);
}
