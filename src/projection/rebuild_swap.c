/*-------------------------------------------------------------------------
 *
 * rebuild_swap.c
 *		The swap of a rebuild: makes the rows of the old tables those of the new
 *		ones.
 *
 * Old and new rows are matched by key.  A row that is the same in both is left
 * alone, one that differs is updated, an old row without a new one is deleted,
 * a new row without an old one is inserted.  In a table without a key all old
 * rows are deleted, and all new ones inserted.
 *
 *	1. The tables are locked against writers (ShareRowExclusiveLock), as rebuild.c has
 *	   done already; this checks that the owner may.
 *	2. Table by table, rows are deleted and updated (rebuild_change.c).
 *	3. Table by table, rows are inserted, by a statement.
 *	4. Foreign keys whose actions were held back are checked (rebuild_keys.c).
 *	5. AFTER triggers are fired, those of foreign keys among them.
 *
 * All of it is one query level for AFTER triggers, so that foreign keys look at
 * the tables when all rows are there, whatever table refers to what.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "base/compat.h"
#include "projection/rebuild.h"

/* How many rows are read at once. */
#define FETCH_COUNT		100

/* Returns all columns of a table, as the range table has those of an update. */
static Bitmapset *
all_columns(Relation rel)
{
	Bitmapset  *columns = NULL;
	int			i;

	for (i = 1; i <= RelationGetNumberOfAttributes(rel); i++)
		columns = bms_add_member(columns,
								 i - FirstLowInvalidHeapAttributeNumber);
	return columns;
}

/* Opens a table to be swapped, which is locked. */
static TableSwap *
open_table_swap(const Projection *projection, const RebuildTable *table)
{
	TableSwap  *swap = palloc0(sizeof(TableSwap));
	MemoryContext oldcontext;
	Relation	rel;

	swap->table = table;
	swap->keys = rebuild_keys_find(projection, table->relid);
	swap->estate = CreateExecutorState();
	swap->estate->es_snapshot = GetActiveSnapshot();
	compat_recheck_init(&swap->recheck, swap->estate);
	oldcontext = MemoryContextSwitchTo(swap->estate->es_query_cxt);
	swap->root = ExecGetTriggerResultRel(swap->estate, table->relid, NULL);
	rel = swap->root->ri_RelationDesc;
	compat_set_updated_columns(swap->estate, swap->root, all_columns(rel));
	MemoryContextSwitchTo(oldcontext);
	swap->updated = MakeTransitionCaptureState(swap->root->ri_TrigDesc,
											   table->relid, CMD_UPDATE);
	swap->deleted = MakeTransitionCaptureState(swap->root->ri_TrigDesc,
											   table->relid, CMD_DELETE);
	return swap;
}

/*
 * Closes a table that was swapped.  The server closes what it has opened for
 * triggers alone: it must find it without indexes and range table.
 */
static void
close_table_swap(TableSwap *swap)
{
	ListCell   *cell;

	foreach(cell, swap->stored)
	{
		ResultRelInfo *relinfo = ((StoredTable *) lfirst(cell))->relinfo;

		ExecCloseIndices(relinfo);
		relinfo->ri_NumIndices = 0;
	}
	swap->root->ri_RangeTableIndex = 0;
	EvalPlanQualEnd(&swap->recheck);
	ExecResetTupleTable(swap->estate->es_tupleTable, false);
	ExecCloseResultRelations(swap->estate);
	FreeExecutorState(swap->estate);
}

/*
 * Returns the query for the old rows that do not stay as they are, in the order
 * of the enum, then whether each key remains, then the new values.
 */
static char *
changed_rows_sql(const TableSwap *swap)
{
	const RebuildTable *table = swap->table;
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT t.tableoid, t.ctid, %s",
					 table->same_key ? "s.ctid IS NOT NULL" : "false");
	foreach(cell, swap->keys)
		appendStringInfo(&sql, ", EXISTS (SELECT FROM %s AS k WHERE %s)",
						 table->new, ((ActingKey *) lfirst(cell))->same);
	if (table->same_key == NULL)
		appendStringInfo(&sql, " FROM %s AS t", table->old);
	else
		appendStringInfo(&sql, ", %s FROM %s AS t LEFT JOIN %s AS s ON %s"
						 " WHERE s.ctid IS NULL OR NOT t.* OPERATOR(pg_catalog.*=) s.*",
						 table->new_values, table->old, table->new,
						 table->same_key);
	return sql.data;
}

