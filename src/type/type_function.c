/*-------------------------------------------------------------------------
 *
 * type_function.c
 *		Functions of a schema, one for each type of events: their names are a
 *		prefix and the type.  Each is looked up once, when it is first needed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "eventstore.h"
#include "base/base.h"
#include "type/type.h"

struct TypeFunctions
{
	const char *schema;
	const char *prefix;
	FunctionSignature signature;	/* of each of them */
	MemoryContext context;		/* of the functions */
	HTAB	   *functions;
};

TypeFunctions *
type_functions_make(const char *schema, const char *prefix,
					const FunctionSignature *signature)
{
	HASHCTL		control = {
		.keysize = ES_MAX_TYPE_LENGTH + 1,
		.entrysize = sizeof(TypeFunction),
		.hcxt = CurrentMemoryContext
	};
	TypeFunctions *by_type = palloc(sizeof(TypeFunctions));

	/* a schema that is gone is not one without functions */
	(void) get_namespace_oid(schema, false);
	by_type->schema = schema;
	by_type->prefix = prefix;
	by_type->signature = *signature;
	by_type->context = CurrentMemoryContext;
	by_type->functions = hash_create("eventstore functions by type", 32,
									 &control,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	return by_type;
}

/* Looks up the function for one type. */
static void
look_up_type_function(const TypeFunctions *by_type, const char *type, TypeFunction *result)
{
	char	   *name = psprintf("%s%s", by_type->prefix, type);

	memset(result, 0, sizeof(TypeFunction));
	strlcpy(result->type, type, sizeof(result->type));
	if (strlen(name) < NAMEDATALEN)
		result->function =
			LookupFuncName(list_make2(makeString(pstrdup(by_type->schema)),
									  makeString(name)),
						   by_type->signature.count,
						   by_type->signature.arguments, true);
	if (!OidIsValid(result->function))
		return;
	user_function_check(result->function, &by_type->signature);
	fmgr_info(result->function, &result->info);
}

/* Looks up the function for one type, and caches it if there is no error. */
static TypeFunction *
cache_type_function(TypeFunctions *by_type, const char *type)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(by_type->context);
	TypeFunction found;
	TypeFunction *entry;

	look_up_type_function(by_type, type, &found);
	entry = hash_search(by_type->functions, type, HASH_ENTER, NULL);
	*entry = found;
	MemoryContextSwitchTo(oldcontext);
	return entry;
}

TypeFunction *
type_functions_find(TypeFunctions *by_type, text *type)
{
	char	   *name = text_to_cstring(type);
	TypeFunction *entry = hash_search(by_type->functions, name, HASH_FIND,
									  NULL);

	if (entry == NULL)
		entry = cache_type_function(by_type, name);
	pfree(name);
	return OidIsValid(entry->function) ? entry : NULL;
}
