/*-------------------------------------------------------------------------
 *
 * wake.c
 *		The LISTEN connection, which tells of new events.
 *
 * One connection listens to the channel of all events and to the channels of the
 * categories that listeners want (doc/reference/notify.md).  A notification has a
 * position.  A listener that has not read so far is woken and reads.
 *
 * Notifications alone are not enough.  They may come before the horizon has passed
 * the event, be lost with the connection, or be switched off.  So the horizon is
 * asked for, too, by one statement for all listeners, in the role of one of them:
 *
 * - each poll_interval, and
 * - soon after a notification, as long as a listener has not read as far as it was
 *	 notified of: after 5 ms, 10 ms, and so on.
 *
 * Where the horizon has passed positions that nobody notified of, all listeners
 * that are behind are woken.  Otherwise a few of those whose channels were silent
 * are, in turn, as a single transaction may have switched notifications off.  So
 * thousands of feeds cost little on a busy log that does not concern them.
 *
 * A role that may not call es_horizon() is no obstacle: then listeners are woken,
 * a few at each poll_interval, without knowing whether there is something.
 *
 * A standby refuses LISTEN.  Then polling remains.
 *
 * Whatever a listener does when it is woken, it does not unlisten.
 *
 *-------------------------------------------------------------------------
 */
#include "wake.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "buffer.h"
#include "config.h"
#include "conninfo.h"
#include "hash.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "pool.h"

#define ALL_EVENTS			"es_events"
#define CHANNEL_SIZE		64	/* of a name, with its NUL */
#define BUCKETS				256
#define COMMAND_CHANNELS	200 /* in one command */
#define URGENT_MIN			5	/* ms */
#define RECONNECT_MIN		100
#define RECONNECT_MAX		5000
#define REFUSED_PAUSE		60000	/* LISTEN was refused, as by a standby */
#define PING_INTERVAL		30000
#define PING_PATIENCE		10000
#define POLLED_AT_ONCE		64	/* listeners */

typedef struct WakeChannel
{
	struct WakeChannel *next;	/* in its bucket */
	char		name[CHANNEL_SIZE];
	LIST_HEAD(, WakeLink) links;
	bool		is_pinned;		/* that of all events */
	bool		is_heard;		/* the server knows */
	bool		is_sent;		/* the command is under way */
} WakeChannel;

typedef enum WakeState
{
	WAKE_OFF,
	WAKE_CONNECTING,
	WAKE_IDLE,
	WAKE_BUSY
} WakeState;

static WakeState wake_state;
static PGconn *wake_connection;
static LoopFd *wake_fd;
static LoopTimer wake_timer;	/* to connect, or for the next sign of life */
static int	wake_failures;
static bool wake_is_refused;
static bool wake_has_changes;	/* of channels */

static WakeChannel *wake_buckets[BUCKETS];

static LIST_HEAD(, WakeListener) wake_listeners;
static WakeListener *wake_next_polled;

static int64_t wake_notified;	/* the last position of a notification of all events */
static int64_t wake_horizon;	/* the horizon has passed it */
static int64_t wake_horizon_before; /* the same at the last but one check */

static LoopTimer check_timer;
static PoolJob *check_job;
static bool check_is_periodic;	/* the one that runs */
static int64_t check_time;		/* of the last periodic one */
static int64_t check_pause = URGENT_MIN;

static const PoolStatement check_statement = {"gateway_horizon", "SELECT es_horizon()"};

static void wake_connect(void *arg);
static void wake_ready(uint32_t events, void *arg);
static void check_due(void *arg);

/*
 * Channels
 */

static unsigned
channel_bucket(const char *name)
{
	return hash_bytes(HASH_START, name, strlen(name)) % BUCKETS;
}

static WakeChannel *
channel_find(const char *name)
{
	WakeChannel *channel = wake_buckets[channel_bucket(name)];

	while (channel != NULL && strcmp(channel->name, name) != 0)
		channel = channel->next;
	return channel;
}

static WakeChannel *
channel_get(const char *name)
{
	WakeChannel *channel = channel_find(name);
	WakeChannel **bucket = &wake_buckets[channel_bucket(name)];

	if (channel != NULL)
		return channel;
	channel = calloc(1, sizeof(WakeChannel));
	if (channel == NULL)
		return NULL;
	memcpy(channel->name, name, strlen(name) + 1);
	channel->next = *bucket;
	*bucket = channel;
	wake_has_changes = true;
	return channel;
}

