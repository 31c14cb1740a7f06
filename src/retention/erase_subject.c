/*-------------------------------------------------------------------------
 *
 * erase_subject.c
 *		es_erase_subject(): makes what is stored about a person unreadable, by destroying the key.
 *
 *	1. Look up the streams and the tags of events that have the subject's tag, and keep readers
 *	   from saving states of these streams (log/snapshot_lock.c).
 *	2. Lock them and the subject's tag, as an append does, to the end of the transaction.  So no
 *	   append encrypts for the subject, and no command or decision saves a state of its
 *	   events.  What came in between is locked late.
 *	3. Erase the key.  The row stays, so that there is never another one.  Its commit tells all
 *	   sessions to forget the key before the call returns (personal/subject_key.c).
 *	4. Delete the states that were folded from its events, and what failures and projections
 *	   say of them.
 *	5. Record it in es_erasures, and append es_subject_erased.
 *
 * A subject that is erased already is erased again but for step 5: after a restore of an older
 * backup there may be states of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "base/base.h"
#include "base/role.h"
#include "base/setting.h"
#include "eventstore.h"
#include "identity/identity.h"
#include "log/replica.h"
#include "log/snapshot_lock.h"
#include "log/tags.h"
#include "personal/personal.h"

PG_FUNCTION_INFO_V1(es_erase_subject);

/* Arguments, in their order. */
enum
{
	ARG_SUBJECT, ARG_REASON, ARG_ERASED_AT
};

/* An erasure. */
typedef struct Erasure
{
	Oid			log;
	text	   *subject;
	text	   *tag;
	text	   *reason;			/* NULL: none */
	NullableDatum erased_at;	/* null: now */
	Datum		streams;		/* of its events, an array of text */
	Datum		tags;			/* of these events */
} Erasure;

/* $1: the subject's tag. */
static const char *const find_places =
"WITH e AS MATERIALIZED (SELECT e.stream, e.tags FROM @extschema@.es_tags t CROSS JOIN LATERAL"
" (SELECT e.stream, e.tags FROM @extschema@.es_events e WHERE e.position = t.position OFFSET 0) e"
" WHERE t.tag = $1"
" UNION ALL SELECT a.stream, a.tags FROM @extschema@.es_archived_events a"
" WHERE a.tags @> ARRAY[$1])"
" SELECT (SELECT coalesce(pg_catalog.array_agg(DISTINCT e.stream), '{}') FROM e),"
" (SELECT coalesce(pg_catalog.array_agg(DISTINCT x.tag ORDER BY x.tag), '{}')"
" FROM e CROSS JOIN LATERAL pg_catalog.unnest(e.tags) x (tag))";

/* $1: the subject, $2: when.  Returns whether it was erased before. */
static const char *const erase_key =
"WITH old AS (SELECT k.erased_at FROM @extschema@.es_subject_keys k WHERE k.subject = $1),"
" new AS (INSERT INTO @extschema@.es_subject_keys AS k (subject, erased_at)"
" VALUES ($1, coalesce($2, pg_catalog.clock_timestamp()))"
" ON CONFLICT (subject) DO UPDATE SET key = NULL, key_encryption_key = NULL,"
" erased_at = coalesce(k.erased_at, excluded.erased_at) RETURNING k.erased_at)"
" SELECT new.erased_at, (SELECT erased_at FROM old) IS NOT NULL FROM new";

/* $1: streams and tags. */
static const char *const delete_states =
"DELETE FROM @extschema@.es_snapshots WHERE stream = ANY ($1)";

/* Is it an event of the subject, whose tag is $1?  Tags of archived events are in no other table. */
#define IS_ERASED(position) \
"(EXISTS (SELECT FROM @extschema@.es_tags t WHERE t.tag = $1 AND t.position = " position ")" \
" OR EXISTS (SELECT FROM @extschema@.es_archived_events a" \
" WHERE a.position = " position " AND a.tags @> ARRAY[$1]))"

/* $2: streams. */
static const char *const clear_failures =
"UPDATE @extschema@.es_failures f SET message = '(erased)', detail = NULL, context = NULL"
" WHERE f.message IS NOT NULL AND f.stream = ANY ($2) AND " IS_ERASED("f.position");

static const char *const clear_projections =
"UPDATE @extschema@.es_projections p SET message = '(erased)', detail = NULL, context = NULL"
" WHERE p.message IS NOT NULL AND p.failed_position IS NOT NULL AND " IS_ERASED("p.failed_position");

/* $1: the subject, $2: when, $3: why, $4: by whom. */
static const char *const record_erasure =
"INSERT INTO @extschema@.es_erasures (subject, erased_at, reason, erased_by)"
" VALUES ($1, $2, $3, $4::name) ON CONFLICT (subject) DO NOTHING";

/* Takes the arguments. */
static void
init_erasure(Erasure *erasure, FunctionCallInfo fcinfo)
{
	memset(erasure, 0, sizeof(Erasure));
	argument_not_null(fcinfo, ARG_SUBJECT, "subject");
	erasure->log = log_relid(fcinfo->flinfo->fn_oid);
	erasure->subject = PG_GETARG_TEXT_PP(ARG_SUBJECT);
	subject_check(erasure->subject);
	erasure->tag = subject_tag(erasure->subject);
	if (!PG_ARGISNULL(ARG_REASON))
		erasure->reason = PG_GETARG_TEXT_PP(ARG_REASON);
	erasure->erased_at.isnull = PG_ARGISNULL(ARG_ERASED_AT);
	if (!erasure->erased_at.isnull)
		erasure->erased_at.value = PG_GETARG_DATUM(ARG_ERASED_AT);
	if (!erasure->erased_at.isnull &&
		TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(erasure->erased_at.value)))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("erased_at must be finite"),
				 errdetail("It is infinite."),
				 errhint("Leave it out: it is for erasures that are replayed after a restore.")));
}

