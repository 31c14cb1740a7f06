/*-------------------------------------------------------------------------
 *
 * compact.c
 *		es_compact_stream(): the oldest events of a stream become one, es_compacted, with the
 *		state that they fold to.
 *
 *	1. Lock the stream (removal.c).
 *	2. Fold it as the caller, up to the version, with a snapshot that sees all that was
 *	   appended before.  The caller must see all of it.
 *	3. Describe the events (removal.c).
 *	4. Turn the last of them into es_compacted, by one UPDATE as the owner of the log.  It is
 *	   allowed as that of es_rewrite() is (log_guard.c).  Position, version, id and times
 *	   stay, so that nothing that readers have passed moves.
 *	5. Let es_tags say that this event has all their tags, and is of the new type.
 *	6. Delete the others (removal.c).
 *
 * A notice alone, up to the version, is left as it is: there is nothing to compact.
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
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/tags.h"
#include "personal/envelope.h"
#include "type/type.h"
#include "read/read.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold_notice.h"
#include "retention/retention.h"

PG_FUNCTION_INFO_V1(es_compact_stream);

/* Arguments, in their order. */
enum
{
	COMPACT_STREAM, COMPACT_REDUCER, COMPACT_UPTO, COMPACT_INITIAL, COMPACT_METADATA,
	COMPACT_ADOPT
};

/* A compaction. */
typedef struct Compaction
{
	Removal		removal;
	Fold		fold;
	int64		upto;
} Compaction;

/*
 * $1 the stream, $2 the first version, $3 the last one, $4 the notice's data, $5 its tags,
 * $6 metadata, $7 the reducer, $8 its fingerprint, $9 the state, $10 the initial one.  What
 * was compacted before is a part of what the event stands for.
 */
static const char *const compact_event =
"UPDATE @extschema@.es_events e SET type = '" ES_COMPACTED "', tags = $5, body = NULL,"
" metadata = $6, data = $4 || n.more"
" || pg_catalog.jsonb_build_object('" ES_COMPACTED_REDUCER "', $7, '" ES_COMPACTED_FINGERPRINT "', $8)"
" || CASE WHEN $9 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('" ES_COMPACTED_STATE "', $9) END"
" || CASE WHEN $10 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('" ES_COMPACTED_INITIAL "', $10) END"
" FROM (SELECT CASE WHEN f.type = '" ES_COMPACTED "' THEN pg_catalog.jsonb_build_object("
"'first_version', f.data->'first_version',"
" 'removed', (f.data->>'removed')::bigint + ($4->>'removed')::bigint - 1) ELSE '{}' END"
" FROM @extschema@.es_events f WHERE f.stream = $1 AND f.version = $2) n (more)"
" WHERE e.stream = $1 AND e.version = $3 RETURNING e.position";

/* $1 the tags, $2 the position. */
static const char *const store_tags =
"INSERT INTO @extschema@.es_tags AS t (tag, position, type)"
" SELECT x.tag, $2, '" ES_COMPACTED "' FROM pg_catalog.unnest($1) x (tag)"
" ON CONFLICT (tag, position) DO UPDATE SET type = excluded.type";

/* Takes the arguments, and begins the fold. */
static void
init_compaction(Compaction *compaction, FunctionCallInfo fcinfo)
{
	Removal    *removal = &compaction->removal;

	memset(compaction, 0, sizeof(Compaction));
	argument_not_null(fcinfo, COMPACT_STREAM, "stream");
	argument_not_null(fcinfo, COMPACT_REDUCER, "reducer");
	argument_not_null(fcinfo, COMPACT_ADOPT, "adopt");
	removal->log = log_relid(fcinfo->flinfo->fn_oid);
	removal->stream = PG_GETARG_TEXT_PP(COMPACT_STREAM);
	removal->action = "compact";
	if (!PG_ARGISNULL(COMPACT_METADATA))
		removal->metadata = event_metadata(PG_GETARG_DATUM(COMPACT_METADATA));
	if (!PG_ARGISNULL(COMPACT_UPTO))
	{
		compaction->upto = PG_GETARG_INT64(COMPACT_UPTO);
		argument_range("upto_version", compaction->upto, 1, PG_INT64_MAX);
	}
	fold_begin(&compaction->fold, removal->log, removal->stream,
			   PG_GETARG_TEXT_PP(COMPACT_REDUCER), PG_GETARG_DATUM(COMPACT_INITIAL),
			   PG_ARGISNULL(COMPACT_INITIAL));
	compaction->fold.adopts = PG_GETARG_BOOL(COMPACT_ADOPT);
}

/* Refuses a caller that would compact what it cannot see. */
static void
check_compacts_all(const Compaction *compaction)
{
	if (!compaction->fold.reads_all)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a role that may read all events can compact a stream"),
				 errdetail("Role \"%s\" has no SELECT on es_events, or row security hides some of them.",
						   GetUserNameFromId(GetUserId(), false))));
}

/* Refuses triggers that could change or keep the row, as es_rewrite() does. */
static void
check_compact_triggers(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);

	log_guard_check_update(log->trigdesc, true);
	table_close(log, NoLock);
}

/* Sets the version up to which events are compacted. */
static void
check_upto_version(Compaction *compaction)
{
	const Removal *removal = &compaction->removal;

	if (compaction->upto > removal->last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("upto_version is above the stream's version"),
				 errdetail("It is " INT64_FORMAT ", and stream \"%s\" is at version " INT64_FORMAT ".",
						   compaction->upto, text_to_cstring(removal->stream), removal->last)));
	if (compaction->upto == 0)
		compaction->upto = removal->last;
}

