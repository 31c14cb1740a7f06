/*-------------------------------------------------------------------------
 *
 * route.c
 *		es_route(): every function of the extension eventstore_cluster that is carried out
 *		by one shard.
 *
 * The functions have the names, arguments and results of those of eventstore, and differ in
 * nothing but their entries in pg_proc.  One of their arguments decides where a call goes:
 *
 *	shard			a slot of this shard; the shard does not get the argument
 *	routing_stream	the slot of the stream; the shard does not get the argument
 *	stream			the slot of the stream
 *	query			the slot of the routing tags of its items
 *
 * The first of them that a function has decides.
 *
 * The call is made by es_send(), a function in PL/Proxy's language, which has the connection
 * for each slot.  It is called without SPI, whose statement would cost more.
 *
 * A function that is volatile writes.  What it writes is committed on the shard before the
 * caller goes on, and would outlive a rollback here.  So it must be a statement of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "parser/parse_func.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "tag/tag.h"
#include "cluster/cluster.h"

PG_FUNCTION_INFO_V1(es_route);

/* The tag stream:account-1 goes where the stream account-1 goes. */
#define ROUTING_TAG "stream:"

/* The argument that decides. */
typedef enum RouteBy
{
	BY_SHARD, BY_ROUTING_STREAM, BY_STREAM, BY_QUERY
} RouteBy;

static const char *const route_arguments[] = {"shard", "routing_stream", "stream", "query"};

/* A function, as it is in pg_proc. */
typedef struct Route
{
	Oid			function;		/* the key */
	TransactionId xmin;			/* of its row */
	ItemPointerData tid;
	MemoryContext context;		/* of what follows; NULL: incomplete */
	Datum		call;			/* its name there */
	RouteBy		by;
	int			argument;		/* that decides */
	bool		writes;
	int			count;			/* of arguments */
	CallType   *arguments;
	FmgrInfo	send;			/* es_send */
	bool		is_set;
	bool		is_row;
	int			column_count;
	CallType   *columns;
	TupleDesc	desc;			/* of a row */
} Route;

static HTAB *routes = NULL;

/*
 * What a function is
 */

/* Finds the argument that decides. */
static void
find_deciding_argument(Route *route, char **names)
{
	int			by;
	int			i;

	for (by = 0; by < (int) lengthof(route_arguments); by++)
	{
		for (i = 0; i < route->count; i++)
		{
			if (strcmp(names[i], route_arguments[by]) != 0)
				continue;
			route->by = by;
			route->argument = i;
			return;
		}
	}
	elog(ERROR, "function %u has no argument to be routed by", route->function);
}

/* Returns true if the shard gets the argument. */
static bool
is_passed(const Route *route, int argument)
{
	return argument != route->argument || route->by == BY_STREAM || route->by == BY_QUERY;
}

/* Learns its arguments, and what it is called by on the shard. */
static void
learn_arguments(Route *route, HeapTuple tuple)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			i;
	StringInfoData call;

	route->count = ((Form_pg_proc) GETSTRUCT(tuple))->pronargs;
	(void) get_func_arg_info(tuple, &types, &names, &modes);
	if (names == NULL)
		elog(ERROR, "arguments of function %u have no names", route->function);
	find_deciding_argument(route, names);
	route->arguments = palloc(sizeof(CallType) * route->count);
	initStringInfo(&call);
	appendStringInfo(&call, "%s(", NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname));
	for (i = 0; i < route->count; i++)
	{
		call_type_send(&route->arguments[i], types[i], CurrentMemoryContext);
		if (is_passed(route, i))
			appendStringInfo(&call, "%s%s", call.data[call.len - 1] == '(' ? "" : ",", names[i]);
	}
	appendStringInfoChar(&call, ')');
	route->call = PointerGetDatum(cstring_to_text(call.data));
}

/* Learns its result. */
static void
learn_result(Route *route, HeapTuple tuple)
{
	Oid			type;
	TupleDesc	desc;
	int			i;

	route->is_set = ((Form_pg_proc) GETSTRUCT(tuple))->proretset;
	route->is_row = get_func_result_type(route->function, &type, &desc) == TYPEFUNC_COMPOSITE;
	route->column_count = route->is_row ? desc->natts : 1;
	route->columns = palloc(sizeof(CallType) * route->column_count);
	for (i = 0; i < route->column_count; i++)
		call_type_receive(&route->columns[i],
						  route->is_row ? TupleDescAttr(desc, i)->atttypid : type,
						  CurrentMemoryContext);
	route->desc = route->is_row ? BlessTupleDesc(CreateTupleDescCopy(desc)) : NULL;
}

/* Finds es_send(slot, call, arguments), which is beside the function. */
static void
learn_send(Route *route, Oid schema)
{
	Oid			types[] = {INT4OID, TEXTOID, BYTEAOID};
	List	   *name = list_make2(makeString(get_namespace_name(schema)), makeString("es_send"));

	fmgr_info_cxt(LookupFuncName(name, lengthof(types), types, false), &route->send,
				  CurrentMemoryContext);
}

