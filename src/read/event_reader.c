/*-------------------------------------------------------------------------
 *
 * event_reader.c
 *		Reading the log in batches, for those who handle events: projections
 *		and subscriptions.
 *
 * Events are read as a role, with its privileges and row security, in position
 * order, up to the horizon of the snapshot that reads them.  Where the role may
 * read all of them they are looked up in an index, on the position or on
 * category and position; else by SQL, which knows what it may read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

/*
 * Opens an empty batch, which is kept in memory as far as work_mem goes.
 */
Tuplestorestate *
event_batch_make(void)
{
	return tuplestore_begin_heap(false, false, work_mem);
}

/* A slot for the rows of a batch; the log is open. */
TupleTableSlot *
event_slot_make(Relation log)
{
	return MakeSingleTupleTableSlot(RelationGetDescr(log),
									&TTSOpsMinimalTuple);
}

/* Our columns of es_events, in their order; others are nobody's business. */
#define EVENT_COLUMNS \
	"e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id," \
	" e.stream, e.type, e.data, e.metadata"

/* The parameters of the statement that reads. */
enum
{
	READ_AFTER, READ_UPTO, READ_CATEGORY, READ_TYPES, READ_PARTITIONS,
	READ_PARTITION, READ_EXCEPT, READ_ONLY, READ_LIMIT, READ_PARAMS
};

static Oid	read_types[READ_PARAMS] = {INT8OID, INT8OID, TEXTOID, TEXTARRAYOID,
INT4OID, INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT4OID};

/*
 * The statement that reads the events e for which the condition holds; what
 * follows a condition can follow it.  The log is open.
 */
char *
event_reader_sql(Relation log, const char *condition)
{
	const char *schema = get_namespace_name(RelationGetNamespace(log));

	return psprintf("SELECT " EVENT_COLUMNS " FROM %s.es_events e WHERE %s",
					quote_identifier(schema), condition);
}

/* The statement that reads the next events of a source. */
static char *
read_sql(const EventSource *source, Relation log)
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
	return event_reader_sql(log, condition.data);
}

