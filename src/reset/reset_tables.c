/*-------------------------------------------------------------------------
 *
 * reset_tables.c
 *		What becomes of each table when the store is emptied.
 *
 * A table of the extension is in one of the lists below, or it is one of definitions that
 * do not depend on the log.  The test es_reset.sql compares a store that was emptied with
 * a new one, and fails for a table that is in none of them.
 *
 * TRUNCATE gives a table new files, however many rows it had, and leaves no dead rows to
 * the next test.  But files cost more than anything else here: up to version 16 the server
 * flushes each new index to the disk.  So the rows of a small table are deleted instead,
 * one by one and without a statement, which rules and row security could change.  Dead
 * rows make a table larger until it is truncated.  A table without a page is left alone.
 *
 * es_events always gets a new file: by that sessions know that the log is another one.  A
 * table with a foreign key is truncated in the same statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "projection/projection.h"
#include "reset/reset.h"

/* Pages of a table whose rows are deleted one by one. */
#define SMALL_TABLE		16

/* Tables that are emptied. */
static const char *const emptied[] = {
	"es_events", "es_tags", "es_rewrites", "es_removals", "es_removed_ids",
	"es_archived_events", "es_snapshots", "es_failures", "es_skipped_events", "es_inbox",
	"es_partitions", "es_notified", "es_subject_keys", "es_erasures"
};

/* Tables whose rows are changed. */
static const char *const changed[] = {
	"es_incarnation_entries", "es_published_horizon", "es_projections", "es_subscriptions",
	"es_retention"
};

/* Sequences that begin at 1 again. */
static const char *const sequences[] = {
	"es_position", "es_removals_id_seq", "es_snapshots_id_seq", "es_failures_id_seq",
	"es_inbox_id_seq"
};

/*
 * What is set where definitions have a checkpoint: what they have when they are made in an
 * empty store.  A consumer that was to begin at the end of the log begins at the next event.
 */
static const char *const begin_anew[] = {
	"DELETE FROM @extschema@.es_published_horizon",
	"UPDATE @extschema@.es_projections SET start_position = 0, position = 0, history = 0,"
	" handled = 0, rate = NULL, ran_at = NULL, refreshed_at = NULL" PROJECTION_GOES_ON,
	"UPDATE @extschema@.es_subscriptions SET start_position = 0",
	"INSERT INTO @extschema@.es_partitions (subscription, partition, position, reached)"
	" SELECT s.name, i, 0, 0 FROM @extschema@.es_subscriptions s,"
	" LATERAL generate_series(0, s.partitions - 1) AS i",
	"UPDATE @extschema@.es_retention SET aged_position = DEFAULT, seen_position = DEFAULT,"
	" left_streams = DEFAULT, tagged_streams = DEFAULT, left_behind = DEFAULT,"
	" removed = DEFAULT, removals = DEFAULT, held_by = NULL, held_position = NULL,"
	" held_since = NULL, ran_at = NULL, next_run = DEFAULT, paced_until = NULL,"
	" pause = DEFAULT, attempts = DEFAULT, failing_since = NULL, sqlstate = NULL,"
	" message = NULL, detail = NULL"
};

/* The tables of read models, by the owner of their projections. */
#define READ_MODELS \
	" FROM @extschema@.es_projections p CROSS JOIN LATERAL pg_catalog.unnest(p.tables) t (relid)" \
	" JOIN pg_class c ON c.oid = t.relid::oid"

/* A table of a read model that has had a row, or a number of a sequence. */
#define HAS_ROWS \
	"(c.relkind <> 'r' OR pg_relation_size(c.oid::regclass) > 0 OR EXISTS" \
	" (SELECT FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'" \
	" WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass" \
	" AND d.refobjid = c.oid AND d.deptype IN ('a', 'i')))"

static List *
add_relids(List *relids, Oid log, const char *const *names, int count)
{
	int			i;

	for (i = 0; i < count; i++)
		relids = lappend_oid(relids, own_table_relid(log, names[i]));
	return relids;
}

List *
reset_own_tables(Oid log)
{
	List	   *relids = add_relids(NIL, log, emptied, lengthof(emptied));

	relids = add_relids(relids, log, changed, lengthof(changed));
	return add_relids(relids, log, sequences, lengthof(sequences));
}

