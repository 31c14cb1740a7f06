/*-------------------------------------------------------------------------
 *
 * retention_lock.c
 *		Locks between steps of retention and what changes who reads the log.
 *
 * A step looks up the checkpoints of all consumers, and then removes what they have read.
 * A consumer that appears in between, or goes back, would have events removed between two
 * of its batches: it would get the first events of a stream and the last ones, and none of
 * those in the middle.  So steps have a lock, one at a time, and the functions that make a
 * consumer or move its checkpoint back have it, too, as sharers, to the end of their
 * transactions.
 *
 * A rebuild may take hours, and has locks of its own that steps look for.  It waits for
 * the step that may have begun before it had them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/wait.h"
#include "retention/rule.h"

/* Class of the advisory lock, which users cannot reach. */
#define RETENTION_LOCK_CLASS	8

static void
retention_lock_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, RETENTION_LOCK_CLASS);
}

/* Waits for the lock, to the end of the transaction. */
static void
take_retention_lock(LOCKMODE mode)
{
	LOCKTAG		tag;
	WaitContext context;

	retention_lock_tag(&tag);
	wait_context_begin(&context, "the rules of", "retention", -1);
	(void) LockAcquire(&tag, mode, false, false);
	wait_context_end(&context);
}

bool
retention_try_lock(void)
{
	LOCKTAG		tag;

	retention_lock_tag(&tag);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
retention_lock(void)
{
	take_retention_lock(ExclusiveLock);
}

void
retention_keep_out(void)
{
	take_retention_lock(ShareLock);
}

void
retention_await_step(void)
{
	LOCKTAG		tag;

	take_retention_lock(ShareLock);
	retention_lock_tag(&tag);
	(void) LockRelease(&tag, ShareLock, false);
}

/* Sets the tag of an advisory lock of the projection's rebuild. */
void
rebuild_lock_tag(LOCKTAG *tag, const char *name, uint32 number, int class)
{
	uint32		hash = DatumGetUInt32(DirectFunctionCall1Coll(hashtext,
															  C_COLLATION_OID,
															  CStringGetTextDatum(name)));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, hash, number, class);
}

bool
rebuild_is_going_on(const char *name)
{
	LOCKTAG		tag;
	int			count;

	rebuild_lock_tag(&tag, name, 0, REBUILD_LOCK_CLASS);
	pfree(GetLockConflicts(&tag, ShareLock, &count));
	return count > 0;
}
