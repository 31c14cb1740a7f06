/*-------------------------------------------------------------------------
 *
 * closed.h
 *		Stores that are closed until their restore is finished.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_CLOSED_H
#define EVENTSTORE_CLOSED_H

#include "utils/relcache.h"

/* log_closed.c */

/* Stands on es_events while what was added to the tables is still to be restored. */
#define CLOSED_POLICY "es_closed"

extern bool log_is_closed(Relation log);
extern bool log_relid_is_closed(Oid relid);

/* Refuse to go on if the store is closed. */
extern void log_check_open(Relation log);
extern void log_check_relid_open(Oid relid);

/* Returns true if the session has the settings of a script of pg_dump. */
extern bool log_restore_has_settings(void);

/* Lets projections wait for the end of this session, if it restores; or no longer. */
extern void log_restore_begin(void);
extern void log_restore_end(void);

/* Returns true if rows of read models may be missing; or waits until none are. */
extern bool log_restore_is_going_on(Oid relid);
extern void log_restore_wait(Oid relid);

/* drop_guard.c */

/* Hooks in, and makes the setting. */
extern void drop_guard_init(void);

#endif							/* EVENTSTORE_CLOSED_H */
