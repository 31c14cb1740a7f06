/*-------------------------------------------------------------------------
 *
 * event_batch.c
 *		Events that were read together: rows of es_events in a tuplestore.
 *
 * Rows are kept as they are stored, or with our columns alone; both can be read
 * through a slot that has the columns of the log.  They are presented when they
 * are given to users (present.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

Tuplestorestate *
event_batch_make(void)
{
	return tuplestore_begin_heap(false, false, work_mem);
}

TupleTableSlot *
event_slot_make(Relation log)
{
	return MakeSingleTupleTableSlot(RelationGetDescr(log),
									&TTSOpsMinimalTuple);
}

/*
 * Sets the slot to an event of a store: so many are before it.  An error context
 * callback may be here, for a notice in the midst of a scan, which must go on where
 * it was.
 */
static void
fetch_event(Tuplestorestate *events, int64 before, TupleTableSlot *slot)
{
	int			pointer = tuplestore_alloc_read_pointer(events, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(events, pointer);
	tuplestore_rescan(events);
	tuplestore_skiptuples(events, before, true);
	(void) tuplestore_gettupleslot(events, true, false, slot);
	tuplestore_select_read_pointer(events, 0);
}

int64
event_batch_position(Oid relid, Tuplestorestate *events, int64 before)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	int64		position;
	bool		isnull;

	fetch_event(events, before, slot);
	position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
										  &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return position;
}

int64
event_batch_last_position(Oid relid, Tuplestorestate *events)
{
	return event_batch_position(relid, events,
								tuplestore_tuple_count(events) - 1);
}

/* The bytes of a value, as they are before compression. */
static int64
value_bytes(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? 0 : toast_raw_datum_size(value) - VARHDRSZ;
}

int64
event_slot_bytes(TupleTableSlot *slot)
{
	return value_bytes(slot, Anum_es_events_data) +
		value_bytes(slot, Anum_es_events_metadata) +
		value_bytes(slot, Anum_es_events_body);
}

bool
event_batch_cut(Relation log, EventBatch *batch, int64 bytes)
{
	Tuplestorestate *events = event_batch_make();
	TupleTableSlot *slot = event_slot_make(log);
	int64		sum = 0;
	bool		fits = true;

	tuplestore_rescan(batch->events);
	while (fits && tuplestore_gettupleslot(batch->events, true, false, slot))
	{
		sum += event_slot_bytes(slot);
		fits = sum <= bytes || tuplestore_tuple_count(events) == 0;
		if (fits)
			tuplestore_puttupleslot(events, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(batch->events);
	batch->events = events;
	return !fits;
}

char *
event_slot_describe(TupleTableSlot *slot, bool with_id)
{
	bool		isnull;
	int64		position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
													  &isnull));
	int64		version = DatumGetInt64(slot_getattr(slot, Anum_es_events_version,
													 &isnull));
	Datum		stream = slot_getattr(slot, Anum_es_events_stream, &isnull);
	Datum		type = slot_getattr(slot, Anum_es_events_type, &isnull);
	Datum		id = slot_getattr(slot, Anum_es_events_id, &isnull);

	return psprintf("event at position " INT64_FORMAT " (version " INT64_FORMAT
					" of stream \"%s\", type \"%s\"%s%s)",
					position, version, TextDatumGetCString(stream),
					TextDatumGetCString(type),
					with_id ? ", id " : "",
					with_id ? uuid_to_cstring(DatumGetUUIDP(id)) : "");
}

char *
event_batch_describe_first(Relation log, Tuplestorestate *events)
{
	TupleTableSlot *slot = event_slot_make(log);
	char	   *first;

	fetch_event(events, 0, slot);
	first = event_slot_describe(slot, false);
	ExecDropSingleTupleTableSlot(slot);
	return first;
}

char *
event_batch_describe(Relation log, Tuplestorestate *events)
{
	int64		count = tuplestore_tuple_count(events);
	TupleTableSlot *slot;
	char	   *first;

	if (count == 0)
		return pstrdup("no event");
	slot = event_slot_make(log);
	fetch_event(events, 0, slot);
	first = event_slot_describe(slot, true);
	if (count > 1)
	{
		fetch_event(events, count - 1, slot);
		first = psprintf(INT64_FORMAT " events, from the %s to the %s",
						 count, first, event_slot_describe(slot, true));
	}
	ExecDropSingleTupleTableSlot(slot);
	return first;
}
