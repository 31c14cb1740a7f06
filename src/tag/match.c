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
 * An item of types without tags is looked up in the indexes of these types (es_index_type),
 * and their next positions are merged.  If a type has none, it walks the log in the order of
 * positions, and looks at types.
 *
 * A notice (log/notice.c) has the tags of all events that it stands for, and is of their types.
 * Its entry has its own type, so that its data are read.  The indexes of types do not have it:
 * once something was removed, an item that is looked up there looks for notices in es_removals,
 * too.
 *
 * The items are merged: of all their next positions the first one is returned.  Nothing is
 * looked up before it is asked for: the event beyond the last one that is wanted may be far.
 *
 * All but a walk of the log that looks at types take what they need from the index, and look at
 * the row only if the visibility map does not say that everybody sees it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/tags.h"
#include "tag/tag.h"

/* So many entries are walked before the index is searched anew. */
#define MAX_STEPS	8

/*
 * If there are more scans, none keeps its page of the table pinned: the server looks up a
 * pin among all that there are of the page, and that takes longer than to pin it anew.
 */
#define MAX_PINNED	64

/* The entries of one tag, the events of one type, or all events. */
typedef struct PositionScan
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	Buffer	   *visible;		/* of the visibility map, for all scans of the
								 * table */
	Datum		tag;			/* 0: none */
	bool		has_row;		/* is the row read, as the type is not in the
								 * index? */
	int64		position;		/* of the entry */
	bool		begun;
	bool		ended;
} PositionScan;

/* An item of the query. */
typedef struct ItemScan
{
	const QueryItem *item;
	PositionScan *scans;		/* one for each tag or type; one for all
								 * events */
	int			count;
	List	   *type_indexes;	/* with one for each type; NIL: they are
								 * looked at */
	bool		has_notices;	/* is the last scan one of es_removals? */
	int64		position;		/* of the next event; 0: none is left */
} ItemScan;

