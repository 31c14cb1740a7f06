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
#include "utils/typcache.h"

#include "base/base.h"
#include "log/log.h"
#include "type/type.h"

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
};

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

/*
 * Makes an Upcasting of the upcasters that the session knows, in the context;
 * NULL if there are none.
 */
Upcasting *
upcast_make(Oid log, MemoryContext parent)
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
	return upcast_make(log, CurrentMemoryContext);
}

/*
 * Ends it; NULL is possible.
 */
void
upcast_end(Upcasting *upcasting)
{
	if (upcasting != NULL)
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
 * Finds the upcaster that an es_function or a stored signature names.  Errors: it
 * names none that the user may execute.
 */
Oid
upcast_find_function(const char *name)
{
	FunctionSignature signature = {
		.result = JSONBOID,
		.arguments = {JSONBOID},
		.count = 1,
		.noun = "upcaster",
		.what = "An upcaster takes data of one schema version and returns that of the next.",
		.declaration = "name(data jsonb) RETURNS jsonb",
		.example = "app.opened_from_1"
	};

	return user_function_find(name, &signature);
}

/* Finds the function, as its owner. */
static void
find_function(Call *call)
{
	fmgr_info(upcast_find_function(call->upcaster.signature), &call->function);
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
call_upcaster(Upcasting *upcasting, Call *call, int64 position, Datum data)
{
	CallAbout	about = {&call->upcaster, position};
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
 * Returns true if upcast_data and upcast_metadata would change the event.
 */
bool
upcast_is_due(const Upcasting *upcasting, text *type, Datum metadata)
{
	int			first;
	int			end;

	return find_calls(upcasting, type, metadata, PG_INT32_MAX, &first, &end);
}

/*
 * An event's data as of the version, or of the last one that upcasters lead
 * to before it; data itself if there is nothing to do, also if upcasting is
 * NULL.  metadata: 0 for none.
 */
Datum
upcast_data(Upcasting *upcasting, int64 position, text *type, Datum data,
			Datum metadata, int version)
{
	int			first;
	int			end;

	if (upcasting == NULL ||
		!find_calls(upcasting, type, metadata, version, &first, &end))
		return data;
	while (first < end)
		data = call_upcaster(upcasting, &upcasting->calls[first++], position,
							 data);
	return data;
}

/*
 * An event's metadata when its data is upcast; itself if there is nothing to
 * do, also if upcasting is NULL.  metadata: 0 for none.
 */
Datum
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
