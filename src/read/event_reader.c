/*-------------------------------------------------------------------------
 *
 * event_reader.c
 *		Reads the next events of a source, for projections and subscriptions.
 *
 * Events are read as a role, with its privileges and row security, in position
 * order, up to the horizon of the snapshot that reads them.  For a role that may
 * read all of them they are looked up in an index (source_scan.c).  For any other they
 * are read by SQL (event_sql.c), by their positions where the query has indexes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "read/source.h"

/* Positions that are read by SQL at once where time may be over. */
#define WINDOW	10000

/* Positions of events that match a query, which are read by SQL at once. */
#define MATCHES	1000

/* The parameters of the statement. */
enum
{
	READ_AFTER, READ_UPTO, READ_CATEGORIES, READ_TYPES, READ_PARTITIONS,
	READ_PARTITION, READ_EXCEPT, READ_ONLY, READ_LIMIT, READ_QUERY, READ_PARAMS
};

static Oid	read_types[READ_PARAMS] = {INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID,
INT8OID, INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT4OID, JSONBOID};

/* The conditions on an event e of a source; with categories, of c.category. */
static char *
make_source_condition(const EventSource *source, const char *schema)
{
	StringInfoData condition;

	initStringInfo(&condition);
	appendStringInfoString(&condition, "e.position > $1 AND e.position <= $2");
	if (source->categories != NULL)
		appendStringInfo(&condition, " AND %s.es_category(e.stream) = c.category"
						 " AND %s.es_by_index(%s.es_category(e.stream), c.category)",
						 schema, schema, schema);
	if (source->types != NULL)
		appendStringInfoString(&condition, " AND " ES_HAS_TYPE("$4"));
	if (source->query != NULL)
		appendStringInfoString(&condition, EVENT_SQL_MATCHES_QUERY("$10"));
	if (source->partitions > 1)
		appendStringInfo(&condition,
						 " AND %s.es_partition(e.stream, $5) = $6", schema);
	if (source->except.count > 0)
		appendStringInfoString(&condition, " AND e.position <> ALL ($7)");
	if (source->only.count > 0)
		appendStringInfoString(&condition, " AND e.position = ANY ($8)");
	appendStringInfoString(&condition, " ORDER BY e.position LIMIT $9");
	return condition.data;
}

/*
 * The statement that reads the next events of a source: with categories the next
 * events of each, and the next of these.
 */
static char *
make_source_sql(const EventSource *source, Relation log)
{
	const char *schema =
	quote_identifier(get_namespace_name(RelationGetNamespace(log)));
	char	   *sql = event_sql_make(log, make_source_condition(source, schema));

	if (source->categories == NULL)
		return sql;
	return psprintf("SELECT e.* FROM unnest($3) AS c (category)"
					" CROSS JOIN LATERAL (%s) e ORDER BY e.position LIMIT $9", sql);
}

/* Reads the next events of a source by SQL. */
static void
read_source_by_sql(const EventSource *source, Relation log, Snapshot snapshot,
				   int64 after, int64 upto, int limit, Tuplestorestate *store)
{
	Datum		values[READ_PARAMS] = {
		Int64GetDatum(after), Int64GetDatum(upto),
		PointerGetDatum(source->categories), PointerGetDatum(source->types),
		Int64GetDatum(source->partitions), Int32GetDatum(source->partition),
		PointerGetDatum(int8_array_make(source->except)),
		PointerGetDatum(int8_array_make(source->only)),
		Int32GetDatum(limit),
		source->query ? PointerGetDatum(source->query->json) : (Datum) 0
	};
	bool		nulls[READ_PARAMS] = {false};

	nulls[READ_CATEGORIES] = source->categories == NULL;
	nulls[READ_TYPES] = source->types == NULL;
	nulls[READ_QUERY] = source->query == NULL;
	event_sql_run(source->reader, snapshot, make_source_sql(source, log),
				  READ_PARAMS, read_types, values, nulls, store);
}

