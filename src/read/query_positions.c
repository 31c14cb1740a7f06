/*-------------------------------------------------------------------------
 *
 * query_positions.c
 *		What es_read() is made of where it has a query.
 *
 * es_read is plain SQL that the planner inlines.  It says
 *
 *		es_by_query(position, query, (SELECT es_matching_positions(query, ...)))
 *
 * beside its bounds.  Without a query, which the planner sees as a constant null, this is
 * true, and nothing of it is left in the plan.  Else it stands for
 *
 *		position = ANY ((SELECT es_matching_positions(query, ...)))
 *
 * as a condition of the index on positions, whatever is known of the query, with positions
 * that are computed once.  As a filter of other rows it is declared to be expensive, so that
 * the planner takes the index.  Privileges, row security and conditions of the caller's
 * statement apply to the events as to those of any table.
 *
 * es_matching_positions() looks as far as the horizon of the statement's snapshot, and
 * returns the first max_count positions of events that the caller may see.  It never returns
 * the position of an event that is hidden from the caller.
 *
 * A null in a statement that is planned for any query matches all events, as it does
 * elsewhere, for the price of an array of their positions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "log/closed.h"
#include "log/log.h"
#include "read/read.h"
#include "tag/tag.h"

PG_FUNCTION_INFO_V1(es_by_query);
PG_FUNCTION_INFO_V1(es_by_query_support);
PG_FUNCTION_INFO_V1(es_matching_positions);

/* More of them do not fit into an array. */
#define MAX_POSITIONS	100000000

/* So many events are expected to match, where nothing is known. */
#define EXPECTED_MATCHES	100.0

/* Room for positions at first. */
#define FIRST_ROOM	100

/* Positions that are collected, in an array as SQL has it. */
typedef struct PositionList
{
	ArrayType  *array;
	int			count;
	int			room;
} PositionList;

/*
 * es_by_query(position, query, positions) returns true if the query is null or the position is
 * one of these.
 */
Datum
es_by_query(PG_FUNCTION_ARGS)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			i;

	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &values, &nulls, &count);
	for (i = 0; i < count && (nulls[i] || DatumGetInt64(values[i]) != PG_GETARG_INT64(0)); i++)
		;
	PG_RETURN_BOOL(i < count);
}

/* position = ANY (positions) as the condition of an index on positions. */
static Node *
make_any_condition(SupportRequestIndexCondition *request)
{
	List	   *args = ((FuncExpr *) request->node)->args;
	ScalarArrayOpExpr *any;

	if (!IsA(request->node, FuncExpr) || request->indexarg != 0 ||
		request->opfamily != INTEGER_BTREE_FAM_OID ||
		!is_pseudo_constant_for_index(request->root, lthird(args), request->index))
		return NULL;
	any = makeNode(ScalarArrayOpExpr);
	any->opno = get_opfamily_member(INTEGER_BTREE_FAM_OID, INT8OID, INT8OID,
									BTEqualStrategyNumber);
	set_sa_opfuncid(any);
	any->useOr = true;
	any->args = list_make2(linitial(args), lthird(args));
	any->location = -1;
	request->lossy = false;
	return (Node *) list_make1(any);
}

/* The part of the table's events that is expected to match. */
static double
matching_part(PlannerInfo *root, List *args)
{
	Var		   *position = linitial(args);
	double		tuples = 0;

	if (IsA(position, Var) && (int) position->varno < root->simple_rel_array_size &&
		root->simple_rel_array[position->varno] != NULL)
		tuples = root->simple_rel_array[position->varno]->tuples;
	return Min(EXPECTED_MATCHES / Max(tuples, EXPECTED_MATCHES), 1.0);
}

/* True for a constant null in place of a query. */
static Node *
simplify_by_query(FuncExpr *call)
{
	Const	   *query = lsecond(call->args);

	return IsA(query, Const) && query->constisnull ? makeBoolConst(true, false) : NULL;
}

/*
 * es_by_query_support(internal): the planner's questions about es_by_query.
 */