static bool
channel_is_wanted(const WakeChannel *channel)
{
	return !LIST_EMPTY(&channel->links) || channel->is_pinned;
}

/* Calls back for each; the callback may free it. */
static void
channel_each(void (*callback) (WakeChannel *channel, void *arg), void *arg)
{
	for (int i = 0; i < BUCKETS; i++)
		for (WakeChannel *channel = wake_buckets[i], *next; channel != NULL; channel = next)
		{
			next = channel->next;
			callback(channel, arg);
		}
}

static void
channel_free(WakeChannel *channel, void *arg)
{
	WakeChannel **place = &wake_buckets[channel_bucket(channel->name)];

	(void) arg;
	while (*place != channel)
		place = &(*place)->next;
	*place = channel->next;
	free(channel);
}

static void
channel_forget(WakeChannel *channel, void *arg)
{
	channel->is_heard = false;
	channel->is_sent = false;
	if (!channel_is_wanted(channel))
		channel_free(channel, arg);
}

/*
 * Listeners
 */

static int64_t
listener_knows(const WakeListener *listener)
{
	return listener->position > listener->checked ? listener->position : listener->checked;
}

static void
listener_wake(WakeListener *listener)
{
	listener->wake(listener->arg);
}

static void
channel_wake_all(const WakeChannel *channel)
{
	for (WakeLink *link = LIST_FIRST(&channel->links); link != NULL; link = LIST_NEXT(link, link))
		listener_wake(link->listener);
}

static void
listener_unlink(WakeLink *link)
{
	LIST_REMOVE(link, link);
	if (!channel_is_wanted(link->channel))
		wake_has_changes = true;
}

static bool
listener_link(WakeListener *listener, const char *name)
{
	WakeChannel *channel = channel_get(name);
	WakeLink   *link = &listener->links[listener->link_count];

	if (channel == NULL)
		return false;
	link->listener = listener;
	link->channel = channel;
	LIST_INSERT_HEAD(&channel->links, link, link);
	listener->link_count++;
	return true;
}

/* The channel of a category whose name is short; others listen to all events. */
static bool
channel_of_category(const char *category, char *name)
{
	size_t		length = strlen(category);

	if (length + sizeof(ALL_EVENTS) + 1 > CHANNEL_SIZE)
		return false;
	memcpy(name, ALL_EVENTS ":", sizeof(ALL_EVENTS));
	memcpy(name + sizeof(ALL_EVENTS), category, length + 1);
	return true;
}

static bool
listener_link_categories(WakeListener *listener, const char *const *categories, int count)
{
	char		name[CHANNEL_SIZE];

	if (count == 0 || count > WAKE_MAX_CATEGORIES)
		return listener_link(listener, ALL_EVENTS);
	for (int i = 0; i < count; i++)
		if (!channel_of_category(categories[i], name))
			return listener_link(listener, ALL_EVENTS);
	for (int i = 0; i < count; i++)
	{
		channel_of_category(categories[i], name);
		if (!listener_link(listener, name))
			return false;
	}
	return true;
}

static void
listener_remove(WakeListener *listener)
{
	if (wake_next_polled == listener)
		wake_next_polled = LIST_NEXT(listener, link);
	LIST_REMOVE(listener, link);
}

/*
 * The connection
 */

static void
wake_close(void)
{
	if (wake_fd != NULL)
		loop_remove_fd(wake_fd);
	wake_fd = NULL;
	if (wake_connection != NULL)
		PQfinish(wake_connection);
	wake_connection = NULL;
	wake_state = WAKE_OFF;
	loop_timer_stop(&wake_timer);
	channel_each(channel_forget, NULL);
	wake_has_changes = true;
}

