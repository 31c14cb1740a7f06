/*-------------------------------------------------------------------------
 *
 * execute.c
 *		es_execute(): decides a command on the present state of a stream, and
 *		appends the events.
 *
 * The order of steps.  From the first one on the stream is locked, so that no
 * other transaction can append between the state and the decision:
 *
 *	1. check the arguments, lock the stream to the end of the transaction, and wait for
 *	   a transaction that has locked the whole log instead of its streams;
 *	2. take a snapshot, which sees all that was appended before;
 *	3. if the command has an id, and its first event is stored: return its
 *	   first result;
 *	4. fold the stream; compare its version with the expected one: ES001;
 *	5. call the decider; an error refuses the command;
 *	6. complete the metadata and the ids of its events, and append them (write.c)
 *	   at the version of 4: ES001 if the decider has appended to the stream itself, or
 *	   a transaction that has locked the whole log since 1;
 *	7. fold the new events.  If 6 has found them stored, since they had ids of
 *	   their own and the command was repeated, return the first result.
 *
 * The caller must see all events of the stream, the new ones too, and what is personal in them
 * when it decides.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "append/append.h"
#include "aggregate/aggregate.h"
#include "aggregate/command.h"
#include "aggregate/fold_notice.h"

PG_FUNCTION_INFO_V1(es_execute);

/* Arguments, in their order. */
enum
{
	ARG_STREAM, ARG_DECIDER, ARG_COMMAND, ARG_REDUCER, ARG_METADATA,
	ARG_EXPECTED, ARG_INITIAL
};

/* The execution of a command. */
typedef struct Execution
{
	Oid			log;			/* es_events */
	text	   *stream;
	Oid			decider;
	ExpectedVersion expected;
	Command		command;
	Fold		fold;
	Write		write;			/* of the events that are decided */
	CommandResult result;
} Execution;

/* Takes the arguments. */
static void
init_execution(Execution *execution, FunctionCallInfo fcinfo)
{
	Datum		metadata = (Datum) 0;

	memset(execution, 0, sizeof(Execution));
	argument_not_null(fcinfo, ARG_STREAM, "stream");
	argument_not_null(fcinfo, ARG_DECIDER, "decider");
	argument_not_null(fcinfo, ARG_COMMAND, "command");
	argument_not_null(fcinfo, ARG_REDUCER, "reducer");
	argument_not_null(fcinfo, ARG_EXPECTED, "expected");
	execution->log = log_relid(fcinfo->flinfo->fn_oid);
	execution->stream = PG_GETARG_TEXT_PP(ARG_STREAM);
	stream_check_new(execution->stream);
	execution->write.log = execution->log;
	execution->write.stream = execution->stream;
	execution->expected = PG_GETARG_INT64(ARG_EXPECTED);
	if (!PG_ARGISNULL(ARG_METADATA))
		metadata = event_metadata(PG_GETARG_DATUM(ARG_METADATA));
	command_init(&execution->command, execution->stream,
				 PG_GETARG_DATUM(ARG_COMMAND), metadata);
}

/* The last version of the stream, whether the caller may see it or not. */
static int64
find_last_version(const Execution *execution)
{
	Log		   *log = log_open(execution->log);
	int64		last = log_last_version(log, execution->stream, 0);

	log_close(log);
	return last;
}

/*
 * Refuses to decide on a part of the stream.  version: up to this one all must
 * be visible; -1: to its end.
 */
static void
check_sees_all(const Execution *execution, int64 version)
{
	if (execution->fold.reads_all)
		return;
	if (version < 0)
		version = find_last_version(execution);
	if (version - fold_first_kept(&execution->fold) + 1 != execution->fold.folded)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot decide on stream \"%s\"",
						text_to_cstring(execution->stream)),
				 errdetail("Row security hides some of its events from role \"%s\".",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Execute commands as a role that may read the whole stream.")));
}

/* Makes a snapshot the active one, which sees all that is committed now. */
static void
push_latest_snapshot(void)
{
	PushActiveSnapshot(GetLatestSnapshot());
}

