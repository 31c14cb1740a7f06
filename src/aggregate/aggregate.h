/*-------------------------------------------------------------------------
 *
 * aggregate.h
 *		States of streams: reducers, folds, snapshots.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_AGGREGATE_H
#define EVENTSTORE_AGGREGATE_H

#include "fmgr.h"
#include "utils/snapshot.h"

#include "append/append.h"
#include "type/type.h"
#include "read/present.h"
#include "read/read.h"

/* reducer_call.c */

/* A prepared call of a function (state jsonb, other) RETURNS jsonb. */
typedef struct ReducerCall ReducerCall;

/* Prepares calls for the current memory context.  other: the second argument's type. */
extern ReducerCall *reducer_call_make(Oid function, Oid other);

/* The result is in the current memory context, or is one of the arguments. */
extern Datum reducer_call(ReducerCall *call, NullableDatum state, Datum other,
						  bool *isnull);

/* fingerprint.c */

/* A schema's reducer is this function of the library, and calls those. */
#define ES_SCHEMA_REDUCER	"es_reduce"
#define ES_APPLY_PREFIX		"apply_"

/* A reducer, and what it is made of. */
typedef struct Reducer
{
	Oid			function;
	Oid			owner;
	char	   *signature;
	uint64		fingerprint;	/* of all that a state depends on */
	uint64		definition;		/* of the reducer's own part of that */
	uint64		changes;		/* of functions, when it was read */
	uint64		generation;		/* of upcasters */
} Reducer;

/* Returns true if the function is a schema's reducer, as es_reducer() makes it. */
extern bool fingerprint_is_of_schema(Oid function);

/* Describes an existing reducer. */
extern Reducer fingerprint_reducer(Oid log, Oid function);

/* Returns true if nothing of the reducer has changed since it was described. */
extern bool fingerprint_is_current(Oid log, const Reducer *reducer);

/* snapshot.c */

/* A state of a stream, or of the events that match a query. */
typedef struct StreamState
{
	int64		version;		/* of the last event in it, of a query its
								 * position; 0: none */
	TimestampTz recorded_at;	/* of the latest of its events */
	NullableDatum state;		/* jsonb */
	int64		snapshot;		/* id of the row it was found in */
	bool		personal;		/* events had personal attributes */
} StreamState;

/* What a state is folded from, besides the events. */
typedef struct FoldSource
{
	Oid			log;			/* es_events */
	text	   *stream;			/* a tag, if of_query; NULL: no tag alone */
	bool		of_query;
	Reducer		reducer;
	uint64		initial;		/* a hash of the state before the first event */
} FoldSource;

/*
 * Finds the last saved state at or before version upto, none of whose events
 * was recorded later than until.  Returns true if there is one; the copy is in
 * the current memory context.
 */
extern bool snapshot_find(const FoldSource *source, int64 upto,
						  TimestampTz until, Snapshot snapshot,
						  StreamState *found);

/* Returns true if a state that was found is saved now, too, and was not deleted since. */
extern bool snapshot_is_saved_now(const FoldSource *source, const StreamState *state);

/*
 * Saves a state, as taken by the current user.  Returns false, without waiting,
 * if the table is locked as a whole.
 */
extern bool snapshot_save(const FoldSource *source, const StreamState *state);

/* Returns true if this transaction may save states without being asked to. */
extern bool snapshot_may_save(void);

/* merge.c */

/* A fold of many events by es_merge or es_last. */
typedef struct Merge Merge;

/* Refuses a value that is not an object, since it has nothing to merge. */
extern void merge_check_object(Datum value);

/* Begins with a state.  only_last: what is added replaces it. */
extern Merge *merge_begin(NullableDatum state, bool only_last);

/* Adds the data of the next event.  Errors: it or the state is not an object. */
extern void merge_add(Merge *merge, Datum data);

/* The state after all that was added, in the current memory context. */
extern Datum merge_state(Merge *merge, bool *isnull);

/* reducer.c */

/* Returns true if the function is es_merge or es_last, which merge.c replaces. */
extern bool reducer_is_merge(const FmgrInfo *function, bool *only_last);

/* Returns true if the function is a schema's, which reducer_apply() replaces. */
extern bool reducer_is_of_schema(const FmgrInfo *function);

/* Calls the schema's function for the event's type; without one keeps the state. */
extern Datum reducer_apply(FmgrInfo *reducer, NullableDatum state, text *type,
						   Datum data, bool *isnull);

