/*-------------------------------------------------------------------------
 *
 * removal.c
 *		The sequence of a removal.  Whatever removes events from the log comes through here:
 *		es_delete_stream(), es_truncate_stream(), es_compact_stream(), es_archive_stream()
 *		and the rules of retention.
 *
 *	1. Look up the tags that the stream's events have.
 *	2. Lock the stream and these tags exclusively, as an append does, to the end of the
 *	   transaction; then RowExclusiveLock on the log.  Before step 1, lock out readers that
 *	   save a state of the stream, which the removal would not see (log/snapshot_lock.c).
 *	3. Look at the events that are to be removed.  Tags that came in between are locked late.
 *	4. Find the floor that this removal leaves to the horizon.  It is the horizon, if that is
 *	   not below any of the events.  Else wait for all other transactions that may own a
 *	   position by now: then everything up to the last one of the events is decided.
 *	5. Append the notice, with all tags and types of the events.
 *	6. Delete the rows, the entries of their tags, and snapshots; store their ids in
 *	   es_removed_ids, and what was done in es_removals.
 *
 * All of it is one transaction, so that a snapshot sees all of it or nothing.  A reader whose
 * snapshot sees it sees everything that was committed at step 4, so that for it the floor is
 * stable (doc/internals/horizon.md).
 *
 * Rows are deleted by one DELETE, as the owner of the log.  The trigger that refuses others lets
 * it pass (log_guard.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "aggregate/aggregate.h"
#include "base/base.h"
#include "base/role.h"
#include "eventstore.h"
#include "log/closed.h"
#include "log/replica.h"
#include "log/slots.h"
#include "log/snapshot_lock.h"
#include "log/tags.h"
#include "retention/retention.h"

/* All tags of the stream's events up to a version. */
static const char *const find_tags =
"SELECT pg_catalog.array_agg(DISTINCT t.tag ORDER BY t.tag)"
" FROM @extschema@.es_events e CROSS JOIN LATERAL pg_catalog.unnest(e.tags) t (tag)"
" WHERE e.stream = $1 AND e.version <= $2";

/* What is to be removed: $1 the stream, $2 up to which version, $3 also from the archive. */
static const char *const describe_events =
"WITH e AS MATERIALIZED ("
"SELECT version, position, type, tags,"
" CASE WHEN type IN (" ES_NOTICE_TYPES ") THEN data->'types' END AS types"
" FROM @extschema@.es_events WHERE stream = $1 AND version <= $2"
" UNION ALL SELECT version, position, type, tags,"
" CASE WHEN type IN (" ES_NOTICE_TYPES ") THEN data->'types' END"
" FROM @extschema@.es_archived_events WHERE $3 AND stream = $1 AND version <= $2),"
" n AS (SELECT min(version) AS first, max(version) AS last, count(*) AS removed,"
" max(position) AS position FROM e)"
" SELECT n.first, n.last, n.removed, n.position,"
" (SELECT pg_catalog.array_agg(DISTINCT t.tag ORDER BY t.tag)"
" FROM e CROSS JOIN LATERAL pg_catalog.unnest(e.tags) t (tag)),"
" pg_catalog.jsonb_build_object('types', coalesce((SELECT pg_catalog.jsonb_agg(DISTINCT t.type)"
" FROM (SELECT e.type::text FROM e WHERE e.types IS NULL UNION ALL"
" SELECT x.type FROM e CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(e.types) x (type)) t),"
" '[]'), 'removed', n.removed, 'first_version', n.first, 'last_version', n.last)"
" FROM n";

/*
 * $1 the stream, $2 and $3 the versions, $4 one that is kept, $5 the horizon, $6 the action,
 * $7 the notice's position, $8 by whom, $9 why, $10 also from the archive.  Without events
 * $2 and $3 are 0, and the range is empty.
 */
