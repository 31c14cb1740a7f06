/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Notifications in the appending transaction: LISTEN es_events,
 *		LISTEN "es_events:<category>".
 *
 * There are two ways to the server's NOTIFY:
 *
 *	- In the appending transaction, just before it commits: one notification
 *	  for each channel, whose payload is the last position that it appended
 *	  there.  Until then the channels are kept in a list; a rollback to a
 *	  savepoint removes its part of the list.
 *
 *	- By a worker (announce.c).
 *
 * With eventstore.notify = auto an appender takes the first way if no worker
 * takes the second, or none that would come to it soon.  It looks when it
 * appends, to save itself the list, and again before it commits.  If it sees a
 * worker, its events lie above what that worker has notified of, as they are
 * not committed yet.  So that worker notifies of them later, or the next one,
 * which goes on from where the last notifications were committed.
 *
 * An appender that sees no worker starts one, also if eventstore.notify is not auto, as
 * projections are to run (autostart.c).
 *
 * However the appender notifies, and if it is rolled back, it wakes the
 * processes that wait (wakeup.c) when its transaction is over: positions that
 * it drew and did not use may have held the horizon back.
 *
 * A notification is a wake-up, never the data, and may fail to come: a
 * transaction that is prepared cannot notify, and its COMMIT PREPARED wakes
 * nothing.  A worker looks after eventstore.poll_interval; a listener also
 * looks by itself from time to time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "log/log.h"
#include "notify/notify.h"

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

/* A channel to notify, for one (sub)transaction. */
typedef struct NotificationKey
{
	char		channel[NAMEDATALEN];
	SubTransactionId subid;
} NotificationKey;

typedef struct Notification
{
	NotificationKey key;
	int64		position;
} Notification;

/*
 * eventstore.notify: what notifies listeners.  With auto it is a worker, if there
 * is one.  An administrator may turn notifications off, or make them come with the
 * commit whatever that costs.  Set in a session, it applies to the session's appends.
 */
static int	notify_mode = NOTIFY_AUTO;

static HTAB *notifications = NULL;	/* in TopTransactionContext */
static bool wakes_at_end = false;

PG_FUNCTION_INFO_V1(es_channel);

/*
 * A category that is too long for a channel's name has one by a hash of it.
 * Two categories on one channel only wake each other's listeners.
 */
void
notify_write_channel(const char *category, int length, char *channel)
{
	int			prefix = strlen(NOTIFY_CHANNEL ":");

	memset(channel, 0, NAMEDATALEN);
	if (prefix + length < NAMEDATALEN)
	{
		memcpy(channel, NOTIFY_CHANNEL ":", prefix);
		memcpy(channel + prefix, category, length);
	}
	else
		snprintf(channel, NAMEDATALEN, NOTIFY_CHANNEL ":#%016llx",
				 (unsigned long long)
				 hash_bytes_extended((const unsigned char *) category,
									 length, 0));
}

/*
 * es_channel(category) returns text
 */
Datum
es_channel(PG_FUNCTION_ARGS)
{
	text	   *category = PG_GETARG_TEXT_PP(0);
	char		channel[NAMEDATALEN];

	notify_write_channel(VARDATA_ANY(category), VARSIZE_ANY_EXHDR(category),
						 channel);
	PG_RETURN_TEXT_P(cstring_to_text(channel));
}

void
notify_position(const char *channel, int64 position)
{
	char		payload[MAXINT8LEN + 1];

	pg_lltoa(position, payload);
	Async_Notify(channel, payload);
}

void
notify_wake_at_end(void)
{
	wakes_at_end = true;
}

bool
notify_is_by_worker(void)
{
	return notify_mode == NOTIFY_AUTO;
}

/* Returns true if this transaction notifies the listeners of its events. */
static bool
notifies_at_commit(void)
{
	return notify_mode == NOTIFY_COMMIT ||
		(notify_mode == NOTIFY_AUTO && !worker_slot_notifies());
}

static void
make_notifications(void)
{
	HASHCTL		control = {
		.keysize = sizeof(NotificationKey),
		.entrysize = sizeof(Notification),
		.hcxt = TopTransactionContext
	};

	notifications = hash_create("eventstore notifications", 16, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Remembers to notify of the position, or of the highest one for the key. */
static void
add_notification(const NotificationKey *key, int64 position)
{
	bool		found;
	Notification *entry = hash_search(notifications, key, HASH_ENTER, &found);

	if (!found || entry->position < position)
		entry->position = position;
}

void
notify_events(const NewEvent *events, int count)
{
	NotificationKey key;
	int			i;

	if (count == 0 || (notify_mode == NOTIFY_AUTO && worker_slot_notifies()))
		return;
	autostart_want();
	if (notify_mode == NOTIFY_OFF)
		return;
	if (notifications == NULL)
		make_notifications();
	memset(&key, 0, sizeof(key));
	key.subid = GetCurrentSubTransactionId();
	strcpy(key.channel, NOTIFY_CHANNEL);
	add_notification(&key, events[count - 1].position);
	for (i = 0; i < count; i++)
	{
		/* the events of one stream follow each other */
		if (i + 1 < count && events[i + 1].stream == events[i].stream)
			continue;
		notify_write_channel(VARDATA_ANY(events[i].stream),
							 stream_category_length(events[i].stream),
							 key.channel);
		add_notification(&key, events[i].position);
	}
}

/* Hands all notifications to the server's NOTIFY. */
static void
notify_all(void)
{
	HASH_SEQ_STATUS status;
	Notification *entry;

	hash_seq_init(&status, notifications);
	while ((entry = hash_seq_search(&status)) != NULL)
		notify_position(entry->key.channel, entry->position);
}

/* After the end of the transaction, which all can see, nothing may fail. */
static void
notify_at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
	{
		autostart_before_commit();
		if (event == XACT_EVENT_PRE_COMMIT && notifications != NULL &&
			notifies_at_commit())
			notify_all();
		notifications = NULL;
		return;
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (wakes_at_end && event != XACT_EVENT_PREPARE)
		wakeup_send();
	if (event == XACT_EVENT_COMMIT)
		autostart_after_commit();
	autostart_forget();
	notifications = NULL;
	wakes_at_end = false;
}

/*
 * Forgets the notifications of a subtransaction that is rolled back, or makes
 * them its parent's.
 */
static void
notify_at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	HASH_SEQ_STATUS status;
	Notification *entry;

	if (notifications == NULL ||
		(event != SUBXACT_EVENT_ABORT_SUB &&
		 event != SUBXACT_EVENT_PRE_COMMIT_SUB))
		return;
	hash_seq_init(&status, notifications);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		NotificationKey key = entry->key;
		int64		position = entry->position;

		if (key.subid != subid)
			continue;
		hash_search(notifications, &key, HASH_REMOVE, NULL);
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		{
			key.subid = parent;
			add_notification(&key, position);
		}
	}
}

void
notify_init(void)
{
	DefineCustomEnumVariable("eventstore.notify",
							 "What notifies sessions that LISTEN to es_events.",
							 "auto: a worker, or else the appending transaction; commit: the appending transaction; off: nothing.",
							 &notify_mode, NOTIFY_AUTO, notify_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(notify_at_transaction_end, NULL);
	RegisterSubXactCallback(notify_at_subtransaction_end, NULL);
}
