/*-------------------------------------------------------------------------
 *
 * source_positions.c
 *		es_source_positions(): where the next events of a filter are, for statements
 *		of the extension that look at many consumers at once.
 *
 * SQL has an index for categories and one for positions, and the planner finds both.
 * What a query finds it cannot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "access/table.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

PG_FUNCTION_INFO_V1(es_source_positions);

/* Arguments, in their order. */
enum
{
	ARG_QUERY, ARG_CATEGORIES, ARG_TYPES, ARG_AFTER, ARG_UPTO, ARG_MAX_COUNT
};

/* Returns the positions of all events of the batch. */
static Int8Array
batch_positions(Oid log, const EventBatch *batch)
{
	Relation	rel = table_open(log, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(rel);
	Int8Array	positions = {0};
	bool		isnull;

	tuplestore_rescan(batch->events);
	while (tuplestore_gettupleslot(batch->events, true, false, slot))
		int8_array_append(&positions,
						  DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull)));
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return positions;
}

/*
 * es_source_positions(query, categories, types, after_position, upto_position,
 * max_count): those of the next events that match a query, and are of the categories and
 * types, if these are given; in order.  Nothing without a query.
 */
Datum
es_source_positions(PG_FUNCTION_ARGS)
{
	EventSource source = {
		.log = log_relid(fcinfo->flinfo->fn_oid),
		.reader = GetUserId(),
		.categories = PG_ARGISNULL(ARG_CATEGORIES) ? NULL : PG_GETARG_ARRAYTYPE_P(ARG_CATEGORIES),
		.types = PG_ARGISNULL(ARG_TYPES) ? NULL : PG_GETARG_ARRAYTYPE_P(ARG_TYPES)
	};
	ReadLimit	limit = {0};
	EventBatch	batch = {0};
	Int8Array	positions = {0};

	if (PG_ARGISNULL(ARG_QUERY) || PG_ARGISNULL(ARG_AFTER) || PG_ARGISNULL(ARG_UPTO) ||
		PG_ARGISNULL(ARG_MAX_COUNT))
		PG_RETURN_POINTER(int8_array_make(positions));
	source.query = query_read(PG_GETARG_JSONB_P(ARG_QUERY));
	limit.count = (int) Min(PG_GETARG_INT64(ARG_MAX_COUNT), PG_INT32_MAX);
	batch.events = event_batch_make();
	event_reader_read(&source, GetActiveSnapshot(), PG_GETARG_INT64(ARG_AFTER),
					  PG_GETARG_INT64(ARG_UPTO), &limit, &batch);
	positions = batch_positions(source.log, &batch);
	tuplestore_end(batch.events);
	PG_RETURN_POINTER(int8_array_make(positions));
}
