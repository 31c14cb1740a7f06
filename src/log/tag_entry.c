/*-------------------------------------------------------------------------
 *
 * tag_entry.c
 *		The table es_tags: which events have a tag, in the order of positions.
 *
 * It is an index in the form of a table: an entry for each tag of each event, derived
 * from es_events.  It is not dumped, and no user reads it.
 *
 * The protocol:
 *
 *	1. An append stores the entries of its events with them, in the same transaction, so
 *	   that a snapshot that sees an event sees its entries.  They are stored before AFTER triggers
 *	   fire.
 *	2. The entries of a row that comes otherwise, by INSERT, COPY or logical replication,
 *	   are stored by the trigger es_events_tag.  For a row that was appended, whose
 *	   entries are there, it does nothing.
 *	3. An entry never changes, as the tags of a stored event never do.
 *	4. es_reindex_tags() compares all entries with all events, and stores and removes what
 *	   differs.  It needs no lock: each of its two statements sees events and entries in
 *	   one snapshot, and those of a transaction that has not ended are both invisible.
 *
 * Entries are stored as the server stores rows of its catalogs: without the executor, and
 * for indexes on columns alone (tag_table.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/role.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/tags.h"

PG_FUNCTION_INFO_V1(es_events_tag);
PG_FUNCTION_INFO_V1(es_reindex_tags);

/* The columns of an event that its entries have. */
typedef struct TaggedEvent
{
	int64		position;
	Datum		type;
	Datum		tags;
} TaggedEvent;

/* An entry as a row.  Columns that were added and dropped are null. */
static HeapTuple
form_entry(Relation rel, Datum tag, const TaggedEvent *event)
{
	int			count = RelationGetNumberOfAttributes(rel);
	Datum	   *values = palloc0(sizeof(Datum) * count);
	bool	   *nulls = palloc(sizeof(bool) * count);
	HeapTuple	row;

	memset(nulls, true, sizeof(bool) * count);
	memset(nulls, false, sizeof(bool) * Natts_es_tags);
	values[Anum_es_tags_tag - 1] = tag;
	values[Anum_es_tags_position - 1] = Int64GetDatum(event->position);
	values[Anum_es_tags_type - 1] = event->type;
	row = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	pfree(values);
	pfree(nulls);
	return row;
}

/* Stores the entries of an event. */
static void
insert_entries_of(Relation rel, CatalogIndexState indexes, const TaggedEvent *event)
{
	Datum	   *tags;
	int			count = tags_values(event->tags, &tags);
	int			i;

	for (i = 0; i < count; i++)
	{
		HeapTuple	row = form_entry(rel, tags[i], event);

		CatalogTupleInsertWithInfo(rel, row, indexes);
		heap_freetuple(row);
	}
	pfree(tags);
}

/* Returns the first of the events that has tags; count without one. */
static int
first_tagged(const NewEvent *events, int count)
{
	int			i;

	for (i = 0; i < count && events[i].tags == (Datum) 0; i++)
		;
	return i;
}

/*
 * Stores the entries of events that were just stored.
 */
void
tag_entry_insert(Log *log, const NewEvent *events, int count)
{
	Relation	rel;
	CatalogIndexState indexes;
	int			i = first_tagged(events, count);

	if (i == count)
		return;
	rel = tag_table_open(RelationGetRelid(log->rel), RowExclusiveLock);
	indexes = tag_table_open_indexes(rel);
	for (; i < count; i++)
	{
		TaggedEvent event = {
			.position = events[i].position,
			.type = PointerGetDatum(events[i].type),
			.tags = events[i].tags
		};

		if (event.tags != (Datum) 0)
			insert_entries_of(rel, indexes, &event);
	}
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
}

