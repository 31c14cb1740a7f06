/*-------------------------------------------------------------------------
 *
 * write.c
 *		The sequence of a write.  Everything that appends events comes through
 *		here: es_append(), es_append_if(), both forms of es_append_batch(), es_import,
 *		es_execute(), es_decide() and es_receive().
 *
 * A writer checks its arguments, so that whatever can be refused without looking
 * is refused before anything is locked, and makes a Write of them.  Then:
 *
 *	1. identify: events get the ids and schema versions that their types' definitions
 *	   give them (event_check.c).  Users' functions may run here, and not under the
 *	   locks that follow.  Error: ES004, if an id cannot be made.  They also get the
 *	   tags of their metadata (tag_metadata.c) and of the persons that they are about
 *	   (personal/seal.c), which the next step locks.
 *	2. lock: the streams, the tags of the events, exclusively, and what a condition has to
 *	   lock, to the end of the transaction, all in one call and in the same order in every
 *	   transaction (log_lock.c).
 *	3. open: RowExclusiveLock on es_events, to the end of the transaction.  What is
 *	   looked up sees all that is committed now, at every isolation level.  A stream
 *	   must be of this store (slots.c).  Error: ES009.  The first
 *	   append of a session begins a new incarnation if one is due (identity.c).
 *	4. find retries: events whose ids are stored already (write_retry.c).  A retry
 *	   gets its first result, whatever it expects and however types are defined by
 *	   now, so that this comes before the checks.  Error: ES002.
 *	   Its own events match its condition, so that this comes before the next step, too.
 *	   A write without retries leaves this to the index: a stored id is ES002 there,
 *	   after the version was checked and a position was drawn (append_message.c).
 *	   So does a stream that was deleted for good (deleted_stream.c).  Error: ES003.
 *	5. check the condition: no event that it excludes (condition.c).  Where no lock
 *	   guards it, positions are drawn before, and are lost if it fails.  Error: ES007.
 *	   Check the version: the stream's last one against the expected one.  Error:
 *	   ES001.
 *	6. check definitions: the events against those of their types.  Error: ES004.
 *	   Then encrypt their personal attributes.  Error: ES008.
 *	7. number: versions follow on the last one of each stream.
 *	8. insert: the log draws positions and stores the rows (log_insert.c).  Nothing
 *	   that the caller can do wrong fails after a position is drawn, except
 *	   constraints and triggers that the owner of es_events has added.
 *	9. count what was stored.
 *	10. notify: remember the listeners that the commit is to notify (notify.c).
 *
 * es_execute() takes the lock of its stream first, as it decides under it, and es_decide()
 * all of them; the rest is the same.
 *
 * An error leaves nothing but gaps in the positions: it aborts the transaction or
 * the subtransaction, which ends the locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/context.h"
#include "base/wait.h"
#include "stats/stats.h"
#include "log/slots.h"
#include "log/tags.h"
#include "identity/identity.h"
#include "notify/notify.h"
#include "personal/personal.h"
#include "type/type.h"
#include "append/append.h"

/* The last version of one of many streams. */
typedef struct StreamVersion
{
	text	   *stream;
	int64		version;
	uint32		hash;
	char		status;			/* for simplehash */
} StreamVersion;

#define SH_PREFIX versions
#define SH_ELEMENT_TYPE StreamVersion
#define SH_KEY_TYPE text *
#define SH_KEY stream
#define SH_HASH_KEY(tb, key) ((uint32) stream_hash(key))
#define SH_EQUAL(tb, a, b) stream_equal(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * Step 1: gives events the ids and schema versions of their types, and the tags of
 * their metadata.
 */
void
write_identify(Write *write)
{
	event_identify(write->log, write->events, write->count);
	seal_identify(write->log, write->events, write->count);
	tag_metadata_add(write->events, write->count);
}

/* Adds the locks of the streams that the events name.  Returns how many. */
static int
add_stream_locks(const Write *write, LogLock *locks)
{
	int			i;

	for (i = 0; i < write->count; i++)
		locks[i] = log_lock_of_stream(write->events[i].stream);
	return write->count;
}

