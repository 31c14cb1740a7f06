/*-------------------------------------------------------------------------
 *
 * upcast.c
 *		Events of earlier schema versions, as they would be written today
 *		(design: doc/event_type.md).
 *
 * An event is of the version that its metadata says, of the first if it says
 * none.  The upcasters of its type from that version on are called one after
 * another; what comes out has the version that the last of them leads to.  So
 * it can be done twice.  Metadata that says no version which could be one
 * leaves an event as it is.
 *
 * An upcaster runs as who defined it, where names were found then.  What is to
 * be called is copied and looked up once for a statement or a batch
 * (Upcasting): upcasters may themselves change what is defined.
 *
 * The read functions call es_upcast_data and es_upcast_metadata for every row.
 * While no upcaster is defined the planner puts their argument in their place
 * (es_upcast_support), so that plans are what they would be without.  They are
 * made anew when that changes, see event_type.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "log/log.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_upcast);
PG_FUNCTION_INFO_V1(es_upcast_data);
PG_FUNCTION_INFO_V1(es_upcast_metadata);
PG_FUNCTION_INFO_V1(es_upcast_support);

/* Arguments of es_upcast_data and es_upcast_metadata, in their order. */
enum
{
	ARG_POSITION, ARG_TYPE, ARG_DATA, ARG_METADATA
};

/* An upcaster, and what is called. */
typedef struct Call
{
	Upcaster	upcaster;
	bool		found;
	Oid			owner;
	char	   *path;
	FmgrInfo	function;
} Call;

struct Upcasting
{
	MemoryContext context;		/* has it all */
	Call	   *calls;			/* by type and from_version */
	int			count;
	int64		position;		/* of the event at hand; 0: it has none yet */
	TupleTableSlot *slot;		/* what upcast_event returns */
};

/* What a call in a statement keeps from one row to the next. */
typedef struct Kept
{
	Oid			log;
	uint64		generation;		/* of what is defined */
	Upcasting  *upcasting;		/* NULL: there are no upcasters */
} Kept;

/* Copies an upcaster into the present memory context. */
static void
copy_upcaster(Upcaster *copy, const Upcaster *upcaster)
{
	copy->type = pstrdup(upcaster->type);
	copy->from_version = upcaster->from_version;
	copy->signature = pstrdup(upcaster->signature);
	copy->owner = pstrdup(upcaster->owner);
	copy->search_path = pstrdup(upcaster->search_path);
}

/*
 * All upcasters that are defined, by type and from_version: a List of
 * Upcaster in the present memory context.
 */
List *
upcast_functions(Oid log)
{
	List	   *result = NIL;
	const Upcaster *upcasters;
	int			count;
	int			i;

	AcceptInvalidationMessages();
	upcasters = event_type_upcasters(log, &count);
	for (i = 0; i < count; i++)
	{
		Upcaster   *copy = palloc(sizeof(Upcaster));

		copy_upcaster(copy, &upcasters[i]);
		result = lappend(result, copy);
	}
	return result;
}

/* Makes an Upcasting in the context; NULL if there are no upcasters. */
static Upcasting *
make_upcasting(Oid log, MemoryContext parent)
{
	int			count;
	const Upcaster *upcasters = event_type_upcasters(log, &count);
	MemoryContext oldcontext;
	Upcasting  *upcasting;
	int			i;

	if (count == 0)
		return NULL;
	oldcontext = MemoryContextSwitchTo(AllocSetContextCreate(parent,
															 "eventstore upcasting",
															 ALLOCSET_SMALL_SIZES));
	upcasting = palloc0(sizeof(Upcasting));
	upcasting->context = CurrentMemoryContext;
	upcasting->calls = palloc0(sizeof(Call) * count);
	upcasting->count = count;
	for (i = 0; i < count; i++)
		copy_upcaster(&upcasting->calls[i].upcaster, &upcasters[i]);
	MemoryContextSwitchTo(oldcontext);
	return upcasting;
}

/*
 * Prepares for bringing events up, for one statement or batch, in the present
 * memory context; NULL if no upcaster is defined.
 */
Upcasting *
upcast_begin(Oid log)
{
	AcceptInvalidationMessages();
	return make_upcasting(log, CurrentMemoryContext);
}

/*
 * Ends it; NULL is possible.
 */
void
upcast_end(Upcasting *upcasting)
{
	if (upcasting == NULL)
		return;
	if (upcasting->slot != NULL)
		ExecDropSingleTupleTableSlot(upcasting->slot);
	MemoryContextDelete(upcasting->context);
}

/* Compares a call with a type and a version. */
static int
compare_call(const Call *call, const char *type, int length, int version)
{
	int			result = strncmp(call->upcaster.type, type, length);

	if (result == 0 && call->upcaster.type[length] != '\0')
		result = 1;
	if (result == 0)
		result = (call->upcaster.from_version > version) -
			(call->upcaster.from_version < version);
	return result;
}

