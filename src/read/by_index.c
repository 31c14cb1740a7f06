/*-------------------------------------------------------------------------
 *
 * by_index.c
 *		es_by_index(), which makes the planner use an index where it is right and does
 *		not look so, and es_by_version(), which leaves out bounds that exclude nothing.
 *
 * The planner takes the events of a category to be spread evenly over the log.  If they
 * are not, then by its estimate the index on positions is the better one, with a filter:
 * and a read walks over all events of other categories that come first.  Without
 * statistics, and in plans for any parameters, it expects few events of a category or a
 * stream, and sorts all of them for the first ones.
 *
 * So reads say es_by_index(column, $1) beside column = $1.  It is the same condition.  It
 * is not evaluated where an index that begins with the column is walked in order, and
 * for each row costs more than such a walk does: a bitmap is charged for it, too.  It is
 * cheap enough for a single row, so that an outer condition on the id uses its index.
 *
 * An index scan compares each of its conditions for each row, and has to look for the
 * version behind the stream's name.  So es_load says es_by_version(version, after, upto),
 * and the planner makes of it the two comparisons, or those of them that can be false.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

#include "log/log.h"

PG_FUNCTION_INFO_V1(es_by_index);
PG_FUNCTION_INFO_V1(es_by_version);
PG_FUNCTION_INFO_V1(es_by_index_support);

/* es_by_index(value, wanted) returns true if they are the same bytes. */
Datum
es_by_index(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(stream_equal(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1)));
}

/* value = wanted as the condition of an index on the value. */
static Node *
make_index_condition(SupportRequestIndexCondition *request)
{
	FuncExpr   *call = (FuncExpr *) request->node;
	Node	   *wanted;

	if (!IsA(call, FuncExpr) || request->indexarg != 0 ||
		request->opfamily != TEXT_BTREE_FAM_OID)
		return NULL;
	wanted = lsecond(call->args);
	if (!is_pseudo_constant_for_index(request->root, wanted, request->index))
		return NULL;
	request->lossy = false;
	return (Node *) list_make1(make_opclause(TextEqualOperator, BOOLOID, false,
											 linitial(call->args), (Expr *) wanted,
											 InvalidOid, request->indexcollation));
}

/* es_by_version(version, after, upto) returns true if version > after and <= upto. */
Datum
es_by_version(PG_FUNCTION_ARGS)
{
	int64		version = PG_GETARG_INT64(0);

	PG_RETURN_BOOL(version > PG_GETARG_INT64(1) && version <= PG_GETARG_INT64(2));
}

/* Returns true if the expression is this number. */
static bool
is_number(Node *expression, int64 number)
{
	Const	   *value = (Const *) expression;

	return IsA(expression, Const) && !value->constisnull &&
		DatumGetInt64(value->constvalue) == number;
}

/* Adds a comparison of a version with its bound. */
static List *
add_bound(List *bounds, StrategyNumber strategy, Node *version, Node *bound)
{
	Oid			comparison = get_opfamily_member(INTEGER_BTREE_FAM_OID, INT8OID, INT8OID,
												 strategy);
	OpExpr	   *result = (OpExpr *) make_opclause(comparison, BOOLOID, false,
												  (Expr *) version, (Expr *) bound,
												  InvalidOid, InvalidOid);

	set_opfuncid(result);
	return lappend(bounds, result);
}

/* The comparisons that a call of es_by_version stands for.  Versions begin at 1. */
static Node *
make_version_bounds(FuncExpr *call)
{
	Node	   *version = linitial(call->args);
	Node	   *after = lsecond(call->args);
	Node	   *upto = lthird(call->args);
	List	   *bounds = NIL;

	if (!is_number(after, 0))
		bounds = add_bound(bounds, BTGreaterStrategyNumber, version, after);
	if (!is_number(upto, PG_INT64_MAX))
		bounds = add_bound(bounds, BTLessEqualStrategyNumber, copyObject(version), upto);
	return bounds == NIL ? makeBoolConst(true, false) :
		(Node *) make_ands_explicit(bounds);
}

/* es_by_index_support(internal): the planner's questions about both. */
Datum
es_by_index_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestIndexCondition))
		PG_RETURN_POINTER(make_index_condition((SupportRequestIndexCondition *) request));
	if (IsA(request, SupportRequestSelectivity))
	{
		/* the condition beside it says how many there are */
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	if (IsA(request, SupportRequestSimplify))
	{
		FuncExpr   *call = ((SupportRequestSimplify *) request)->fcall;

		PG_RETURN_POINTER(list_length(call->args) == 3 ? make_version_bounds(call) : NULL);
	}
	PG_RETURN_POINTER(NULL);
}