struct Match
{
	MemoryContext context;		/* of what scans allocate when they move */
	MatchRange	range;
	Relation	log;
	Relation	entries;		/* es_tags */
	Relation	removals;		/* es_removals, if something was removed and a
								 * type is looked up in its index */
	Relation	notice_index;	/* of es_removals: positions of notices */
	Buffer		removals_visible;
	Snapshot	snapshot;
	Buffer		log_visible;	/* of their visibility maps */
	Buffer		entries_visible;
	bool		keeps_pages;	/* do scans keep pages of the tables pinned? */
	Relation	position_index; /* of the log */
	Relation	tag_index;
	ItemScan   *items;
	int			count;
	bool		begun;
	int64		last;			/* the position that was returned */
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

/*
 * Returns true if scans need an upper bound: entries beyond the horizon, of an import that
 * is open, are invisible, and a scan would pass over all of them.
 */
static bool
has_upper_bound(const Match *match)
{
	return !match->range.backward && match->range.upto < PG_INT64_MAX;
}

/* Opens the scan of an index, whose column before the position is the tag, if there is one. */
static void
open_index_scan(Match *match, PositionScan *scan, Relation table, Relation index,
				Buffer *visible)
{
	scan->table = table;
	scan->index = index;
	scan->visible = visible;
	scan->slot = table_slot_create(table, NULL);
	scan->scan = compat_index_beginscan(table, index, match->snapshot,
										(scan->tag != (Datum) 0 ? 2 : 1) +
										(has_upper_bound(match) ? 1 : 0));
	scan->scan->xs_want_itup = !scan->has_row;
}

/* Opens a scan: of a tag, of the index of a type, or of all events. */
static void
open_scan(Match *match, PositionScan *scan, Datum tag, Relation type_index)
{
	scan->tag = tag;
	if (tag != (Datum) 0)
		open_index_scan(match, scan, match->entries, match->tag_index, &match->entries_visible);
	else
		open_index_scan(match, scan, match->log,
						type_index != NULL ? type_index : match->position_index,
						&match->log_visible);
}

/* Searches the index for the first position that does not come before this one. */
static void
restart_scan(const Match *match, PositionScan *scan, int64 from)
{
	bool		backward = match->range.backward;
	int			column = scan->tag != (Datum) 0 ? 2 : 1;
	ScanKeyData keys[3];
	int			count = 0;

	if (scan->tag != (Datum) 0)
		table_row_key(&keys[count++], scan->index, 1, BTEqualStrategyNumber, F_TEXTEQ, scan->tag);
	table_row_key(&keys[count++], scan->index, column,
				  backward ? BTLessEqualStrategyNumber : BTGreaterEqualStrategyNumber,
				  backward ? F_INT8LE : F_INT8GE, Int64GetDatum(from));
	if (has_upper_bound(match))
		table_row_key(&keys[count++], scan->index, column, BTLessEqualStrategyNumber,
					  F_INT8LE, Int64GetDatum(match->range.upto));
	index_rescan(scan->scan, keys, count, NULL, 0);
	scan->begun = true;
}

/*
 * Moves on to the next entry that the snapshot sees, which scan->xs_itup then is.  Returns
 * false after the last one.
 */
static bool
next_entry(const Match *match, PositionScan *scan, ScanDirection direction)
{
	IndexScanDesc desc = scan->scan;
	ItemPointer tid;
	bool		found = false;

	while (!found && (tid = index_getnext_tid(desc, direction)) != NULL)
	{
		if (VM_ALL_VISIBLE(scan->table, ItemPointerGetBlockNumber(tid), scan->visible))
		{
			PredicateLockPage(scan->table, ItemPointerGetBlockNumber(tid),
							  desc->xs_snapshot);
			return true;
		}
		found = index_fetch_heap(desc, scan->slot);
		ExecClearTuple(scan->slot);
		if (!match->keeps_pages)
			table_index_fetch_reset(desc->xs_heapfetch);
	}
	return found;
}

/* A column of the entry at which the scan is. */
static Datum
entry_column(const PositionScan *scan, int column)
{
	bool		isnull;

	return index_getattr(scan->scan->xs_itup, column, scan->scan->xs_itupdesc, &isnull);
}

/* Takes the next entry. */
static void
step_scan(const Match *match, PositionScan *scan)
{
	ScanDirection direction = match->range.backward ? BackwardScanDirection :
	ForwardScanDirection;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	scan->ended = scan->has_row ? !index_getnext_slot(scan->scan, direction, scan->slot) :
		!next_entry(match, scan, direction);
	if (scan->ended)
		return;
	scan->position = DatumGetInt64(scan->has_row ?
								   slot_getattr(scan->slot, Anum_es_events_position, &isnull) :
								   entry_column(scan, scan->tag != (Datum) 0 ?
												Anum_es_tags_position : 1));
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

/*
 * Returns true if the event at the position, a notice, is of one of the types.  It may have
 * been removed since.
 */
static bool
notice_matches(const Match *match, int64 position, const TextSet *types)
{
	IndexScanDesc scan = compat_index_beginscan(match->log, match->position_index,
												match->snapshot, 1);
	TupleTableSlot *slot = table_slot_create(match->log, NULL);
	ScanKeyData key;
	bool		result;

	table_row_key(&key, match->position_index, 1, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(position));
	index_rescan(scan, &key, 1, NULL, 0);
	result = index_getnext_slot(scan, ForwardScanDirection, slot) &&
		notice_or_event_has_type(slot, types);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return result;
}

/* Returns true if the event at which the scans are is of a type of the item. */
static bool
has_type(const Match *match, const ItemScan *item)
{
	const PositionScan *scan = &item->scans[0];
	const TextSet *types = &item->item->types;
	text	   *type;

	if (types->array == NULL || item->type_indexes != NIL)
		return true;
	if (scan->has_row)
		return notice_or_event_has_type(scan->slot, types);
	type = DatumGetTextPP(entry_column(scan, Anum_es_tags_type));
	return text_set_has_type(types, type) ||
		(notice_kind(type) != NOTICE_NONE && notice_matches(match, item->position, types));
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

/*
 * Moves the scan of one of the item's types to its first position from this one on.  That of
 * notices passes over those of other types.  Returns false if there is none.
 */
static bool
seek_type(const Match *match, ItemScan *item, int number, int64 from)
{
	PositionScan *scan = &item->scans[number];
	int			step = match->range.backward ? -1 : 1;

	while (seek_scan(match, scan, from))
	{
		if (!item->has_notices || number < item->count - 1 ||
			notice_matches(match, scan->position, &item->item->types))
			return true;
		from = scan->position + step;
	}
	return false;
}

/*
 * Moves the scans of the item's types to their first positions from this one on.  Returns
 * the first of these; 0 if there is none.
 */
static int64
first_from(const Match *match, ItemScan *item, int64 from)
{
	int64		first = 0;
	int			i;

	for (i = 0; i < item->count; i++)
	{
		if (seek_type(match, item, i, from) &&
			(first == 0 || is_before(match, item->scans[i].position, first)))
			first = item->scans[i].position;
	}
	return first;
}

/* Moves the item to its next event from the position on. */
static void
seek_item(const Match *match, ItemScan *item, int64 from)
{
	int			step = match->range.backward ? -1 : 1;

	for (;;)
	{
		item->position = item->type_indexes != NIL ? first_from(match, item, from) :
			agree_from(match, item, from);
		if (item->position == 0 || has_type(match, item))
			return;
		from = item->position + step;
	}
}

/* Opens the scans of an item of types, each of which has an index. */
static void
open_types(Match *match, ItemScan *scan)
{
	int			i;

	scan->has_notices = removed_any(match->log);
	scan->count = list_length(scan->type_indexes) + (scan->has_notices ? 1 : 0);
	scan->scans = palloc0(sizeof(PositionScan) * scan->count);
	for (i = 0; i < list_length(scan->type_indexes); i++)
		open_scan(match, &scan->scans[i], (Datum) 0, list_nth(scan->type_indexes, i));
	if (!scan->has_notices)
		return;
	if (match->removals == NULL)
		match->removals = removed_open_notices(match->log, &match->notice_index);
	open_index_scan(match, &scan->scans[i], match->removals, match->notice_index,
					&match->removals_visible);
}

/* Opens the scans of an item. */
static void
open_item(Match *match, ItemScan *scan, const QueryItem *item)
{
	int			i;

	scan->item = item;
	if (item->tags.count == 0 && item->types.array != NULL)
		scan->type_indexes = log_type_index_open_all(match->log, &item->types);
	if (scan->type_indexes != NIL)
	{
		open_types(match, scan);
		return;
	}
	scan->count = Max(item->tags.count, 1);
	scan->scans = palloc0(sizeof(PositionScan) * scan->count);
	for (i = 0; i < scan->count; i++)
	{
		scan->scans[i].has_row = item->tags.count == 0 && item->types.array != NULL;
		open_scan(match, &scan->scans[i],
				  item->tags.count == 0 ? (Datum) 0 : item->tags.values[i], NULL);
	}
}

/* Counts the scans that a query takes, about. */
static int
count_scans(const EventQuery *query)
{
	int			count = 0;
	int			i;

	for (i = 0; i < query->count; i++)
		count += Max(query->items[i].tags.count, 1);
	return count;
}

/*
 * Begins to look for events.
 */
Match *
match_begin(Oid log, const EventQuery *query, const MatchRange *range, Snapshot snapshot)
{
	Match	   *match = palloc0(sizeof(Match));
	int			i;

	match->context = CurrentMemoryContext;
	match->range = *range;
	match->snapshot = snapshot;
	match->log = table_open(log, AccessShareLock);
	match->entries = tag_table_open(log, AccessShareLock);
	match->position_index = log_index_open_position(match->log);
	match->tag_index = tag_table_open_key(match->entries);
	match->items = palloc0(sizeof(ItemScan) * query->count);
	match->count = query->count;
	match->keeps_pages = count_scans(query) <= MAX_PINNED;
	for (i = 0; i < match->count; i++)
		open_item(match, &match->items[i], &query->items[i]);
	return match;
}

/* Moves all items beyond the position that was returned last. */
static void
pass_last(Match *match)
{
	bool		backward = match->range.backward;
	int64		from = match->begun ? match->last + (backward ? -1 : 1) :
	backward ? match->range.upto : match->range.after + 1;
	int			i;

	for (i = 0; i < match->count; i++)
	{
		ItemScan   *item = &match->items[i];

		if (!match->begun || (item->position != 0 && item->position == match->last))
			seek_item(match, item, from);
	}
	match->begun = true;
}

/*
 * Returns the position of the next event; 0 after the last one.
 */
int64
match_next(Match *match)
{
	MemoryContext caller = MemoryContextSwitchTo(match->context);
	int			i;

	pass_last(match);
	MemoryContextSwitchTo(caller);
	match->last = 0;
	for (i = 0; i < match->count; i++)
	{
		int64		position = match->items[i].position;

		if (position != 0 && (match->last == 0 || is_before(match, position, match->last)))
			match->last = position;
	}
	return match->last;
}

/* Closes the scans of an item. */
static void
close_item(ItemScan *item)
{
	ListCell   *cell;
	int			i;

	for (i = 0; i < item->count; i++)
	{
		PositionScan *scan = &item->scans[i];

		index_endscan(scan->scan);
		ExecDropSingleTupleTableSlot(scan->slot);
	}
	foreach(cell, item->type_indexes)
		index_close(lfirst(cell), AccessShareLock);
}

/*
 * Takes the next positions: so many, or the last ones.
 */
void
match_take(Match *match, Int8Array *positions, int count)
{
	positions->count = 0;
	while (positions->count < count &&
		   (positions->values[positions->count] = match_next(match)) != 0)
		positions->count++;
}

/*
 * Ends it.
 */
void
match_end(Match *match)
{
	int			i;

	for (i = 0; i < match->count; i++)
		close_item(&match->items[i]);
	if (BufferIsValid(match->log_visible))
		ReleaseBuffer(match->log_visible);
	if (BufferIsValid(match->entries_visible))
		ReleaseBuffer(match->entries_visible);
	if (BufferIsValid(match->removals_visible))
		ReleaseBuffer(match->removals_visible);
	if (match->removals != NULL)
	{
		index_close(match->notice_index, AccessShareLock);
		table_close(match->removals, AccessShareLock);
	}
	index_close(match->tag_index, AccessShareLock);
	index_close(match->position_index, AccessShareLock);
	table_close(match->entries, AccessShareLock);
	table_close(match->log, AccessShareLock);
	pfree(match);
}