/* Is the call, by its number, one for the type? */
static bool
is_of_type(const Upcasting *upcasting, int number, text *type)
{
	int			length = VARSIZE_ANY_EXHDR(type);
	const char *name;

	if (number >= upcasting->count)
		return false;
	name = upcasting->calls[number].upcaster.type;
	return strncmp(name, VARDATA_ANY(type), length) == 0 &&
		name[length] == '\0';
}

/*
 * Finds the calls for an event: *first and the last, plus one, are returned.
 * version: none that leads beyond it.  False if there are none.
 */
static bool
find_calls(const Upcasting *upcasting, text *type, Datum metadata,
		   int version, int *first, int *end)
{
	int			from = event_type_version(metadata);
	int			low = 0;
	int			high = upcasting->count;

	if (from == SCHEMA_VERSION_BAD)
		return false;
	from = Max(from, 1);
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (compare_call(&upcasting->calls[middle], VARDATA_ANY(type),
						 VARSIZE_ANY_EXHDR(type), from) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*first = *end = low;
	while (is_of_type(upcasting, *end, type) &&
		   upcasting->calls[*end].upcaster.from_version < version)
		(*end)++;
	return *end > *first;
}

/* What an error in an upcaster is about. */
typedef struct CallAbout
{
	const Upcaster *upcaster;
	int64		position;
} CallAbout;

/* Says in an error's context which upcaster it was, at which event. */
static void
call_context(void *arg)
{
	CallAbout  *context = arg;

	if (context->position > 0)
		errcontext("upcaster of type \"%s\" from version %d, event at position " INT64_FORMAT,
				   context->upcaster->type, context->upcaster->from_version,
				   context->position);
	else
		errcontext("upcaster of type \"%s\" from version %d, new event",
				   context->upcaster->type, context->upcaster->from_version);
}

/* Finds out as whom the upcaster runs, and where. */
static void
find_owner(Call *call)
{
	call->owner = get_role_oid(call->upcaster.owner, true);
	if (!OidIsValid(call->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", call->upcaster.owner),
				 errdetail("The upcaster %s runs as this role.",
						   call->upcaster.signature),
				 errhint("Define the upcaster anew, by es_define_upcaster().")));
	call->path = psprintf("%s, pg_temp", call->upcaster.search_path);
}

/*
 * Refuses a function that is no upcaster, or that the present user may not
 * execute.
 */
void
upcast_check_function(Oid function)
{
	FunctionSignature form = {
		.result = JSONBOID,
		.arguments = {JSONBOID},
		.count = 1,
		.noun = "upcaster",
		.what = "An upcaster takes data of one schema version and returns that of the next.",
		.declaration = "name(data jsonb) RETURNS jsonb",
		.example = "app.opened_from_1(jsonb)"
	};

	user_function_check(function, &form);
}

/* Finds the function, as its owner. */
static void
find_function(Call *call)
{
	Oid			found = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
															 CStringGetDatum(call->upcaster.signature)));

	upcast_check_function(found);
	fmgr_info(found, &call->function);
	call->found = true;
}

/* Calls the function, as its owner. */
static Datum
call_function(Upcasting *upcasting, Call *call, Datum data)
{
	MemoryContext oldcontext;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 1);

	if (!call->found)
	{
		oldcontext = MemoryContextSwitchTo(upcasting->context);
		find_function(call);
		MemoryContextSwitchTo(oldcontext);
	}
	InitFunctionCallInfoData(*fcinfo, &call->function, 1, InvalidOid, NULL,
							 NULL);
	fcinfo->args[0].value = data;
	fcinfo->args[0].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("upcaster %s returned null", call->upcaster.signature),
				 errdetail("It was given data of type \"%s\" as of version %d.",
						   call->upcaster.type, call->upcaster.from_version),
				 errhint("An upcaster returns data of the next version for whatever it is given.")));
	return result;
}

/* Brings data up by one version. */
static Datum
call_upcaster(Upcasting *upcasting, Call *call, Datum data)
{
	CallAbout	about = {&call->upcaster, upcasting->position};
	ErrorContextCallback context;
	MemoryContext oldcontext;
	RunAs		saved;

	CHECK_FOR_INTERRUPTS();
	check_stack_depth();
	context.callback = call_context;
	context.arg = &about;
	context.previous = error_context_stack;
	error_context_stack = &context;
	if (!OidIsValid(call->owner))
	{
		oldcontext = MemoryContextSwitchTo(upcasting->context);
		find_owner(call);
		MemoryContextSwitchTo(oldcontext);
	}
	saved = run_as(call->owner, true, call->path);
	data = call_function(upcasting, call, data);
	run_as_end(saved);
	error_context_stack = context.previous;
	return data;
}

