/*-------------------------------------------------------------------------
 *
 * pool_connection.h
 *		One connection of the pool, and the job that runs on it.
 *
 * Between pool.c, which queues jobs, and pool_connection.c, which runs them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_POOL_CONNECTION_H
#define GATEWAY_POOL_CONNECTION_H

#include <sys/queue.h>

#include "loop.h"
#include "pool.h"

struct PoolLane;

struct PoolJob
{
	PoolStatement statement;
	char		role[ROLE_SIZE];
	unsigned	flags;
	PoolCallback callback;		/* NULL: forgotten */
	void	   *arg;
	struct PoolLane *lane;
	struct PoolConnection *connection;	/* NULL: it is queued */
	TAILQ_ENTRY(PoolJob) link;
	int64_t		due;			/* until then it may be queued */
	int			tries;
	int			count;
	const char *values[ROUTE_MAX_PARAMS];
	int			lengths[ROUTE_MAX_PARAMS];
	int			formats[ROUTE_MAX_PARAMS];
	char		data[];			/* what values point to */
};

typedef enum ConnectionState
{
	CONNECTION_CLOSED,			/* a timer opens it, or nobody needs it */
	CONNECTION_OPENING,
	CONNECTION_SETUP,			/* prepares, and looks for the extension */
	CONNECTION_IDLE,
	CONNECTION_RUNNING,
	CONNECTION_ROLLBACK			/* of a transaction that has failed */
} ConnectionState;

#define MAX_STEPS	12

typedef struct PoolConnection
{
	struct PoolLane *lane;
	ConnectionState state;
	PGconn	   *pg;
	LoopFd	   *fd;
	uint32_t	fd_events;
	LoopTimer	timer;			/* to open it, to give up opening it, or to fail soon */
	int			failures;		/* to open it, in a row */
	PoolJob    *job;
	char		steps[MAX_STEPS];	/* of the pipeline, see pool_connection.c */
	int			step_count;
	int			step;			/* that is awaited */
	PGresult   *result;			/* of the statement, or the first error */
	bool		failed;			/* result is an error */
	char		failed_step;
	bool		committed;
	bool		flushed;		/* all of the pipeline was written */
	bool		needs_cleaning; /* the job may have called a function of a user */
	bool		is_clean;		/* nothing is left of the job */
	bool		cancelling;		/* gets no job until the cancel is over */
	LoopTimer	cancel_timer;	/* to cancel again what goes on */
	const char **prepared;		/* names; they are compared as pointers */
	int			prepared_count;
	int			prepared_capacity;
} PoolConnection;

/* Connections of one kind, and the jobs that wait for one. */
typedef struct PoolLane
{
	const char *name;
	bool		on_demand;		/* opened for a job, closed without one */
	PoolConnection *connections;
	int			count;
	TAILQ_HEAD(, PoolJob) jobs;
	int			queued;
	int			queue_limit;
	LoopTimer	timer;			/* of the first job's time-out */
	const char *const *keywords;
	const char *const *values;
} PoolLane;

/* Starts to open a connection after so many ms. */
extern void connection_open(PoolConnection *connection, int64_t delay);
extern void connection_close(PoolConnection *connection);

/* Sends the job's pipeline. */
extern void connection_run(PoolConnection *connection, PoolJob *job);

/* pool.c: the job has ended; the connection can take another. */
extern void pool_job_end(PoolJob *job, PoolOutcome outcome, PGresult *result);
extern void pool_job_retry(PoolJob *job);
extern void pool_connection_ready(PoolConnection *connection);

/* pool.c: the search path of a connection, by which its session can be settled again. */
extern void pool_set_search_path(const char *path);
extern const char *pool_search_path(void);

extern PoolCounts pool_totals;

#endif