/* Counts retries, of each stream. */
static void
count_retries(const Write *write)
{
	int			i;

	if (write->stream != NULL)
		stream_count_retry(write->stream);
	for (i = 0; write->stream == NULL && i < write->count; i++)
		stream_count_retry(write->events[i].stream);
}

/*
 * Step 2: locks the streams.
 */
void
write_lock(Write *write)
{
	count_retries(write);
	if (write->stream == NULL)
	{
		LogLock    *locks = palloc(sizeof(LogLock) * Max(write->count, 1));

		log_lock_all(write->log, locks, add_stream_locks(write, locks));
		pfree(locks);
	}
	else
		log_lock_stream(write->log, write->stream);
}

/* Compares the version of the stream of an event before it, if the event has one. */
static void
check_expected_of_event(Log *log, const NewEvent *event)
{
	if (event->expected != EXPECTED_ANY)
		deleted_stream_check_expected(log, event->stream, event->expected,
									  log_last_version(log, event->stream, event->expected));
}

/* Step 5: compares the versions.  Events that are by themselves expect none. */
static void
check_expected(const Write *write, Log *log)
{
	int			i;

	if (write->stream != NULL)
		deleted_stream_check_expected(log, write->stream, write->expected, write->version);
	for (i = 0; write->is_whole && i < write->count; i++)
		check_expected_of_event(log, &write->events[i]);
}

/*
 * Step 5: refuses a write whose condition does not hold.  Where its locks do not keep
 * others from appending what it excludes, it is checked as of the write's first position:
 * who draws a higher one comes after it.
 */
static void
check_condition(const Write *write, Log *log)
{
	int64		before = 0;

	if (write->condition == NULL)
		return;
	if (condition_needs_position(write->condition))
	{
		log_draw(log, write->events, write->count);
		log_lock_await_appenders(write->log, "to append under a condition");
		before = write->events[0].position;
	}
	condition_check(write->condition, before);
}

/* The version that follows a stream's last one. */
static int64
next_version(text *stream, int64 last)
{
	if (last == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("stream \"%s\" is full", text_to_cstring(stream)),
				 errdetail("Its version is " INT64_FORMAT ".", last)));
	return last + 1;
}

/* Numbers events of many streams. */
static void
number_streams(Write *write, Log *log)
{
	versions_hash *versions = versions_create(CurrentMemoryContext,
											  write->count, NULL);
	int			i;

	for (i = 0; i < write->count; i++)
	{
		text	   *stream = write->events[i].stream;
		bool		found;
		StreamVersion *last = versions_insert(versions, stream, &found);

		CHECK_FOR_INTERRUPTS();
		if (!found)
		{
			last->version = log_last_version(log, stream, 0);
			deleted_stream_refuse(log, stream, last->version);
		}
		last->version = next_version(stream, last->version);
		write->events[i].version = last->version;
	}
	versions_destroy(versions);
}

/* Step 7: gives events their versions. */
static void
number_events(Write *write, Log *log)
{
	int			i;

	if (write->stream == NULL)
		number_streams(write, log);
	else
	{
		for (i = 0; i < write->count; i++)
		{
			write->version = next_version(write->stream, write->version);
			write->events[i].version = write->version;
		}
	}
}

/*
 * What is being stored, in the context of errors of waits: for another transaction
 * that stores the same id, or in triggers and constraints.
 */
static void
add_insert_context(void *arg)
{
	const Write *write = arg;

	if (!wait_context_applies())
		return;
	if (write->stream != NULL)
		errcontext("while appending to stream \"%s\"",
				   text_to_cstring(write->stream));
	else
		errcontext("while appending %d events, the first of them to stream \"%s\"",
				   write->count, text_to_cstring(write->events[0].stream));
}

/* Step 8: draws positions and stores the rows. */
static void
insert_events(Write *write, Log *log)
{
	ErrorContextCallback context;

	notify_wake_at_end();
	context_push(&context, add_insert_context, write);
	log_insert(log, write->events, write->count);
	context_pop(&context);
	write->position = write->events[write->count - 1].position;
	write->first_position = write->events[0].position;
}

