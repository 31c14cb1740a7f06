/*-------------------------------------------------------------------------
 *
 * feed.c
 *		Feeds: what followers of one role, one filter and one form have in common.
 *
 * A feed runs one statement for all of its members when it is woken, and makes
 * one text of each event.  The chunks of text form a list.  A member holds a
 * reference to the one that it sends from, and goes to the next one by itself.
 *
 * The feed keeps the last chunks, its window: at most follow_queue bytes, and two
 * chunks at least.  A chunk that leaves the window is forgotten by the feed and
 * lives until the last member has sent it.  A member that finds no next chunk
 * there reads on by itself.  So a member that does not read holds one chunk,
 * however much the feed has sent to others meanwhile.
 *
 * The window is also for those who come: a follower whose position is in it needs
 * no statement of its own.  It has been allowed to read by the last statement that
 * ran for the others; if the role may not read any more, the next statement fails,
 * and all of them end.
 *
 * A feed whose runs find nothing, as its filter seldom matches, runs for at most a
 * twentieth of the time.
 *
 *-------------------------------------------------------------------------
 */
#include "feed.h"

#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "hash.h"
#include "metrics.h"
#include "problem.h"
#include "reading.h"
#include "wake.h"

#define BUCKETS			1024
#define WINDOW_CHUNKS	256
#define IDLE_RUNS		2		/* in a row may find nothing before it pauses */
#define IDLE_FACTOR		20		/* of the time that a run took, the pause after it */
#define IDLE_PAUSE_MAX	250		/* ms */

struct Feed
{
	Feed	   *next;			/* in its bucket */
	unsigned	bucket;
	Value		values[ROUTE_MAX_PARAMS];
	char	   *memory;			/* of the values */
	char		role[ROLE_SIZE];
	Reading		reading;
	WakeListener listener;
	LIST_HEAD(, FeedMember) members;
	Chunk	   *oldest;			/* of the window; it is never empty */
	Chunk	   *newest;
	size_t		window_bytes;
	int			window_chunks;
	bool		is_woken;		/* while it was reading, or paused */
	int			idle_runs;		/* in a row */
	LoopTimer	pause;
};

static Feed *feed_buckets[BUCKETS];

static void feed_read(void *arg);

/*
 * The key
 */

static bool
feed_param_is_key(const Route *route, int number)
{
	return route->params[number].place != PARAM_BATCH && strcmp(route->params[number].key, "after_position") != 0;
}

static unsigned
feed_bucket(const Request *request, ChunkForm form)
{
	uint32_t	hash = hash_bytes(HASH_START, request->identity.role, strlen(request->identity.role));

	hash = hash_bytes(hash, &form, sizeof(form));
	hash = hash_bytes(hash, &request->route, sizeof(request->route));
	for (int i = 0; i < request->route->param_count; i++)
		if (feed_param_is_key(request->route, i) && request->values[i].data != NULL)
			hash = hash_bytes(hash ^ (unsigned) i, request->values[i].data, request->values[i].length);
	return hash % BUCKETS;
}

static bool
feed_value_is(const Value *a, const Value *b)
{
	if (a->data == NULL || b->data == NULL)
		return a->data == NULL && b->data == NULL;
	return a->length == b->length && memcmp(a->data, b->data, a->length) == 0;
}

static bool
feed_is_for(const Feed *feed, const Request *request, ChunkForm form)
{
	const Route *route = request->route;

	if (feed->reading.route != route || feed->reading.form != form || strcmp(feed->role, request->identity.role) != 0)
		return false;
	for (int i = 0; i < route->param_count; i++)
		if (feed_param_is_key(route, i) && !feed_value_is(&feed->values[i], &request->values[i]))
			return false;
	return true;
}

/*
 * The window
 */

static void
feed_drop_oldest(Feed *feed)
{
	Chunk	   *chunk = feed->oldest;

	feed->oldest = chunk->next;
	feed->window_bytes -= chunk->length;
	feed->window_chunks--;
	chunk->next = NULL;
	chunk->is_live = false;
	chunk_release(chunk);
}

