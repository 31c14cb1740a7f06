/*-------------------------------------------------------------------------
 *
 * row_walk.c
 *		Walks over the events that an index scan leads to, a page of the table at a
 *		time.
 *
 * The next events of a source lie side by side in the table.  The server's scan of an
 * index looks up, locks and releases the page of each of them anew.  A walk takes some
 * tuple ids from the index first, and then reads those that follow each other on one
 * page under one lock of it.  Most events of a walk are looked at for their position
 * and stream alone, which stand at fixed places of the row.
 *
 * The protocol:
 *
 *	1. No page of the table is locked while the index is read, as a check of the
 *	   index for duplicates locks its page first.
 *	2. A row that was seen under the lock may be read after it, as long as the page is
 *	   pinned: it is visible to a registered snapshot, so that it is neither removed
 *	   nor moved.
 *	3. Rows are found by heap_hot_search_buffer(), as the server's scan does, which
 *	   checks what they are to the snapshot, and takes the locks of SERIALIZABLE.
 *	4. A row that is not there any more may have left its place to another one.  That one
 *	   is invisible to the snapshot, which is older.
 *
 * Index entries of removed rows are not marked as dead by a walk, as they are by a scan.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "read/read.h"
#include "read/source.h"

/* Tuple ids that are taken from the index at once: the first time, and at most. */
#define FIRST_TIDS	16
#define MAX_TIDS	64

struct RowWalk
{
	IndexScanDesc scan;
	Relation	table;
	ItemPointerData tids[MAX_TIDS];
	int			batch;			/* so many are taken next */
	int			tid_count;
	int			next_tid;
	bool		ended;			/* has the scan?  It would begin anew */
	Buffer		buffer;			/* the page of the rows */
	HeapTupleData rows[MAX_TIDS];
	int			row_count;
	int			next_row;
};

bool
row_walk_is_possible(Relation table)
{
	return table->rd_tableam == GetHeapamTableAmRoutine();
}

RowWalk *
row_walk_begin(Relation table, IndexScanDesc scan)
{
	RowWalk    *walk = palloc(sizeof(RowWalk));

	walk->scan = scan;
	walk->table = table;
	walk->batch = FIRST_TIDS;
	walk->buffer = InvalidBuffer;
	row_walk_restart(walk);
	return walk;
}

void
row_walk_end(RowWalk *walk)
{
	if (BufferIsValid(walk->buffer))
		ReleaseBuffer(walk->buffer);
	pfree(walk);
}

void
row_walk_restart(RowWalk *walk)
{
	walk->ended = false;
	walk->tid_count = walk->next_tid = 0;
	walk->row_count = walk->next_row = 0;
}

/* Takes the next tuple ids from the index.  Returns false if there are none. */
static bool
take_tids(RowWalk *walk)
{
	CHECK_FOR_INTERRUPTS();
	walk->tid_count = walk->next_tid = 0;
	while (walk->tid_count < walk->batch && !walk->ended)
	{
		ItemPointer tid = index_getnext_tid(walk->scan, ForwardScanDirection);

		walk->ended = tid == NULL;
		if (!walk->ended)
			walk->tids[walk->tid_count++] = *tid;
	}
	walk->batch = Min(walk->batch * 2, MAX_TIDS);
	return walk->tid_count > 0;
}

/* Reads the rows of the next tuple ids that are on one page. */
static void
read_page(RowWalk *walk)
{
	BlockNumber block = ItemPointerGetBlockNumber(&walk->tids[walk->next_tid]);

	walk->buffer = ReleaseAndReadBuffer(walk->buffer, walk->table, block);
	walk->row_count = walk->next_row = 0;
	LockBuffer(walk->buffer, BUFFER_LOCK_SHARE);
	do
	{
		HeapTuple	row = &walk->rows[walk->row_count];

		if (heap_hot_search_buffer(&walk->tids[walk->next_tid++], walk->table, walk->buffer,
								   walk->scan->xs_snapshot, row, NULL, true))
		{
			pgstat_count_heap_fetch(walk->scan->indexRelation);
			walk->row_count++;
		}
	} while (walk->next_tid < walk->tid_count &&
			 ItemPointerGetBlockNumber(&walk->tids[walk->next_tid]) == block);
	LockBuffer(walk->buffer, BUFFER_LOCK_UNLOCK);
}

HeapTuple
row_walk_next(RowWalk *walk)
{
	while (walk->next_row == walk->row_count)
	{
		if (walk->next_tid == walk->tid_count && !take_tids(walk))
			return NULL;
		read_page(walk);
	}
	return &walk->rows[walk->next_row++];
}

void
row_walk_store(RowWalk *walk, HeapTuple row, TupleTableSlot *slot)
{
	ExecStoreBufferHeapTuple(row, slot, walk->buffer);
}
