/*-------------------------------------------------------------------------
 *
 * replica_change.c
 *		What goes along when logical replication changes or removes an event.
 *
 * On the publisher a rewrite, a removal or a compaction has also changed the entries of
 * tags, and deleted snapshots that were folded from the event.  Neither table travels, as
 * each store makes its own.  So the trigger of es_events does both for each row that an
 * apply worker updates or deletes:
 *
 *	1. lock out who saves a state of the stream (snapshot_lock.c);
 *	2. delete the entries of the old row's tags, and store those of the new one;
 *	3. delete the snapshots of the stream and of the tags.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/rel.h"

#include "base/base.h"
#include "log/log.h"
#include "log/replica.h"
#include "log/snapshot_lock.h"

/* A column of a row of es_events; 0 for null. */
static Datum
column_of_row(Relation log, HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column, RelationGetDescr(log), &isnull);

	return isnull ? (Datum) 0 : value;
}

/* Runs a statement with the row's position, type, stream and tags. */
static void
run_with_row(Relation log, HeapTuple row, const char *sql)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTARRAYOID};
	Datum		values[] = {
		column_of_row(log, row, Anum_es_events_position),
		column_of_row(log, row, Anum_es_events_type),
		column_of_row(log, row, Anum_es_events_stream),
		column_of_row(log, row, Anum_es_events_tags)
	};

	(void) own_sql_run(RelationGetRelid(log), sql, lengthof(types), types, values,
					   values[3] ? NULL : "   n");
}

void
replica_apply_change(Relation log, HeapTuple old_row, HeapTuple new_row)
{
	snapshot_lock_to_change(DatumGetTextPP(column_of_row(log, old_row, Anum_es_events_stream)));
	SPI_connect();
	if (column_of_row(log, old_row, Anum_es_events_tags))
		run_with_row(log, old_row,
					 "DELETE FROM @extschema@.es_tags"
					 " WHERE tag OPERATOR(pg_catalog.=) ANY ($4) AND position OPERATOR(pg_catalog.=) $1");
	if (new_row != NULL && column_of_row(log, new_row, Anum_es_events_tags))
		run_with_row(log, new_row,
					 "INSERT INTO @extschema@.es_tags (tag, position, type)"
					 " SELECT t.tag, $1, $2 FROM pg_catalog.unnest($4) AS t (tag) ON CONFLICT DO NOTHING");
	run_with_row(log, old_row,
				 "DELETE FROM @extschema@.es_snapshots"
				 " WHERE stream OPERATOR(pg_catalog.=) ANY (coalesce($4, '{}') OPERATOR(pg_catalog.||) $3)");
	SPI_finish();
}
