/*-------------------------------------------------------------------------
 *
 * reset.h
 *		Emptying a store between tests.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_RESET_H
#define EVENTSTORE_RESET_H

#include "nodes/pg_list.h"

/* reset.c */

/* Defines eventstore.test_mode. */
extern void reset_init(void);

/* reset_check.c: what is refused */

/* Defines the setting itself. */
extern void reset_define_setting(void);

/* Refuses a database that is not for tests, a transaction that has appended, and others. */
extern void reset_check(Oid log);

/* reset_lock.c */

/*
 * Locks the tables against all others to the end of the transaction.  Other sessions that
 * use them are refused, and workers waited for.
 */
extern void reset_lock(List *tables);

/* reset_tables.c: SPI must be connected */

/* The relations of the extension that are emptied or changed. */
extern List *reset_own_tables(Oid log);

/* The tables of read models, of all projections. */
extern List *reset_read_models(Oid log);

/* Empty them, and let all definitions begin anew. */
extern void reset_empty_tables(Oid log);
extern void reset_empty_read_models(Oid log);
extern void reset_definitions(Oid log);
extern void reset_refresh_views(Oid log);

#endif							/* EVENTSTORE_RESET_H */
