/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Waking listeners: LISTEN es_events, LISTEN "es_events:<category>".
 *
 * There are two ways to the server's NOTIFY:
 *
 *	- In the appending transaction, just before it commits: one notification
 *	  for each channel, whose payload is the last position that it appended
 *	  there.  Until then the channels are kept in a list; a rollback to a
 *	  savepoint takes its part of it away.
 *
 *	- In a worker: announce_run announces all that lies between what was
 *	  announced last and the horizon, once for each channel, however many
 *	  transactions that was.  NOTIFY and commit queue for a lock, and so only
 *	  workers do and appenders do not.
 *
 * With eventstore.notify = auto an appender takes the first way if no worker
 * takes the second, or none that would come to it soon.  It looks when it
 * appends, to save itself the list, and again before it commits.  If it sees
 * one, its events lie above what that worker has announced, as they are not
 * committed yet; so they are announced later, if not by that worker, then by
 * the next, which goes on from where the announcements of the last were
 * committed.
 *
 * How far that is, is known in shared memory (wakeup.c) and, as of at most
 * some seconds ago, in the table es_notified: a row that were written a
 * hundred times a second would fill the table with its versions as soon as a
 * long transaction keeps VACUUM from removing them.  Who starts from the row
 * announces some events again.
 *
 * However the appender notifies, and if it is rolled back, it wakes the
 * workers (wakeup.c) when its transaction is over: positions of which nothing
 * has become may have held the horizon back.
 *
 * A notification is a wake-up, never the data, and may fail to come: a
 * transaction that is prepared cannot send any, and its COMMIT PREPARED wakes
 * nobody.  A worker looks after eventstore.poll_interval; a listener also
 * looks by itself from time to time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "notify/notify.h"

#define CHANNEL "es_events"

/* How much longer than the sending a pause is, and its limit in milliseconds. */
#define PAUSE_FACTOR	100
#define LONGEST_PAUSE	1000

/* How old, in milliseconds, es_notified is when it is written again. */
#define STORE_INTERVAL 1000

typedef enum NotifyMode
{
	NOTIFY_OFF,
	NOTIFY_COMMIT,
	NOTIFY_AUTO
} NotifyMode;

static const struct config_enum_entry notify_modes[] = {
	{"auto", NOTIFY_AUTO, false},
	{"commit", NOTIFY_COMMIT, false},
	{"off", NOTIFY_OFF, false},
	{NULL, 0, false}
};

/* A channel and what will be said there, for one (sub)transaction. */
typedef struct PendingKey
{
	char		channel[NAMEDATALEN];
	SubTransactionId subid;
} PendingKey;

typedef struct Pending
{
	PendingKey	key;
	int64		position;
} Pending;

/*
 * eventstore.notify: who sends notifications?  By auto it is a worker where
 * there is one.  An administrator who wants none at all, or wants them to
 * come with the commit whatever it costs, says so here; in a session it is
 * for what the session appends.
 */
static int	notify_mode = NOTIFY_AUTO;

/*
 * eventstore.notify_interval: milliseconds from one announcement of a worker
 * to the next.  An administrator makes it longer where listeners are many and
 * waking them is dear, and shorter where they are in a hurry.
 */
int			notify_interval = 10;

static HTAB *pending = NULL;	/* in TopTransactionContext */
static bool drawn = false;		/* has the transaction drawn positions? */

/* What this worker has announced in its transaction; log 0: nothing. */
static Published announcing = {0};

PG_FUNCTION_INFO_V1(es_channel);

/*
 * Writes the channel of a category into a buffer of NAMEDATALEN bytes.  A
 * category that is too long for a channel's name has one by a hash of it; two
 * categories on one channel only wake each other's listeners.
 */
static void
category_channel(const char *category, int length, char *channel)
{
	int			prefix = strlen(CHANNEL ":");

	memset(channel, 0, NAMEDATALEN);
	if (prefix + length < NAMEDATALEN)
	{
		memcpy(channel, CHANNEL ":", prefix);
		memcpy(channel + prefix, category, length);
	}
	else
		snprintf(channel, NAMEDATALEN, CHANNEL ":#%016llx",
				 (unsigned long long)
				 hash_bytes_extended((const unsigned char *) category,
									 length, 0));
}

Datum
es_channel(PG_FUNCTION_ARGS)
{
	text	   *category = PG_GETARG_TEXT_PP(0);
	char		channel[NAMEDATALEN];

	category_channel(VARDATA_ANY(category), VARSIZE_ANY_EXHDR(category),
					 channel);
	PG_RETURN_TEXT_P(cstring_to_text(channel));
}

