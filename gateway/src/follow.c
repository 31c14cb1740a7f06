/*-------------------------------------------------------------------------
 *
 * follow.c
 *		Event streams and NDJSON.
 *
 * A follower begins at a position.  If its feed still knows what comes after it,
 * it joins the feed at once.  Otherwise it catches up: it reads a chunk, sends it,
 * and reads the next one when that is written.  The first chunk is read before the
 * head of the response is sent, so that a request that the database refuses is
 * answered with the right status.  Where a chunk was the last one there is, the
 * follower joins its feed (see feed.c).  If the feed leaves it behind, it catches
 * up again.
 *
 * libmicrohttpd asks for text (follower_fill) whenever the client has taken what it
 * was given.  If there is nothing, the connection is suspended until there is.  So
 * nothing is ever queued for one client: what waits for it is the rest of one
 * chunk, and what its feed keeps for everyone.
 *
 * The position of a follower moves with the chunks.  A chunk begins after the
 * position where the last one ended, whether both are of the feed, of the follower
 * itself, or one of each.  So no event is left out, and none comes twice.
 *
 * An event stream that has sent nothing for "heartbeat" seconds sends a comment, or
 * the position alone where it has moved, so that a client whose filter matches
 * seldom goes on from there when it comes again.
 *
 * Followers are in a list in the order in which they have written.  Those that need
 * a heartbeat at the same time, as after an event for all, get it over some seconds.
 *
 *-------------------------------------------------------------------------
 */
#include "follow.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "config.h"
#include "feed.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "problem.h"
#include "reading.h"
#include "server.h"

#define TICK				1000	/* ms */
#define BEHIND_PAUSE		50		/* ms, where the feed is ahead of what can be read */
#define CATCH_UP_MEMORY		(64 * 1024 * 1024)	/* for the chunks of all that catch up, */
#define CATCH_UP_MIN		(16 * 1024) /* but so much for each, */
#define CATCH_UP_MAX		(256 * 1024)	/* and not more */
#define RETRY_SPREAD		2000	/* ms: clients that a restart has disconnected come back over this time */
#define NDJSON_FAILURES		8		/* after which a response without an end is broken off */

typedef struct Follower
{
	TAILQ_ENTRY(Follower) link;
	FeedMember	member;
	Feed	   *feed;			/* NULL: it catches up */
	Request    *request;
	ChunkForm	form;
	Reading		reading;
	Chunk	   *chunk;			/* which it sends, or has sent */
	size_t		offset;			/* in the chunk */
	int64_t		position;		/* of the last event before the chunk, or of what it needs not */
	bool		is_behind;		/* there is more to be read than the chunk */
	Chunk	   *last_words;		/* after the chunk, instead of more */
	bool		is_ending;		/* after the chunk */
	bool		is_broken;		/* the end is not that of the log */
	char		greeting[32];
	size_t		greeted;
	bool		wants_heartbeat;
	bool		is_idle;		/* it has sent everything */
	int64_t		written;		/* loop_now() */
	int64_t		told;			/* position that the client knows */
} Follower;

static TAILQ_HEAD(, Follower) followers = TAILQ_HEAD_INITIALIZER(followers);
static int	catching_up;
static LoopTimer follow_timer;

static void follower_has_read(Reading *reading, ReadingOutcome outcome, Chunk *chunk, PoolOutcome pool,
							  PGresult *result);

/*
 * The list
 */

static void
follower_has_written(Follower *follower)
{
	follower->written = loop_now();
	follower->wants_heartbeat = false;
	TAILQ_REMOVE(&followers, follower, link);
	TAILQ_INSERT_TAIL(&followers, follower, link);
}

/*
 * Chunks
 */

/* Takes over the reference. */
static void
follower_use(Follower *follower, Chunk *chunk, size_t offset)
{
	chunk_release(follower->chunk);
	follower->chunk = chunk;
	follower->offset = offset;
	metrics.events_sent += (uint64_t) chunk_events_from(chunk, offset);
}

static void
follower_read(Follower *follower)
{
	size_t		share = CATCH_UP_MEMORY / (size_t) (catching_up > 0 ? catching_up : 1);

	if (share < CATCH_UP_MIN)
		share = CATCH_UP_MIN;
	follower->reading.target = share < CATCH_UP_MAX ? share : CATCH_UP_MAX;
	reading_start(&follower->reading);
}

