/*-------------------------------------------------------------------------
 *
 * projection_apply.c
 *		The parts of a projection, which are a function, a schema of functions, a
 *		query or a materialized view; and how a batch of events is applied to it.
 *
 * A trigger, a runner and a replay apply a batch in the same way:
 *
 *	1. become the owner, with the search_path in force when the projection was
 *	   made and pg_temp last, so that no temporary table takes the place
 *	   of the read model; a rebuild puts its own there, and has pg_temp first;
 *	2. look up the handler and check it again: it may have been replaced;
 *	3. hand over the events in position order: one by one to a function, all
 *	   together as "new_events" to a query, or refresh the materialized view;
 *	4. become the caller again.
 *
 * An error is raised; the caller undoes what was written.  In a worker a slow handler
 * gets a part of the events only (projection_limit.c): the batch ends there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/type.h"
#include "read/present.h"
#include "read/read.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

PG_FUNCTION_INFO_V1(es_replaying);

/* The batch, as the query of a projection sees it. */
#define NEW_EVENTS "new_events"

/* The prefix of the functions of a handler_schema. */
#define ON_PREFIX "on_"

/* What es_replaying() returns. */
static bool replaying = false;

/* How many batches are being applied, one within another. */
static int	apply_depth = 0;

/*
 * es_replaying() returns boolean: true while a handler gets events from before
 * the projection was made, or while it is rebuilt.
 */
Datum
es_replaying(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(replaying);
}

/* Returns the signature of a handler. */
static FunctionSignature
handler_signature(Oid event_type)
{
	FunctionSignature signature = {
		.result = VOIDOID,
		.arguments = {event_type},
		.count = 1,
		.what = "A handler takes one event and returns nothing.",
		.declaration = "name(event es_recorded_event) RETURNS void",
		.example = "app.on_event"
	};

	return signature;
}

/* Refuses a function whose signature is not a handler's. */
static void
check_handler_function(Oid function, Oid event_type)
{
	FunctionSignature signature = handler_signature(event_type);

	user_function_check(function, &signature);
}

/* Finds the handler of this name, and checks it. */
Oid
projection_find_handler(Oid log, const char *name)
{
	FunctionSignature signature = handler_signature(present_type(log));

	return user_function_find(name, &signature);
}

/* The functions that are called for one batch. */
typedef struct HandlerCalls
{
	FmgrInfo	handler;
	TypeFunctions *by_type;		/* of a handler_schema; NULL: the handler */
	Presenter  *presenter;
} HandlerCalls;

/* Prepares for calling functions, as the owner. */
static void
prepare_handler_calls(HandlerCalls *calls, const Projection *projection)
{
	FunctionSignature signature = handler_signature(present_type(projection->log));

	calls->by_type = NULL;
	calls->presenter = present_begin(projection->log);
	present_require_keys(calls->presenter, "project an event");
	if (projection->kind == PROJECTION_HANDLER)
		fmgr_info(projection_find_handler(projection->log, projection->target),
				  &calls->handler);
	else
		calls->by_type = type_functions_make(projection->target, ON_PREFIX, &signature);
}

/*
 * Returns the function to call for the event in the slot; NULL if there is
 * none.
 */
static FmgrInfo *
choose_handler(HandlerCalls *calls, TupleTableSlot *slot)
{
	TypeFunction *function;
	bool		isnull;

	if (calls->by_type == NULL)
		return &calls->handler;
	function = type_functions_find(calls->by_type,
								   DatumGetTextPP(slot_getattr(slot, Anum_es_events_type,
															   &isnull)));
	return function == NULL ? NULL : &function->info;
}

/* Calls the function for the event in the slot. */
static void
call_projection_handler(HandlerCalls *calls, TupleTableSlot *slot)
{
	FmgrInfo   *function = choose_handler(calls, slot);

	LOCAL_FCINFO(fcinfo, 1);

	if (function == NULL)
		return;
	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = present_record(calls->presenter, slot);
	fcinfo->args[0].isnull = false;
	(void) FunctionCallInvoke(fcinfo);
}

/*
 * Calls the handler for each event.  If it fails, projection->failed_event and the
 * error's context say at which.
 */
static void
call_for_each_event(Projection *projection, Tuplestorestate *events,
					ProjectionContext *at)
{
	TupleTableSlot *slot = event_slot_make(at->log);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore event",
												  ALLOCSET_DEFAULT_SIZES);
	HandlerCalls calls;

	prepare_handler_calls(&calls, projection);
	PushActiveSnapshot(GetTransactionSnapshot());
	tuplestore_rescan(events);
	projection->failed_event = -1;
	at->event = slot;
	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		projection->failed_event++;
		CHECK_FOR_INTERRUPTS();
		call_projection_handler(&calls, slot);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
		if (projection_limit_is_near())
		{
			projection->applied = projection->failed_event + 1;
			break;
		}
	}
	at->event = NULL;
	projection->failed_event = -1;
	PopActiveSnapshot();
	present_end(calls.presenter);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Makes the batch visible as new_events to the statements of this SPI level.
 */
