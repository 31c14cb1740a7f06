/*-------------------------------------------------------------------------
 *
 * event_row.c
 *		Columns of a stored event, straight from its row.
 *
 * Reading over an event is mostly the work of taking its row apart.  The extension
 * defines the columns, and only one of the first may be null; from metadata on any may.
 * So a column is at the same place in every row, or eight bytes before.  A caller first
 * makes sure that the log is as the extension has made it.
 *
 * Columns that the owner has added come after these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "log/log.h"
#include "read/read.h"
#include "read/source.h"

/* Where a row has its columns, if occurred_at is not null. */
#define OFFSET_OF_NEXT_XID		16
#define OFFSET_OF_RECORDED_AT	24
#define OFFSET_OF_STREAM		56
#define SIZE_OF_OCCURRED_AT		8

bool
event_row_is_usual(Relation log)
{
	static const int lengths[Natts_es_events] = {8, 8, 8, 8, 8, UUID_LEN, -1, -1, -1, -1, -1, -1};
	TupleDesc	desc = RelationGetDescr(log);
	int			i;

	if (!row_walk_is_possible(log))
		return false;
	for (i = 0; i < Natts_es_events; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		bool		may_be_null = i == Anum_es_events_occurred_at - 1 ||
		i >= Anum_es_events_metadata - 1;

		if (column->attlen != lengths[i] || column->attnotnull == may_be_null)
			return false;
	}
	return true;
}

static char *
row_data(HeapTuple row)
{
	return (char *) row->t_data + row->t_data->t_hoff;
}

/* Returns true if a column of ours is null. */
static bool
is_row_null(HeapTuple row, int column)
{
	return !HeapTupleNoNulls(row) && att_isnull(column - 1, row->t_data->t_bits);
}

int64
event_row_position(HeapTuple row)
{
	return *(int64 *) row_data(row);
}

text *
event_row_stream(HeapTuple row)
{
	return (text *) (row_data(row) + OFFSET_OF_STREAM -
					 (is_row_null(row, Anum_es_events_occurred_at) ? SIZE_OF_OCCURRED_AT : 0));
}

/* Returns the column of variable length that follows one. */
static char *
next_varlena(HeapTuple row, char *column)
{
	char	   *data = row_data(row);
	Size		offset = column - data + VARSIZE_ANY(column);

	return data + att_align_pointer(offset, TYPALIGN_INT, -1, data + offset);
}

/* Returns true if metadata and what follows it are null, as in most events. */
static bool
is_rest_null(HeapTuple row)
{
	const int	bits = 1 << (Anum_es_events_metadata - 9) | 1 << (Anum_es_events_tags - 9) |
	1 << (Anum_es_events_body - 9);

	StaticAssertStmt(Anum_es_events_metadata > 8 && Natts_es_events <= 16,
					 "the last columns have their bits in the second byte");
	return !HeapTupleNoNulls(row) && (row->t_data->t_bits[1] & bits) == 0;
}

/* Sets metadata and what follows it, and returns the last column that is there. */
static char *
deform_rest(HeapTuple row, char *column, TupleTableSlot *slot)
{
	int			i;

	for (i = Anum_es_events_metadata - 1; i < Natts_es_events; i++)
	{
		slot->tts_isnull[i] = is_row_null(row, i + 1);
		if (slot->tts_isnull[i])
			continue;
		column = next_varlena(row, column);
		slot->tts_values[i] = PointerGetDatum(column);
	}
	return column;
}

/*
 * To the slot this is as if the server had taken the row apart as far, so that it can go
 * on with columns that were added.
 */