static void
follower_join(Follower *follower, Feed *feed)
{
	if (feed == NULL)
		return;
	follower->feed = feed;
	feed_join(feed, &follower->member);
	catching_up--;
}

static void
follower_leave(Follower *follower)
{
	Feed	   *feed = follower->feed;

	if (feed == NULL)
		return;
	follower->feed = NULL;
	catching_up++;
	feed_leave(feed, &follower->member);
}

static void
follower_end(Follower *follower, bool is_broken)
{
	follower->is_ending = true;
	follower->is_broken |= is_broken;
	reading_stop(&follower->reading);
	follower->is_idle = false;
	server_resume(follower->request);
}

/* Where it is when it has sent its chunk. */
static int64_t
follower_end_of_chunk(const Follower *follower)
{
	int64_t		upto = follower->chunk->upto;

	return follower->position > upto ? follower->position : upto;
}

/* Goes on to the feed's next chunk; returns false if there is none now. */
static bool
follower_next_of_feed(Follower *follower)
{
	Chunk	   *chunk = follower->chunk;
	size_t		offset;

	if (chunk->is_live && chunk->next == NULL)
		return false;
	follower->position = follower_end_of_chunk(follower);
	if (chunk->next != NULL)
	{
		chunk = chunk_hold(chunk->next);
		offset = chunk_offset(chunk, follower->position);
	}
	else
		chunk = feed_chunk_after(follower->feed, follower->position, &offset);
	if (chunk != NULL)
	{
		follower_use(follower, chunk, offset);
		return true;
	}
	follower->reading.position = follower->position;
	follower_leave(follower);
	follower_read(follower);
	return false;
}

/* Goes on after a chunk of its own; the feed may know what comes next. */
static bool
follower_next_of_own(Follower *follower)
{
	if (follower->form == CHUNK_NDJSON && !follower->is_behind)
	{
		follower->is_ending = true;
		return false;
	}
	if (!reading_is_busy(&follower->reading))
		follower_read(follower);
	return false;
}

/* Goes on when a chunk is sent; returns false if there is nothing now. */
static bool
follower_next(Follower *follower)
{
	if (follower->is_ending)
	{
		Chunk	   *last_words = follower->last_words;

		follower->last_words = NULL;
		if (last_words == NULL)
			return false;
		follower_use(follower, last_words, 0);
		return true;
	}
	if (follower->feed != NULL)
		return follower_next_of_feed(follower);
	return follower_next_of_own(follower);
}

/*
 * Sending
 */

static size_t
follower_copy(const char *text, size_t length, size_t *offset, char *to, size_t room)
{
	size_t		size = length - *offset < room ? length - *offset : room;

	memcpy(to, text + *offset, size);
	*offset += size;
	return size;
}

static size_t
follower_heartbeat(Follower *follower, char *to, size_t room)
{
	char		text[40] = ":\n\n";
	int64_t		position = follower_end_of_chunk(follower);
	size_t		length;

	if (position > follower->told)
		snprintf(text, sizeof(text), "id: %" PRId64 "\n\n", position);
	follower->told = position;
	length = strlen(text);
	if (length > room)
		return 0;
	memcpy(to, text, length);
	return length;
}

static size_t
follower_copy_chunks(Follower *follower, char *to, size_t room)
{
	size_t		size = 0;

	while (size < room)
	{
		Chunk	   *chunk = follower->chunk;

		if (follower->offset < chunk->length)
		{
			size += follower_copy(chunk->text, chunk->length, &follower->offset, to + size, room - size);
			if (follower->offset == chunk->length && chunk->count > 0)
				follower->told = chunk->events[chunk->count - 1].position;
		}
		else if (!follower_next(follower))
			break;
	}
	return size;
}

static ssize_t
follower_fill(void *arg, uint64_t total, char *to, size_t room)
{
	Follower   *follower = arg;
	size_t		size;

	(void) total;
	follower->is_idle = false;
	size = follower_copy(follower->greeting, strlen(follower->greeting), &follower->greeted, to, room);
	size += follower_copy_chunks(follower, to + size, room - size);
	if (size == 0 && follower->is_ending)
		return follower->is_broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
	if (size == 0 && follower->wants_heartbeat)
		size = follower_heartbeat(follower, to, room);
	if (size == 0)
	{
		follower->is_idle = true;
		server_suspend(follower->request);
		return 0;
	}
	follower_has_written(follower);
	follower->request->bytes += size;
	return (ssize_t) size;
}

