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

#include "nodes/execnodes.h"
#include "utils/reltrigger.h"

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
	int64		suspect_upto;	/* up to here batches are small */
	int64		handled;
	List	   *parked;			/* for projection_save_parked */
	List	   *streams;		/* that are parked */
} Replay;

/*
 * Handles what is stable now, without making others wait, and moves
 * projection->position; the caller updates the row.  at_least: goes up to this
 * position if it is above the horizon.
 */
extern void replay_to_horizon(Projection *projection, int64 at_least,
							  Replay *replay);

/*
 * Handles all that is left; the log must be locked against appends of others.
 */
extern void replay_to_end(Projection *projection, Replay *replay);

/* projection_mode.c */

/*
 * Locks tables against writers, all of them at once; others go on until the lock is
 * there.  purpose: "to ... projection", for an error's context.  replay: catches up with
 * appends by replay_to_horizon before the lock is taken, or is NULL.
 */
extern void projection_lock_tables(Projection *projection, List *relids,
								   const char *purpose, Replay *replay);

/* Drops the triggers that dropped projections have left, if that makes no session wait. */
extern void projection_drop_left_triggers(Oid log);

/* rebuild.c: es_rebuild_projection. */

/*
 * Keeps others from rebuilding the projection until the transaction ends;
 * returns false if one is rebuilding it and it is not to wait.  To be taken
 * before the row is locked.
 */
extern bool rebuild_lock(const char *name, bool wait);

/*
 * Keeps the projection from being rebuilt until the transaction ends, as any number
 * of sessions can; returns false if it is being rebuilt.
 */
extern bool rebuild_lock_out(const char *name);

/* rebuild_removed.c */

/* Says how many events the log has not any more, of those that it may have got. */
extern void rebuild_notice_removed(const Projection *projection);

/* rebuild_tables.c: the new tables. */

/* A table of the read model, and the new one. */
typedef struct RebuildTable
{
	Oid			relid;
	Oid			new_relid;
	char	   *old;			/* names, as SQL wants them */
	char	   *new;
	char	   *columns;		/* that are not generated, in their order */
	char	   *new_values;		/* the same of s */
	char	   *same_key;		/* t and s have the same key; NULL: no key */
	int64		rows;			/* in the new one, when it was compacted last */
} RebuildTable;

/*
 * Becomes the projection's owner until run_as_end, with row security off: where a
 * policy would hide rows, statements fail.  restricted: as in run_as.
 */
extern RunAs rebuild_run_as(const Projection *projection, bool restricted,
							const char *search_path);

/* Runs a statement as the owner; returns the number of rows. */
extern uint64 rebuild_run_sql(const Projection *projection, const char *sql);

/* Makes the new tables; returns a list of RebuildTable. */
extern List *rebuild_make_tables(const Projection *projection);

/* Rewrites those of the new tables that have too many dead rows. */
extern void rebuild_compact_tables(const Projection *projection, List *tables);

/* Lets the sequences of the old tables go on after the new rows. */
extern void rebuild_move_sequences(const Projection *projection, List *tables);

/* Drops the new tables. */
extern void rebuild_drop_tables(const Projection *projection, List *tables);

/* rebuild_swap.c: the swap. */

/* A foreign key that refers to the table, and has an action. */
typedef struct ActingKey
{
	Oid			constraint;
	char	   *same;			/* condition: k and t have the same key */
	bool		remains;		/* a new row has the key of the row at hand */
} ActingKey;

/* A table that stores rows: the one to be swapped, a partition, or a child. */
typedef struct StoredTable
{
	ResultRelInfo *relinfo;
	TupleTableSlot *old;		/* the row at hand */
	TupleTableSlot *new;		/* its new version */
	int		   *columns;		/* of the new values; 0: stays as it is */
	ActingKey **keys;			/* of its triggers; NULL: none that acts */
	char	   *enabled;		/* its triggers' tgenabled */
} StoredTable;

/* A table that is swapped. */
typedef struct TableSwap
{
	const RebuildTable *table;
	EState	   *estate;
	EPQState	recheck;
	ResultRelInfo *root;
	List	   *stored;			/* StoredTable */
	List	   *keys;			/* ActingKey */
	List	   *suspects;		/* rebuild_change.c's */
	List	   *held_back;		/* rebuild_keys.c's */
	TransitionCaptureState *updated;	/* for triggers with transition tables */
	TransitionCaptureState *deleted;
} TableSwap;

/*
 * Columns of the query for the old rows that do not stay as they are.  Then
 * follows whether the key of each acting foreign key remains, then the new
 * values.
 */
enum
{
	CHANGED_TABLE = 1, CHANGED_TID, CHANGED_STAYS, CHANGED_FIRST_KEY
};

/* Makes the rows of the old tables those of the new ones. */
extern void rebuild_swap_tables(const Projection *projection, List *tables);

/* rebuild_change.c: rows that are deleted or updated. */

/* Deletes or updates the old row that a row of the query's result names. */
extern void rebuild_change_row(TableSwap *swap, HeapTuple row, TupleDesc desc);

/* Refuses (23505, 23P01) rows that are duplicates now that all are changed. */
extern void rebuild_change_check_unique(TableSwap *swap);

/* Fetches an old row, which may be dead by now, into stored->old. */
extern void rebuild_change_fetch_old(const StoredTable *stored,
									 ItemPointer tid);

/* rebuild_keys.c: foreign keys that have an action. */

/* Looks up those that refer to the table; returns a list of ActingKey. */
extern List *rebuild_keys_find(const Projection *projection, Oid relid);

/* Finds which triggers of the table are actions of which of swap->keys. */
extern void rebuild_keys_open(const TableSwap *swap, StoredTable *stored);

/*
 * Before the triggers of the row at hand are queued: holds back the actions of
 * keys that remain.  new: its new version; NULL: it is deleted.
 */
extern void rebuild_keys_hold_back(TableSwap *swap, StoredTable *stored,
								   TupleTableSlot *new);

/* Checks the foreign keys whose actions were held back (23503). */
extern void rebuild_keys_check(const TableSwap *swap);

#endif							/* EVENTSTORE_REBUILD_H */