static void
make_pending(void)
{
	HASHCTL		control = {
		.keysize = sizeof(PendingKey),
		.entrysize = sizeof(Pending),
		.hcxt = TopTransactionContext
	};

	pending = hash_create("eventstore notifications", 16, &control,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Remembers to say on the channel that the log has reached the position.
 */
static void
add_pending(const PendingKey *key, int64 position)
{
	bool		found;
	Pending    *entry = hash_search(pending, key, HASH_ENTER, &found);

	if (!found || entry->position < position)
		entry->position = position;
}

/*
 * Positions are about to be drawn, or a subscription has more to deliver:
 * whatever becomes of it, those who wait are to look when the transaction is
 * over.
 */
void
notify_expect(void)
{
	drawn = true;
}

/* Is it up to this transaction to send its notifications? */
static bool
sends_itself(void)
{
	return notify_mode == NOTIFY_COMMIT ||
		(notify_mode == NOTIFY_AUTO && !worker_slot_notifies());
}

/*
 * Remembers whom to wake when the transaction commits, if nobody else will.
 */
void
notify_events(const NewEvent *events, int count)
{
	PendingKey	key;
	int			i;

	if (notify_mode == NOTIFY_OFF || count == 0 || !sends_itself())
		return;
	if (pending == NULL)
		make_pending();
	memset(&key, 0, sizeof(key));
	key.subid = GetCurrentSubTransactionId();
	strcpy(key.channel, CHANNEL);
	add_pending(&key, events[count - 1].position);
	for (i = 0; i < count; i++)
	{
		/* the events of one stream follow each other */
		if (i + 1 < count && events[i + 1].stream == events[i].stream)
			continue;
		category_channel(VARDATA_ANY(events[i].stream),
						 stream_category_length(events[i].stream),
						 key.channel);
		add_pending(&key, events[i].position);
	}
}

/* Sends one notification; the payload is the position. */
static void
send_position(const char *channel, int64 position)
{
	char		payload[MAXINT8LEN + 1];

	pg_lltoa(position, payload);
	Async_Notify(channel, payload);
}

/* Hands everything that is pending to the server's NOTIFY. */
static void
send_pending(void)
{
	HASH_SEQ_STATUS status;
	Pending    *entry;

	hash_seq_init(&status, pending);
	while ((entry = hash_seq_search(&status)) != NULL)
		send_position(entry->key.channel, entry->position);
}

/* The transaction is over, for all to see; nothing here may fail. */
static void
after_transaction(bool committed)
{
	if (committed && OidIsValid(announcing.log))
		worker_slot_set_published(&announcing);
	announcing.log = InvalidOid;
	if (drawn)
		wakeup_send();
}

static void
notify_at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		if (pending != NULL && sends_itself())
			send_pending();
	}
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		after_transaction(event == XACT_EVENT_COMMIT);
	else if (event != XACT_EVENT_PREPARE)
		return;
	pending = NULL;
	if (event != XACT_EVENT_PRE_COMMIT)
		drawn = false;
}

/*
 * Forgets what a rolled back subtransaction wanted to say, or makes it its
 * parent's.
 */
static void
notify_at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	HASH_SEQ_STATUS status;
	Pending    *entry;

	if (pending == NULL ||
		(event != SUBXACT_EVENT_ABORT_SUB &&
		 event != SUBXACT_EVENT_PRE_COMMIT_SUB))
		return;
	hash_seq_init(&status, pending);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		PendingKey	key = entry->key;
		int64		position = entry->position;

		if (key.subid != subid)
			continue;
		hash_search(pending, &key, HASH_REMOVE, NULL);
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		{
			key.subid = parent;
			add_pending(&key, position);
		}
	}
}

/* Is it up to workers to send notifications, in this database? */
bool
notify_is_by_worker(void)
{
	return notify_mode == NOTIFY_AUTO;
}

/*
 * Reads how far a log has been announced from es_notified.  If that has no
 * row yet: nothing that lies below the horizon was left to a worker, since
 * there was none; but if there is one it was, perhaps, one of an extension
 * that has been dropped and made again.
 */
static void
load_announced(Published *announced, Oid log, int64 horizon)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(worker_slot_notifies() ? 0 : horizon);
	bool		isnull;

	if (own_sql_run(log, "SELECT position FROM @extschema@.es_notified",
					0, NULL, NULL, NULL) == 0)
		own_sql_run(log,
					"INSERT INTO @extschema@.es_notified (position) VALUES ($1) RETURNING position",
					1, &type, &value, NULL);
	memset(announced, 0, sizeof(Published));
	announced->log = log;
	announced->position = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc,
													  1, &isnull));
	announced->stored = announced->position;
}