static void
follower_continue(Follower *follower)
{
	if (follower->is_idle)
		server_resume(follower->request);
	follower->is_idle = false;
}

static void
follower_moved(FeedMember *member)
{
	follower_continue((Follower *) ((char *) member - offsetof(Follower, member)));
}

static void
follower_feed_failed(FeedMember *member, Chunk *why)
{
	Follower   *follower = (Follower *) ((char *) member - offsetof(Follower, member));

	follower->feed = NULL;
	catching_up++;
	if (why != NULL)
		follower->last_words = chunk_hold(why);
	follower_end(follower, false);
}

/*
 * The response
 */

static struct MHD_Response *
follower_response(Follower *follower)
{
	struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, follower_fill,
																	  follower, NULL);

	if (response == NULL)
		return NULL;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
							follower->form == CHUNK_SSE ? "text/event-stream" : "application/x-ndjson");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, "X-Accel-Buffering", "no");
	return response;
}

static void
follower_answer(Follower *follower)
{
	if (follower->form == CHUNK_SSE)
		snprintf(follower->greeting, sizeof(follower->greeting), "retry: %d\n\n", 1000 + rand() % RETRY_SPREAD);
	follower->written = loop_now();
	server_answer(follower->request, MHD_HTTP_OK, follower_response(follower));
}

static void
follower_refused(Follower *follower, bool is_final, PoolOutcome pool, PGresult *result)
{
	if (!follower->request->answered)
	{
		pool_answer_failure(follower->request, pool, result);
		return;
	}
	if (!is_final && follower->reading.failures < NDJSON_FAILURES)
	{
		PQclear(result);
		reading_start_later(&follower->reading, 100 << follower->reading.failures);
		return;
	}
	if (follower->form == CHUNK_SSE)
		follower->last_words = feed_error_chunk(result, follower->reading.position);
	PQclear(result);
	follower_end(follower, follower->form == CHUNK_NDJSON);
}

static void
follower_has_read(Reading *reading, ReadingOutcome outcome, Chunk *chunk, PoolOutcome pool, PGresult *result)
{
	Follower   *follower = reading->arg;

	if (chunk == NULL)
	{
		follower_refused(follower, outcome == READING_REFUSED, pool, result);
		return;
	}
	reading->is_patient = follower->form == CHUNK_SSE;
	follower->is_behind = outcome == READING_MORE;
	follower->position = chunk->after;
	follower_use(follower, chunk, 0);
	if (!follower->is_behind && follower->form == CHUNK_SSE)
	{
		/* A follower that is ahead of the log must not take the feed, which others share, there. */
		follower_join(follower, feed_open(follower->request, follower->form,
										  reading->known >= 0 && reading->known < chunk->upto ? reading->known : chunk->upto));
		if (follower->feed == NULL && chunk->length == 0)
			reading_start_later(reading, BEHIND_PAUSE);
	}
	if (!follower->request->answered)
		follower_answer(follower);
	else
		follower_continue(follower);
}

/*
 * Time
 */

static void
follower_expire(Follower *follower)
{
	static const char why[] = "event: error\n"
		"data: {\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,"
		"\"detail\":\"The token has expired.\"}\n\n";

	if (follower->form == CHUNK_SSE && follower->last_words == NULL)
		follower->last_words = chunk_from_text(follower->reading.position, why, sizeof(why) - 1);
	follower_end(follower, follower->form == CHUNK_NDJSON);
}

static void
follow_tick(void *arg)
{
	int64_t		now = loop_now();
	int64_t		seconds = (int64_t) time(NULL);
	int64_t		heartbeats = 100 + 4 * (int64_t) metrics.followers / config.heartbeat;

	(void) arg;
	for (Follower *follower = TAILQ_FIRST(&followers), *next; follower != NULL; follower = next)
	{
		int64_t		expires = follower->request->identity.expires;

		next = TAILQ_NEXT(follower, link);
		if (!follower->request->answered || follower->is_ending)
			continue;
		if (expires != 0 && seconds >= expires)
			follower_expire(follower);
		else if (follower->form == CHUNK_SSE && now >= follower->written + config.heartbeat * 1000 && heartbeats-- > 0)
		{
			follower->wants_heartbeat = true;
			follower_continue(follower);
		}
	}
	if (!TAILQ_EMPTY(&followers))
		loop_timer_start(&follow_timer, TICK, follow_tick, NULL);
}

/*
 * Beginning and end
 */