static void
register_new_events(Tuplestorestate *events, TupleDesc desc)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	int			result;

	relation->md.name = NEW_EVENTS;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(events);
	relation->reldata = events;
	result = SPI_register_relation(relation);
	if (result != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation: %s",
			 SPI_result_code_string(result));
}

static void
refuse_query(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the query cannot be used by a projection"),
			 errdetail("%s", why),
			 errhint("Use one INSERT, UPDATE, DELETE, MERGE or SELECT that reads new_events.")));
}

/* Returns true if the node reads new_events. */
static bool
reads_new_events(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_NAMEDTUPLESTORE;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_new_events, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_new_events, context);
}

/* Refuses a query that is not one statement on rows. */
static void
check_query(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	ListCell   *cell;

	if (list_length(sources) != 1)
		refuse_query(psprintf("It has %d statements.", list_length(sources)));
	source = linitial(sources);
	foreach(cell, source->query_list)
	{
		Query	   *query = lfirst_node(Query, cell);

		if (query->commandType == CMD_UTILITY)
			refuse_query(psprintf("It is %s.",
								  CreateCommandName(query->utilityStmt)));
	}
}

/*
 * Parses and analyses the query, as the owner; new_events is registered.
 */
static SPIPlanPtr
prepare_query(const char *query)
{
	SPIPlanPtr	plan = SPI_prepare(query, 0, NULL);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare: %s", SPI_result_code_string(SPI_result));
	check_query(plan);
	return plan;
}

/*
 * Runs the query for the whole batch.  The plan of a cached projection is saved
 * with it.
 */
static void
run_query(Projection *projection, Tuplestorestate *events)
{
	SPIExecuteOptions options = {0};
	SPIPlanPtr	plan = projection->plan;
	TupleDesc	desc;
	Tuplestorestate *presented = present_batch(projection->log, events, &desc);
	int			result;

	SPI_connect();
	register_new_events(presented, desc);
	if (plan == NULL)
		plan = prepare_query(projection->target);
	if (projection->cached && projection->plan == NULL)
	{
		SPI_keepplan(plan);
		projection->plan = plan;
	}
	projection->failed_event = -1;
	options.dest = None_Receiver;
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan: %s", SPI_result_code_string(result));
	SPI_finish();
	if (presented != events)
		tuplestore_end(presented);
}

/*
 * Returns true if the view meets the conditions of REFRESH MATERIALIZED VIEW
 * CONCURRENTLY, which does not keep its readers waiting.
 */
static bool
can_refresh_concurrently(const Projection *projection)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(projection->refresh);

	return own_sql_run(projection->log,
					   "SELECT FROM pg_class c"
					   " WHERE c.oid = $1 AND c.relispopulated AND EXISTS"
					   " (SELECT FROM pg_index i WHERE i.indrelid = c.oid"
					   " AND i.indisunique AND i.indimmediate AND i.indisvalid"
					   " AND i.indpred IS NULL AND i.indexprs IS NULL)",
					   1, &type, &value, NULL) > 0;
}

static void
refresh_view(const Projection *projection, bool concurrently)
{
	char	   *sql = psprintf("REFRESH MATERIALIZED VIEW %s%s",
							   concurrently ? "CONCURRENTLY " : "",
							   projection_relation_name(projection->refresh));
	int			result;

	SPI_connect();
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	SPI_finish();
}

/* Becomes the owner, with the projection's search_path. */
static RunAs
become_owner(const Projection *projection)
{
	const char *path = psprintf(projection->rebuilding ? "pg_temp, %s" : "%s, pg_temp",
								run_as_kept_path(projection->log,
												 projection->search_path));

	/* REFRESH restricts the view's query by itself, and needs a temp table */
	return projection_run_as(projection,
							 projection->kind != PROJECTION_REFRESH, path);
}

/* Hands the events to what the projection is made of, as the owner. */
static void
apply_by_kind(Projection *projection, Tuplestorestate *events, bool concurrently)
{
	ProjectionContext at;

	projection_context_begin(&at, projection, events);
	switch (projection->kind)
	{
		case PROJECTION_HANDLER:
		case PROJECTION_SCHEMA:
			call_for_each_event(projection, events, &at);
			break;
		case PROJECTION_QUERY:
			run_query(projection, events);
			break;
		case PROJECTION_REFRESH:
			refresh_view(projection, concurrently);
			break;
	}
	projection_context_end(&at);
}