/* Returns true if the entries of the event are stored, by this transaction. */
static bool
has_entries(Relation rel, const TaggedEvent *event)
{
	Relation	index = tag_table_open_key(rel);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, SnapshotSelf, 2);
	ScanKeyData keys[2];
	Datum	   *tags;
	bool		found;

	(void) tags_values(event->tags, &tags);
	table_row_key(&keys[0], index, Anum_es_tags_tag, BTEqualStrategyNumber, F_TEXTEQ, tags[0]);
	table_row_key(&keys[1], index, Anum_es_tags_position, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(event->position));
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	pfree(tags);
	return found;
}

/* The columns of a row of es_events that its entries have. */
static TaggedEvent
event_of_row(Relation log, HeapTuple row)
{
	TaggedEvent event = {
		.position = DatumGetInt64(stored_event_column(log, row, Anum_es_events_position)),
		.type = stored_event_column(log, row, Anum_es_events_type),
		.tags = stored_event_column(log, row, Anum_es_events_tags)
	};

	return event;
}

/* Stores the entries of an event, unless this transaction has. */
static void
insert_missing_entries(Relation log, const TaggedEvent *event)
{
	Relation	rel = tag_table_open(RelationGetRelid(log), RowExclusiveLock);

	if (!has_entries(rel, event))
	{
		CatalogIndexState indexes = tag_table_open_indexes(rel);

		insert_entries_of(rel, indexes, event);
		CatalogCloseIndexes(indexes);
	}
	table_close(rel, NoLock);
}

/*
 * AFTER INSERT of a row with tags: stores its entries, unless an append has.
 */
Datum
es_events_tag(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	TaggedEvent event = event_of_row(trigger->tg_relation, trigger->tg_trigtuple);

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && event.tags != (Datum) 0)
		insert_missing_entries(trigger->tg_relation, &event);
	return PointerGetDatum(NULL);
}

/*
 * Removes the entries of the old row, and stores those of the new one.
 */
void
tag_entry_replace(Relation log, HeapTuple old_row, HeapTuple new_row)
{
	TaggedEvent event = event_of_row(log, old_row);
	Oid			types[] = {INT8OID, TEXTARRAYOID};
	Datum		values[] = {Int64GetDatum(event.position), event.tags};

	if (event.tags != (Datum) 0)
		(void) own_sql_run(RelationGetRelid(log),
						   "DELETE FROM @extschema@.es_tags WHERE tag = ANY ($2) AND position = $1",
						   lengthof(types), types, values, NULL);
	if (new_row == NULL)
		return;
	event = event_of_row(log, new_row);
	if (event.tags != (Datum) 0)
		insert_missing_entries(log, &event);
}

/*
 * Stores entries that are missing, and removes those that no event has.
 */
void
tag_entry_reindex(Oid log, int64 *added, int64 *removed)
{
	*removed = own_sql_on_all_rows(log,
								   "DELETE FROM @extschema@.es_tags t WHERE NOT EXISTS"
								   " (SELECT FROM @extschema@.es_events e WHERE e.position = t.position"
								   " AND e.type = t.type AND t.tag = ANY (e.tags))",
								   true);
	*added = own_sql_on_all_rows(log,
								 "INSERT INTO @extschema@.es_tags (tag, position, type)"
								 " SELECT t.tag, e.position, e.type FROM @extschema@.es_events e"
								 " CROSS JOIN LATERAL pg_catalog.unnest(e.tags) AS t (tag)"
								 " ON CONFLICT DO NOTHING",
								 true);
}

/*
 * es_reindex_tags() returns (added, removed): makes es_tags agree with es_events.
 */
Datum
es_reindex_tags(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	TupleDesc	desc;
	int64		added;
	int64		removed;
	Datum		values[2];
	bool		nulls[2] = {false};

	PreventCommandIfReadOnly("es_reindex_tags()");
	log_check_relid_open(log);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function returns no row");
	SPI_connect();
	tag_entry_reindex(log, &added, &removed);
	SPI_finish();
	values[0] = Int64GetDatum(added);
	values[1] = Int64GetDatum(removed);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
