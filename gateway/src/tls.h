/*-------------------------------------------------------------------------
 *
 * tls.h
 *		The certificate and its key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_TLS_H
#define GATEWAY_TLS_H

#include <stdbool.h>

/* GnuTLS's words for TLS 1.2 and 1.3, with the ciphers that the library holds to be good. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Checks the files of the settings, and forgets them.  Says in the log what is wrong. */
extern bool tls_check(void);

/* Reads the files.  They stay in memory as long as the gateway runs. */
extern bool tls_load(void);

/* The files' text. */
extern const char *tls_certificate(void);
extern const char *tls_key(void);

/* Wipes them. */
extern void tls_free(void);

#endif							/* GATEWAY_TLS_H */
