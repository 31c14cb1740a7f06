/*-------------------------------------------------------------------------
 *
 * archive.c
 *		es_archive_stream(), es_archive() and es_unarchive_stream(): moving events between the
 *		log and the table es_archived_events.
 *
 * Archiving a stream is a removal (removal.c) that stores its rows in the archive before it
 * deletes them.  The stream keeps one event, es_stream_archived.  A call that is repeated
 * finds it alone, and returns its first result.
 *
 * The way back:
 *
 *	1. Lock the stream and the tags of its events as a removal does.  The notice has the tags
 *	   of all archived events, and the trigger that completes rows locks those of each row.
 *	2. Find the events that adjoin the first one in the log.  Beyond a gap, which a truncation
 *	   has left, they stay in the archive: versions in the log have no gaps.
 *	3. Move the rows by one statement, as the owner of the log.  They get a next_xid of now,
 *	   as rows of a dump do, so that they prove nothing to the horizon.  Their ids are no
 *	   longer those of removed events.
 *	4. Delete snapshots, which may be of a query and folded without these events.
 *
 * The notice stays where it is.  All of it is one transaction.
 *
 * All columns of es_events are moved, by their names, but for next_xid and those that are
 * generated.  So the archive must have the columns that the owner has added.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "eventstore.h"
#include "log/snapshot_lock.h"
#include "read/read.h"
#include "retention/archive.h"
#include "retention/retention.h"

PG_FUNCTION_INFO_V1(es_archive_stream);
PG_FUNCTION_INFO_V1(es_archive);
PG_FUNCTION_INFO_V1(es_unarchive_stream);

#define ARCHIVE "es_archived_events"

/* Streams that es_archive() takes, if it is not said: each holds locks to the end. */
#define DEFAULT_STREAMS 100

/* Refuses an archive without a column of the log. */
static void
fail_missing_column(Relation log, Relation archive, Form_pg_attribute column)
{
	const char *type = format_type_with_typemod(column->atttypid, column->atttypmod);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no column \"%s\" of type %s",
					ARCHIVE, NameStr(column->attname), type),
			 errdetail("Table \"%s\" has one, whose values would be lost.",
					   RelationGetRelationName(log)),
			 errhint("ALTER TABLE %s ADD COLUMN %s %s",
					 own_table_quoted_name(RelationGetRelid(archive)),
					 quote_identifier(NameStr(column->attname)), type)));
}

/* Refuses an archive that cannot take the column as it is. */
static void
check_archive_column(Relation log, Relation archive, Form_pg_attribute column)
{
	AttrNumber	number = get_attnum(RelationGetRelid(archive), NameStr(column->attname));

	if (number <= 0 ||
		TupleDescAttr(RelationGetDescr(archive), number - 1)->atttypid != column->atttypid)
		fail_missing_column(log, archive, column);
}

/* Lists the columns that are moved, for a statement. */
static char *
moved_columns(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	Relation	archive = table_open(own_table_relid(relid, ARCHIVE), AccessShareLock);
	StringInfoData columns;
	int			i;

	initStringInfo(&columns);
	for (i = 0; i < RelationGetNumberOfAttributes(log); i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(log), i);

		if (column->attisdropped || column->attgenerated ||
			column->attnum == Anum_es_events_next_xid)
			continue;
		check_archive_column(log, archive, column);
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
						 quote_identifier(NameStr(column->attname)));
	}
	table_close(archive, AccessShareLock);
	table_close(log, AccessShareLock);
	return columns.data;
}

/* Stores the events of the removal in the archive. */
static void
copy_to_archive(const Removal *removal)
{
	const char *columns = moved_columns(removal->log);
	char	   *sql = psprintf("INSERT INTO @extschema@." ARCHIVE " (%s)"
							   " SELECT %s FROM @extschema@.es_events"
							   " WHERE stream = $1 AND version BETWEEN $2 AND $3"
							   " ORDER BY version", columns, columns);
	Oid			types[3] = {TEXTOID, INT8OID, INT8OID};
	Datum		values[3] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->first_version),
		Int64GetDatum(removal->last_version)
	};

	(void) own_sql_run_on_all_rows(removal->log, sql, 3, types, values, NULL, true);
}

/*
 * Returns true if the stream has no events, or nothing but a notice that it was archived or
 * deleted.
 */
