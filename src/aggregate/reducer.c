/*-------------------------------------------------------------------------
 *
 * reducer.c
 *		Ready-made reducers: es_merge(), es_last(), and es_reducer(), which makes
 *		one of a schema of functions.
 *
 * A schema's reducer is a C function es_reduce in that schema, where it finds
 * the others.  Only superusers can create C functions.  So es_reducer() creates
 * it as the owner of the log, for a caller that may create functions in the
 * schema, and makes the caller its owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/type.h"
#include "aggregate/aggregate.h"

PG_FUNCTION_INFO_V1(es_merge);
PG_FUNCTION_INFO_V1(es_last);
PG_FUNCTION_INFO_V1(es_reduce);
PG_FUNCTION_INFO_V1(es_reducer);

/* A column of an event that is never null. */
static Datum
event_column(HeapTupleHeader event, int column)
{
	bool		isnull;
	Datum		value = GetAttributeByNum(event, column, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event must have a type and data"),
				 errdetail("Column %d of the event is null.", column),
				 errhint("Pass an event, as es_load() returns it.")));
	return value;
}

/*
 * es_merge(state, event): the state with the attributes of the event's data.
 */
Datum
es_merge(PG_FUNCTION_ARGS)
{
	Datum		data;

	argument_not_null(fcinfo, 1, "event");
	data = event_column(PG_GETARG_HEAPTUPLEHEADER(1), Anum_es_recorded_event_data);
	merge_check_object(data);
	if (PG_ARGISNULL(0))
		PG_RETURN_DATUM(data);
	merge_check_object(PG_GETARG_DATUM(0));
	return DirectFunctionCall2(jsonb_concat, PG_GETARG_DATUM(0), data);
}

/*
 * es_last(state, event): the event's data.
 */
Datum
es_last(PG_FUNCTION_ARGS)
{
	argument_not_null(fcinfo, 1, "event");
	return event_column(PG_GETARG_HEAPTUPLEHEADER(1), Anum_es_recorded_event_data);
}

/*
 * Knows them by the C function.
 */
bool
reducer_is_merge(const FmgrInfo *function, bool *only_last)
{
	*only_last = function->fn_addr == es_last;
	return *only_last || function->fn_addr == es_merge;
}

/*
 * Knows it by the C function.
 */
bool
reducer_is_of_schema(const FmgrInfo *function)
{
	return function->fn_addr == es_reduce;
}

/* The functions of the schema that the called one is in. */
static TypeFunctions *
sibling_functions(FmgrInfo *called)
{
	FunctionSignature signature = {
		.noun = "reducer",
		.result = JSONBOID,
		.arguments = {JSONBOID, JSONBOID},
		.count = 2,
		.what = "Such a function takes the state and an event's data and returns the next state.",
		.declaration = "apply_type(state jsonb, data jsonb) RETURNS jsonb",
		.example = "app.apply_deposited"
	};
	MemoryContext oldcontext = MemoryContextSwitchTo(called->fn_mcxt);

	if (called->fn_extra == NULL)
		called->fn_extra = type_functions_make(get_namespace_name(get_func_namespace(called->fn_oid)),
											   ES_APPLY_PREFIX, &signature);
	MemoryContextSwitchTo(oldcontext);
	return called->fn_extra;
}

/*
 * Looks the function up and prepares its call at the first event of a type.
 */
Datum
reducer_apply(FmgrInfo *reducer, NullableDatum state, text *type, Datum data,
			  bool *isnull)
{
	TypeFunction *function = type_functions_find(sibling_functions(reducer), type);
	Datum		result;

	*isnull = state.isnull;
	if (function == NULL || (function->info.fn_strict && state.isnull))
		return state.value;
	if (function->extra == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(reducer->fn_mcxt);

		function->extra = reducer_call_make(function->function, JSONBOID);
		MemoryContextSwitchTo(oldcontext);
	}
	result = reducer_call(function->extra, state, data, isnull);

	/* the state must outlive the event, which may be on a page of a buffer */
	return !*isnull && result == data ? datumCopy(data, false, -1) : result;
}

