/*-------------------------------------------------------------------------
 *
 * projection.c
 *		A projection: its row in es_projections, and the events it gets.
 *
 * The row is read and written as the owner of the log.  Who changes it, or
 * handles events for it, locks it first: by FOR UPDATE, or by FOR UPDATE SKIP
 * LOCKED where others can go on with another projection.
 *
 * Events are read as the projection's owner, with that role's privileges and
 * row security, up to the horizon of the snapshot that reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"

/*
 * The columns of es_projections that are read, in this order.
 */
enum
{
	LOAD_OWNER = 1, LOAD_SEARCH_PATH, LOAD_HANDLER, LOAD_QUERY,
	LOAD_HANDLER_SCHEMA, LOAD_REFRESH, LOAD_TABLES, LOAD_CATEGORY, LOAD_TYPES,
	LOAD_MODE, LOAD_STATE, LOAD_ON_FAILURE, LOAD_START_POSITION,
	LOAD_POSITION, LOAD_HISTORY, LOAD_BATCH_SIZE, LOAD_MAX_ATTEMPTS,
	LOAD_ATTEMPTS, LOAD_BATCH_LIMIT, LOAD_SUSPECT_UPTO, LOAD_NAME,
	LOAD_MESSAGE, LOAD_CREATED_AT, LOAD_OWNER_NAME
};

#define LOAD_SQL \
	"SELECT (SELECT r.oid FROM pg_roles r WHERE r.rolname = owner)," \
	" search_path, handler, query, handler_schema, refresh," \
	" tables, category, types, mode, state, on_failure, start_position," \
	" position, history, batch_size, max_attempts, attempts, batch_limit," \
	" suspect_upto, name, message, created_at, owner FROM @extschema@.es_projections "

static bool
loaded_is(int column, const char *word)
{
	return strcmp(own_sql_text(column), word) == 0;
}

/* Takes the one of the four kinds that the row has. */
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

/* Takes category and types, the filter. */
static void
load_filter(Projection *projection)
{
	Datum		types = own_sql_value(LOAD_TYPES);

	if (own_sql_value(LOAD_CATEGORY))
		projection->category = DatumGetTextPCopy(own_sql_value(LOAD_CATEGORY));
	if (!types)
		return;
	projection->types = DatumGetArrayTypePCopy(types);
	deconstruct_array(projection->types, TEXTOID, -1, false, TYPALIGN_INT,
					  &projection->type_names, NULL, &projection->type_count);
}

static void
load_tables(Projection *projection)
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

/*
 * Makes a projection of the row that was just read, in the current memory
 * context.
 */
static Projection *
make_projection(Oid log)
{
	Projection *projection = palloc0(sizeof(Projection));

	projection->log = log;
	projection->name = own_sql_text(LOAD_NAME);
	projection->created_at = DatumGetTimestampTz(own_sql_value(LOAD_CREATED_AT));
	projection->owner = DatumGetObjectId(own_sql_value(LOAD_OWNER));
	projection->owner_name = pstrdup(NameStr(*DatumGetName(own_sql_value(LOAD_OWNER_NAME))));
	projection->search_path = own_sql_text(LOAD_SEARCH_PATH);
	load_kind(projection);
	load_filter(projection);
	load_tables(projection);
	projection->sync = loaded_is(LOAD_MODE, "sync");
	projection->running = loaded_is(LOAD_STATE, "running");
	projection->failed = loaded_is(LOAD_STATE, "failed");
	projection->message = own_sql_text(LOAD_MESSAGE);
	projection->park = loaded_is(LOAD_ON_FAILURE, "park");
	projection->start_position = DatumGetInt64(own_sql_value(LOAD_START_POSITION));
	projection->position = DatumGetInt64(own_sql_value(LOAD_POSITION));
	projection->history = DatumGetInt64(own_sql_value(LOAD_HISTORY));
	projection->batch_size = DatumGetInt32(own_sql_value(LOAD_BATCH_SIZE));
	projection->max_attempts = DatumGetInt32(own_sql_value(LOAD_MAX_ATTEMPTS));
	projection->attempts = DatumGetInt32(own_sql_value(LOAD_ATTEMPTS));
	projection->batch_limit = DatumGetInt32(own_sql_value(LOAD_BATCH_LIMIT));
	projection->suspect_upto = DatumGetInt64(own_sql_value(LOAD_SUSPECT_UPTO));
	return projection;
}

