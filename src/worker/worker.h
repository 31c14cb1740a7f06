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
extern void worker_init(void);

#endif							/* EVENTSTORE_WORKER_H */
