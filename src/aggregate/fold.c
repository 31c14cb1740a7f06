/*-------------------------------------------------------------------------
 *
 * fold.c
 *		One fold: a reducer is called for the events of a stream, in order, with
 *		the state so far.
 *
 * The order of steps:
 *
 *	1. fold_begin: the reducer is checked, the state is the initial one;
 *	2. fold_from_snapshot: go on from a state that was kept, if one fits;
 *	3. fold_events: a scan's events, as far as they are wanted;
 *	4. fold_save: keep the state, if many events were folded for it.
 *
 * Two memory contexts take turns: one has the state, in the other the event is
 * made ready, and the reducer makes the next state.  So nothing is copied, and
 * nothing is left behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "type/type.h"
#include "read/read.h"
#include "aggregate/aggregate.h"

/*
 * eventstore.snapshot_every: how many events es_state and es_execute may fold
 * without keeping the state.  Fewer: more is written, long streams load
 * sooner; more than most streams have: only the long ones have snapshots; 0:
 * nothing is kept but by es_snapshot.
 */
static int	snapshot_every = 200;

/* Refuses a function that is no reducer, or that the user may not execute. */
static void
check_reducer(Oid log, Oid function)
{
	FunctionSignature form = {
		.result = JSONBOID,
		.arguments = {JSONBOID, get_rel_type_id(log)},
		.count = 2,
		.noun = "reducer",
		.what = "A reducer takes the state and an event and returns the next state.",
		.declaration = "name(state jsonb, event es_events) RETURNS jsonb",
		.example = "app.reduce(jsonb, es_events)"
	};

	user_function_check(function, &form);
}

/* A hash of the initial state; 0 for null. */
static uint64
hash_initial(NullableDatum initial)
{
	Jsonb	   *state = initial.isnull ? NULL : DatumGetJsonbP(initial.value);

	return state == NULL ? 0 :
		hash_bytes_extended((unsigned char *) state, VARSIZE(state), 0);
}

/*
 * Begins a fold of the stream.  initial: the state before its first event.
 * Errors: the function is not a reducer.
 */
void
fold_begin(Fold *fold, Oid log, text *stream, Oid reducer, Datum initial,
		   bool isnull)
{
	memset(fold, 0, sizeof(Fold));
	check_reducer(log, reducer);
	fold->event_type = get_rel_type_id(log);
	fold->initial.value = initial;
	fold->initial.isnull = isnull;
	fold->of.log = log;
	fold->of.stream = stream;
	fold->of.reducer = fingerprint_reducer(log, reducer);
	fold->of.initial = hash_initial(fold->initial);
	fold->upcasting = upcast_begin(log);
	fold->reads_all = event_reader_may_read_all(log, GetUserId());
	fmgr_info(reducer, &fold->function);
	fold_restart(fold);
	fold->context = AllocSetContextCreate(CurrentMemoryContext,
										  "eventstore state",
										  ALLOCSET_DEFAULT_SIZES);
	fold->next = AllocSetContextCreate(CurrentMemoryContext,
									   "eventstore next state",
									   ALLOCSET_DEFAULT_SIZES);
}

/*
 * Begins again, with the initial state.
 */
void
fold_restart(Fold *fold)
{
	fold->state.version = 0;
	fold->state.recorded_at = DT_NOBEGIN;
	fold->state.state = fold->initial;
	fold->folded = 0;
}

/* Frees all but the state, which lives as long as the memory context. */
void
fold_end(Fold *fold)
{
	upcast_end(fold->upcasting);
	MemoryContextDelete(fold->next);
}

/*
 * Goes on from the last state that was kept, up to a version, with no event
 * that was recorded later than until.
 */
void
fold_from_snapshot(Fold *fold, Snapshot snapshot, int64 upto,
				   TimestampTz until)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->context);
	StreamState kept;

	if (fold->reads_all &&
		snapshot_find(&fold->of, upto, until, snapshot, &kept))
		fold->state = kept;
	MemoryContextSwitchTo(oldcontext);
}

/* The call of the reducer, which is made when it is needed. */
static ReducerCall *
get_call(Fold *fold)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->function.fn_mcxt);

	if (fold->call == NULL)
		fold->call = reducer_call_make(fold->function.fn_oid, fold->event_type);
	MemoryContextSwitchTo(oldcontext);
	return fold->call;
}

/*
 * Calls the reducer in the present memory context.  One that is strict is not
 * called for a state that is null, which it stays.
 */
static Datum
call_reducer(Fold *fold, TupleTableSlot *event, bool *isnull)
{
	bool		none;

	if (reducer_is_of_schema(&fold->function))
		return reducer_apply(&fold->function, fold->state.state,
							 DatumGetTextPP(slot_getattr(event, Anum_es_events_type, &none)),
							 slot_getattr(event, Anum_es_events_data, &none),
							 isnull);
	if (!fold->function.fn_strict || !fold->state.state.isnull)
		return reducer_call(get_call(fold), fold->state.state,
							present_record(fold->event_type, event), isnull);
	*isnull = true;
	return (Datum) 0;
}