static void
wake_reconnect_later(const char *why)
{
	int64_t		delay = RECONNECT_MIN;

	if (wake_failures++ == 0)
		log_line(LOG_LEVEL_WARNING, "listen_lost", LOG_TEXT("reason", why));
	for (int i = 1; i < wake_failures && delay < RECONNECT_MAX; i++)
		delay *= 2;
	if (wake_is_refused)
		delay = REFUSED_PAUSE;
	wake_close();
	loop_timer_start(&wake_timer, delay < RECONNECT_MAX || wake_is_refused ? delay : RECONNECT_MAX,
					 wake_connect, NULL);
}

static void
wake_fail(void)
{
	char		why[200];
	const char *message = PQerrorMessage(wake_connection);
	size_t		length = strcspn(message, "\n");

	if (length >= sizeof(why))
		length = sizeof(why) - 1;
	memcpy(why, message, length);
	why[length] = '\0';
	wake_reconnect_later(why);
}

static void
wake_silent(void *arg)
{
	(void) arg;
	wake_reconnect_later("the server does not answer");
}

/* libpq may change its socket while it connects. */
static void
wake_watch(uint32_t events)
{
	if (wake_fd != NULL)
		loop_remove_fd(wake_fd);
	wake_fd = loop_add_fd(PQsocket(wake_connection), events, wake_ready, NULL);
	if (wake_fd == NULL)
		wake_reconnect_later("out of memory");
}

static void
wake_send(const char *command)
{
	if (!PQsendQuery(wake_connection, command))
	{
		wake_fail();
		return;
	}
	wake_state = WAKE_BUSY;
	loop_timer_start(&wake_timer, PING_PATIENCE, wake_silent, NULL);
	if (PQflush(wake_connection) == 1)
		loop_change_fd(wake_fd, EPOLLIN | EPOLLOUT);
}

static void
wake_ping(void *arg)
{
	(void) arg;
	if (wake_state == WAKE_IDLE)
		wake_send("LISTEN " ALL_EVENTS);	/* again, which does nothing */
}

typedef struct ChannelCommand
{
	Buffer		text;
	int			count;
} ChannelCommand;

static void
channel_add_command(WakeChannel *channel, void *arg)
{
	ChannelCommand *command = arg;
	char	   *name;

	if (channel_is_wanted(channel) == channel->is_heard || command->count == COMMAND_CHANNELS)
	{
		if (!channel_is_wanted(channel) && !channel->is_heard)
			channel_free(channel, NULL);
		return;
	}
	name = PQescapeIdentifier(wake_connection, channel->name, strlen(channel->name));
	if (name == NULL)
		return;					/* not in the encoding of the database, so there are no such events */
	buffer_printf(&command->text, "%s %s;", channel->is_heard ? "UNLISTEN" : "LISTEN", name);
	PQfreemem(name);
	channel->is_sent = true;
	command->count++;
}

/* Tells the server of channels that are wanted now, or are not any more. */
static void
wake_send_changes(void)
{
	ChannelCommand command = {{0}, 0};

	if (wake_state != WAKE_IDLE || !wake_has_changes)
		return;
	wake_has_changes = false;
	channel_each(channel_add_command, &command);
	if (command.count == COMMAND_CHANNELS)
		wake_has_changes = true;
	if (command.text.failed)
		wake_reconnect_later("out of memory");
	else if (command.count > 0)
		wake_send(command.text.data);
	buffer_free(&command.text);
}

/* A change came while the connection could not send it, or more than one command has. */
static void
channel_confirm(WakeChannel *channel, void *arg)
{
	if (!channel->is_sent)
		return;
	channel->is_sent = false;
	channel->is_heard = !channel->is_heard;
	if (channel->is_heard)
		channel_wake_all(channel);
	else if (!channel_is_wanted(channel))
		channel_free(channel, arg);
	else
		wake_has_changes = true;
}

static void
wake_command_done(void)
{
	wake_state = WAKE_IDLE;
	loop_timer_start(&wake_timer, PING_INTERVAL, wake_ping, NULL);
	channel_each(channel_confirm, NULL);
	if (wake_failures > 0)
		log_line(LOG_LEVEL_INFO, "listening_again", LOG_NUMBER("attempts", wake_failures));
	wake_failures = 0;
	wake_is_refused = false;
	wake_send_changes();
}