/*
 * Announces the events above a position, up to the horizon, which is one.
 */
static void
announce(Oid log, int64 after, int64 horizon)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(after), Int64GetDatum(horizon)};
	char		channel[NAMEDATALEN];
	uint64		count;
	uint64		i;

	send_position(CHANNEL, horizon);
	count = own_sql_run(log,
						"SELECT @extschema@.es_category(stream), max(position)"
						" FROM @extschema@.es_events"
						" WHERE position > $1 AND position <= $2 GROUP BY 1",
						2, types, values, NULL);
	for (i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		text	   *category = DatumGetTextPP(SPI_getbinval(tuple, desc, 1,
															&isnull));

		category_channel(VARDATA_ANY(category), VARSIZE_ANY_EXHDR(category),
						 channel);
		send_position(channel,
					  DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Is es_notified to be written, now that the log is announced up to here? */
static bool
is_store_due(const Published *announced, TimestampTz now)
{
	return announced->stored < announced->position &&
		TimestampDifferenceExceeds(announced->stored_at, now, STORE_INTERVAL);
}

static void
store_announced(Published *announced, TimestampTz now)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(announced->position);

	own_sql_run(announced->log,
				"UPDATE @extschema@.es_notified SET position = $1",
				1, &type, &value, NULL);
	announced->stored = announced->position;
	announced->stored_at = now;
}

/*
 * Announces what is new up to the horizon, and writes down what is to be
 * written down; the caller has the locks.
 */
static AnnounceResult
send_new(Oid log, int64 horizon, TimestampTz now)
{
	AnnounceResult result = ANNOUNCE_NOTHING_NEW;
	Published	announced;

	SPI_connect();
	if (!worker_slot_get_published(log, &announced))
		load_announced(&announced, log, horizon);
	if (announced.position < horizon)
	{
		announce(log, announced.position, horizon);
		announced.position = horizon;
		announced.at = now;
		result = ANNOUNCE_DONE;
	}
	if (is_store_due(&announced, now))
		store_announced(&announced, now);
	SPI_finish();
	announcing = announced;
	return result;
}

/*
 * What there is to do, as far as the memory knows: ANNOUNCE_DONE is to go on.
 */
static AnnounceResult
look(Oid log, int64 horizon, TimestampTz now)
{
	Published	announced;

	if (!worker_slot_get_published(log, &announced))
		return ANNOUNCE_DONE;
	if (announced.position < horizon &&
		!TimestampDifferenceExceeds(announced.at, now,
									Max(notify_interval, (int) announced.pause)))
		return ANNOUNCE_LATER;
	return announced.position < horizon || is_store_due(&announced, now) ?
		ANNOUNCE_DONE : ANNOUNCE_NOTHING_NEW;
}

/*
 * Announces what is new, for a worker: once the present transaction has been
 * committed, it has been announced.  The horizon is that of the active
 * snapshot; the events up to it are the same under every later one.
 *
 * One worker at a time does it; who finds another at it comes again.
 */
AnnounceResult
announce_run(Oid log)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		horizon = horizon_find(log, GetActiveSnapshot());
	AnnounceResult result = look(log, horizon, now);

	if (result == ANNOUNCE_DONE)
		result = own_table_try_lock(log, "es_notified") ? look(log, horizon, now) :
			ANNOUNCE_LATER;
	if (result == ANNOUNCE_DONE)
		result = send_new(log, horizon, now);
	return result;
}

/*
 * A worker has sent notifications, which took it so much time of a processor.
 * It grows with the number of sessions that listen, whatever they listen to, as
 * the server wakes each of them; and what these do then costs several times as
 * much.  So the pause after it is longer than notify_interval where they are
 * many.
 */
void
announce_set_cost(double milliseconds)
{
	worker_slot_set_pause(Min(milliseconds * PAUSE_FACTOR, LONGEST_PAUSE));
}

/*
 * Defines the settings and asks to be told of transactions' ends.
 */
void
notify_init(void)
{
	DefineCustomEnumVariable("eventstore.notify",
							 "Who wakes those who LISTEN to es_events.",
							 "auto: a worker, or else the appending transaction; commit: the appending transaction; off: nobody.",
							 &notify_mode, NOTIFY_AUTO, notify_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventstore.notify_interval",
							"Time between two announcements of a worker.",
							NULL, &notify_interval, 10, 1, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	RegisterXactCallback(notify_at_transaction_end, NULL);
	RegisterSubXactCallback(notify_at_subtransaction_end, NULL);
}
