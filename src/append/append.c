/*-------------------------------------------------------------------------
 *
 * append.c
 *		es_append() and es_append_batch(): from SQL arguments to a write
 *		(write.c), and from its result to a row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "log/log.h"
#include "append/append.h"

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_batch_jsonb);
PG_FUNCTION_INFO_V1(es_append_batch_arrays);
PG_FUNCTION_INFO_V1(es_append_support);

/* The arguments of a call that are never left out. */
#define REQUIRED_ARGUMENTS	4

/* Begins a write with the first two arguments, which all three functions have. */
static Write
write_of_arguments(FunctionCallInfo fcinfo)
{
	Write		write = {0};

	if (XactReadOnly)
		PreventCommandIfReadOnly(psprintf("%s()",
										  get_func_name(fcinfo->flinfo->fn_oid)));
	argument_not_null(fcinfo, 0, "stream");
	argument_not_null(fcinfo, 1, "expected");
	write.stream = PG_GETARG_TEXT_PP(0);
	write.expected = PG_GETARG_INT64(1);
	stream_check_new(write.stream);
	return write;
}

/* Refuses a type of the result that is no longer as the extension made it. */
static void
check_result_type(TupleDesc desc)
{
	if (desc->natts >= 2 && TupleDescAttr(desc, 0)->atttypid == INT8OID &&
		TupleDescAttr(desc, 1)->atttypid == INT8OID)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("type %s was changed", format_type_be(desc->tdtypeid)),
			 errdetail("An append returns its attributes version and position, of type bigint."),
			 errhint("Create the extension again.")));
}

/*
 * Returns the result as a row of the type es_appended.  Attributes that were added to
 * it are null.
 */
static Datum
append_result(FunctionCallInfo fcinfo, const Write *write)
{
	Oid			type = get_fn_expr_rettype(fcinfo->flinfo);
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
	HeapTuple	row;

	if (!OidIsValid(type))
		type = get_func_rettype(fcinfo->flinfo->fn_oid);
	desc = lookup_rowtype_tupdesc(type, -1);
	check_result_type(desc);
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	memset(nulls, true, desc->natts * sizeof(bool));
	values[0] = Int64GetDatum(write->version);
	nulls[0] = false;
	values[1] = Int64GetDatum(write->position);
	nulls[1] = write->position == 0;
	row = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(row);
}

/* Appends the events and returns the result as a row. */
static Datum
append_events(FunctionCallInfo fcinfo, Write *write)
{
	write->log = log_relid(fcinfo->flinfo->fn_oid);
	write_events(write);
	return append_result(fcinfo, write);
}

/* Returns true if the argument is there and not null. */
static bool
has_argument(FunctionCallInfo fcinfo, int argument)
{
	return argument < PG_NARGS() && !PG_ARGISNULL(argument);
}

/*
 * es_append(stream, expected, type, data, metadata, id, occurred_at, tags, body)
 */
Datum
es_append(PG_FUNCTION_ARGS)
{
	Write		write = write_of_arguments(fcinfo);
	NewEvent   *event;

	argument_not_null(fcinfo, 2, "type");
	argument_not_null(fcinfo, 3, "data");
	write.count = 1;
	write.events = event_array_make(write.stream, 1);
	event = write.events;
	event->type = PG_GETARG_TEXT_PP(2);
	event->data = PG_GETARG_DATUM(3);
	if (has_argument(fcinfo, 4))
		event->metadata = PG_GETARG_DATUM(4);
	event->has_id = has_argument(fcinfo, 5);
	if (event->has_id)
		event->id = *PG_GETARG_UUID_P(5);
	event->has_occurred_at = has_argument(fcinfo, 6);
	if (event->has_occurred_at)
		event->occurred_at = PG_GETARG_TIMESTAMPTZ(6);
	if (has_argument(fcinfo, 7))
		event->tags = PG_GETARG_DATUM(7);
	if (has_argument(fcinfo, 8))
		event->body = PG_GETARG_DATUM(8);
	event_check_new(event);
	return append_events(fcinfo, &write);
}

/*
 * es_append_batch(stream, expected, events jsonb)
 */
Datum
es_append_batch_jsonb(PG_FUNCTION_ARGS)
{
	Write		write = write_of_arguments(fcinfo);

	argument_not_null(fcinfo, 2, "events");
	write.events = event_array_read(write.stream, PG_GETARG_JSONB_P(2),
									&write.count);
	return append_events(fcinfo, &write);
}

/* An argument that is an array, taken apart. */
typedef struct ArrayElements
{
	Datum	   *values;			/* NULL: no array was given */
	bool	   *nulls;
	int			count;
} ArrayElements;

