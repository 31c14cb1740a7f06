/*-------------------------------------------------------------------------
 *
 * pool.c
 *		The queue before the connections to the database.
 *
 * There are three lanes, each with connections and a queue of its own: requests,
 * statements in the background, and cancels.  A cancel is a statement, since
 * libpq's PQcancel would block the loop: pg_cancel_backend, which a role may call
 * for its own sessions.  A connection whose statement is cancelled gets no other
 * before the cancel is over, so that the wrong statement is not hit.
 *
 * While the database is away, jobs wait in the queue like others; a restart of
 * the server within queue_timeout is only seen as a delay.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "conninfo.h"
#include "log.h"
#include "pool_connection.h"
#include "problem.h"

#define CANCEL_AGAIN_MS	200

enum
{
	LANE_REQUESTS,
	LANE_BACKGROUND,
	LANE_CANCEL,
	LANE_COUNT
};

static PoolLane lanes[LANE_COUNT] = {
	{.name = "requests"}, {.name = "background", .on_demand = true}, {.name = "cancel"}
};
static char *search_path;
PoolCounts	pool_totals;

/*
 * The queue
 */

static void
lane_unlink(PoolLane *lane, PoolJob *job)
{
	TAILQ_REMOVE(&lane->jobs, job, link);
	lane->queued--;
}

static void
lane_append(PoolLane *lane, PoolJob *job)
{
	job->connection = NULL;
	TAILQ_INSERT_TAIL(&lane->jobs, job, link);
	lane->queued++;
}

static void
lane_prepend(PoolLane *lane, PoolJob *job)
{
	job->connection = NULL;
	TAILQ_INSERT_HEAD(&lane->jobs, job, link);
	lane->queued++;
}

static bool
lane_is_up(const PoolLane *lane)
{
	for (int i = 0; i < lane->count; i++)
		if (lane->connections[i].state >= CONNECTION_IDLE)
			return true;
	return false;
}

static void lane_expire(void *arg);

static void
lane_set_timer(PoolLane *lane)
{
	if (lane->queued == 0)
		loop_timer_stop(&lane->timer);
	else if (lane->timer.place == 0)
		loop_timer_start(&lane->timer, TAILQ_FIRST(&lane->jobs)->due - loop_now(), lane_expire, lane);
}

/* Ends the jobs that have waited too long. */
static void
lane_expire(void *arg)
{
	PoolLane   *lane = arg;
	PoolOutcome outcome = lane_is_up(lane) ? POOL_TIMEOUT : POOL_DOWN;

	while (lane->queued > 0 && TAILQ_FIRST(&lane->jobs)->due <= loop_now())
	{
		PoolJob    *job = TAILQ_FIRST(&lane->jobs);

		lane_unlink(lane, job);
		pool_job_end(job, outcome, NULL);
	}
	lane_set_timer(lane);
}

/* Opens one more connection of those that are opened on demand. */
static void
lane_demand(PoolLane *lane)
{
	PoolConnection *closed = NULL;

	if (!lane->on_demand)
		return;
	for (int i = 0; i < lane->count; i++)
	{
		if (lane->connections[i].state == CONNECTION_OPENING || lane->connections[i].state == CONNECTION_SETUP)
			return;
		if (lane->connections[i].state == CONNECTION_CLOSED)
			closed = &lane->connections[i];
	}
	if (closed != NULL)
		connection_open(closed, 0);
}

/* Gives queued jobs to idle connections. */
static void
lane_dispatch(PoolLane *lane)
{
	for (int i = 0; i < lane->count && lane->queued > 0; i++)
	{
		PoolConnection *connection = &lane->connections[i];
		PoolJob    *job = TAILQ_FIRST(&lane->jobs);

		if (connection->state != CONNECTION_IDLE || connection->cancelling)
			continue;
		lane_unlink(lane, job);
		connection_run(connection, job);
	}
	if (lane->queued > 0)
		lane_demand(lane);
	lane_set_timer(lane);
}

void
pool_connection_ready(PoolConnection *connection)
{
	PoolLane   *lane = connection->lane;

	lane_dispatch(lane);
	if (lane->on_demand && connection->state == CONNECTION_IDLE && lane->queued == 0)
		connection_close(connection);
}

/*
 * Jobs
 */

void
pool_job_end(PoolJob *job, PoolOutcome outcome, PGresult *result)
{
	if (job->callback != NULL)
		job->callback(outcome, result, job->arg);
	else
		PQclear(result);
	free(job);
}

