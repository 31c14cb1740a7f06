/*-------------------------------------------------------------------------
 *
 * snapshot_lock.c
 *		The lock between a fold that saves the state of a stream, and a transaction that
 *		rewrites or removes events of that stream.
 *
 * A fold by a reader locks no stream.  Its snapshot may be older than a change of events
 * that it has folded.  What it saves then would outlive the change, as the transaction that
 * changes the events cannot delete a row that it does not see.  So both take a lock to
 * their end: to save one in share mode, to change one exclusively.  Under it the fold looks
 * whether its events are still the same (aggregate/snapshot_check.c).
 *
 * A reader does not wait: without the lock it saves nothing.  One that has it, and then
 * appends to the stream, must not wait for a transaction that waits for it.  So a
 * transaction takes the lock before that of the stream, while it holds nothing.
 *
 * A reader may save states of any number of streams.  So there are only few such locks,
 * each for many streams.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "base/wait.h"
#include "log/log.h"
#include "log/snapshot_lock.h"

#define SNAPSHOT_LOCK_CLASS 9
#define SNAPSHOT_LOCKS		64

/* Which of the locks is the stream's. */
static int
lock_number(text *stream)
{
	return (int) (stream_hash(stream) % SNAPSHOT_LOCKS);
}

static LOCKTAG
snapshot_lock_tag(int number)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, (uint32) number, SNAPSHOT_LOCK_CLASS);
	return tag;
}

/*
 * Waits for transactions that have saved states.  The locks are taken in their order, whatever
 * that of the streams is.
 */
void
snapshot_lock_all_to_change(const Datum *streams, int count)
{
	text	   *first[SNAPSHOT_LOCKS] = {NULL};
	WaitContext context;
	int			i;

	for (i = 0; i < count; i++)
	{
		text	   *stream = DatumGetTextPP(streams[i]);

		first[lock_number(stream)] = stream;
	}
	for (i = 0; i < SNAPSHOT_LOCKS; i++)
	{
		LOCKTAG		tag = snapshot_lock_tag(i);

		if (first[i] == NULL)
			continue;
		wait_context_begin(&context, "snapshots of stream", text_to_cstring(first[i]), -1);
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
		wait_context_end(&context);
	}
}

void
snapshot_lock_to_change(text *stream)
{
	Datum		value = PointerGetDatum(stream);

	snapshot_lock_all_to_change(&value, 1);
}

/*
 * Tries it.
 */
bool
snapshot_lock_to_save(text *stream)
{
	LOCKTAG		tag = snapshot_lock_tag(lock_number(stream));

	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * The states of the stream and of the tags are those of the old events.
 */
void
snapshot_lock_forget(Oid log, text *stream, Datum tags)
{
	Oid			types[2] = {TEXTOID, TEXTARRAYOID};
	Datum		values[2] = {PointerGetDatum(stream), tags};

	(void) own_sql_run(log,
					   "DELETE FROM @extschema@.es_snapshots"
					   " WHERE stream = ANY (coalesce($2, '{}') || $1)",
					   2, types, values, tags ? "  " : " n");
}