/*
 * Takes an array of one dimension apart.  nullable: elements may be null.
 */
static ArrayElements
array_elements(FunctionCallInfo fcinfo, int argument, const char *name,
			   bool nullable)
{
	ArrayElements elements = {0};
	ArrayType  *array;
	TypeCacheEntry *type;
	int			i;

	if (!has_argument(fcinfo, argument))
		return elements;
	array = PG_GETARG_ARRAYTYPE_P(argument);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name),
				 errdetail("The array has %d dimensions.", ARR_NDIM(array))));
	type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	deconstruct_array(array, ARR_ELEMTYPE(array), type->typlen,
					  type->typbyval, type->typalign, &elements.values,
					  &elements.nulls, &elements.count);
	for (i = 0; !nullable && i < elements.count; i++)
	{
		if (elements.nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not have null elements", name),
					 errdetail("Element %d is null.", i + 1)));
	}
	return elements;
}

/* Returns true if there is a value for the event. */
static bool
has_element(const ArrayElements *elements, int event)
{
	return elements->values != NULL && !elements->nulls[event];
}

/* Refuses an array that has not one element for each event. */
static void
check_array_length(const ArrayElements *elements, const char *name, int count)
{
	if (elements->values != NULL && elements->count != count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("types and %s must have the same number of elements", name),
				 errdetail("There are %d types and %d elements of %s.",
						   count, elements->count, name)));
}

/*
 * es_append_batch(stream, expected, types, data, metadata, ids, occurred_at, tags,
 * bodies): tags has a JSON array for each event, as an array of arrays would have to be
 * rectangular.
 */
Datum
es_append_batch_arrays(PG_FUNCTION_ARGS)
{
	Write		write = write_of_arguments(fcinfo);
	ArrayElements types,
				data,
				metadata,
				ids,
				occurred_at,
				tags,
				bodies;
	int			i;

	argument_not_null(fcinfo, 2, "types");
	argument_not_null(fcinfo, 3, "data");
	types = array_elements(fcinfo, 2, "types", false);
	data = array_elements(fcinfo, 3, "data", false);
	metadata = array_elements(fcinfo, 4, "metadata", true);
	ids = array_elements(fcinfo, 5, "ids", true);
	occurred_at = array_elements(fcinfo, 6, "occurred_at", true);
	tags = array_elements(fcinfo, 7, "tags", true);
	bodies = array_elements(fcinfo, 8, "bodies", true);
	check_array_length(&data, "data", types.count);
	check_array_length(&metadata, "metadata", types.count);
	check_array_length(&ids, "ids", types.count);
	check_array_length(&occurred_at, "occurred_at", types.count);
	check_array_length(&tags, "tags", types.count);
	check_array_length(&bodies, "bodies", types.count);

	write.count = types.count;
	write.events = event_array_make(write.stream, types.count);
	for (i = 0; i < types.count; i++)
	{
		NewEvent   *event = &write.events[i];

		event->type = DatumGetTextPP(types.values[i]);
		event->data = data.values[i];
		if (has_element(&metadata, i))
			event->metadata = metadata.values[i];
		event->has_id = has_element(&ids, i);
		if (event->has_id)
			event->id = *DatumGetUUIDP(ids.values[i]);
		event->has_occurred_at = has_element(&occurred_at, i);
		if (event->has_occurred_at)
			event->occurred_at = DatumGetTimestampTz(occurred_at.values[i]);
		if (has_element(&tags, i))
			event->tags = event_array_tags(tags.values[i], i + 1);
		if (has_element(&bodies, i))
			event->body = bodies.values[i];
	}
	event_array_check(write.events, write.count);
	return append_events(fcinfo, &write);
}

/* Returns true if the expression is a null that is known to the planner. */
static bool
is_constant_null(Node *expression)
{
	return IsA(expression, Const) && ((Const *) expression)->constisnull;
}

/*
 * Planner support of es_append() and es_append_batch(): leaves out the last arguments of
 * a call that are null, as their defaults are.  The functions take an argument that is
 * not there for null.
 */
Datum
es_append_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	FuncExpr   *call;
	FuncExpr   *shorter;
	int			count;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	call = ((SupportRequestSimplify *) request)->fcall;
	count = list_length(call->args);
	while (count > REQUIRED_ARGUMENTS && is_constant_null(list_nth(call->args, count - 1)))
		count--;
	if (count == list_length(call->args))
		PG_RETURN_POINTER(NULL);
	shorter = makeNode(FuncExpr);
	*shorter = *call;
	shorter->args = list_truncate(list_copy(call->args), count);
	PG_RETURN_POINTER(shorter);
}
