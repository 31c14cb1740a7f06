/*-------------------------------------------------------------------------
 *
 * subtransaction.c
 *		Doing something that may fail, in a subtransaction.
 *
 * If the work fails, or asks for it, what it wrote is undone, its locks are
 * released, and the caller goes on.  A cancel or a shutdown is raised again, as the
 * caller must not go on then.
 *
 * A tuplestore that outlives the work must be made before it, since its files belong
 * to the subtransaction that it was made in.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/base.h"

/*
 * Returns true if the error is a cancel or a shutdown of this session.  The work may
 * raise the same code by itself.
 */
static bool
is_interrupt(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/*
 * Does the work, and rolls it back if it fails or returns false.
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
		bool		done = work(arg);

		/*
		 * The server cancels by a signal and a flag that says which timeout
		 * it was.  The next wait takes the flag back, and would leave a
		 * cancel by the user.  So a timeout that came at the moment in which
		 * a wait ended is raised here.
		 */
		CHECK_FOR_INTERRUPTS();
		if (done)
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
	if (error != NULL && is_interrupt(error))
		ReThrowError(error);
	return error;
}
