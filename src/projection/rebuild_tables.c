/*-------------------------------------------------------------------------
 *
 * rebuild_tables.c
 *		The tables of a rebuild: the new ones, which are temporary and like the
 *		old ones, and the swap.
 *
 * All is done by SQL, as the projection's owner.  A new table has the columns,
 * defaults, checks and indexes of the old one, and names of its constraints;
 * foreign keys and triggers it has not.
 *
 * The swap makes the old rows like the new ones, in all tables by one
 * statement: foreign keys are checked, and act, when it is over, so that the
 * order of tables does not matter.  Changed rows are deleted and inserted
 * again.  Where foreign keys refer to a table they are updated instead, as
 * a key may act on what is deleted, and rows that are inserted elsewhere
 * wait for what is deleted.  Updated one by one, rows may exchange what must be
 * unique, and fail; then
 *
 *	1. all of it is undone, and tried again with deletions where no key acts;
 *	2. if that is not enough, rows that are gone are deleted, then changed
 *	   rows while foreign keys sleep in that statement, and then all of them are
 *	   checked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "projection/rebuild.h"

/* So many dead rows, and twice as many as live ones, are too many. */
#define COMPACT_AFTER		1000

/* Where live rows are kept meanwhile. */
#define COMPACT_TABLE		"pg_temp.es_rebuild_rows"

/* A table of the read model. */
typedef struct Table
{
	Oid			relid;
	Oid			new_relid;
	char	   *old;			/* names, as SQL wants them */
	char	   *new;
	char	   *columns;		/* that can be inserted */
	char	   *changes;		/* assignments from s, for UPDATE */
	char	   *same_key;		/* t and s have one key; NULL: there is none */
	bool		update;			/* changed rows, else delete and insert them */
	bool		acts;			/* foreign keys would act on what is deleted */
	int64		rows;			/* in the new one, when it was compacted last */
} Table;

/*
 * Runs a statement as the projection's owner, under whose tables' policies it
 * fails rather than leaves rows out.  restricted: as in run_as.
 */
