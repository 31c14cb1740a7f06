/*-------------------------------------------------------------------------
 *
 * upcast.c
 *		Upcasts events of earlier schema versions (design: doc/internals/event_type.md).
 *
 * An event is of the version that its metadata says, of the first if it says
 * none.  The upcasters of its type from that version on are called one after
 * another; the result has the version that the last of them leads to, so that an
 * event can be upcast again without harm.  Metadata with a schema_version that is
 * no version leaves an event as it is.
 *
 * Where the type is defined for the category of the event's stream, only the
 * upcasters of that category are called, else only those of no category.
 *
 * An upcaster runs as the role that defined it, with the search_path and the settings
 * of its definition (setting.c).  Upcasters are copied and looked up once for a statement or a
 * batch (Upcasting), since they may themselves change what is defined.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "base/context.h"
#include "base/role.h"
#include "type/type.h"
#include "type/upcast.h"

/* An upcaster that is called. */
typedef struct UpcasterCall
{
	Upcaster	upcaster;
	Oid			owner;			/* 0: not looked up so far */
	char	   *path;
	bool		found;			/* is the function looked up? */
	FmgrInfo	function;
} UpcasterCall;

/* A type that is defined for one category. */
typedef struct Scope
{
	char	   *type;
	char	   *category;
} Scope;

struct Upcasting
{
	MemoryContext context;		/* of all of it */
	Oid			log;
	UpcasterCall *calls;		/* by type, category and from_version */
	int			count;
	Scope	   *scopes;			/* by type and category */
	int			scope_count;
};

/* Copies an upcaster into the current memory context. */
static void
copy_upcaster(Upcaster *copy, const Upcaster *upcaster)
{
	copy->type = pstrdup(upcaster->type);
	copy->category = upcaster->category ? pstrdup(upcaster->category) : NULL;
	copy->from_version = upcaster->from_version;
	copy->signature = pstrdup(upcaster->signature);
	copy->owner = upcaster->owner;
	copy->search_path = pstrdup(upcaster->search_path);
	copy->settings = upcaster->settings;
}

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

/* Copies which types are defined for one category. */
static void
copy_scopes(Upcasting *upcasting, Oid log)
{
	int			count;
	const EventType *types = event_type_all(log, &count);
	int			i;

	upcasting->scopes = palloc(sizeof(Scope) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		if (types[i].category == NULL)
			continue;
		upcasting->scopes[upcasting->scope_count].type = pstrdup(types[i].type);
		upcasting->scopes[upcasting->scope_count++].category = pstrdup(types[i].category);
	}
}

Upcasting *
upcast_begin(Oid log)
{
	int			count;
	const Upcaster *upcasters;
	MemoryContext oldcontext;
	Upcasting  *upcasting;
	int			i;

	AcceptInvalidationMessages();
	upcasters = event_type_upcasters(log, &count);
	if (count == 0)
		return NULL;
	oldcontext = MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext,
															 "eventstore upcasting",
															 ALLOCSET_SMALL_SIZES));
	upcasting = palloc0(sizeof(Upcasting));
	upcasting->context = CurrentMemoryContext;
	upcasting->log = log;
	upcasting->calls = palloc0(sizeof(UpcasterCall) * count);
	upcasting->count = count;
	for (i = 0; i < count; i++)
		copy_upcaster(&upcasting->calls[i].upcaster, &upcasters[i]);
	copy_scopes(upcasting, log);
	MemoryContextSwitchTo(oldcontext);
	return upcasting;
}

void
upcast_end(Upcasting *upcasting)
{
	if (upcasting != NULL)
		MemoryContextDelete(upcasting->context);
}

/* Compares a name with one of so many bytes. */
static int
compare_name(const char *name, const char *bytes, int length)
{
	int			result = strncmp(name, bytes, length);

	return result == 0 && name[length] != '\0' ? 1 : result;
}

/* What is looked for among the calls. */
typedef struct CallKey
{
	const char *type;
	int			type_length;
	const char *category;		/* NULL: none */
	int			category_length;
} CallKey;

/* Compares the type and the category of a call, or of a scope, with the key. */
static int
compare_key(const char *type, const char *category, const CallKey *key)
{
	int			result = compare_name(type, key->type, key->type_length);

	if (result != 0)
		return result;
	if (category == NULL || key->category == NULL)
		return (category != NULL) - (key->category != NULL);
	return compare_name(category, key->category, key->category_length);
}

