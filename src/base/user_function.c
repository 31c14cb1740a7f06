/*-------------------------------------------------------------------------
 *
 * user_function.c
 *		Functions of users that the extension calls, which are reducers,
 *		deciders, handlers and upcasters; and the type es_function, by which
 *		arguments name them.
 *
 * An es_function is a text: a name, a name with argument types, or an oid in
 * digits, as regprocedure takes it.  It is resolved by the function that gets
 * it, which alone knows the needed signature.  A name without argument types
 * finds the function that has the needed ones, so it is never ambiguous.
 *
 * oid, regproc and regprocedure are cast to digits, which the planner does once.
 * So calls with them cost no look-up of a name.  Output shows the signature in
 * place of the digits, which mean nothing in another database.
 *
 * A function is checked when it is named, and again whenever it is looked up,
 * since another one may have taken its name, with the same arguments and
 * another result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/context.h"

PG_FUNCTION_INFO_V1(es_function_out);
PG_FUNCTION_INFO_V1(es_function_send);
PG_FUNCTION_INFO_V1(es_function_from_oid);

/* How many functions of a name an error lists. */
#define MAX_LISTED	10

/* Above any name with its argument types; the server's parser is quadratic. */
#define MAX_NAME_LENGTH	2048

/* What a function of the signature is called. */
static const char *
signature_noun(const FunctionSignature *signature)
{
	return signature->noun != NULL ? signature->noun : "handler";
}

/* The article of that. */
static const char *
signature_article(const FunctionSignature *signature)
{
	return strchr("aeiou", signature_noun(signature)[0]) != NULL ? "an" : "a";
}

/*
 * Returns true if the function has the signature.  Errors: it does not exist.
 */
static bool
has_signature(Oid function, const FunctionSignature *signature)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("the %s does not exist", signature_noun(signature)),
				 errdetail("There is no function with oid %u.", function),
				 errhint("Name an existing function, such as '%s'.",
						 signature->example)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	result = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		proc->prorettype == signature->result &&
		proc->pronargs == signature->count &&
		memcmp(proc->proargtypes.values, signature->arguments,
			   sizeof(Oid) * signature->count) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Checks the signature, then the right to execute it.
 */
void
user_function_check(Oid function, const FunctionSignature *signature)
{
	if (!has_signature(function, signature))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be %s %s",
						format_procedure(function),
						signature_article(signature), signature_noun(signature)),
				 errdetail("%s", signature->what),
				 errhint("Declare it as FUNCTION %s.",
						 signature->declaration)));
	if (compat_check_acl(ProcedureRelationId, function, GetUserId(),
						 ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s",
						format_procedure(function)),
				 errdetail("User \"%s\" runs it as %s %s.",
						   GetUserNameFromId(GetUserId(), false),
						   signature_article(signature),
						   signature_noun(signature))));
}

/* Refuses a name that is too long for any function. */
static void
check_name_length(const char *name, const FunctionSignature *signature)
{
	size_t		length = strlen(name);

	if (length > MAX_NAME_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of %s %s is too long",
						signature_article(signature),
						signature_noun(signature)),
				 errdetail("It has %zu bytes, the limit is %d.", length,
						   MAX_NAME_LENGTH),
				 errhint("Name a function, such as '%s'.", signature->example)));
}

/* Returns true if the name is an oid in digits. */
static bool
is_oid(const char *name)
{
	return name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
}

/* Returns true if argument types follow the name, which may be quoted. */
static bool
has_argument_types(const char *name)
{
	bool		quoted = false;

	for (; *name != '\0'; name++)
	{
		if (*name == '"')
			quoted = !quoted;
		else if (*name == '(' && !quoted)
			return true;
	}
	return false;
}

/* Takes a name apart at its dots, as a list of String nodes. */
static List *
split_name(const char *name, const FunctionSignature *signature)
{
	List	   *parts;
	List	   *result = NIL;
	ListCell   *cell;

	if (!SplitIdentifierString(pstrdup(name), '.', &parts) || parts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of %s %s: \"%s\"",
						signature_article(signature),
						signature_noun(signature), name),
				 errdetail("A name is an identifier, or a schema, a dot and an identifier. Double quotes enclose an identifier with upper case or special characters."),
				 errhint("Name a function, such as '%s'.", signature->example)));
	foreach(cell, parts)
		result = lappend(result, makeString(lfirst(cell)));
	return result;
}

/* Refuses a name that no function has. */
static void
fail_no_function(const char *name, const List *parts,
				 const FunctionSignature *signature)
{
	int			count = list_length(parts);
	const char *schema = count > 1 ? strVal(list_nth(parts, count - 2)) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("function \"%s\" does not exist", name),
			 schema != NULL && !OidIsValid(get_namespace_oid(schema, true)) ?
			 errdetail("Schema \"%s\" does not exist.", schema) :
			 schema != NULL ?
			 errdetail("Schema \"%s\" has no function of this name.", schema) :
			 errdetail("There is no function of this name in the search_path, which is %s.",
					   namespace_search_path),
			 errhint("Name an existing function, such as '%s', declared as FUNCTION %s.",
					 signature->example, signature->declaration)));
}

