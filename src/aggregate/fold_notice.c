/*-------------------------------------------------------------------------
 *
 * fold_notice.c
 *		Folds of streams from which events were removed (doc/internals/retention.md).
 *
 * A notice stands for events that a reducer can no longer get.  So it does not go to the
 * reducer.  The fold itself takes it:
 *
 *	es_stream_deleted	the state is null.  The next event is folded from the initial
 *						state, as in a new stream;
 *	es_compacted		the state is the stored one, if the same reducer made it from the
 *						same initial state.  Its definition must be the same, too.
 *						What it calls, upcasters and the search_path do not count,
 *						unlike for a snapshot, since there are no events any more from
 *						which another state could be folded;
 *	es_stream_archived	nothing, if the archived events are back.
 *
 * A fold of a query is about events of its own, and passes over what was deleted or
 * archived.
 *
 * Nor is there a state at a version or time before the first event that is kept.
 *
 * All of this is asked for only if something was removed from the store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold_notice.h"

/*
 * The definition alone decides.
 */
char *
fold_compacted_fingerprint(const Reducer *reducer)
{
	return psprintf("%016llx", (unsigned long long) reducer->definition);
}

/*
 * A removal that a snapshot sees has sent its message before, which is accepted here.
 */
bool
fold_may_have_notices(const Fold *fold)
{
	Relation	log = table_open(fold->source.log, AccessShareLock);
	bool		any;

	AcceptInvalidationMessages();
	any = removed_any(log);
	table_close(log, AccessShareLock);
	return any;
}

/* The version of the stream's first event in the snapshot, whoever sees it; 0: none. */
static int64
stream_first_version(const Fold *fold, Snapshot snapshot)
{
	return kept_first_version(fold->source.log, fold->source.stream, snapshot);
}

/* When an event was recorded, whoever sees it. */
static TimestampTz
recorded_at_version(const Fold *fold, int64 version)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {PointerGetDatum(fold->source.stream), Int64GetDatum(version)};
	TimestampTz recorded_at = DT_NOBEGIN;

	SPI_connect();
	if (own_sql_run_on_all_rows(fold->source.log,
								"SELECT recorded_at FROM @extschema@.es_events"
								" WHERE stream = $1 AND version = $2",
								2, types, values, NULL, false) > 0)
		recorded_at = DatumGetTimestampTz(own_sql_value(1));
	SPI_finish();
	return recorded_at;
}

/*
 * Looks it up, if something was removed.
 */
int64
fold_first_kept(const Fold *fold)
{
	return fold_may_have_notices(fold) ? Max(stream_first_version(fold, GetActiveSnapshot()), 1) : 1;
}

/* A value of the notice's data, as jsonb; null if it has none of this key. */
static NullableDatum
data_value(Datum data, const char *key)
{
	JsonbValue *value = notice_value(data, key);
	NullableDatum result = {.isnull = value == NULL};

	if (value != NULL)
		result.value = JsonbPGetDatum(JsonbValueToJsonb(value));
	return result;
}

/* The same of a string; "" if it is none. */
static char *
data_string(Datum data, const char *key)
{
	JsonbValue *value = notice_value(data, key);

	return value == NULL || value->type != jbvString ? "" :
		pnstrdup(value->val.string.val, value->val.string.len);
}

/* Refuses compacted events in a query's fold. */
static void
fail_compacted_query(const Fold *fold, TupleTableSlot *event)
{
	bool		isnull;
	text	   *stream = DatumGetTextPP(slot_getattr(event, Anum_es_events_stream, &isnull));

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot fold a query over compacted events"),
			 errdetail("The event at position " INT64_FORMAT " stands for events of stream \"%s\" that were compacted. Its state is that of the stream.",
					   fold->at, text_to_cstring(stream)),
			 errhint("Ask for events after it, or decide on the stream with es_execute().")));
}

/* Refuses the state that another reducer has made. */
static void
fail_other_reducer(const Fold *fold, const char *reducer)
{
	const Reducer *own = &fold->source.reducer;
	bool		same = strcmp(reducer, own->signature) == 0;

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot fold stream \"%s\" with another reducer than it was compacted with",
					text_to_cstring(fold->source.stream)),
			 same ?
			 errdetail("The events up to version " INT64_FORMAT " were compacted with reducer %s, which has another definition now.",
					   fold->at, reducer) :
			 errdetail("The events up to version " INT64_FORMAT " were compacted with reducer %s. This fold is by reducer %s.",
					   fold->at, reducer, own->signature),
			 errhint("Fold it with that reducer as it was. If the new one can go on from that state, compact the stream with it and adopt => true.")));
}

/* Refuses the state that was folded from another initial one. */
static void
fail_other_initial(const Fold *fold)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot fold stream \"%s\" from another initial state than it was compacted with",
					text_to_cstring(fold->source.stream)),
			 errdetail("The events up to version " INT64_FORMAT " were compacted with reducer %s and the initial state that the event's data have.",
					   fold->at, fold->source.reducer.signature),
			 errhint("Pass that initial state.")));
}

/* Refuses a compacted state that is not one of this fold. */
static void
check_compacted(const Fold *fold, Datum data)
{
	char	   *reducer = data_string(data, ES_COMPACTED_REDUCER);
	NullableDatum initial = data_value(data, ES_COMPACTED_INITIAL);

	if (strcmp(reducer, fold->source.reducer.signature) != 0 ||
		strcmp(data_string(data, ES_COMPACTED_FINGERPRINT),
			   fold_compacted_fingerprint(&fold->source.reducer)) != 0)
		fail_other_reducer(fold, reducer);
	if (initial.isnull != fold->initial.isnull ||
		(!initial.isnull && !DatumGetBool(DirectFunctionCall2(jsonb_eq, initial.value,
															  fold->initial.value))))
		fail_other_initial(fold);
}

