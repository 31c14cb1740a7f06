/*-------------------------------------------------------------------------
 *
 * execute.c
 *		es_execute(): a command is decided on the present state of a stream, and
 *		what was decided is appended.
 *
 * The order of steps, all under the stream's lock, so that nobody else can
 * append between the state and what was decided on it:
 *
 *	1. check the arguments, lock the stream to the end of the transaction;
 *	2. take a snapshot, which sees all that was appended to it before;
 *	3. if the command has an id, and its first event is stored: return its
 *	   first result;
 *	4. fold the stream; compare its version with the expected one: ES001;
 *	5. call the decider; an error refuses the command;
 *	6. complete the metadata and the ids of its events, and append them at the
 *	   version of 4: ES001 if the decider has appended to the stream itself;
 *	7. fold what was appended.  If 6 has found that it was a retry, as the events
 *	   had ids of their own, return the first result as well.
 *
 * Who decides must see all events of the stream, also those that he appends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "type/type.h"
#include "read/read.h"
#include "append/append.h"
#include "aggregate/aggregate.h"

PG_FUNCTION_INFO_V1(es_execute);

/* Arguments, in their order. */
enum
{
	ARG_STREAM, ARG_DECIDER, ARG_COMMAND, ARG_REDUCER, ARG_METADATA,
	ARG_EXPECTED
};

/* Keys of metadata. */
#define COMMAND_ID		"command_id"

static const char *const passed_on[] = {"correlation_id", "causation_id"};

/* The execution of a command. */
typedef struct Execution
{
	Oid			log;			/* es_events */
	text	   *stream;
	Oid			decider;
	Datum		command;
	Datum		metadata;		/* for all its events; 0: none */
	ExpectedVersion expected;
	pg_uuid_t  *command_id;		/* NULL: it has none */
	Datum		id_metadata;	/* that says it; 0: none */
	Fold		fold;

	int64		position;		/* of the last event; 0: there is none */
	int			count;			/* of events */
} Execution;

/* The value of a key of an object; NULL without one. */
static JsonbValue *
get_key(Datum object, const char *key)
{
	Jsonb	   *jsonb = DatumGetJsonbP(object);

	if (!JB_ROOT_IS_OBJECT(jsonb))
		return NULL;
	return getKeyJsonValueFromContainer(&jsonb->root, key, strlen(key), NULL);
}

/* The command's id, if its metadata has one. */
static pg_uuid_t *
read_command_id(Datum metadata)
{
	JsonbValue *value = metadata ? get_key(metadata, COMMAND_ID) : NULL;

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"" COMMAND_ID "\" of metadata must be a UUID"),
				 errdetail("Its value is not a string.")));
	return DatumGetUUIDP(DirectFunctionCall1(uuid_in,
											 CStringGetDatum(pnstrdup(value->val.string.val,
																	  value->val.string.len))));
}

/* One object with the keys of both; those of the second count. */
static Datum
merge_objects(Datum first, Datum second)
{
	if (first == (Datum) 0 || second == (Datum) 0)
		return first ? first : second;
	return DirectFunctionCall2(jsonb_concat, first, second);
}

/* What the command itself passes on to its events' metadata; 0: nothing. */
static Datum
command_metadata(Datum command)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;
	int			i;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (i = 0; i < (int) lengthof(passed_on); i++)
	{
		JsonbValue *value = get_key(command, passed_on[i]);
		JsonbValue	key;

		if (value == NULL || value->type == jbvNull)
			continue;
		key.type = jbvString;
		key.val.string.val = unconstify(char *, passed_on[i]);
		key.val.string.len = strlen(passed_on[i]);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, value);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return object->val.object.nPairs == 0 ? (Datum) 0 :
		JsonbPGetDatum(JsonbValueToJsonb(object));
}

/* Metadata with the command's id; 0: it has none. */
static Datum
id_metadata(const pg_uuid_t *id)
{
	if (id == NULL)
		return (Datum) 0;
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(psprintf("{\"" COMMAND_ID "\": \"%s\"}",
														uuid_to_cstring(id))));
}

/* Takes the arguments. */
static void
init_execution(Execution *execution, FunctionCallInfo fcinfo)
{
	memset(execution, 0, sizeof(Execution));
	argument_not_null(fcinfo, ARG_STREAM, "stream");
	argument_not_null(fcinfo, ARG_DECIDER, "decider");
	argument_not_null(fcinfo, ARG_COMMAND, "command");
	argument_not_null(fcinfo, ARG_REDUCER, "reducer");
	argument_not_null(fcinfo, ARG_EXPECTED, "expected");
	execution->log = log_relid(fcinfo->flinfo->fn_oid);
	execution->stream = PG_GETARG_TEXT_PP(ARG_STREAM);
	stream_check_name(execution->stream);
	execution->decider = PG_GETARG_OID(ARG_DECIDER);
	execution->command = PG_GETARG_DATUM(ARG_COMMAND);
	execution->expected = PG_GETARG_INT64(ARG_EXPECTED);
	if (!PG_ARGISNULL(ARG_METADATA))
	{
		execution->metadata = PG_GETARG_DATUM(ARG_METADATA);
		event_check_metadata(execution->metadata);
	}
	execution->command_id = read_command_id(execution->metadata);
	execution->id_metadata = id_metadata(execution->command_id);
	execution->metadata = merge_objects(command_metadata(execution->command),
										execution->metadata);
}

