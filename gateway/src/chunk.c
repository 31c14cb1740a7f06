/*-------------------------------------------------------------------------
 *
 * chunk.c
 *		The text of some events, as it is sent to followers.
 *
 * An event of an event stream is
 *
 *		id: 4711
 *		data: {"position":4711, ...}
 *
 * and an empty line.  It has no line "event:", so that a client gets all events
 * by one handler, whatever their types are; the type is in the JSON.  In NDJSON
 * it is the JSON and the end of the line.  A line break in the JSON can only be
 * between its tokens, and becomes a space.
 *
 * The structure, the events and the text are one piece of memory.
 *
 *-------------------------------------------------------------------------
 */
#include "chunk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "id: ", a bigint, "\ndata: ", "\n\n" */
#define FRAME_SIZE	40

static Chunk *
chunk_allocate(int events, size_t length)
{
	size_t		head = sizeof(Chunk) + sizeof(ChunkEvent) * (size_t) events;
	Chunk	   *chunk = malloc(head + length + 1);

	if (chunk == NULL)
		return NULL;
	memset(chunk, 0, sizeof(Chunk));
	chunk->references = 1;
	chunk->events = (ChunkEvent *) (chunk + 1);
	chunk->text = (char *) chunk + head;
	return chunk;
}

static void
chunk_append(Chunk *chunk, const char *text, size_t length)
{
	memcpy(chunk->text + chunk->length, text, length);
	chunk->length += length;
}

static void
chunk_append_json(Chunk *chunk, const char *json, size_t length)
{
	char	   *start = chunk->text + chunk->length;
	char	   *end = start + length;

	chunk_append(chunk, json, length);
	for (char *at = start; (at = memchr(at, '\n', (size_t) (end - at))) != NULL;)
		*at = ' ';
	for (char *at = start; (at = memchr(at, '\r', (size_t) (end - at))) != NULL;)
		*at = ' ';
}

static void
chunk_append_event(Chunk *chunk, int64_t position, const char *json, size_t length, ChunkForm form)
{
	char		head[FRAME_SIZE];

	if (form == CHUNK_SSE)
	{
		int			size = snprintf(head, sizeof(head), "id: %" PRId64 "\ndata: ", position);

		chunk_append(chunk, head, (size_t) size);
	}
	chunk_append_json(chunk, json, length);
	if (form == CHUNK_SSE)
		chunk_append(chunk, "\n\n", 2);
	else
		chunk_append(chunk, "\n", 1);
	chunk->events[chunk->count].position = position;
	chunk->events[chunk->count].end = chunk->length;
	chunk->count++;
	chunk->upto = position;
}

static int64_t
chunk_row_position(const PGresult *result, int row, int column)
{
	return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

/* Counts the rows with a body, and finds the one without.  Returns false if positions do not ascend from "after". */
static bool
chunk_examine(const PGresult *result, int64_t after, int position, int body, ChunkReport *report)
{
	int64_t		last = after;

	report->rows = 0;
	report->bytes = 0;
	report->read_upto = -1;
	for (int row = 0; row < PQntuples(result); row++)
	{
		int64_t		at = chunk_row_position(result, row, position);

		if (PQgetisnull(result, row, body))
		{
			report->read_upto = at;
			continue;
		}
		if (at <= last)
			return false;
		last = at;
		report->rows++;
		report->bytes += (size_t) PQgetlength(result, row, body);
	}
	return true;
}

Chunk *
chunk_from_result(const PGresult *result, int64_t after, ChunkForm form, ChunkReport *report)
{
	int			position = PQfnumber(result, "position");
	int			body = PQfnumber(result, "body");
	Chunk	   *chunk;

	if (position < 0 || body < 0 || !chunk_examine(result, after, position, body, report))
		return NULL;
	chunk = chunk_allocate(report->rows, report->bytes + (size_t) report->rows * FRAME_SIZE);
	if (chunk == NULL)
		return NULL;
	chunk->after = after;
	chunk->upto = after;
	for (int row = 0; row < PQntuples(result); row++)
		if (!PQgetisnull(result, row, body))
			chunk_append_event(chunk, chunk_row_position(result, row, position), PQgetvalue(result, row, body),
							   (size_t) PQgetlength(result, row, body), form);
	return chunk;
}

Chunk *
chunk_from_text(int64_t position, const char *text, size_t length)
{
	Chunk	   *chunk = chunk_allocate(0, length);

	if (chunk == NULL)
		return NULL;
	chunk->after = position;
	chunk->upto = position;
	if (length > 0)
		chunk_append(chunk, text, length);
	return chunk;
}

/* The number of the first event after a position. */
static int
chunk_search(const Chunk *chunk, int64_t after)
{
	int			low = 0;
	int			high = chunk->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (chunk->events[middle].position > after)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

size_t
chunk_offset(const Chunk *chunk, int64_t after)
{
	int			first = chunk_search(chunk, after);

	return first == 0 ? 0 : chunk->events[first - 1].end;
}

int
chunk_events_from(const Chunk *chunk, size_t offset)
{
	int			number = chunk->count;

	while (number > 0 && chunk->events[number - 1].end > offset)
		number--;
	return chunk->count - number;
}

Chunk *
chunk_hold(Chunk *chunk)
{
	chunk->references++;
	return chunk;
}

void
chunk_release(Chunk *chunk)
{
	if (chunk != NULL && --chunk->references == 0)
		free(chunk);
}
