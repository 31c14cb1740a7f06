/*-------------------------------------------------------------------------
 *
 * chunk.h
 *		The text of some events, as it is sent to followers.
 *
 * A chunk is made once from the rows of a statement and never changed.  It is
 * shared: everyone who sends from it holds a reference.  A chunk of a feed knows
 * the next one as long as it is in the feed's window (see feed.h).
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CHUNK_H
#define GATEWAY_CHUNK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ChunkForm
{
	CHUNK_SSE,					/* text/event-stream */
	CHUNK_NDJSON				/* application/x-ndjson */
} ChunkForm;

/* An event of a chunk: its position, and where its text ends. */
typedef struct ChunkEvent
{
	int64_t		position;
	size_t		end;
} ChunkEvent;

typedef struct Chunk
{
	struct Chunk *next;			/* the next one of the feed, without a reference */
	bool		is_live;		/* it is in the window of a feed */
	unsigned	references;
	int64_t		after;			/* it has the events after this position, */
	int64_t		upto;			/* up to this one, whether or not there is one */
	size_t		length;
	int			count;
	ChunkEvent *events;
	char	   *text;
} Chunk;

/* What a result says beside its events. */
typedef struct ChunkReport
{
	int			rows;			/* with a body */
	size_t		bytes;			/* of their bodies */
	int64_t		read_upto;		/* of a row without a body; -1 without one */
} ChunkReport;

/*
 * Makes a chunk of a result's rows after a position, with one reference.  Returns NULL if memory is out, or if
 * the result is not what a statement must return: columns "position" and "body", and positions that ascend.
 */
extern Chunk *chunk_from_result(const PGresult *result, int64_t after, ChunkForm form, ChunkReport *report);

/* Makes a chunk of a text alone, or without one. */
extern Chunk *chunk_from_text(int64_t position, const char *text, size_t length);

/* Where in the text the events after a position begin; and how many there are from such a place. */
extern size_t chunk_offset(const Chunk *chunk, int64_t after);
extern int	chunk_events_from(const Chunk *chunk, size_t offset);

/* Adds or gives up a reference. */
extern Chunk *chunk_hold(Chunk *chunk);
extern void chunk_release(Chunk *chunk);

#endif
