/*-------------------------------------------------------------------------
 *
 * fold.c
 *		One fold: a reducer is called for the events of a stream, or for those that match
 *		a query, in order, with the state so far.
 *
 * The order of steps:
 *
 *	1. fold_begin: the reducer is found, the state is the initial one;
 *	2. fold_from_snapshot: go on from a snapshot, if one fits;
 *	3. fold_events: fold a scan's events, as far as they are wanted;
 *	4. fold_save: save a snapshot, if many events were folded for the state.
 *
 * Two memory contexts take turns.  One has the state; in the other the event is
 * prepared and the reducer makes the next state.  So nothing is copied, and
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
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/context.h"
#include "base/role.h"
#include "log/log.h"
#include "type/type.h"
#include "read/present.h"
#include "read/read.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold_notice.h"

/*
 * eventstore.snapshot_every: after how many folded events es_state and
 * es_execute save a snapshot.  A low number writes more, and long streams load
 * sooner.  With a number above the length of most streams only long ones have
 * snapshots.  With 0 only es_snapshot saves one.
 */
static int	snapshot_every = 200;

/* Finds the reducer that the es_function names. */
static Oid
find_reducer(Oid log, text *name)
{
	FunctionSignature signature = {
		.result = JSONBOID,
		.arguments = {JSONBOID, present_type(log)},
		.count = 2,
		.noun = "reducer",
		.what = "A reducer takes the state and an event and returns the next state.",
		.declaration = "name(state jsonb, event es_recorded_event) RETURNS jsonb",
		.example = "app.reduce"
	};

	return user_function_find(text_to_cstring(name), &signature);
}

/* A hash of the initial state; 0 for null. */
static uint64
hash_initial(NullableDatum initial)
{
	Jsonb	   *state = initial.isnull ? NULL : DatumGetJsonbP(initial.value);

	return state == NULL ? 0 :
		hash_bytes_extended((unsigned char *) state, VARSIZE(state), 0);
}

/* Learns what is defined for the events, and what the reducer is made of. */
static void
learn_definitions(Fold *fold, Oid reducer)
{
	Oid			log = fold->source.log;
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->memory);

	fold->definitions = event_type_generation(log);
	fold->source.reducer = fingerprint_reducer(log, reducer);
	fold->presenter = present_begin(log);
	fold->keys = event_type_has_personal(log) ? subject_key_changes(log) : 0;
	if (present_hides(fold->presenter))
		fold->source.reducer.fingerprint = hash_combine64(fold->source.reducer.fingerprint, 1);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Finds the reducer and starts with the initial state.
 */
void
fold_begin(Fold *fold, Oid log, text *stream, text *reducer, Datum initial,
		   bool isnull)
{
	Oid			function = find_reducer(log, reducer);

	memset(fold, 0, sizeof(Fold));
	fold->initial.value = initial;
	fold->initial.isnull = isnull;
	fold->source.log = log;
	fold->source.stream = stream;
	fold->source.initial = hash_initial(fold->initial);
	fold->memory = CurrentMemoryContext;
	learn_definitions(fold, function);
	fold->reads_all = role_may_read_all(log, GetUserId());
	fmgr_info(function, &fold->function);
	fold_restart(fold);
	fold->context = AllocSetContextCreate(CurrentMemoryContext,
										  "eventstore state",
										  ALLOCSET_DEFAULT_SIZES);
	fold->next = AllocSetContextCreate(CurrentMemoryContext,
									   "eventstore next state",
									   ALLOCSET_DEFAULT_SIZES);
}

/*
 * Goes back to the initial state.
 */
void
fold_restart(Fold *fold)
{
	fold->state.version = 0;
	fold->state.recorded_at = DT_NOBEGIN;
	fold->state.state = fold->initial;
	fold->folded = 0;
	fold->first = 0;
	memset(&fold->base, 0, sizeof(StreamState));
	fold->deleted = false;
}

/*
 * What is presented depends on the definitions of types.  A transaction that was waited for may have
 * made the first one, and appended events that need it.
 */
bool
fold_renew(Fold *fold)
{
	AcceptInvalidationMessages();
	if (fold->definitions == event_type_generation(fold->source.log))
		return false;
	present_end(fold->presenter);
	learn_definitions(fold, fold->function.fn_oid);
	fold_restart(fold);
	return true;
}