/* Applies a batch, as the header of this file says. */
void
projection_apply(Projection *projection, Tuplestorestate *events,
				 bool history)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	bool		was_replaying = replaying;
	bool		concurrently = projection->kind == PROJECTION_REFRESH &&
	can_refresh_concurrently(projection);
	RunAs		saved;

	projection->failed_event = 0;
	projection->applied = 0;
	saved = become_owner(projection);
	apply_depth++;
	PG_TRY();
	{
		replaying = history;
		apply_by_kind(projection, events, concurrently);
	}
	PG_FINALLY();
	{
		replaying = was_replaying;
		apply_depth--;
	}
	PG_END_TRY();
	run_as_end(saved);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}

/*
 * Refuses to go on inside a handler: functions that run or change projections
 * rely on none running in their own transaction.
 */
void
projection_check_outside_handler(const char *function)
{
	if (apply_depth > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("%s cannot be called by a handler", function),
				 errdetail("This session is handing events to a projection."),
				 errhint("A handler may append events, which are handled when it is their turn.")));
}

/*
 * Refuses a schema in which the signature of a function for a type is wrong.
 * Functions that come later are checked when they are called.
 */
static void
check_type_handlers(const Projection *projection)
{
	Oid			event_type = present_type(projection->log);
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {
		ObjectIdGetDatum(get_namespace_oid(projection->target, false)),
		ObjectIdGetDatum(event_type)
	};
	SPITupleTable *found;
	uint64		i;

	(void) own_sql_run(projection->log,
					   "SELECT oid FROM pg_proc WHERE pronamespace = $1"
					   " AND starts_with(proname::text, 'on_') AND pronargs = 1"
					   " AND proargtypes[0] = $2 ORDER BY proname",
					   2, types, values, NULL);
	found = SPI_tuptable;
	for (i = 0; i < found->numvals; i++)
	{
		bool		isnull;

		check_handler_function(DatumGetObjectId(SPI_getbinval(found->vals[i],
															  found->tupdesc, 1,
															  &isnull)), event_type);
	}
	SPI_freetuptable(found);
}

/* Says that no event can have an effect by a query that does not read new_events. */
static void
notice_unread_events(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	ListCell   *cell;

	foreach(cell, source->query_list)
	{
		if (reads_new_events(lfirst(cell), NULL))
			return;
	}
	ereport(NOTICE,
			(errmsg("the query does not read " NEW_EVENTS),
			 errdetail("It does the same for all events."),
			 errhint("Read the events of the batch from the table " NEW_EVENTS ".")));
}

/* Returns the table that a query writes to; InvalidOid if it only reads. */
static Oid
written_table(const Query *query)
{
	return query->resultRelation == 0 ? InvalidOid :
		rt_fetch(query->resultRelation, query->rtable)->relid;
}

/*
 * Says that two parts of the query write to one table.  None of them sees what the
 * others have written, so that a batch may lose updates of rows that it inserts.
 */
static void
notice_written_twice(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Query	   *query = linitial_node(Query, source->query_list);
	List	   *written = list_make1_oid(written_table(query));
	ListCell   *cell;

	foreach(cell, query->cteList)
	{
		Node	   *part = lfirst_node(CommonTableExpr, cell)->ctequery;
		Oid			relid = written_table(castNode(Query, part));

		if (OidIsValid(relid) && list_member_oid(written, relid))
		{
			ereport(NOTICE,
					(errmsg("the query writes to table \"%s\" more than once",
							get_rel_name(relid)),
					 errdetail("Its parts do not see each other's rows: what one inserts for an event of the batch, another does not update for a later event."),
					 errhint("Aggregate the batch, and write each row once by INSERT ... ON CONFLICT DO UPDATE; or use a handler.")));
			return;
		}
		written = lappend_oid(written, relid);
	}
}

/* Refuses a query that cannot be planned. */
static void
check_query_plan(const Projection *projection)
{
	SPIPlanPtr	plan;
	TupleDesc	desc;
	Tuplestorestate *none = event_batch_make();
	Tuplestorestate *presented = present_batch(projection->log, none, &desc);

	SPI_connect();
	register_new_events(presented, desc);
	plan = prepare_query(projection->target);
	notice_unread_events(plan);
	notice_written_twice(plan);
	(void) SPI_plan_get_cached_plan(plan);
	SPI_finish();
	if (presented != none)
		tuplestore_end(presented);
	tuplestore_end(none);
}

/* Refuses a projection that cannot work. */
void
projection_check_definition(Projection *projection)
{
	RunAs		saved = become_owner(projection);
	HandlerCalls calls;

	if (pg_class_aclcheck(projection->log, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "es_events");
	if (projection->kind == PROJECTION_HANDLER ||
		projection->kind == PROJECTION_SCHEMA)
		prepare_handler_calls(&calls, projection);
	if (projection->kind == PROJECTION_SCHEMA)
		check_type_handlers(projection);
	else if (projection->kind == PROJECTION_QUERY)
		check_query_plan(projection);
	run_as_end(saved);
}
