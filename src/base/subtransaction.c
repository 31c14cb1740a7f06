/*-------------------------------------------------------------------------
 *
 * subtransaction.c
 *		Doing something that may fail, in a subtransaction.
 *
 * If it fails, what it wrote is undone, and the caller decides what follows; so
 * it is if it says itself that it was in vain.  Its locks are gone then, too.
 * A cancel or a shutdown is not for him to decide about, and is raised again.
 *
 * A tuplestore that outlives the attempt must be made before it: its files
 * belong to the subtransaction that it was made in.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/base.h"

/*
 * Is it a request to this session, and not an error of what was attempted?
 * That may raise the same code by itself.
 */
static bool
is_request(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/*
 * Does the work, which returns whether what it wrote is to stay.  Returns the
 * error that it ended with, in the present memory context; NULL if there was
 * none.
 */
ErrorData *
subtransaction_try(bool (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (work(arg))
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && is_request(error))
		ReThrowError(error);
	return error;
}
