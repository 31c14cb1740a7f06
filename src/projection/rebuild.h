/*-------------------------------------------------------------------------
 *
 * rebuild.h
 *		Handling the past of a projection: for the first time when it becomes
 *		sync, and again when it is rebuilt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_REBUILD_H
#define EVENTSTORE_REBUILD_H

#include "projection/projection.h"

/* replay.c: a range of the log in one transaction. */

/* How a replay goes, and what it has done. */
typedef struct Replay
{
	bool		park;			/* park bad events; else raise the error */
	void		(*progress) (const Projection *projection,
							 const struct Replay *replay);	/* after a batch */
	void	   *progress_data;
	int64		upto;			/* the position that it goes to */
	int64		handled;
	List	   *parked;			/* for projection_save_parked */
	List	   *streams;		/* that are parked */
} Replay;

/*
 * Handles what is stable now, without keeping anybody waiting, and moves
 * projection->position; the caller updates the row.  at_least: goes up to this
 * position if it is above the horizon.
 */
extern void replay_to_horizon(Projection *projection, int64 at_least,
							  Replay *replay);

/*
 * Handles all that is left; the log must be locked against appends of others.
 */
extern void replay_to_end(Projection *projection, Replay *replay);

/* rebuild.c: es_rebuild_projection. */

/*
 * Keeps others from rebuilding the projection until the transaction ends;
 * returns false if one is rebuilding it and it is not to wait.  To be taken
 * before the row is locked.
 */
extern bool rebuild_lock(const char *name, bool wait);

/* rebuild_tables.c */
extern void rebuild_tables_init(void);
extern List *rebuild_make_tables(const Projection *projection);
extern void rebuild_compact_tables(const Projection *projection, List *tables);
extern void rebuild_swap_tables(const Projection *projection, List *tables);
extern void rebuild_drop_tables(const Projection *projection, List *tables);

#endif							/* EVENTSTORE_REBUILD_H */
