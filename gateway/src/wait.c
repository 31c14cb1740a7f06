/*-------------------------------------------------------------------------
 *
 * wait.c
 *		Long polls, and statements in the background.
 *
 * A long poll runs its statement.  As long as that returns no row, it is run again
 * at each wake-up, and at least each second, until the time of the parameter
 * "wait" is over; then the response is 204.  Between two runs it has no connection
 * of the pool.
 *
 * What it waits for may be an effect of an event and not the event itself, such as
 * the progress of a projection.  So after a wake-up it is run again soon, and then
 * in pauses that double, up to a second.  Where wake-ups come all the time, most are
 * of events that it does not wait for; then it pauses for up to a quarter of a
 * second between them.
 *
 * A statement in the background has a second to be answered as any other.  Then the
 * client gets 202, and the statement goes on without the client.  It goes on, too,
 * if the client leaves.
 *
 *-------------------------------------------------------------------------
 */
#include "wait.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "config.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "pool.h"
#include "problem.h"
#include "response.h"
#include "server.h"
#include "turn.h"
#include "wake.h"

#define PAUSE_MIN		8		/* ms, after the first run */
#define PAUSE_MAX		1024	/* without a wake-up */
#define PAUSE_WOKEN_MAX	256		/* between wake-ups */
#define PATIENCE		1000	/* ms, for a statement in the background */

typedef struct Waiter
{
	LIST_ENTRY(Waiter) link;
	Request    *request;
	WakeListener listener;
	int64_t		deadline;		/* loop_now() */
	int64_t		pause;			/* ms, after the next run */
	int64_t		ran;			/* loop_now() */
	int64_t		woken;
	bool		is_woken;		/* while it ran */
	bool		has_run;
	PoolJob    *job;
	Turn		turn;
	LoopTimer	timer;
} Waiter;

typedef struct Background
{
	Request    *request;		/* NULL: it was answered */
	const Route *route;
	int64_t		start;
	LoopTimer	timer;
} Background;

static LIST_HEAD(, Waiter) waiters;

static void waiter_take(void *arg);

/*
 * Long polls
 */

