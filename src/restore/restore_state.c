/*-------------------------------------------------------------------------
 *
 * restore_state.c
 *		Closes a store whose tables miss what was added to them, and opens it.
 *
 * Closed, each table of the extension has the restrictive policy es_closed, which raises
 * an error.  One that had no row security has it enabled, and the policy
 * es_closed_rows, which lets rows pass to the other one: without any permissive policy
 * the server would show none, without an error.
 *
 * Row security is enabled or disabled as the definitions of the dump say.  A table of
 * which they say nothing gets it disabled when the store is opened, unless it has
 * other policies.  With these, all rows cannot have been meant to be visible.
 *
 * Locks.  Sessions that use these tables take their locks in any order: pg_restore -j loads
 * one of them while the trigger of that load looks at es_events.  So all are locked before
 * the first is changed, all at once or none (table_lock.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "base/role.h"
#include "base/wait.h"
#include "restore/restore.h"

/* The tables of the extension. */
#define OWN_TABLES \
	" FROM pg_extension x" \
	" JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid" \
	" AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass" \
	" JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'" \
	" JOIN pg_namespace n ON n.oid = c.relnamespace"

/* Those that can be closed. */
#define CLOSED_TABLES OWN_TABLES " AND c.relname <> 'es_user_definitions'"

#define HAS_POLICY(name) \
	"EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = '" name "')"

#define TABLES_IN_ORDER " ORDER BY c.oid, s.n"

static const char close_statements[] =
"SELECT s.statement" CLOSED_TABLES
" CROSS JOIN LATERAL (VALUES"
" (1, format('CREATE POLICY es_closed ON %s AS RESTRICTIVE USING (%I.es_closed())', c.oid::regclass, n.nspname)),"
" (2, CASE WHEN NOT c.relrowsecurity THEN format('CREATE POLICY es_closed_rows ON %s USING (true)', c.oid::regclass) END),"
" (3, CASE WHEN NOT c.relrowsecurity THEN format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.oid::regclass) END)) s (n, statement)"
" WHERE x.extname = 'eventstore' AND s.statement IS NOT NULL AND NOT " HAS_POLICY("es_closed")
TABLES_IN_ORDER;

static const char open_statements[] =
"SELECT s.statement" CLOSED_TABLES
" CROSS JOIN LATERAL (VALUES"
" (1, CASE WHEN " HAS_POLICY("es_closed_rows") " AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname NOT IN ('es_closed', 'es_closed_rows'))"
" THEN format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', c.oid::regclass) END),"
" (2, CASE WHEN " HAS_POLICY("es_closed_rows") " THEN format('DROP POLICY es_closed_rows ON %s', c.oid::regclass) END),"
" (3, CASE WHEN " HAS_POLICY("es_closed") " THEN format('DROP POLICY es_closed ON %s', c.oid::regclass) END)) s (n, statement)"
" WHERE x.extname = 'eventstore' AND s.statement IS NOT NULL"
TABLES_IN_ORDER;

static const char tables[] = "SELECT c.oid" CLOSED_TABLES " WHERE x.extname = 'eventstore'";

/* Triggers of ours that fire in some sessions only; a disabled one is meant to be. */
static const char guard_statements[] =
"SELECT s.statement" OWN_TABLES
" JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'R')"
" JOIN pg_depend f ON f.refclassid = 'pg_extension'::regclass AND f.refobjid = x.oid AND f.deptype = 'e'"
" AND f.classid = 'pg_proc'::regclass AND f.objid = t.tgfoid"
" CROSS JOIN LATERAL (VALUES (t.tgname, format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', c.oid::regclass, t.tgname))) s (n, statement)"
" WHERE x.extname = 'eventstore'"
TABLES_IN_ORDER;

/* Runs DDL as the owner of the log. */
static void
run_ddl(Oid log, const char *sql)
{
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
}

/* Runs the statements that a query returns; returns how many. */
static int
run_statements_of(Oid log, const char *query)
{
	uint64		count = own_sql_run(log, query, 0, NULL, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;
	uint64		i;

	for (i = 0; i < count; i++)
		run_ddl(log, SPI_getvalue(rows->vals[i], rows->tupdesc, 1));
	return (int) count;
}

/* Locks all tables against everybody else. */
static void
lock_tables(Oid log, const char *purpose)
{
	uint64		count = own_sql_run(log, tables, 0, NULL, NULL, NULL);
	PatientLock lock = {.mode = AccessExclusiveLock,.purpose = purpose};
	uint64		i;

	for (i = 0; i < count; i++)
	{
		bool		isnull;

		lock.relids = lappend_oid(lock.relids,
								  DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
																 SPI_tuptable->tupdesc,
																 1, &isnull)));
	}
	table_lock_patiently(&lock);
}

void
restore_close(Oid log)
{
	if (own_sql_run(log, close_statements, 0, NULL, NULL, NULL) == 0)
		return;
	lock_tables(log, "to close the store");
	(void) run_statements_of(log, close_statements);
}

/* Sets a table's row security, and drops the policy that would have it disabled. */
static void
set_row_security(Oid log, const WantedRowSecurity *wanted)
{
	char	   *table = own_table_quoted_name(wanted->relid);

	run_ddl(log, psprintf("DROP POLICY IF EXISTS es_closed_rows ON %s", table));
	run_ddl(log, psprintf("ALTER TABLE %s %s ROW LEVEL SECURITY", table,
						  wanted->enable ? "ENABLE" : "DISABLE"));
}

/*
 * Opens the store.  wanted: row security of tables, a WantedRowSecurity each.
 */
void
restore_open(Oid log, List *wanted)
{
	ListCell   *cell;

	lock_tables(log, "to open the store");
	foreach(cell, wanted)
		set_row_security(log, lfirst(cell));
	(void) run_statements_of(log, open_statements);
}

int
restore_guards(Oid log)
{
	return run_statements_of(log, guard_statements);
}
