/*-------------------------------------------------------------------------
 *
 * response.h
 *		From a statement's row to a response.
 *
 * A function that makes a response returns NULL when memory is out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_RESPONSE_H
#define GATEWAY_RESPONSE_H

#include <libpq-fe.h>

#include "request.h"

#define JSON_TYPE	"application/json"

/* A response whose body is a copy of the text; it may be compressed. */
extern struct MHD_Response *response_text(Request *request, const char *type, const char *text, size_t length);

/* Answers with the first row of a result (404 without one).  The result is the response's from now on. */
extern void response_row(Request *request, PGresult *result);

/* Adds the headers that every response has: X-Request-Id, and so on.  server_answer calls it. */
extern void response_common(const Request *request, struct MHD_Response *response);

/* Returns true if the client has the response with an ETag: If-None-Match names it. */
extern bool response_is_known(const Request *request, const char *tag);

/* Returns true if the header Accept-Encoding allows gzip. */
extern bool response_may_gzip(const Request *request);

#endif
