/*-------------------------------------------------------------------------
 *
 * decider.c
 *		Calls of deciders: functions that turn the state of a stream and a
 *		command into new events.
 *
 * A decider refuses a command by raising an error.  Where it has nothing to do
 * it returns an empty array; null is an error, since it is more likely a
 * mistake than a decision.  It runs with fixed settings, as the reducer does, so
 * that it decides the same in every session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/regproc.h"

#include "base/base.h"
#include "base/context.h"
#include "append/append.h"
#include "aggregate/aggregate.h"
#include "aggregate/command.h"

/*
 * Finds the function with a decider's signature.
 */
Oid
decider_find(text *name)
{
	FunctionSignature signature = {
		.result = JSONBOID,
		.arguments = {JSONBOID, JSONBOID},
		.count = 2,
		.noun = "decider",
		.what = "A decider takes the state and a command and returns an array of events.",
		.declaration = "name(state jsonb, command jsonb) RETURNS jsonb",
		.example = "app.decide"
	};

	return user_function_find(text_to_cstring(name), &signature);
}

/* Names the decider in the context of an error. */
static void
decider_context(void *arg)
{
	errcontext("decider %s", format_procedure(*(Oid *) arg));
}

/* Calls the decider; returns its array of events. */
static Jsonb *
call_decider(Oid decider, NullableDatum state, Datum command)
{
	FmgrInfo	function;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 2);

	fmgr_info(decider, &function);
	InitFunctionCallInfoData(*fcinfo, &function, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0] = state;
	fcinfo->args[1].value = command;
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = function.fn_strict && state.isnull;
	result = fcinfo->isnull ? (Datum) 0 : FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the decider returned null"),
				 errdetail(function.fn_strict && state.isnull ?
						   "It is STRICT, and the state is null." :
						   "It returns an array of events."),
				 errhint("Return '[]' when there is nothing to do, and raise an error to refuse the command.")));
	return DatumGetJsonbP(result);
}

/*
 * Calls the decider and reads its array.  Errors in either have the decider in
 * their context.
 */
NewEvent *
decider_decide(Oid decider, text *stream, NullableDatum state, Datum command,
			   int *count, Jsonb **decided)
{
	ErrorContextCallback context;
	NewEvent   *events;
	Jsonb	   *array;
	int			level = settings_begin(settings_fixed());

	context_push(&context, decider_context, &decider);
	array = call_decider(decider, state, command);
	events = event_array_read(stream, array, count);
	context_pop(&context);
	settings_end(level);
	if (decided != NULL)
		*decided = array;
	return events;
}
