/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Waking listeners: LISTEN es_events, LISTEN "es_events:<category>".
 *
 * With eventstore.notify = commit the appending transaction sends one
 * notification for each channel just before it commits; the payload is the
 * last position that it appended there.  Until then the channels are kept in
 * a list; a rollback to a savepoint takes its part of it away.
 *
 * A notification is a wake-up, never the data, and may fail to come: a
 * transaction that is prepared cannot send any.  A listener also looks by
 * itself from time to time.
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

#include "compat.h"
#include "eventstore.h"

#define CHANNEL "es_events"

typedef enum NotifyMode
{
	NOTIFY_OFF,
	NOTIFY_COMMIT
} NotifyMode;

static const struct config_enum_entry notify_modes[] = {
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
 * eventstore.notify: may appends send notifications?  An administrator turns
 * them off for an import, or where nobody listens: a NOTIFY makes the commits
 * of a cluster queue.
 */
static int	notify_mode = NOTIFY_COMMIT;

static HTAB *pending = NULL;	/* in TopTransactionContext */

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
 * Remembers whom to wake when the transaction commits.
 */
void
notify_events(const NewEvent *events, int count)
{
	PendingKey	key;
	int			i;

	if (notify_mode == NOTIFY_OFF || count == 0)
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

/* Hands everything that is pending to the server's NOTIFY. */
static void
send_pending(void)
{
	HASH_SEQ_STATUS status;
	Pending    *entry;
	char		payload[MAXINT8LEN + 1];

	hash_seq_init(&status, pending);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		pg_lltoa(entry->position, payload);
		Async_Notify(entry->key.channel, payload);
	}
}

static void
notify_at_transaction_end(XactEvent event, void *arg)
{
	if (pending == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
		send_pending();
	pending = NULL;
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

/*
 * Defines the setting and asks to be told of transactions' ends.
 */
void
notify_init(void)
{
	DefineCustomEnumVariable("eventstore.notify",
							 "When appends wake those who LISTEN to es_events.",
							 "commit: in the appending transaction; off: never.",
							 &notify_mode, NOTIFY_COMMIT, notify_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(notify_at_transaction_end, NULL);
	RegisterSubXactCallback(notify_at_subtransaction_end, NULL);
}
