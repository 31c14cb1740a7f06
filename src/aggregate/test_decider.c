/*-------------------------------------------------------------------------
 *
 * test_decider.c
 *		es_test_decider(): what a decider makes of a command after given events, without
 *		a stream of the log.
 *
 * It does what es_execute() and es_decide() do between their locks, on events that are in
 * memory alone:
 *
 *	1. read the given events, identify and check them as an append does, and fold them;
 *	2. in a subtransaction, which is rolled back: call the decider, read its events,
 *	   identify and check them.  An error here is the result, as it would refuse the command;
 *	3. fold the new events.
 *
 * The log is not read, nothing is locked, and no position is drawn, so it works on a standby
 * and in a read-only transaction, too.  The positions of the events are 1, 2, 3 and so on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/context.h"
#include "append/append.h"
#include "aggregate/aggregate.h"
#include "aggregate/command.h"

PG_FUNCTION_INFO_V1(es_test_decider);

/* Arguments, in their order. */
enum
{
	ARG_REDUCER, ARG_DECIDER, ARG_GIVEN, ARG_COMMAND, ARG_INITIAL, ARG_STREAM
};

/* Events that are in memory, and the place of a scan of them. */
typedef struct MemoryScan
{
	NewEvent   *events;
	int			count;
	int			next;
	TimestampTz now;
	TupleTableSlot *slot;
} MemoryScan;

/* A decision that is tried. */
typedef struct Trial
{
	Oid			log;			/* es_events */
	text	   *stream;			/* NULL: each event names its own */
	Oid			decider;
	Datum		command;
	Fold		fold;
	int			given;			/* how many events */
	MemoryScan	scan;			/* of the given events, then of the new ones */
	Jsonb	   *decided;		/* as the decider returned it */
} Trial;

/* The next event as a row of the log; NULL after the last one. */
static TupleTableSlot *
next_in_memory(void *arg)
{
	MemoryScan *scan = arg;

	if (scan->next == scan->count)
		return NULL;
	log_fill_slot(scan->slot, &scan->events[scan->next++], InvalidFullTransactionId, scan->now);
	return ExecStoreVirtualTuple(scan->slot);
}

/* Identifies and checks events as an append does. */
static void
check_as_append(const Trial *trial, NewEvent *events, int count)
{
	event_identify(trial->log, events, count);
	tag_metadata_add(events, count);
	event_check(trial->log, events, count);
}

/* The version of an event: that of the last one of its stream before it, and one. */
static int64
version_after(const NewEvent *events, int number)
{
	int			i;

	for (i = number - 1; i >= 0; i--)
	{
		if (stream_equal(events[i].stream, events[number].stream))
			return events[i].version + 1;
	}
	return 1;
}

/* Adds new events to those of the scan, which goes on with them. */
static void
add_to_scan(Trial *trial, const NewEvent *events, int count)
{
	MemoryScan *scan = &trial->scan;
	int			i;

	scan->events = scan->events == NULL ? palloc(sizeof(NewEvent) * (count + 1)) :
		repalloc(scan->events, sizeof(NewEvent) * (scan->count + count + 1));
	for (i = 0; i < count; i++)
	{
		NewEvent   *event = &scan->events[scan->count + i];

		*event = events[i];
		event->position = scan->count + i + 1;
		event->version = version_after(scan->events, scan->count + i);
		if (!event->has_id)
			uuid_generate_v7(&event->id);
	}
	scan->count += count;
}

static void
given_context(void *arg)
{
	errcontext("the given events");
}

/* Step 1. */
static void
fold_given(Trial *trial, Jsonb *given)
{
	ErrorContextCallback context;
	NewEvent   *events;

	context_push(&context, given_context, NULL);
	events = event_array_read(trial->stream, given, &trial->given);
	check_as_append(trial, events, trial->given);
	add_to_scan(trial, events, trial->given);
	fold_events(&trial->fold, next_in_memory, &trial->scan, DT_NOEND);
	context_pop(&context);
}

/* Step 2; nothing of it stays. */
static bool
try_decider(void *arg)
{
	Trial	   *trial = arg;
	NewEvent   *events;
	int			count;

	events = decider_decide(trial->decider, trial->stream, trial->fold.state.state,
							trial->command, &count, &trial->decided);
	check_as_append(trial, events, count);
	add_to_scan(trial, events, count);
	return false;
}

/* Takes the arguments. */
static void
init_trial(Trial *trial, FunctionCallInfo fcinfo)
{
	memset(trial, 0, sizeof(Trial));
	argument_not_null(fcinfo, ARG_REDUCER, "reducer");
	argument_not_null(fcinfo, ARG_DECIDER, "decider");
	argument_not_null(fcinfo, ARG_GIVEN, "given");
	argument_not_null(fcinfo, ARG_COMMAND, "command");
	trial->log = log_relid(fcinfo->flinfo->fn_oid);
	if (!PG_ARGISNULL(ARG_STREAM))
	{
		trial->stream = PG_GETARG_TEXT_PP(ARG_STREAM);
		stream_check_new(trial->stream);
	}
	trial->command = PG_GETARG_DATUM(ARG_COMMAND);
	trial->decider = decider_find(PG_GETARG_TEXT_PP(ARG_DECIDER));
	if (trial->stream != NULL)
		fold_begin(&trial->fold, trial->log, trial->stream, PG_GETARG_TEXT_PP(ARG_REDUCER),
				   PG_GETARG_DATUM(ARG_INITIAL), PG_ARGISNULL(ARG_INITIAL));
	else
		fold_begin_query(&trial->fold, trial->log, NULL, PG_GETARG_TEXT_PP(ARG_REDUCER),
						 PG_GETARG_DATUM(ARG_INITIAL), PG_ARGISNULL(ARG_INITIAL));
}

/* The row (events, state, error, sqlstate). */
static Datum
trial_row(FunctionCallInfo fcinfo, const Trial *trial, const ErrorData *error)
{
	const NullableDatum *state = &trial->fold.state.state;
	Datum		values[4] = {JsonbPGetDatum(trial->decided), state->value};
	bool		nulls[4] = {error != NULL, state->isnull, error == NULL, error == NULL};

	if (error != NULL)
	{
		values[2] = CStringGetTextDatum(error->message);
		values[3] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	}
	return fold_row(fcinfo, values, nulls);
}

/*
 * es_test_decider(reducer, decider, given, command, initial, stream)
 */
Datum
es_test_decider(PG_FUNCTION_ARGS)
{
	Trial		trial;
	Relation	log;
	ErrorData  *error;
	Datum		row;

	init_trial(&trial, fcinfo);
	log = table_open(trial.log, AccessShareLock);
	trial.scan.slot = MakeSingleTupleTableSlot(RelationGetDescr(log), &TTSOpsVirtual);
	trial.scan.now = GetCurrentTimestamp();
	fold_given(&trial, PG_GETARG_JSONB_P(ARG_GIVEN));
	error = subtransaction_try(try_decider, &trial);
	if (error == NULL)
		fold_events(&trial.fold, next_in_memory, &trial.scan, DT_NOEND);
	row = trial_row(fcinfo, &trial, error);
	fold_end(&trial.fold);
	ExecDropSingleTupleTableSlot(trial.scan.slot);
	table_close(log, AccessShareLock);
	return row;
}
