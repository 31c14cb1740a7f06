/*-------------------------------------------------------------------------
 *
 * health.h
 *		What needs a human: the view es_health.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_HEALTH_H
#define EVENTSTORE_HEALTH_H

/* Defines eventstore.health_delay. */
extern void health_init(void);

#endif							/* EVENTSTORE_HEALTH_H */
