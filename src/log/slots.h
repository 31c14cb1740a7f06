/*-------------------------------------------------------------------------
 *
 * slots.h
 *		Which streams are of this store, where a log is spread over several stores.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_SLOTS_H
#define EVENTSTORE_SLOTS_H

#include "log/log.h"

/* slots.c */

/* The trigger of es_events whose argument names the slots. */
#define SLOTS_TRIGGER "es_events_accept"

/*
 * Returns the slots that a BEFORE INSERT trigger of es_events names, as text; NULL if it is
 * another trigger.
 */
extern const char *slots_of_trigger(const Trigger *trigger);

/* Refuses a stream that is not in the slots.  Error: ES009. */
extern void slots_check_stream(const char *slots, text *stream);

/*
 * The same of the store, for a caller that has locked the log.
 */
extern void slots_check_relid(Oid log, text *stream);

/* The same of the opened log. */
static inline void
slots_check(const Log *log, text *stream)
{
	if (log->own_slots != NULL)
		slots_check_stream(log->own_slots, stream);
}

#endif							/* EVENTSTORE_SLOTS_H */
