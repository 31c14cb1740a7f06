/*-------------------------------------------------------------------------
 *
 * worker.h
 *		Background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_WORKER_H
#define EVENTSTORE_WORKER_H

#include "postmaster/bgworker.h"
#include "utils/palloc.h"

/* worker.c */

/* Defines eventstore.poll_interval. */
extern void worker_init(void);

/* Reads the configuration files again if the server asks for it. */
extern void worker_reload_settings(void);

/*
 * Starts a transaction and returns the log, locked against being dropped.  The worker
 * ends if there is none.
 */
extern Oid	worker_begin_transaction(const char *activity);

/* Sets what the commit of this transaction waits for. */
extern void worker_set_synchronous_commit(const char *value);

/* Ends the transaction, and forgets what is in the context. */
extern void worker_end_transaction(MemoryContext context);

/* Logs an error, unless SIGTERM raised it, and cleans up after it. */
extern void worker_recover(MemoryContext context);

/* leave.c */

/* Begins as a worker of a database that has a slot, or none.  It may end here. */
extern void leave_begin(bool has_slot);

/*
 * Makes this worker the one that serves its database, if none does, for the next round.
 * Returns false if another does; one that was started by itself ends then.
 */
extern bool leave_serve(void);

/* Returns true if appenders may leave their notifications to this worker. */
extern bool leave_is_awake(void);

/* Notes that a round had something to do. */
extern void leave_note_work(void);

/* What follows a round that had nothing to do: naps, sleeps so long, or leaves. */
extern void leave_rest(MemoryContext context, long sleep);

/* launcher.c */

/*
 * Defines eventstore.workers and registers the launcher, while the server
 * loads its libraries.
 */
extern void launcher_init(void);

/* worker_count.c */

/*
 * Refuses (53400) one more worker than the database may have; others that want one wait
 * until worker_count_end, which waits until the new one can be counted.
 */
extern void worker_count_begin(int limit);
extern void worker_count_end(BackgroundWorkerHandle *handle, int pid);

#endif							/* EVENTSTORE_WORKER_H */