static uint64
run_owner_statement(const Projection *projection, const char *sql, bool restricted)
{
	RunAs		saved = projection_run_as(projection, restricted,
										  "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result;

	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	MemoryContextSwitchTo(context);
	run_as_end(saved);
	return SPI_processed;
}

/* Runs what may call what the owner has written. */
static uint64
run_sql(const Projection *projection, const char *sql)
{
	return run_owner_statement(projection, sql, true);
}

/* Runs what makes a temporary table, and calls nothing. */
static void
create_table(const Projection *projection, const char *sql)
{
	(void) run_owner_statement(projection, sql, false);
}

/* A text that a statement of run_sql returns; NULL for null. */
static char *
run_text(const Projection *projection, const char *sql)
{
	(void) run_sql(projection, sql);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * The condition that t and s have one primary key, or one of another unique
 * index without nulls; NULL if the table has none.
 */
static char *
key_condition(const Projection *projection, Oid relid)
{
	return run_text(projection,
					psprintf("SELECT string_agg(format('t.%%1$I = s.%%1$I', a.attname), ' AND ')"
							 " FROM (SELECT indrelid, indkey, indnkeyatts FROM pg_index i"
							 " WHERE indrelid = %u AND indisunique AND indisvalid"
							 " AND indimmediate AND indpred IS NULL AND indexprs IS NULL"
							 " AND NOT EXISTS (SELECT FROM pg_attribute a"
							 " WHERE a.attrelid = indrelid AND NOT a.attnotnull"
							 " AND a.attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1]))"
							 " ORDER BY indisprimary DESC, indexrelid LIMIT 1) i"
							 " JOIN pg_attribute a ON a.attrelid = i.indrelid"
							 " AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])",
							 relid));
}

/*
 * Looks up what the statements on a table need.
 */
static Table *
describe_table(const Projection *projection, Oid relid)
{
	Table	   *table = palloc0(sizeof(Table));

	table->relid = relid;
	table->old = projection_relation_name(relid);
	table->new = psprintf("pg_temp.%s", quote_identifier(get_rel_name(relid)));
	table->columns =
		run_text(projection,
				 psprintf("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)"
						  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
						  " AND NOT attisdropped AND attgenerated = ''", relid));
	table->changes =
		run_text(projection,
				 psprintf("SELECT string_agg(format('%%1$I = s.%%1$I', attname), ', ')"
						  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
						  " AND NOT attisdropped AND attgenerated = ''"
						  " AND attidentity <> 'a'", relid));
	table->same_key = key_condition(projection, relid);
	table->update =
		run_sql(projection,
				psprintf("SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = %u",
						 relid)) > 0;
	table->acts =
		run_sql(projection,
				psprintf("SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = %u"
						 " AND confdeltype <> 'a'", relid)) > 0;
	if (table->update && table->same_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s cannot be rebuilt", table->old),
				 errdetail("Foreign keys refer to it, and it has no primary key by which its rows could be kept."),
				 errhint("Give it a primary key.")));
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
 * one, as a statement may name them; first names that nobody has.
 */
static void
rename_constraints(const Projection *projection, const Table *table)
{
	const char *names[] = {"'es_rebuild_' || n.oid", "o.conname"};
	int			i;

	for (i = 0; i < (int) lengthof(names); i++)
	{
		char	   *sql =
		run_text(projection,
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
			(void) run_sql(projection, sql);
	}
}

/*
 * Makes a temporary table for each of the projection's tables.  Plans that
 * know the old ones are made again, as no temporary table of the same name was
 * there when they were made.
 */
List *
rebuild_make_tables(const Projection *projection)
{
	List	   *tables = describe_tables(projection);
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		create_table(projection,
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
 * Rewrites a new table.  What the transaction itself has updated or deleted
 * cannot be removed before its end, and each look at a row that is updated
 * often would pass all that it was before.
 */
static void
compact_table(const Projection *projection, Table *table)
{
	create_table(projection,
				 psprintf("CREATE TEMPORARY TABLE %s AS SELECT %s FROM %s",
						  COMPACT_TABLE, table->columns, table->new));
	(void) run_sql(projection, psprintf("TRUNCATE %s", table->new));
	table->rows =
		run_sql(projection,
				psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
						 " SELECT %s FROM %s", table->new, table->columns,
						 table->columns, COMPACT_TABLE));
	(void) run_sql(projection, "DROP TABLE " COMPACT_TABLE);
}

/* Rows of the table that this transaction has made dead. */
static int64
count_dead(const Table *table)
{
	Datum		relid = ObjectIdGetDatum(table->new_relid);

	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, relid)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, relid));
}

/*
 * Rewrites those of the new tables that have too many dead rows.
 */
void
rebuild_compact_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		if (count_dead(table) > COMPACT_AFTER + 2 * table->rows)
			compact_table(projection, table);
	}
}

/*
 * Drops the new tables.
 */
void
rebuild_drop_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
		(void) run_sql(projection,
					   psprintf("DROP TABLE %s", ((Table *) lfirst(cell))->new));
}

/*
 * Adds what deletes rows of the old table: those that are not in the new one,
 * and changed ones where these are not updated.
 */
static void
add_delete(StringInfo sql, const Table *table, int number)
{
	appendStringInfo(sql, "%s d%d AS (DELETE FROM %s AS t",
					 number == 0 ? "WITH" : ",", number, table->old);
	if (table->same_key != NULL)
		appendStringInfo(sql, " WHERE NOT EXISTS (SELECT FROM %s AS s WHERE %s%s)",
						 table->new, table->same_key,
						 table->update ? "" : " AND t.* *= s.*");
	appendStringInfoString(sql, " RETURNING 1)");
}

/* Adds what updates changed rows. */
static void
add_update(StringInfo sql, const Table *table, int number)
{
	if (!table->update || table->changes == NULL)
		appendStringInfo(sql, ", u%d AS (SELECT 1)", number);
	else
		appendStringInfo(sql, ", u%d AS (UPDATE %s AS t SET %s FROM %s AS s"
						 " WHERE %s AND NOT t.* *= s.* RETURNING 1)",
						 number, table->old, table->changes, table->new,
						 table->same_key);
}