/* Takes over the reference. */
static void
feed_append(Feed *feed, Chunk *chunk)
{
	chunk->is_live = true;
	if (feed->newest != NULL)
		feed->newest->next = chunk;
	else
		feed->oldest = chunk;
	feed->newest = chunk;
	feed->window_bytes += chunk->length;
	feed->window_chunks++;
	while (feed->oldest != chunk && feed->oldest->next != chunk &&
		   (feed->window_bytes > (size_t) config.follow_queue || feed->window_chunks > WINDOW_CHUNKS))
		feed_drop_oldest(feed);
}

Chunk *
feed_chunk_after(const Feed *feed, int64_t position, size_t *offset)
{
	Chunk	   *chunk = feed->oldest;

	if (position < chunk->after)
		return NULL;
	while (chunk->next != NULL && chunk->upto <= position)
		chunk = chunk->next;
	*offset = chunk_offset(chunk, position);
	return chunk_hold(chunk);
}

/*
 * Life
 */

static void
feed_free(Feed *feed)
{
	reading_stop(&feed->reading);
	loop_timer_stop(&feed->pause);
	while (feed->oldest != NULL)
		feed_drop_oldest(feed);
	free(feed->memory);
	free(feed);
}

static void
feed_end(Feed *feed)
{
	Feed	  **place = &feed_buckets[feed->bucket];

	while (*place != feed)
		place = &(*place)->next;
	*place = feed->next;
	wake_unlisten(&feed->listener);
	metrics.feeds--;
	feed_free(feed);
}

static bool
feed_copy_values(Feed *feed, const Request *request)
{
	size_t		size = 1;
	char	   *at;

	for (int i = 0; i < request->route->param_count; i++)
		size += request->values[i].length + 1;
	at = feed->memory = malloc(size);
	if (at == NULL)
		return false;
	for (int i = 0; i < request->route->param_count; i++)
	{
		const Value *value = &request->values[i];

		if (value->data == NULL || !feed_param_is_key(request->route, i))
			continue;
		memcpy(at, value->data, value->length);
		at[value->length] = '\0';
		feed->values[i] = (Value) {at, value->length};
		at += value->length + 1;
	}
	return true;
}

/* Listens to the category of the parameter "category" or "stream", or to all events. */
static bool
feed_listen(Feed *feed)
{
	const Route *route = feed->reading.route;
	int			category = route_param(route, "category");
	int			stream = route_param(route, "stream");
	const char *name = NULL;
	char	   *copy = NULL;
	bool		listens;

	if (category >= 0 && !route->params[category].is_array)
		name = feed->values[category].data;
	else if (stream >= 0 && feed->values[stream].data != NULL)
	{
		copy = strndup(feed->values[stream].data, strcspn(feed->values[stream].data, "-"));
		name = copy;
	}
	listens = wake_listen(&feed->listener, &name, name != NULL ? 1 : 0);
	free(copy);
	return listens;
}

/*
 * Reading
 */

static void
feed_failed(Feed *feed, PGresult *result)
{
	Chunk	   *why = feed_error_chunk(result, feed->reading.position);

	PQclear(result);
	while (!LIST_EMPTY(&feed->members))
	{
		FeedMember *member = LIST_FIRST(&feed->members);

		LIST_REMOVE(member, link);
		member->failed(member, why);
	}
	chunk_release(why);
	feed_end(feed);
}

static void
feed_pause_over(void *arg)
{
	Feed	   *feed = arg;

	if (feed->is_woken)
		feed_read(feed);
}

/* After a run that has found nothing. */
static void
feed_pause(Feed *feed)
{
	int64_t		pause = feed->reading.took * IDLE_FACTOR;

	if (feed->idle_runs++ >= IDLE_RUNS)
		loop_timer_start(&feed->pause, pause < IDLE_PAUSE_MAX ? pause : IDLE_PAUSE_MAX, feed_pause_over, feed);
}