/*
 * Reads the first projection that fits the rest of the statement, in which
 * $1, $2 ... are the values; NULL if there is none.
 */
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
 * Reads the projection of this name; NULL if there is none.  locking: what
 * follows in the statement, such as FOR UPDATE.
 */
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
check_found(const Projection *projection, const char *name)
{
	if (projection == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", name),
				 errdetail("There is no projection of this name in this database."),
				 errhint("es_projection_status lists the projections.")));
}

/*
 * Reads the projection of this name; an error if there is none.
 */
Projection *
projection_get(Oid log, const char *name, const char *locking)
{
	Projection *projection = projection_find(log, name, locking);

	check_found(projection, name);
	return projection;
}

/*
 * Reads the projection as the active snapshot sees it; an error if it sees
 * none.
 */
Projection *
projection_peek(Oid log, const char *name)
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
	check_found(projection, name);
	return projection;
}

/* The tag of an advisory lock of the projection's rebuild. */
void
projection_rebuild_tag(LOCKTAG *tag, const char *name, uint32 number,
					   int class)
{
	uint32		hash = DatumGetUInt32(DirectFunctionCall1Coll(hashtext,
															  C_COLLATION_OID,
															  CStringGetTextDatum(name)));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, hash, number, class);
}

/*
 * Keeps others from rebuilding the projection until the transaction ends;
 * false if somebody does and it is not to wait.  To be taken before the row.
 */
bool
projection_lock_rebuild(const char *name, bool wait)
{
	LOCKTAG		tag;

	projection_rebuild_tag(&tag, name, 0, REBUILD_LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Refuses a projection that is not the caller's.
 */
void
projection_check_owner(const Projection *projection)
{
	if (!superuser() &&
		(!OidIsValid(projection->owner) ||
		 !has_privs_of_role(GetUserId(), projection->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", projection->name),
				 errdetail("Its owner is \"%s\".", projection->owner_name),
				 errhint("Ask the owner, or become a member of that role.")));
}

/* Whose failures those of the projection are. */
FailureOwner
projection_failures(const Projection *projection)
{
	FailureOwner owner = {projection->log, "projection", projection->name, -1};

	return owner;
}

/* The owner's role; an error if there is none of this name any more. */
static Oid
projection_owner(const Projection *projection)
{
	if (!OidIsValid(projection->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of projection \"%s\" does not exist",
						projection->name),
				 errdetail("There is no role \"%s\".", projection->owner_name),
				 errhint("Create the role, or drop the projection and create it again.")));
	return projection->owner;
}

/*
 * Becomes the projection's owner, as run_as does.
 */
RunAs
projection_run_as(const Projection *projection, bool restricted,
				  const char *search_path)
{
	return run_as(projection_owner(projection), restricted, search_path);
}

/*
 * Reads the caller's projection and locks its row: no runner has it, and none
 * gets it until the transaction ends.
 */
Projection *
projection_own(Oid log, const char *name)
{
	Projection *projection = projection_get(log, name, "FOR UPDATE");

	projection_check_owner(projection);
	return projection;
}

/*
 * Changes columns of the projection's row.  set: the statement's SET list, in
 * which $2, $3 ... are the values; at most PROJECTION_MAX_VALUES.
 */
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

/*
 * Does the projection get events of this stream and type?
 */
bool
projection_wants(const Projection *projection, text *stream, text *type)
{
	int			i;

	if (projection->category != NULL)
	{
		int			length = stream_category_length(stream);

		if (length != (int) VARSIZE_ANY_EXHDR(projection->category) ||
			memcmp(VARDATA_ANY(projection->category), VARDATA_ANY(stream),
				   length) != 0)
			return false;
	}
	if (projection->types == NULL)
		return true;
	for (i = 0; i < projection->type_count; i++)
	{
		if (stream_equal(DatumGetTextPP(projection->type_names[i]), type))
			return true;
	}
	return false;
}

/*
 * The position of the last event that is stored.
 */
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

/* The name of a relation with its schema, as SQL wants it. */
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

/*
 * Reads the next events that the projection wants: after its checkpoint, not
 * beyond upto, at most limit, into batch->events.  batch->upto is the
 * checkpoint when these are handled: nothing else up to there is wanted.  A
 * batch is either of the projection's history or not.
 */
void
projection_read(const Projection *projection, Snapshot snapshot, int64 upto,
				int limit, EventBatch *batch)
{
	EventSource source = {
		.log = projection->log,
		.reader = projection_owner(projection),
		.category = projection->category,
		.types = projection->types
	};

	batch->history = projection->rebuilding ||
		projection->position < projection->history;
	if (!projection->rebuilding && batch->history)
		upto = Min(upto, projection->history);
	event_reader_read(&source, snapshot, projection->position, upto, limit, batch);
}
