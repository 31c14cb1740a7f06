/*-------------------------------------------------------------------------
 *
 * park.c
 *		Parking events: those that failed, and those of the same streams that
 *		must wait behind them.
 *
 * Parked events are taken out of a batch into a list, which is stored in
 * es_failures (failure.c) when the batch is over, in the transaction that
 * moves the checkpoint over it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "failure/failure.h"

/* Returns true if the stream is one of the list. */
static bool
is_parked_stream(const List *streams, text *stream)
{
	ListCell   *cell;

	foreach(cell, streams)
	{
		if (stream_equal(lfirst(cell), stream))
			return true;
	}
	return false;
}

/* Makes the list's entry for the event in the slot. */
static ParkedEvent *
make_parked_event(TupleTableSlot *slot, ErrorData *error, int attempts)
{
	ParkedEvent *parked = palloc0(sizeof(ParkedEvent));
	bool		isnull;

	parked->event = ExecCopySlotMinimalTuple(slot);
	parked->position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
												  &isnull));
	parked->error = error;
	parked->attempts = attempts;
	return parked;
}

/* Returns the parked streams of the batch, as a list of text. */
List *
park_streams(FailureOwner owner, EventBatch *batch)
{
	Relation	log = table_open(owner.log, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	List	   *streams = NIL;
	Datum	   *values = palloc(sizeof(Datum) * (batch->count + 1));
	int			count = 0;
	ListCell   *cell;

	tuplestore_rescan(batch->events);
	while (tuplestore_gettupleslot(batch->events, true, false, slot))
	{
		bool		isnull;
		text	   *stream = DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream,
														 &isnull));

		if (!is_parked_stream(streams, stream))
			streams = lappend(streams, DatumGetTextPCopy(PointerGetDatum(stream)));
	}
	foreach(cell, streams)
		values[count++] = PointerGetDatum(lfirst(cell));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return failure_streams(owner,
						   construct_array(values, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Takes the events of the streams out of the batch. */
List *
park_take(Oid relid, EventBatch *batch, const List *streams, List *parked)
{
	Relation	log;
	TupleTableSlot *slot;
	Tuplestorestate *rest;

	if (streams == NIL)
		return parked;
	log = table_open(relid, AccessShareLock);
	slot = event_slot_make(log);
	rest = event_batch_make();
	tuplestore_rescan(batch->events);
	while (tuplestore_gettupleslot(batch->events, true, false, slot))
	{
		bool		isnull;
		Datum		stream = slot_getattr(slot, Anum_es_events_stream, &isnull);

		if (is_parked_stream(streams, DatumGetTextPP(stream)))
			parked = lappend(parked, make_parked_event(slot, NULL, 0));
		else
			tuplestore_puttupleslot(rest, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	tuplestore_end(batch->events);
	batch->events = rest;
	batch->count = tuplestore_tuple_count(rest);
	return parked;
}

/* Adds the first event of the batch, which failed, to the list. */
List *
park_first(Oid relid, const EventBatch *batch, ErrorData *error, int attempts,
		   List *parked, text **stream)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	bool		isnull;

	tuplestore_rescan(batch->events);
	(void) tuplestore_gettupleslot(batch->events, true, false, slot);
	parked = lappend(parked, make_parked_event(slot, error, attempts));
	*stream = DatumGetTextPCopy(slot_getattr(slot, Anum_es_events_stream,
											 &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return parked;
}

void
park_release_removed(FailureOwner owner, const List *parked, int64 passed)
{
	Relation	log;
	TupleTableSlot *slot;
	List	   *streams = NIL;
	ListCell   *cell;

	if (parked == NIL)
		return;
	log = table_open(owner.log, AccessShareLock);
	slot = event_slot_make(log);
	foreach(cell, removed_any(log) ? parked : NIL)
	{
		bool		isnull;
		text	   *stream;

		ExecStoreMinimalTuple(((ParkedEvent *) lfirst(cell))->event, slot, false);
		stream = DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream, &isnull));
		if (is_parked_stream(streams, stream))
			continue;
		streams = lappend(streams, DatumGetTextPCopy(PointerGetDatum(stream)));
		(void) failure_forget_removed(owner, text_to_cstring(stream), passed);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
}

/* Returns those of the list that are not after the position. */
List *
park_upto(const List *parked, int64 position)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, parked)
	{
		if (((ParkedEvent *) lfirst(cell))->position <= position)
			result = lappend(result, lfirst(cell));
	}
	return result;
}

/* Stores the list in es_failures. */
void
park_save(FailureOwner owner, const List *parked, double pause)
{
	Relation	log = table_open(owner.log, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	ListCell   *cell;

	foreach(cell, parked)
	{
		ParkedEvent *one = lfirst(cell);

		ExecStoreMinimalTuple(one->event, slot, false);
		failure_add(owner, slot, one->error, one->attempts,
					one->error ? pause : FAILURE_PARKED);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
}