/* Adds what inserts new rows, when the table's others are out of the way. */
static void
add_insert(StringInfo sql, const Table *table, int number)
{
	appendStringInfo(sql, ", i%d AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
					 " SELECT %s FROM %s AS s"
					 " WHERE (SELECT count(*) FROM d%d) >= 0"
					 " AND (SELECT count(*) FROM u%d) >= 0",
					 number, table->old, table->columns, table->columns,
					 table->new, number, number);
	if (table->same_key != NULL)
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM %s AS t WHERE %s%s)",
						 table->old, table->same_key,
						 table->update ? "" : " AND t.* *= s.*");
	appendStringInfoString(sql, " RETURNING 1)");
}

/*
 * Deletes what is gone, and nothing else.
 */
static void
delete_gone(const Projection *projection, List *tables)
{
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	foreach(cell, tables)
		add_delete(&sql, lfirst(cell), foreach_current_index(cell));
	appendStringInfoString(&sql, " SELECT 1");
	(void) run_sql(projection, sql.data);
}

/*
 * The statement that makes the rows of the old tables those of the new ones.
 */
static char *
swap_sql(List *tables)
{
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	foreach(cell, tables)
	{
		int			number = foreach_current_index(cell);

		add_delete(&sql, lfirst(cell), number);
		add_update(&sql, lfirst(cell), number);
		add_insert(&sql, lfirst(cell), number);
	}
	appendStringInfoString(&sql, " SELECT 1");
	return sql.data;
}

/* What attempt_swap needs. */
typedef struct Swap
{
	const Projection *projection;
	List	   *tables;
} Swap;
static bool
attempt_swap(void *arg)
{
	Swap	   *swap = arg;

	(void) run_sql(swap->projection, swap_sql(swap->tables));
	return true;
}

/*
 * Does the same; false if rows that are updated one after the other have
 * exchanged what must be unique.
 */
static bool
try_swap_rows(const Projection *projection, List *tables)
{
	Swap		swap = {projection, tables};
	ErrorData  *error = subtransaction_try(attempt_swap, &swap);

	if (error != NULL && error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		ReThrowError(error);
	return error == NULL;
}

/*
 * Checks that one foreign key holds, as when it is made.
 */
static void
check_foreign_key(HeapTuple row, TupleDesc desc)
{
	Trigger		trigger = {0};
	bool		isnull;
	Relation	child = table_open(DatumGetObjectId(SPI_getbinval(row, desc, 3,
																  &isnull)),
								   AccessShareLock);
	Relation	parent = table_open(DatumGetObjectId(SPI_getbinval(row, desc, 4,
																   &isnull)),
									AccessShareLock);

	trigger.tgconstraint = DatumGetObjectId(SPI_getbinval(row, desc, 1,
														  &isnull));
	trigger.tgname = SPI_getvalue(row, desc, 2);
	trigger.tgenabled = TRIGGER_FIRES_ON_ORIGIN;
	trigger.tgisinternal = true;
	trigger.tgconstrrelid = RelationGetRelid(parent);
	trigger.tgconstrindid = DatumGetObjectId(SPI_getbinval(row, desc, 5,
														   &isnull));
	if (!RI_Initial_Check(&trigger, child, parent))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("foreign key \"%s\" cannot be checked",
						trigger.tgname),
				 errdetail("The projection's owner may not read \"%s\" and \"%s\".",
						   RelationGetRelationName(child),
						   RelationGetRelationName(parent))));
	table_close(parent, AccessShareLock);
	table_close(child, AccessShareLock);
}