/*
 * es_reduce(state, event): calls apply_<type>(state, data) of the schema that it
 * is in.
 */
Datum
es_reduce(PG_FUNCTION_ARGS)
{
	HeapTupleHeader event;

	argument_not_null(fcinfo, 1, "event");
	event = PG_GETARG_HEAPTUPLEHEADER(1);
	return reducer_apply(fcinfo->flinfo, fcinfo->args[0],
						 DatumGetTextPP(event_column(event,
													 Anum_es_recorded_event_type)),
						 event_column(event, Anum_es_recorded_event_data),
						 &fcinfo->isnull);
}

/* The file of this library, as the server finds it. */
static char *
library_file(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		isnull;
	char	   *file = TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple,
														   Anum_pg_proc_probin,
														   &isnull));

	ReleaseSysCache(tuple);
	return file;
}

/* Runs a statement that creates or changes an object. */
static void
run_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
}

/*
 * Creates the reducer in the schema, as the owner of the log, and makes the
 * caller its owner.
 */
static void
create_reducer(Oid log, const char *schema, const char *file)
{
	char	   *name = psprintf("%s." ES_SCHEMA_REDUCER "(state jsonb, event %s.es_recorded_event)",
								quote_identifier(schema),
								quote_identifier(get_namespace_name(get_rel_namespace(log))));
	const char *caller = quote_identifier(GetUserNameFromId(GetUserId(), false));
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");

	SPI_connect();
	run_utility(psprintf("CREATE FUNCTION %s RETURNS jsonb AS %s, '"
						 ES_SCHEMA_REDUCER "' LANGUAGE c STABLE", name,
						 quote_literal_cstr(file)));
	run_utility(psprintf("ALTER FUNCTION %s OWNER TO %s", name, caller));
	SPI_finish();
	run_as_end(saved);
	CommandCounterIncrement();
}

/*
 * Finds the reducer in the schema; InvalidOid if there is none.  Errors: another
 * function has its name.
 */
static Oid
find_schema_reducer(Oid log, const char *schema)
{
	Oid			types[2] = {JSONBOID, present_type(log)};
	Oid			found = LookupFuncName(list_make2(makeString(pstrdup(schema)),
												  makeString(ES_SCHEMA_REDUCER)),
									   2, types, true);

	if (OidIsValid(found) && !fingerprint_is_of_schema(found))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_FUNCTION),
				 errmsg("function " ES_SCHEMA_REDUCER " already exists in schema \"%s\"",
						schema),
				 errdetail("It was not made by es_reducer()."),
				 errhint("Rename it; the reducer of a schema has this name.")));
	return found;
}

/* Refuses a user that may not create functions in the schema. */
static void
check_may_create(Oid schema)
{
	AclResult	result = compat_check_acl(NamespaceRelationId, schema,
										  GetUserId(), ACL_CREATE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_SCHEMA, get_namespace_name(schema));
}

/*
 * es_reducer(schema) returns regprocedure: the reducer that calls the functions
 * apply_<type> of the schema.  It is created if it does not exist.
 */
Datum
es_reducer(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			schema = PG_GETARG_OID(0);
	char	   *name;
	Oid			found;

	argument_not_null(fcinfo, 0, "schema");
	name = get_namespace_name(schema);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema with oid %u does not exist", schema),
				 errdetail("A reducer is made of the functions of a schema.")));
	found = find_schema_reducer(log, name);
	if (OidIsValid(found))
		PG_RETURN_OID(found);

	PreventCommandIfReadOnly("es_reducer()");
	check_may_create(schema);
	/* a concurrent caller waits here, and finds what was created */
	LockDatabaseObject(NamespaceRelationId, schema, 0, ShareUpdateExclusiveLock);
	found = find_schema_reducer(log, name);
	if (!OidIsValid(found))
		create_reducer(log, name, library_file(fcinfo->flinfo->fn_oid));
	PG_RETURN_OID(find_schema_reducer(log, name));
}
