/*-------------------------------------------------------------------------
 *
 * events.c
 *		Reading the log in batches, for those who handle events: projections
 *		and subscriptions.
 *
 * Events are read by SQL as a role, with its privileges and row security, in
 * position order, up to the horizon of the snapshot that reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "eventstore.h"

/*
 * Opens an empty batch, which is kept in memory as far as work_mem goes.
 */
Tuplestorestate *
events_make_batch(void)
{
	return tuplestore_begin_heap(false, false, work_mem);
}

/* A slot for the rows of a batch; the log is open. */
TupleTableSlot *
events_make_slot(Relation log)
{
	return MakeSingleTupleTableSlot(RelationGetDescr(log),
									&TTSOpsMinimalTuple);
}

/* The columns of the log as a row of it has them, those that are dropped, too. */
static void
append_columns(StringInfo sql, TupleDesc desc)
{
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		appendStringInfo(sql, "%s%s%s", i > 0 ? ", " : "",
						 column->attisdropped ? "" : "e.",
						 column->attisdropped ? "NULL" :
						 quote_identifier(NameStr(column->attname)));
	}
}

/* The parameters of the statement that reads. */
enum
{
	READ_AFTER, READ_UPTO, READ_CATEGORY, READ_TYPES, READ_PARTITIONS,
	READ_PARTITION, READ_EXCEPT, READ_ONLY, READ_LIMIT, READ_PARAMS
};

static Oid	read_types[READ_PARAMS] = {INT8OID, INT8OID, TEXTOID, TEXTARRAYOID,
INT4OID, INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT4OID};

/* The statement that reads the next events of a source. */
static char *
read_sql(const EventSource *source, Relation log)
{
	const char *schema =
	quote_identifier(get_namespace_name(RelationGetNamespace(log)));
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_columns(&sql, RelationGetDescr(log));
	appendStringInfo(&sql, " FROM %s.es_events e"
					 " WHERE e.position > $1 AND e.position <= $2", schema);
	if (source->category != NULL)
		appendStringInfo(&sql, " AND %s.es_category(e.stream) = $3", schema);
	if (source->types != NULL)
		appendStringInfoString(&sql, " AND e.type = ANY ($4)");
	if (source->partitions > 1)
		appendStringInfo(&sql, " AND %s.es_partition(e.stream, $5) = $6",
						 schema);
	if (source->except != NULL)
		appendStringInfoString(&sql, " AND e.position <> ALL ($7)");
	if (source->only != NULL)
		appendStringInfoString(&sql, " AND e.position = ANY ($8)");
	appendStringInfoString(&sql, " ORDER BY e.position LIMIT $9");
	return sql.data;
}

static ParamListInfo
read_params(const EventSource *source, int64 after, int64 upto, int limit)
{
	ParamListInfo params = makeParamList(READ_PARAMS);
	Datum		values[READ_PARAMS] = {
		Int64GetDatum(after), Int64GetDatum(upto),
		PointerGetDatum(source->category), PointerGetDatum(source->types),
		Int32GetDatum(source->partitions), Int32GetDatum(source->partition),
		PointerGetDatum(source->except), PointerGetDatum(source->only),
		Int32GetDatum(limit)
	};
	int			i;

	for (i = 0; i < READ_PARAMS; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = read_types[i];
	}
	params->params[READ_CATEGORY].isnull = source->category == NULL;
	params->params[READ_TYPES].isnull = source->types == NULL;
	params->params[READ_EXCEPT].isnull = source->except == NULL;
	params->params[READ_ONLY].isnull = source->only == NULL;
	return params;
}

/*
 * Runs the statement of read_sql as the source's reader, with the snapshot;
 * its rows go to the store.  It is planned each time anew, for how much of the
 * log it reads.
 */
static void
read_as_reader(const EventSource *source, Snapshot snapshot, const char *sql,
			   ParamListInfo params, Tuplestorestate *store)
{
	SPIExecuteOptions options = {0};
	RunAs		saved = run_as(source->reader, true, "pg_catalog, pg_temp");
	int			result;

	options.params = params;
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, store,
									CurrentMemoryContext, false, NULL, NULL);
	PushActiveSnapshot(snapshot);
	SPI_connect();
	result = SPI_execute_plan_extended(run_as_plan(sql, READ_PARAMS, read_types,
												   CURSOR_OPT_CUSTOM_PLAN),
									   &options);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	SPI_finish();
	PopActiveSnapshot();
	options.dest->rDestroy(options.dest);
	run_as_end(saved);
}

/*
 * The position of the last of some events; there is at least one.
 */
int64
events_last_position(Oid relid, Tuplestorestate *events)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = events_make_slot(log);
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
events_read(const EventSource *source, Snapshot snapshot, int64 after,
			int64 upto, int limit, Batch *batch)
{
	Relation	log = table_open(source->log, AccessShareLock);

	read_as_reader(source, snapshot, read_sql(source, log),
				   read_params(source, after, upto, limit), batch->events);
	batch->count = tuplestore_tuple_count(batch->events);
	batch->upto = batch->count == limit ?
		events_last_position(source->log, batch->events) : upto;
	table_close(log, AccessShareLock);
}