/* Goes on from the stored state. */
static void
take_compacted(Fold *fold, TupleTableSlot *event)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->next);
	bool		isnull;
	Datum		data = slot_getattr(event, Anum_es_events_data, &isnull);
	NullableDatum state;

	if (!fold->adopts)
		check_compacted(fold, data);
	state = data_value(data, ES_COMPACTED_STATE);
	MemoryContextSwitchTo(oldcontext);
	fold_replace_state(fold, state);
}

/*
 * Refuses to go on without the archived events.  If there is any event before, all are, also
 * where the user does not see them.
 */
static void
check_unarchived(const Fold *fold)
{
	if (fold->state.version != fold->at - 1 &&
		stream_first_version(fold, GetActiveSnapshot()) == fold->at)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" is archived", text_to_cstring(fold->source.stream)),
				 errdetail("Its events before version " INT64_FORMAT " are in es_archived_events.",
						   fold->at),
				 errhint("Bring them back with es_unarchive_stream(), or read them with es_load_archived().")));
}

/* Takes a notice of the fold's own stream. */
static void
take_stream_notice(Fold *fold, NoticeKind kind, TupleTableSlot *event)
{
	NullableDatum none = {.isnull = true};

	switch (kind)
	{
		case NOTICE_DELETED:
			fold_replace_state(fold, none);
			fold->deleted = true;
			break;
		case NOTICE_COMPACTED:
			take_compacted(fold, event);
			fold->deleted = false;
			break;
		case NOTICE_ARCHIVED:
			check_unarchived(fold);
			break;
		case NOTICE_NONE:
			break;
	}
}

/*
 * An event after es_stream_deleted is the first one of a new stream, as "none" is its
 * expected version.
 */
bool
fold_take_notice(Fold *fold, TupleTableSlot *event)
{
	bool		isnull;
	NoticeKind	kind = notice_kind(DatumGetTextPP(slot_getattr(event, Anum_es_events_type,
															   &isnull)));

	if (kind == NOTICE_NONE && fold->deleted)
	{
		fold_replace_state(fold, fold->initial);
		fold->deleted = false;
	}
	else if (kind == NOTICE_COMPACTED && fold->source.of_query)
		fail_compacted_query(fold, event);
	else if (!fold->source.of_query)
		take_stream_notice(fold, kind, event);
	return kind != NOTICE_NONE;
}

/*
 * The first event that the transaction's snapshot has may be the first one that is kept.
 * If others have appended those before it, they are there in a new snapshot.
 */
void
fold_check_dense(const Fold *fold)
{
	if (fold->at == fold->state.version + 1)
		return;
	if (fold->has_notices && fold->state.version == 0 &&
		kept_first_version_now(fold->source.log, fold->source.stream) >= fold->at)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to stream \"%s\"",
					text_to_cstring(fold->source.stream)),
			 errdetail("The transaction's snapshot has version " INT64_FORMAT ", but not all versions before it, since others have appended in between.",
					   fold->at),
			 errhint("The transaction might succeed if retried.")));
}

/* The version of the first event that the user sees; 0: none. */
static int64
first_visible(const Fold *fold, Snapshot snapshot)
{
	StreamScan *scan = stream_scan_open(fold->source.log, fold->source.stream, 0, PG_INT64_MAX,
										snapshot);
	TupleTableSlot *event = stream_scan_next(scan);
	bool		isnull;
	int64		version = event == NULL ? 0 :
	DatumGetInt64(slot_getattr(event, Anum_es_events_version, &isnull));

	stream_scan_close(scan);
	return version;
}

/*
 * Returns true if events of the stream before the first one that is kept were removed.
 * visible: the first one that the user sees.  A user that sees none does not learn of it.
 */
static bool
starts_late(const Fold *fold, Snapshot snapshot, int64 visible, int64 *first)
{
	*first = visible <= 1 || fold->reads_all ? visible : stream_first_version(fold, snapshot);
	return *first > 1;
}

/* Raises that the events were removed that the state is made of. */
static void
fail_no_state(const Fold *fold, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the state of stream \"%s\" there is not known any more",
					text_to_cstring(fold->source.stream)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Nothing was folded.  If that is because what was asked for lies before the first event
 * that is kept, the state is not the initial one.
 */
void
fold_check_start(const Fold *fold, Snapshot snapshot, int64 upto, TimestampTz until)
{
	int64		first;
	TimestampTz recorded_at;

	if (!fold->has_notices || fold->state.version > 0 || upto < 1 ||
		(upto == PG_INT64_MAX && until == DT_NOEND) ||
		!starts_late(fold, snapshot, first_visible(fold, snapshot), &first))
		return;
	recorded_at = recorded_at_version(fold, first);
	if (first > upto || recorded_at > until)
		fail_no_state(fold,
					  psprintf("The first event that is kept has version " INT64_FORMAT " and was recorded at %s. Those before it were removed.",
							   first, timestamptz_to_str(recorded_at)),
					  "Ask for that version or time, or for a later one.");
}

/*
 * When the removed events happened is not known.  They count as before the first one that
 * is kept, so that no other may come before it.
 */
void
fold_check_occurred(const Fold *fold, int64 upto)
{
	int64		visible;
	int64		first;

	if (!fold->has_notices || upto < 1)
		return;
	visible = first_visible(fold, GetActiveSnapshot());
	if (starts_late(fold, GetActiveSnapshot(), visible, &first) && fold->first != visible)
		fail_no_state(fold,
					  psprintf("The first event that is kept has version " INT64_FORMAT ". Those before it were removed, and when they happened is not known.",
							   first),
					  "Ask by the time at which events were recorded, or for a version and time at which the first event that is kept has happened before all others.");
}
