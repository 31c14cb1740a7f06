/*-------------------------------------------------------------------------
 *
 * identity.h
 *		Which store this is, and in which of its incarnations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_IDENTITY_H
#define EVENTSTORE_IDENTITY_H

#include "utils/rel.h"
#include "utils/snapshot.h"

#include "log/log.h"

/* identity.c */

/* The log whose present incarnation this backend has found begun. */
extern Oid	identity_checked_log;

extern void identity_begin(Oid log, Snapshot snapshot);

/*
 * Begins a new incarnation if this is not the one that was begun last.  Each append
 * calls it.
 */
static inline void
identity_check(Log *log)
{
	if (unlikely(identity_checked_log != RelationGetRelid(log->rel)))
		identity_begin(RelationGetRelid(log->rel), log_snapshot(log));
}

/* The same for a consumer, for whom an empty log begins nothing. */
extern void identity_check_consumer(Oid log);

/*
 * Begins an incarnation in which the log is empty, in place of all before, if one has begun:
 * what is known of their positions and tokens is void.
 */
extern void identity_reset(Oid log);

/* The last token of the incarnation before, which is void, as are those before it. */
extern int64 identity_void_token(void);

#endif							/* EVENTSTORE_IDENTITY_H */