Datum
es_by_query_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(simplify_by_query(((SupportRequestSimplify *) request)->fcall));
	if (IsA(request, SupportRequestIndexCondition))
		PG_RETURN_POINTER(make_any_condition((SupportRequestIndexCondition *) request));
	if (IsA(request, SupportRequestSelectivity))
	{
		SupportRequestSelectivity *part = (SupportRequestSelectivity *) request;

		part->selectivity = matching_part(part->root, part->args);
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}

/* The bytes of an array with so many positions. */
static Size
position_list_size(int count)
{
	return ARR_OVERHEAD_NONULLS(1) + sizeof(int64) * count;
}

/* Adds a position. */
static void
add_position(PositionList *list, int64 position)
{
	int64	   *values;

	if (list->count == MAX_POSITIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many events match the query"),
				 errdetail("The limit of one call is %d.", MAX_POSITIONS),
				 errhint("Pass max_count, and go on after the last position.")));
	if (list->count == list->room)
	{
		list->room = Min(list->room * 2, MAX_POSITIONS);
		list->array = repalloc(list->array, position_list_size(list->room));
	}
	values = (int64 *) ((char *) list->array + ARR_OVERHEAD_NONULLS(1));
	values[list->count++] = position;
}

/* Makes a list without positions. */
static PositionList
make_position_list(void)
{
	PositionList list = {.room = FIRST_ROOM};

	list.array = palloc0(position_list_size(FIRST_ROOM));
	list.array->ndim = 1;
	list.array->elemtype = INT8OID;
	ARR_LBOUND(list.array)[0] = 1;
	return list;
}

/* The list as an array. */
static ArrayType *
position_list_array(const PositionList *list)
{
	if (list->count == 0)
		return construct_empty_array(INT8OID);
	ARR_DIMS(list->array)[0] = list->count;
	SET_VARSIZE(list->array, position_list_size(list->count));
	return list->array;
}

/* Adds the position of an event. */
static void
add_event_position(void *taker, TupleTableSlot *event)
{
	bool		isnull;

	add_position(taker, DatumGetInt64(slot_getattr(event, Anum_es_events_position, &isnull)));
}

/* Adds the first positions of the match of events that the caller may see. */
static void
collect_positions(PositionList *list, Oid log, Match *match, Snapshot snapshot, int64 max_count)
{
	VisibleEvents wanted = {
		.log = log,
		.snapshot = snapshot,
		.max_count = max_count,
		.take = add_event_position,
		.taker = list
	};
	int64		position;

	if (!role_may_read_all(log, GetUserId()))
	{
		visible_events_read(match, &wanted);
		return;
	}
	while (list->count < max_count && (position = match_next(match)) != 0)
		add_position(list, position);
}

/* The query of the call; that of all events for a null. */
static EventQuery *
argument_query(FunctionCallInfo fcinfo)
{
	EventQuery *query;

	if (!PG_ARGISNULL(0))
		return query_read(PG_GETARG_JSONB_P(0));
	query = palloc0(sizeof(EventQuery));
	query->items = palloc0(sizeof(QueryItem));
	query->count = 1;
	query->has_untagged = true;
	return query;
}

/*
 * es_matching_positions(query, after_position, max_count)
 */
Datum
es_matching_positions(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	EventQuery *query = argument_query(fcinfo);
	MatchRange	range = {.after = PG_ARGISNULL(1) ? 0 : Max(PG_GETARG_INT64(1), 0)};
	int64		max_count = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2);
	PositionList list = make_position_list();
	Snapshot	snapshot;
	Match	   *match;

	log_check_relid_open(log);
	if (pg_class_aclcheck(log, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(log));
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	range.upto = horizon_find(log, snapshot);
	match = match_begin(log, query, &range, snapshot);
	collect_positions(&list, log, match, snapshot, max_count);
	match_end(match);
	UnregisterSnapshot(snapshot);
	PG_RETURN_ARRAYTYPE_P(position_list_array(&list));
}