static const char *const delete_events =
"WITH live AS (DELETE FROM @extschema@.es_events"
" WHERE stream = $1 AND version BETWEEN $2 AND $3 AND version <> $4"
" RETURNING position, version, id, tags),"
" archived AS (DELETE FROM @extschema@.es_archived_events"
" WHERE $10 AND stream = $1 AND version BETWEEN $2 AND $3 AND version <> $4"
" RETURNING position, version, id),"
" gone AS (SELECT * FROM live UNION ALL SELECT *, NULL FROM archived),"
" entry AS (DELETE FROM @extschema@.es_tags t"
" USING (SELECT g.position, x.tag FROM gone g CROSS JOIN LATERAL pg_catalog.unnest(g.tags) x (tag)) x"
" WHERE t.tag = x.tag AND t.position = x.position),"
" id AS (INSERT INTO @extschema@.es_removed_ids (id, stream, version, position)"
" SELECT g.id, $1, g.version, g.position FROM gone g ON CONFLICT DO NOTHING)"
" INSERT INTO @extschema@.es_removals"
" (action, stream, position, positions, versions, removed, horizon, removed_by, metadata)"
" SELECT $6, $1, $7, coalesce(pg_catalog.range_agg(pg_catalog.int8range(g.position, g.position, '[]')), '{}'),"
" pg_catalog.int8range($2, $3 + least($2, 1)), count(*), $5, $8::name, $9 FROM gone g RETURNING removed";

/* Runs a query on all events that are committed now, and those of this transaction. */
static void
select_latest(Oid log, const char *sql, int nargs, Oid *types, Datum *values)
{
	PushActiveSnapshot(GetLatestSnapshot());
	(void) own_sql_run_on_all_rows(log, sql, nargs, types, values, NULL, false);
	PopActiveSnapshot();
}

/* A copy of a column of the result that is an array; 0: null. */
static Datum
copied_array(int column)
{
	Datum		value = own_sql_value(column);

	return value ? PointerGetDatum(DatumGetArrayTypePCopy(value)) : value;
}

/*
 * Step 1.
 */
Datum
removal_tags(Oid log, text *stream, int64 upto)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {PointerGetDatum(stream), Int64GetDatum(upto)};

	select_latest(log, find_tags, 2, types, values);
	return copied_array(1);
}

/* Step 2: locks the stream and the tags. */
static void
lock_stream_and_tags(const Removal *removal)
{
	int			count = removal->locked ? tags_count(removal->locked) : 0;
	LogLock    *locks = palloc(sizeof(LogLock) * (count + 1));

	locks[0] = log_lock_of_stream(removal->stream);
	if (count > 0)
		(void) tags_add_locks(removal->locked, locks + 1);
	log_lock_all(removal->log, locks, count + 1);
	pfree(locks);
}

/* Looks at the stream's last event. */
static void
read_last_event(Removal *removal)
{
	Log		   *log = log_open(removal->log);
	StoredContent *last = &removal->last_event;

	if (!removal->of_any_store)
		slots_check(log, removal->stream);
	log_guard_check_delete(log->rel->trigdesc);
	log_check_open(log->rel);
	removal->last = log_last_version(log, removal->stream, 0);
	if (removal->last > 0 && log_read_event(log, removal->stream, removal->last, last))
	{
		last->type = DatumGetTextPCopy(PointerGetDatum(last->type));
		last->data = PointerGetDatum(DatumGetJsonbPCopy(last->data));
		removal->last_kind = notice_kind(last->type);
	}
	log_close(log);
}

/*
 * Steps 1 and 2.
 */
void
removal_begin(Removal *removal)
{
	stream_check_new(removal->stream);
	replica_refuse(removal->log, "remove events");
	if (removal->metadata)
		event_check_metadata(removal->metadata);
	snapshot_lock_to_change(removal->stream);
	removal->locked = removal_tags(removal->log, removal->stream,
								   removal->upto > 0 ? removal->upto : PG_INT64_MAX);
	lock_stream_and_tags(removal);
	read_last_event(removal);
}

/*
 * Step 4.  last: the greatest position that is removed.
 */
static void
find_floor(Removal *removal, int64 last)
{
	removal->horizon = horizon_now(removal->log);
	if (removal->horizon >= last)
		return;
	log_lock_await_appenders(removal->log, "to remove events");
	removal->horizon = Max(horizon_now(removal->log), last);
}

