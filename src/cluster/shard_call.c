/*-------------------------------------------------------------------------
 *
 * shard_call.c
 *		es_call(): a call that a router makes on this store for one of its users.
 *
 * The function is called with the rights of the session's user, who may call it directly as
 * well.  It runs in a subtransaction, and an error that it ends with is returned.  So an
 * expected refusal costs the router nothing but the call, where an error in the protocol
 * would cost it its connection.  A cancel or a shutdown is an error.
 *
 * The statement has two parameters whatever is called, so that its parse and its plan,
 * which PL/Proxy asks for with every call, are short.  The plan of the function's own
 * statement is kept for the session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "cluster/cluster.h"

PG_FUNCTION_INFO_V1(es_call);

/* A chunk is sent when it has so many bytes. */
#define CHUNK_BYTES	65536

/* Names of calls that a session has made, at most. */
#define MAX_CALLS	256

/* Bytes of a call's name, at most. */
#define MAX_CALL_LENGTH	1024

/* A call that was made before, by a hash of its name. */
typedef struct KnownCall
{
	uint64		hash;
	char	   *name;			/* NULL: it is not complete */
	NameData	schema;			/* that the plan's text names */
	SPIPlanPtr	plan;
	int			count;			/* of arguments */
	Oid			types[FUNC_MAX_ARGS];
	CallType	arguments[FUNC_MAX_ARGS];
} KnownCall;

static HTAB *known_calls = NULL;

/* Makes chunks of rows. */
typedef struct ChunkReceiver
{
	DestReceiver pub;
	StringInfoData chunk;
	CallType   *columns;
	Tuplestorestate *store;
	TupleDesc	desc;
	MemoryContext row;			/* reset after each */
} ChunkReceiver;

/* A call. */
typedef struct ShardCall
{
	Oid			function;		/* es_call itself */
	char	   *name;
	StringInfoData arguments;
	ChunkReceiver receiver;
} ShardCall;

/*
 * The answer
 */

/* Begins a chunk. */
static void
begin_chunk(ChunkReceiver *receiver)
{
	pq_begintypsend(&receiver->chunk);
	pq_sendbyte(&receiver->chunk, CALL_ROWS);
}

/* Adds the chunk to the result. */
static void
put_chunk(ChunkReceiver *receiver)
{
	Datum		value = PointerGetDatum(pq_endtypsend(&receiver->chunk));
	bool		isnull = false;

	tuplestore_putvalues(receiver->store, receiver->desc, &value, &isnull);
	pfree(DatumGetPointer(value));
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	ChunkReceiver *receiver = (ChunkReceiver *) self;
	int			i;

	receiver->columns = palloc(sizeof(CallType) * Max(desc->natts, 1));
	for (i = 0; i < desc->natts; i++)
		call_type_send(&receiver->columns[i], TupleDescAttr(desc, i)->atttypid,
					   CurrentMemoryContext);
	receiver->row = AllocSetContextCreate(CurrentMemoryContext, "row of a call",
										  ALLOCSET_DEFAULT_SIZES);
	begin_chunk(receiver);
}

static bool
receiver_row(TupleTableSlot *slot, DestReceiver *self)
{
	ChunkReceiver *receiver = (ChunkReceiver *) self;
	int			count = slot->tts_tupleDescriptor->natts;
	MemoryContext context;
	int			i;

	slot_getallattrs(slot);
	pq_sendint16(&receiver->chunk, count);
	context = MemoryContextSwitchTo(receiver->row);
	for (i = 0; i < count; i++)
		call_pack_value(&receiver->chunk, &receiver->columns[i], slot->tts_values[i],
						slot->tts_isnull[i]);
	MemoryContextSwitchTo(context);
	MemoryContextReset(receiver->row);
	if (receiver->chunk.len >= CHUNK_BYTES)
	{
		put_chunk(receiver);
		begin_chunk(receiver);
	}
	return true;
}

static void
receiver_shutdown(DestReceiver *self)
{
	put_chunk((ChunkReceiver *) self);
}

static void
receiver_destroy(DestReceiver *self)
{
}

/*
 * What is called
 */

static void
refuse_call(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("the store has no function %s", name),
			 errdetail("Its version of eventstore is %s.", EVENTSTORE_VERSION),
			 errhint("Upgrade the shards before the router.")));
}

/*
 * Returns true if the function takes arguments of these names, and has defaults for the
 * others.  Sets their types.
 */
static bool
takes_arguments(HeapTuple tuple, List *names, Oid *types)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	Oid		   *all_types;
	char	  **all_names;
	char	   *modes;
	int			count = get_func_arg_info(tuple, &all_types, &all_names, &modes);
	int			inputs = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		if (modes != NULL && modes[i] != PROARGMODE_IN)
			continue;
		if (inputs < list_length(names) &&
			(all_names == NULL || strcmp(all_names[i], list_nth(names, inputs)) != 0))
			return false;
		if (inputs < list_length(names))
			types[inputs] = all_types[i];
		inputs++;
	}
	return inputs >= list_length(names) &&
		inputs - list_length(names) <= proc->pronargdefaults;
}

/*
 * Takes a name such as es_load(stream,after_version) apart.  Returns the function's name.
 */
static char *
split_call_name(const char *name, List **arguments)
{
	char	   *copy = pstrdup(name);
	char	   *open = strchr(copy, '(');
	char	   *close = copy + strlen(copy) - 1;
	char	   *argument;
	char	   *rest;

	*arguments = NIL;
	if (open == NULL || *close != ')' || strlen(name) > MAX_CALL_LENGTH)
		refuse_call(pnstrdup(name, Min(strlen(name), NAMEDATALEN)));
	*open = *close = '\0';
	for (argument = strtok_r(open + 1, ",", &rest); argument != NULL;
		 argument = strtok_r(NULL, ",", &rest))
		*arguments = lappend(*arguments, argument);
	if (list_length(*arguments) > FUNC_MAX_ARGS)
		refuse_call(copy);
	return copy;
}

