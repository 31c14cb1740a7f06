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
 *	7. fold what was appended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "eventstore.h"

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

/*
 * Metadata with the keys that the command passes on, where it has none.
 */
static Datum
add_passed_on(Datum metadata, Datum command)
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
	if (object->val.object.nPairs == 0)
		return metadata;
	return metadata ?
		DirectFunctionCall2(jsonb_concat,
							JsonbPGetDatum(JsonbValueToJsonb(object)),
							metadata) :
		JsonbPGetDatum(JsonbValueToJsonb(object));
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
		log_check_metadata(execution->metadata);
	}
	execution->command_id = read_command_id(execution->metadata);
	execution->metadata = add_passed_on(execution->metadata,
										execution->command);
}

/* Refuses a function that cannot decide. */
static void
check_decider(Oid function)
{
	HandlerForm form = {
		.result = JSONBOID,
		.arguments = {JSONBOID, JSONBOID},
		.count = 2,
		.noun = "decider",
		.what = "A decider takes the state and a command and returns an array of events.",
		.declaration = "name(state jsonb, command jsonb) RETURNS jsonb",
		.example = "app.decide(jsonb, jsonb)"
	};

	handler_check_function(function, &form);
}

/* The id of an event of the command, numbered from 1. */
static pg_uuid_t
event_id(const Execution *execution, int number)
{
	char	   *name = psprintf("%s:%d", text_to_cstring(execution->stream),
								number);

	return *digest_uuid5(execution->command_id, name, strlen(name));
}

/*
 * Was the command executed before?  Then its events are counted, and *version
 * is that of the last one.
 */
static bool
find_executed(Execution *execution, int64 *version)
{
	Log		   *log = log_open(execution->log);
	StoredEvent found;

	for (;;)
	{
		pg_uuid_t	id = event_id(execution, execution->count + 1);

		CHECK_FOR_INTERRUPTS();
		if (!log_find_id(log, &id, execution->stream, &found) ||
			!found.same_stream)
			break;
		execution->count++;
		*version = found.version;
		execution->position = found.position;
	}
	log_close(log);
	return execution->count > 0;
}

/*
 * Refuses to decide on a part of the stream.
 */
static void
check_sees_all(const Execution *execution)
{
	Log		   *log;
	int64		last;

	if (events_may_read_all(execution->log, GetUserId()))
		return;
	log = log_open(execution->log);
	last = log_last_version(log, execution->stream, 0);
	log_close(log);
	if (last != execution->fold.folded)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot decide on stream \"%s\"",
						text_to_cstring(execution->stream)),
				 errdetail("Row security hides some of its events from role \"%s\".",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Execute commands as a role that may read the whole stream.")));
}

/*
 * Calls the decider; returns its array of events.
 */
static Jsonb *
decide(Execution *execution)
{
	FmgrInfo	function;
	const KeptState *state = &execution->fold.state;
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

/* Completes the events' metadata and ids. */
static void
complete_events(const Execution *execution, NewEvent *events)
{
	int			i;

	for (i = 0; i < execution->count; i++)
	{
		NewEvent   *event = &events[i];

		if (event->metadata == (Datum) 0)
			event->metadata = execution->metadata;
		else if (execution->metadata)
			event->metadata = DirectFunctionCall2(jsonb_concat,
												  execution->metadata,
												  event->metadata);
		if (execution->command_id == NULL || event->has_id)
			continue;
		event->id = event_id(execution, i + 1);
		event->has_id = true;
	}
}

/* Makes a snapshot the active one, which sees all that is committed now. */
static void
push_latest_snapshot(void)
{
	PushActiveSnapshot(GetLatestSnapshot());
}

/*
 * Steps 4 to 7 of the header.
 */
static void
fold_and_decide(Execution *execution)
{
	Fold	   *fold = &execution->fold;
	NewEvent   *events;

	fold_from_snapshot(fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	fold_stream(fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	check_sees_all(execution);
	expected_version_check(execution->stream, execution->expected,
						   fold->state.version);
	events = event_array_read(execution->stream, decide(execution),
							  &execution->count);
	PopActiveSnapshot();
	if (execution->count > 0)
	{
		complete_events(execution, events);
		(void) append_to_stream(execution->log, execution->stream,
								fold->state.version, events, execution->count,
								&execution->position);
	}
	push_latest_snapshot();
	fold_stream(fold, GetActiveSnapshot(), PG_INT64_MAX, DT_NOEND);
	fold_keep(fold);
}

/*
 * Returns the first result of a command that was executed before.
 */
static void
fold_first_result(Execution *execution, int64 version)
{
	Fold	   *fold = &execution->fold;

	fold_from_snapshot(fold, GetActiveSnapshot(), version, DT_NOEND);
	fold_stream(fold, GetActiveSnapshot(), version, DT_NOEND);
}

/* The row (version, position, state, events). */
static Datum
result_row(FunctionCallInfo fcinfo, const Execution *execution)
{
	const KeptState *state = &execution->fold.state;
	Datum		values[4] = {
		Int64GetDatum(state->version), Int64GetDatum(execution->position),
		state->state.value, Int32GetDatum(execution->count)
	};
	bool		nulls[4] = {false, execution->position == 0, state->state.isnull, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "es_execute() returns no row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
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
		fold_first_result(&execution, version);
	else
		fold_and_decide(&execution);
	PopActiveSnapshot();
	fold_end(&execution.fold);
	return result_row(fcinfo, &execution);
}
