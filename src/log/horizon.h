/*-------------------------------------------------------------------------
 *
 * horizon.h
 *		The horizon, up to which the log is complete.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_HORIZON_H
#define EVENTSTORE_HORIZON_H

#include "access/transam.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* published_horizon.c */

/* The published position, as the snapshot sees it; 0 if there is none. */
extern int64 published_horizon_read(Oid log, Snapshot snapshot);

/* Publishes a higher position.  Returns false if another worker is doing so. */
extern bool published_horizon_write(Oid log, int64 position);

/* The same, and waits for the other worker. */
extern void published_horizon_raise(Oid log, int64 position);

/*
 * What this process remembers of the position up to which readers elsewhere know that the
 * log is stable; to_subscribers: whether a publication has the table.
 */
extern int64 *published_horizon_known(Oid log, Snapshot snapshot, bool *to_subscribers);

/* horizon_search.c */

/* A search has come to an event that logical replication has brought. */
#define HORIZON_APPLIED		(-1)

/*
 * The horizon that follows if no transaction below "oldest" is in doubt, and everything
 * up to "stable" is known to be stable.  stop_at_applied: HORIZON_APPLIED at an applied event.
 */
extern int64 horizon_search(Relation log, Snapshot snapshot, FullTransactionId oldest,
							int64 stable, bool stop_at_applied);

/* horizon.c */

/* The file of the log: es_reset() gives it a new one, and positions begin anew. */
extern Oid	log_file(Oid log);

/* The horizon for a reader with the snapshot; 0 if there is none. */
extern int64 horizon_find(Oid log, Snapshot snapshot);

/* The horizon of this moment, at every isolation level. */
extern int64 horizon_now(Oid log);

/*
 * Publishes the horizon of the active snapshot if standbys or subscribers need it.  Only for a
 * worker of the primary.  Returns true if it should be called again soon.
 */
extern bool horizon_publish(Oid log);

#endif							/* EVENTSTORE_HORIZON_H */
