/*-------------------------------------------------------------------------
 *
 * client.h
 *		Connections of clients: who has left, and who is late.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CLIENT_H
#define GATEWAY_CLIENT_H

#include "request.h"

/* A connection begins and ends; the context is libmicrohttpd's place for it. */
extern void client_open(struct MHD_Connection *connection, void **socket_context);
extern void client_close(void **socket_context);

/* The connection has a request, whose head and body must come in time; its head and body are here; it has ended. */
extern void client_begin_request(Request *request);
extern void client_has_request(Request *request);
extern void client_end_request(Request *request);

/* The request is suspended: a client that has gone before is noticed from now on. */
extern void client_suspended(Request *request);

#endif