static void
waiter_answer_none(Waiter *waiter)
{
	server_answer(waiter->request, MHD_HTTP_NO_CONTENT,
				  MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

static void
waiter_stop(Waiter *waiter)
{
	PoolJob    *job = waiter->job;

	waiter->job = NULL;
	loop_timer_stop(&waiter->timer);
	if (job != NULL)
		pool_cancel(job);
	turn_end(&waiter->turn);
}

static void
waiter_due(void *arg)
{
	Waiter	   *waiter = arg;

	if (waiter->has_run && loop_now() >= waiter->deadline)
	{
		waiter_stop(waiter);
		waiter_answer_none(waiter);
		return;
	}
	turn_ask(&waiter->turn, waiter_take, waiter);
}

/* Sets the timer for the next run, or for the end. */
static void
waiter_sleep(Waiter *waiter)
{
	int64_t		now = loop_now();
	int64_t		pause = waiter->pause;

	if (waiter->is_woken && pause > PAUSE_WOKEN_MAX)
		pause = PAUSE_WOKEN_MAX;
	if (pause > waiter->deadline - waiter->ran)
		pause = waiter->deadline - waiter->ran;
	loop_timer_start(&waiter->timer, waiter->ran + pause > now ? waiter->ran + pause - now : 0, waiter_due, waiter);
}

static void
waiter_wake(void *arg)
{
	Waiter	   *waiter = arg;

	waiter->is_woken = true;
	if (waiter->woken + PAUSE_MAX < loop_now())
		waiter->pause = PAUSE_MIN;
	waiter->woken = loop_now();
	if (waiter->turn.state == TURN_NONE && waiter->has_run && !waiter->request->answered)
		waiter_sleep(waiter);
}

/* Returns true if it waits on in spite of an error: the server has gone, and may be back in time. */
static bool
waiter_waits_on(const Waiter *waiter, PoolOutcome outcome)
{
	if (loop_now() >= waiter->deadline)
		return false;
	return outcome == POOL_LOST || (waiter->has_run && (outcome == POOL_DOWN || outcome == POOL_TIMEOUT));
}

static void
waiter_done(PoolOutcome outcome, PGresult *result, void *arg)
{
	Waiter	   *waiter = arg;

	waiter->job = NULL;
	turn_end(&waiter->turn);
	if (outcome == POOL_DONE && PQntuples(result) > 0)
	{
		response_row(waiter->request, result);
		return;
	}
	if (outcome != POOL_DONE && !waiter_waits_on(waiter, outcome))
	{
		pool_answer_failure(waiter->request, outcome, result);
		return;
	}
	PQclear(result);
	waiter->has_run = true;
	waiter->ran = loop_now();
	if (loop_now() >= waiter->deadline)
		waiter_answer_none(waiter);
	else
		waiter_sleep(waiter);
	if (waiter->pause < PAUSE_MAX)
		waiter->pause *= 2;
}

/* The turn has come. */
static void
waiter_take(void *arg)
{
	Waiter	   *waiter = arg;

	waiter->is_woken = false;
	wake_looks(&waiter->listener);
	waiter->job = pool_submit_request(waiter->request, 0, waiter_done, waiter);
	if (waiter->job != NULL)
		return;
	turn_end(&waiter->turn);
	if (!waiter->has_run)
	{
		pool_answer_busy(waiter->request);
		return;
	}
	waiter->ran = loop_now();
	waiter_sleep(waiter);
}

/* The client has closed its connection. */
static void
waiter_left(Request *request)
{
	waiter_stop(request->owner);
	server_answer(request, 0, NULL);
}

static void
waiter_free(Request *request)
{
	Waiter	   *waiter = request->owner;

	request->owner = NULL;
	waiter_stop(waiter);
	wake_unlisten(&waiter->listener);
	LIST_REMOVE(waiter, link);
	metrics.waiting--;
	free(waiter);
}

/* The parameter "wait" in ms, at most max_wait; 0 if it is missing. */
static int64_t
waiter_patience(Request *request)
{
	int			wait = route_param(request->route, "wait");
	double		seconds = wait >= 0 && request->values[wait].data != NULL ? strtod(request->values[wait].data, NULL) : 0;

	if (!(seconds > 0) || server_is_draining())
		return 0;
	return seconds < (double) config.max_wait ? (int64_t) (seconds * 1000) : config.max_wait * 1000;
}

static Waiter *
waiter_make(Request *request)
{
	Waiter	   *waiter = calloc(1, sizeof(Waiter));

	if (waiter == NULL)
		return NULL;
	waiter->request = request;
	waiter->deadline = loop_now() + waiter_patience(request);
	waiter->pause = PAUSE_MIN;
	waiter->listener.role = request->identity.role;
	waiter->listener.wake = waiter_wake;
	waiter->listener.arg = waiter;
	if (!wake_listen(&waiter->listener, NULL, 0))
	{
		free(waiter);
		return NULL;
	}
	LIST_INSERT_HEAD(&waiters, waiter, link);
	metrics.waiting++;
	return waiter;
}

void
wait_start(Request *request)
{
	Waiter	   *waiter = waiter_make(request);

	if (waiter == NULL)
	{
		pool_answer_busy(request);
		return;
	}
	request->owner = waiter;
	request->on_left = waiter_left;
	request->on_end = waiter_free;
	turn_ask(&waiter->turn, waiter_take, waiter);
}

void
wait_drain(void)
{
	Waiter	   *waiter;

	LIST_FOREACH(waiter, &waiters, link)
	{
		waiter->deadline = loop_now();
		if (waiter->timer.place != 0)
			loop_timer_start(&waiter->timer, 0, waiter_due, waiter);
	}
}

/*
 * Statements in the background
 */

static void
background_accept(Request *request)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	Buffer		path = {0};

	if (response != NULL && request->route->location != NULL)
	{
		request_expand(request, request->route->location, &path);
		if (!path.failed && path.data != NULL)
			MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, path.data);
		buffer_free(&path);
	}
	server_answer(request, MHD_HTTP_ACCEPTED, response);
}

/* Neither the request nor its client is told any more. */
static void
background_let_go(Request *request)
{
	Background *background = request->owner;

	if (background != NULL)
	{
		background->request = NULL;
		loop_timer_stop(&background->timer);
	}
	request->owner = NULL;
}

static void
background_left(Request *request)
{
	background_let_go(request);
	server_answer(request, 0, NULL);
}

static void
background_over(void *arg)
{
	Background *background = arg;
	Request    *request = background->request;

	background_let_go(request);
	background_accept(request);
}

static void
background_log(const Background *background, PoolOutcome outcome, const PGresult *result)
{
	const char *state = outcome == POOL_SQL_ERROR ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

	log_line(outcome == POOL_DONE ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "background_ended",
			 LOG_TEXT("route", background->route->path), LOG_TEXT("sqlstate", state),
			 LOG_NUMBER("done", outcome == POOL_DONE), LOG_NUMBER("ms", loop_now() - background->start));
}

static void
background_done(PoolOutcome outcome, PGresult *result, void *arg)
{
	Background *background = arg;
	Request    *request = background->request;

	if (request == NULL)
	{
		background_log(background, outcome, result);
		PQclear(result);
	}
	else
	{
		background_let_go(request);
		if (outcome == POOL_DONE)
			response_row(request, result);
		else
			pool_answer_failure(request, outcome, result);
	}
	free(background);
}

void
background_start(Request *request)
{
	Background *background = calloc(1, sizeof(Background));

	if (background == NULL ||
		pool_submit_request(request, POOL_BACKGROUND, background_done, background) == NULL)
	{
		free(background);
		pool_answer_busy(request);
		return;
	}
	background->request = request;
	background->route = request->route;
	background->start = loop_now();
	request->owner = background;
	request->on_left = background_left;
	request->on_end = background_let_go;
	loop_timer_start(&background->timer, PATIENCE, background_over, background);
}
