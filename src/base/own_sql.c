/*-------------------------------------------------------------------------
 *
 * own_sql.c
 *		SQL statements on the extension's own tables, by SPI.
 *
 * A statement runs as the owner of the log, with a search_path of pg_catalog
 * alone.  Its plan is made once in a session and kept.  The server parses a plan's
 * text again when something of it has changed, so a text that names the schema
 * serves only as long as the schema has that name: after ALTER SCHEMA ... RENAME
 * the statement gets another plan.  A callback counts changes of schemas.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"

/*
 * A statement whose plan is saved, by a hash of its text.  log: 0 for a statement
 * that does not depend on it.
 */
typedef struct Statement
{
	uint64		hash;
	Oid			log;
	char	   *sql;
	SPIPlanPtr	plan;
	uint64		changes;		/* of schemas, when its schema was compared */
	NameData	schema;			/* that the plan's text names */
} Statement;

static HTAB *statements = NULL;

/* Changes of schemas that this backend has been notified of. */
static uint64 schema_changes = 1;

/* The callback: a schema has changed. */
static void
count_schema_change(Datum arg, int cache, uint32 hash)
{
	schema_changes++;
}

uint64
own_sql_schema_changes(void)
{
	return schema_changes;
}

/*
 * The entry of a statement; NULL if another one has the same hash.
 */
static Statement *
get_statement(Oid log, const char *sql)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) sql,
										   strlen(sql), log);
	Statement  *statement;
	bool		found;

	if (statements == NULL)
	{
		HASHCTL		control = {
			.keysize = sizeof(uint64),
			.entrysize = sizeof(Statement)
		};

		statements = hash_create("eventstore statements", 32, &control,
								 HASH_ELEM | HASH_BLOBS);
		CacheRegisterSyscacheCallback(NAMESPACEOID, count_schema_change,
									  (Datum) 0);
	}
	statement = hash_search(statements, &hash, HASH_ENTER, &found);
	if (!found)
	{
		statement->plan = NULL;
		statement->log = log;
		statement->sql = MemoryContextStrdup(TopMemoryContext, sql);
	}
	return statement->log == log && strcmp(statement->sql, sql) == 0 ?
		statement : NULL;
}

/* Makes the plan of a statement, and saves it if there is an entry for it. */
static SPIPlanPtr
make_statement_plan(Statement *statement, const char *sql, int nargs, Oid *types,
					int options)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, nargs, types, options);

	if (plan == NULL)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), sql);
	if (statement != NULL)
	{
		SPI_keepplan(plan);
		statement->plan = plan;
	}
	return plan;
}

/*
 * The plan of a statement, which is made when it runs for the first time and saved
 * for the session.  SPI must be connected.
 */
SPIPlanPtr
own_sql_cached_plan(const char *sql, int nargs, Oid *types, int options)
{
	Statement  *statement = get_statement(InvalidOid, sql);

	return statement != NULL && statement->plan != NULL ? statement->plan :
		make_statement_plan(statement, sql, nargs, types, options);
}

/*
 * Returns true if the statement has a plan, and its schema still has the name.  A
 * plan that is out of date may be running, and is left.
 */
static bool
has_current_plan(Statement *statement, Oid log)
{
	uint64		changes;
	char	   *schema;

	if (statement == NULL || statement->plan == NULL)
		return false;
	AcceptInvalidationMessages();
	if (statement->changes == schema_changes)
		return true;
	changes = schema_changes;
	schema = get_namespace_name(get_rel_namespace(log));
	if (strcmp(schema, NameStr(statement->schema)) != 0)
		return false;
	statement->changes = changes;
	return true;
}

/* The same for the extension's own statements, in which @extschema@ is replaced. */
static SPIPlanPtr
own_statement_plan(Oid log, const char *sql, int nargs, Oid *types)
{
	Statement  *statement = get_statement(log, sql);
	uint64		changes;
	char	   *schema;
	Datum		query;

	if (has_current_plan(statement, log))
		return statement->plan;
	changes = schema_changes;
	schema = get_namespace_name(get_rel_namespace(log));
	if (statement != NULL)
	{
		statement->plan = NULL;
		statement->changes = changes;
		namestrcpy(&statement->schema, schema);
	}
	query = DirectFunctionCall3Coll(replace_text, C_COLLATION_OID,
									CStringGetTextDatum(sql),
									CStringGetTextDatum(SCHEMA_MARK),
									CStringGetTextDatum(quote_identifier(schema)));
	return make_statement_plan(statement, TextDatumGetCString(query), nargs, types, 0);
}

/*
 * Runs a statement as the owner of the log.  read_only: with the active snapshot,
 * else with a new one.
 */
static uint64
run_statement(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			  const char *nulls, bool read_only)
{
	RunAs		saved = run_as(run_as_owner(log), false,
							   "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result;

	result = SPI_execute_plan(own_statement_plan(log, sql, nargs, types), values, nulls,
							  read_only, 0);
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
	return SPI_processed;
}

/*
 * Runs a statement with a new snapshot.
 */
uint64
own_sql_run(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	return run_statement(log, sql, nargs, types, values, nulls, false);
}

/*
 * Runs a query, which sees what the active snapshot sees.
 */
uint64
own_sql_select(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			   const char *nulls)
{
	return run_statement(log, sql, nargs, types, values, nulls, true);
}

/*
 * Runs a statement that row security does not touch.
 */
uint64
own_sql_run_on_all_rows(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
						const char *nulls, bool latest)
{
	Oid			userid;
	int			security;
	uint64		rows;

	GetUserIdAndSecContext(&userid, &security);
	SetUserIdAndSecContext(userid, security | SECURITY_NOFORCE_RLS);
	rows = run_statement(log, sql, nargs, types, values, nulls, !latest);
	SetUserIdAndSecContext(userid, security);
	return rows;
}

/*
 * The same of one without parameters.
 */
uint64
own_sql_on_all_rows(Oid log, const char *sql, bool latest)
{
	return own_sql_run_on_all_rows(log, sql, 0, NULL, NULL, NULL, latest);
}

/*
 * A column of the first row of the result; 0 for null.
 */
Datum
own_sql_value(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

/*
 * The same of a text, in the current memory context; NULL for null.
 */
char *
own_sql_text(int column)
{
	Datum		value = own_sql_value(column);

	return value ? TextDatumGetCString(value) : NULL;
}