static bool
has_nothing_to_archive(const Removal *removal)
{
	if (removal->last == 0 || removal->last_kind == NOTICE_DELETED)
		return true;
	return removal->last_kind == NOTICE_ARCHIVED && kept_first_version_now(removal->log, removal->stream) == removal->last;
}

/* Archives the stream, which is locked. */
static void
archive_locked(Removal *removal)
{
	removal_describe(removal, PG_INT64_MAX);
	removal_append_notice(removal, ES_STREAM_ARCHIVED, (Datum) 0);
	copy_to_archive(removal);
	removal_delete(removal, 0);
}

/*
 * es_archive_stream(stream, metadata)
 */
Datum
es_archive_stream(PG_FUNCTION_ARGS)
{
	Removal		removal = {.log = log_relid(fcinfo->flinfo->fn_oid),.action = "archive"};

	PreventCommandIfReadOnly("es_archive_stream()");
	argument_not_null(fcinfo, 0, "stream");
	removal.stream = PG_GETARG_TEXT_PP(0);
	if (!PG_ARGISNULL(1))
		removal.metadata = event_metadata(PG_GETARG_DATUM(1));
	SPI_connect();
	removal_begin(&removal);
	if (!has_nothing_to_archive(&removal))
		archive_locked(&removal);
	else if (removal.last > 0)
	{
		removal.version = removal.last;
		removal.position = removal.last_event.position;
		removal.count = removal.last_kind == NOTICE_ARCHIVED ?
			notice_removed(removal.last_event.data) : 0;
	}
	SPI_finish();
	return removal_row(fcinfo, &removal);
}

/* Which streams es_archive() takes. */
typedef struct OldStreams
{
	Oid			log;
	text	   *category;
	TimestampTz before;			/* their last events were recorded */
	int64		max_streams;
} OldStreams;

/*
 * Lists the streams, the oldest last event first.  Those with a notice alone have nothing to
 * archive.
 */
static ArrayType *
find_old_streams(const OldStreams *wanted)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[3] = {TEXTOID, TIMESTAMPTZOID, INT8OID};
	Datum		values[3] = {
		PointerGetDatum(wanted->category), TimestampTzGetDatum(wanted->before),
		Int64GetDatum(wanted->max_streams)
	};
	Datum		found;

	SPI_connect();
	(void) own_sql_run_on_all_rows(wanted->log,
								   "SELECT pg_catalog.array_agg(o.stream) FROM (SELECT e.stream"
								   " FROM @extschema@.es_events e"
								   " WHERE @extschema@.es_category(e.stream) = $1"
								   " AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1)"
								   " AND e.recorded_at < $2"
								   " AND coalesce(@extschema@.es_partition(e.stream, 1024)"
								   " OPERATOR(pg_catalog.<@) @extschema@.es_slots(), true)"
								   " AND NOT EXISTS (SELECT FROM @extschema@.es_events l"
								   " WHERE l.stream = e.stream AND l.version > e.version)"
								   " AND (e.type NOT IN ('" ES_STREAM_ARCHIVED "', '" ES_STREAM_DELETED "')"
								   " OR EXISTS (SELECT FROM @extschema@.es_events l"
								   " WHERE l.stream = e.stream AND l.version < e.version))"
								   " ORDER BY e.position LIMIT $3) o",
								   3, types, values, NULL, true);
	MemoryContextSwitchTo(context);
	found = own_sql_value(1);
	if (found)
		found = PointerGetDatum(DatumGetArrayTypePCopy(found));
	SPI_finish();
	return found ? DatumGetArrayTypeP(found) : NULL;
}

/* Returns true if the stream's last event, which is committed now, is still so old. */
static bool
is_still_old(const Removal *removal, const OldStreams *wanted)
{
	Oid			types[3] = {TEXTOID, INT8OID, TIMESTAMPTZOID};
	Datum		values[3] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->last),
		TimestampTzGetDatum(wanted->before)
	};
	uint64		rows;

	PushActiveSnapshot(GetLatestSnapshot());
	rows = own_sql_run_on_all_rows(removal->log,
								   "SELECT FROM @extschema@.es_events"
								   " WHERE stream = $1 AND version = $2 AND recorded_at < $3",
								   3, types, values, NULL, false);
	PopActiveSnapshot();
	return rows > 0;
}

