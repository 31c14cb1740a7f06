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
#include "storage/bufmgr.h"
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

/* Opens the index of the source.  Returns false if it is missing. */
static bool
open_source_index(SourceScan *scan, const EventSource *source, Relation log)
{
	scan->source = source;
	scan->log = log;
	scan->index = source->categories ? log_index_open_category(log) :
		log_index_open_position(log);
	return scan->index != NULL;
}

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

/* Begins the scans. */
static void
begin_source_scan(SourceScan *scan, Snapshot snapshot, int64 after, int64 upto)
{
	ArrayType  *array = scan->source->categories;
	TextSet		categories = text_set_make(array);
	int			i;

	scan->count = array ? categories.count : 1;
	scan->arms = palloc0(sizeof(SourceArm) * scan->count);
	for (i = 0; i < scan->count; i++)
		begin_arm(scan, &scan->arms[i], snapshot, array ? categories.values[i] : (Datum) 0,
				  after, upto);
}

static void
end_arm(SourceArm *arm)
{
	index_endscan(arm->scan);
	ExecDropSingleTupleTableSlot(arm->slot);
}

static void
end_source_scan(SourceScan *scan)
{
	int			i;

	for (i = 0; i < scan->count; i++)
		end_arm(&scan->arms[i]);
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

/*
 * Returns true if the event meets the conditions that are not in the index.  If its
 * partition is wanted or not, the map gets it.
 */
static bool
is_of_source(const SourceScan *scan, TupleTableSlot *slot, PartitionMap *map)
{
	const EventSource *source = scan->source;
	int			partition = source->partition;
	int64		position;
	bool		isnull;

	if (source->partitions > 1)
		partition = stream_partition(DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream,
																 &isnull)),
									 source->partitions);
	if (map == NULL && partition != source->partition)
		return false;
	if (source->types != NULL &&
		!text_set_has_type(&scan->types,
						   DatumGetTextPP(slot_getattr(slot, Anum_es_events_type,
													   &isnull))))
		return false;
	if (map == NULL && source->except.count == 0)
		return true;
	position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull));
	if (map != NULL)
		partition_map_add(map, position, partition, &slot->tts_tid);
	return partition == source->partition &&
		(source->except.count == 0 || !int8_array_has(&source->except, position));
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
		if (is_of_source(scan, arm->slot, NULL))
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

/*
 * Does the same for one partition of many, and adds the events of all to the map.
 * Where the map is full, it ends with what there is.
 */
static void
read_arms_to_map(SourceScan *scan, PartitionMap *map, const ReadLimit *limit, int64 after,
				 EventBatch *batch)
{
	SourceArm  *arm;
	int64		examined = 0;

	while ((arm = first_arm(scan)) != NULL)
	{
		bool		wanted;

		if (batch->count > 0 && partition_map_is_full(map))
			break;
		wanted = is_of_source(scan, arm->slot, map) && arm->position > after;
		partition_map_extend(map, arm->position);
		if (wanted && !add_event(arm->slot, limit, batch))
		{
			batch->upto = arm->position - 1;
			return;
		}
		if (batch->count == limit->count || is_time_over(limit, ++examined))
			break;
		advance_arm(arm);
	}
	if (arm == NULL)
		partition_map_extend(map, batch->upto);
	batch->upto = Max(after, partition_map_end(map));
}

/*
 * Fetches the event at a position: from the place where its row was, or else by the
 * index.  The slot is empty if the event is not there any more.  blocks: so many
 * the table has now; it may have had more.
 */
static void
fetch_known(SourceArm *arm, IndexFetchTableData *rows, BlockNumber blocks,
			ItemPointer place, int64 position)
{
	ScanKeyData key;
	bool		more = false;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	arm->ended = false;
	if (ItemPointerGetBlockNumber(place) < blocks &&
		table_index_fetch_tuple(rows, place, arm->scan->xs_snapshot, arm->slot, &more, NULL) &&
		DatumGetInt64(slot_getattr(arm->slot, Anum_es_events_position, &isnull)) == position)
		return;
	table_row_key(&key, arm->scan->indexRelation, 1, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(position));
	index_rescan(arm->scan, &key, 1, NULL, 0);
	advance_arm(arm);
}

/*
 * Looks up the next events of the partition among those that the map knows.  Returns
 * false if the limit is reached.
 */
static bool
read_known(SourceScan *scan, const PartitionMap *map, Snapshot snapshot, int64 after,
		   int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	Relation	index = scan->source->categories ? log_index_open_position(scan->log) :
	scan->index;
	SourceArm	arm = {
		.scan = compat_index_beginscan(scan->log, index, snapshot, 1),
		.slot = table_slot_create(scan->log, NULL)
	};
	IndexFetchTableData *rows = table_index_fetch_begin(scan->log);
	BlockNumber blocks = RelationGetNumberOfBlocks(scan->log);
	ItemPointerData place;
	int64		examined = 0;
	int64		position;
	int			next = -1;
	bool		ended = false;

	while (!ended &&
		   (position = partition_map_next(map, scan->source->partition, after, &next,
										  &place)) <= upto)
	{
		fetch_known(&arm, rows, blocks, &place, position);
		if (!arm.ended && is_of_source(scan, arm.slot, NULL) &&
			!add_event(arm.slot, limit, batch))
		{
			batch->upto = position - 1;
			ended = true;
		}
		else if (batch->count == limit->count || is_time_over(limit, ++examined))
		{
			batch->upto = position;
			ended = true;
		}
	}
	table_index_fetch_end(rows);
	end_arm(&arm);
	if (index != scan->index)
		index_close(index, AccessShareLock);
	return !ended;
}

/* Reads what comes after a position by the scans of the source. */
static void
read_by_arms(SourceScan *scan, PartitionMap *map, Snapshot snapshot, int64 after,
			 const ReadLimit *limit, EventBatch *batch)
{
	int			i;

	begin_source_scan(scan, snapshot, map ? partition_map_end(map) : after, batch->upto);
	for (i = 0; i < scan->count; i++)
		advance_arm(&scan->arms[i]);
	if (map != NULL)
		read_arms_to_map(scan, map, limit, after, batch);
	else
		read_arms(scan, limit, after, batch);
	end_source_scan(scan);
}

bool
source_scan_read(const EventSource *source, Relation log, Snapshot snapshot, int64 after,
				 int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	PartitionMap *map = partition_map_find(source, log);
	SourceScan	scan;
	bool		ended = false;

	if (!open_source_index(&scan, source, log))
		return false;
	scan.types = text_set_make(source->types);
	if (map != NULL && !partition_map_open(map, after, upto))
		map = NULL;
	if (map != NULL && after < partition_map_end(map))
		ended = !read_known(&scan, map, snapshot, after, upto, limit, batch) ||
			upto <= partition_map_end(map);
	if (!ended)
		read_by_arms(&scan, map, snapshot, after, limit, batch);
	index_close(scan.index, AccessShareLock);
	return true;
}