/* Refuses a function that cannot decide. */
static void
check_decider(Oid function)
{
	FunctionSignature form = {
		.result = JSONBOID,
		.arguments = {JSONBOID, JSONBOID},
		.count = 2,
		.noun = "decider",
		.what = "A decider takes the state and a command and returns an array of events.",
		.declaration = "name(state jsonb, command jsonb) RETURNS jsonb",
		.example = "app.decide(jsonb, jsonb)"
	};

	user_function_check(function, &form);
}

/* The id of an event of the command, numbered from 1. */
static pg_uuid_t
event_id(const Execution *execution, int number)
{
	char	   *name = psprintf("%s:%d", text_to_cstring(execution->stream),
								number);

	return *uuid_generate_v5(execution->command_id, name, strlen(name));
}

/* Looks the command's first event up by its id. */
static bool
find_first(const Execution *execution, StoredEvent *found)
{
	Log		   *log = log_open(execution->log);
	pg_uuid_t	id = event_id(execution, 1);
	bool		result = log_find_id(log, &id, execution->stream, found) &&
	found->same_stream;

	log_close(log);
	return result;
}

/* Has the event the id that the command's event of this number gets? */
static bool
has_id(const Execution *execution, TupleTableSlot *event, int number)
{
	pg_uuid_t	id = event_id(execution, number);
	bool		isnull;

	return memcmp(DatumGetUUIDP(slot_getattr(event, Anum_es_events_id,
											 &isnull)),
				  &id, UUID_LEN) == 0;
}

/* Does the event's metadata say the command's id? */
static bool
says_command(const Execution *execution, TupleTableSlot *event)
{
	bool		isnull;
	Datum		metadata = slot_getattr(event, Anum_es_events_metadata, &isnull);
	JsonbValue *value = isnull ? NULL : get_key(metadata, COMMAND_ID);
	char	   *id = uuid_to_cstring(execution->command_id);

	return value != NULL && value->type == jbvString &&
		value->val.string.len == (int) strlen(id) &&
		memcmp(value->val.string.val, id, strlen(id)) == 0;
}

/*
 * Was the command executed before?  Then its events are counted, from the first
 * one on: their ids say so, or their metadata.  (Who decides outside the database
 * may give the ids only.)  *version: that of the last one.
 */
static bool
find_executed(Execution *execution, int64 *version)
{
	StoredEvent first;
	StreamScan *scan;
	TupleTableSlot *event;
	bool		isnull;

	if (!find_first(execution, &first))
		return false;
	*version = first.version;
	execution->position = first.position;
	execution->count = 1;
	scan = stream_scan_open(execution->log, execution->stream, first.version,
							PG_INT64_MAX, GetActiveSnapshot());
	while ((event = stream_scan_next(scan)) != NULL &&
		   (has_id(execution, event, execution->count + 1) ||
			says_command(execution, event)))
	{
		CHECK_FOR_INTERRUPTS();
		*version = DatumGetInt64(slot_getattr(event, Anum_es_events_version,
											  &isnull));
		execution->position = DatumGetInt64(slot_getattr(event,
														 Anum_es_events_position,
														 &isnull));
		execution->count++;
	}
	stream_scan_close(scan);
	return true;
}

/* The last version of the stream, whoever may see it. */
static int64
last_version(const Execution *execution)
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
		version = last_version(execution);
	if (version != execution->fold.folded)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot decide on stream \"%s\"",
						text_to_cstring(execution->stream)),
				 errdetail("Row security hides some of its events from role \"%s\".",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Execute commands as a role that may read the whole stream.")));
}

/* Says in an error's context that it comes from what was decided. */
static void
decider_context(void *arg)
{
	errcontext("decider %s", format_procedure(*(Oid *) arg));
}

/*
 * Calls the decider; returns its array of events.
 */
static Jsonb *
decide(Execution *execution)
{
	FmgrInfo	function;
	const StreamState *state = &execution->fold.state;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 2);

	fmgr_info(execution->decider, &function);
	InitFunctionCallInfoData(*fcinfo, &function, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = state->state.value;
	fcinfo->args[0].isnull = state->state.isnull;
	fcinfo->args[1].value = execution->command;
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = function.fn_strict && state->state.isnull;
	result = fcinfo->isnull ? (Datum) 0 : FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the decider returned null"),
				 errdetail(function.fn_strict && state->state.isnull ?
						   "It is STRICT, and the state is null." :
						   "It returns an array of events."),
				 errhint("Return '[]' when there is nothing to do, and raise an error to refuse the command.")));
	return DatumGetJsonbP(result);
}

