/*-------------------------------------------------------------------------
 *
 * replica.h
 *		Logical replicas: logs whose events a subscription brings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_REPLICA_H
#define EVENTSTORE_REPLICA_H

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* replica.c */

/*
 * The next_xid of an event that logical replication has brought: it proves nothing of the
 * positions below, since events arrive in the order of their commits.
 */
#define NEXT_XID_APPLIED	PG_UINT64_MAX

/* Returns true if a subscription brings events to the log. */
extern bool replica_is_subscribed(Oid log);

/* The horizon of a log that has a subscription, as far as the snapshot sees; or 0. */
extern int64 replica_horizon(Oid log, Snapshot snapshot);

/* Returns true if the last event that the snapshot sees came by logical replication. */
extern bool replica_ends_applied(Oid log, Snapshot snapshot);

/* Refuses to write to a log that has a subscription; what: "append events". */
extern void replica_refuse(Oid log, const char *what);

/* The same for a log whose subscription has ended, and that was not promoted. */
extern void replica_fail_not_promoted(const char *what);

/* Refuses rows of subscriptions that do not bring the log and its horizon together. */
extern void replica_check_apply(Oid log);

/* log_guard.c */

/* Lets a worker look for what logical replication has brought. */
extern void log_guard_note_applied(void);

/* Returns true if logical replication has applied rows since the last call. */
extern bool log_guard_take_applied(void);

/* replica_change.c */

/* Does what goes along with an applied change of an event; new_row: NULL if it is removed. */
extern void replica_apply_change(Relation log, HeapTuple old_row, HeapTuple new_row);

#endif							/* EVENTSTORE_REPLICA_H */
