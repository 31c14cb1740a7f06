/*-------------------------------------------------------------------------
 *
 * reading.h
 *		A place in the log, and the statement that reads on from there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_READING_H
#define GATEWAY_READING_H

#include "chunk.h"
#include "loop.h"
#include "pool.h"
#include "turn.h"

typedef enum ReadingOutcome
{
	READING_MORE,				/* a chunk; there may be more */
	READING_END,				/* a chunk, maybe without events, and nothing after it yet */
	READING_REFUSED,			/* an error that will come again; the result has it */
	READING_FAILED				/* an error that may pass; not if it is patient */
} ReadingOutcome;

typedef struct Reading Reading;

/* Gets a chunk and the reference to it, or an error; clears the result. */
typedef void (*ReadingCallback) (Reading *reading, ReadingOutcome outcome, Chunk *chunk, PoolOutcome pool,
								 PGresult *result);

struct Reading
{
	const Route *route;
	const Value *values;		/* in the order of the route's parameters; after_position and batch are set by us */
	const char *role;
	ChunkForm	form;
	bool		is_patient;		/* tries again by itself until it succeeds */
	int64_t		position;		/* everything up to here has been read */
	int64_t		known;			/* the log goes so far at least, as the last statement has said; -1: it did not */
	size_t		target;			/* bytes that a chunk should have at most */
	int			batch;			/* events of the next one */
	int			failures;		/* in a row */
	int64_t		started;		/* loop_now() */
	int64_t		took;			/* ms, of the last one */
	PoolJob    *job;
	Turn		turn;
	LoopTimer	retry;
	ReadingCallback callback;
	void	   *arg;
};

/* Fills a structure that is all zero, and whose route, values, role and form are set. */
extern void reading_init(Reading *reading, int64_t position, ReadingCallback callback, void *arg);

/* Reads a chunk; harmless while one is being read. */
extern void reading_start(Reading *reading);

/* The same in so many ms. */
extern void reading_start_later(Reading *reading, int64_t delay);

/* Returns true while it is being read, or will be. */
extern bool reading_is_busy(const Reading *reading);

/* Forgets what is being read. */
extern void reading_stop(Reading *reading);

#endif