/* $1 the stream, $2 the version. */
static const char *const find_personal =
"SELECT FROM @extschema@.es_events WHERE stream = $1 AND version <= $2 AND metadata ? '" ENVELOPE_KEY "' LIMIT 1";

/* Refuses to store what was encrypted as a part of a state. */
static void
refuse_personal_events(const Compaction *compaction)
{
	const Removal *removal = &compaction->removal;
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {PointerGetDatum(removal->stream), Int64GetDatum(compaction->upto)};

	if (event_type_has_personal(removal->log) &&
		own_sql_run_on_all_rows(removal->log, find_personal, 2, types, values, NULL, true) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot compact stream \"%s\"", text_to_cstring(removal->stream)),
				 errdetail("It has events with personal attributes, which would be stored as a part of the state."),
				 errhint("Archive the stream, or delete it.")));
}

/* Step 2. */
static void
fold_compacted_events(Compaction *compaction)
{
	Fold	   *fold = &compaction->fold;

	fold->locked = true;
	PushActiveSnapshot(GetLatestSnapshot());
	fold_from_snapshot(fold, GetActiveSnapshot(), compaction->upto, DT_NOEND);
	fold_stream(fold, GetActiveSnapshot(), compaction->upto, DT_NOEND);
	PopActiveSnapshot();
}

/*
 * Returns true if the version has a notice, before which there is nothing.  One that is
 * adopted is compacted again.
 */
static bool
is_compacted_already(Compaction *compaction)
{
	Removal    *removal = &compaction->removal;
	int64		first = kept_first_version_now(removal->log, removal->stream);
	StoredContent event;
	NoticeKind	kind = NOTICE_NONE;
	Log		   *log;

	if (first != compaction->upto)
		return false;
	log = log_open(removal->log);
	if (log_read_event(log, removal->stream, first, &event))
	{
		kind = notice_kind(event.type);
		removal->version = first;
		removal->position = event.position;
	}
	log_close(log);
	return kind != NOTICE_NONE && !(kind == NOTICE_COMPACTED && compaction->fold.adopts);
}

/* Refuses to compact an event that the transaction's snapshot does not have. */
static void
fail_later_event(const Removal *removal)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to stream \"%s\"",
					text_to_cstring(removal->stream)),
			 errdetail("The transaction's snapshot does not have version " INT64_FORMAT ", which others have appended since.",
					   removal->last_version),
			 errhint("The transaction might succeed if retried.")));
}

/* Runs the UPDATE, which alone is allowed. */
static void
run_compact_update(const Removal *removal, Datum *values, const char *nulls)
{
	Oid			types[10] = {TEXTOID, INT8OID, INT8OID, JSONBOID, TEXTARRAYOID, JSONBOID, TEXTOID,
	TEXTOID, JSONBOID, JSONBOID};

	log_guard_allow_rewrite(true);
	PG_TRY();
	{
		(void) own_sql_run_on_all_rows(removal->log, compact_event, 10, types, values, nulls,
									   true);
	}
	PG_FINALLY();
	{
		log_guard_allow_rewrite(false);
	}
	PG_END_TRY();
	if (SPI_processed != 1)
		fail_later_event(removal);
}

/* Step 4. */
static void
update_compacted_event(Compaction *compaction)
{
	Removal    *removal = &compaction->removal;
	const Fold *fold = &compaction->fold;
	Datum		values[10] = {
		PointerGetDatum(removal->stream), Int64GetDatum(removal->first_version),
		Int64GetDatum(removal->last_version), removal->data, removal->tags, removal->metadata,
		CStringGetTextDatum(fold->source.reducer.signature),
		CStringGetTextDatum(fold_compacted_fingerprint(&fold->source.reducer)),
		fold->state.state.value, fold->initial.value
	};
	char		nulls[] = "          ";

	nulls[4] = removal->tags ? ' ' : 'n';
	nulls[5] = removal->metadata ? ' ' : 'n';
	nulls[8] = fold->state.state.isnull ? 'n' : ' ';
	nulls[9] = fold->initial.isnull ? 'n' : ' ';
	run_compact_update(removal, values, nulls);
	removal->version = removal->last_version;
	removal->position = DatumGetInt64(own_sql_value(1));
}

/* Step 5. */
static void
store_compacted_tags(const Removal *removal)
{
	Oid			types[2] = {TEXTARRAYOID, INT8OID};
	Datum		values[2] = {removal->tags, Int64GetDatum(removal->position)};

	if (removal->tags)
		(void) own_sql_run(removal->log, store_tags, 2, types, values, NULL);
}

/* Steps 2 to 6. */
static void
compact_stream(Compaction *compaction)
{
	Removal    *removal = &compaction->removal;

	refuse_personal_events(compaction);
	fold_compacted_events(compaction);
	if (is_compacted_already(compaction))
		return;
	removal_describe(removal, compaction->upto);
	update_compacted_event(compaction);
	store_compacted_tags(removal);
	removal_delete(removal, removal->last_version);
}

/*
 * es_compact_stream(stream, reducer, upto_version, initial, metadata, adopt)
 */
Datum
es_compact_stream(PG_FUNCTION_ARGS)
{
	Compaction	compaction;

	PreventCommandIfReadOnly("es_compact_stream()");
	init_compaction(&compaction, fcinfo);
	check_compacts_all(&compaction);
	check_compact_triggers(compaction.removal.log);
	SPI_connect();
	removal_begin(&compaction.removal);
	check_upto_version(&compaction);
	if (compaction.removal.last > 0)
		compact_stream(&compaction);
	SPI_finish();
	fold_end(&compaction.fold);
	return removal_row(fcinfo, &compaction.removal);
}
