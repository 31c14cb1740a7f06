/*-------------------------------------------------------------------------
 *
 * event_reader.c
 *		Reads the next events of a source, for projections and subscriptions.
 *
 * Events are read as a role, with its privileges and row security, in position
 * order, up to the horizon of the snapshot that reads them.  For a role that may
 * read all of them they are looked up in an index: that of positions, or that of
 * categories and positions.  For any other they are read by SQL (event_sql.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

/* The parameters of the statement. */
enum
{
	READ_AFTER, READ_UPTO, READ_CATEGORY, READ_TYPES, READ_PARTITIONS,
	READ_PARTITION, READ_EXCEPT, READ_ONLY, READ_LIMIT, READ_PARAMS
};

static Oid	read_types[READ_PARAMS] = {INT8OID, INT8OID, TEXTOID, TEXTARRAYOID,
INT8OID, INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT4OID};

/* The statement that reads the next events of a source. */
static char *
make_source_sql(const EventSource *source, Relation log)
{
	const char *schema =
	quote_identifier(get_namespace_name(RelationGetNamespace(log)));
	StringInfoData condition;

	initStringInfo(&condition);
	appendStringInfoString(&condition, "e.position > $1 AND e.position <= $2");
	if (source->category != NULL)
		appendStringInfo(&condition, " AND %s.es_category(e.stream) = $3",
						 schema);
	if (source->types != NULL)
		appendStringInfoString(&condition, " AND e.type = ANY ($4)");
	if (source->partitions > 1)
		appendStringInfo(&condition,
						 " AND %s.es_partition(e.stream, $5) = $6", schema);
	if (source->except.count > 0)
		appendStringInfoString(&condition, " AND e.position <> ALL ($7)");
	if (source->only.count > 0)
		appendStringInfoString(&condition, " AND e.position = ANY ($8)");
	appendStringInfoString(&condition, " ORDER BY e.position LIMIT $9");
	return event_sql_make(log, condition.data);
}

/* Reads the next events of a source by SQL. */
static void
read_source_by_sql(const EventSource *source, Relation log, Snapshot snapshot,
				   int64 after, int64 upto, int limit, Tuplestorestate *store)
{
	Datum		values[READ_PARAMS] = {
		Int64GetDatum(after), Int64GetDatum(upto),
		PointerGetDatum(source->category), PointerGetDatum(source->types),
		Int64GetDatum(source->partitions), Int32GetDatum(source->partition),
		PointerGetDatum(int8_array_make(source->except)),
		PointerGetDatum(int8_array_make(source->only)),
		Int32GetDatum(limit)
	};
	bool		nulls[READ_PARAMS] = {false};

	nulls[READ_CATEGORY] = source->category == NULL;
	nulls[READ_TYPES] = source->types == NULL;
	event_sql_run(source->reader, snapshot, make_source_sql(source, log),
				  READ_PARAMS, read_types, values, nulls, store);
}

bool
event_reader_may_read_all(Oid log, Oid reader)
{
	return pg_class_aclcheck(log, reader, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(log, reader, true) != RLS_ENABLED;
}

/* A scan of an index for the events of a source. */
typedef struct SourceScan
{
	const EventSource *source;
	Datum	   *types;
	int			type_count;
	Relation	index;
	ScanKeyData keys[3];
	int			key_count;
} SourceScan;

static void
add_source_key(SourceScan *scan, int column, int strategy, RegProcedure procedure,
			   Datum value)
{
	table_row_key(&scan->keys[scan->key_count++], scan->index, column, strategy,
				  procedure, value);
}

/* Opens the index and makes the keys.  Returns false if there is no index. */
static bool
open_source_index(SourceScan *scan, const EventSource *source, Relation log,
				  int64 after, int64 upto)
{
	int			position = 1;

	memset(scan, 0, sizeof(SourceScan));
	scan->source = source;
	scan->index = source->category ? log_index_open_category(log) :
		log_index_open_position(log);
	if (scan->index == NULL)
		return false;
	if (source->category != NULL)
		add_source_key(scan, position++, BTEqualStrategyNumber, F_TEXTEQ,
					   PointerGetDatum(source->category));
	add_source_key(scan, position, BTGreaterStrategyNumber, F_INT8GT,
				   Int64GetDatum(after));
	add_source_key(scan, position, BTLessEqualStrategyNumber, F_INT8LE,
				   Int64GetDatum(upto));
	if (source->types != NULL)
		deconstruct_array(source->types, TEXTOID, -1, false, TYPALIGN_INT,
						  &scan->types, NULL, &scan->type_count);
	return true;
}

/* Returns true if the event's type is one of the source's. */
static bool
has_source_type(const SourceScan *scan, TupleTableSlot *slot)
{
	bool		isnull;
	text	   *type = DatumGetTextPP(slot_getattr(slot, Anum_es_events_type,
												   &isnull));
	int			i;

	for (i = 0; i < scan->type_count; i++)
	{
		if (stream_equal(DatumGetTextPP(scan->types[i]), type))
			return true;
	}
	return false;
}

/* Returns true if the event meets the conditions that are not in the index. */
static bool
is_of_source(const SourceScan *scan, TupleTableSlot *slot)
{
	const EventSource *source = scan->source;
	bool		isnull;

	if (source->partitions > 1 &&
		stream_partition(DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream,
													 &isnull)),
						 source->partitions) != source->partition)
		return false;
	if (source->types != NULL && !has_source_type(scan, slot))
		return false;
	return source->except.count == 0 ||
		!int8_array_has(&source->except,
						DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
												   &isnull)));
}

/* Reads from the index until the limit is reached, and closes it. */
static void
read_source_index(SourceScan *scan, Relation log, Snapshot snapshot, int limit,
				  Tuplestorestate *store)
{
	TupleTableSlot *slot = table_slot_create(log, NULL);
	IndexScanDesc index_scan = compat_index_beginscan(log, scan->index,
													  snapshot,
													  scan->key_count);

	index_rescan(index_scan, scan->keys, scan->key_count, NULL, 0);
	while (limit > 0 &&
		   index_getnext_slot(index_scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_of_source(scan, slot))
			continue;
		tuplestore_puttupleslot(store, slot);
		limit--;
	}
	index_endscan(index_scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(scan->index, AccessShareLock);
}

void
event_reader_read(const EventSource *source, Snapshot snapshot, int64 after,
				  int64 upto, int limit, EventBatch *batch)
{
	Relation	log = table_open(source->log, AccessShareLock);
	SourceScan	scan;

	if (source->only.count == 0 &&
		event_reader_may_read_all(source->log, source->reader) &&
		open_source_index(&scan, source, log, after, upto))
		read_source_index(&scan, log, snapshot, limit, batch->events);
	else
		read_source_by_sql(source, log, snapshot, after, upto, limit,
						   batch->events);
	batch->count = tuplestore_tuple_count(batch->events);
	batch->upto = batch->count == limit ?
		event_batch_last_position(source->log, batch->events) : upto;
	table_close(log, AccessShareLock);
}