/* fold.c: one fold */

/* The fold of a stream. */
typedef struct Fold
{
	FoldSource	source;
	FmgrInfo	function;		/* the reducer's */
	ReducerCall *call;			/* of it; NULL: not needed so far */
	NullableDatum initial;		/* the state before the first event */
	Presenter  *presenter;
	uint64		definitions;	/* their generation, of which that is */
	bool		reads_all;		/* may the caller read all events? */
	uint64		keys;			/* changes of subjects' keys before; 0: there
								 * are none */
	int64		at;				/* version of the event that is being folded,
								 * of a query its position */
	bool		dense;			/* must each version follow the last one? */
	bool		has_notices;	/* may there be any, and a first version above
								 * 1? */
	bool		adopts;			/* a compacted state, whatever it was made by? */
	bool		deleted;		/* is es_stream_deleted the last event? */
	int64		first;			/* version of the first event; 0: none, or a
								 * snapshot */
	bool		locked;			/* the stream, so that its events stay as they
								 * are? */
	StreamState base;			/* the snapshot that it began with; version 0:
								 * none */
	StreamState state;			/* so far */
	Merge	   *merge;			/* folds in the reducer's place; NULL: nothing */
	int64		folded;			/* how many events, since the last snapshot */
	void		(*each) (struct Fold *fold, TupleTableSlot *event);
	void	   *each_data;		/* each is called after each event, if not
								 * NULL */

	MemoryContext memory;		/* of the call */
	MemoryContext context;		/* of the state */
	MemoryContext next;			/* of the next one */
} Fold;

/* Defines eventstore.snapshot_every. */
extern void fold_init(void);

/*
 * Begins a fold of the stream with the state before its first event.  reducer:
 * an es_function.  Errors: it names no reducer that the user may execute.
 */
extern void fold_begin(Fold *fold, Oid log, text *stream, text *reducer,
					   Datum initial, bool isnull);

/* The same of the events that match a query.  tag: the only one that it asks for, or NULL. */
extern void fold_begin_query(Fold *fold, Oid log, text *tag, text *reducer,
							 Datum initial, bool isnull);

/*
 * Goes on from the last snapshot that fits: at or before version upto, with no
 * event that was recorded later than until.
 */
extern void fold_from_snapshot(Fold *fold, Snapshot snapshot, int64 upto,
							   TimestampTz until);

/* Returns the next event of a scan, a row of es_events; NULL after the last one. */
typedef TupleTableSlot *(*EventNext) (void *scan);

/*
 * Folds the events of the scan, up to the first one that was recorded later
 * than until.
 */
extern void fold_events(Fold *fold, EventNext next, void *scan, TimestampTz until);

/* Folds the events of a scan of a stream. */
extern void fold_scan(Fold *fold, StreamScan *scan, TimestampTz until);

/*
 * Folds the stream's events from where the fold is up to version upto, and to
 * the first one that was recorded later than until.
 */
extern void fold_stream(Fold *fold, Snapshot snapshot, int64 upto,
						TimestampTz until);

/*
 * Saves a snapshot of the state, which was folded with the active snapshot.  Returns false
 * if that is not possible now.
 */
extern bool fold_save_now(Fold *fold);

/* Saves a snapshot of the state, if it took many events and is possible. */
extern void fold_save(Fold *fold);

/* Refuses to go on where events lacked personal attributes.  what: "decide on ...". */
extern void fold_check_whole(const Fold *fold, const char *what);

/* Begins again, with the initial state. */
extern void fold_restart(Fold *fold);

/*
 * Goes back to the initial state if types are defined otherwise than at the beginning.  Returns true if
 * they are.  To be called after a wait.
 */
extern bool fold_renew(Fold *fold);

/* Goes on from another state, which is in fold->next or is not in a context of the fold. */
extern void fold_replace_state(Fold *fold, NullableDatum state);

/* Frees all but the state, which lives as long as the memory context. */
extern void fold_end(Fold *fold);

/* The row that an SQL function returns. */
extern Datum fold_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

/* snapshot_check.c */

/*
 * Returns true if the events that were folded with the snapshot are the same now, and stay
 * so to the end of the transaction.  It does not wait.
 */
extern bool snapshot_check_events(const Fold *fold, Snapshot snapshot);

#endif							/* EVENTSTORE_AGGREGATE_H */
