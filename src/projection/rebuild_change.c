/*-------------------------------------------------------------------------
 *
 * rebuild_change.c
 *		Deleting and updating the old rows of a table that is swapped.
 *
 * It is done as the executor does it, but for two points.  Foreign keys act only
 * where a key is gone (rebuild_keys.c).  And unique indexes do not refuse a new
 * version that is a duplicate, as rows may have exchanged what must be unique:
 * it is stored, as with a deferrable constraint, and checked when all rows of
 * the table are changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "projection/rebuild.h"

/* A row version that may be a duplicate. */
typedef struct Suspect
{
	StoredTable *stored;
	ItemPointerData tid;
	Oid			index;
} Suspect;

/*
 * Finds the columns of the query's result that have the new values of a table's
 * columns; those that the root has not, and generated ones, stay as they are.
 */
static void
find_new_values(const TableSwap *swap, StoredTable *stored)
{
	TupleDesc	root = RelationGetDescr(swap->root->ri_RelationDesc);
	Relation	rel = stored->relinfo->ri_RelationDesc;
	int			column = CHANGED_FIRST_KEY + list_length(swap->keys);
	int			i;

	stored->columns = palloc0(sizeof(int) * RelationGetNumberOfAttributes(rel));
	for (i = 0; i < root->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(root, i);

		if (!attribute->attisdropped && attribute->attgenerated == '\0')
			stored->columns[get_attnum(RelationGetRelid(rel),
									   NameStr(attribute->attname)) - 1] = column++;
	}
}

/* Opens a table that stores rows.  It is locked, as the one to be swapped is. */
static StoredTable *
open_stored_table(TableSwap *swap, Oid relid)
{
	StoredTable *stored = palloc0(sizeof(StoredTable));
	Relation	rel;

	stored->relinfo = relid == swap->table->relid ? swap->root :
		ExecGetTriggerResultRel(swap->estate, relid, swap->root);
	rel = stored->relinfo->ri_RelationDesc;
	CheckCmdReplicaIdentity(rel, CMD_DELETE);
	CheckCmdReplicaIdentity(rel, CMD_UPDATE);
	ExecOpenIndices(stored->relinfo, false);
	stored->old = table_slot_create(rel, &swap->estate->es_tupleTable);
	stored->new = table_slot_create(rel, &swap->estate->es_tupleTable);
	find_new_values(swap, stored);
	rebuild_keys_open(swap, stored);
	swap->stored = lappend(swap->stored, stored);
	return stored;
}

/* Returns the table that stores the row, opened. */
static StoredTable *
get_stored_table(TableSwap *swap, Oid relid)
{
	StoredTable *stored;
	MemoryContext oldcontext;
	ListCell   *cell;

	foreach(cell, swap->stored)
	{
		stored = lfirst(cell);
		if (RelationGetRelid(stored->relinfo->ri_RelationDesc) == relid)
			return stored;
	}
	oldcontext = MemoryContextSwitchTo(swap->estate->es_query_cxt);
	stored = open_stored_table(swap, relid);
	MemoryContextSwitchTo(oldcontext);
	return stored;
}

/* Fetches an old row, which may be dead by now. */
void
rebuild_change_fetch_old(const StoredTable *stored, ItemPointer tid)
{
	Relation	rel = stored->relinfo->ri_RelationDesc;

	if (!table_tuple_fetch_row_version(rel, tid, SnapshotAny, stored->old))
		elog(ERROR, "a row of \"%s\" is missing", RelationGetRelationName(rel));
}

/* Refuses a row that a trigger has changed while others were changed. */
static void
check_row_is_unchanged(const StoredTable *stored)
{
	Relation	rel = stored->relinfo->ri_RelationDesc;

	if (!table_tuple_satisfies_snapshot(rel, stored->old, SnapshotSelf))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("table \"%s\" cannot be rebuilt",
						RelationGetRelationName(rel)),
				 errdetail("A BEFORE trigger has changed another row of it than its own."),
				 errhint("Use an AFTER trigger to change other rows.")));
}

/* Makes the new version of the row at hand. */
static void
make_new_row(StoredTable *stored, HeapTuple row, TupleDesc desc)
{
	TupleTableSlot *new = stored->new;
	int			natts = new->tts_tupleDescriptor->natts;
	int			i;

	slot_getallattrs(stored->old);
	ExecClearTuple(new);
	memcpy(new->tts_values, stored->old->tts_values, sizeof(Datum) * natts);
	memcpy(new->tts_isnull, stored->old->tts_isnull, sizeof(bool) * natts);
	for (i = 0; i < natts; i++)
	{
		if (stored->columns[i] > 0)
			new->tts_values[i] = SPI_getbinval(row, desc, stored->columns[i],
											   &new->tts_isnull[i]);
	}
	ExecStoreVirtualTuple(new);
	new->tts_tableOid = RelationGetRelid(stored->relinfo->ri_RelationDesc);
}

/* Notes in which unique indexes the new version may be a duplicate. */
static void
add_suspects(TableSwap *swap, StoredTable *stored, const List *indexes)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(swap->estate->es_query_cxt);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Suspect    *suspect = palloc(sizeof(Suspect));

		suspect->stored = stored;
		suspect->tid = stored->new->tts_tid;
		suspect->index = lfirst_oid(cell);
		swap->suspects = lappend(swap->suspects, suspect);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* Updates the row at hand. */
