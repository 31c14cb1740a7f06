/*-------------------------------------------------------------------------
 *
 * match_row.c
 *		The events that match a query, as rows of es_events.
 *
 * match.c finds their positions, or the caller knows them, and which of them match is seen in
 * the rows.  The rows are looked up by the index on positions, with the same snapshot and
 * whatever the user may read: callers check that.
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
	Match	   *match;			/* NULL: these positions, as far as they match */
	const EventQuery *query;
	const Int8Array *positions;
	int			at;				/* the next one */

	Relation	log;
	Relation	index;			/* on positions */
	IndexScanDesc scan;
	TupleTableSlot *slot;
};

/* Opens the log. */
static MatchRows *
open_rows(Oid log, Snapshot snapshot)
{
	MatchRows  *rows = palloc0(sizeof(MatchRows));

	rows->log = table_open(log, AccessShareLock);
	rows->index = log_index_open_position(rows->log);
	rows->slot = table_slot_create(rows->log, NULL);
	rows->scan = compat_index_beginscan(rows->log, rows->index, snapshot, 1);
	return rows;
}

/*
 * Begins to read them.
 */
MatchRows *
match_rows_begin(Oid log, const EventQuery *query, const MatchRange *range,
				 Snapshot snapshot)
{
	MatchRows  *rows = open_rows(log, snapshot);

	rows->match = match_begin(log, query, range, snapshot);
	return rows;
}

/*
 * Begins to read those at the positions.
 */
MatchRows *
match_rows_at(Oid log, const EventQuery *query, const Int8Array *positions,
			  Snapshot snapshot)
{
	MatchRows  *rows = open_rows(log, snapshot);

	rows->query = query;
	rows->positions = positions;
	return rows;
}

/* The next position; 0 after the last one. */
static int64
next_position(MatchRows *rows)
{
	if (rows->match != NULL)
		return match_next(rows->match);
	return rows->at < rows->positions->count ? rows->positions->values[rows->at++] : 0;
}

/* Returns true if the row matches, which the caller's positions leave open. */
static bool
row_matches(const MatchRows *rows)
{
	return rows->match != NULL || query_matches(rows->query, rows->slot);
}

/*
 * Returns the next one, which lasts until the call after; NULL after the last one.
 */
TupleTableSlot *
match_rows_next(MatchRows *rows)
{
	int64		position;

	while ((position = next_position(rows)) != 0)
	{
		ScanKeyData key;

		CHECK_FOR_INTERRUPTS();
		table_row_key(&key, rows->index, 1, BTEqualStrategyNumber, F_INT8EQ,
					  Int64GetDatum(position));
		index_rescan(rows->scan, &key, 1, NULL, 0);
		if (index_getnext_slot(rows->scan, ForwardScanDirection, rows->slot) && row_matches(rows))
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
	if (rows->match != NULL)
		match_end(rows->match);
	pfree(rows);
}
