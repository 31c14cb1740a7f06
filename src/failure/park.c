/*-------------------------------------------------------------------------
 *
 * park.c
 *		Setting events aside: those that failed, and those of the same streams
 *		that must wait behind them.
 *
 * What is set aside is taken out of a batch into a list, and stored in
 * es_failures (failure.c) when the batch is done with, in the transaction
 * that moves the checkpoint over it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/array.h"

#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"

/* Is the stream one of them? */
static bool
is_parked(const List *streams, text *stream)
{
	ListCell   *cell;

	foreach(cell, streams)
	{
		if (stream_equal(lfirst(cell), stream))
			return true;
	}
	return false;
}

static ParkedEvent *
make_aside(TupleTableSlot *slot, ErrorData *error, int attempts)
{
	ParkedEvent *aside = palloc0(sizeof(ParkedEvent));
	bool		isnull;

	aside->event = ExecCopySlotMinimalTuple(slot);
	aside->position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
												 &isnull));
	aside->error = error;
	aside->attempts = attempts;
	return aside;
}

/*
 * Which streams of the batch are parked, as a list of text.
 */
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

		if (!is_parked(streams, stream))
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

/*
 * Takes the events of the streams out of the batch; returns the list with
 * them.
 */
List *
park_take(Oid relid, EventBatch *batch, const List *streams, List *aside)
{
	Relation	log;
	TupleTableSlot *slot;
	Tuplestorestate *rest;

	if (streams == NIL)
		return aside;
	log = table_open(relid, AccessShareLock);
	slot = event_slot_make(log);
	rest = event_batch_make();
	tuplestore_rescan(batch->events);
	while (tuplestore_gettupleslot(batch->events, true, false, slot))
	{
		bool		isnull;
		Datum		stream = slot_getattr(slot, Anum_es_events_stream, &isnull);

		if (is_parked(streams, DatumGetTextPP(stream)))
			aside = lappend(aside, make_aside(slot, NULL, 0));
		else
			tuplestore_puttupleslot(rest, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	tuplestore_end(batch->events);
	batch->events = rest;
	batch->count = tuplestore_tuple_count(rest);
	return aside;
}

/*
 * Adds the first event of a batch, which failed so often, to the list; stream:
 * its stream, in the present memory context.
 */
List *
park_first(Oid relid, const EventBatch *batch, ErrorData *error, int attempts,
		   List *aside, text **stream)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	bool		isnull;

	tuplestore_rescan(batch->events);
	(void) tuplestore_gettupleslot(batch->events, true, false, slot);
	aside = lappend(aside, make_aside(slot, error, attempts));
	*stream = DatumGetTextPCopy(slot_getattr(slot, Anum_es_events_stream,
											 &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return aside;
}

/*
 * Stores what was set aside.  pause: seconds until the ones that failed are
 * tried again by themselves; FAILURE_PARKED: they are not.
 */
void
park_save(FailureOwner owner, const List *aside, double pause)
{
	Relation	log = table_open(owner.log, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	ListCell   *cell;

	foreach(cell, aside)
	{
		ParkedEvent *one = lfirst(cell);

		ExecStoreMinimalTuple(one->event, slot, false);
		failure_add(owner, slot, one->error, one->attempts,
					one->error ? pause : FAILURE_PARKED);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
}
