/*-------------------------------------------------------------------------
 *
 * user_function.c
 *		Functions of users that are called from here: reducers, deciders,
 *		handlers, upcasters.
 *
 * A function is checked when it is named, and again whenever it is looked up,
 * since another one may have taken its name, with the same arguments and
 * another result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/base.h"

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
	if (!compat_may_execute(function, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s",
						format_procedure(function)),
				 errdetail("User \"%s\" runs it as %s %s.",
						   GetUserNameFromId(GetUserId(), false),
						   signature_article(signature),
						   signature_noun(signature))));
}