static void
feed_has_read(Reading *reading, ReadingOutcome outcome, Chunk *chunk, PoolOutcome pool, PGresult *result)
{
	Feed	   *feed = reading->arg;
	FeedMember *member;

	(void) pool;
	if (chunk == NULL)
	{
		feed_failed(feed, result);
		return;
	}
	feed->listener.position = reading->position;
	if (chunk->count == 0)
	{
		if (feed->newest->upto < chunk->upto)
			feed->newest->upto = chunk->upto;
		chunk_release(chunk);
		feed_pause(feed);
	}
	else
	{
		feed->idle_runs = 0;
		feed_append(feed, chunk);
		LIST_FOREACH(member, &feed->members, link)
			member->moved(member);
	}
	if (feed->is_woken || outcome == READING_MORE)
		feed_read(feed);
}

/* Reads now, or as soon as it has read and paused. */
static void
feed_read(void *arg)
{
	Feed	   *feed = arg;

	feed->is_woken = reading_is_busy(&feed->reading) || feed->pause.place != 0;
	if (feed->is_woken)
		return;
	wake_looks(&feed->listener);
	reading_start(&feed->reading);
}

/*
 * Interface
 */

static Feed *
feed_look_up(const Request *request, ChunkForm form)
{
	Feed	   *feed = feed_buckets[feed_bucket(request, form)];

	while (feed != NULL && !feed_is_for(feed, request, form))
		feed = feed->next;
	return feed;
}

Feed *
feed_find(const Request *request, ChunkForm form, int64_t position)
{
	Feed	   *feed = feed_look_up(request, form);

	return feed != NULL && position >= feed->oldest->after ? feed : NULL;
}

static Feed *
feed_make(const Request *request, ChunkForm form, int64_t position)
{
	Feed	   *feed = calloc(1, sizeof(Feed));
	Chunk	   *chunk = chunk_from_text(position, NULL, 0);

	if (feed == NULL || chunk == NULL || !feed_copy_values(feed, request))
	{
		free(feed);
		free(chunk);
		return NULL;
	}
	feed_append(feed, chunk);
	memcpy(feed->role, request->identity.role, ROLE_SIZE);
	feed->reading.route = request->route;
	feed->reading.values = feed->values;
	feed->reading.role = feed->role;
	feed->reading.form = form;
	feed->reading.is_patient = true;
	reading_init(&feed->reading, position, feed_has_read, feed);
	feed->listener.position = position;
	feed->listener.is_polled = true;
	feed->listener.role = feed->role;
	feed->listener.wake = feed_read;
	feed->listener.arg = feed;
	if (!feed_listen(feed))
	{
		feed_free(feed);
		return NULL;
	}
	return feed;
}

Feed *
feed_open(const Request *request, ChunkForm form, int64_t position)
{
	Feed	   *feed = feed_look_up(request, form);
	unsigned	bucket = feed_bucket(request, form);

	if (feed != NULL)
		return position >= feed->oldest->after ? feed : NULL;
	feed = feed_make(request, form, position);
	if (feed == NULL)
		return NULL;
	feed->bucket = bucket;
	feed->next = feed_buckets[bucket];
	feed_buckets[bucket] = feed;
	metrics.feeds++;
	/* Events may have come since the follower has read, and before the feed has listened. */
	feed_read(feed);
	return feed;
}

void
feed_join(Feed *feed, FeedMember *member)
{
	LIST_INSERT_HEAD(&feed->members, member, link);
}

void
feed_leave(Feed *feed, FeedMember *member)
{
	LIST_REMOVE(member, link);
	if (LIST_EMPTY(&feed->members))
		feed_end(feed);
}

Chunk *
feed_error_chunk(const PGresult *result, int64_t position)
{
	Buffer		text = {0};
	Chunk	   *chunk = NULL;

	buffer_text(&text, "event: error\ndata: ");
	problem_append_sql(&text, result);
	buffer_text(&text, "\n\n");
	if (!text.failed)
		chunk = chunk_from_text(position, text.data, text.length);
	buffer_free(&text);
	return chunk;
}
