/*-------------------------------------------------------------------------
 *
 * rebuild_tables.c
 *		The new tables of a rebuild, which are temporary and like the old ones.
 *
 * All is done by SQL, as the projection's owner.  A new table has the columns,
 * defaults, checks and indexes of the old one, and the names of its
 * constraints.  It has no foreign keys and no triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "base/base.h"
#include "base/role.h"
#include "projection/rebuild.h"

/* So many dead rows, and twice as many as live ones, are too many. */
#define COMPACT_AFTER		1000

/* Where the live rows are meanwhile. */
#define COMPACT_TABLE		"pg_temp.es_rebuild_rows"

/* Becomes the projection's owner, with row security off. */
RunAs
rebuild_run_as(const Projection *projection, bool restricted,
			   const char *search_path)
{
	RunAs		saved = projection_run_as(projection, restricted, search_path);

	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/* Runs a statement as the owner; returns the number of rows. */
static uint64
run_owner_statement(const Projection *projection, const char *sql,
					bool restricted)
{
	RunAs		saved = rebuild_run_as(projection, restricted,
									   "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	MemoryContextSwitchTo(context);
	run_as_end(saved);
	return SPI_processed;
}

/* Runs a statement that may call what the owner has written. */
uint64
rebuild_run_sql(const Projection *projection, const char *sql)
{
	return run_owner_statement(projection, sql, true);
}

/* Runs a statement that makes a temporary table, and calls nothing. */
static void
create_temporary_table(const Projection *projection, const char *sql)
{
	(void) run_owner_statement(projection, sql, false);
}

/* Returns the text that a statement selects; NULL for null. */
static char *
select_owner_text(const Projection *projection, const char *sql)
{
	(void) rebuild_run_sql(projection, sql);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Returns the condition that t and s have the same primary key, or the same key
 * of another unique index without nulls; NULL if the table has none.
 */
static char *
same_key_condition(const Projection *projection, Oid relid)
{
	return select_owner_text(projection,
							 psprintf("SELECT string_agg(format('t.%%1$I OPERATOR(%%2$I.%%3$s) s.%%1$I',"
									  " attname, nspname, oprname), ' AND ')"
									  " FROM (SELECT indrelid, indkey, indclass, indnkeyatts"
									  " FROM pg_index i JOIN pg_class c ON c.oid = indexrelid"
									  " JOIN pg_am m ON m.oid = relam AND amname = 'btree'"
									  " WHERE indrelid = %u AND indisunique AND indisvalid"
									  " AND indimmediate AND indpred IS NULL AND indexprs IS NULL"
									  " AND NOT EXISTS (SELECT FROM pg_attribute a"
									  " WHERE a.attrelid = indrelid AND NOT a.attnotnull"
									  " AND a.attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1]))"
									  " ORDER BY indisprimary DESC, indexrelid LIMIT 1) i"
									  " CROSS JOIN generate_series(0, indnkeyatts - 1) nr"
									  " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[nr]"
									  " JOIN pg_opclass c ON c.oid = indclass[nr]"
									  " JOIN pg_amop ON amopfamily = opcfamily AND amopstrategy = 3"
									  " AND amoplefttype = opcintype AND amoprighttype = opcintype"
									  " JOIN pg_operator o ON o.oid = amopopr"
									  " JOIN pg_namespace n ON n.oid = oprnamespace",
									  relid));
}

/*
 * Returns the columns that are not generated, each after a prefix, in their
 * order.
 */
static char *
column_list(const Projection *projection, Oid relid, const char *prefix)
{
	return select_owner_text(projection,
							 psprintf("SELECT string_agg('%s' || quote_ident(attname), ', '"
									  " ORDER BY attnum) FROM pg_attribute"
									  " WHERE attrelid = %u AND attnum > 0"
									  " AND NOT attisdropped AND attgenerated = ''",
									  prefix, relid));
}

/* Looks up what the statements on a table need. */
static RebuildTable *
describe_table(const Projection *projection, Oid relid)
{
	RebuildTable *table = palloc0(sizeof(RebuildTable));

	table->relid = relid;
	table->old = projection_relation_name(relid);
	table->new = psprintf("pg_temp.%s", quote_identifier(get_rel_name(relid)));
	table->columns = column_list(projection, relid, "");
	table->new_values = column_list(projection, relid, "s.");
	table->same_key = same_key_condition(projection, relid);
	return table;
}

static List *
describe_tables(const Projection *projection)
{
	List	   *tables = NIL;
	ListCell   *cell;

	foreach(cell, projection->tables)
		tables = lappend(tables, describe_table(projection, lfirst_oid(cell)));
	return tables;
}

/*
 * Gives the constraints of the new table the names that they have in the old
 * one, as a statement may name them; at first names that are not in use.
 */
static void
rename_constraints(const Projection *projection, const RebuildTable *table)
{
	const char *names[] = {"'es_rebuild_' || n.oid", "o.conname"};
	int			i;

	for (i = 0; i < (int) lengthof(names); i++)
	{
		char	   *sql =
		select_owner_text(projection,
						  psprintf("WITH c AS (SELECT conrelid, oid, conname,"
								   " pg_get_constraintdef(oid) AS def, row_number() OVER"
								   " (PARTITION BY conrelid, pg_get_constraintdef(oid)"
								   " ORDER BY oid) AS nr"
								   " FROM pg_constraint WHERE conrelid IN (%u, %u)"
								   " AND contype IN ('p', 'u', 'x'))"
								   " SELECT string_agg(format("
								   "'ALTER TABLE %%s RENAME CONSTRAINT %%I TO %%I',"
								   " %s, n.conname, %s), '; ')"
								   " FROM c o JOIN c n USING (def, nr)"
								   " WHERE o.conrelid = %u AND n.conrelid = %u",
								   table->relid, table->new_relid,
								   quote_literal_cstr(table->new), names[i],
								   table->relid, table->new_relid));

		if (sql != NULL)
			(void) rebuild_run_sql(projection, sql);
	}
}

/*
 * Makes a temporary table for each of the projection's tables.  Cached plans are
 * discarded: those that were made before these tables would go on using the old
 * ones.
 */
List *
rebuild_make_tables(const Projection *projection)
{
	List	   *tables = describe_tables(projection);
	ListCell   *cell;

	foreach(cell, tables)
	{
		RebuildTable *table = lfirst(cell);

		create_temporary_table(projection,
							   psprintf("CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING ALL)",
										table->new, table->old));
		table->new_relid =
			get_relname_relid(get_rel_name(table->relid),
							  LookupExplicitNamespace("pg_temp", false));
		rename_constraints(projection, table);
	}
	ResetPlanCache();
	return tables;
}

/*
 * Rewrites a new table.  Row versions that the transaction itself has updated or
 * deleted cannot be removed before it ends, and each access to a row that is
 * updated often would pass all its earlier versions.
 */
static void
compact_table(const Projection *projection, RebuildTable *table)
{
	create_temporary_table(projection,
						   psprintf("CREATE TEMPORARY TABLE %s AS SELECT %s FROM %s",
									COMPACT_TABLE, table->columns, table->new));
	(void) rebuild_run_sql(projection, psprintf("TRUNCATE %s", table->new));
	table->rows =
		rebuild_run_sql(projection,
						psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
								 " SELECT %s FROM %s", table->new, table->columns,
								 table->columns, COMPACT_TABLE));
	(void) rebuild_run_sql(projection, "DROP TABLE " COMPACT_TABLE);
}

/* Returns how many rows of the table this transaction has made dead. */
static int64
count_dead(const RebuildTable *table)
{
	Datum		relid = ObjectIdGetDatum(table->new_relid);

	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, relid)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, relid));
}

