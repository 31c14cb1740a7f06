/*-------------------------------------------------------------------------
 *
 * archive_reader.c
 *		Events of the log and of the archive, merged by position, for a rebuild.
 *
 * The log is read first, a batch of it.  From the archive come the events up to the
 * position where that batch ends, so that no part of the archive is searched twice, however
 * few of its events are wanted.  Both are read in one snapshot: an event that is moved
 * meanwhile is in one of them.
 *
 * The archive is read by SQL, with the rights of the source's reader.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "retention/archive.h"

/* The parameters of the statement. */
enum
{
	ARCHIVE_AFTER, ARCHIVE_UPTO, ARCHIVE_CATEGORIES, ARCHIVE_TYPES, ARCHIVE_EXCEPT,
	ARCHIVE_LIMIT, ARCHIVE_QUERY, ARCHIVE_PARAMS
};

static Oid	archive_types[ARCHIVE_PARAMS] = {INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID,
INT8ARRAYOID, INT4OID, JSONBOID};

/* Makes the statement that reads the next events of a source from the archive. */
static char *
make_archive_sql(const EventSource *source, Relation log)
{
	const char *schema =
	quote_identifier(get_namespace_name(RelationGetNamespace(log)));
	StringInfoData condition;

	initStringInfo(&condition);
	appendStringInfoString(&condition, "e.position > $1 AND e.position <= $2");
	if (source->categories != NULL)
		appendStringInfo(&condition, " AND %s.es_category(e.stream) = ANY ($3)", schema);
	if (source->types != NULL)
		appendStringInfoString(&condition, " AND " ES_HAS_TYPE("$4"));
	if (source->query != NULL)
		appendStringInfoString(&condition, EVENT_SQL_MATCHES_QUERY("$7"));
	if (source->except.count > 0)
		appendStringInfoString(&condition, " AND e.position <> ALL ($5)");
	appendStringInfoString(&condition, " ORDER BY e.position LIMIT $6");
	return event_sql_make_archived(log, condition.data);
}

/* Reads the next events of a source from the archive. */
static Tuplestorestate *
read_archive(const EventSource *source, Relation log, Snapshot snapshot, int64 after,
			 int64 upto, int limit)
{
	Tuplestorestate *store = event_batch_make();
	Datum		values[ARCHIVE_PARAMS] = {
		Int64GetDatum(after), Int64GetDatum(upto),
		PointerGetDatum(source->categories), PointerGetDatum(source->types),
		PointerGetDatum(int8_array_make(source->except)), Int32GetDatum(limit),
		source->query ? PointerGetDatum(source->query->json) : (Datum) 0
	};
	bool		nulls[ARCHIVE_PARAMS] = {false};

	nulls[ARCHIVE_CATEGORIES] = source->categories == NULL;
	nulls[ARCHIVE_TYPES] = source->types == NULL;
	nulls[ARCHIVE_QUERY] = source->query == NULL;
	event_sql_run(source->reader, snapshot, make_archive_sql(source, log),
				  ARCHIVE_PARAMS, archive_types, values, nulls, store);
	return store;
}

/* A store that is merged with another one, and its next event. */
typedef struct MergedEvents
{
	Tuplestorestate *store;
	TupleTableSlot *slot;
	int64		position;		/* the greatest bigint after the last event */
} MergedEvents;

/* Takes the next event of the store. */
static void
take_next_event(MergedEvents *events)
{
	bool		isnull;

	events->position = PG_INT64_MAX;
	if (tuplestore_gettupleslot(events->store, true, false, events->slot))
		events->position = DatumGetInt64(slot_getattr(events->slot,
													  Anum_es_events_position,
													  &isnull));
}

static MergedEvents
begin_merged_events(Relation log, Tuplestorestate *store)
{
	MergedEvents events = {.store = store,.slot = event_slot_make(log)};

	tuplestore_rescan(store);
	take_next_event(&events);
	return events;
}

static void
end_merged_events(MergedEvents *events)
{
	ExecDropSingleTupleTableSlot(events->slot);
	tuplestore_end(events->store);
}

/*
 * Merges two stores into a new one, of so many events.  last: the position of its last
 * event.
 */
static Tuplestorestate *
merge_stores(Relation log, Tuplestorestate *one, Tuplestorestate *other, int limit,
			 int64 *last)
{
	MergedEvents first = begin_merged_events(log, one);
	MergedEvents second = begin_merged_events(log, other);
	Tuplestorestate *merged = event_batch_make();

	while (tuplestore_tuple_count(merged) < limit)
	{
		MergedEvents *next = first.position < second.position ? &first : &second;

		if (next->position == PG_INT64_MAX)
			break;
		*last = next->position;
		tuplestore_puttupleslot(merged, next->slot);
		take_next_event(next);
	}
	end_merged_events(&first);
	end_merged_events(&second);
	return merged;
}

/*
 * Adds events of the archive to the batch.
 */
void
archive_merge_batch(const EventSource *source, Snapshot snapshot, int64 after, int limit,
					EventBatch *batch)
{
	Relation	log = table_open(source->log, AccessShareLock);
	Tuplestorestate *archived = read_archive(source, log, snapshot, after, batch->upto,
											 limit);
	int64		last = after;

	if (tuplestore_tuple_count(archived) > 0)
	{
		batch->events = merge_stores(log, batch->events, archived, limit, &last);
		batch->count = tuplestore_tuple_count(batch->events);
		if (batch->count == limit)
			batch->upto = last;
	}
	else
		tuplestore_end(archived);
	table_close(log, AccessShareLock);
}