static void
wake_results(void)
{
	while (!PQisBusy(wake_connection))
	{
		PGresult   *result = PQgetResult(wake_connection);

		if (result == NULL)
		{
			wake_command_done();
			return;
		}
		if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		{
			const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

			wake_is_refused = state != NULL && strcmp(state, "25006") == 0;
			PQclear(result);
			wake_fail();
			return;
		}
		PQclear(result);
	}
}

/*
 * Notifications
 */

static void
channel_notify(const WakeChannel *channel, int64_t position)
{
	for (WakeLink *link = LIST_FIRST(&channel->links); link != NULL; link = LIST_NEXT(link, link))
	{
		WakeListener *listener = link->listener;

		if (position > 0 && position <= listener_knows(listener))
			continue;
		if (position > listener->notified)
			listener->notified = position;
		check_pause = URGENT_MIN;
		listener_wake(listener);
	}
}

static void
wake_notification(const PGnotify *notification)
{
	const WakeChannel *channel = channel_find(notification->relname);
	char	   *end;
	int64_t		position = strtoll(notification->extra, &end, 10);

	/* What is no position is somebody else's NOTIFY, and wakes at any rate. */
	if (end == notification->extra || *end != '\0' || position < 0)
		position = 0;
	metrics.wakeups++;
	if (channel == NULL)
		return;
	if (channel->is_pinned && position > wake_notified)
		wake_notified = position;
	channel_notify(channel, position);
	if (check_timer.place != 0 && check_timer.due > loop_now() + check_pause)
		loop_timer_start(&check_timer, check_pause, check_due, NULL);
}

static void
wake_read(void)
{
	PGnotify   *notification;

	if (!PQconsumeInput(wake_connection))
	{
		wake_fail();
		return;
	}
	while (wake_connection != NULL && (notification = PQnotifies(wake_connection)) != NULL)
	{
		wake_notification(notification);
		PQfreemem(notification);
	}
	if (wake_state == WAKE_BUSY)
		wake_results();
}

static void
wake_connected(void)
{
	PQsetnonblocking(wake_connection, 1);
	wake_state = WAKE_IDLE;
	/* It may be another database, or one that was restored: what was known is not. */
	wake_notified = 0;
	wake_horizon = 0;
	wake_horizon_before = 0;
	for (WakeListener *listener = LIST_FIRST(&wake_listeners); listener != NULL; listener = LIST_NEXT(listener, link))
	{
		listener->checked = 0;
		listener->notified = 0;
	}
	wake_watch(EPOLLIN);
	wake_send_changes();
}

static void
wake_ready(uint32_t events, void *arg)
{
	(void) arg;
	if (wake_state == WAKE_CONNECTING)
	{
		switch (PQconnectPoll(wake_connection))
		{
			case PGRES_POLLING_READING:
				wake_watch(EPOLLIN);
				break;
			case PGRES_POLLING_WRITING:
				wake_watch(EPOLLOUT);
				break;
			case PGRES_POLLING_OK:
				wake_connected();
				break;
			default:
				wake_fail();
		}
		return;
	}
	if ((events & EPOLLOUT) != 0)
	{
		int			more = PQflush(wake_connection);

		if (more < 0)
		{
			wake_fail();
			return;
		}
		if (more == 0)
			loop_change_fd(wake_fd, EPOLLIN);
	}
	wake_read();
}

static void
wake_connect(void *arg)
{
	(void) arg;
	wake_connection = PQconnectStartParams(pool_keywords(), pool_values(), 0);
	if (wake_connection == NULL)
	{
		wake_reconnect_later("out of memory");
		return;
	}
	PQsetNoticeReceiver(wake_connection, conninfo_ignore_notice, NULL);
	wake_state = WAKE_CONNECTING;
	if (PQstatus(wake_connection) == CONNECTION_BAD)
	{
		wake_fail();
		return;
	}
	PQsetNoticeReceiver(wake_connection, pool_ignore_notice, NULL);
	loop_timer_start(&wake_timer, config.connect_timeout * 1000, wake_silent, NULL);
	wake_watch(EPOLLOUT);
}

/*
 * The horizon
 */

/* Returns true if a listener was notified of more than it has read or looked at. */
static bool
check_is_urgent(void)
{
	for (WakeListener *listener = LIST_FIRST(&wake_listeners); listener != NULL; listener = LIST_NEXT(listener, link))
		if (listener->notified > listener_knows(listener))
			return true;
	return false;
}

