/*-------------------------------------------------------------------------
 *
 * source_scan.c
 *		Reads the next events of a source by the indexes of the log.
 *
 * All events are looked up in the index of positions.  Those of a category are looked
 * up in the index of categories and positions, those of several by a scan of it for
 * each of them: the scans are merged in the order of positions, so that no more is
 * read than the events that come next, however rare a category is.  Those of a query
 * that has indexes are looked up by these (src/tag/match.c).  What is not in an
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
#include "log/removed.h"
#include "read/read.h"
#include "read/source.h"

/* So many events are looked at before time may be over, and each time again. */
#define EXAMINED_AT_LEAST	1024

/*
 * Where so much of the log lies ahead, the scan of positions has no upper bound, which
 * the index would check of each entry.  Before that, it must have one: rows above the
 * horizon, of an import that is open, are invisible, and a scan would pass over all.
 */
#define FAR_AHEAD		4096

/*
 * Positions in which the matches of a query are looked up before time may be over.  Events
 * that have one of its tags alone are passed over meanwhile, which may be all of them.
 */
#define FIRST_WINDOW	(64 * 1024)
#define MAX_ROUND		30

/* A scan of the index, and its next event. */
typedef struct SourceArm
{
	IndexScanDesc scan;
	Match	   *match;			/* gives the positions that are looked up;
								 * NULL: none does */
	RowWalk    *walk;			/* NULL: the server's scan fetches the rows */
	HeapTuple	row;			/* of a walk */
	TupleTableSlot *slot;
	int64		position;		/* of the event */
	int64		bounded_from;	/* after here the scan needs an upper bound */
	int64		upto;
	bool		ended;
} SourceArm;

/* The scans of a source. */
typedef struct SourceScan
{
	const EventSource *source;
	Relation	log;
	Relation	index;
	bool		by_match;		/* are they looked up by the query? */
	TextSet		categories;
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
	scan->by_match = query_is_indexed(log, source->query);
	scan->index = source->categories && !scan->by_match ? log_index_open_category(log) :
		log_index_open_position(log);
	return scan->index != NULL;
}

/*
 * Sets the scan to events after a position.  category: 0 for the index of positions.  A
 * scan without an upper bound has the lower one twice, as its keys cannot be fewer.
 */
static void
set_arm(SourceArm *arm, Datum category, int64 after)
{
	Relation	index = arm->scan->indexRelation;
	bool		bounded = category != 0 || arm->upto - after <= FAR_AHEAD;
	int			column = category != 0 ? 2 : 1;
	ScanKeyData keys[3];
	int			count = 0;

	if (category != 0)
		table_row_key(&keys[count++], index, 1, BTEqualStrategyNumber, F_TEXTEQ,
					  category);
	table_row_key(&keys[count++], index, column, BTGreaterStrategyNumber, F_INT8GT,
				  Int64GetDatum(after));
	if (bounded)
		table_row_key(&keys[count++], index, column, BTLessEqualStrategyNumber, F_INT8LE,
					  Int64GetDatum(arm->upto));
	else
		keys[count++] = keys[0];
	arm->bounded_from = bounded ? PG_INT64_MAX : arm->upto - FAR_AHEAD;
	index_rescan(arm->scan, keys, count, NULL, 0);
}

/* Begins one scan for events after a position and up to another. */
static void
begin_arm(const SourceScan *scan, SourceArm *arm, Snapshot snapshot, Datum category,
		  int64 after, int64 upto)
{
	arm->slot = table_slot_create(scan->log, NULL);
	arm->scan = compat_index_beginscan(scan->log, scan->index, snapshot,
									   category != 0 ? 3 : 2);
	arm->walk = event_row_is_usual(scan->log) ?
		row_walk_begin(scan->log, arm->scan) : NULL;
	arm->upto = upto;
	set_arm(arm, category, after);
}

