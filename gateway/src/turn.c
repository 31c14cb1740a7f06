/*-------------------------------------------------------------------------
 *
 * turn.c
 *		Turns: which of the readers in the background may use a connection next.
 *
 * The queue is a list, first come, first served.  A callback may end its own turn
 * and ask for others, so that turn_go_on is called again inside of itself; the
 * inner call does nothing, as the outer one looks again.
 *
 *-------------------------------------------------------------------------
 */
#include "turn.h"

#include <stdbool.h>
#include <stddef.h>

#include "config.h"

static TAILQ_HEAD(, Turn) turns = TAILQ_HEAD_INITIALIZER(turns);
static int	turns_taken;
static bool turns_going_on;

static int
turn_limit(void)
{
	return config.pool_size > 2 ? (int) (config.pool_size / 2) : 1;
}

static void
turn_go_on(void)
{
	if (turns_going_on)
		return;
	turns_going_on = true;
	while (!TAILQ_EMPTY(&turns) && turns_taken < turn_limit())
	{
		Turn	   *turn = TAILQ_FIRST(&turns);

		TAILQ_REMOVE(&turns, turn, link);
		turn->state = TURN_TAKEN;
		turns_taken++;
		turn->take(turn->arg);
	}
	turns_going_on = false;
}

void
turn_ask(Turn *turn, void (*take) (void *arg), void *arg)
{
	if (turn->state != TURN_NONE)
		return;
	turn->take = take;
	turn->arg = arg;
	turn->state = TURN_QUEUED;
	TAILQ_INSERT_TAIL(&turns, turn, link);
	turn_go_on();
}

void
turn_end(Turn *turn)
{
	if (turn->state == TURN_QUEUED)
		TAILQ_REMOVE(&turns, turn, link);
	else if (turn->state == TURN_TAKEN)
		turns_taken--;
	turn->state = TURN_NONE;
	turn_go_on();
}
