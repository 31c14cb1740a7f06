/*-------------------------------------------------------------------------
 *
 * log_version.c
 *		The last version of a stream, read from the index on (stream, version).
 *
 * Each append asks for it.  An index scan of the server compares texts by a call of
 * their operator class, copies all entries of the page that match, and fetches the row.
 * This file searches for one entry instead, the last one of the stream:
 *
 *	1. Descend from the root to the leaf on which the stream's last entry is, if it has
 *	   any.  Names are compared as bytes, which is the order of the index (log_index.c).
 *	   It searches for the place after all entries of the stream, so that the version
 *	   does not matter.  As in every search of a B-tree one page is locked at a
 *	   time, and a page that was split meanwhile is left to the right by its high key.
 *	2. If no entry is in front of that place on the leaf, those of the stream can only be
 *	   on a page to the left, which is so if the separator of the two names the stream.
 *	   Then the search has no result.
 *	3. The row of the entry must be visible to a snapshot that is taken now.  The page
 *	   of the index stays pinned meanwhile: VACUUM, which must have every leaf for
 *	   itself before it frees the place of a row, cannot do so.  So a bit of the
 *	   visibility map that is set is about the row of this entry, and the row is
 *	   committed and not deleted.  The row is fetched where the map says nothing.  The
 *	   map is not asked for the end of the table, where VACUUM has not been yet.
 *
 * The last entry of all is the greatest version.  If its row is visible, no other one
 * matters.  If it is not, after a rollback or for a row that es_rewrite() has changed,
 * or if anything else is not as usual, the caller scans the index (log.c).  So
 * whatever this search knows is what that scan would say.
 *
 * Where pages of the index are in the buffers is remembered from one search to the next,
 * which saves the look-up of most of them.  It is only a hint: the server compares what
 * the buffer has with the page that is asked for.
 *
 * The root is known from the relation's cache of the index's metapage, which is checked
 * as the server does.  Pages that are deleted during the search are not used again, as
 * the caller's statement has a snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "log/log.h"

/* Pages at the end of the table whose bits in the visibility map are not looked at. */
#define RECENT_PAGES	32

/* How many pages of the index are remembered: 1 kB. */
#define KNOWN_PAGES		256

/* The buffers in which pages of this file were, by number of the page. */
static CompatFile known_file;
static Buffer known_buffers[KNOWN_PAGES];

/* A search for the place behind the entries of a stream. */
typedef struct VersionSearch
{
	Relation	index;
	const char *name;			/* of the stream */
	int			length;
	Buffer		buffer;			/* of the page, locked for reading */
	Page		page;
	BTPageOpaque opaque;
	bool		at_bound;		/* the separator on its left names the stream */
} VersionSearch;

/* Compares the name in an entry of the page with that of the search. */
static int
compare_stream_name(const VersionSearch *search, OffsetNumber number)
{
	IndexTuple	entry = (IndexTuple) PageGetItem(search->page,
												 PageGetItemId(search->page, number));
	bool		isnull;
	Datum		value = index_getattr(entry, 1, RelationGetDescr(search->index), &isnull);
	text	   *name = DatumGetTextPP(value);
	int			length = VARSIZE_ANY_EXHDR(name);
	int			result = memcmp(VARDATA_ANY(name), search->name,
								Min(length, search->length));

	if ((Pointer) name != DatumGetPointer(value))
		pfree(name);			/* a long one was compressed */
	return result != 0 ? result : length - search->length;
}

/* Reads a page and locks it. */
static Buffer
lock_page(Relation index, BlockNumber block)
{
	Buffer	   *known = &known_buffers[block % KNOWN_PAGES];

	if (memcmp(&known_file, &compat_file_of(index), sizeof(CompatFile)) != 0)
	{
		memset(known_buffers, 0, sizeof(known_buffers));
		known_file = compat_file_of(index);
	}
	if (!BufferIsValid(*known) ||
		!ReadRecentBuffer(known_file, MAIN_FORKNUM, block, *known))
		*known = ReadBuffer(index, block);
	_bt_lockbuf(index, *known, BT_READ);
	_bt_checkpage(index, *known);
	return *known;
}

/* Goes to a page; the one before is released. */
static void
go_to(VersionSearch *search, BlockNumber block)
{
	if (BufferIsValid(search->buffer))
		_bt_relbuf(search->index, search->buffer);
	search->buffer = lock_page(search->index, block);
	search->page = BufferGetPage(search->buffer);
	search->opaque = BTPageGetOpaque(search->page);
}

/*
 * Goes to the root.  Returns false if it is not known, or is another page by now.
 */
static bool
go_to_root(VersionSearch *search)
{
	const BTMetaPageData *meta = search->index->rd_amcache;
	uint32		level;

	if (meta == NULL || meta->btm_version != BTREE_VERSION)
		return false;
	level = meta->btm_fastlevel;
	go_to(search, meta->btm_fastroot);
	if (!P_IGNORE(search->opaque) && P_LEFTMOST(search->opaque) &&
		P_RIGHTMOST(search->opaque) &&
		search->opaque->btpo_level == level)
		return true;
	_bt_relbuf(search->index, search->buffer);
	return false;
}