/* Folds the stream up to a version, from the one where the fold is. */
static void
fold_upto_version(Execution *execution, int64 version)
{
	Fold	   *fold = &execution->fold;

	(void) fold_renew(fold);
	if (fold->state.version == 0)
		fold_from_snapshot(fold, GetActiveSnapshot(), version, DT_NOEND);
	fold_stream(fold, GetActiveSnapshot(), version, DT_NOEND);
	check_sees_all(execution, version == PG_INT64_MAX ? -1 : version);
}

/*
 * Folds to the state after a command that was executed before.  If its events were removed,
 * the state is that at the first event that is kept.
 */
static void
fold_first_result(Execution *execution)
{
	execution->result.version = Max(execution->result.version,
									fold_first_kept(&execution->fold));
	/* a caller that does not see all events has not counted all of its own */
	if (!execution->fold.reads_all)
	{
		fold_upto_version(execution, PG_INT64_MAX);
		fold_restart(&execution->fold);
	}
	fold_upto_version(execution, execution->result.version);
}

/* Compares the expected version.  A deleted stream does not exist, but its versions go on. */
static void
check_fold_expected(const Execution *execution)
{
	bool		is_word = execution->expected == EXPECTED_NONE ||
	execution->expected == EXPECTED_EXISTS;

	expected_version_check(execution->stream, execution->expected,
						   is_word && execution->fold.deleted ? 0 :
						   execution->fold.state.version);
}

/* Steps 4 to 7 of the header. */
static void
fold_and_decide(Execution *execution)
{
	Fold	   *fold = &execution->fold;
	Write	   *write = &execution->write;
	CommandResult *result = &execution->result;

	fold_upto_version(execution, PG_INT64_MAX);
	check_fold_expected(execution);
	fold_check_whole(fold, "decide on the stream");
	write->expected = fold->state.version;
	write->events = decider_decide(execution->decider, execution->stream,
								   fold->state.state, execution->command.value,
								   &write->count, NULL);
	result->count = write->count;
	PopActiveSnapshot();
	command_complete_events(&execution->command, write);
	write_locked(write);
	result->version = write->version;
	result->position = write->position;
	push_latest_snapshot();
	if (result->version != fold->state.version + result->count)
		fold_restart(fold);
	fold_upto_version(execution, result->version);
	fold_save(fold);
}

/* The row (version, position, state, events). */
static Datum
execution_row(FunctionCallInfo fcinfo, const Execution *execution)
{
	const StreamState *state = &execution->fold.state;
	const CommandResult *result = &execution->result;
	Datum		values[4] = {
		Int64GetDatum(state->version), Int64GetDatum(result->position),
		state->state.value, Int32GetDatum(result->count)
	};
	bool		nulls[4] = {false, result->position == 0, state->state.isnull, false};

	return fold_row(fcinfo, values, nulls);
}

/*
 * es_execute(stream, decider, command, reducer, metadata, expected, initial)
 */
Datum
es_execute(PG_FUNCTION_ARGS)
{
	Execution	execution;

	PreventCommandIfReadOnly("es_execute()");
	init_execution(&execution, fcinfo);
	execution.decider = decider_find(PG_GETARG_TEXT_PP(ARG_DECIDER));
	fold_begin(&execution.fold, execution.log, execution.stream,
			   PG_GETARG_TEXT_PP(ARG_REDUCER), PG_GETARG_DATUM(ARG_INITIAL),
			   PG_ARGISNULL(ARG_INITIAL));
	write_lock(&execution.write);
	execution.fold.locked = true;
	log_lock_await_whole(execution.log, execution.stream);
	push_latest_snapshot();
	if (command_find_executed(&execution.command, execution.log,
							  &execution.result))
	{
		stats_count(stream_stats(execution.stream), STATS_DUPLICATES, 1);
		fold_first_result(&execution);
	}
	else
		fold_and_decide(&execution);
	PopActiveSnapshot();
	fold_end(&execution.fold);
	return execution_row(fcinfo, &execution);
}
