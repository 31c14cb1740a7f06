/*-------------------------------------------------------------------------
 *
 * stream_scan.c
 *		The events of one stream, one after the other, as the current user may
 *		read them.
 *
 * A user that may read all events gets them from the index on stream and
 * version, by a walk where the log is as the extension has made it (row_walk.c).  Any
 * other user gets them by SQL (event_sql.c).  So does a caller that wants them in the
 * order in which they happened.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "read/read.h"
#include "read/source.h"

struct StreamScan
{
	Relation	log;
	TupleTableSlot *slot;

	/* by index */
	Relation	index;			/* NULL: by SQL */
	IndexScanDesc scan;
	RowWalk    *walk;			/* NULL: the server's scan fetches the rows */
	ScanKeyData keys[3];
	int			key_count;

	/* by SQL */
	Tuplestorestate *store;
};

/* The parameters of the statements. */
enum
{
	SCAN_STREAM, SCAN_AFTER, SCAN_UPTO, SCAN_UNTIL, SCAN_PARAMS
};

static Oid	scan_types[SCAN_PARAMS] = {TEXTOID, INT8OID, INT8OID,
TIMESTAMPTZOID};

/* When an event happened, as far as it is known. */
#define HAPPENED_AT "coalesce(e.occurred_at, e.recorded_at)"

static StreamScan *
make_stream_scan(Oid log)
{
	StreamScan *scan = palloc0(sizeof(StreamScan));

	scan->log = table_open(log, AccessShareLock);
	return scan;
}

/*
 * Reads the events into scan->store, as the current user.  rest: what follows the
 * condition on stream and version.
 */
static void
read_stream_by_sql(StreamScan *scan, text *stream, int64 after, int64 upto,
				   TimestampTz until, Snapshot snapshot, const char *rest)
{
	Datum		values[SCAN_PARAMS] = {
		PointerGetDatum(stream), Int64GetDatum(after), Int64GetDatum(upto),
		TimestampTzGetDatum(until)
	};
	char	   *sql = event_sql_make(scan->log,
									 psprintf("e.stream = $1 AND e.version > $2"
											  " AND e.version <= $3 %s", rest));

	scan->store = event_batch_make();
	event_sql_run(GetUserId(), snapshot, sql, SCAN_PARAMS, scan_types,
				  values, NULL, scan->store);
	scan->slot = event_slot_make(scan->log);
}

static void
add_stream_key(StreamScan *scan, int column, int strategy, RegProcedure procedure,
			   Datum value)
{
	table_row_key(&scan->keys[scan->key_count++], scan->index, column, strategy,
				  procedure, value);
}

/*
 * Begins a scan of scan->index.  Each key is compared for each event, so that
 * those which exclude nothing are left out.
 */
static void
begin_stream_index(StreamScan *scan, text *stream, int64 after, int64 upto,
				   Snapshot snapshot)
{
	add_stream_key(scan, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(stream));
	if (after > 0)
		add_stream_key(scan, 2, BTGreaterStrategyNumber, F_INT8GT,
					   Int64GetDatum(after));
	if (upto < PG_INT64_MAX)
		add_stream_key(scan, 2, BTLessEqualStrategyNumber, F_INT8LE,
					   Int64GetDatum(upto));
	scan->scan = compat_index_beginscan(scan->log, scan->index, snapshot,
										scan->key_count);
	index_rescan(scan->scan, scan->keys, scan->key_count, NULL, 0);
	scan->slot = table_slot_create(scan->log, NULL);
	if (event_row_is_usual(scan->log))
		scan->walk = row_walk_begin(scan->log, scan->scan);
}

StreamScan *
stream_scan_open(Oid log, text *stream, int64 after, int64 upto,
				 Snapshot snapshot)
{
	StreamScan *scan = make_stream_scan(log);

	if (role_may_read_all(log, GetUserId()))
		scan->index = log_index_open_version(scan->log);
	if (scan->index != NULL)
		begin_stream_index(scan, stream, after, upto, snapshot);
	else
		read_stream_by_sql(scan, stream, after, upto, 0, snapshot,
						   "ORDER BY e.version");
	return scan;
}

StreamScan *
stream_scan_open_occurred(Oid log, text *stream, int64 upto,
						  TimestampTz until, Snapshot snapshot)
{
	StreamScan *scan = make_stream_scan(log);

	read_stream_by_sql(scan, stream, 0, upto, until, snapshot,
					   "AND " HAPPENED_AT " <= $4"
					   " ORDER BY " HAPPENED_AT ", e.version");
	return scan;
}

/* Takes the next event of a walk into the slot.  Returns false after the last one. */
static bool
take_from_walk(StreamScan *scan)
{
	HeapTuple	row = row_walk_next(scan->walk);

	if (row == NULL)
		return false;
	row_walk_store(scan->walk, row, scan->slot);
	event_row_deform(row, scan->slot);
	return true;
}

TupleTableSlot *
stream_scan_next(StreamScan *scan)
{
	bool		found;

	if (scan->walk != NULL)
		found = take_from_walk(scan);
	else if (scan->index != NULL)
		found = index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
	else
		found = tuplestore_gettupleslot(scan->store, true, false, scan->slot);
	return found ? scan->slot : NULL;
}

void
stream_scan_close(StreamScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	if (scan->walk != NULL)
		row_walk_end(scan->walk);
	if (scan->index != NULL)
	{
		index_endscan(scan->scan);
		index_close(scan->index, AccessShareLock);
	}
	else
		tuplestore_end(scan->store);
	table_close(scan->log, AccessShareLock);
	pfree(scan);
}