/* A job whose client has left by now is not worth another try. */
void
pool_job_retry(PoolJob *job)
{
	if (job->callback == NULL)
	{
		free(job);
		return;
	}
	lane_prepend(job->lane, job);
	lane_set_timer(job->lane);
}

static PoolJob *
job_create(const Value *params, const bool *binary, int count)
{
	size_t		size = 0;
	PoolJob    *job;
	char	   *to;

	for (int i = 0; i < count; i++)
		size += params[i].data ? params[i].length + 1 : 0;
	job = calloc(1, sizeof(PoolJob) + size);
	if (job == NULL)
		return NULL;
	job->count = count;
	to = job->data;
	for (int i = 0; i < count; i++)
	{
		if (params[i].data == NULL)
			continue;
		memcpy(to, params[i].data, params[i].length);
		to[params[i].length] = '\0';
		job->values[i] = to;
		job->lengths[i] = (int) params[i].length;
		job->formats[i] = binary != NULL && binary[i];
		to += params[i].length + 1;
	}
	return job;
}

static PoolJob *
job_queue(PoolLane *lane, PoolJob *job, const char *role, unsigned flags, PoolCallback callback, void *arg)
{
	job->lane = lane;
	job->flags = flags;
	job->callback = callback;
	job->arg = arg;
	job->due = loop_now() + config.queue_timeout;
	if (role != NULL)
		snprintf(job->role, sizeof(job->role), "%s", role);
	lane_append(lane, job);
	lane_dispatch(lane);
	return job;
}

/* Returns false if the lane has no place for another job. */
static bool
lane_has_place(PoolLane *lane)
{
	if (lane->queued < lane->queue_limit && lane->count > 0)
		return true;
	pool_totals.refused++;
	return false;
}

PoolJob *
pool_submit(const PoolStatement *statement, const Value *params, const bool *binary, int count,
			const char *role, unsigned flags, PoolCallback callback, void *arg)
{
	PoolLane   *lane = &lanes[flags & POOL_BACKGROUND ? LANE_BACKGROUND : LANE_REQUESTS];
	PoolJob    *job = lane_has_place(lane) ? job_create(params, binary, count) : NULL;

	if (job == NULL)
		return NULL;
	job->statement = *statement;
	return job_queue(lane, job, role, flags, callback, arg);
}

PoolJob *
pool_submit_route(const Route *route, const Value *values, const char *role, unsigned flags,
				  PoolCallback callback, void *arg)
{
	bool		binary[ROUTE_MAX_PARAMS];

	for (int i = 0; i < route->param_count; i++)
		binary[i] = route->params[i].is_binary;
	if (route->flags & ROUTE_READ)
		flags |= POOL_READ_ONLY;
	return pool_submit(&(PoolStatement) {route->name, route->sql}, values, binary, route->param_count, role, flags,
					   callback, arg);
}

PoolJob *
pool_submit_request(const Request *request, unsigned flags, PoolCallback callback, void *arg)
{
	return pool_submit_route(request->route, request->values, request->identity.role, flags, callback, arg);
}

/*
 * Cancels
 */

static const PoolStatement cancel_statement = {"cancel", "SELECT pg_catalog.pg_cancel_backend($1::integer)"};

static void cancel_statement_of(PoolConnection *connection);

/* A cancel that comes between two messages of a pipeline is passed over by the server. */
static void
cancel_again(void *arg)
{
	PoolConnection *connection = arg;

	if (connection->state == CONNECTION_RUNNING && connection->job != NULL && connection->job->callback == NULL)
		cancel_statement_of(connection);
}

static void
cancel_ended(PoolOutcome outcome, PGresult *result, void *arg)
{
	PoolConnection *connection = arg;

	(void) outcome;
	PQclear(result);
	connection->cancelling = false;
	if (connection->state == CONNECTION_IDLE)
		pool_connection_ready(connection);
	else
		loop_timer_start(&connection->cancel_timer, CANCEL_AGAIN_MS, cancel_again, connection);
}

/* Cancels what runs there, if that changes nothing. */
static void
cancel_statement_of(PoolConnection *connection)
{
	PoolLane   *lane = &lanes[LANE_CANCEL];
	char		pid[16];
	Value		value = {pid, 0};
	PoolJob    *cancel;

	if (!(connection->job->flags & POOL_READ_ONLY) || connection->cancelling)
		return;
	value.length = (size_t) snprintf(pid, sizeof(pid), "%d", PQbackendPID(connection->pg));
	cancel = lane_has_place(lane) ? job_create(&value, NULL, 1) : NULL;
	if (cancel == NULL)
		return;
	connection->cancelling = true;
	pool_totals.cancelled++;
	cancel->statement = cancel_statement;
	job_queue(lane, cancel, NULL, 0, cancel_ended, connection);
}