/*
 * Goes right for as long as the place lies there.  Returns false if the page is of no
 * use.
 */
static bool
go_right(VersionSearch *search)
{
	while (!P_RIGHTMOST(search->opaque))
	{
		if (!P_IGNORE(search->opaque))
		{
			int			bound = compare_stream_name(search, P_HIKEY);

			if (bound > 0)
				return true;
			search->at_bound = bound == 0;
		}
		go_to(search, search->opaque->btpo_next);
	}
	return !P_IGNORE(search->opaque);
}

/*
 * Returns the last entry of the page in front of the place; on a leaf the number before
 * the first one, if there is none.  An inner page begins with an entry that has no name
 * and is in front of every place.  *same: the entry has the stream's name.
 */
static OffsetNumber
find_stream_end(const VersionSearch *search, bool *same)
{
	OffsetNumber low = P_FIRSTDATAKEY(search->opaque);
	OffsetNumber high = PageGetMaxOffsetNumber(search->page);

	*same = false;
	if (P_ISLEAF(search->opaque))
		low = OffsetNumberPrev(low);
	while (low < high)
	{
		OffsetNumber middle = low + (high - low + 1) / 2;
		int			result = compare_stream_name(search, middle);

		if (result > 0)
			high = OffsetNumberPrev(middle);
		else
		{
			low = middle;
			*same = result == 0;
		}
	}
	return low;
}

/*
 * Goes to the leaf on which the place is.  Returns false if the search does not get
 * there.
 */
static bool
go_to_leaf(VersionSearch *search)
{
	if (!go_to_root(search))
		return false;
	while (go_right(search))
	{
		OffsetNumber number;
		IndexTuple	entry;
		bool		same;

		if (P_ISLEAF(search->opaque))
			return true;
		number = find_stream_end(search, &same);
		if (number > P_FIRSTDATAKEY(search->opaque))
			search->at_bound = same;
		entry = (IndexTuple) PageGetItem(search->page,
										 PageGetItemId(search->page, number));
		go_to(search, BTreeTupleGetDownLink(entry));
	}
	_bt_relbuf(search->index, search->buffer);
	return false;
}

/* Returns true if the visibility map says that all rows of the page are visible. */
static bool
is_all_visible(Relation rel, BlockNumber block)
{
	BlockNumber recent = RelationGetTargetBlock(rel);
	Buffer		map = InvalidBuffer;
	bool		result;

	if (rel->rd_tableam != GetHeapamTableAmRoutine() ||
		(recent != InvalidBlockNumber && block + RECENT_PAGES > recent))
		return false;
	result = VM_ALL_VISIBLE(rel, block, &map);
	if (BufferIsValid(map))
		ReleaseBuffer(map);
	return result;
}

/* Returns true if the row is visible to the snapshot of the log. */
static bool
is_row_visible(Log *log, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);

	if (!is_all_visible(log->rel, block))
		return table_tuple_fetch_row_version(log->rel, tid, log_snapshot(log),
											 log->slot);
	if (IsolationIsSerializable())
		PredicateLockPage(log->rel, block, log_snapshot(log));
	return true;
}

/*
 * Reads the entry.  Returns false if it has not one row, which is visible.  The lock on
 * the page is released, as the row's page may have to be read.
 */
static bool
read_entry(Log *log, VersionSearch *search, OffsetNumber number, int64 *version)
{
	ItemId		item = PageGetItemId(search->page, number);
	IndexTuple	entry = (IndexTuple) PageGetItem(search->page, item);
	bool		usual = !ItemIdIsDead(item) && !BTreeTupleIsPosting(entry);
	ItemPointerData tid = entry->t_tid;
	bool		isnull;

	*version = DatumGetInt64(index_getattr(entry, 2, RelationGetDescr(search->index),
										   &isnull));
	_bt_unlockbuf(search->index, search->buffer);
	return usual && *version > 0 && is_row_visible(log, &tid);
}

/*
 * Finds the last version of the stream, 0 if it has none.  Returns false if it is not
 * known by this search.
 */
bool
log_version_find(Log *log, text *stream, int64 *version)
{
	VersionSearch search = {
		.index = log->version_index,
		.name = VARDATA_ANY(stream),
		.length = VARSIZE_ANY_EXHDR(stream)
	};
	bool		same;
	bool		known;
	OffsetNumber number;

	if (!go_to_leaf(&search))
		return false;
	pgstat_count_index_scan(search.index);
	if (IsolationIsSerializable())
		PredicateLockPage(search.index, BufferGetBlockNumber(search.buffer),
						  log_snapshot(log));
	*version = 0;
	number = find_stream_end(&search, &same);
	if (same)
		known = read_entry(log, &search, number, version);
	else
	{
		known = number >= P_FIRSTDATAKEY(search.opaque) || !search.at_bound;
		_bt_unlockbuf(search.index, search.buffer);
	}
	ReleaseBuffer(search.buffer);
	return known;
}