/* Returns true if the type is defined for the category of the key. */
static bool
is_scope(const Upcasting *upcasting, const CallKey *key)
{
	int			low = 0;
	int			high = upcasting->scope_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const Scope *scope = &upcasting->scopes[middle];
		int			result = compare_key(scope->type, scope->category, key);

		if (result == 0)
			return true;
		if (result < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* Makes the key of the calls that an event of the stream and type is given to. */
static CallKey
call_key(const Upcasting *upcasting, text *stream, text *type)
{
	CallKey		key = {.type = VARDATA_ANY(type),.type_length = VARSIZE_ANY_EXHDR(type)};

	if (upcasting->scope_count == 0 || stream == NULL)
		return key;
	key.category = VARDATA_ANY(stream);
	key.category_length = stream_category_length(stream);
	if (!is_scope(upcasting, &key))
		key.category = NULL;
	return key;
}

/* Returns the number of the first call of the key from the version on, or after it. */
static int
find_first_call(const Upcasting *upcasting, const CallKey *key, int version)
{
	int			low = 0;
	int			high = upcasting->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const Upcaster *upcaster = &upcasting->calls[middle].upcaster;
		int			result = compare_key(upcaster->type, upcaster->category, key);

		if (result < 0 || (result == 0 && upcaster->from_version < version))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Returns true if there is a call of this number, and it is one of the key's. */
static bool
is_call_of_key(const Upcasting *upcasting, int number, const CallKey *key)
{
	const Upcaster *upcaster;

	if (number >= upcasting->count)
		return false;
	upcaster = &upcasting->calls[number].upcaster;
	return compare_key(upcaster->type, upcaster->category, key) == 0;
}

/*
 * Finds the calls that lead an event to the version, or as far as there are
 * some: *first and those after it, before *end.  Returns false if there are
 * none.
 */
static bool
find_calls(const Upcasting *upcasting, text *stream, text *type, Datum metadata,
		   int version, int *first, int *end)
{
	int			from = schema_version_read(metadata);
	CallKey		key;

	if (from == SCHEMA_VERSION_BAD)
		return false;
	key = call_key(upcasting, stream, type);
	*first = *end = find_first_call(upcasting, &key, Max(from, 1));
	while (is_call_of_key(upcasting, *end, &key) &&
		   upcasting->calls[*end].upcaster.from_version < version)
		(*end)++;
	return *end > *first;
}

/* The call that an error is raised in. */
typedef struct CallAbout
{
	Oid			log;
	const Upcaster *upcaster;
	int64		position;
} CallAbout;

/* Names the upcaster and the event in the context of an error. */
static void
upcaster_error_context(void *arg)
{
	CallAbout  *context = arg;

	if (context->position > 0)
		errcontext("upcaster of type \"%s\" from version %d, event at position " INT64_FORMAT,
				   context->upcaster->type, context->upcaster->from_version,
				   context->position);
	else
		errcontext("upcaster of type \"%s\" from version %d, new event",
				   context->upcaster->type, context->upcaster->from_version);
	run_as_path_context(context->log, context->upcaster->search_path);
}

/* Looks up the role that the upcaster runs as. */
static void
look_up_upcaster_owner(Oid log, UpcasterCall *call)
{
	call->owner = role_find(&call->upcaster.owner);
	if (!OidIsValid(call->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist",
						NameStr(call->upcaster.owner.name)),
				 errdetail("The upcaster %s runs as this role. %s",
						   call->upcaster.signature,
						   role_missing_detail(&call->upcaster.owner)),
				 errhint("Define the upcaster again, by es_define_upcaster().")));
	call->path = psprintf("%s, pg_temp",
						  run_as_kept_path(log, call->upcaster.search_path));
}

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

/* Looks up the function, as the owner. */
static void
look_up_upcaster(UpcasterCall *call)
{
	fmgr_info(upcast_find_function(call->upcaster.signature), &call->function);
	call->found = true;
}

/* Calls the function, as the owner. */
static Datum
call_upcaster_function(Upcasting *upcasting, UpcasterCall *call, Datum data)
{
	MemoryContext oldcontext;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 1);

	if (!call->found)
	{
		oldcontext = MemoryContextSwitchTo(upcasting->context);
		look_up_upcaster(call);
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
				 errdetail("Its argument was data of type \"%s\" of version %d.",
						   call->upcaster.type, call->upcaster.from_version),
				 errhint("An upcaster must return data of the next version for all data.")));
	return result;
}

/* Upcasts data by one version. */
static Datum
call_upcaster(Upcasting *upcasting, UpcasterCall *call, int64 position, Datum data)
{
	CallAbout	about = {upcasting->log, &call->upcaster, position};
	ErrorContextCallback context;
	MemoryContext oldcontext;
	RunAs		saved;

	CHECK_FOR_INTERRUPTS();
	check_stack_depth();
	context_push(&context, upcaster_error_context, &about);
	if (!OidIsValid(call->owner))
	{
		oldcontext = MemoryContextSwitchTo(upcasting->context);
		look_up_upcaster_owner(upcasting->log, call);
		MemoryContextSwitchTo(oldcontext);
	}
	saved = run_as(call->owner, true, call->path);
	settings_apply(call->upcaster.settings);
	data = call_upcaster_function(upcasting, call, data);
	run_as_end(saved);
	context_pop(&context);
	return data;
}

int
upcast_version(const Upcasting *upcasting, text *stream, text *type,
			   Datum metadata)
{
	int			first;
	int			end;

	if (upcasting == NULL ||
		!find_calls(upcasting, stream, type, metadata, PG_INT32_MAX, &first, &end))
		return 0;
	return upcasting->calls[end - 1].upcaster.from_version + 1;
}

Datum
upcast_data(Upcasting *upcasting, int64 position, text *stream, text *type,
			Datum data, Datum metadata, int version)
{
	int			first;
	int			end;

	if (upcasting == NULL ||
		!find_calls(upcasting, stream, type, metadata, version, &first, &end))
		return data;
	while (first < end)
		data = call_upcaster(upcasting, &upcasting->calls[first++], position,
							 data);
	return data;
}

Datum
upcast_metadata(Upcasting *upcasting, text *stream, text *type, Datum metadata)
{
	int			version = upcast_version(upcasting, stream, type, metadata);

	return version == 0 ? metadata :
		schema_version_add(metadata, schema_version_metadata(version));
}
