/*-------------------------------------------------------------------------
 *
 * source.h
 *		How the next events of a source are found in the log: maps of partitions,
 *		walks along an index, columns of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_SOURCE_H
#define EVENTSTORE_SOURCE_H

#include "access/htup.h"
#include "access/relscan.h"

#include "read/read.h"

/* partition_map.c: which partitions the events of a range belong to */

typedef struct PartitionMap PartitionMap;

/* Returns the session's map of the subscription's partitions; NULL if there are few. */
extern PartitionMap *partition_map_find(const EventSource *source, Relation log);

/* Forgets all maps of the session. */
extern void partition_map_forget(void);

/*
 * Prepares the map for a read of what lies after one position and not beyond another.
 * Returns false if it is to be read without the map.
 */
extern bool partition_map_open(PartitionMap *map, int64 after, int64 upto);

/*
 * Returns true if what the map knows after one position and up to another is so for the
 * snapshot.  Otherwise it is to be read without the map.
 */
extern bool partition_map_is_true(const PartitionMap *map, Relation log, Snapshot snapshot,
								  int64 after, int64 upto);

/* Returns the position up to which the map knows all events. */
extern int64 partition_map_end(const PartitionMap *map);

/*
 * Returns true if the map knows that the partition has no event after one position and
 * up to another.
 */
extern bool partition_map_has_none(const PartitionMap *map, int partition, int64 after,
								   int64 upto);

/*
 * Returns the position of the partition's next event that the map knows; PG_INT64_MAX
 * after the last one.  next: where to go on; at first -1, for what follows a position.
 * place: where the row was.
 */
extern int64 partition_map_next(const PartitionMap *map, int partition, int64 after,
								int *next, ItemPointer place);

/* Returns true if the next event that is added makes it forget others. */
extern bool partition_map_is_full(const PartitionMap *map);

/* Adds the next event. */
extern void partition_map_add(PartitionMap *map, int64 position, int partition,
							  ItemPointer place);

/* Says that the map knows all events up to the position. */
extern void partition_map_extend(PartitionMap *map, int64 position);

/* event_row.c: columns of a stored event, straight from its row */

/* Returns true if rows of the log are what the functions below take them for. */
extern bool event_row_is_usual(Relation log);

extern int64 event_row_position(HeapTuple row);
extern text *event_row_stream(HeapTuple row);

/* Sets the first columns of the slot with the row: slot_getsomeattrs(), but sooner. */
extern void event_row_deform(HeapTuple row, TupleTableSlot *slot);

/* The same as event_slot_bytes(). */
extern int64 event_row_bytes(HeapTuple row);

/* Columns of fixed length that come before those of an event, as a tuple has them. */
typedef struct EventRowPrefix
{
	int			columns;
	Size		size;			/* a multiple of 8 bytes */
	const char *data;
} EventRowPrefix;

/* More than so many bytes does a composed tuple not need, beside those of the row. */
#define EVENT_ROW_EXTRA(prefix_size) ((prefix_size) + 64)

/*
 * Makes a tuple of the prefix and an es_recorded_event; its t_data has room.  The row has
 * no columns but those of the extension.
 */
extern void event_row_compose(HeapTuple row, const EventRowPrefix *prefix,
							  HeapTuple composed);

/* row_walk.c: rows that an index scan leads to, a page at a time */

typedef struct RowWalk RowWalk;

/* Returns true if the table is stored as the server stores tables. */
extern bool row_walk_is_possible(Relation table);

/* Begins a walk along the scan, whose snapshot is registered. */
extern RowWalk *row_walk_begin(Relation table, IndexScanDesc scan);
extern void row_walk_end(RowWalk *walk);

/* Forgets what was taken from the scan, which has begun anew. */
extern void row_walk_restart(RowWalk *walk);

/* Returns the next row, which lasts until the next call; NULL after the last one. */
extern HeapTuple row_walk_next(RowWalk *walk);

/* Puts it into a slot of the table. */
extern void row_walk_store(RowWalk *walk, HeapTuple row, TupleTableSlot *slot);

/* source_scan.c: the same by the indexes of the log */

/*
 * Returns the position up to which the matches of a query are looked up next, in the rounds
 * of a read from 0: each goes twice as far as the last one, if time may be over, and else
 * to the end.
 */
extern int64 source_window(const ReadLimit *limit, int64 after, int64 upto, int round);

/* Does the same.  Returns false if the index is not there that it needs. */
extern bool source_scan_read(const EventSource *source, Relation log,
							 Snapshot snapshot, int64 after, int64 upto,
							 const ReadLimit *limit, EventBatch *batch);

#endif							/* EVENTSTORE_SOURCE_H */