/* Begins to look up the events that match the query. */
static void
begin_match_arm(const SourceScan *scan, SourceArm *arm, Snapshot snapshot, int64 after,
				int64 upto)
{
	MatchRange	range = {.after = after,.upto = upto};

	arm->slot = table_slot_create(scan->log, NULL);
	arm->scan = compat_index_beginscan(scan->log, scan->index, snapshot, 1);
	arm->match = match_begin(RelationGetRelid(scan->log), scan->source->query, &range, snapshot);
	arm->bounded_from = PG_INT64_MAX;
}

/* Begins the scans. */
static void
begin_source_scan(SourceScan *scan, Snapshot snapshot, int64 after, int64 upto)
{
	const TextSet *categories = &scan->categories;
	bool		by_category = categories->array != NULL && !scan->by_match;
	int			i;

	scan->count = by_category ? categories->count : 1;
	scan->arms = palloc0(sizeof(SourceArm) * scan->count);
	if (scan->by_match)
		begin_match_arm(scan, &scan->arms[0], snapshot, after, upto);
	for (i = 0; !scan->by_match && i < scan->count; i++)
		begin_arm(scan, &scan->arms[i], snapshot,
				  by_category ? categories->values[i] : (Datum) 0, after, upto);
}

static void
end_arm(SourceArm *arm)
{
	if (arm->match != NULL)
		match_end(arm->match);
	if (arm->walk != NULL)
		row_walk_end(arm->walk);
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

/* Looks the event at a position up.  Returns false if it is not there any more. */
static bool
fetch_at(SourceArm *arm, int64 position)
{
	ScanKeyData key;

	table_row_key(&key, arm->scan->indexRelation, 1, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(position));
	index_rescan(arm->scan, &key, 1, NULL, 0);
	return index_getnext_slot(arm->scan, ForwardScanDirection, arm->slot);
}

/* Fetches the next event that matches the query. */
static void
fetch_match(SourceArm *arm)
{
	do
	{
		CHECK_FOR_INTERRUPTS();
		arm->position = match_next(arm->match);
		arm->ended = arm->position == 0;
	} while (!arm->ended && !fetch_at(arm, arm->position));
}

/* Fetches the next event of one scan. */
static void
fetch_next(SourceArm *arm)
{
	bool		isnull;

	if (arm->match != NULL)
	{
		fetch_match(arm);
		return;
	}
	if (arm->walk != NULL)
	{
		arm->row = row_walk_next(arm->walk);
		arm->ended = arm->row == NULL;
		if (!arm->ended)
			arm->position = event_row_position(arm->row);
		return;
	}
	CHECK_FOR_INTERRUPTS();
	if (index_getnext_slot(arm->scan, ForwardScanDirection, arm->slot))
		arm->position = DatumGetInt64(slot_getattr(arm->slot, Anum_es_events_position,
												   &isnull));
	else
		arm->ended = true;
}

/* The same; near the end the scan begins anew with an upper bound. */
static void
advance_arm(SourceArm *arm)
{
	fetch_next(arm);
	if (arm->ended || arm->position <= arm->bounded_from)
		return;
	set_arm(arm, (Datum) 0, arm->bounded_from);
	if (arm->walk != NULL)
		row_walk_restart(arm->walk);
	fetch_next(arm);
}

/* Returns the slot with the event. */
static TupleTableSlot *
arm_slot(SourceArm *arm)
{
	if (arm->row != NULL)
		row_walk_store(arm->walk, arm->row, arm->slot);
	arm->row = NULL;
	return arm->slot;
}

/* Returns the stream of the event. */
static text *
arm_stream(const SourceArm *arm)
{
	bool		isnull;

	return arm->row != NULL ? event_row_stream(arm->row) :
		DatumGetTextPP(slot_getattr(arm->slot, Anum_es_events_stream, &isnull));
}

/*
 * Returns true if the event is of a type of the source, or a notice of such an event, and
 * matches its query: whatever the scan does not give by itself.
 */
static bool
has_type_and_tags(const SourceScan *scan, SourceArm *arm)
{
	const EventQuery *query = arm->match == NULL ? scan->source->query : NULL;
	TupleTableSlot *slot;

	if (scan->types.array == NULL && query == NULL)
		return true;
	slot = arm_slot(arm);
	return notice_or_event_has_type(slot, &scan->types) && query_matches(query, slot);
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
is_of_source(const SourceScan *scan, SourceArm *arm, PartitionMap *map)
{
	const EventSource *source = scan->source;
	int			partition = source->partition;

	if (source->partitions > 1)
		partition = stream_partition(arm_stream(arm), source->partitions);
	if (map == NULL && partition != source->partition)
		return false;
	if (scan->by_match && !text_set_has_category(&scan->categories, arm_stream(arm)))
		return false;
	if (!has_type_and_tags(scan, arm))
		return false;
	if (map != NULL)
		partition_map_add(map, arm->position, partition,
						  arm->row != NULL ? &arm->row->t_self : &arm->slot->tts_tid);
	return partition == source->partition &&
		(source->except.count == 0 || !int8_array_has(&source->except, arm->position));
}

/* Adds the event to the batch.  Returns false if it has too many bytes for that. */
static bool
add_event(SourceArm *arm, const ReadLimit *limit, EventBatch *batch)
{
	if (limit->bytes > 0)
	{
		batch->bytes += arm->row != NULL ? event_row_bytes(arm->row) :
			event_slot_bytes(arm->slot);
		if (batch->bytes > limit->bytes && batch->count > 0)
			return false;
	}
	if (batch->take != NULL)
		batch->take(batch->taker, arm_slot(arm));
	else
		tuplestore_puttupleslot(batch->events, arm_slot(arm));
	batch->last = arm->position;
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
		if (is_of_source(scan, arm, NULL))
		{
			if (!add_event(arm, limit, batch))
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
		wanted = is_of_source(scan, arm, map) && arm->position > after;
		partition_map_extend(map, arm->position);
		if (wanted && !add_event(arm, limit, batch))
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
	bool		more = false;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	arm->ended = false;
	arm->position = position;
	if (ItemPointerGetBlockNumber(place) < blocks &&
		table_index_fetch_tuple(rows, place, arm->scan->xs_snapshot, arm->slot, &more, NULL) &&
		DatumGetInt64(slot_getattr(arm->slot, Anum_es_events_position, &isnull)) == position)
		return;
	arm->ended = !fetch_at(arm, position);
}

/*
 * Looks up the next events of the partition among those that the map knows.  Returns
 * false if the limit is reached.
 */
static bool
read_known(SourceScan *scan, const PartitionMap *map, Snapshot snapshot, int64 after,
		   int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	Relation	index = scan->source->categories && !scan->by_match ?
	log_index_open_position(scan->log) : scan->index;
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
		if (!arm.ended && is_of_source(scan, &arm, NULL) &&
			!add_event(&arm, limit, batch))
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

int64
source_window(const ReadLimit *limit, int64 after, int64 upto, int round)
{
	int64		length = (int64) FIRST_WINDOW << Min(round, MAX_ROUND);

	return limit->deadline == NULL || upto - after <= length ? upto : after + length;
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

/* Does the same for the matches of a query, some positions at a time. */
static void
read_by_matches(SourceScan *scan, PartitionMap *map, Snapshot snapshot, int64 after,
				int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	int64		to = map ? Max(after, partition_map_end(map)) : after;
	int			round = 0;

	do
	{
		int64		from = to;

		to = source_window(limit, from, upto, round++);
		batch->upto = to;
		read_by_arms(scan, map, snapshot, from, limit, batch);
	} while (batch->upto == to && to < upto && batch->count < limit->count &&
			 sleep_left(limit->deadline) > 0);
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
	scan.categories = text_set_make(source->categories);
	scan.types = text_set_make(source->types);
	if (map != NULL &&
		(!partition_map_open(map, after, upto) ||
		 !partition_map_is_true(map, log, snapshot, after, upto)))
		map = NULL;
	if (map != NULL && after < partition_map_end(map))
		ended = !read_known(&scan, map, snapshot, after, upto, limit, batch) ||
			upto <= partition_map_end(map);
	if (!ended && scan.by_match)
		read_by_matches(&scan, map, snapshot, after, upto, limit, batch);
	else if (!ended)
		read_by_arms(&scan, map, snapshot, after, limit, batch);
	index_close(scan.index, AccessShareLock);
	return true;
}
