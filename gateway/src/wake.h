/*-------------------------------------------------------------------------
 *
 * wake.h
 *		The LISTEN connection, which tells of new events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_WAKE_H
#define GATEWAY_WAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/* At most so many categories has a listener; one with more is woken by all. */
#define WAKE_MAX_CATEGORIES	8

struct WakeChannel;
typedef struct WakeListener WakeListener;

typedef struct WakeLink
{
	LIST_ENTRY(WakeLink) link;
	WakeListener *listener;
	struct WakeChannel *channel;
} WakeLink;

/* Part of whoever reads when there is something new. */
struct WakeListener
{
	int64_t		position;		/* it has read everything up to here; it keeps this up to date */
	bool		is_polled;		/* it wants to be woken, too, where no notification has come */
	const char *role;			/* may read es_horizon() */
	void		(*wake) (void *arg);
	void	   *arg;

	/* of wake.c */
	int64_t		checked;		/* it has looked when the horizon had passed this */
	int64_t		notified;		/* of an event at this position */
	LIST_ENTRY(WakeListener) link;
	int			link_count;
	WakeLink	links[WAKE_MAX_CATEGORIES];
};

/* Opens the connection, which goes on in the loop. */
extern bool wake_start(void);
extern void wake_stop(void);

/*
 * Begins to wake a listener whose first five members are set: at events of these categories, or at all if there
 * is none. It is called, too, when the channels are listened to, as events may have come before.
 */
extern bool wake_listen(WakeListener *listener, const char *const *categories, int count);
extern void wake_unlisten(WakeListener *listener);

/* The listener begins to look for what is new: what was known before need not wake it again. */
extern void wake_looks(WakeListener *listener);

/* Somebody has read up to a position, so the horizon has passed it. */
extern void wake_read_upto(int64_t position);

#endif
