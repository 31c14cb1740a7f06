/*-------------------------------------------------------------------------
 *
 * turn.h
 *		Turns: which of the readers in the background may use a connection next.
 *
 * Feeds, followers that catch up, and long polls can be thousands, and all of
 * them want to run a statement after an append.  They take turns, so that at
 * most half of the pool's connections work for them, and requests that somebody
 * waits for do not stand behind them in the queue of the pool.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_TURN_H
#define GATEWAY_TURN_H

#include <sys/queue.h>

typedef enum TurnState
{
	TURN_NONE,
	TURN_QUEUED,
	TURN_TAKEN
} TurnState;

/* Part of whoever takes turns; all zero is one that has none. */
typedef struct Turn
{
	TAILQ_ENTRY(Turn) link;
	TurnState	state;
	void		(*take) (void *arg);
	void	   *arg;
} Turn;

/* Calls back at once, or when others have ended their turns. */
extern void turn_ask(Turn *turn, void (*take) (void *arg), void *arg);

/* Ends the turn, or leaves the queue; harmless without either. */
extern void turn_end(Turn *turn);

#endif
