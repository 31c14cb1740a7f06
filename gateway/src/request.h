/*-------------------------------------------------------------------------
 *
 * request.h
 *		A request of a client, from its head to its end.
 *
 * server.c makes a Request when the request line is there and frees it when
 * libmicrohttpd has done with it.  In between it belongs to at most one module:
 *
 *	1. server.c finds the route, checks the head, and collects the body.
 *	2. It suspends the connection and hands the request over: to wait_start,
 *	   follow_start or background_start by the words of the route, or to the pool.
 *	3. The module sets "owner" and the two hooks, and later calls server_answer
 *	   once, from the loop.  The response is sent.
 *	4. on_end is called exactly once if it is set: after the response was sent or
 *	   the connection was lost.  The request is freed after it.
 *
 * on_left is called at most once, when the client has closed its side while the
 * request had no answer, or while an event stream was suspended.  The module
 * stops its work, and calls server_answer or (if answered) server_resume, so
 * that libmicrohttpd sees the end and on_end follows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_REQUEST_H
#define GATEWAY_REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "buffer.h"
#include "route.h"

struct Client;					/* a client's connection, of server.c */
struct PoolJob;

/* The longest name of a role, and its NUL. */
#define ROLE_SIZE	64

typedef struct Identity
{
	char		role[ROLE_SIZE];
	int64_t		expires;		/* seconds since 1970; 0: never */
} Identity;

/* The value of a parameter: a C string with its length; NULL if it is missing. */
typedef struct Value
{
	const char *data;
	size_t		length;
} Value;

typedef struct Request Request;

/* See server.c. */
typedef enum RequestStage
{
	STAGE_HEAD,
	STAGE_BODY,
	STAGE_REFUSED,
	STAGE_WORK,
	STAGE_DONE
} RequestStage;

struct Request
{
	struct MHD_Connection *connection;
	struct Client *client;
	char		id[24];			/* of the log and of X-Request-Id */
	const char *method;			/* "GET" for HEAD, too */
	bool		is_head;
	char	   *target;			/* as received */
	char	   *path;			/* a copy of it, of request.c, in pieces */
	const Route *route;			/* NULL: a path of the gateway itself */
	Value		values[ROUTE_MAX_PARAMS];	/* in the order of route->params */
	char	   *array_text[ROUTE_MAX_PARAMS];	/* memory of arrays */
	Identity	identity;
	Buffer		body;
	int64_t		start;			/* microseconds of the monotonic clock */
	struct PoolJob *job;		/* while the pool works for it */

	/* of the module that has it */
	void	   *owner;
	void		(*on_left) (Request *request);
	void		(*on_end) (Request *request);

	/* of server.c */
	LIST_ENTRY(Request) link;
	struct AddressUse *address_use;
	RequestStage stage;
	bool		suspended;
	bool		client_left;
	bool		answered;		/* server_answer was called */
	unsigned	status;
	struct MHD_Response *response;
	uint64_t	bytes;			/* of the response's body, for the log; a module that streams adds to it */
};

/* Why a target, a query or a parameter is refused. */
typedef enum RequestFault
{
	REQUEST_OK,
	REQUEST_BAD_TARGET,			/* 400 */
	REQUEST_NOT_FOUND,			/* 404 */
	REQUEST_BAD_METHOD,			/* 405 */
	REQUEST_UNKNOWN_PARAM,		/* 400 */
	REQUEST_BAD_PARAM,			/* 400 */
	REQUEST_NO_MEMORY			/* 503 */
} RequestFault;

/*
 * Finds the route of request->target for the method and what Accept asks for, and fills the parameters of path
 * and query. "detail" (of 256 bytes) says what is wrong; "allow" (of 64 bytes) gets the methods that the path
 * has.
 */
extern RequestFault request_route(Request *request, const char *method, const char *accept, char *detail, char *allow);

/* Fills the parameters of headers, once the route is known. */
extern RequestFault request_headers(Request *request, char *detail);

/* Fills the parameter of the body, once it is there. */
extern RequestFault request_body(Request *request, char *detail);

/* The number of the parameter that the statement calls :key, or -1. */
extern int	route_param(const Route *route, const char *key);

/* Appends a value, percent-encoded. */
extern void request_append_encoded(Buffer *buffer, const Value *value);

/* Appends a path whose {parameters} are replaced by their values, percent-encoded. */
extern void request_expand(const Request *request, const char *template, Buffer *buffer);

/* A header of the request, or NULL (head.c). */
extern const char *request_header(const Request *request, const char *name);

/* Frees what request.c has allocated in it. */
extern void request_free(Request *request);

#endif
