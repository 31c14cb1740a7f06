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

/* worker.c */

/* Defines eventstore.poll_interval. */
extern void worker_init(void);

/* Reads the configuration files again if the server asks for it. */
extern void worker_reload_settings(void);

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