static void
update_stored_row(TableSwap *swap, StoredTable *stored)
{
	EState	   *estate = swap->estate;
	ResultRelInfo *relinfo = stored->relinfo;
	Relation	rel = relinfo->ri_RelationDesc;
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	TriggerDesc *triggers = relinfo->ri_TrigDesc;
	ItemPointer tid = &stored->old->tts_tid;
	List	   *indexes;

	if (triggers != NULL && triggers->trig_update_before_row &&
		!ExecBRUpdateTriggers(estate, &swap->recheck, relinfo, tid, NULL,
							  stored->new, COMPAT_BEFORE_UPDATE))
		return;
	if (constraints != NULL && constraints->has_generated_stored)
		ExecComputeStoredGenerated(relinfo, estate, stored->new, CMD_UPDATE);
	if (constraints != NULL)
		ExecConstraints(relinfo, stored->new, estate);
	if (rel->rd_rel->relispartition)
		(void) ExecPartitionCheck(relinfo, stored->new, estate, true);
	indexes = compat_update_unchecked(relinfo, estate, tid, stored->new);
	add_suspects(swap, stored, indexes);
	rebuild_keys_hold_back(swap, stored, stored->new);
	ExecARUpdateTriggers(estate, relinfo, NULL, NULL, tid, NULL, stored->new,
						 indexes, swap->updated, false);
}

/* Deletes the row at hand. */
static void
delete_stored_row(TableSwap *swap, StoredTable *stored)
{
	EState	   *estate = swap->estate;
	ResultRelInfo *relinfo = stored->relinfo;
	TriggerDesc *triggers = relinfo->ri_TrigDesc;
	ItemPointer tid = &stored->old->tts_tid;

	if (triggers != NULL && triggers->trig_delete_before_row &&
		!ExecBRDeleteTriggers(estate, &swap->recheck, relinfo, tid, NULL,
							  COMPAT_BEFORE_DELETE))
		return;
	simple_table_tuple_delete(relinfo->ri_RelationDesc, tid,
							  estate->es_snapshot);
	rebuild_keys_hold_back(swap, stored, NULL);
	ExecARDeleteTriggers(estate, relinfo, tid, NULL, swap->deleted, false);
}

/* Deletes or updates the old row that a row of the query's result names. */
void
rebuild_change_row(TableSwap *swap, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	StoredTable *stored =
	get_stored_table(swap,
					 DatumGetObjectId(SPI_getbinval(row, desc, CHANGED_TABLE,
													&isnull)));
	ListCell   *cell;

	foreach(cell, swap->keys)
		((ActingKey *) lfirst(cell))->remains =
		DatumGetBool(SPI_getbinval(row, desc, CHANGED_FIRST_KEY +
								   foreach_current_index(cell), &isnull));
	swap->estate->es_output_cid = GetCurrentCommandId(true);
	rebuild_change_fetch_old(stored, (ItemPointer)
							 DatumGetPointer(SPI_getbinval(row, desc, CHANGED_TID,
														   &isnull)));
	check_row_is_unchanged(stored);
	if (DatumGetBool(SPI_getbinval(row, desc, CHANGED_STAYS, &isnull)))
	{
		make_new_row(stored, row, desc);
		update_stored_row(swap, stored);
		ExecClearTuple(stored->new);
	}
	else
		delete_stored_row(swap, stored);
	ExecClearTuple(stored->old);
	ResetPerTupleExprContext(swap->estate);
}

/*
 * Fetches the row into its table's slot, or the version that has taken its
 * place in the index; returns false if it is gone.  tid: set to its place.
 */
static bool
fetch_suspect(const Suspect *suspect, ItemPointer tid)
{
	StoredTable *stored = suspect->stored;
	IndexFetchTableData *fetch =
	table_index_fetch_begin(stored->relinfo->ri_RelationDesc);
	bool		call_again = false;
	bool		found;

	*tid = suspect->tid;
	found = table_index_fetch_tuple(fetch, tid, SnapshotSelf, stored->new,
									&call_again, NULL);
	table_index_fetch_end(fetch);
	return found;
}

/* Checks one row in one index, as the server does for deferrable constraints. */
static void
check_suspect(EState *estate, const Suspect *suspect, Relation index,
			  IndexInfo *info)
{
	Relation	rel = suspect->stored->relinfo->ri_RelationDesc;
	ItemPointerData tid = suspect->tid;
	ItemPointerData row;
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	if (!index->rd_index->indimmediate ||	/* it has a trigger */
		!fetch_suspect(suspect, &row))
		return;
	GetPerTupleExprContext(estate)->ecxt_scantuple = suspect->stored->new;
	FormIndexDatum(info, suspect->stored->new, estate, values, isnull);
	if (info->ii_ExclusionOps == NULL)
		(void) index_insert(index, values, isnull, &tid, rel,
							UNIQUE_CHECK_EXISTING, false, info);
	else
		check_exclusion_constraint(rel, index, info, &row, values, isnull,
								   estate, false);
	ExecClearTuple(suspect->stored->new);
	ResetPerTupleExprContext(estate);
}

/* Refuses rows that are duplicates now that all are changed. */
void
rebuild_change_check_unique(TableSwap *swap)
{
	ListCell   *cell;

	foreach(cell, swap->suspects)
	{
		Suspect    *suspect = lfirst(cell);
		ResultRelInfo *relinfo = suspect->stored->relinfo;
		int			i;

		CHECK_FOR_INTERRUPTS();
		for (i = 0; i < relinfo->ri_NumIndices; i++)
		{
			if (RelationGetRelid(relinfo->ri_IndexRelationDescs[i]) == suspect->index)
				check_suspect(swap->estate, suspect,
							  relinfo->ri_IndexRelationDescs[i],
							  relinfo->ri_IndexRelationInfo[i]);
		}
	}
}