static ParamListInfo
make_params(int count, const Oid *types, const Datum *values,
			const bool *nulls)
{
	ParamListInfo params = makeParamList(count);
	int			i;

	for (i = 0; i < count; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	return params;
}

/*
 * Runs a statement of event_reader_sql as the reader, with the snapshot; its rows go
 * to the store.  It is planned each time anew, for how much of the log it
 * reads.  nulls: NULL if there are none.
 */
void
event_reader_run_sql(Oid reader, Snapshot snapshot, const char *sql, int count,
					 Oid *types, const Datum *values, const bool *nulls,
					 Tuplestorestate *store)
{
	SPIExecuteOptions options = {0};
	RunAs		saved = run_as(reader, true, "pg_catalog, pg_temp");
	int			result;

	/* the caller's setting is for what he reads himself */
	if (reader != saved.userid)
		(void) set_config_option("row_security", "on", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	options.params = make_params(count, types, values, nulls);
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, store,
									CurrentMemoryContext, false, NULL, NULL);
	PushActiveSnapshot(snapshot);
	SPI_connect();
	result = SPI_execute_plan_extended(own_sql_cached_plan(sql, count, types,
														   CURSOR_OPT_CUSTOM_PLAN),
									   &options);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	SPI_finish();
	PopActiveSnapshot();
	options.dest->rDestroy(options.dest);
	run_as_end(saved);
}

/* Reads the next events of a source by SQL. */
static void
read_as_reader(const EventSource *source, Relation log, Snapshot snapshot,
			   int64 after, int64 upto, int limit, Tuplestorestate *store)
{
	Datum		values[READ_PARAMS] = {
		Int64GetDatum(after), Int64GetDatum(upto),
		PointerGetDatum(source->category), PointerGetDatum(source->types),
		Int32GetDatum(source->partitions), Int32GetDatum(source->partition),
		PointerGetDatum(int8_array_make(source->except)),
		PointerGetDatum(int8_array_make(source->only)),
		Int32GetDatum(limit)
	};
	bool		nulls[READ_PARAMS] = {false};

	nulls[READ_CATEGORY] = source->category == NULL;
	nulls[READ_TYPES] = source->types == NULL;
	event_reader_run_sql(source->reader, snapshot, read_sql(source, log),
						 READ_PARAMS, read_types, values, nulls, store);
}

/*
 * May the reader read all events?
 */
bool
event_reader_may_read_all(Oid log, Oid reader)
{
	return pg_class_aclcheck(log, reader, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(log, reader, true) != RLS_ENABLED;
}

/* Events that are looked up in an index. */
typedef struct EventScan
{
	const EventSource *source;
	Datum	   *types;
	int			type_count;
	Relation	index;
	ScanKeyData keys[3];
	int			key_count;
} EventScan;

static void
add_key(EventScan *scan, int column, int strategy, RegProcedure procedure,
		Datum value)
{
	table_row_key(&scan->keys[scan->key_count++], scan->index, column, strategy,
				  procedure, value);
}

/*
 * Opens the index and makes the keys; false if there is no index to use.
 */
static bool
open_scan(EventScan *scan, const EventSource *source, Relation log,
		  int64 after, int64 upto)
{
	int			position = 1;

	memset(scan, 0, sizeof(EventScan));
	scan->source = source;
	scan->index = source->category ? log_index_open_category(log) :
		log_index_open_position(log);
	if (scan->index == NULL)
		return false;
	if (source->category != NULL)
		add_key(scan, position++, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(source->category));
	add_key(scan, position, BTGreaterStrategyNumber, F_INT8GT,
			Int64GetDatum(after));
	add_key(scan, position, BTLessEqualStrategyNumber, F_INT8LE,
			Int64GetDatum(upto));
	if (source->types != NULL)
		deconstruct_array(source->types, TEXTOID, -1, false, TYPALIGN_INT,
						  &scan->types, NULL, &scan->type_count);
	return true;
}

static bool
has_type(const EventScan *scan, TupleTableSlot *slot)
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

/* Is the event wanted, as far as the index does not know? */
static bool
is_wanted(const EventScan *scan, TupleTableSlot *slot)
{
	const EventSource *source = scan->source;
	bool		isnull;

	if (source->partitions > 1 &&
		stream_partition(DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream,
													 &isnull)),
						 source->partitions) != source->partition)
		return false;
	if (source->types != NULL && !has_type(scan, slot))
		return false;
	return source->except.count == 0 ||
		!int8_array_has(&source->except,
						DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
												   &isnull)));
}

/*
 * Reads from the index until the limit is reached.
 */
static void
read_index(EventScan *scan, Relation log, Snapshot snapshot, int limit,
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
		if (!is_wanted(scan, slot))
			continue;
		tuplestore_puttupleslot(store, slot);
		limit--;
	}
	index_endscan(index_scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(scan->index, AccessShareLock);
}

/*
 * The position of the last of some events; there is at least one.
 */
int64
event_batch_last_position(Oid relid, Tuplestorestate *events)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	int64		position;
	bool		isnull;

	tuplestore_rescan(events);
	tuplestore_skiptuples(events, tuplestore_tuple_count(events) - 1, true);
	(void) tuplestore_gettupleslot(events, true, false, slot);
	position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
										  &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return position;
}

/*
 * Reads the next events of the source, after one position and not beyond
 * another, at most limit, into batch->events, which is made before.  Up to
 * batch->upto there are no others.
 */
void
event_reader_read(const EventSource *source, Snapshot snapshot, int64 after,
				  int64 upto, int limit, EventBatch *batch)
{
	Relation	log = table_open(source->log, AccessShareLock);
	EventScan	scan;

	if (source->only.count == 0 &&
		event_reader_may_read_all(source->log, source->reader) &&
		open_scan(&scan, source, log, after, upto))
		read_index(&scan, log, snapshot, limit, batch->events);
	else
		read_as_reader(source, log, snapshot, after, upto, limit,
					   batch->events);
	batch->count = tuplestore_tuple_count(batch->events);
	batch->upto = batch->count == limit ?
		event_batch_last_position(source->log, batch->events) : upto;
	table_close(log, AccessShareLock);
}