/*
 * The same of the events that match a query.  The state of one tag is saved as that of a
 * stream is.
 */
void
fold_begin_query(Fold *fold, Oid log, text *tag, text *reducer, Datum initial,
				 bool isnull)
{
	fold_begin(fold, log, tag, reducer, initial, isnull);
	fold->source.of_query = true;
	fold->locked = true;
}

/* Frees all but the state, which lives as long as the memory context. */
void
fold_end(Fold *fold)
{
	present_end(fold->presenter);
	MemoryContextDelete(fold->next);
}

/*
 * Takes the state of a snapshot.  A caller that may not read all events folds
 * from the first one, since a snapshot would show what it must not see.  One that was deleted since may
 * have what was erased (retention/erase_subject.c).
 */
void
fold_from_snapshot(Fold *fold, Snapshot snapshot, int64 upto,
				   TimestampTz until)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->context);
	StreamState found;

	if (fold->reads_all && fold->source.stream != NULL &&
		snapshot_find(&fold->source, upto, until, snapshot, &found) &&
		(fold->keys == 0 || snapshot_is_saved_now(&fold->source, &found)))
		fold->base = fold->state = found;
	MemoryContextSwitchTo(oldcontext);
}

/* Prepares the call of the reducer, when it is first needed. */
static void
prepare_reducer_call(Fold *fold)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->function.fn_mcxt);

	fold->call = reducer_call_make(fold->function.fn_oid,
								   present_type(fold->source.log));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Calls a reducer that takes the whole event.  The state outlives the event: data
 * that is in its row is copied if it is the next state.
 */
static Datum
call_with_record(Fold *fold, TupleTableSlot *event, bool *isnull)
{
	Datum		result;

	if (fold->call == NULL)
		prepare_reducer_call(fold);
	result = reducer_call(fold->call, fold->state.state,
						  present_record(fold->presenter, event), isnull);
	return !*isnull && present_is_lent(event, result) ?
		datumCopy(result, false, -1) : result;
}

/*
 * Calls the reducer in the current memory context.  A strict one is not called
 * for a null state, which stays null.
 */
static Datum
call_reducer(Fold *fold, TupleTableSlot *event, bool *isnull)
{
	bool		none;

	if (reducer_is_of_schema(&fold->function))
		return reducer_apply(&fold->function, fold->state.state,
							 DatumGetTextPP(slot_getattr(event, Anum_es_events_type, &none)),
							 present_data(fold->presenter, event), isnull);
	if (!fold->function.fn_strict || !fold->state.state.isnull)
		return call_with_record(fold, event, isnull);
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
 * Presents and folds one event.
 */
static void
fold_event(Fold *fold, TupleTableSlot *event)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(fold->next);

	if (fold->merge != NULL)
		merge_add(fold->merge, present_data(fold->presenter, event));
	else
		fold_by_call(fold, event);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(fold->next);
}

static int64
int8_column(TupleTableSlot *event, int column)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(event, column, &isnull));
}

/* Records that the event is in the state. */
static void
record_folded(Fold *fold, TupleTableSlot *event, TimestampTz recorded_at)
{
	if (fold->dense)
		fold_check_dense(fold);
	if (fold->state.version == 0)
		fold->first = fold->at;
	fold->state.recorded_at = Max(fold->state.recorded_at, recorded_at);
	fold->state.version = Max(fold->state.version, fold->at);
	fold->folded++;
	if (fold->each != NULL)
		fold->each(fold, event);
}

/* Prepares what folds in the reducer's place, if anything does. */
static void
begin_merge(Fold *fold)
{
	bool		only_last;

	fold->merge = fold->each == NULL && reducer_is_merge(&fold->function, &only_last) ?
		merge_begin(fold->state.state, only_last) : NULL;
}

/*
 * The contexts take turns, as after an event.
 */
void
fold_replace_state(Fold *fold, NullableDatum state)
{
	MemoryContext made = fold->next;

	fold->next = fold->context;
	fold->context = made;
	fold->state.state = state;
	begin_merge(fold);
	MemoryContextReset(fold->next);
}

