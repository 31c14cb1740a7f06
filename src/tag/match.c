/*-------------------------------------------------------------------------
 *
 * match.c
 *		Finds the events that match a query, in the order of their positions.
 *
 * An item with tags is looked up in es_tags, whose key is (tag, position).  There is a
 * scan for each of its tags, and all of them are moved to the greatest position that any
 * of them has reached, until they agree.  So a rare tag beside a frequent one costs as much
 * as the rare one has entries.  The type is in the entry.
 *
 * An item without tags walks the log in the order of positions, and looks at types.
 *
 * The items are merged: of all their next positions the first one is returned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "log/tags.h"
#include "tag/tag.h"

/* So many entries are walked before the index is searched anew. */
#define MAX_STEPS	8

/* The entries of one tag, or all events. */
typedef struct PositionScan
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	Datum		tag;			/* 0: all events */
	int			position_column;	/* of the table */
	int			type_column;
	int64		position;		/* of the entry in the slot */
	bool		begun;
	bool		ended;
} PositionScan;

/* An item of the query. */
typedef struct ItemScan
{
	const QueryItem *item;
	PositionScan *scans;		/* one for each tag; one for all events */
	int			count;
	int64		position;		/* of the next event; 0: none is left */
} ItemScan;

struct Match
{
	MatchRange	range;
	Relation	log;
	Relation	entries;		/* es_tags */
	Relation	position_index; /* of the log */
	Relation	tag_index;
	ItemScan   *items;
	int			count;
};

/* Returns true if the one position comes before the other in the direction. */
static bool
is_before(const Match *match, int64 one, int64 other)
{
	return match->range.backward ? one > other : one < other;
}

/* Returns true if the range has the position. */
static bool
is_in_range(const Match *match, int64 position)
{
	return position > match->range.after && position <= match->range.upto;
}

/* Opens a scan. */
static void
open_scan(const Match *match, PositionScan *scan, Datum tag, Snapshot snapshot)
{
	bool		tagged = tag != (Datum) 0;

	scan->tag = tag;
	scan->table = tagged ? match->entries : match->log;
	scan->index = tagged ? match->tag_index : match->position_index;
	scan->position_column = tagged ? Anum_es_tags_position : Anum_es_events_position;
	scan->type_column = tagged ? Anum_es_tags_type : Anum_es_events_type;
	scan->slot = table_slot_create(scan->table, NULL);
	scan->scan = compat_index_beginscan(scan->table, scan->index, snapshot, tagged ? 2 : 1);
}

/* Searches the index for the first position that does not come before this one. */
static void
restart_scan(const Match *match, PositionScan *scan, int64 from)
{
	bool		backward = match->range.backward;
	ScanKeyData keys[2];
	int			count = 0;

	if (scan->tag != (Datum) 0)
		table_row_key(&keys[count++], scan->index, 1, BTEqualStrategyNumber, F_TEXTEQ, scan->tag);
	table_row_key(&keys[count], scan->index, count + 1,
				  backward ? BTLessEqualStrategyNumber : BTGreaterEqualStrategyNumber,
				  backward ? F_INT8LE : F_INT8GE, Int64GetDatum(from));
	index_rescan(scan->scan, keys, count + 1, NULL, 0);
	scan->begun = true;
}

/* Takes the next entry. */
static void
step_scan(const Match *match, PositionScan *scan)
{
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	scan->ended = !index_getnext_slot(scan->scan, match->range.backward ? BackwardScanDirection :
									  ForwardScanDirection, scan->slot);
	if (scan->ended)
		return;
	scan->position = DatumGetInt64(slot_getattr(scan->slot, scan->position_column, &isnull));
	scan->ended = !is_in_range(match, scan->position);
}

/*
 * Moves the scan to the first entry that does not come before the position.  Entries that
 * lie near are walked over, others searched for.  Returns false if there is none.
 */
