/*-------------------------------------------------------------------------
 *
 * table_row.c
 *		Rows of the extension's tables, looked up by their primary keys, locked and
 *		updated without a plan, for what is done at each delivery.
 *
 * It is as if the log's owner used SELECT ... FOR UPDATE and UPDATE.  A lock waits for
 * the transaction that has the row, and gets the row's last version.  At REPEATABLE
 * READ and SERIALIZABLE it is an error if the row has changed since the snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/base.h"

/*
 * Opens a table to look up its rows.
 */
void
table_row_open(TableRow *row, Oid log, const char *table, LOCKMODE lock)
{
	row->rel = table_open(own_table_relid(log, table), lock);
	row->index = index_open(compat_primary_key_index(row->rel), AccessShareLock);
	row->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	row->slot = table_slot_create(row->rel, NULL);
	row->scan = NULL;
}

/*
 * Closes it; locks stay to the end of the transaction.
 */
void
table_row_close(TableRow *row)
{
	if (row->scan != NULL)
		index_endscan(row->scan);
	ExecDropSingleTupleTableSlot(row->slot);
	UnregisterSnapshot(row->snapshot);
	index_close(row->index, NoLock);
	table_close(row->rel, NoLock);
}

/*
 * Makes a key of a scan: the column of the index, numbered from 1, must compare
 * so with the value.
 */
void
table_row_key(ScanKey key, Relation index, int column, int strategy,
			  RegProcedure compare, Datum value)
{
	ScanKeyEntryInitialize(key, 0, column, strategy, InvalidOid,
						   index->rd_indcollation[column - 1], compare, value);
}

/*
 * Looks for the rows whose primary key begins with the name, and goes on with
 * the number; NULL: any.
 */
void
table_row_find(TableRow *row, const char *name, const int *number)
{
	ScanKeyData keys[2];
	int			count = 1;

	table_row_key(&keys[0], row->index, 1, BTEqualStrategyNumber, F_TEXTEQ,
				  CStringGetTextDatum(name));
	if (number != NULL)
		table_row_key(&keys[count++], row->index, 2, BTEqualStrategyNumber, F_INT4EQ,
					  Int32GetDatum(*number));
	row->scan = compat_index_beginscan(row->rel, row->index, row->snapshot,
									   count);
	index_rescan(row->scan, keys, count, NULL, 0);
}

/*
 * Takes the next row into row->slot.  Returns false if there is none.
 */
bool
table_row_next(TableRow *row)
{
	return index_getnext_slot(row->scan, ForwardScanDirection, row->slot);
}

/*
 * Locks the row that was taken, and takes its last version.  Returns false if it is
 * gone, or if another transaction has it and wait is false.
 */
bool
table_row_lock(TableRow *row, bool wait)
{
	TM_FailureData failure;
	TM_Result	result = table_tuple_lock(row->rel, &row->slot->tts_tid,
										  row->snapshot, row->slot,
										  GetCurrentCommandId(false),
										  LockTupleExclusive,
										  wait ? LockWaitBlock : LockWaitSkip,
										  TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
										  &failure);

	if (result == TM_WouldBlock)
		return false;
	if (IsolationUsesXactSnapshot() && (result != TM_Ok || failure.traversed))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("A row of \"%s\" has changed since the transaction's snapshot.",
						   RelationGetRelationName(row->rel)),
				 errhint("The transaction might succeed if retried.")));
	return result == TM_Ok;
}

/* Opens the table's indexes and triggers for an update of the row. */
static ResultRelInfo *
open_for_update(TableRow *row, EState *estate)
{
	ResultRelInfo *relinfo;
	MemoryContext context = MemoryContextSwitchTo(estate->es_query_cxt);

	/* The server makes it: its size varies in minor releases */
	relinfo = ExecGetTriggerResultRel(estate, RelationGetRelid(row->rel), NULL);
	estate->es_trig_target_relations = NIL;
	estate->es_opened_result_relations = list_make1(relinfo);
	estate->es_snapshot = row->snapshot;
	ExecOpenIndices(relinfo, false);
	MemoryContextSwitchTo(context);
	return relinfo;
}

/*
 * Writes new values into a row that was locked and copied: those of the first
 * columns; later ones stay as they are.
 */
void
table_row_update(TableRow *row, HeapTuple old, const Datum *values, const bool *nulls,
				 int count)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *relinfo = open_for_update(row, estate);
	TupleTableSlot *slot = table_slot_create(row->rel, NULL);
	EPQState	recheck;

	ExecClearTuple(slot);
	heap_deform_tuple(old, RelationGetDescr(row->rel), slot->tts_values,
					  slot->tts_isnull);
	memcpy(slot->tts_values, values, sizeof(Datum) * count);
	memcpy(slot->tts_isnull, nulls, sizeof(bool) * count);
	ExecStoreVirtualTuple(slot);
	row->slot->tts_tid = old->t_self;
	compat_recheck_init(&recheck, estate);
	AfterTriggerBeginQuery();
	ExecSimpleRelationUpdate(relinfo, estate, &recheck, row->slot, slot);
	AfterTriggerEndQuery(estate);
	EvalPlanQualEnd(&recheck);
	old->t_self = slot->tts_tid;
	ExecDropSingleTupleTableSlot(slot);
	ExecCloseResultRelations(estate);
	table_close(row->rel, NoLock);	/* as it was opened for relinfo */
	FreeExecutorState(estate);
	CommandCounterIncrement();
}

/*
 * Returns a number of the row that the index has last.
 */
int64
table_row_last_number(Relation rel, Relation index, int column, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, 0);
	int64		number = 0;
	bool		isnull;

	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		number = DatumGetInt64(slot_getattr(slot, column, &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return number;
}
