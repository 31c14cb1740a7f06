/*-------------------------------------------------------------------------
 *
 * state.c
 *		es_state(), es_history(), es_snapshot(): the state of a stream, its states
 *		after each event, and saving one.
 *
 * They see what the calling statement sees.  doc/internals/fold.md describes folds
 * and snapshots.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold_notice.h"

PG_FUNCTION_INFO_V1(es_state);
PG_FUNCTION_INFO_V1(es_history);
PG_FUNCTION_INFO_V1(es_snapshot);

#define BY_RECORDED	"recorded"
#define BY_OCCURRED	"occurred"

/* Arguments, in their order; es_history and es_snapshot have the first three. */
enum
{
	ARG_STREAM, ARG_REDUCER, ARG_INITIAL, ARG_AT_VERSION, ARG_AT_TIME,
	ARG_BY_TIME
};

/* Takes the arguments that all three have, and begins the fold. */
static void
begin_fold(Fold *fold, FunctionCallInfo fcinfo)
{
	text	   *stream;

	argument_not_null(fcinfo, ARG_STREAM, "stream");
	argument_not_null(fcinfo, ARG_REDUCER, "reducer");
	stream = PG_GETARG_TEXT_PP(ARG_STREAM);
	stream_check_name(stream);
	fold_begin(fold, log_relid(fcinfo->flinfo->fn_oid), stream,
			   PG_GETARG_TEXT_PP(ARG_REDUCER), PG_GETARG_DATUM(ARG_INITIAL),
			   PG_ARGISNULL(ARG_INITIAL));
}

/*
 * Folds the events that had occurred by then, in the order in which they did.
 */
static void
fold_occurred(Fold *fold, int64 upto, TimestampTz until)
{
	StreamScan *scan = stream_scan_open_occurred(fold->source.log, fold->source.stream, upto,
												 until, GetActiveSnapshot());

	fold_scan(fold, scan, DT_NOEND);
	stream_scan_close(scan);
	fold_check_occurred(fold, upto);
}

/*
 * Folds the events that were recorded by then, from a snapshot if one fits.
 */
static void
fold_recorded(Fold *fold, int64 upto, TimestampTz until)
{
	fold_from_snapshot(fold, GetActiveSnapshot(), upto, until);
	fold_stream(fold, GetActiveSnapshot(), upto, until);
	fold_save(fold);
}

/* The row (state, version). */
static Datum
state_row(FunctionCallInfo fcinfo, const StreamState *state)
{
	Datum		values[2] = {state->state.value, Int64GetDatum(state->version)};
	bool		nulls[2] = {state->state.isnull, false};

	return fold_row(fcinfo, values, nulls);
}

/*
 * es_state(stream, reducer, initial, at_version, at_time, by_time)
 */
Datum
es_state(PG_FUNCTION_ARGS)
{
	Fold		fold;
	int64		upto = PG_INT64_MAX;
	TimestampTz until = DT_NOEND;
	char	   *by_time;

	argument_not_null(fcinfo, ARG_BY_TIME, "by_time");
	by_time = text_to_cstring(PG_GETARG_TEXT_PP(ARG_BY_TIME));
	argument_word("by_time", by_time, BY_RECORDED, BY_OCCURRED);
	if (!PG_ARGISNULL(ARG_AT_VERSION))
	{
		upto = PG_GETARG_INT64(ARG_AT_VERSION);
		argument_range("at_version", upto, 0, PG_INT64_MAX);
	}
	if (!PG_ARGISNULL(ARG_AT_TIME))
		until = PG_GETARG_TIMESTAMPTZ(ARG_AT_TIME);
	begin_fold(&fold, fcinfo);
	if (strcmp(by_time, BY_OCCURRED) == 0)
		fold_occurred(&fold, upto, until);
	else
		fold_recorded(&fold, upto, until);
	fold_end(&fold);
	return state_row(fcinfo, &fold.state);
}

/* Puts the state after an event into the result. */
static void
put_state(Fold *fold, TupleTableSlot *event)
{
	ReturnSetInfo *result = fold->each_data;
	Datum		values[4];
	bool		nulls[4] = {false, false, false, fold->state.state.isnull};
	bool		isnull;

	values[0] = slot_getattr(event, Anum_es_events_version, &isnull);
	values[1] = slot_getattr(event, Anum_es_events_recorded_at, &isnull);
	values[2] = slot_getattr(event, Anum_es_events_type, &isnull);
	values[3] = fold->state.state.value;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_history(stream, reducer, initial): the state after each event.
 */
Datum
es_history(PG_FUNCTION_ARGS)
{
	Fold		fold;

	InitMaterializedSRF(fcinfo, 0);
	begin_fold(&fold, fcinfo);
	fold.each = put_state;
	fold.each_data = fcinfo->resultinfo;
	fold_stream(&fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	fold_end(&fold);
	return (Datum) 0;
}

/* Refuses to save the state of a part as that of the whole stream. */
static void
check_reads_all(const Fold *fold)
{
	if (!fold->reads_all)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a role that may read all events can save a snapshot"),
				 errdetail("Role \"%s\" has no SELECT on es_events, or row security hides some of them.",
						   GetUserNameFromId(GetUserId(), false))));
}

/*
 * es_snapshot(stream, reducer, initial): saves the state of the stream; returns
 * its version.
 */
Datum
es_snapshot(PG_FUNCTION_ARGS)
{
	Fold		fold;

	PreventCommandIfReadOnly("es_snapshot()");
	begin_fold(&fold, fcinfo);
	check_reads_all(&fold);
	fold_from_snapshot(&fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	fold_stream(&fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	fold_check_whole(&fold, "save a snapshot of the stream");
	if (fold.folded > 0 && !fold_save_now(&fold))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not save a snapshot"),
				 errdetail("Another session has locked table \"es_snapshots\", or functions or events were changed meanwhile."),
				 errhint("Try again later.")));
	fold_end(&fold);
	PG_RETURN_INT64(fold.state.version);
}