/* Learns all of it. */
static void
learn_route(Route *route, HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eventstore route",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	if (route->context != NULL)
		MemoryContextDelete(route->context);
	route->context = NULL;
	route->writes = proc->provolatile == PROVOLATILE_VOLATILE;
	learn_arguments(route, tuple);
	learn_result(route, tuple);
	learn_send(route, proc->pronamespace);
	route->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	route->tid = tuple->t_self;
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	route->context = context;
}

/* Finds what is known of a function, or learns it. */
static Route *
find_route(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Route	   *route;
	bool		found;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	if (routes == NULL)
	{
		HASHCTL		control = {
			.keysize = sizeof(Oid),
			.entrysize = sizeof(Route)
		};

		routes = hash_create("eventstore routes", 32, &control, HASH_ELEM | HASH_BLOBS);
	}
	route = hash_search(routes, &function, HASH_ENTER, &found);
	if (!found)
		route->context = NULL;
	if (route->context == NULL || !ItemPointerEquals(&route->tid, &tuple->t_self) ||
		route->xmin != HeapTupleHeaderGetRawXmin(tuple->t_data))
		learn_route(route, tuple);
	ReleaseSysCache(tuple);
	return route;
}

/*
 * Where it goes
 */

/*
 * Refuses a call that writes unless it is a statement of its own, SELECT, outside a
 * transaction block.  What the statement itself does later cannot be known.
 */
static void
check_own_statement(const Route *route)
{
	if (!IsTransactionBlock() && !IsSubTransaction() && ActivePortal != NULL &&
		ActivePortal->strategy == PORTAL_ONE_SELECT)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("%s() on a shard must be a statement of its own", get_func_name(route->function)),
			 errdetail("What it writes is committed on the shard, and would outlive a rollback of this transaction."),
			 errhint("Call it by SELECT, outside a transaction block, in the driver's autocommit mode.")));
}

static void
refuse_unroutable(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the query is not of one shard"),
			 errdetail_internal("%s", detail),
			 errhint("Give each item a routing tag, such as \"" ROUTING_TAG "account-1\", of one stream.")));
}

/* The slot of the routing tags of an item; -1 without one. */
static int
slot_of_item(const QueryItem *item, int number)
{
	int			slot = -1;
	int			i;

	for (i = 0; i < item->tags.count; i++)
	{
		text	   *tag = DatumGetTextPP(item->tags.values[i]);
		int			length = VARSIZE_ANY_EXHDR(tag) - strlen(ROUTING_TAG);
		int			of_tag;

		if (length <= 0 || memcmp(VARDATA_ANY(tag), ROUTING_TAG, strlen(ROUTING_TAG)) != 0)
			continue;
		of_tag = stream_partition(cstring_to_text_with_len(VARDATA_ANY(tag) + strlen(ROUTING_TAG), length),
								  ES_SLOTS);
		if (slot >= 0 && of_tag != slot)
			refuse_unroutable(psprintf("Item %d has routing tags of the slots %d and %d.", number, slot, of_tag));
		slot = of_tag;
	}
	return slot;
}

static int
slot_of_query(Datum json)
{
	EventQuery *query = query_read(DatumGetJsonbP(json));
	int			slot = -1;
	int			i;

	for (i = 0; i < query->count; i++)
	{
		int			of_item = slot_of_item(&query->items[i], i + 1);

		if (of_item < 0)
			refuse_unroutable(psprintf("Item %d has no routing tag.", i + 1));
		if (slot >= 0 && of_item != slot)
			refuse_unroutable(psprintf("Item %d is of slot %d, and an item before it of slot %d.",
									   i + 1, of_item, slot));
		slot = of_item;
	}
	return slot;
}

/*
 * A slot of a shard, in the map as it is now, which does not change any more in this
 * transaction.  The function tells in which schema it is.
 */
static int
slot_of_shard(Oid function, Datum shard)
{
	char	   *sql = psprintf("SELECT pg_catalog.lower(slots) FROM %s.es_shards WHERE shard OPERATOR(pg_catalog.=) $1",
							   quote_identifier(get_namespace_name(get_func_namespace(function))));
	Oid			type = INT4OID;
	int			slot;

	SPI_connect();
	if (SPI_execute_plan(own_sql_cached_plan(sql, 1, &type, 0), &shard, NULL, false, 1) < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), sql);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no shard %d", DatumGetInt32(shard)),
				 errdetail("The router's map does not have it."),
				 errhint("es_shards lists the shards.")));
	slot = DatumGetInt32(own_sql_value(1));
	SPI_finish();
	return slot;
}

