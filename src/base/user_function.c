/*-------------------------------------------------------------------------
 *
 * user_function.c
 *		What functions of users must be like that are called from here:
 *		handlers, upcasters.
 *
 * A function is checked when it is named, and again whenever it is looked up:
 * another one may have come under its name, with the same arguments and
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

/* What a function of the form is called. */
static const char *
noun_of(const FunctionSignature *form)
{
	return form->noun != NULL ? form->noun : "handler";
}

/* The article of that. */
static const char *
article_of(const FunctionSignature *form)
{
	return strchr("aeiou", noun_of(form)[0]) != NULL ? "an" : "a";
}

/* Has the function the form?  It must be there. */
static bool
fits(Oid function, const FunctionSignature *form)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("the %s does not exist", noun_of(form)),
				 errdetail("There is no function with oid %u.", function),
				 errhint("Give a function that is there, such as '%s'.",
						 form->example)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	result = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		proc->prorettype == form->result && proc->pronargs == form->count &&
		memcmp(proc->proargtypes.values, form->arguments,
			   sizeof(Oid) * form->count) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Refuses a function that has not the form, or that the present user may not
 * execute.
 */
void
user_function_check(Oid function, const FunctionSignature *form)
{
	if (!fits(function, form))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be %s %s",
						format_procedure(function), article_of(form),
						noun_of(form)),
				 errdetail("%s", form->what),
				 errhint("Declare it as FUNCTION %s.", form->declaration)));
	if (!compat_may_execute(function, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s",
						format_procedure(function)),
				 errdetail("User \"%s\" runs it as %s %s.",
						   GetUserNameFromId(GetUserId(), false),
						   article_of(form), noun_of(form))));
}
