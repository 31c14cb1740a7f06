/*-------------------------------------------------------------------------
 *
 * drop_guard.h
 *		Keeps the log from being dropped by the way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_DROP_GUARD_H
#define EVENTSTORE_DROP_GUARD_H

/* drop_guard.c */

/* Hooks in, and makes the setting. */
extern void drop_guard_init(void);

#endif							/* EVENTSTORE_DROP_GUARD_H */
