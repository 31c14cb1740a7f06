/*-------------------------------------------------------------------------
 *
 * log_sequence.c
 *		The sequence es_position, from which positions are drawn.
 *
 * A consumer relies on drawn positions to lie above every row that was in the table
 * before.  Rows that were appended are below the sequence's last value by
 * themselves.  Others come by COPY, INSERT, logical replication and restores with
 * positions of their own, or the owner sets the sequence back.  So:
 *
 *	1. A row that comes by INSERT or COPY raises the sequence to its position before
 *	   it is stored (the trigger es_events_complete, log_guard.c).
 *	2. An append looks at the greatest position in the index, draws, and compares.
 *	   What was in the table before the draw is below the drawn position unless rows
 *	   have come another way, for example while the trigger was disabled.  A neighbour
 *	   that was faster makes no difference, as its row is either in the index before the
 *	   draw, and below, or comes later.  If the drawn position is not above, the
 *	   sequence is raised and the append draws again; the first draws become gaps.
 *
 * Raising never lowers: it takes the lock on the sequence's page, as nextval() does,
 * and leaves a value that is high enough alone.  A plain setval() could take the
 * sequence back under draws of others since it was read.  The change is not undone by
 * a rollback.
 *
 * A raise is written to the WAL as setval() and nextval() do: a record of the whole
 * tuple with a value that is some way ahead.  The count of values that are ahead,
 * log_cnt, is kept in the page, and later raises and draws within them write nothing,
 * until a checkpoint.  So a crash or a promotion never takes the sequence back.
 *
 * The order of positions depends on CACHE 1, an increment of 1 and NO CYCLE.  A session
 * that has seen the sequence's name and parameters relies on them until the catalog's
 * invalidation.  ALTER SEQUENCE needs a lock that conflicts with the one that a draw
 * has taken, so that looking again after the first draw is enough.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "log/replica.h"
#include "log/tags.h"

/* Values that a record in the WAL is ahead, as many as nextval() takes. */
#define VALUES_AHEAD	32

/* The log whose sequence was seen to be right, and the sequence; InvalidOid: none. */
static Oid	checked_log = InvalidOid;
static Oid	checked_sequence = InvalidOid;

/* The sequence's row, on its page that is locked. */
typedef struct SequenceRow
{
	Buffer		buffer;
	HeapTupleData tuple;
	Form_pg_sequence_data data;
} SequenceRow;

static void
forget_checked_sequence(Datum arg, int cache, uint32 hash)
{
	checked_log = InvalidOid;
}

/* The sequence's row in pg_sequence. */
static FormData_pg_sequence
read_parameters(Oid sequence)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	FormData_pg_sequence parameters;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);
	parameters = *(Form_pg_sequence) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);
	return parameters;
}

/* Refuses a sequence whose values do not ascend in the order in which they are drawn. */
static void
check_parameters(Oid sequence)
{
	FormData_pg_sequence parameters = read_parameters(sequence);

	if (parameters.seqcache != 1 || parameters.seqincrement != 1 ||
		parameters.seqcycle)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sequence \"%s\" does not produce positions in ascending order",
						get_rel_name(sequence)),
				 errdetail("It has INCREMENT " INT64_FORMAT " CACHE " INT64_FORMAT " %s instead of INCREMENT 1 CACHE 1 NO CYCLE.",
						   parameters.seqincrement, parameters.seqcache,
						   parameters.seqcycle ? "CYCLE" : "NO CYCLE"),
				 errhint("Run ALTER SEQUENCE %s INCREMENT 1 CACHE 1 NO CYCLE.",
						 own_table_quoted_name(sequence))));
}

/*
 * Finds the sequence of the log, and checks it, unless it was checked since the last
 * change of a sequence or of a relation's name.
 */
static Oid
find_checked_sequence(Oid log)
{
	static bool registered = false;
	Oid			sequence;

	if (checked_log == log)
		return checked_sequence;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(SEQRELID, forget_checked_sequence,
									  (Datum) 0);
		CacheRegisterSyscacheCallback(RELNAMENSP, forget_checked_sequence,
									  (Datum) 0);
	}
	registered = true;
	sequence = own_table_relid(log, "es_position");
	check_parameters(sequence);
	checked_log = log;
	checked_sequence = sequence;
	return sequence;
}

/*
 * Draws the positions.  Returns false if they do not ascend from what is above, which
 * is then the greatest position that is known.
 */
static bool
draw_above(Oid sequence, NewEvent *events, int count, int64 *above)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		events[i].position = nextval_internal(sequence, false);
		if (events[i].position <= *above)
			return false;
		*above = events[i].position;
	}
	return true;
}

/*
 * Draws positions that lie above all that were in the table before.
 */
