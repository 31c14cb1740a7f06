/*-------------------------------------------------------------------------
 *
 * pool.h
 *		Connections to the database, and what runs on them.
 *
 * A job is one statement in a transaction of its own, as a role.  It waits in a
 * queue until a connection is free, is sent as one pipeline, and ends with its
 * callback, which is called from the loop and never from inside pool_submit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_POOL_H
#define GATEWAY_POOL_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "request.h"
#include "route.h"

typedef struct PoolJob PoolJob;

typedef enum PoolOutcome
{
	POOL_DONE,					/* COMMIT was answered; the result has the rows */
	POOL_SQL_ERROR,				/* rolled back; the result has the error */
	POOL_LOST,					/* the connection failed, and nothing was committed */
	POOL_UNKNOWN,				/* the connection failed, and COMMIT may have happened (writes only) */
	POOL_TIMEOUT,				/* no connection became free within queue_timeout */
	POOL_DOWN					/* the database cannot be reached */
} PoolOutcome;

/* The result belongs to the callback, which clears it; NULL unless POOL_DONE or POOL_SQL_ERROR. */
typedef void (*PoolCallback) (PoolOutcome outcome, PGresult *result, void *arg);

#define POOL_READ_ONLY		0x01
#define POOL_BACKGROUND		0x02	/* a connection of its own, no time-out */

/*
 * A statement; its text and name live as long as the gateway, which knows by the address of the name what is
 * prepared.
 */
typedef struct PoolStatement
{
	const char *name;			/* of the prepared statement */
	const char *sql;
} PoolStatement;

/* Opens the connections, which goes on in the loop. */
extern bool pool_start(void);
extern void pool_stop(void);

/* Queues a statement.  Values are copied; binary[i] (may be NULL) marks a bytea.  role NULL: the login role.
 * Returns NULL if the queue is full or memory is out. */
extern PoolJob *pool_submit(const PoolStatement *statement, const Value *values, const bool *binary, int count,
							const char *role, unsigned flags, PoolCallback callback, void *arg);

/* The same for the statement of a route; POOL_READ_ONLY follows from the route. */
extern PoolJob *pool_submit_route(const Route *route, const Value *values, const char *role, unsigned flags,
								  PoolCallback callback, void *arg);

/* The same for a request. */
extern PoolJob *pool_submit_request(const Request *request, unsigned flags, PoolCallback callback, void *arg);

/* Forgets the callback.  A read is cancelled in the server; a write goes on to its end. */
extern void pool_cancel(PoolJob *job);

/* Answers a request for any outcome but POOL_DONE; clears the result. */
extern void pool_answer_failure(Request *request, PoolOutcome outcome, PGresult *result);

/* The same as the answer when pool_submit has returned NULL: 503 with Retry-After. */
extern void pool_answer_busy(Request *request);

/* Returns true if a connection works. */
extern bool pool_is_up(void);

/* The connection string's keywords for PQconnectStartParams, with the gateway's settings; for wake.c. */
extern const char *const *pool_keywords(void);
extern const char *const *pool_values(void);

/* A notice receiver that does nothing: libpq would write notices to standard error, where the log is. */
extern void pool_ignore_notice(void *arg, const PGresult *result);

/* For /metrics. */
typedef struct PoolCounts
{
	int			connections;	/* that work */
	int			busy;
	int			queued;
	int			background;
	unsigned long long opened;
	unsigned long long lost;
	unsigned long long cancelled;
	unsigned long long refused; /* the queue was full */
} PoolCounts;

extern PoolCounts pool_counts(void);

#endif