/* Rewrites those of the new tables that have too many dead rows. */
void
rebuild_compact_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		RebuildTable *table = lfirst(cell);

		if (count_dead(table) > COMPACT_AFTER + 2 * table->rows)
			compact_table(projection, table);
	}
}

/* Drops the new tables. */
void
rebuild_drop_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
		(void) rebuild_run_sql(projection,
							   psprintf("DROP TABLE %s", ((RebuildTable *) lfirst(cell))->new));
}

/*
 * Moves a table's sequences: the new one has numbered its rows by sequences of
 * its own, after which those of the old one go on.
 */
static void
move_table_sequences(const Projection *projection, const RebuildTable *table)
{
	char	   *sql =
	select_owner_text(projection,
					  psprintf("SELECT string_agg(format("
							   "'SELECT setval(%%1$L, max(%%2$I)) FROM %%3$s"
							   " HAVING max(%%2$I) > (SELECT last_value FROM %%1$s)',"
							   " pg_get_serial_sequence(%s, attname), attname, %s), '; ')"
							   " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
							   " AND NOT attisdropped AND attidentity <> ''",
							   quote_literal_cstr(table->old),
							   quote_literal_cstr(table->old), table->relid));

	if (sql != NULL)
		(void) rebuild_run_sql(projection, sql);
}

/* Moves the sequences of the old tables' identity columns after the new rows. */
void
rebuild_move_sequences(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
		move_table_sequences(projection, lfirst(cell));
}