void
log_sequence_draw(Log *log, NewEvent *events, int count)
{
	Oid			relid = RelationGetRelid(log->rel);
	int64		above = log_last_position(log);

	above = Max(above, 0);
	for (;;)
	{
		Oid			sequence = find_checked_sequence(relid);

		if (!draw_above(sequence, events, count, &above))
			log_sequence_raise(sequence, above);

		/* the draw took a lock, under which the sequence stays as it is */
		else if (find_checked_sequence(relid) == sequence)
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

/* Reads the sequence's row, and locks its page. */
static SequenceRow
lock_sequence_row(Relation sequence)
{
	SequenceRow row;
	Page		page;
	ItemId		item;

	row.buffer = ReadBuffer(sequence, 0);
	LockBuffer(row.buffer, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(row.buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	row.tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	row.tuple.t_len = ItemIdGetLength(item);
	row.data = (Form_pg_sequence_data) GETSTRUCT(&row.tuple);
	return row;
}

/* Writes the row as it is to the WAL. */
static void
log_sequence_row(Relation sequence, SequenceRow *row)
{
	xl_seq_rec	record = {compat_file_of(sequence)};
	XLogRecPtr	written;

	XLogBeginInsert();
	XLogRegisterBuffer(0, row->buffer, REGBUF_WILL_INIT);
	XLogRegisterData((char *) &record, sizeof(record));
	XLogRegisterData((char *) row->tuple.t_data, row->tuple.t_len);
	written = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
	PageSetLSN(BufferGetPage(row->buffer), written);
}

/*
 * Returns true if what the WAL has of the row is at the position or above, also after
 * a crash: the last record came after the latest checkpoint began.
 */
static bool
is_logged_ahead(const SequenceRow *row, int64 position, int64 increment)
{
	return increment == 1 && row->data->is_called &&
		row->data->last_value >= 0 &&
		position - row->data->last_value <= row->data->log_cnt &&
		PageGetLSN(BufferGetPage(row->buffer)) > GetRedoRecPtr();
}

/* Writes the higher value into the row. */
static void
raise_sequence_row(Relation sequence, SequenceRow *row, int64 position,
				   const FormData_pg_sequence * parameters)
{
	bool		logged = is_logged_ahead(row, position, parameters->seqincrement);
	int64		ahead = 0;

	if (logged)
		ahead = row->data->log_cnt - (position - row->data->last_value);
	else if (parameters->seqincrement == 1)
		ahead = Min(VALUES_AHEAD, parameters->seqmax - position);

	START_CRIT_SECTION();
	MarkBufferDirty(row->buffer);
	if (!logged)
	{
		row->data->last_value = position + ahead;
		row->data->is_called = true;
		row->data->log_cnt = 0;
		if (RelationNeedsWAL(sequence))
			log_sequence_row(sequence, row);
	}
	row->data->last_value = position;
	row->data->log_cnt = ahead;
	END_CRIT_SECTION();
}

/* Refuses to raise a sequence to where it has no more values. */
static void
check_maximum(Oid sequence, int64 position, int64 maximum)
{
	if (position >= maximum)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("position " INT64_FORMAT " leaves none for appends", position),
				 errdetail("Sequence \"%s\" has MAXVALUE " INT64_FORMAT ".",
						   get_rel_name(sequence), maximum),
				 maximum == PG_INT64_MAX ?
				 errhint("Load the row at a lower position. If it is in the table, delete it and VACUUM the table.") :
				 errhint("Run ALTER SEQUENCE %s NO MAXVALUE.",
						 own_table_quoted_name(sequence))));
}

/*
 * Raises the sequence to the position, unless it is there or above.
 */
void
log_sequence_raise(Oid sequence, int64 position)
{
	Relation	rel = relation_open(sequence, RowExclusiveLock);
	FormData_pg_sequence parameters = read_parameters(sequence);
	SequenceRow row;

	check_maximum(sequence, position, parameters.seqmax);

	/* the commit must flush the record, and wait for standbys that want it */
	(void) GetTopTransactionId();
	row = lock_sequence_row(rel);
	if (row.data->last_value < position ||
		(row.data->last_value == position && !row.data->is_called))
		raise_sequence_row(rel, &row, position, &parameters);
	UnlockReleaseBuffer(row.buffer);

	/* ALTER SEQUENCE must not take a copy before this is committed */
	relation_close(rel, NoLock);
}

/*
 * Reads the position that was drawn last.
 */
int64
log_sequence_last(Oid log)
{
	Relation	rel = relation_open(own_table_relid(log, "es_position"), AccessShareLock);
	SequenceRow row = lock_sequence_row(rel);
	int64		last = row.data->last_value - (row.data->is_called ? 0 : 1);

	UnlockReleaseBuffer(row.buffer);
	relation_close(rel, AccessShareLock);
	return last;
}

/*
 * Refuses a position beyond the end of the log, which a caller would wait for too long.
 * A standby, and a logical replica, may be behind what its caller knows from the primary.
 */
void
log_sequence_check(Oid log, const char *name, int64 position)
{
	int64		last;

	argument_range(name, position, 0, PG_INT64_MAX);
	if (RecoveryInProgress() || replica_is_subscribed(log))
		return;
	last = log_sequence_last(log);
	if (position > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s lies beyond the end of the log", name),
				 errdetail("It is " INT64_FORMAT ", the last position that was drawn is " INT64_FORMAT ".",
						   position, last),
				 errhint("Pass the position of an event, or null, where that is allowed, to begin now.")));
}