/* Wakes a few listeners, beginning where the last time ended. */
static void
check_wake_some(bool horizon_is_known)
{
	WakeListener *listener = wake_next_polled;
	int			left = POLLED_AT_ONCE;

	for (bool is_round = false; left > 0; listener = LIST_NEXT(listener, link))
	{
		if (listener == NULL)
		{
			if (is_round || LIST_EMPTY(&wake_listeners))
				break;
			is_round = true;
			listener = LIST_FIRST(&wake_listeners);
		}
		if (is_round && listener == wake_next_polled)
			break;
		if (!listener->is_polled || (horizon_is_known && listener->position >= wake_horizon))
			continue;
		listener_wake(listener);
		left--;
	}
	wake_next_polled = listener;
}

static void
check_wake_all(bool is_full)
{
	for (WakeListener *listener = LIST_FIRST(&wake_listeners); listener != NULL; listener = LIST_NEXT(listener, link))
		if ((is_full || listener->notified > listener_knows(listener)) && wake_horizon > listener_knows(listener))
			listener_wake(listener);
}

static void
check_again(void)
{
	int64_t		delay = check_time + config.poll_interval - loop_now();

	if (LIST_EMPTY(&wake_listeners))
		return;
	if (check_is_urgent())
	{
		if (check_pause < delay)
		{
			delay = check_pause;
			check_pause *= 2;
		}
	}
	loop_timer_start(&check_timer, delay > 0 ? delay : 0, check_due, NULL);
}

static void
check_done(PoolOutcome outcome, PGresult *result, void *arg)
{
	bool		is_known = outcome == POOL_DONE && PQntuples(result) == 1;

	(void) arg;
	check_job = NULL;
	if (is_known)
		wake_read_upto(strtoll(PQgetvalue(result, 0, 0), NULL, 10));
	PQclear(result);
	check_wake_all(check_is_periodic && wake_horizon_before > wake_notified);
	if (check_is_periodic && (is_known || outcome == POOL_SQL_ERROR))
	{
		check_wake_some(is_known);
		wake_horizon_before = wake_horizon;
	}
	check_again();
}

/* Somebody has read further, or it is time to look. */
static void
check_due(void *arg)
{
	const WakeListener *next = wake_next_polled != NULL ? wake_next_polled : LIST_FIRST(&wake_listeners);

	(void) arg;
	if (next == NULL || check_job != NULL)
		return;
	check_is_periodic = loop_now() >= check_time + config.poll_interval;
	if (check_is_periodic)
		check_time = loop_now();
	if (check_is_periodic || check_is_urgent())
		check_job = pool_submit(&check_statement, NULL, NULL, 0, next->role, POOL_READ_ONLY, check_done, NULL);
	if (check_job == NULL)
		check_again();
}

/*
 * Interface
 */

bool
wake_start(void)
{
	WakeChannel *all = channel_get(ALL_EVENTS);

	if (all == NULL)
		return false;
	all->is_pinned = true;
	wake_connect(NULL);
	return true;
}

void
wake_stop(void)
{
	if (check_job != NULL)
		pool_cancel(check_job);
	check_job = NULL;
	loop_timer_stop(&check_timer);
	wake_close();
	channel_each(channel_free, NULL);
}

bool
wake_listen(WakeListener *listener, const char *const *categories, int count)
{
	listener->checked = 0;
	listener->notified = 0;
	listener->link_count = 0;
	LIST_INSERT_HEAD(&wake_listeners, listener, link);
	if (!listener_link_categories(listener, categories, count))
	{
		wake_unlisten(listener);
		return false;
	}
	wake_send_changes();
	if (check_timer.place == 0 && check_job == NULL)
		check_again();
	return true;
}

void
wake_unlisten(WakeListener *listener)
{
	for (int i = 0; i < listener->link_count; i++)
		listener_unlink(&listener->links[i]);
	listener->link_count = 0;
	listener_remove(listener);
	wake_send_changes();
}

void
wake_looks(WakeListener *listener)
{
	listener->checked = wake_horizon;
}

void
wake_read_upto(int64_t position)
{
	if (position > wake_horizon)
		wake_horizon = position;
}