/*
 * An event's data as of the version, or of the last one that upcasters lead
 * to before it; data itself if there is nothing to do, also if upcasting is
 * NULL.  metadata: 0 for none.
 */
Datum
upcast_data(Upcasting *upcasting, text *type, Datum data, Datum metadata,
			int version)
{
	int			first;
	int			end;

	if (upcasting == NULL ||
		!find_calls(upcasting, type, metadata, version, &first, &end))
		return data;
	while (first < end)
		data = call_upcaster(upcasting, &upcasting->calls[first++], data);
	return data;
}

/* An event's metadata when its data is brought up; itself if that is not so. */
static Datum
upcast_metadata(Upcasting *upcasting, text *type, Datum metadata)
{
	int			first;
	int			end;
	Datum		stamp;

	if (upcasting == NULL ||
		!find_calls(upcasting, type, metadata, PG_INT32_MAX, &first, &end))
		return metadata;
	stamp = DirectFunctionCall1(jsonb_in,
								CStringGetDatum(psprintf("{\"schema_version\": " INT64_FORMAT "}",
														 (int64) upcasting->calls[end - 1].upcaster.from_version + 1)));
	return metadata == (Datum) 0 ? stamp :
		DirectFunctionCall2(jsonb_concat, metadata, stamp);
}

/* The slot for events like this one, empty. */
static TupleTableSlot *
clear_slot(Upcasting *upcasting, TupleTableSlot *event)
{
	MemoryContext oldcontext;

	if (upcasting->slot == NULL)
	{
		oldcontext = MemoryContextSwitchTo(upcasting->context);
		upcasting->slot = MakeSingleTupleTableSlot(event->tts_tupleDescriptor,
												   &TTSOpsVirtual);
		MemoryContextSwitchTo(oldcontext);
	}
	return ExecClearTuple(upcasting->slot);
}

/* A column of an event; 0 for null. */
static Datum
column(TupleTableSlot *event, AttrNumber number)
{
	bool		isnull;
	Datum		value = slot_getattr(event, number, &isnull);

	return isnull ? (Datum) 0 : value;
}

/*
 * The event as of today: itself if there is nothing to do, also if upcasting
 * is NULL; else a slot that is valid until the next call, with values in the
 * present memory context and in event.
 */
TupleTableSlot *
upcast_event(Upcasting *upcasting, TupleTableSlot *event)
{
	text	   *type;
	Datum		metadata;
	TupleTableSlot *result;
	int			first;
	int			end;

	if (upcasting == NULL)
		return event;
	type = DatumGetTextPP(column(event, Anum_es_events_type));
	metadata = column(event, Anum_es_events_metadata);
	if (!find_calls(upcasting, type, metadata, PG_INT32_MAX, &first, &end))
		return event;
	upcasting->position =
		DatumGetInt64(column(event, Anum_es_events_position));
	slot_getallattrs(event);
	result = clear_slot(upcasting, event);
	memcpy(result->tts_values, event->tts_values,
		   sizeof(Datum) * event->tts_tupleDescriptor->natts);
	memcpy(result->tts_isnull, event->tts_isnull,
		   sizeof(bool) * event->tts_tupleDescriptor->natts);
	result->tts_values[Anum_es_events_data - 1] =
		upcast_data(upcasting, type, column(event, Anum_es_events_data),
					metadata, PG_INT32_MAX);
	result->tts_values[Anum_es_events_metadata - 1] =
		upcast_metadata(upcasting, type, metadata);
	result->tts_isnull[Anum_es_events_metadata - 1] = false;
	return ExecStoreVirtualTuple(result);
}

/*
 * The upcasters for a call in a statement, which are looked up once and again
 * when others are defined; NULL if there are none.  Those that were known
 * before may be at work, and are left to the statement's end.
 */
static Upcasting *
kept_upcasting(FunctionCallInfo fcinfo)
{
	Kept	   *kept = fcinfo->flinfo->fn_extra;
	uint64		generation;

	if (kept == NULL)
	{
		kept = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Kept));
		kept->log = log_relid(fcinfo->flinfo->fn_oid);
		fcinfo->flinfo->fn_extra = kept;
	}
	generation = event_type_generation(kept->log);
	if (kept->generation != generation)
	{
		kept->upcasting = make_upcasting(kept->log, fcinfo->flinfo->fn_mcxt);
		kept->generation = generation;
	}
	return kept->upcasting;
}

/* An argument; 0 for null. */
static Datum
argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? (Datum) 0 : PG_GETARG_DATUM(number);
}

/*
 * es_upcast_data(position, type, data, metadata): data as of today.
 */
