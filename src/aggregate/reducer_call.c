/*-------------------------------------------------------------------------
 *
 * reducer_call.c
 *		Repeated calls of functions that take a state and something else and
 *		return the next state.
 *
 * The planner inlines a function in SQL whose body is one expression, which is
 * several times as fast as calling it.  Then the call is an expression that is
 * prepared once, as in a query.  Any other function is called without one, but if
 * the server counts calls of functions, which an expression does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/params.h"
#include "optimizer/optimizer.h"
#include "pgstat.h"
#include "utils/expandeddatum.h"

#include "aggregate/aggregate.h"

struct ReducerCall
{
	ExprState  *expression;
	ExprContext *context;
	ParamListInfo params;		/* the state, and the other argument */
	bool		inlined;		/* is the function's body in the expression? */
	FmgrInfo	function;		/* if it is not */
};

/* A parameter of the expression. */
static Expr *
make_call_param(ParamListInfo params, int number, Oid type)
{
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = number;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->location = -1;
	params->params[number - 1].ptype = type;
	params->params[number - 1].pflags = 0;
	return (Expr *) param;
}

/*
 * Prepares the expression, with a parameter for each argument.
 */
ReducerCall *
reducer_call_make(Oid function, Oid other)
{
	ReducerCall *call = palloc0(sizeof(ReducerCall));
	Expr	   *expression;

	call->params = makeParamList(2);
	expression = (Expr *) makeFuncExpr(function, JSONBOID,
									   list_make2(make_call_param(call->params, 1, JSONBOID),
												  make_call_param(call->params, 2, other)),
									   InvalidOid, InvalidOid,
									   COERCE_EXPLICIT_CALL);
	expression = expression_planner(expression);
	call->inlined = !IsA(expression, FuncExpr) ||
		((FuncExpr *) expression)->funcid != function;
	if (!call->inlined)
	{
		fmgr_info(function, &call->function);
		fmgr_info_set_expr((Node *) expression, &call->function);
	}
	call->expression = ExecInitExprWithParams(expression, call->params);
	call->context = CreateStandaloneExprContext();
	call->context->ecxt_param_list_info = call->params;
	return call;
}

/* Evaluates the expression. */
static Datum
evaluate_call(ReducerCall *call, NullableDatum state, Datum other, bool *isnull)
{
	ParamExternData *params = call->params->params;

	params[0].value = state.value;
	params[0].isnull = state.isnull;
	params[1].value = other;
	params[1].isnull = false;
	call->context->ecxt_per_tuple_memory = CurrentMemoryContext;
	return ExecEvalExpr(call->expression, call->context, isnull);
}

/*
 * A called function may take over an expanded object; an inlined body gets it
 * read-only, since it may use it several times.
 */
Datum
reducer_call(ReducerCall *call, NullableDatum state, Datum other, bool *isnull)
{
	Datum		result;

	LOCAL_FCINFO(fcinfo, 2);

	if (call->inlined)
		return evaluate_call(call, state,
							 MakeExpandedObjectReadOnly(other, false, -1), isnull);
	if (pgstat_track_functions > call->function.fn_stats)
		return evaluate_call(call, state, other, isnull);
	InitFunctionCallInfoData(*fcinfo, &call->function, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0] = state;
	fcinfo->args[1].value = other;
	fcinfo->args[1].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}
