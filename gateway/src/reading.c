/*-------------------------------------------------------------------------
 *
 * reading.c
 *		A place in the log, and the statement that reads on from there.
 *
 * A feed has one for all of its followers, and a follower has one of its own
 * until it has joined its feed.  The number of events in a chunk follows their
 * size, so that a chunk has about as many bytes as its reader wants.
 *
 * The position only moves with what was read: to the last event, or, where the
 * statement has said so and has returned all there was, to the horizon.
 *
 *-------------------------------------------------------------------------
 */
#include "reading.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "wake.h"

#define FIRST_BATCH			32
#define RETRY_MIN			100		/* ms */
#define RETRY_MAX			5000

static void reading_take(void *arg);

void
reading_init(Reading *reading, int64_t position, ReadingCallback callback, void *arg)
{
	reading->position = position;
	reading->batch = config.follow_batch < FIRST_BATCH ? (int) config.follow_batch : FIRST_BATCH;
	reading->target = (size_t) config.follow_queue;
	reading->callback = callback;
	reading->arg = arg;
}

bool
reading_is_busy(const Reading *reading)
{
	return reading->turn.state != TURN_NONE || reading->retry.place != 0;
}

static void
reading_retry(void *arg)
{
	Reading    *reading = arg;

	turn_ask(&reading->turn, reading_take, reading);
}

static void
reading_later(Reading *reading)
{
	int64_t		delay = RETRY_MIN;

	for (int i = 1; i < reading->failures && delay < RETRY_MAX; i++)
		delay *= 2;
	loop_timer_start(&reading->retry, delay < RETRY_MAX ? delay : RETRY_MAX, reading_retry, reading);
}

/* Returns true if the same statement may succeed a little later. */
static bool
reading_may_pass(PoolOutcome pool, const PGresult *result)
{
	static const char *const passing[] = {"08", "40", "53", "57", "58", "55P03", "25006"};
	const char *state;

	if (pool != POOL_SQL_ERROR && pool != POOL_DONE)
		return true;
	state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	for (size_t i = 0; state != NULL && i < sizeof(passing) / sizeof(passing[0]); i++)
		if (strncmp(state, passing[i], strlen(passing[i])) == 0)
			return true;
	return false;
}

static void
reading_failed(Reading *reading, PoolOutcome pool, PGresult *result)
{
	bool		may_pass = reading_may_pass(pool, result);

	reading->failures++;
	if (pool == POOL_SQL_ERROR && reading->batch > 1)
		reading->batch /= 2;	/* it may have taken too long */
	if (may_pass && reading->is_patient)
	{
		PQclear(result);
		reading_later(reading);
		return;
	}
	reading->callback(reading, may_pass ? READING_FAILED : READING_REFUSED, NULL, pool, result);
}

static void
reading_adapt(Reading *reading, const ChunkReport *report)
{
	if (report->bytes > reading->target)
	{
		double		batch = (double) reading->batch * ((double) reading->target / (double) report->bytes);

		reading->batch = batch < 1 ? 1 : (int) batch;
	}
	else if (report->rows >= reading->batch && report->bytes < reading->target / 2)
		reading->batch = reading->batch > config.follow_batch / 2 ? (int) config.follow_batch : reading->batch * 2;
}

static void
reading_done(PoolOutcome pool, PGresult *result, void *arg)
{
	Reading    *reading = arg;
	ChunkReport report;
	Chunk	   *chunk = NULL;
	int64_t		known;
	bool		at_end;

	reading->job = NULL;
	reading->took = loop_now() - reading->started;
	turn_end(&reading->turn);
	if (pool == POOL_DONE)
		chunk = chunk_from_result(result, reading->position, reading->form, &report);
	if (chunk == NULL)
	{
		reading_failed(reading, pool == POOL_DONE ? POOL_LOST : pool, result);
		return;
	}
	PQclear(result);
	at_end = report.rows < reading->batch;
	/* What the client says is no reason to believe that the log goes so far. */
	known = report.rows > 0 ? chunk->upto : -1;
	if (at_end && report.read_upto > known)
		known = report.read_upto;
	if (at_end && report.read_upto > chunk->upto)
		chunk->upto = report.read_upto;
	reading->known = known;
	reading->failures = 0;
	reading->position = chunk->upto;
	reading_adapt(reading, &report);
	wake_read_upto(known);
	reading->callback(reading, at_end ? READING_END : READING_MORE, chunk, pool, NULL);
}

/* The turn has come. */
static void
reading_take(void *arg)
{
	Reading    *reading = arg;
	const Route *route = reading->route;
	Value		values[ROUTE_MAX_PARAMS];
	char		position[24];
	char		batch[16];
	int			after = route_param(route, "after_position");

	snprintf(position, sizeof(position), "%" PRId64, reading->position);
	snprintf(batch, sizeof(batch), "%d", reading->batch);
	for (int i = 0; i < route->param_count; i++)
	{
		values[i] = reading->values[i];
		if (i == after)
			values[i] = (Value) {position, strlen(position)};
		else if (route->params[i].place == PARAM_BATCH)
			values[i] = (Value) {batch, strlen(batch)};
	}
	reading->started = loop_now();
	reading->job = pool_submit_route(route, values, reading->role, 0, reading_done, reading);
	if (reading->job == NULL)
	{
		turn_end(&reading->turn);
		reading->failures++;
		reading_later(reading);
	}
}

void
reading_start(Reading *reading)
{
	if (!reading_is_busy(reading))
		turn_ask(&reading->turn, reading_take, reading);
}

void
reading_start_later(Reading *reading, int64_t delay)
{
	if (!reading_is_busy(reading))
		loop_timer_start(&reading->retry, delay, reading_retry, reading);
}

void
reading_stop(Reading *reading)
{
	PoolJob    *job = reading->job;

	reading->job = NULL;
	loop_timer_stop(&reading->retry);
	if (job != NULL)
		pool_cancel(job);
	turn_end(&reading->turn);
}
