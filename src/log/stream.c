/*-------------------------------------------------------------------------
 *
 * stream.c
 *		Streams: what a name may be, its category, its lock.
 *
 * The lock makes appends to one stream wait for each other; other streams go
 * on.  It is a heavyweight lock on a 64-bit hash of the name, held to the end
 * of the transaction, in a class of the advisory locks that users cannot
 * reach (theirs are 1 and 2).  Two names with one hash wait for each other in
 * vain, which costs time and nothing else.
 *
 * Each lock takes a place in shared memory, and an import may touch any
 * number of streams.  So a transaction that holds ES_MAX_STREAM_LOCKS of them
 * takes ShareRowExclusiveLock on es_events instead: as every appender holds
 * RowExclusiveLock there from before its first position to its end, whoever
 * has the stronger lock is alone with all streams.  A rollback to a savepoint
 * may release it, so that the lock table is asked each time; the number of
 * stream locks is only ever too high.
 *
 * A stream is locked before es_events: whoever waits for a stream holds
 * nothing yet that the owner of the stream could need for its escalation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "eventstore.h"
#include "stats/stats.h"
#include "log/log.h"

/* Users' advisory locks are of class 1 (bigint) and 2 (two integers). */
#define STREAM_LOCK_CLASS 3

PG_FUNCTION_INFO_V1(es_category);
PG_FUNCTION_INFO_V1(es_partition);

/* How many streams the transaction with this local id has locked. */
static LocalTransactionId locking_lxid = InvalidLocalTransactionId;
static int	locked_streams = 0;

/* The stream of this session's last conflict, until it comes there again. */
static bool has_conflict = false;
static uint64 conflict;			/* a hash of its name */

/*
 * Refuses a name that is empty or too long for the indexes.
 */
void
stream_check_name(text *stream)
{
	int			length = VARSIZE_ANY_EXHDR(stream);

	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream's name must not be empty"),
				 errdetail("The name has 0 bytes, the limit is %d.",
						   ES_MAX_STREAM_LENGTH),
				 errhint("Name a stream by its category and an id, such as 'account-1'.")));
	if (length > ES_MAX_STREAM_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream's name is too long"),
				 errdetail("The name has %d bytes, the limit is %d, so that an index entry fits a third of a page.",
						   length, ES_MAX_STREAM_LENGTH),
				 errhint("Put what is long into the event's data, or a digest of it into the name.")));
}

/*
 * How many bytes of the name stand before the first '-'; all without one.
 */
int
stream_category_length(text *stream)
{
	char	   *name = VARDATA_ANY(stream);
	int			length = VARSIZE_ANY_EXHDR(stream);
	char	   *dash = memchr(name, '-', length);

	return dash ? (int) (dash - name) : length;
}

/*
 * The part of a stream's name before the first '-'.  The database's encoding
 * is never one in which '-' is the second half of a character.
 */
Datum
es_category(PG_FUNCTION_ARGS)
{
	text	   *stream = PG_GETARG_TEXT_PP(0);

	PG_RETURN_TEXT_P(cstring_to_text_with_len(VARDATA_ANY(stream),
											  stream_category_length(stream)));
}

/*
 * Are these the names of one stream?  Names are bytes.
 */
bool
stream_equal(text *a, text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* A hash of a stream's name. */
uint64
stream_hash(text *stream)
{
	return hash_bytes_extended((unsigned char *) VARDATA_ANY(stream),
							   VARSIZE_ANY_EXHDR(stream), 0);
}

/*
 * In which of so many partitions a stream is.  That must never change:
 * subscriptions depend on it.
 */
int
stream_partition(text *stream, int partitions)
{
	return (int) (stream_hash(stream) % (uint64) partitions);
}

/*
 * es_partition(stream, partitions) returns int.
 */
Datum
es_partition(PG_FUNCTION_ARGS)
{
	text	   *stream = PG_GETARG_TEXT_PP(0);
	int32		partitions = PG_GETARG_INT32(1);

	if (partitions < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partitions must be positive"),
				 errdetail("It is %d.", partitions)));
	PG_RETURN_INT32(stream_partition(stream, partitions));
}

/* The counters of the stream's category. */
StatsEntry *
stream_stats(text *stream)
{
	return stats_find(STATS_CATEGORY, VARDATA_ANY(stream),
					  stream_category_length(stream), "", 0);
}

/*
 * The stream is at another version than was expected: counts that, and
 * remembers it for the retry.
 */
void
stream_conflict(text *stream)
{
	stats_count(stream_stats(stream), STATS_CONFLICTS, 1);
	has_conflict = true;
	conflict = stream_hash(stream);
}

/* Counts coming back to the stream of the last conflict. */
static void
count_retry(text *stream)
{
	if (stream_hash(stream) != conflict)
		return;
	stats_count(stream_stats(stream), STATS_RETRIES, 1);
	has_conflict = false;
}

/*
 * Waits for a stream's lock, and counts that.
 */
static void
wait_for_lock(text *stream, const LOCKTAG *tag)
{
	StatsEntry *stats = stream_stats(stream);
	instr_time	start;
	instr_time	end;

	stats_count(stats, STATS_LOCK_WAITS, 1);
	INSTR_TIME_SET_CURRENT(start);
	PG_TRY();
	{
		(void) LockAcquire(tag, ExclusiveLock, false, false);
	}
	PG_FINALLY();
	{
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		stats_count(stats, STATS_LOCK_WAIT_TIME,
					INSTR_TIME_GET_MICROSEC(end));
	}
	PG_END_TRY();
}

/*
 * Locks one stream by its name's hash; counts the locks that are new.
 */
static void
lock_name(text *stream)
{
	LOCKTAG		tag;
	uint64		hash = stream_hash(stream);
	LockAcquireResult result;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, STREAM_LOCK_CLASS);
	result = LockAcquire(&tag, ExclusiveLock, false, true);
	if (result == LOCKACQUIRE_NOT_AVAIL)
		wait_for_lock(stream, &tag);
	if (result != LOCKACQUIRE_ALREADY_HELD)
		locked_streams++;
}

/*
 * Makes the transaction the only one that can append to the stream, until it
 * ends.  log: es_events.
 */
void
stream_lock(Oid log, text *stream)
{
	if (locking_lxid != compat_my_lxid())
	{
		locking_lxid = compat_my_lxid();
		locked_streams = 0;
	}
	if (has_conflict)
		count_retry(stream);
	if (locked_streams < ES_MAX_STREAM_LOCKS)
		lock_name(stream);
	else
		LockRelationOid(log, ShareRowExclusiveLock);
}
