/*-------------------------------------------------------------------------
 *
 * source_scan.c
 *		Reads the next events of a source by the indexes of the log.
 *
 * All events are looked up in the index of positions.  Those of a category are looked
 * up in the index of categories and positions, those of several by a scan of it for
 * each of them: the scans are merged in the order of positions, so that no more is
 * read than the events that come next, however rare a category is.  What is not in an
 * index is checked of each event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

/* So many events are looked at before time may be over, and each time again. */
#define EXAMINED_AT_LEAST	1024

/* A scan of the index, and its next event. */
typedef struct SourceArm
{
	IndexScanDesc scan;
	TupleTableSlot *slot;
	int64		position;		/* of the event in the slot */
	bool		ended;
} SourceArm;

/* The scans of a source. */
typedef struct SourceScan
{
	const EventSource *source;
	Relation	log;
	Relation	index;
	TextSet		types;
	int			count;
	SourceArm  *arms;
} SourceScan;

/*
 * Begins one scan for events after a position and up to another.  category: 0 for
 * the index of positions.
 */
static void
begin_arm(const SourceScan *scan, SourceArm *arm, Snapshot snapshot, Datum category,
		  int64 after, int64 upto)
{
	ScanKeyData keys[3];
	int			count = 0;

	if (category != 0)
		table_row_key(&keys[count++], scan->index, 1, BTEqualStrategyNumber, F_TEXTEQ,
					  category);
	table_row_key(&keys[count], scan->index, count + 1, BTGreaterStrategyNumber,
				  F_INT8GT, Int64GetDatum(after));
	table_row_key(&keys[count + 1], scan->index, count + 1, BTLessEqualStrategyNumber,
				  F_INT8LE, Int64GetDatum(upto));
	count += 2;
	arm->slot = table_slot_create(scan->log, NULL);
	arm->scan = compat_index_beginscan(scan->log, scan->index, snapshot, count);
	index_rescan(arm->scan, keys, count, NULL, 0);
}

/* Begins the scans.  Returns false if there is no index. */
static bool
begin_source_scan(SourceScan *scan, const EventSource *source, Relation log,
				  Snapshot snapshot, int64 after, int64 upto)
{
	TextSet		categories = text_set_make(source->categories);
	int			i;

	scan->source = source;
	scan->log = log;
	scan->index = source->categories ? log_index_open_category(log) :
		log_index_open_position(log);
	if (scan->index == NULL)
		return false;
	scan->types = text_set_make(source->types);
	scan->count = source->categories ? categories.count : 1;
	scan->arms = palloc0(sizeof(SourceArm) * scan->count);
	for (i = 0; i < scan->count; i++)
		begin_arm(scan, &scan->arms[i], snapshot,
				  source->categories ? categories.values[i] : (Datum) 0, after, upto);
	return true;
}

static void
end_source_scan(SourceScan *scan)
{
	int			i;

	for (i = 0; i < scan->count; i++)
	{
		index_endscan(scan->arms[i].scan);
		ExecDropSingleTupleTableSlot(scan->arms[i].slot);
	}
	index_close(scan->index, AccessShareLock);
}

/* Fetches the next event of one scan. */
static void
advance_arm(SourceArm *arm)
{
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (index_getnext_slot(arm->scan, ForwardScanDirection, arm->slot))
		arm->position = DatumGetInt64(slot_getattr(arm->slot, Anum_es_events_position,
												   &isnull));
	else
		arm->ended = true;
}

/* Returns the scan whose event is the next of all; NULL if all have ended. */
static SourceArm *
first_arm(const SourceScan *scan)
{
	SourceArm  *first = NULL;
	int			i;

	for (i = 0; i < scan->count; i++)
	{
		SourceArm  *arm = &scan->arms[i];

		if (!arm->ended && (first == NULL || arm->position < first->position))
			first = arm;
	}
	return first;
}

/* Returns true if the event meets the conditions that are not in the index. */
static bool
is_of_source(const SourceScan *scan, TupleTableSlot *slot)
{
	const EventSource *source = scan->source;
	bool		isnull;

	if (source->partitions > 1 &&
		stream_partition(DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream,
													 &isnull)),
						 source->partitions) != source->partition)
		return false;
	if (source->types != NULL &&
		!text_set_has_type(&scan->types,
						   DatumGetTextPP(slot_getattr(slot, Anum_es_events_type,
													   &isnull))))
		return false;
	return source->except.count == 0 ||
		!int8_array_has(&source->except,
						DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
												   &isnull)));
}

/* Adds the event to the batch.  Returns false if it has too many bytes for that. */
static bool
add_event(TupleTableSlot *slot, const ReadLimit *limit, EventBatch *batch)
{
	if (limit->bytes > 0)
	{
		batch->bytes += event_slot_bytes(slot);
		if (batch->bytes > limit->bytes && batch->count > 0)
			return false;
	}
	tuplestore_puttupleslot(batch->events, slot);
	batch->count++;
	return true;
}

/* Returns true if no more is to be read after so many events. */
static bool
is_time_over(const ReadLimit *limit, int64 examined)
{
	return limit->deadline != NULL && examined % EXAMINED_AT_LEAST == 0 &&
		sleep_left(limit->deadline) == 0;
}

/* Reads until the limit is reached; batch->upto is already that of all. */
static void
read_arms(SourceScan *scan, const ReadLimit *limit, int64 after, EventBatch *batch)
{
	SourceArm  *arm;
	int64		examined = 0;
	int64		last = after;

	while ((arm = first_arm(scan)) != NULL)
	{
		if (is_of_source(scan, arm->slot))
		{
			if (!add_event(arm->slot, limit, batch))
			{
				batch->upto = last;
				break;
			}
			last = arm->position;
		}
		if (batch->count == limit->count || is_time_over(limit, ++examined))
		{
			batch->upto = arm->position;
			break;
		}
		advance_arm(arm);
	}
}

bool
source_scan_read(const EventSource *source, Relation log, Snapshot snapshot, int64 after,
				 int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	SourceScan	scan;
	int			i;

	if (!begin_source_scan(&scan, source, log, snapshot, after, upto))
		return false;
	for (i = 0; i < scan.count; i++)
		advance_arm(&scan.arms[i]);
	read_arms(&scan, limit, after, batch);
	end_source_scan(&scan);
	return true;
}