/* The slot that decides.  A null goes to any shard, which refuses it. */
static int
find_slot(const Route *route, FunctionCallInfo fcinfo)
{
	if (route->by == BY_SHARD)
		argument_not_null(fcinfo, route->argument, "shard");
	if (PG_ARGISNULL(route->argument))
		return 0;
	if (route->by == BY_SHARD)
		return slot_of_shard(route->function, PG_GETARG_DATUM(route->argument));
	if (route->by == BY_QUERY)
		return slot_of_query(PG_GETARG_DATUM(route->argument));
	return stream_partition(PG_GETARG_TEXT_PP(route->argument), ES_SLOTS);
}

static Datum
pack_arguments(Route *route, FunctionCallInfo fcinfo)
{
	StringInfoData buffer;
	int			i;

	pq_begintypsend(&buffer);
	for (i = 0; i < route->count; i++)
	{
		if (is_passed(route, i))
			call_pack_value(&buffer, &route->arguments[i], PG_GETARG_DATUM(i), PG_ARGISNULL(i));
	}
	return PointerGetDatum(pq_endtypsend(&buffer));
}

/*
 * The call
 */

/* Reads the columns of a row. */
static void
unpack_row(Route *route, StringInfo chunk, Datum *values, bool *isnull)
{
	int			count = (int) pq_getmsgint(chunk, 2);
	int			i;

	if (count != route->column_count)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the shard's result has other columns"),
				 errdetail("It has %d columns, and that of the router has %d.", count,
						   route->column_count),
				 errhint("Have the same version of eventstore on the router and on the shards.")));
	for (i = 0; i < count; i++)
		values[i] = call_unpack_value(chunk, &route->columns[i], &isnull[i]);
}

/* Takes a chunk.  Returns the row of a function that returns one. */
static Datum
take_chunk(Route *route, FunctionCallInfo fcinfo, Datum bytes)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum	   *values = palloc(sizeof(Datum) * route->column_count);
	bool	   *isnull = palloc(sizeof(bool) * route->column_count);
	StringInfoData chunk;
	Datum		row = (Datum) 0;

	call_buffer(&chunk, bytes);
	if (pq_getmsgbyte(&chunk) == CALL_ERROR)
		call_raise_error(&chunk);
	while (chunk.cursor < chunk.len)
	{
		unpack_row(route, &chunk, values, isnull);
		if (route->is_set)
			tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
		else if (route->is_row)
			row = HeapTupleGetDatum(heap_form_tuple(route->desc, values, isnull));
		else
		{
			row = values[0];
			fcinfo->isnull = isnull[0];
		}
	}
	return row;
}

/* Calls es_send.  Returns the row of a function that returns one. */
static Datum
send_call(Route *route, FunctionCallInfo fcinfo, int slot)
{
	LOCAL_FCINFO(call, 3);
	FmgrInfo	send;
	ReturnSetInfo answer = {.type = T_ReturnSetInfo};
	Datum		row = (Datum) 0;

	answer.econtext = CreateStandaloneExprContext();
	answer.allowedModes = SFRM_ValuePerCall;
	answer.returnMode = SFRM_ValuePerCall;
	fmgr_info_copy(&send, &route->send, CurrentMemoryContext);
	InitFunctionCallInfoData(*call, &send, 3, InvalidOid, NULL, (Node *) &answer);
	call->args[0].value = Int32GetDatum(slot);
	call->args[1].value = route->call;
	call->args[2].value = pack_arguments(route, fcinfo);
	call->args[0].isnull = call->args[1].isnull = call->args[2].isnull = false;
	for (;;)
	{
		Datum		chunk;

		answer.isDone = ExprSingleResult;
		call->isnull = false;
		chunk = FunctionCallInvoke(call);
		if (answer.isDone != ExprMultipleResult)
			break;
		row = take_chunk(route, fcinfo, chunk);
	}
	FreeExprContext(answer.econtext, true);
	return row;
}

/*
 * Raises an error of PL/Proxy again.  Those of connections have no SQLSTATE, by which a
 * program would know that a call can be repeated.
 */
static void
raise_again(MemoryContext context, int slot)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR && strncmp(error->message, "PL/Proxy", 8) == 0)
	{
		error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
		if (error->detail == NULL)
			error->detail = psprintf("The shard has slot %d.", slot);
		if (error->hint == NULL)
			error->hint = pstrdup("Whether the call was carried out is not known. Repeat an append with the same ids.");
	}
	ReThrowError(error);
}

/*
 * The call of a function, on the shard that it is for.
 */
Datum
es_route(PG_FUNCTION_ARGS)
{
	Route	   *route = find_route(fcinfo->flinfo->fn_oid);
	MemoryContext context = CurrentMemoryContext;
	volatile int slot;
	volatile Datum row = (Datum) 0;

	if (route->writes)
		check_own_statement(route);
	slot = find_slot(route, fcinfo);
	if (route->is_set)
		InitMaterializedSRF(fcinfo, route->is_row ? 0 : MAT_SRF_USE_EXPECTED_DESC);
	PG_TRY();
	{
		row = send_call(route, fcinfo, slot);
	}
	PG_CATCH();
	{
		raise_again(context, slot);
	}
	PG_END_TRY();
	return row;
}