void
pool_cancel(PoolJob *job)
{
	job->callback = NULL;
	if (job->connection != NULL)
	{
		cancel_statement_of(job->connection);
		return;
	}
	lane_unlink(job->lane, job);
	lane_set_timer(job->lane);
	free(job);
}

/*
 * Answers
 */

void
pool_answer_busy(Request *request)
{
	problem_answer(request, &(Problem) {.status = 503, .detail = "Too many requests are waiting for the database."});
}

void
pool_answer_failure(Request *request, PoolOutcome outcome, PGresult *result)
{
	static const Problem problems[] = {
		[POOL_LOST] = {.status = 503, .detail = "The connection to the database was lost. Nothing was stored."},
		[POOL_UNKNOWN] = {.status = 502, .members = "\"outcome\":\"unknown\"",
			.detail = "The connection to the database was lost before the outcome was known.",
		.hint = "Send the request again with the same ids: what was stored is not stored twice."},
		[POOL_TIMEOUT] = {.status = 503, .detail = "No connection to the database became free in time."},
		[POOL_DOWN] = {.status = 503, .detail = "The database cannot be reached."},
	};

	if (outcome == POOL_SQL_ERROR)
		problem_answer_sql(request, result);
	else
		problem_answer(request, &problems[outcome]);
	PQclear(result);
}

/*
 * Start and end
 */

bool
pool_is_up(void)
{
	return lane_is_up(&lanes[LANE_REQUESTS]);
}

const char *
pool_search_path(void)
{
	return search_path ? search_path : "pg_catalog";
}

void
pool_set_search_path(const char *path)
{
	char	   *copy = search_path != NULL && strcmp(search_path, path) == 0 ? NULL : strdup(path);

	if (copy == NULL)
		return;
	free(search_path);
	search_path = copy;
}

static bool
lane_start(PoolLane *lane, int64_t count, int64_t queue_limit, const char *const *lane_values)
{
	lane->connections = calloc((size_t) count + 1, sizeof(PoolConnection));
	if (lane->connections == NULL)
		return false;
	lane->count = (int) count;
	TAILQ_INIT(&lane->jobs);
	lane->queue_limit = (int) queue_limit;
	lane->keywords = pool_keywords();
	lane->values = lane_values;
	for (int i = 0; i < lane->count; i++)
	{
		lane->connections[i].lane = lane;
		if (!lane->on_demand)
			connection_open(&lane->connections[i], 0);
	}
	return true;
}

bool
pool_start(void)
{
	return conninfo_read() &&
		lane_start(&lanes[LANE_REQUESTS], config.pool_size, config.queue_limit, pool_values()) &&
		lane_start(&lanes[LANE_BACKGROUND], config.background_connections, config.queue_limit,
				   conninfo_background_values()) &&
		lane_start(&lanes[LANE_CANCEL], 1, config.pool_size, pool_values());
}

void
pool_stop(void)
{
	for (int l = 0; l < LANE_COUNT; l++)
	{
		PoolLane   *lane = &lanes[l];

		while (lane->queued > 0)
		{
			PoolJob    *job = TAILQ_FIRST(&lane->jobs);

			lane_unlink(lane, job);
			free(job);
		}
		loop_timer_stop(&lane->timer);
		for (int i = 0; i < lane->count; i++)
		{
			free(lane->connections[i].job);
			lane->connections[i].job = NULL;
			connection_close(&lane->connections[i]);
		}
		free(lane->connections);
		lane->connections = NULL;
		lane->count = 0;
	}
	conninfo_free();
}

PoolCounts
pool_counts(void)
{
	PoolCounts	counts = pool_totals;

	for (int l = 0; l < LANE_COUNT; l++)
	{
		PoolLane   *lane = &lanes[l];

		counts.queued += lane->queued;
		for (int i = 0; i < lane->count; i++)
		{
			counts.connections += lane->connections[i].state >= CONNECTION_IDLE;
			counts.busy += lane->connections[i].job != NULL;
			counts.background += l == LANE_BACKGROUND && lane->connections[i].job != NULL;
		}
	}
	return counts;
}
