/*-------------------------------------------------------------------------
 *
 * notify.h
 *		Notifications of new events, and wake-ups of the processes that wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_NOTIFY_H
#define EVENTSTORE_NOTIFY_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"

#include "log/log.h"

/* worker_process.c */

extern void worker_process_describe(BackgroundWorker *process,
									const char *function, const char *type);

/* Registers a worker; returns false if no background process is free. */
extern bool worker_process_start(Oid database, int restart_time,
								 BackgroundWorkerHandle **handle);

/* The same for one of this database that leaves when it is idle; it cannot fail. */
extern bool worker_process_autostart(void);
extern bool worker_process_is_autostarted(void);
extern int	worker_process_free_count(void);

/* worker_lock.c: workers of a database that has no slot, as their locks show them */

/* Greatest value of eventstore.autostart_workers. */
#define AUTOSTART_MAX_WORKERS	32

typedef enum TokenResult
{
	TOKEN_TAKEN,
	TOKEN_OF_ANOTHER,			/* a session starts a worker at this moment */
	TOKEN_NO_PLACE				/* all are taken */
} TokenResult;

/* Returns true if a worker serves this database, or promises to notify soon. */
extern bool worker_lock_is_served(void);
extern bool worker_lock_is_promised(void);

/* Makes this worker the one that serves, unless there is another; and whether it is. */
extern bool worker_lock_serve(void);
extern bool worker_lock_serves(void);
extern void worker_lock_set_promising(bool value);
extern void worker_lock_renew_promise(void);

/* Takes one of so many places of the cluster; or sees whether there is one. */
extern bool worker_lock_take_place(int places);
extern bool worker_lock_place_is_free(int places);
extern void worker_lock_release_all(void);

/* Makes this session the one that starts a worker, for this second of the clock. */
extern TokenResult worker_lock_take_tokens(int places);

/* Releases the tokens of a second that is over. */
extern void worker_lock_end_tokens(void);

/* autostart.c */

extern int	autostart_workers;

/* Defines eventstore.autostart_workers. */
extern void autostart_init(void);

/*
 * Starts a worker before this transaction, which has a lock on the log, is committed, if
 * no worker serves the database then.
 */
extern void autostart_want(void);

/* The same after the commit, for a transaction that has no such lock. */
extern void autostart_want_after_commit(void);

/* Starts one now; called again and again while the caller waits. */
extern void autostart_now(void);

/* At the end of transactions; neither fails. */
extern void autostart_before_commit(void);
extern void autostart_after_commit(void);
extern void autostart_forget(void);

/* worker_slot.c */

/* How far listeners have been notified of a log by workers. */
typedef struct Notified
{
	Oid			log;
	Oid			file;			/* of the log, which es_reset() replaces */
	int64		position;		/* of the last event */
	int64		stored;			/* what es_notified says of it */
	TimestampTz at;				/* when, and when that was stored */
	TimestampTz stored_at;
	double		pause;			/* least pause afterwards, in milliseconds */
} Notified;

/*
 * Defines eventstore.databases and requests the memory, while the server loads
 * its libraries.
 */
extern void worker_slot_init(void);

/* Returns the names of eventstore.databases, each once. */
extern List *worker_slot_databases(void);

/* Returns how many databases have a slot. */
extern int	worker_slot_count(void);

/* Returns the number of the slot of this database; -1 if it has none yet. */
extern int	worker_slot_number(void);

/* Returns true if the launcher starts workers for the database of this name. */
extern bool worker_slot_is_listed(const char *database);

/* Returns true if a worker of this database will notify listeners soon. */
extern bool worker_slot_notifies(void);

/*
 * Returns true if an appender may have relied on a worker before now, also on one that is
 * in a long transaction by now.  Only for a worker.
 */
extern bool worker_slot_may_owe(void);

/*
 * Makes this process a worker of its database, whose name is given.  Returns
 * false if there is no place: it can work, but nothing wakes it.
 */
extern bool worker_slot_join(const char *database);

/* Says whether appenders may leave their notifications to this worker. */
extern void worker_slot_set_notifying(bool notifying);

/* Says that this worker starts a transaction, or has ended it. */
extern void worker_slot_set_working(bool working);

/*
 * Finds how far workers have notified of the log.  Returns false if the memory
 * does not know, or if this process has not joined.
 */
extern bool worker_slot_get_notified(Oid log, Notified *notified);
extern void worker_slot_set_notified(const Notified *notified);

/*
 * Makes this worker the one that serves a database without a slot.  Returns false if
 * another does.
 */
extern bool worker_slot_serve(void);

/* The same after an error has released the lock; it knows how far it has notified. */
extern void worker_slot_go_on_serving(void);

/* How far this worker has notified of the log; -1: not at all. */
extern int64 worker_slot_last_served(Oid log);

/* Sets the least pause before workers notify again, in milliseconds. */
extern void worker_slot_set_pause(double pause);

/* wakeup.c */

/* Requests the memory; after worker_slot_init. */
extern void wakeup_init(void);

/* Returns true if appenders of this database wake the processes that wait. */
extern bool wakeup_is_possible(void);

/* Returns how many transactions of appenders have ended in this database. */
extern uint64 wakeup_count(void);

/*
 * Counts a transaction of an appender that is over, and wakes the processes
 * that wait.  It cannot fail, as the transaction may have been committed.
 */
extern void wakeup_send(void);

/*
 * From now on the next transaction of an appender that ends sets the latch of
 * this process.  Returns false if one has ended since the count was read.
 */
extern bool wakeup_begin_wait(uint64 count);
extern void wakeup_end_wait(void);

/* notify.c */

/* The channel of all events. */
#define NOTIFY_CHANNEL "es_events"

/* Defines eventstore.notify and asks for a call at the end of transactions. */
extern void notify_init(void);

/* Writes the channel of a category into a buffer of NAMEDATALEN bytes. */
extern void notify_write_channel(const char *category, int length, char *channel);

/* Notifies the listeners of a channel; the payload is the position. */
extern void notify_position(const char *channel, int64 position);

/*
 * Wakes the processes that wait when this transaction ends, committed or not:
 * it is about to draw positions, or lets a subscription deliver more.
 */
extern void notify_wake_at_end(void);

/*
 * Notifies the listeners of these events when this transaction commits, unless
 * a worker will.
 */
extern void notify_events(const NewEvent *events, int count);

/* Returns true if workers notify listeners, as far as eventstore.notify says. */
extern bool notify_is_by_worker(void);

/* announce.c */

/* What came of an attempt to notify. */
typedef enum AnnounceResult
{
	ANNOUNCE_NOTHING_NEW,
	ANNOUNCE_LATER,				/* too soon, or another worker is at it */
	ANNOUNCE_DONE
} AnnounceResult;

extern int	notify_interval;

/* Defines eventstore.notify_interval and asks for a call at the end of
 * transactions. */
extern void announce_init(void);

/*
 * Notifies listeners of what is new up to the horizon, for a worker, by the
 * commit of this transaction.  Needs an active snapshot.
 */
extern AnnounceResult announce_run(Oid log);

/*
 * Returns true if listeners are to be notified by this worker, which served the database
 * until a moment ago, of an event up to the horizon.
 */
extern bool announce_is_behind(Oid log, int64 horizon);

/*
 * Says how much time of a processor the notifications took, in milliseconds,
 * from which the pause until the next follows.
 */
extern void announce_set_cost(double milliseconds);

#endif							/* EVENTSTORE_NOTIFY_H */