Datum
es_upcast_data(PG_FUNCTION_ARGS)
{
	Upcasting  *upcasting = kept_upcasting(fcinfo);

	if (PG_ARGISNULL(ARG_DATA))
		PG_RETURN_NULL();
	if (upcasting == NULL || PG_ARGISNULL(ARG_TYPE))
		PG_RETURN_DATUM(PG_GETARG_DATUM(ARG_DATA));
	upcasting->position = PG_ARGISNULL(ARG_POSITION) ? 0 :
		PG_GETARG_INT64(ARG_POSITION);
	PG_RETURN_DATUM(upcast_data(upcasting, PG_GETARG_TEXT_PP(ARG_TYPE),
								PG_GETARG_DATUM(ARG_DATA),
								argument(fcinfo, ARG_METADATA),
								PG_INT32_MAX));
}

/*
 * es_upcast_metadata(position, type, data, metadata): metadata that says of
 * which version es_upcast_data is.
 */
Datum
es_upcast_metadata(PG_FUNCTION_ARGS)
{
	Upcasting  *upcasting = kept_upcasting(fcinfo);
	Datum		metadata = argument(fcinfo, ARG_METADATA);

	if (upcasting != NULL && !PG_ARGISNULL(ARG_TYPE))
		metadata = upcast_metadata(upcasting, PG_GETARG_TEXT_PP(ARG_TYPE),
								   metadata);
	if (metadata == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(metadata);
}

/* The row with data and metadata as of today. */
static HeapTuple
upcast_row(Upcasting *upcasting, HeapTuple row, TupleDesc desc)
{
	int			columns[2] = {Anum_es_events_data, Anum_es_events_metadata};
	Datum		type;
	Datum		position;
	Datum		values[2];
	bool		nulls[2];
	bool		isnull;
	int			first;
	int			end;

	type = heap_getattr(row, Anum_es_events_type, desc, &isnull);
	if (isnull)
		return row;
	values[0] = heap_getattr(row, Anum_es_events_data, desc, &nulls[0]);
	values[1] = heap_getattr(row, Anum_es_events_metadata, desc, &nulls[1]);
	if (nulls[1])
		values[1] = (Datum) 0;
	if (nulls[0] || !find_calls(upcasting, DatumGetTextPP(type), values[1],
								PG_INT32_MAX, &first, &end))
		return row;
	position = heap_getattr(row, Anum_es_events_position, desc, &isnull);
	upcasting->position = isnull ? 0 : DatumGetInt64(position);
	values[0] = upcast_data(upcasting, DatumGetTextPP(type), values[0],
							values[1], PG_INT32_MAX);
	values[1] = upcast_metadata(upcasting, DatumGetTextPP(type), values[1]);
	nulls[1] = false;
	return heap_modify_tuple_by_cols(row, desc, 2, columns, values, nulls);
}

/*
 * es_upcast(event es_events) returns es_events: the event as of today.
 */
Datum
es_upcast(PG_FUNCTION_ARGS)
{
	Upcasting  *upcasting = kept_upcasting(fcinfo);
	HeapTupleHeader event;
	HeapTupleData row;
	HeapTuple	result;
	TupleDesc	desc;

	if (upcasting == NULL)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	event = PG_GETARG_HEAPTUPLEHEADER(0);
	memset(&row, 0, sizeof(row));
	row.t_len = HeapTupleHeaderGetDatumLength(event);
	row.t_data = event;
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(event),
								  HeapTupleHeaderGetTypMod(event));
	result = upcast_row(upcasting, &row, desc);
	ReleaseTupleDesc(desc);
	if (result == &row)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	PG_RETURN_HEAPTUPLEHEADER(result->t_data);
}

/* The argument that a call returns while no upcaster is defined. */
static Node *
returned_argument(FuncExpr *call)
{
	const char *name = get_func_name(call->funcid);

	if (list_length(call->args) == 1)
		return linitial(call->args);
	if (list_length(call->args) != ARG_METADATA + 1)
		return NULL;
	return list_nth(call->args, strcmp(name, "es_upcast_data") == 0 ?
					ARG_DATA : ARG_METADATA);
}

/*
 * Lets the planner drop calls while no upcaster is defined.  The plan is made
 * again with es_events when one is.
 */
Datum
es_upcast_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestSimplify *simplify;
	Oid			log;
	int			count;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	simplify = (SupportRequestSimplify *) request;
	log = log_relid(simplify->fcall->funcid);
	AcceptInvalidationMessages();
	(void) event_type_upcasters(log, &count);
	if (count > 0)
		PG_RETURN_POINTER(NULL);
	if (simplify->root != NULL)
		simplify->root->glob->relationOids =
			list_append_unique_oid(simplify->root->glob->relationOids, log);
	PG_RETURN_POINTER(returned_argument(simplify->fcall));
}
