/*-------------------------------------------------------------------------
 *
 * aggregate.h
 *		Folds of streams: reducers, snapshots, states, commands.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_AGGREGATE_H
#define EVENTSTORE_AGGREGATE_H

#include "fmgr.h"
#include "utils/snapshot.h"

#include "type/type.h"
#include "read/read.h"

/* reducer_call.c */

typedef struct ReducerCall ReducerCall;

extern ReducerCall *reducer_call_make(Oid function, Oid other);
extern Datum reducer_call(ReducerCall *call, NullableDatum state, Datum other,
						  bool *isnull);

/* fingerprint.c */

/* The reducer of a schema is this function of the library, and calls these. */
#define ES_SCHEMA_REDUCER	"es_reduce"
#define ES_APPLY_PREFIX		"apply_"

/* A reducer, and what it is made of. */
typedef struct Reducer
{
	Oid			function;
	Oid			owner;
	char	   *signature;
	uint64		fingerprint;
	uint64		changes;		/* of functions, when it was read */
	uint64		generation;		/* of upcasters */
} Reducer;

extern bool fingerprint_is_of_schema(Oid function);
extern Reducer fingerprint_reducer(Oid log, Oid function);
extern bool fingerprint_is_current(Oid log, const Reducer *reducer);

/* snapshot.c */

/* A state of a stream. */
typedef struct StreamState
{
	int64		version;		/* of the last event in it; 0: none */
	TimestampTz recorded_at;	/* of the latest of its events */
	NullableDatum state;		/* jsonb */
} StreamState;

/* What states are of. */
typedef struct FoldSource
{
	Oid			log;			/* es_events */
	text	   *stream;
	Reducer		reducer;
	uint64		initial;		/* a hash of the state before the first event */
} FoldSource;

extern bool snapshot_find(const FoldSource *of, int64 upto, TimestampTz until,
						  Snapshot snapshot, StreamState *kept);
extern bool snapshot_save(const FoldSource *of, const StreamState *kept);
extern bool snapshot_may_save(void);

/* merge.c */

typedef struct Merge Merge;

extern void merge_check_object(Datum value);
extern Merge *merge_begin(NullableDatum state, bool only_last);
extern void merge_add(Merge *merge, Datum data);
extern Datum merge_state(Merge *merge, bool *isnull);

/* reducer.c */
extern bool reducer_is_merge(const FmgrInfo *function, bool *only_last);
extern bool reducer_is_of_schema(const FmgrInfo *function);
extern Datum reducer_apply(FmgrInfo *reducer, NullableDatum state, text *type,
						   Datum data, bool *isnull);

/* fold.c */

/* The fold of a stream. */
typedef struct Fold
{
	FoldSource	of;
	FmgrInfo	function;		/* the reducer's */
	ReducerCall *call;			/* of it; NULL: not needed so far */
	NullableDatum initial;		/* the state before the first event */
	Oid			event_type;		/* of its second argument */
	Upcasting  *upcasting;
	bool		reads_all;		/* may the caller read all events? */
	int64		at;				/* version of the event that is being folded */
	bool		dense;			/* must each version follow the last one? */
	StreamState state;			/* so far */
	int64		folded;			/* so many events, since a state was kept */
	void		(*each) (struct Fold *fold, TupleTableSlot *event);
	void	   *each_data;		/* called after each event; NULL: not */

	MemoryContext context;		/* of the state */
	MemoryContext next;			/* of the next one */
} Fold;

extern void fold_init(void);
extern void fold_begin(Fold *fold, Oid log, text *stream, Oid reducer,
					   Datum initial, bool isnull);
extern void fold_from_snapshot(Fold *fold, Snapshot snapshot, int64 upto,
							   TimestampTz until);
extern void fold_events(Fold *fold, StreamScan *scan, TimestampTz until);
extern void fold_stream(Fold *fold, Snapshot snapshot, int64 upto,
						TimestampTz until);
extern bool fold_save_now(Fold *fold);
extern void fold_save(Fold *fold);
extern void fold_restart(Fold *fold);
extern void fold_end(Fold *fold);
extern Datum fold_result(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

#endif							/* EVENTSTORE_AGGREGATE_H */
