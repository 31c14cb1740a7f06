/*-------------------------------------------------------------------------
 *
 * removed.h
 *		What was removed from the log, as appends and readers need to know it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_REMOVED_H
#define EVENTSTORE_REMOVED_H

#include "executor/tuptable.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "log/log.h"

/* notice.c: events of the store's own that say what a removal did */

#define ES_STREAM_DELETED	"es_stream_deleted"
#define ES_COMPACTED		"es_compacted"
#define ES_STREAM_ARCHIVED	"es_stream_archived"

/* The types of notices, for a statement: 'es_compacted', ... */
#define ES_NOTICE_TYPES \
	"'" ES_STREAM_DELETED "', '" ES_COMPACTED "', '" ES_STREAM_ARCHIVED "'"

/* notice_or_event_has_type() in SQL, of a row e of es_events.  types: an array. */
#define ES_HAS_TYPE(types) \
	"(e.type = ANY (" types ")" \
	" OR e.type IN (" ES_NOTICE_TYPES ") AND e.data->'types' ?| " types ")"

typedef enum NoticeKind
{
	NOTICE_NONE,				/* an event of a caller, or another of ours */
	NOTICE_DELETED,
	NOTICE_COMPACTED,
	NOTICE_ARCHIVED
} NoticeKind;

/* Returns which kind of notice events of the type are. */
extern NoticeKind notice_kind(text *type);

/*
 * Returns true if a notice stands for an event of one of the types.  data: of the notice.
 */
extern bool notice_has_type(Datum data, const TextSet *types);

/*
 * Returns true if the event, a row of es_events, is of one of the types, or is a notice of
 * such an event.
 */
extern bool notice_or_event_has_type(TupleTableSlot *event, const TextSet *types);

/* Returns a value of the notice's data; NULL if it has none of this key. */
extern JsonbValue *notice_value(Datum data, const char *key);

/* Returns how many events a notice stands for.  data: of the notice. */
extern int64 notice_removed(Datum data);

/* Returns true if the data are those of a tombstone. */
extern bool notice_is_tombstone(Datum data);

/* removed.c */

/*
 * Returns true if something was ever removed from the store.  Cheap; it is true before the
 * first removal is visible.
 */
extern bool removed_any(Relation log);

/* Looks an id up that is not in the log: where its event was. */
extern bool removed_find_id(Log *log, const pg_uuid_t *id, text *stream,
							StoredEvent *found);

/* Returns the position of the event that was removed from there; 0 if none is known. */
extern int64 removed_position(Log *log, text *stream, int64 version);

/*
 * Returns the floor of the horizon that removals leave: everything up to there is stable
 * for the snapshot.
 */
extern int64 removed_horizon(Relation log, Snapshot snapshot);

/* Opens es_removals and its index on the positions of notices. */
extern Relation removed_open_notices(Relation log, Relation *index);

/* log_guard.c */

/* Refuses row triggers that could keep a row from being deleted. */
extern void log_guard_check_delete(const TriggerDesc *triggers);

/* Allows the next DELETE of es_events, or no more. */
extern void log_guard_allow_removal(bool allow);

/* Allows the next TRUNCATE of es_events, or no more. */
extern void log_guard_allow_truncate(bool allow);

#endif							/* EVENTSTORE_REMOVED_H */
