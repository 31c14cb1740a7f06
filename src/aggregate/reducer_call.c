/*-------------------------------------------------------------------------
 *
 * reducer_call.c
 *		Repeated calls of functions that take a state and something else and
 *		return the next state.
 *
 * The call is an expression that is prepared once, as in a query.  The planner
 * inlines a function in SQL whose body is one expression, which is several
 * times as fast as calling it.  Any other function is called.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/params.h"
#include "optimizer/optimizer.h"
#include "utils/expandeddatum.h"

#include "aggregate/aggregate.h"

struct ReducerCall
{
	ExprState  *expression;
	ExprContext *context;
	ParamListInfo params;		/* the state, and the other argument */
	bool		inlined;		/* is the function's body in the expression? */
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
	call->expression = ExecInitExprWithParams(expression, call->params);
	call->context = CreateStandaloneExprContext();
	call->context->ecxt_param_list_info = call->params;
	return call;
}

/*
 * Evaluates the expression.  A called function may take over an expanded
 * object; an inlined body gets it read-only, since it may use it several times.
 */
Datum
reducer_call(ReducerCall *call, NullableDatum state, Datum other, bool *isnull)
{
	ParamExternData *params = call->params->params;

	params[0].value = state.value;
	params[0].isnull = state.isnull;
	params[1].value = call->inlined ?
		MakeExpandedObjectReadOnly(other, false, -1) : other;
	params[1].isnull = false;
	call->context->ecxt_per_tuple_memory = CurrentMemoryContext;
	return ExecEvalExpr(call->expression, call->context, isnull);
}