/* Step 9: counts one append for a batch, and one for each event by itself. */
static void
count_events(const Write *write)
{
	int			i;

	for (i = 0; i < write->count; i++)
		log_insert_count(&write->events[i],
						 i == 0 || (write->stream == NULL && !write->is_whole) ? 1 : 0);
}

/* Counts the locks of tags and conditions, at most. */
static int
count_tag_locks(const Write *write)
{
	int			count = condition_lock_count(write->condition);
	int			i;

	for (i = 0; i < write->count; i++)
	{
		if (write->events[i].tags)
			count += tags_count(write->events[i].tags);
	}
	return count;
}

/* Adds the locks of the events' tags.  Returns how many. */
static int
add_tag_locks(const Write *write, LogLock *locks)
{
	int			count = 0;
	int			i;

	for (i = 0; i < write->count; i++)
	{
		if (write->events[i].tags)
			count += tags_add_locks(write->events[i].tags, locks + count);
	}
	return count;
}

/* Step 2: locks the tags of the events, and what the condition is on. */
static void
lock_tags(const Write *write)
{
	int			room = count_tag_locks(write);
	LogLock    *locks;
	int			count;

	if (room == 0)
		return;
	locks = palloc(sizeof(LogLock) * room);
	count = add_tag_locks(write, locks);
	count += condition_add_locks(write->condition, locks + count);
	log_lock_all(write->log, locks, count);
	pfree(locks);
}

/*
 * Returns the locks of the streams and of the tags of the events.
 */
LogLock *
write_locks(const Write *write, int *count)
{
	LogLock    *locks = palloc(sizeof(LogLock) * (write->count + count_tag_locks(write)));

	*count = add_stream_locks(write, locks);
	*count += add_tag_locks(write, locks + *count);
	return locks;
}

/*
 * Step 2, all of it at once: the locks are counted before the first one is taken.  So a write
 * that locks the whole log instead holds no stream for which another transaction, whose end it
 * waits for, could wait.
 */
static void
lock_streams_and_tags(const Write *write)
{
	LogLock    *locks = palloc(sizeof(LogLock) * (write->count + count_tag_locks(write)));
	int			count = add_stream_locks(write, locks);

	count_retries(write);
	count += add_tag_locks(write, locks + count);
	count += condition_add_locks(write->condition, locks + count);
	log_lock_all(write->log, locks, count);
	pfree(locks);
}

/*
 * Refuses streams that are of another store, also if nothing is to be appended to it.  Those of the
 * store itself, which only its own events are in, are everywhere.
 */
static void
check_slots(const Write *write, Log *log)
{
	int			i;

	if (write->stream != NULL && !event_is_reserved(write->stream))
		slots_check(log, write->stream);
	for (i = 0; write->stream == NULL && i < write->count; i++)
		slots_check(log, write->events[i].stream);
}

/* Steps 3 to 10. */
static void
write_under_locks(Write *write)
{
	Log		   *log = log_open(write->log);

	if (log->own_slots != NULL)
		check_slots(write, log);
	identity_check(log);
	if (write->stream != NULL)
		write->version = log_last_version(log, write->stream, write->expected);
	if (write->no_retry || !write_retry_find(write, log))
	{
		if (write->stream != NULL)
			deleted_stream_refuse(log, write->stream, write->version);
		check_condition(write, log);
		check_expected(write, log);
		if (write->no_retry)
			write_retry_refuse_removed(write, log);
		event_check(write->log, write->events, write->count);
		seal_events(write->log, write->events, write->count);
		if (write->count > 0)
		{
			number_events(write, log);
			insert_events(write, log);
			count_events(write);
			notify_events(write->events, write->count);
		}
	}
	log_close(log);
}

/*
 * Steps 3 to 10, and the rest of 2, for streams that are locked and events that are identified.
 */
void
write_locked(Write *write)
{
	lock_tags(write);
	write_under_locks(write);
}

/*
 * All steps.
 */
void
write_events(Write *write)
{
	write_identify(write);
	if (count_tag_locks(write) == 0)
		write_lock(write);
	else
		lock_streams_and_tags(write);
	write_under_locks(write);
}
