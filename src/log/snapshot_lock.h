/*-------------------------------------------------------------------------
 *
 * snapshot_lock.h
 *		The lock between who saves a stream's state and who changes its events, and the
 *		deletion of states by the latter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_SNAPSHOT_LOCK_H
#define EVENTSTORE_SNAPSHOT_LOCK_H

#include "postgres.h"

/*
 * Lets nobody save a state of the stream to the end of the transaction, which changes or
 * removes events of it.  It waits, and is taken before the stream is locked.
 */
extern void snapshot_lock_to_change(text *stream);
extern void snapshot_lock_all_to_change(const Datum *streams, int count);

/* The same of nobody changing events.  Returns false, without waiting, if somebody does. */
extern bool snapshot_lock_to_save(text *stream);

/*
 * Deletes what was folded from events of the stream, and of events with the tags (0: none),
 * which have changed or are gone.  They are locked.  SPI is connected.
 */
extern void snapshot_lock_forget(Oid log, text *stream, Datum tags);

#endif							/* EVENTSTORE_SNAPSHOT_LOCK_H */
