/*-------------------------------------------------------------------------
 *
 * by_index.c
 *		es_by_index(), which makes the planner use an index where it is right and does
 *		not look so.
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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"

#include "log/log.h"

PG_FUNCTION_INFO_V1(es_by_index);
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

/* es_by_index_support(internal): the planner's questions about es_by_index. */
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
	PG_RETURN_POINTER(NULL);
}