static bool
seek_scan(const Match *match, PositionScan *scan, int64 from)
{
	int			steps = 0;

	while (!scan->ended && (!scan->begun || is_before(match, scan->position, from)))
	{
		if (!scan->begun || ++steps > MAX_STEPS)
		{
			restart_scan(match, scan, from);
			steps = 0;
		}
		step_scan(match, scan);
	}
	return !scan->ended;
}

/* Returns true if the event at which the scans are is of a type of the item. */
static bool
has_type(const ItemScan *item)
{
	const PositionScan *scan = &item->scans[0];
	bool		isnull;

	return item->item->types.array == NULL ||
		text_set_has_type(&item->item->types,
						  DatumGetTextPP(slot_getattr(scan->slot, scan->type_column, &isnull)));
}

/*
 * Moves all scans of the item to the first position from this one on that all of them
 * have.  Returns it; 0 if there is none.
 */
static int64
agree_from(const Match *match, ItemScan *item, int64 from)
{
	int			agreed = 0;
	int			i;

	for (i = 0; agreed < item->count; i = (i + 1) % item->count)
	{
		if (!seek_scan(match, &item->scans[i], from))
			return 0;
		agreed = item->scans[i].position == from ? agreed + 1 : 1;
		from = item->scans[i].position;
	}
	return from;
}

/* Moves the item to its next event from the position on. */
static void
seek_item(const Match *match, ItemScan *item, int64 from)
{
	int			step = match->range.backward ? -1 : 1;

	while ((item->position = agree_from(match, item, from)) != 0 && !has_type(item))
		from = item->position + step;
}

/* Opens the scans of an item. */
static void
open_item(const Match *match, ItemScan *scan, const QueryItem *item, Snapshot snapshot)
{
	int			i;

	scan->item = item;
	scan->count = Max(item->tags.count, 1);
	scan->scans = palloc0(sizeof(PositionScan) * scan->count);
	for (i = 0; i < scan->count; i++)
		open_scan(match, &scan->scans[i],
				  item->tags.array == NULL ? (Datum) 0 : item->tags.values[i], snapshot);
}

/*
 * Begins to look for events.
 */
Match *
match_begin(Oid log, const EventQuery *query, const MatchRange *range, Snapshot snapshot)
{
	Match	   *match = palloc0(sizeof(Match));
	int			i;

	match->range = *range;
	match->log = table_open(log, AccessShareLock);
	match->entries = table_open(tag_entry_table(log), AccessShareLock);
	match->position_index = log_index_open_position(match->log);
	match->tag_index = index_open(compat_primary_key_index(match->entries), AccessShareLock);
	match->items = palloc0(sizeof(ItemScan) * query->count);
	match->count = query->count;
	for (i = 0; i < match->count; i++)
	{
		open_item(match, &match->items[i], &query->items[i], snapshot);
		seek_item(match, &match->items[i], range->backward ? range->upto : range->after + 1);
	}
	return match;
}

/*
 * Returns the position of the next event; 0 after the last one.
 */
int64
match_next(Match *match)
{
	int64		next = 0;
	int			i;

	for (i = 0; i < match->count; i++)
	{
		int64		position = match->items[i].position;

		if (position != 0 && (next == 0 || is_before(match, position, next)))
			next = position;
	}
	for (i = 0; next != 0 && i < match->count; i++)
	{
		if (match->items[i].position == next)
			seek_item(match, &match->items[i], match->range.backward ? next - 1 : next + 1);
	}
	return next;
}

/*
 * Ends it.
 */
void
match_end(Match *match)
{
	int			i;
	int			j;

	for (i = 0; i < match->count; i++)
	{
		for (j = 0; j < match->items[i].count; j++)
		{
			index_endscan(match->items[i].scans[j].scan);
			ExecDropSingleTupleTableSlot(match->items[i].scans[j].slot);
		}
	}
	index_close(match->tag_index, AccessShareLock);
	index_close(match->position_index, AccessShareLock);
	table_close(match->entries, AccessShareLock);
	table_close(match->log, AccessShareLock);
	pfree(match);
}
