/*-------------------------------------------------------------------------
 *
 * log_closed.c
 *		Stores that are closed, because additions to their tables are still to be
 *		restored; and sessions that restore (doc/internals/copies.md).
 *
 * A store is closed if es_events has the policy es_closed.  The relation cache has the
 * policies, and its field relrowsecurity is false for an ordinary store, so that an
 * append pays nothing for the look.
 *
 * A session that restores is one that has row_security = off, as pg_dump writes it into
 * its scripts, and loads rows of the store.  It takes a lock of the session, which those
 * that restore share.  The lock is in a class of the advisory locks that users cannot
 * reach; the server releases it when the session ends, which is when its part of the
 * restore is over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "rewrite/rowsecurity.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "base/compat.h"
#include "log/closed.h"

PG_FUNCTION_INFO_V1(es_closed);

/* The class; log_lock.c, rebuild.c and worker_lock.c have the other ones. */
#define RESTORE_LOCK_CLASS	7

static void
fail_closed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the event store is closed until its restore is finished"),
			 errdetail("What the dumped database had added to its tables, such as row security, is not restored yet."),
			 errhint("Let the owner of es_events run SELECT * FROM es_finish_restore(); its rows show what is missing.")));
}

/*
 * Returns true if the store is closed.
 */
bool
log_is_closed(Relation log)
{
	ListCell   *cell;

	if (!log->rd_rel->relrowsecurity || log->rd_rsdesc == NULL)
		return false;
	foreach(cell, log->rd_rsdesc->policies)
	{
		if (strcmp(((RowSecurityPolicy *) lfirst(cell))->policy_name,
				   CLOSED_POLICY) == 0)
			return true;
	}
	return false;
}

/* Refuses to go on if it is. */
void
log_check_open(Relation log)
{
	if (log_is_closed(log))
		fail_closed();
}

/*
 * The same for a caller that has not opened es_events and may sleep: no lock stays.
 */
bool
log_relid_is_closed(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	bool		closed = log_is_closed(log);

	table_close(log, AccessShareLock);
	return closed;
}

void
log_check_relid_open(Oid relid)
{
	if (log_relid_is_closed(relid))
		fail_closed();
}

/*
 * es_closed(): the expression of the policy.
 */
Datum
es_closed(PG_FUNCTION_ARGS)
{
	fail_closed();
	PG_RETURN_BOOL(false);
}

static LOCKTAG
restore_lock_tag(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, RESTORE_LOCK_CLASS);
	return tag;
}

/* Returns true if the session has the settings of a script of pg_dump. */
bool
log_restore_has_settings(void)
{
	return !row_security;
}

/*
 * Lets projections wait for the end of this session, if it restores.
 */
void
log_restore_begin(void)
{
	LOCKTAG		tag = restore_lock_tag();

	if (log_restore_has_settings() && !compat_lock_is_held(&tag, ShareLock))
		(void) compat_try_session_lock(&tag, ShareLock);
}

/* Lets them go on: nothing more will be loaded. */
void
log_restore_end(void)
{
	LOCKTAG		tag = restore_lock_tag();

	if (compat_lock_is_held(&tag, ShareLock))
		(void) LockRelease(&tag, ShareLock, true);
}

/*
 * Returns true if the rows of read models may still be missing: the store is closed, or
 * another session restores.
 */
bool
log_restore_is_going_on(Oid relid)
{
	LOCKTAG		tag = restore_lock_tag();

	return LockWaiterCount(&tag) > (compat_lock_is_held(&tag, ShareLock) ? 1 : 0) ||
		log_relid_is_closed(relid);
}

/*
 * Waits for the sessions that restore, and refuses to go on if the store is closed.
 */
void
log_restore_wait(Oid relid)
{
	LOCKTAG		tag = restore_lock_tag();

	log_check_relid_open(relid);
	if (LockWaiterCount(&tag) == 0 || compat_lock_is_held(&tag, ShareLock))
		return;
	ereport(NOTICE,
			(errmsg("waiting for a session that restores the store"),
			 errdetail("It has stored events with row_security off, as a script of pg_dump does, and may store rows of read models yet."),
			 errhint("The wait ends with that session.")));
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	(void) LockRelease(&tag, ExclusiveLock, false);
	log_check_relid_open(relid);
}