/* Folds one event by calling the reducer. */
static void
fold_by_call(Fold *fold, TupleTableSlot *event)
{
	bool		isnull;
	Datum		result = call_reducer(fold, event, &isnull);

	if (isnull || fold->state.state.isnull || result != fold->state.state.value)
	{
		MemoryContext made = fold->next;

		fold->next = fold->context;
		fold->context = made;
	}
	fold->state.state.value = result;
	fold->state.state.isnull = isnull;
}

/*
 * Folds one event, as of today.  merge: takes the reducer's place; or NULL.
 */
static void
fold_event(Fold *fold, Merge *merge, TupleTableSlot *event)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->next);
	bool		isnull;

	event = upcast_event(fold->upcasting, event);
	if (merge != NULL)
		merge_add(merge, slot_getattr(event, Anum_es_events_data, &isnull));
	else
		fold_by_call(fold, event);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(fold->next);
}

static int64
int_column(TupleTableSlot *event, int column)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(event, column, &isnull));
}

/* Notes that the event is in the state. */
static void
note_event(Fold *fold, TupleTableSlot *event, TimestampTz recorded_at)
{
	if (fold->dense && fold->at != fold->state.version + 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to stream \"%s\"",
						text_to_cstring(fold->of.stream)),
				 errdetail("The transaction's snapshot has version " INT64_FORMAT " and not all before it: others have appended in between.",
						   fold->at),
				 errhint("The transaction might succeed if retried.")));
	fold->state.recorded_at = Max(fold->state.recorded_at, recorded_at);
	fold->state.version = Max(fold->state.version, fold->at);
	fold->folded++;
	if (fold->each != NULL)
		fold->each(fold, event);
}

/* What takes the reducer's place; NULL: nothing does. */
static Merge *
begin_merge(const Fold *fold)
{
	bool		only_last;

	return fold->each == NULL && reducer_is_merge(&fold->function, &only_last) ?
		merge_begin(fold->state.state, only_last) : NULL;
}

/* Says in an error's context which event is being folded. */
static void
fold_context(void *arg)
{
	const Fold *fold = arg;

	if (fold->at > 0)
		errcontext("event " INT64_FORMAT " of stream \"%s\"", fold->at,
				   text_to_cstring(fold->of.stream));
}

/*
 * Folds the events of the scan, up to the first one that was recorded later
 * than until.
 */
void
fold_events(Fold *fold, StreamScan *scan, TimestampTz until)
{
	Merge	   *merge = begin_merge(fold);
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = fold_context,
		.arg = fold
	};
	TupleTableSlot *event;

	error_context_stack = &context;
	while ((event = stream_scan_next(scan)) != NULL)
	{
		TimestampTz recorded_at = int_column(event, Anum_es_events_recorded_at);

		CHECK_FOR_INTERRUPTS();
		if (recorded_at > until)
			break;
		fold->at = int_column(event, Anum_es_events_version);
		fold_event(fold, merge, event);
		note_event(fold, event, recorded_at);
	}
	error_context_stack = context.previous;
	if (merge != NULL)
		fold->state.state.value = merge_state(merge, &fold->state.state.isnull);
}

/*
 * Folds the stream's events from where the fold is up to a version, and to the
 * first one that was recorded later than until.
 */
void
fold_stream(Fold *fold, Snapshot snapshot, int64 upto, TimestampTz until)
{
	StreamScan *scan = stream_scan_open(fold->of.log, fold->of.stream,
										fold->state.version, upto, snapshot);

	fold->dense = IsolationUsesXactSnapshot() && fold->reads_all;
	fold_events(fold, scan, until);
	stream_scan_close(scan);
}

/*
 * Keeps the state.  Returns false if that cannot be done now: the reducer may
 * have been replaced while it was at work, or the table is locked as a whole.
 */
bool
fold_save_now(Fold *fold)
{
	return fingerprint_is_current(fold->of.log, &fold->of.reducer) &&
		snapshot_save(&fold->of, &fold->state);
}

/*
 * Keeps the state, if it took so many events to make it, and nothing speaks
 * against it.
 */
void
fold_save(Fold *fold)
{
	if (snapshot_every > 0 && fold->folded >= snapshot_every &&
		fold->reads_all && snapshot_may_save())
		(void) fold_save_now(fold);
}

/*
 * The row that the function returns.
 */
Datum
fold_result(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function returns no row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

/*
 * Defines the setting.
 */
void
fold_init(void)
{
	DefineCustomIntVariable("eventstore.snapshot_every",
							"Sets after how many folded events the state of a stream is kept; 0 is never.",
							NULL,
							&snapshot_every,
							200, 0, INT_MAX,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
}