/* Names the event that is being folded in the context of an error. */
static void
fold_context(void *arg)
{
	const Fold *fold = arg;

	if (fold->at > 0 && fold->source.of_query)
		errcontext("event at position " INT64_FORMAT, fold->at);
	else if (fold->at > 0)
		errcontext("event " INT64_FORMAT " of stream \"%s\"", fold->at,
				   text_to_cstring(fold->source.stream));
}

/*
 * Folds the events of the scan.  An error says at which event.  The reducer runs
 * with fixed settings: a state is the same in every session.
 */
void
fold_events(Fold *fold, EventNext next, void *scan, TimestampTz until)
{
	int			number = fold->source.of_query ? Anum_es_events_position : Anum_es_events_version;
	ErrorContextCallback context;
	TupleTableSlot *event;
	int			level = settings_begin(settings_fixed());

	fold->has_notices = fold_may_have_notices(fold);
	begin_merge(fold);
	context_push(&context, fold_context, fold);
	while ((event = next(scan)) != NULL)
	{
		TimestampTz recorded_at = int8_column(event, Anum_es_events_recorded_at);

		CHECK_FOR_INTERRUPTS();
		if (recorded_at > until)
			break;
		fold->at = int8_column(event, number);
		if (!fold->has_notices || !fold_take_notice(fold, event))
			fold_event(fold, event);
		record_folded(fold, event, recorded_at);
	}
	context_pop(&context);
	settings_end(level);
	if (fold->merge != NULL)
		fold->state.state.value = merge_state(fold->merge, &fold->state.state.isnull);
}

static TupleTableSlot *
next_of_stream(void *scan)
{
	return stream_scan_next(scan);
}

/*
 * Folds the events of a scan of the stream.
 */
void
fold_scan(Fold *fold, StreamScan *scan, TimestampTz until)
{
	fold_events(fold, next_of_stream, scan, until);
}

/*
 * Folds the stream's next events.  At REPEATABLE READ and above a gap is an
 * error: the transaction's snapshot may lack events before its own.
 */
void
fold_stream(Fold *fold, Snapshot snapshot, int64 upto, TimestampTz until)
{
	StreamScan *scan = stream_scan_open(fold->source.log, fold->source.stream,
										fold->state.version, upto, snapshot);

	fold->dense = IsolationUsesXactSnapshot() && fold->reads_all;
	fold_scan(fold, scan, until);
	stream_scan_close(scan);
	fold_check_start(fold, snapshot, upto, until);
}

/*
 * Returns true if a state may be saved as far as personal attributes go: events lacked nothing, so
 * that it is the same for all, but for what was erased; and nobody was erased since.
 */
static bool
keeps_secrets(const Fold *fold)
{
	return fold->keys == 0 ? !event_type_has_personal(fold->source.log) :
		(present_opened(fold->presenter) <= OPENED_WHOLE &&
		 subject_key_changes(fold->source.log) == fold->keys);
}

void
fold_check_whole(const Fold *fold, const char *what)
{
	open_refuse(present_opened(fold->presenter), what);
}

/*
 * Saves the state, unless the reducer may have been replaced while it was at
 * work, or events may have been changed, or the table is locked as a whole.  That of a deleted stream need not be saved, and
 * no other event is folded from it.
 */
bool
fold_save_now(Fold *fold)
{
	fold->state.personal = fold->base.personal ||
		present_opened(fold->presenter) != OPENED_NOTHING;
	return fold->deleted ||
		((fold->locked || snapshot_check_events(fold, GetActiveSnapshot())) &&
		 keeps_secrets(fold) &&
		 fingerprint_is_current(fold->source.log, &fold->source.reducer) &&
		 snapshot_save(&fold->source, &fold->state));
}

/*
 * Saves the state after eventstore.snapshot_every events, if the caller reads
 * all events and the transaction may save snapshots.
 */
void
fold_save(Fold *fold)
{
	if (snapshot_every > 0 && fold->folded >= snapshot_every && fold->source.stream != NULL &&
		fold->reads_all && snapshot_may_save())
		(void) fold_save_now(fold);
}

/*
 * Makes the row of the function's result type.
 */
Datum
fold_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function returns no row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

/*
 * Defines the setting eventstore.snapshot_every.
 */
void
fold_init(void)
{
	DefineCustomIntVariable("eventstore.snapshot_every",
							"Sets after how many folded events a snapshot of the state is saved; 0 means never.",
							NULL,
							&snapshot_every,
							200, 0, INT_MAX,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
}