/* Archives the stream, unless it has changed since it was found.  Returns true if it did. */
static bool
archive_old_stream(const OldStreams *wanted, text *stream)
{
	Removal		removal = {.log = wanted->log,.stream = stream,.action = "archive"};
	bool		archives;

	CHECK_FOR_INTERRUPTS();
	SPI_connect();
	removal_begin(&removal);
	archives = !has_nothing_to_archive(&removal) && is_still_old(&removal, wanted);
	if (archives)
		archive_locked(&removal);
	SPI_finish();
	return archives;
}

/* Reads the arguments of es_archive(). */
static OldStreams
read_old_streams(FunctionCallInfo fcinfo)
{
	OldStreams	wanted = {
		.log = log_relid(fcinfo->flinfo->fn_oid),.max_streams = DEFAULT_STREAMS
	};

	argument_not_null(fcinfo, 0, "category");
	argument_not_null(fcinfo, 1, "older_than");
	wanted.category = PG_GETARG_TEXT_PP(0);
	event_check_category(wanted.category);
	argument_interval("older_than", PG_GETARG_INTERVAL_P(1), true);
	if (!PG_ARGISNULL(2))
		wanted.max_streams = argument_int32(fcinfo, 2, "max_streams", 1, PG_INT32_MAX);
	wanted.before = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
															TimestampTzGetDatum(GetCurrentTimestamp()),
															PG_GETARG_DATUM(1)));
	return wanted;
}

/*
 * es_archive(category, older_than, max_streams) returns bigint.
 */
Datum
es_archive(PG_FUNCTION_ARGS)
{
	OldStreams	wanted;
	ArrayType  *found;
	Datum	   *streams = NULL;
	int			count = 0;
	int64		archived = 0;
	int			i;

	PreventCommandIfReadOnly("es_archive()");
	wanted = read_old_streams(fcinfo);
	found = find_old_streams(&wanted);
	if (found != NULL)
		deconstruct_array(found, TEXTOID, -1, false, TYPALIGN_INT, &streams, NULL, &count);
	for (i = 0; i < count; i++)
		archived += archive_old_stream(&wanted, DatumGetTextPP(streams[i])) ? 1 : 0;
	PG_RETURN_INT64(archived);
}

/* Events of a stream that come back. */
typedef struct Return
{
	Removal		removal;		/* locks, and what is recorded */
	int64		last_archived;	/* version; 0: none is archived */
	int64		first_in_log;	/* 0: none is */
} Return;

/* Finds the events in the archive that adjoin the first one in the log. */
static void
find_adjoining(Return *back)
{
	Removal    *removal = &back->removal;
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {
		PointerGetDatum(removal->stream), Int64GetDatum(back->first_in_log)
	};

	PushActiveSnapshot(GetLatestSnapshot());
	(void) own_sql_run_on_all_rows(removal->log,
								   "SELECT pg_catalog.min(a.version) FILTER (WHERE a.adjoins),"
								   " pg_catalog.max(a.version) FILTER (WHERE a.adjoins),"
								   " pg_catalog.count(*) FILTER (WHERE a.adjoins), pg_catalog.max(a.version)"
								   " FROM (SELECT version, version + pg_catalog.row_number() OVER (ORDER BY version DESC)"
								   " = coalesce(nullif($2, 0), pg_catalog.max(version) OVER () + 1) AS adjoins"
								   " FROM @extschema@." ARCHIVE " WHERE stream = $1) a",
								   2, types, values, NULL, false);
	PopActiveSnapshot();
	removal->first_version = DatumGetInt64(own_sql_value(1));
	removal->last_version = DatumGetInt64(own_sql_value(2));
	removal->count = DatumGetInt64(own_sql_value(3));
	back->last_archived = DatumGetInt64(own_sql_value(4));
}

/* Refuses events that would leave a gap. */
static void
fail_gap(const Return *back)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("archived events of stream \"%s\" cannot come back",
					text_to_cstring(back->removal.stream)),
			 errdetail("The archive has versions up to " INT64_FORMAT ", and the log begins at version " INT64_FORMAT ". Those in between were removed.",
					   back->last_archived, back->first_in_log),
			 errhint("Read them by es_load_archived().")));
}