void
event_row_deform(HeapTuple row, TupleTableSlot *slot)
{
	HeapTupleTableSlot *heap_slot = (HeapTupleTableSlot *) slot;
	Datum	   *values = slot->tts_values;
	char	   *data = row_data(row);
	char	   *column = (char *) event_row_stream(row);
	int			i;

	memset(slot->tts_isnull, false, sizeof(bool) * Natts_es_events);
	for (i = 0; i < Anum_es_events_occurred_at; i++)
		values[i] = Int64GetDatum(((int64 *) data)[i]);
	slot->tts_isnull[Anum_es_events_occurred_at - 1] = is_row_null(row, Anum_es_events_occurred_at);
	values[Anum_es_events_id - 1] = PointerGetDatum(column - UUID_LEN);
	values[Anum_es_events_stream - 1] = PointerGetDatum(column);
	for (i = Anum_es_events_type - 1; i < Anum_es_events_metadata - 1; i++)
	{
		column = next_varlena(row, column);
		values[i] = PointerGetDatum(column);
	}
	memset(&values[i], 0, sizeof(Datum) * (Natts_es_events - i));
	if (is_rest_null(row))
		memset(&slot->tts_isnull[i], true, sizeof(bool) * (Natts_es_events - i));
	else
		column = deform_rest(row, column, slot);
	heap_slot->off = column + VARSIZE_ANY(column) - data;
	slot->tts_flags |= TTS_FLAG_SLOW;
	slot->tts_nvalid = Natts_es_events;
}

int64
event_row_bytes(HeapTuple row)
{
	char	   *column = next_varlena(row, (char *) event_row_stream(row));
	int64		bytes = 0;
	int			i;

	for (i = Anum_es_events_data; i <= Anum_es_events_body; i++)
	{
		if (i > Anum_es_events_data && is_row_null(row, i))
			continue;
		column = next_varlena(row, column);
		if (i != Anum_es_events_tags)
			bytes += toast_raw_datum_size(PointerGetDatum(column)) - VARHDRSZ;
	}
	return bytes;
}

/* Marks a column, which is numbered from 1, as null. */
static void
set_null(HeapTupleHeader tuple, int column)
{
	tuple->t_bits[(column - 1) / 8] &= ~(1 << (column - 1) % 8);
}

/*
 * Marks the columns that are null.  The event's follow the prefix, without next_xid.
 */
static void
set_nulls(HeapTupleHeader tuple, HeapTuple row, int columns)
{
	int			count = columns + Natts_es_recorded_event;
	int			i;

	tuple->t_infomask |= HEAP_HASNULL;
	memset(tuple->t_bits, 0xFF, BITMAPLEN(count));
	if (count % 8 != 0)
		tuple->t_bits[count / 8] = (1 << count % 8) - 1;
	if (is_row_null(row, Anum_es_events_occurred_at))
		set_null(tuple, columns + Anum_es_recorded_event_occurred_at);
	for (i = Anum_es_events_metadata; i <= Natts_es_events; i++)
	{
		if (is_row_null(row, i))
			set_null(tuple, columns + i - 1);	/* without next_xid */
	}
}

/*
 * What follows next_xid is copied as it is: it is as far from a multiple of eight bytes
 * there as here.
 */
void
event_row_compose(HeapTuple row, const EventRowPrefix *prefix, HeapTuple composed)
{
	HeapTupleHeader tuple = composed->t_data;
	char	   *from = row_data(row);
	Size		rest = row->t_len - row->t_data->t_hoff - OFFSET_OF_RECORDED_AT;
	bool		has_nulls = !HeapTupleNoNulls(row);
	char	   *to;

	memset(tuple, 0, SizeofHeapTupleHeader);
	HeapTupleHeaderSetNatts(tuple, prefix->columns + Natts_es_recorded_event);
	tuple->t_infomask = HEAP_HASVARWIDTH | (row->t_data->t_infomask & HEAP_HASEXTERNAL);
	if (has_nulls)
		set_nulls(tuple, row, prefix->columns);
	tuple->t_hoff = MAXALIGN(SizeofHeapTupleHeader +
							 (has_nulls ? BITMAPLEN(HeapTupleHeaderGetNatts(tuple)) : 0));
	to = (char *) tuple + tuple->t_hoff;
	memcpy(to, prefix->data, prefix->size);
	memcpy(to + prefix->size, from, OFFSET_OF_NEXT_XID);
	memcpy(to + prefix->size + OFFSET_OF_NEXT_XID, from + OFFSET_OF_RECORDED_AT, rest);
	composed->t_len = tuple->t_hoff + prefix->size + OFFSET_OF_NEXT_XID + rest;
}