/*
 * Reads by SQL.  Where time may be over, it is a window of positions at a time.  Returns
 * the position up to which all was read, if the batch is not full.
 */
static int64
read_windows_by_sql(const EventSource *source, Relation log, Snapshot snapshot,
					int64 after, int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	int64		from = after;

	do
	{
		int64		to = limit->deadline == NULL ? upto :
		Min(upto, from + WINDOW);

		read_source_by_sql(source, log, snapshot, from, to,
						   limit->count - (int) batch->count, batch->events);
		batch->count = tuplestore_tuple_count(batch->events);
		from = to;
	} while (from < upto && batch->count < limit->count &&
			 sleep_left(limit->deadline) > 0);
	return from;
}

/* Does the same for matches of the query, some of them at a time. */
static int64
read_window_by_sql(const EventSource *source, Relation log, Snapshot snapshot,
				   int64 after, int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	MatchRange	range = {.after = after,.upto = upto};
	Match	   *match = match_begin(source->log, source->query, &range, snapshot);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore matches",
												  ALLOCSET_DEFAULT_SIZES);
	EventSource some = *source;
	int64		from;

	some.only.values = palloc(sizeof(int64) * MATCHES);
	do
	{
		MemoryContext outer;

		match_take(match, &some.only, MATCHES);
		from = some.only.count < MATCHES ? upto : int8_array_last(some.only);
		outer = MemoryContextSwitchTo(context);
		if (some.only.count > 0)
			read_source_by_sql(&some, log, snapshot, after, upto,
							   limit->count - (int) batch->count, batch->events);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(context);
		batch->count = tuplestore_tuple_count(batch->events);
	} while (from < upto && batch->count < limit->count &&
			 (limit->deadline == NULL || sleep_left(limit->deadline) > 0));
	match_end(match);
	MemoryContextDelete(context);
	return from;
}

/* Does the same for all matches of the query, a window of positions at a time. */
static int64
read_matches_by_sql(const EventSource *source, Relation log, Snapshot snapshot,
					int64 after, int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	int64		from = after;
	int64		to;
	int			round = 0;

	do
	{
		to = source_window(limit, from, upto, round++);
		from = read_window_by_sql(source, log, snapshot, from, to, limit, batch);
	} while (from == to && to < upto && batch->count < limit->count &&
			 sleep_left(limit->deadline) > 0);
	return from;
}

/* Reads by SQL, and cuts the batch. */
static void
read_limited_by_sql(const EventSource *source, Relation log, Snapshot snapshot, int64 after,
					int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	int64		from;

	if (source->only.count == 0 && query_is_indexed(log, source->query))
		from = read_matches_by_sql(source, log, snapshot, after, upto, limit, batch);
	else
		from = read_windows_by_sql(source, log, snapshot, after, upto, limit, batch);
	if (limit->bytes > 0 && event_batch_cut(log, batch, limit->bytes))
	{
		batch->count = tuplestore_tuple_count(batch->events);
		batch->upto = event_batch_last_position(source->log, batch->events);
	}
	else
		batch->upto = batch->count == limit->count ?
			event_batch_last_position(source->log, batch->events) : from;
}

void
event_reader_read(const EventSource *source, Snapshot snapshot, int64 after,
				  int64 upto, const ReadLimit *limit, EventBatch *batch)
{
	Relation	log = table_open(source->log, AccessShareLock);

	if (batch->take == NULL)
		batch->count = tuplestore_tuple_count(batch->events);
	if (batch->count == 0)
		batch->bytes = 0;
	batch->upto = upto;
	if (source->only.count > 0 ||
		!role_may_read_all(source->log, source->reader) ||
		!source_scan_read(source, log, snapshot, after, upto, limit, batch))
		read_limited_by_sql(source, log, snapshot, after, upto, limit, batch);
	table_close(log, AccessShareLock);
}
