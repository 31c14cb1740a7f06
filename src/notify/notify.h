/*-------------------------------------------------------------------------
 *
 * notify.h
 *		Notifications of new events, and wake-ups of workers and consumers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_NOTIFY_H
#define EVENTSTORE_NOTIFY_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "log/log.h"

/* wakeup.c */

/* How far the events of a log have been announced to who listens. */
typedef struct Published
{
	Oid			log;
	int64		position;		/* the last event that was announced */
	int64		stored;			/* what es_notified says of it */
	TimestampTz at;				/* when, and when that was stored */
	TimestampTz stored_at;
	double		pause;			/* ms that must follow, at least */
} Published;

extern void wakeup_init(void);
extern List *worker_slot_databases(void);
extern void wakeup_send(void);
extern bool worker_slot_notifies(void);
extern bool worker_slot_join(const char *database);
extern uint64 wakeup_count(void);
extern void worker_slot_set_notifying(bool sending);
extern void worker_slot_set_working(bool working);
extern bool wakeup_is_possible(void);
extern bool wakeup_begin_wait(uint64 ends);
extern void wakeup_end_wait(void);
extern bool worker_slot_get_published(Oid log, Published *announced);
extern void worker_slot_set_published(const Published *announced);
extern void worker_slot_set_pause(double pause);

/* notify.c */

/* What came of an attempt to announce events. */
typedef enum AnnounceResult
{
	ANNOUNCE_NOTHING_NEW,
	ANNOUNCE_LATER,				/* too soon, or somebody else is at it */
	ANNOUNCE_DONE
} AnnounceResult;

extern int	notify_interval;

extern void notify_init(void);
extern void notify_expect(void);
extern void notify_events(const NewEvent *events, int count);
extern bool notify_is_by_worker(void);
extern AnnounceResult announce_run(Oid log);
extern void announce_set_cost(double milliseconds);

#endif							/* EVENTSTORE_NOTIFY_H */
