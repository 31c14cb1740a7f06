/*-------------------------------------------------------------------------
 *
 * run_as.c
 *		Running statements as somebody else: our own ones as the owner of the
 *		log, a projection's as its owner.
 *
 * Who runs, with which search_path, is changed together and put back
 * together.  An error puts both back when its (sub)transaction is aborted.
 * Settings that a statement changes by SET are put back, too.
 *
 * Nobody can get at the caller's rights from inside: the role cannot be
 * changed back, and one who may not act as the caller is also kept from
 * leaving behind what would run later as the caller (deferred triggers,
 * temporary tables), as in the server's logical replication.  Not every minor
 * release of the server keeps him from making temporary types, which take the
 * place of pg_catalog's for the caller: a hook does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/base.h"

/* Stands for the extension's schema in our own statements. */
#define SCHEMA_MARK "@extschema@"

static object_access_hook_type next_access = NULL;

/*
 * Is the type, which was made right now, in a temporary schema?  Those of rows
 * and their arrays come with tables, which the server refuses or needs itself,
 * as for REFRESH.
 */
static bool
is_temporary_type(Oid type)
{
	Relation	types = table_open(TypeRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_type_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(type));
	scan = systable_beginscan(types, TypeOidIndexId, true, SnapshotSelf, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_type form = (Form_pg_type) GETSTRUCT(tuple);

		result = form->typtype != TYPTYPE_COMPOSITE &&
			form->typtype != TYPTYPE_BASE &&
			isAnyTempNamespace(form->typnamespace);
	}
	systable_endscan(scan);
	table_close(types, AccessShareLock);
	return result;
}

/* Refuses temporary types where temporary tables are refused. */
static void
refuse_temporary_type(ObjectAccessType access, Oid class, Oid object,
					  int subid, void *arg)
{
	if (next_access != NULL)
		next_access(access, class, object, subid, arg);
	if (access == OAT_POST_CREATE && class == TypeRelationId &&
		InSecurityRestrictedOperation() && is_temporary_type(object))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot create temporary type within security-restricted operation"),
				 errdetail("It would take the place of other types of its name in the rest of the session."),
				 errhint("Create the type in a schema.")));
}

/*
 * Installs the hook.
 */
void
run_as_init(void)
{
	next_access = object_access_hook;
	object_access_hook = refuse_temporary_type;
}

/*
 * Becomes the user until run_as_end.  restricted: keep one who may not act as
 * the caller from leaving anything behind.
 */
RunAs
run_as(Oid userid, bool restricted, const char *search_path)
{
	RunAs		saved;
	int			security;

	GetUserIdAndSecContext(&saved.userid, &saved.security);
	security = saved.security | SECURITY_LOCAL_USERID_CHANGE;
	if (restricted && !compat_can_become(userid, saved.userid))
		security |= SECURITY_RESTRICTED_OPERATION;
	SetUserIdAndSecContext(userid, security);
	saved.guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", search_path, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/* Puts back what run_as changed. */
void
run_as_end(RunAs saved)
{
	AtEOXact_GUC(false, saved.guc_level);
	SetUserIdAndSecContext(saved.userid, saved.security);
}

/* The owner of a relation. */
Oid
run_as_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The search_path of the session, to be kept for later.  Without pg_temp, which
 * is put where it belongs then.
 */
char *
run_as_session_path(void)
{
	char	   *path = pstrdup(namespace_search_path);
	StringInfoData kept;
	List	   *names;
	ListCell   *cell;

	initStringInfo(&kept);
	if (!SplitIdentifierString(path, ',', &names))
		names = NIL;
	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), "pg_temp") == 0)
			continue;
		appendStringInfo(&kept, "%s%s", kept.len > 0 ? ", " : "",
						 quote_identifier(lfirst(cell)));
	}
	if (kept.len == 0)
		appendStringInfoString(&kept, "pg_catalog");
	return kept.data;
}

/*
 * A statement whose plan is kept, by a hash of its text.  log: that of
 * own_sql_run, or 0.
 */
typedef struct Statement
{
	uint64		hash;
	Oid			log;
	char	   *sql;
	SPIPlanPtr	plan;
} Statement;

static HTAB *statements = NULL;

/*
 * The entry of a statement; NULL if another one has its hash.
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

/* Makes the plan of a statement and keeps it, if there is an entry for it. */
static SPIPlanPtr
make_plan(Statement *statement, const char *sql, int nargs, Oid *types,
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
 * The plan of a statement, which is made when it is run for the first time and
 * kept for the session.  options: as for SPI_prepare_cursor.  Only for
 * statements of which there are few; SPI must be connected.
 */
SPIPlanPtr
own_sql_cached_plan(const char *sql, int nargs, Oid *types, int options)
{
	Statement  *statement = get_statement(InvalidOid, sql);

	return statement != NULL && statement->plan != NULL ? statement->plan :
		make_plan(statement, sql, nargs, types, options);
}

/* The same of a statement of ours; @extschema@ is replaced. */
static SPIPlanPtr
own_plan(Oid log, const char *sql, int nargs, Oid *types)
{
	Statement  *statement = get_statement(log, sql);
	const char *schema;
	Datum		query;

	if (statement != NULL && statement->plan != NULL)
		return statement->plan;
	schema = quote_identifier(get_namespace_name(get_rel_namespace(log)));
	query = DirectFunctionCall3Coll(replace_text, C_COLLATION_OID,
									CStringGetTextDatum(sql),
									CStringGetTextDatum(SCHEMA_MARK),
									CStringGetTextDatum(schema));
	return make_plan(statement, TextDatumGetCString(query), nargs, types, 0);
}

/*
 * Runs one statement of ours as the owner of the log.  read_only: with the
 * active snapshot, else with a new one.
 */
static uint64
run_statement(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			  const char *nulls, bool read_only)
{
	RunAs		saved = run_as(run_as_owner(log), false,
							   "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result;

	result = SPI_execute_plan(own_plan(log, sql, nargs, types), values, nulls,
							  read_only, 0);
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
	return SPI_processed;
}

/*
 * Runs one statement of ours as the owner of the log; SPI must be connected,
 * and has the result.  In the statement @extschema@ is our schema.  nulls: as
 * for SPI, NULL if there are none.  Returns the number of rows.
 */
uint64
own_sql_run(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	return run_statement(log, sql, nargs, types, values, nulls, false);
}

/*
 * The same for a query, which sees what the active snapshot sees.
 */
uint64
own_sql_select(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			   const char *nulls)
{
	return run_statement(log, sql, nargs, types, values, nulls, true);
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
 * The same of a text, in the present memory context; NULL for null.
 */
char *
own_sql_text(int column)
{
	Datum		value = own_sql_value(column);

	return value ? TextDatumGetCString(value) : NULL;
}