/* Refuses a name that several functions have, but none with the arguments. */
static void
fail_no_overload(const char *name, FuncCandidateList candidates,
				 const FunctionSignature *signature)
{
	StringInfoData list;
	int			count;

	initStringInfo(&list);
	for (count = 0; candidates != NULL && count < MAX_LISTED; count++)
	{
		appendStringInfo(&list, "%s%s", count > 0 ? ", " : "",
						 format_procedure(candidates->oid));
		candidates = candidates->next;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
			 errmsg("no function \"%s\" can be %s %s", name,
					signature_article(signature), signature_noun(signature)),
			 errdetail("%s Functions of this name: %s%s.", signature->what,
					   list.data, candidates != NULL ? ", ..." : ""),
			 errhint("Declare it as FUNCTION %s.", signature->declaration)));
}

/*
 * Adds the needed signature to an error that the server raises, unless the name
 * is not the cause.
 */
static void
signature_context(void *arg)
{
	const FunctionSignature *signature = arg;
	int			code = geterrcode();

	if (code == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		ERRCODE_TO_CATEGORY(code) == ERRCODE_OPERATOR_INTERVENTION)
		return;
	errdetail("%s", signature->what);
	errhint("Name an existing function, such as '%s', declared as FUNCTION %s.",
			signature->example, signature->declaration);
}

/* Until the context is taken off again, errors say the needed signature. */
static void
begin_lookup(ErrorContextCallback *context, const FunctionSignature *signature)
{
	context_push(context, signature_context,
				 unconstify(FunctionSignature *, signature));
}

/*
 * Finds the function of the name that has the arguments of the signature.  Where
 * there is one function of the name, it is returned in any case, so that the
 * check says what is wrong with it.
 */
static Oid
find_by_name(const char *name, const FunctionSignature *signature)
{
	List	   *parts = split_name(name, signature);
	FuncCandidateList candidates;
	FuncCandidateList each;
	ErrorContextCallback context;

	begin_lookup(&context, signature);
	candidates = FuncnameGetCandidates(parts, -1, NIL, false, false, false,
									   true);
	context_pop(&context);

	if (candidates == NULL)
		fail_no_function(name, parts, signature);
	if (candidates->next == NULL)
		return candidates->oid;
	for (each = candidates; each != NULL; each = each->next)
	{
		if (each->nargs == signature->count &&
			memcmp(each->args, signature->arguments,
				   sizeof(Oid) * signature->count) == 0)
			return each->oid;
	}
	fail_no_overload(name, candidates, signature);
	return InvalidOid;			/* not reached */
}

/* Finds the function with the name and the argument types, or with the oid. */
static Oid
find_by_signature(const char *name, const FunctionSignature *signature)
{
	ErrorContextCallback context;
	Oid			found;

	begin_lookup(&context, signature);
	found = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
												 CStringGetDatum(name)));
	context_pop(&context);
	return found;
}

/*
 * Resolves the name along the current search_path.
 */
Oid
user_function_find(const char *name, const FunctionSignature *signature)
{
	Oid			found;

	check_name_length(name, signature);
	found = is_oid(name) || has_argument_types(name) ?
		find_by_signature(name, signature) : find_by_name(name, signature);
	user_function_check(found, signature);
	return found;
}

/*
 * The name alone serves where the arguments are known: one with argument types
 * would be wrong once the schema of such a type is renamed.
 */
char *
user_function_name(Oid function)
{
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
									  get_func_name(function));
}

/* Returns the text of an es_function as a user sees it. */
static char *
visible_name(text *function)
{
	char	   *name = text_to_cstring(function);

	if (!is_oid(name))
		return name;
	return DatumGetCString(DirectFunctionCall1(regprocedureout,
											   DirectFunctionCall1(oidin,
																   CStringGetDatum(name))));
}

Datum
es_function_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(visible_name(PG_GETARG_TEXT_PP(0)));
}

Datum
es_function_send(PG_FUNCTION_ARGS)
{
	char	   *name = visible_name(PG_GETARG_TEXT_PP(0));

	return DirectFunctionCall1(textsend, CStringGetTextDatum(name));
}

/*
 * Casts oid, regproc and regprocedure.
 */
Datum
es_function_from_oid(PG_FUNCTION_ARGS)
{
	char		digits[12];

	snprintf(digits, sizeof(digits), "%u", PG_GETARG_OID(0));
	PG_RETURN_TEXT_P(cstring_to_text(digits));
}