/* The client has closed its connection. */
static void
follower_left(Request *request)
{
	Follower   *follower = request->owner;

	if (request->answered)
		follower_end(follower, true);
	else
	{
		reading_stop(&follower->reading);
		server_answer(request, 0, NULL);
	}
}

static void
follower_free(Request *request)
{
	Follower   *follower = request->owner;

	request->owner = NULL;
	reading_stop(&follower->reading);
	follower_leave(follower);
	catching_up--;
	TAILQ_REMOVE(&followers, follower, link);
	metrics.followers--;
	chunk_release(follower->chunk);
	chunk_release(follower->last_words);
	free(follower);
}

static ChunkForm
follow_form(const Request *request)
{
	const char *accept = request_header(request, MHD_HTTP_HEADER_ACCEPT);

	return accept != NULL && strcasestr(accept, "application/x-ndjson") != NULL ? CHUNK_NDJSON : CHUNK_SSE;
}

/*
 * Where the client wants to begin: Last-Event-ID, as an EventSource that comes again repeats its query, or
 * after_position. Returns false if it is no position.
 */
static bool
follow_position(const Request *request, int64_t *position)
{
	const char *text = request_header(request, "Last-Event-ID");
	int			after = route_param(request->route, "after_position");
	char	   *end;

	if ((text == NULL || *text == '\0') && after >= 0)
		text = request->values[after].data;
	*position = 0;
	if (text == NULL)
		return true;
	*position = strtoll(text, &end, 10);
	if (*position < 0)
		*position = 0;
	return end != text && *end == '\0';
}

static void
follow_refuse(Request *request, unsigned status, const char *detail)
{
	Problem		problem = {.status = status, .detail = detail};

	if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
	{
		problem.header = MHD_HTTP_HEADER_RETRY_AFTER;
		problem.header_value = "5";
	}
	problem_answer(request, &problem);
}

static Follower *
follower_make(Request *request, int64_t position)
{
	Follower   *follower = calloc(1, sizeof(Follower));

	if (follower == NULL)
		return NULL;
	follower->request = request;
	follower->form = follow_form(request);
	follower->position = position;
	follower->told = position;
	follower->member.moved = follower_moved;
	follower->member.failed = follower_feed_failed;
	follower->reading.route = request->route;
	follower->reading.values = request->values;
	follower->reading.role = request->identity.role;
	follower->reading.form = follower->form;
	reading_init(&follower->reading, position, follower_has_read, follower);
	request->owner = follower;
	request->on_left = follower_left;
	request->on_end = follower_free;
	TAILQ_INSERT_TAIL(&followers, follower, link);
	metrics.followers++;
	catching_up++;
	if (follow_timer.place == 0)
		loop_timer_start(&follow_timer, TICK, follow_tick, NULL);
	return follower;
}

/* Begins in the feed; returns false if there is none that knows the position. */
static bool
follower_begin_in_feed(Follower *follower, int64_t position)
{
	Feed	   *feed = follower->form == CHUNK_SSE ? feed_find(follower->request, follower->form, position) : NULL;
	Chunk	   *chunk;
	size_t		offset;

	if (feed == NULL)
		return false;
	chunk = feed_chunk_after(feed, position, &offset);
	if (chunk == NULL)
		return false;
	follower_use(follower, chunk, offset);
	follower_join(follower, feed);
	follower->reading.is_patient = true;
	follower_answer(follower);
	return true;
}

void
follow_start(Request *request)
{
	Follower   *follower;
	int64_t		position;

	if (!follow_position(request, &position))
	{
		follow_refuse(request, MHD_HTTP_BAD_REQUEST, "Last-Event-ID and after_position must be positions.");
		return;
	}
	if (server_is_draining() || (int64_t) metrics.followers >= config.max_followers)
	{
		follow_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "There are too many event streams.");
		return;
	}
	follower = follower_make(request, position);
	if (follower == NULL)
	{
		follow_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "There is not enough memory.");
		return;
	}
	if (!follower_begin_in_feed(follower, position))
		follower_read(follower);
}

void
follow_drain(void)
{
	for (Follower *follower = TAILQ_FIRST(&followers), *next; follower != NULL; follower = next)
	{
		next = TAILQ_NEXT(follower, link);
		if (follower->request->answered)
			follower_end(follower, follower->form == CHUNK_NDJSON);
		else
		{
			reading_stop(&follower->reading);
			follow_refuse(follower->request, MHD_HTTP_SERVICE_UNAVAILABLE, "The gateway is being stopped.");
		}
	}
}