/*
 * What was decided, as new events; their number goes to execution->count.
 */
static NewEvent *
decide_events(Execution *execution)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = decider_context,
		.arg = &execution->decider
	};
	NewEvent   *events;

	error_context_stack = &context;
	events = event_array_read(execution->stream, decide(execution),
							  &execution->count);
	error_context_stack = context.previous;
	return events;
}

/* The first event must have the id by which the command is recognized. */
static void
check_first_id(const Execution *execution, const NewEvent *first)
{
	if (execution->command_id != NULL && first->has_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the first event of a command with a " COMMAND_ID " must not have an id of its own"),
				 errdetail("Its id is %s, by the decider or by the composite key of type \"%s\".",
						   uuid_to_cstring(&first->id),
						   text_to_cstring(first->type)),
				 errhint("A command is recognized by its first event's id when it is repeated. Leave out that id, or the " COMMAND_ID " where the events' own ids are enough.")));
}

/*
 * Completes the events' metadata and ids.  Those after the first may have ids of
 * their own, or of their types' composite keys.
 */
static void
complete_events(const Execution *execution, NewEvent *events)
{
	int			i;

	for (i = 0; i < execution->count; i++)
		events[i].metadata = merge_objects(merge_objects(execution->metadata,
														 events[i].metadata),
										   execution->id_metadata);
	event_identify(execution->log, events, execution->count);
	if (execution->count > 0)
		check_first_id(execution, &events[0]);
	for (i = 0; execution->command_id != NULL && i < execution->count; i++)
	{
		if (events[i].has_id)
			continue;
		events[i].id = event_id(execution, i + 1);
		events[i].has_id = true;
	}
}

/* Makes a snapshot the active one, which sees all that is committed now. */
static void
push_latest_snapshot(void)
{
	PushActiveSnapshot(GetLatestSnapshot());
}

/* Folds the stream up to a version, from the one where the fold is. */
static void
fold_upto(Execution *execution, int64 version)
{
	Fold	   *fold = &execution->fold;

	if (fold->state.version == 0)
		fold_from_snapshot(fold, GetActiveSnapshot(), version, DT_NOEND);
	fold_stream(fold, GetActiveSnapshot(), version, DT_NOEND);
	check_sees_all(execution, version == PG_INT64_MAX ? -1 : version);
}

/*
 * Returns to the first result of a command that was executed before, whose last
 * event has this version.
 */
static void
fold_first_result(Execution *execution, int64 version)
{
	/* one who does not see all events has not counted all of the command's */
	if (!execution->fold.reads_all)
	{
		fold_upto(execution, PG_INT64_MAX);
		fold_restart(&execution->fold);
	}
	fold_upto(execution, version);
}

/*
 * Steps 4 to 7 of the header.
 */
static void
fold_and_decide(Execution *execution)
{
	Fold	   *fold = &execution->fold;
	NewEvent   *events;
	int64		version;

	fold_upto(execution, PG_INT64_MAX);
	expected_version_check(execution->stream, execution->expected,
						   fold->state.version);
	events = decide_events(execution);
	PopActiveSnapshot();
	complete_events(execution, events);
	version = append_to_stream(execution->log, execution->stream,
							   fold->state.version, events, execution->count,
							   &execution->position);
	push_latest_snapshot();
	if (version != fold->state.version + execution->count)
		fold_restart(fold);
	fold_upto(execution, version);
	fold_save(fold);
}

/* The row (version, position, state, events). */
static Datum
result_row(FunctionCallInfo fcinfo, const Execution *execution)
{
	const StreamState *state = &execution->fold.state;
	Datum		values[4] = {
		Int64GetDatum(state->version), Int64GetDatum(execution->position),
		state->state.value, Int32GetDatum(execution->count)
	};
	bool		nulls[4] = {false, execution->position == 0, state->state.isnull, false};

	return fold_result(fcinfo, values, nulls);
}

/*
 * es_execute(stream, decider, command, reducer, metadata, expected)
 */
Datum
es_execute(PG_FUNCTION_ARGS)
{
	Execution	execution;
	int64		version = 0;

	PreventCommandIfReadOnly("es_execute()");
	init_execution(&execution, fcinfo);
	check_decider(execution.decider);
	fold_begin(&execution.fold, execution.log, execution.stream,
			   PG_GETARG_OID(ARG_REDUCER), event_array_no_data(), false);
	stream_lock(execution.log, execution.stream);
	push_latest_snapshot();
	if (execution.command_id != NULL && find_executed(&execution, &version))
	{
		stats_count(stream_stats(execution.stream), STATS_DUPLICATES, 1);
		fold_first_result(&execution, version);
	}
	else
		fold_and_decide(&execution);
	PopActiveSnapshot();
	fold_end(&execution.fold);
	return result_row(fcinfo, &execution);
}