/* Checks all foreign keys from or to the tables. */
static void
check_foreign_keys(const Projection *projection, List *tables)
{
	Oid			type = OIDARRAYOID;
	Datum	   *oids = palloc(sizeof(Datum) * list_length(tables));
	Datum		value;
	SPITupleTable *keys;
	RunAs		saved;
	ListCell   *cell;
	uint64		i;

	foreach(cell, tables)
		oids[foreach_current_index(cell)] =
		ObjectIdGetDatum(((Table *) lfirst(cell))->relid);
	value = PointerGetDatum(construct_array(oids, list_length(tables), OIDOID,
											sizeof(Oid), true, TYPALIGN_INT));
	(void) own_sql_run(projection->log,
					   "SELECT oid, conname, conrelid, confrelid, conindid"
					   " FROM pg_constraint WHERE contype = 'f'"
					   " AND (conrelid = ANY ($1) OR confrelid = ANY ($1))",
					   1, &type, &value, NULL);
	keys = SPI_tuptable;
	saved = projection_run_as(projection, true, "pg_catalog, pg_temp");
	for (i = 0; i < keys->numvals; i++)
		check_foreign_key(keys->vals[i], keys->tupdesc);
	run_as_end(saved);
}

/* The statement in which foreign keys sleep, if one is run. */
static const char *asleep = NULL;
static ExecutorStart_hook_type next_start = NULL;

/* Takes the foreign keys out of the triggers that a statement fires. */
static void
ignore_foreign_keys(EState *estate)
{
	ListCell   *cell;

	foreach(cell, estate->es_opened_result_relations)
	{
		/* a copy of its own */
		TriggerDesc *triggers = ((ResultRelInfo *) lfirst(cell))->ri_TrigDesc;
		int			i;

		for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		{
			if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) != RI_TRIGGER_NONE)
				triggers->triggers[i].tgenabled = TRIGGER_DISABLED;
		}
	}
}

/* Starts a statement; in the one that is said foreign keys sleep. */
static void
start_asleep(QueryDesc *query, int eflags)
{
	if (next_start != NULL)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (asleep != NULL && strcmp(query->sourceText, asleep) == 0)
		ignore_foreign_keys(query->estate);
}

/*
 * Installs the hook.
 */
void
rebuild_tables_init(void)
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = start_asleep;
}

/*
 * Runs one statement while foreign keys sleep.  They do so in this statement
 * alone: session_replication_role would be in force for whatever the owner's
 * triggers and checks do to tables of others, too.
 */
static void
run_asleep(const Projection *projection, const char *sql)
{
	asleep = sql;
	PG_TRY();
	{
		(void) run_sql(projection, sql);
	}
	PG_FINALLY();
	{
		asleep = NULL;
	}
	PG_END_TRY();
}

/*
 * Swaps while foreign keys sleep, and checks them then.  What is gone is
 * deleted before, while they are awake and act.
 */
static void
swap_unchecked(const Projection *projection, List *tables)
{
	ListCell   *cell;

	delete_gone(projection, tables);
	foreach(cell, tables)
		((Table *) lfirst(cell))->update = false;
	run_asleep(projection, swap_sql(tables));
	check_foreign_keys(projection, tables);
}

/* From now on deletes changed rows where no foreign key acts on that. */
static void
prefer_deletion(List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		table->update = table->update && table->acts;
	}
}

/*
 * The new table has numbered its rows by sequences of its own: those of the
 * old one go on after them.
 */
static void
move_sequences(const Projection *projection, const Table *table)
{
	char	   *sql =
	run_text(projection,
			 psprintf("SELECT string_agg(format("
					  "'SELECT setval(%%1$L, max(%%2$I)) FROM %%3$s"
					  " HAVING max(%%2$I) > (SELECT last_value FROM %%1$s)',"
					  " pg_get_serial_sequence(%s, attname), attname, %s), '; ')"
					  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
					  " AND NOT attisdropped AND attidentity <> ''",
					  quote_literal_cstr(table->old),
					  quote_literal_cstr(table->old), table->relid));

	if (sql != NULL)
		(void) run_sql(projection, sql);
}

/*
 * Makes the old tables as the new ones are.
 */
void
rebuild_swap_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		(void) run_sql(projection,
					   psprintf("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
								table->old));
		(void) run_sql(projection, psprintf("ANALYZE %s", table->new));
	}
	if (!try_swap_rows(projection, tables))
	{
		prefer_deletion(tables);
		if (!try_swap_rows(projection, tables))
			swap_unchecked(projection, tables);
	}
	foreach(cell, tables)
		move_sequences(projection, lfirst(cell));
}
