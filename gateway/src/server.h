/*-------------------------------------------------------------------------
 *
 * server.h
 *		libmicrohttpd in the loop: requests, bodies, answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_SERVER_H
#define GATEWAY_SERVER_H

#include <stdbool.h>

#include "request.h"

/* Opens the port and logs the address; says what is wrong in the log. */
extern bool server_start(void);

/* Stops listening.  What is under way goes on. */
extern void server_quiesce(void);

/* Returns true while the gateway drains: responses say "Connection: close". */
extern bool server_is_draining(void);

/* The number of requests that have no complete response yet. */
extern int	server_request_count(void);

/* Ends every connection and frees everything. */
extern void server_stop(void);

/* Answers a suspended request; the response is the server's from now on.  NULL closes the connection without one. */
extern void server_answer(Request *request, unsigned status, struct MHD_Response *response);

/* Keeps the response of a request that is not suspended, until libmicrohttpd may have it. */
extern void server_keep(Request *request, unsigned status, struct MHD_Response *response);

/* Suspends and resumes the connection; harmless if it is so already.  An event stream's content reader calls
 * server_suspend and returns 0 when it has nothing, and server_resume is called when there is more. */
extern void server_suspend(Request *request);
extern void server_resume(Request *request);

/* Calls back for each request, which the callback must not end. */
extern void server_each_request(void (*callback) (Request *request));

#endif
