/*-------------------------------------------------------------------------
 *
 * match_row.c
 *		The events that match a query, as rows of es_events.
 *
 * match.c finds their positions.  The rows are looked up by the index on positions, with
 * the same snapshot and whatever the user may read: callers check that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "tag/tag.h"

struct MatchRows
{
	Match	   *match;
	Relation	log;
	Relation	index;			/* on positions */
	IndexScanDesc scan;
	TupleTableSlot *slot;
};

/*
 * Begins to read them.
 */
MatchRows *
match_rows_begin(Oid log, const EventQuery *query, const MatchRange *range,
				 Snapshot snapshot)
{
	MatchRows  *rows = palloc(sizeof(MatchRows));

	rows->match = match_begin(log, query, range, snapshot);
	rows->log = table_open(log, AccessShareLock);
	rows->index = log_index_open_position(rows->log);
	rows->slot = table_slot_create(rows->log, NULL);
	rows->scan = compat_index_beginscan(rows->log, rows->index, snapshot, 1);
	return rows;
}

/*
 * Returns the next one, which lasts until the call after; NULL after the last one.
 */
TupleTableSlot *
match_rows_next(MatchRows *rows)
{
	int64		position;

	while ((position = match_next(rows->match)) != 0)
	{
		ScanKeyData key;

		CHECK_FOR_INTERRUPTS();
		table_row_key(&key, rows->index, 1, BTEqualStrategyNumber, F_INT8EQ,
					  Int64GetDatum(position));
		index_rescan(rows->scan, &key, 1, NULL, 0);
		if (index_getnext_slot(rows->scan, ForwardScanDirection, rows->slot))
			return rows->slot;
	}
	return NULL;
}

/*
 * Ends it.
 */
void
match_rows_end(MatchRows *rows)
{
	index_endscan(rows->scan);
	ExecDropSingleTupleTableSlot(rows->slot);
	index_close(rows->index, AccessShareLock);
	table_close(rows->log, AccessShareLock);
	match_end(rows->match);
	pfree(rows);
}
