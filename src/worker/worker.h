/*-------------------------------------------------------------------------
 *
 * worker.h
 *		Background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_WORKER_H
#define EVENTSTORE_WORKER_H

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

#endif							/* EVENTSTORE_WORKER_H */
