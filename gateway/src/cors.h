/*-------------------------------------------------------------------------
 *
 * cors.h
 *		Which pages of other sites may use the gateway (CORS).
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CORS_H
#define GATEWAY_CORS_H

#include <stdbool.h>

#include "request.h"

/* Checks the setting cors_origins.  Says in the log what is wrong. */
extern bool cors_load(void);
extern void cors_free(void);

/* Adds what a page of the request's origin needs to read a response, if the origin is listed. */
extern void cors_headers(const Request *request, struct MHD_Response *response);

/* The same for a response to OPTIONS; "allow" are the methods that the path has. */
extern void cors_preflight(const Request *request, const char *allow, struct MHD_Response *response);

/* Returns true if a page of another site, which cors_origins does not list, has a browser send the request. */
extern bool cors_is_foreign(const Request *request);

#endif							/* GATEWAY_CORS_H */