/* Refuses events one of whose ids was appended again when it was forgotten. */
static void
check_ids_free(const Return *back)
{
	const Removal *removal = &back->removal;
	Oid			types[3] = {TEXTOID, INT8OID, INT8OID};
	Datum		values[3] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->first_version),
		Int64GetDatum(removal->last_version)
	};
	uint64		rows;

	PushActiveSnapshot(GetLatestSnapshot());
	rows = own_sql_run_on_all_rows(removal->log,
								   "SELECT a.id, pg_catalog.format('Version %s of the archived stream has the id of version %s of stream \"%s\", which was appended when the id was forgotten.', a.version, e.version, e.stream)"
								   " FROM @extschema@." ARCHIVE " a JOIN @extschema@.es_events e ON e.id = a.id"
								   " WHERE a.stream = $1 AND a.version BETWEEN $2 AND $3"
								   " ORDER BY a.version LIMIT 1",
								   3, types, values, NULL, false);
	PopActiveSnapshot();
	if (rows > 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_DUPLICATE_EVENT),
				 errmsg("duplicate event %s",
						uuid_to_cstring(DatumGetUUIDP(own_sql_value(1)))),
				 errdetail("%s", own_sql_text(2)),
				 errhint("Read the archived events by es_load_archived(). A longer eventstore.retry_window keeps ids known.")));
}

/*
 * Makes the statement that moves the rows back: $1 the stream, $2 and $3 the versions, $4 the
 * horizon, $5 by whom.
 */
static char *
make_return_sql(Oid log)
{
	const char *columns = moved_columns(log);

	return psprintf("WITH back AS (DELETE FROM @extschema@." ARCHIVE
					" WHERE stream = $1 AND version BETWEEN $2 AND $3 RETURNING %s),"
					" id AS (DELETE FROM @extschema@.es_removed_ids"
					" WHERE stream = $1 AND version BETWEEN $2 AND $3),"
					" stored AS (INSERT INTO @extschema@.es_events (%s)"
					" SELECT %s FROM back ORDER BY version RETURNING position)"
					" INSERT INTO @extschema@.es_removals"
					" (action, stream, positions, versions, removed, horizon, removed_by)"
					" SELECT 'unarchive', $1,"
					" pg_catalog.range_agg(pg_catalog.int8range(s.position, s.position, '[]')),"
					" pg_catalog.int8range($2, $3, '[]'), pg_catalog.count(*), $4, $5::pg_catalog.name"
					" FROM stored s HAVING pg_catalog.count(*) > 0 RETURNING removed",
					columns, columns, columns);
}

/* Moves the rows, and records it. */
static void
move_to_log(const Return *back)
{
	const Removal *removal = &back->removal;
	Oid			types[5] = {TEXTOID, INT8OID, INT8OID, INT8OID, TEXTOID};
	Datum		values[5] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->first_version),
		Int64GetDatum(removal->last_version), Int64GetDatum(horizon_now(removal->log)),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))
	};
	uint64		rows = own_sql_run_on_all_rows(removal->log, make_return_sql(removal->log),
											   5, types, values, NULL, true);

	if (rows == 0 || DatumGetInt64(own_sql_value(1)) != removal->count)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to stream \"%s\"",
						text_to_cstring(removal->stream)),
				 errdetail("The transaction's snapshot does not have all of the " INT64_FORMAT " archived events.",
						   removal->count),
				 errhint("The transaction might succeed if retried.")));
}

/*
 * es_unarchive_stream(stream) returns bigint.
 */
Datum
es_unarchive_stream(PG_FUNCTION_ARGS)
{
	Return		back = {.removal = {.log = log_relid(fcinfo->flinfo->fn_oid)}};
	Removal    *removal = &back.removal;

	PreventCommandIfReadOnly("es_unarchive_stream()");
	argument_not_null(fcinfo, 0, "stream");
	removal->stream = PG_GETARG_TEXT_PP(0);
	SPI_connect();
	removal_begin(removal);
	back.first_in_log = kept_first_version_now(removal->log, removal->stream);
	find_adjoining(&back);
	if (removal->count == 0 && back.last_archived > 0)
		fail_gap(&back);
	if (removal->count > 0)
	{
		check_ids_free(&back);
		move_to_log(&back);
		snapshot_lock_forget(removal->log, removal->stream, removal->locked);
	}
	SPI_finish();
	PG_RETURN_INT64(removal->count);
}
