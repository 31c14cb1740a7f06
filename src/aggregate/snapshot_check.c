/*-------------------------------------------------------------------------
 *
 * snapshot_check.c
 *		Whether a state that a reader has folded may be saved: the events must be the same
 *		now as in the snapshot of the fold (log/snapshot_lock.c).
 *
 * Nobody changes them meanwhile, and to the end of the transaction.  Whoever has changed
 * one before is committed, so that a new snapshot finds another version of the row, or
 * none.  The saved state that the fold began with was deleted with such a change, and
 * stands for the events before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "log/snapshot_lock.h"
#include "aggregate/aggregate.h"

/* The rows of the folded events, as one snapshot has them. */
typedef struct FoldedRows
{
	IndexScanDesc scan;
	TupleTableSlot *slot;
} FoldedRows;

static FoldedRows
folded_rows_begin(const Fold *fold, Relation log, Relation index, Snapshot snapshot)
{
	FoldedRows	rows = {
		.scan = compat_index_beginscan(log, index, snapshot, 3),
		.slot = table_slot_create(log, NULL)
	};
	ScanKeyData keys[3];

	table_row_key(&keys[0], index, 1, BTEqualStrategyNumber, F_TEXTEQ,
				  PointerGetDatum(fold->source.stream));
	table_row_key(&keys[1], index, 2, BTGreaterStrategyNumber, F_INT8GT,
				  Int64GetDatum(fold->base.version));
	table_row_key(&keys[2], index, 2, BTLessEqualStrategyNumber, F_INT8LE,
				  Int64GetDatum(fold->state.version));
	index_rescan(rows.scan, keys, 3, NULL, 0);
	return rows;
}

static void
folded_rows_end(FoldedRows *rows)
{
	index_endscan(rows->scan);
	ExecDropSingleTupleTableSlot(rows->slot);
}

/* Goes to the next row.  Returns false after the last one. */
static bool
folded_rows_next(FoldedRows *rows)
{
	return index_getnext_slot(rows->scan, ForwardScanDirection, rows->slot);
}

/* Returns true if both have the same rows, in the same places. */
static bool
same_rows(FoldedRows *then, FoldedRows *now)
{
	while (folded_rows_next(then))
	{
		CHECK_FOR_INTERRUPTS();
		if (!folded_rows_next(now) ||
			!ItemPointerEquals(&then->slot->tts_tid, &now->slot->tts_tid))
			return false;
	}
	return !folded_rows_next(now);
}

/* Returns true if the folded events are the same in both snapshots. */
static bool
events_are_same(const Fold *fold, Snapshot snapshot, Snapshot latest)
{
	Relation	log = table_open(fold->source.log, AccessShareLock);
	Relation	index = log_index_open_version(log);
	bool		same = false;

	if (index != NULL)
	{
		FoldedRows	then = folded_rows_begin(fold, log, index, snapshot);
		FoldedRows	now = folded_rows_begin(fold, log, index, latest);

		same = same_rows(&then, &now);
		folded_rows_end(&then);
		folded_rows_end(&now);
		index_close(index, AccessShareLock);
	}
	table_close(log, AccessShareLock);
	return same;
}

/*
 * Compares under the lock, which is kept.
 */
bool
snapshot_check_events(const Fold *fold, Snapshot snapshot)
{
	Snapshot	latest;
	bool		same;

	if (!snapshot_lock_to_save(fold->source.stream))
		return false;
	latest = RegisterSnapshot(GetLatestSnapshot());
	same = (fold->base.version == 0 || snapshot_is_saved_now(&fold->source, &fold->base)) &&
		events_are_same(fold, snapshot, latest);
	UnregisterSnapshot(latest);
	return same;
}