/*
 * Steps 3 and 4.
 */
void
removal_describe(Removal *removal, int64 upto)
{
	Oid			types[3] = {TEXTOID, INT8OID, BOOLOID};
	Datum		values[3] = {
		PointerGetDatum(removal->stream), Int64GetDatum(upto),
		BoolGetDatum(removal->with_archive)
	};
	int64		last_position;

	select_latest(removal->log, describe_events, 3, types, values);
	removal->first_version = DatumGetInt64(own_sql_value(1));
	removal->last_version = DatumGetInt64(own_sql_value(2));
	removal->count = DatumGetInt64(own_sql_value(3));
	last_position = DatumGetInt64(own_sql_value(4));
	removal->tags = copied_array(5);
	removal->data = PointerGetDatum(DatumGetJsonbPCopy(own_sql_value(6)));
	/* those that the stream has got since step 1 */
	if (removal->tags)
		tags_lock_missing(removal->log, removal->tags, removal->locked);
	find_floor(removal, last_position);
}

/*
 * Step 5.
 */
void
removal_append_notice(Removal *removal, const char *type, Datum extra)
{
	NewEvent	event = {
		.stream = removal->stream,
		.type = cstring_to_text(type),
		.data = extra ? DirectFunctionCall2(jsonb_concat, removal->data, extra) :
		removal->data,
		.metadata = removal->metadata,
		.tags = removal->tags
	};
	Write		write = {
		.log = removal->log,
		.stream = removal->stream,
		.expected = EXPECTED_ANY,
		.events = &event,
		.count = 1
	};

	write_locked(&write);
	removal->version = write.version;
	removal->position = write.position;
}

/* Refuses a removal of what the transaction does not see as a whole. */
static void
fail_partial_removal(const Removal *removal, int64 removed, int64 expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to stream \"%s\"",
					text_to_cstring(removal->stream)),
			 errdetail("The transaction's snapshot has " INT64_FORMAT " of the " INT64_FORMAT " events that are to be removed, since others have appended in between.",
					   removed, expected),
			 errhint("The transaction might succeed if retried.")));
}

/* Deletes and records, but for snapshots.  Returns how many events are deleted. */
static int64
delete_rows(const Removal *removal, int64 keep)
{
	Oid			types[10] = {TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID,
	TEXTOID, JSONBOID, BOOLOID};
	Datum		values[10] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->first_version),
		Int64GetDatum(removal->last_version), Int64GetDatum(keep),
		Int64GetDatum(removal->horizon), CStringGetTextDatum(removal->action),
		Int64GetDatum(removal->position),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)), removal->metadata,
		BoolGetDatum(removal->with_archive)
	};
	char		nulls[11] = "          ";

	nulls[6] = removal->position == 0 ? 'n' : ' ';
	nulls[8] = removal->metadata == (Datum) 0 ? 'n' : ' ';
	log_guard_allow_removal(true);
	PG_TRY();
	{
		(void) own_sql_run_on_all_rows(removal->log, delete_events, 10, types, values, nulls,
									   true);
	}
	PG_FINALLY();
	{
		log_guard_allow_removal(false);
	}
	PG_END_TRY();
	return DatumGetInt64(own_sql_value(1));
}

/*
 * Step 6.
 */
void
removal_delete(Removal *removal, int64 keep)
{
	int64		expected = removal->count - (keep > 0 ? 1 : 0);
	int64		removed = delete_rows(removal, keep);

	if (removed != expected)
		fail_partial_removal(removal, removed, expected);
	snapshot_lock_forget(removal->log, removal->stream, removal->tags);
}

/*
 * Makes the row of a function's result: what the removal did.
 */
Datum
removal_row(FunctionCallInfo fcinfo, const Removal *removal)
{
	Datum		values[3] = {
		Int64GetDatum(removal->version), Int64GetDatum(removal->position),
		Int64GetDatum(removal->count)
	};
	bool		nulls[3] = {false, removal->position == 0, false};

	return fold_row(fcinfo, values, nulls);
}
