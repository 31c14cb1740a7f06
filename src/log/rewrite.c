/*-------------------------------------------------------------------------
 *
 * rewrite.c
 *		es_rewrite(): changing the data and metadata of one event on purpose.
 *
 * It is the only way past the trigger that refuses an UPDATE of es_events:
 *
 *	1. look up the event's stream;
 *	2. lock the stream as an append does, before the row, so that no command is
 *	   decided on the old data while it changes;
 *	3. run one UPDATE by the event's id, as the owner of the log.  It alone is
 *	   allowed (log_guard.c): the trigger that lets it pass ends the permission before
 *	   a row changes, and an UPDATE that another trigger runs is not allowed by it.  If
 *	   anything else used the permission first, this UPDATE would be refused and all
 *	   be undone;
 *	4. record it in es_rewrites, by which a retry of the old append is known: its
 *	   data are not those that are stored any more (append/write_retry.c);
 *	5. delete the stream's snapshots, which were folded from the old data.
 *
 * BEFORE UPDATE row triggers of others are refused, since they could change what must
 * stay.  AFTER triggers, constraints and generated columns are honoured.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_rewrite);

/* Raises that there is no such event. */
static void
fail_missing_event(pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event %s does not exist", uuid_to_cstring(id)),
			 errdetail("The transaction sees no event with this id.")));
}

/* Refuses triggers that could change or skip the row. */
static void
check_update_triggers(Oid log)
{
	Relation	rel = table_open(log, AccessShareLock);

	log_guard_check_update(rel->trigdesc);
	table_close(rel, NoLock);
}

/*
 * Locks the stream of the event, and returns its name.
 */
static text *
lock_event_stream(Oid log, pg_uuid_t *id)
{
	Oid			types[1] = {UUIDOID};
	Datum		values[1];
	text	   *stream;

	values[0] = UUIDPGetDatum(id);
	if (own_sql_run(log, "SELECT stream FROM @extschema@.es_events WHERE id = $1",
					1, types, values, NULL) == 0)
		fail_missing_event(id);
	stream = DatumGetTextPP(own_sql_value(1));
	log_lock_stream(log, stream);
	return stream;
}

/*
 * Changes the event; returns its position.  nulls: as for SPI.
 */
static int64
rewrite_event(Oid log, Datum *values, const char *nulls)
{
	Oid			types[3] = {UUIDOID, JSONBOID, JSONBOID};

	log_guard_allow_rewrite(true);
	PG_TRY();
	{
		(void) own_sql_run(log,
						   "UPDATE @extschema@.es_events"
						   " SET data = $2, metadata = coalesce($3, metadata)"
						   " WHERE id = $1 RETURNING position",
						   3, types, values, nulls);
	}
	PG_FINALLY();
	{
		log_guard_allow_rewrite(false);
	}
	PG_END_TRY();
	if (SPI_processed != 1)
		fail_missing_event(DatumGetUUIDP(values[0]));
	return DatumGetInt64(own_sql_value(1));
}

/* Records that the event was rewritten, by whom and when last. */
static void
record_rewrite(Oid log, int64 position)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];

	values[0] = Int64GetDatum(position);
	values[1] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_rewrites AS r"
					   " (position, rewritten_at, rewritten_by)"
					   " SELECT $1, clock_timestamp(), $2::name"
					   " ON CONFLICT (position) DO UPDATE SET"
					   " (rewritten_at, rewritten_by) ="
					   " (excluded.rewritten_at, excluded.rewritten_by)",
					   2, types, values, NULL);
}

/*
 * Looks it up with the snapshot of the log, which has seen the event.
 */
bool
rewrite_is_recorded(Log *log, int64 position)
{
	Relation	rel = table_open(own_table_relid(RelationGetRelid(log->rel),
												 "es_rewrites"),
								 AccessShareLock);
	Relation	index = index_open(compat_primary_key_index(rel),
								   AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, log->latest, 1);
	ScanKeyData key;
	bool		found;

	table_row_key(&key, index, 1, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(position));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Deletes the stream's snapshots, which were folded from the old data.
 */
static void
delete_snapshots(Oid log, text *stream)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];

	values[0] = PointerGetDatum(stream);
	(void) own_sql_run(log,
					   "DELETE FROM @extschema@.es_snapshots WHERE stream = $1",
					   1, types, values, NULL);
}

/*
 * es_rewrite(id, data, metadata) returns bigint.
 */
Datum
es_rewrite(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char		nulls[3] = {' ', ' ', PG_ARGISNULL(2) ? 'n' : ' '};
	Datum		values[3];
	text	   *stream;
	int64		position;

	PreventCommandIfReadOnly("es_rewrite()");
	argument_not_null(fcinfo, 0, "id");
	argument_not_null(fcinfo, 1, "data");
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	if (!PG_ARGISNULL(2))
		event_check_metadata(values[2]);
	SPI_connect();
	check_update_triggers(log);
	stream = lock_event_stream(log, PG_GETARG_UUID_P(0));
	position = rewrite_event(log, values, nulls);
	record_rewrite(log, position);
	delete_snapshots(log, stream);
	SPI_finish();
	PG_RETURN_INT64(position);
}