/* Checks that the extension of es_call has such a function.  Sets its arguments' types. */
static void
find_function(Oid own, const char *function, List *arguments, Oid *types, const char *name)
{
	Oid			extension = getExtensionOfObject(ProcedureRelationId, own);
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(function));
	bool		found = false;
	int			i;

	for (i = 0; i < list->n_members && !found; i++)
	{
		HeapTuple	tuple = &list->members[i]->tuple;
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

		found = proc->pronamespace == get_func_namespace(own) && proc->oid != own &&
			takes_arguments(tuple, arguments, types) &&
			getExtensionOfObject(ProcedureRelationId, proc->oid) == extension;
	}
	ReleaseSysCacheList(list);
	if (!found)
		refuse_call(name);
}

/* The statement that makes the call. */
static char *
call_statement(const char *schema, const char *function, List *arguments)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s.%s(", quote_identifier(schema),
					 quote_identifier(function));
	for (i = 0; i < list_length(arguments); i++)
		appendStringInfo(&sql, "%s%s => $%d", i > 0 ? ", " : "",
						 quote_identifier(list_nth(arguments, i)), i + 1);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* Makes the plan of a call, which is kept for the session. */
static void
learn_call(KnownCall *known, Oid own, const char *name)
{
	char	   *schema = get_namespace_name(get_func_namespace(own));
	List	   *arguments;
	char	   *function = split_call_name(name, &arguments);
	int			i;

	find_function(own, function, arguments, known->types, name);
	known->count = list_length(arguments);
	for (i = 0; i < known->count; i++)
		call_type_receive(&known->arguments[i], known->types[i], TopMemoryContext);
	known->plan = SPI_prepare(call_statement(schema, function, arguments), known->count,
							  known->types);
	if (known->plan == NULL)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), name);
	SPI_keepplan(known->plan);
	namestrcpy(&known->schema, schema);
	known->name = MemoryContextStrdup(TopMemoryContext, name);
}

/* Forgets a call that is out of date. */
static void
forget_call(KnownCall *known)
{
	if (known->name == NULL)
		return;
	pfree(known->name);
	known->name = NULL;
	SPI_freeplan(known->plan);
}

/* Finds a call, or learns it. */
static KnownCall *
find_call(Oid own, const char *name)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) name, strlen(name), own);
	KnownCall  *known;
	bool		found;

	if (known_calls == NULL)
	{
		HASHCTL		control = {
			.keysize = sizeof(uint64),
			.entrysize = sizeof(KnownCall)
		};

		known_calls = hash_create("eventstore calls", 32, &control, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(known_calls, &hash, HASH_FIND, &found);
	if (!found)
	{
		if (hash_get_num_entries(known_calls) >= MAX_CALLS)
			refuse_call(name);
		known = hash_search(known_calls, &hash, HASH_ENTER, &found);
		known->name = NULL;
	}
	if (known->name == NULL || strcmp(known->name, name) != 0 ||
		strcmp(get_namespace_name(get_func_namespace(own)), NameStr(known->schema)) != 0)
	{
		forget_call(known);
		learn_call(known, own, name);
	}
	return known;
}

/* Takes the arguments apart. */
static ParamListInfo
unpack_arguments(StringInfo buffer, KnownCall *known)
{
	ParamListInfo params = makeParamList(known->count);
	int			i;

	for (i = 0; i < known->count; i++)
	{
		ParamExternData *param = &params->params[i];

		param->ptype = known->types[i];
		param->pflags = PARAM_FLAG_CONST;
		param->value = call_unpack_value(buffer, &known->arguments[i], &param->isnull);
	}
	pq_getmsgend(buffer);
	return params;
}

/* The work of the subtransaction. */
static bool
make_call(void *arg)
{
	ShardCall  *call = arg;
	SPIExecuteOptions options = {0};
	KnownCall  *known;
	int			result;

	SPI_connect();
	known = find_call(call->function, call->name);
	options.params = unpack_arguments(&call->arguments, known);
	options.dest = &call->receiver.pub;
	result = SPI_execute_plan_extended(known->plan, &options);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), call->name);
	SPI_finish();
	return true;
}

/*
 * es_call(call, arguments) returns setof bytea: the rows, or the error.
 */
Datum
es_call(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ShardCall	call;
	ErrorData  *error;

	argument_not_null(fcinfo, 0, "call");
	argument_not_null(fcinfo, 1, "arguments");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(&call, 0, sizeof(call));
	call.function = fcinfo->flinfo->fn_oid;
	call.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	call_buffer(&call.arguments, PG_GETARG_DATUM(1));
	call.receiver.pub.receiveSlot = receiver_row;
	call.receiver.pub.rStartup = receiver_startup;
	call.receiver.pub.rShutdown = receiver_shutdown;
	call.receiver.pub.rDestroy = receiver_destroy;
	call.receiver.pub.mydest = DestNone;
	call.receiver.store = result->setResult;
	call.receiver.desc = result->setDesc;
	error = subtransaction_try(make_call, &call);
	if (error != NULL)
	{
		tuplestore_clear(call.receiver.store);
		pq_begintypsend(&call.receiver.chunk);
		call_pack_error(&call.receiver.chunk, error);
		put_chunk(&call.receiver);
	}
	return (Datum) 0;
}
