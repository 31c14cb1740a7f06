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
 * temporary tables), as in the server's logical replication.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "eventstore.h"

/* Stands for the extension's schema in our own statements. */
#define SCHEMA_MARK "@extschema@"

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
 * Runs one statement of ours as the owner of the log; SPI must be connected,
 * and has the result.  In the statement @extschema@ is our schema.  nulls: as
 * for SPI, NULL if there are none.  Returns the number of rows.
 */
uint64
run_own_sql(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(log)));
	Datum		query = DirectFunctionCall3Coll(replace_text, C_COLLATION_OID,
												CStringGetTextDatum(sql),
												CStringGetTextDatum(SCHEMA_MARK),
												CStringGetTextDatum(schema));
	RunAs		saved = run_as(run_as_owner(log), false,
							   "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result;

	result = SPI_execute_with_args(TextDatumGetCString(query), nargs, types,
								   values, nulls, false, 0);
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
	return SPI_processed;
}