/* Deletes and updates the rows that do not stay as they are. */
static void
change_rows(TableSwap *swap)
{
	char	   *sql = changed_rows_sql(swap);
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	Portal		portal;

	if (plan == NULL)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), sql);
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	for (;;)
	{
		SPITupleTable *rows;
		uint64		i;

		SPI_cursor_fetch(portal, true, FETCH_COUNT);
		rows = SPI_tuptable;
		if (rows->numvals == 0)
			break;
		for (i = 0; i < rows->numvals; i++)
		{
			CHECK_FOR_INTERRUPTS();
			rebuild_change_row(swap, rows->vals[i], rows->tupdesc);
		}
		SPI_freetuptable(rows);
	}
	SPI_cursor_close(portal);
	SPI_freeplan(plan);
}

/* Deletes and updates the rows of a table that do not stay as they are. */
static void
change_table(TableSwap *swap)
{
	ExecBSDeleteTriggers(swap->estate, swap->root);
	ExecBSUpdateTriggers(swap->estate, swap->root);
	change_rows(swap);
	rebuild_change_check_unique(swap);
	ExecASUpdateTriggers(swap->estate, swap->root, swap->updated);
	ExecASDeleteTriggers(swap->estate, swap->root, swap->deleted);
}

/* Inserts the new rows that have no old one. */
static void
insert_rows_of(const RebuildTable *table)
{
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
					 " SELECT %s FROM %s AS s", table->old, table->columns,
					 table->columns, table->new);
	if (table->same_key != NULL)
		appendStringInfo(&sql, " WHERE NOT EXISTS (SELECT FROM %s AS t WHERE %s)",
						 table->old, table->same_key);
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL || SPI_execute_snapshot(plan, NULL, NULL, InvalidSnapshot,
											 InvalidSnapshot, false, false, 0) < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), sql.data);
	SPI_freeplan(plan);
}

/* Locks the old tables, and lets the planner know the new ones. */
static void
prepare_swap(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		RebuildTable *table = lfirst(cell);

		(void) rebuild_run_sql(projection,
							   psprintf("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
										table->old));
		(void) rebuild_run_sql(projection, psprintf("ANALYZE %s", table->new));
	}
}

/* Changes the rows of all tables: steps 2 to 4 of the header. */
static void
swap_rows(const Projection *projection, List *tables)
{
	List	   *swaps = NIL;
	ListCell   *cell;

	foreach(cell, tables)
		swaps = lappend(swaps, open_table_swap(projection, lfirst(cell)));
	foreach(cell, swaps)
		change_table(lfirst(cell));
	foreach(cell, tables)
		insert_rows_of(lfirst(cell));
	CommandCounterIncrement();
	foreach(cell, swaps)
		rebuild_keys_check(lfirst(cell));
	foreach(cell, swaps)
		close_table_swap(lfirst(cell));
}

/* Fires the triggers that are queued, with a snapshot that sees all rows. */
static void
fire_after_triggers(void)
{
	PushActiveSnapshot(GetLatestSnapshot());
	AfterTriggerEndQuery(NULL);
	PopActiveSnapshot();
}

/* Makes the rows of the old tables those of the new ones. */
void
rebuild_swap_tables(const Projection *projection, List *tables)
{
	MemoryContext context = CurrentMemoryContext;
	RunAs		saved;

	prepare_swap(projection, tables);
	saved = rebuild_run_as(projection, true,
						   psprintf("%s, pg_temp",
									run_as_kept_path(projection->log,
													 projection->search_path)));
	PushActiveSnapshot(GetLatestSnapshot());
	AfterTriggerBeginQuery();
	swap_rows(projection, tables);
	PopActiveSnapshot();
	fire_after_triggers();
	run_as_end(saved);
	MemoryContextSwitchTo(context);
}