/* Looks up the streams and tags of the subject's events, as they are committed now. */
static void
find_erased_places(Erasure *erasure)
{
	Oid			type = TEXTOID;
	Datum		value = PointerGetDatum(erasure->tag);

	int			level = settings_begin_by_index();

	(void) own_sql_run_on_all_rows(erasure->log, find_places, 1, &type, &value, NULL, true);
	settings_end(level);
	erasure->streams = PointerGetDatum(DatumGetArrayTypePCopy(own_sql_value(1)));
	erasure->tags = PointerGetDatum(DatumGetArrayTypePCopy(own_sql_value(2)));
}

/* Steps 1 and 2. */
static void
lock_places(const Erasure *erasure)
{
	Datum	   *streams;
	Datum	   *tags;
	int			stream_count = argument_texts("streams", DatumGetArrayTypeP(erasure->streams), &streams);
	int			tag_count = argument_texts("tags", DatumGetArrayTypeP(erasure->tags), &tags);
	LogLock    *locks = palloc(sizeof(LogLock) * (stream_count + tag_count + 1));
	int			i;

	snapshot_lock_all_to_change(streams, stream_count);
	for (i = 0; i < stream_count; i++)
		locks[i] = log_lock_of_stream(DatumGetTextPP(streams[i]));
	for (i = 0; i < tag_count; i++)
		locks[stream_count + i] = log_lock_of_tag(DatumGetTextPP(tags[i]), ExclusiveLock);
	locks[stream_count + tag_count] = log_lock_of_tag(erasure->tag, ExclusiveLock);
	log_lock_all(erasure->log, locks, stream_count + tag_count + 1);
	pfree(locks);
}

/* Step 3.  Returns true if the subject was erased before. */
static bool
erase_subject_key(Erasure *erasure)
{
	Oid			types[2] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[2] = {PointerGetDatum(erasure->subject), erasure->erased_at.value};

	(void) own_sql_run(erasure->log, erase_key, 2, types, values,
					   erasure->erased_at.isnull ? " n" : NULL);
	erasure->erased_at.value = own_sql_value(1);
	erasure->erased_at.isnull = false;
	return DatumGetBool(own_sql_value(2));
}

/* Step 4. */
static void
delete_plaintext(const Erasure *erasure)
{
	Oid			array = TEXTARRAYOID;
	Oid			types[] = {TEXTOID, TEXTARRAYOID};
	Datum		values[] = {PointerGetDatum(erasure->tag), erasure->streams};
	Datum		places[] = {erasure->streams, erasure->tags};
	int			level = settings_begin_by_index();
	int			i;

	for (i = 0; i < (int) lengthof(places); i++)
		(void) own_sql_run_on_all_rows(erasure->log, delete_states, 1, &array, &places[i], NULL, true);
	(void) own_sql_run_on_all_rows(erasure->log, clear_failures, 2, types, values, NULL, true);
	(void) own_sql_run_on_all_rows(erasure->log, clear_projections, 1, types, values, NULL, true);
	settings_end(level);
}

/* The data of the event. */
static Datum
event_data_of(const Erasure *erasure)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"subject\": ");
	escape_json(&json, text_to_cstring(erasure->subject));
	if (erasure->reason != NULL)
	{
		appendStringInfoString(&json, ", \"reason\": ");
		escape_json(&json, text_to_cstring(erasure->reason));
	}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* The stream of the event: its name does not tell the subject. */
static text *
stream_of_erasure(const Erasure *erasure)
{
	return cstring_to_text(psprintf(ES_ERASED_CATEGORY "-%s",
									uuid_to_cstring(uuid_generate_v5(&uuid_namespace_oid,
																	 VARDATA_ANY(erasure->subject),
																	 VARSIZE_ANY_EXHDR(erasure->subject)))));
}

/* Step 5. */
static void
append_erased(const Erasure *erasure)
{
	Datum		tag = PointerGetDatum(erasure->tag);
	NewEvent	event = {
		.stream = stream_of_erasure(erasure),
		.type = cstring_to_text(ES_SUBJECT_ERASED),
		.data = event_data_of(erasure),
		.tags = tags_add((Datum) 0, &tag, 1)
	};
	Write		write = {
		.log = erasure->log,
		.stream = event.stream,
		.expected = EXPECTED_ANY,
		.events = &event,
		.count = 1
	};

	write_events(&write);
}

static void
store_erasure(const Erasure *erasure)
{
	Oid			types[4] = {TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID};
	Datum		values[4] = {
		PointerGetDatum(erasure->subject), erasure->erased_at.value,
		PointerGetDatum(erasure->reason),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))
	};

	(void) own_sql_run(erasure->log, record_erasure, 4, types, values,
					   erasure->reason == NULL ? "  n " : NULL);
}

/*
 * es_erase_subject(subject, reason, erased_at) returns timestamptz: when it was erased.
 */
Datum
es_erase_subject(PG_FUNCTION_ARGS)
{
	Erasure		erasure;

	PreventCommandIfReadOnly("es_erase_subject()");
	isolation_check("es_erase_subject()");
	init_erasure(&erasure, fcinfo);
	replica_refuse(erasure.log, "erase subjects");
	SPI_connect();
	find_erased_places(&erasure);
	lock_places(&erasure);
	find_erased_places(&erasure);
	lock_places(&erasure);
	if (!erase_subject_key(&erasure))
	{
		store_erasure(&erasure);
		append_erased(&erasure);
	}
	delete_plaintext(&erasure);
	SPI_finish();
	PG_RETURN_DATUM(erasure.erased_at.value);
}
