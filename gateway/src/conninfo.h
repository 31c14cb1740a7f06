/*-------------------------------------------------------------------------
 *
 * conninfo.h
 *		How connections to the database are opened.
 *
 * pool_keywords and pool_values of pool.h are here, too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CONNINFO_H
#define GATEWAY_CONNINFO_H

#include <libpq-fe.h>
#include <stdbool.h>

/* Reads the setting "database", and resolves the names of hosts in it; says what is wrong in the log. */
extern bool conninfo_read(void);

/* The values for statements in the background, which have no time-out. */
extern const char *const *conninfo_background_values(void);

/* Frees what conninfo_read has parsed; no connection may be opened after it. */
extern void conninfo_free(void);

/* A receiver of notices that does nothing. */
extern void conninfo_ignore_notice(void *arg, const PGresult *notice);

#endif
