/*-------------------------------------------------------------------------
 *
 * fold_notice.h
 *		Folds of streams from which events were removed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_FOLD_NOTICE_H
#define EVENTSTORE_FOLD_NOTICE_H

#include "aggregate/aggregate.h"

/* Keys of the data of es_compacted; a state or an initial state that is null has none. */
#define ES_COMPACTED_STATE			"state"
#define ES_COMPACTED_INITIAL		"initial"
#define ES_COMPACTED_REDUCER		"reducer"
#define ES_COMPACTED_FINGERPRINT	"fingerprint"

/* The fingerprint of a reducer as it is stored there. */
extern char *fold_compacted_fingerprint(const Reducer *reducer);

/* Returns true if something was removed from the store that a new snapshot may see. */
extern bool fold_may_have_notices(const Fold *fold);

/*
 * Takes the event if it is a notice.  Returns false if it is another event, which is for
 * the reducer.  Errors: the state after the notice is not known.
 */
extern bool fold_take_notice(Fold *fold, TupleTableSlot *event);

/*
 * Returns the version of the stream's first event in the active snapshot, whether the user
 * sees it or not; 1 without one.
 */
extern int64 fold_first_kept(const Fold *fold);

/* Refuses an event that does not follow the last one, unless those between were removed. */
extern void fold_check_dense(const Fold *fold);

/*
 * Refuses the state up to a version and a time if that is before the first event that is
 * kept.
 */
extern void fold_check_start(const Fold *fold, Snapshot snapshot, int64 upto,
							 TimestampTz until);

/* The same of a fold in the order in which events happened, with the active snapshot. */
extern void fold_check_occurred(const Fold *fold, int64 upto);

#endif							/* EVENTSTORE_FOLD_NOTICE_H */