List *
reset_read_models(Oid log)
{
	uint64		count = own_sql_on_all_rows(log, "SELECT DISTINCT c.oid" READ_MODELS, true);
	List	   *relids = NIL;
	uint64		i;
	bool		isnull;

	for (i = 0; i < count; i++)
		relids = lappend_oid(relids,
							 DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc, 1, &isnull)));
	return relids;
}

/* Deletes all rows of a table that nobody else uses. */
static void
delete_rows_of(Relation rel)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		simple_table_tuple_delete(rel, &slot->tts_tid, snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* Returns true if the table has a foreign key, or one refers to it. */
static bool
has_foreign_key(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (triggers->triggers[i].tgisinternal)
			return true;
	}
	return false;
}

/* Empties a table, unless it is to be truncated.  Returns true if it is. */
static bool
is_left_to_truncate(Oid log, Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	bool		truncate = relid == log || pages > SMALL_TABLE ||
	has_foreign_key(rel->trigdesc);

	if (!truncate && pages > 0)
		delete_rows_of(rel);
	table_close(rel, NoLock);
	return truncate;
}

/* Runs TRUNCATE as the role. */
static void
truncate_as(Oid role, const char *tables)
{
	RunAs		saved = run_as(role, true, "pg_catalog, pg_temp");
	int			result = SPI_execute(psprintf("TRUNCATE %s RESTART IDENTITY", tables), false, 0);

	if (result < 0)
		elog(ERROR, "%s: TRUNCATE %s", SPI_result_code_string(result), tables);
	run_as_end(saved);
}

/* Returns true if a number was drawn. */
static bool
is_sequence_used(Oid log, Oid sequence)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(sequence);

	(void) own_sql_run_on_all_rows(log, "SELECT pg_sequence_last_value($1)", 1, &type,
								   &value, NULL, true);
	return own_sql_value(1) != 0;
}

/* Lets the sequences that were used begin at 1. */
static void
restart_sequences(Oid log)
{
	int			i;

	for (i = 0; i < (int) lengthof(sequences); i++)
	{
		Oid			sequence = own_table_relid(log, sequences[i]);

		if (is_sequence_used(log, sequence))
			ResetSequence(sequence);
	}
}

/* Empties tables that are small, and returns the names of the others. */
static char *
list_large_tables(Oid log)
{
	StringInfoData tables;
	int			i;

	initStringInfo(&tables);
	for (i = 0; i < (int) lengthof(emptied); i++)
	{
		Oid			relid = own_table_relid(log, emptied[i]);

		if (is_left_to_truncate(log, relid))
			appendStringInfo(&tables, "%s%s", tables.len > 0 ? ", " : "",
							 own_table_quoted_name(relid));
	}
	return tables.data;
}

void
reset_empty_tables(Oid log)
{
	truncate_as(run_as_owner(log), list_large_tables(log));
	/* no trigger tells sessions to forget the keys that are gone */
	CacheInvalidateRelcacheByRelid(own_table_relid(log, "es_subject_keys"));
	restart_sequences(log);
	CommandCounterIncrement();
}

/*
 * One statement for each owner, so that foreign keys between its tables do no harm.
 */
void
reset_empty_read_models(Oid log)
{
	uint64		count = own_sql_on_all_rows(log,
											"SELECT p.owner::oid, string_agg(DISTINCT format('%I.%I',"
											" c.relnamespace::regnamespace, c.relname), ', ')" READ_MODELS
											" WHERE " HAS_ROWS " GROUP BY 1", true);
	SPITupleTable *rows = SPI_tuptable;
	uint64		i;
	bool		isnull;

	for (i = 0; i < count; i++)
		truncate_as(DatumGetObjectId(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull)),
					SPI_getvalue(rows->vals[i], rows->tupdesc, 2));
}

void
reset_definitions(Oid log)
{
	int			i;

	for (i = 0; i < (int) lengthof(begin_anew); i++)
		(void) own_sql_on_all_rows(log, begin_anew[i], true);
}

/* Materialized views have the rows of a log that is gone. */
void
reset_refresh_views(Oid log)
{
	uint64		count = own_sql_on_all_rows(log,
											"SELECT p.name FROM @extschema@.es_projections p"
											" JOIN pg_class c ON c.oid = p.refresh::oid ORDER BY p.name",
											true);
	SPITupleTable *rows = SPI_tuptable;
	uint64		i;

	for (i = 0; i < count; i++)
		projection_apply(projection_get(log, SPI_getvalue(rows->vals[i], rows->tupdesc, 1), ""),
						 NULL, false);
}
