/*-------------------------------------------------------------------------
 *
 * log.h
 *		The table es_events: rows, locks, positions, the horizon.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_LOG_H
#define EVENTSTORE_LOG_H

#include "commands/trigger.h"
#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "log/event.h"
#include "log/horizon.h"
#include "log/index.h"

/* log.c */

/* Where an event is stored. */
typedef struct StoredEvent
{
	int64		version;
	int64		position;
	bool		same_stream;	/* it is in the stream that was asked about */
	const char *place;			/* a sentence, if it is in another one */
} StoredEvent;

/* What an event says, as it is stored. */
typedef struct StoredContent
{
	int64		position;
	pg_uuid_t	id;
	text	   *type;
	Datum		data;
	Datum		metadata;		/* 0: none, as for the next two */
	Datum		tags;
	Datum		body;
} StoredContent;

/* es_events, opened to append or to look up. */
typedef struct Log
{
	Relation	rel;
	Relation   *indexes;		/* all of them */
	int			index_count;
	text	  **index_types;	/* of an ordinary log: of its indexes of types */
	EState	   *estate;			/* NULL: an ordinary log (log_direct.c) */
	ResultRelInfo *relinfo;		/* the same */
	Relation	id_index;		/* unique (id) */
	Relation	version_index;	/* unique (stream, version) */
	Relation	position_index; /* unique (position) */
	const char *own_slots;		/* of streams; NULL: all (slots.h) */
	Snapshot	latest;			/* of log_snapshot */
	TupleTableSlot *slot;
	List	   *slots;			/* all of them */
	List	   *added_columns;	/* by the owner, that have a default */
	CommandId	cid;			/* of the rows that are stored */
	MemoryContext row_memory;	/* for what storing a row leaves */
} Log;

/* Columns of es_events. */
enum
{
	Anum_es_events_position = 1,
	Anum_es_events_version,
	Anum_es_events_next_xid,
	Anum_es_events_recorded_at,
	Anum_es_events_occurred_at,
	Anum_es_events_id,
	Anum_es_events_stream,
	Anum_es_events_type,
	Anum_es_events_data,
	Anum_es_events_metadata,
	Anum_es_events_tags,
	Anum_es_events_body,
	Natts_es_events = Anum_es_events_body
};

/* The oid of es_events, which is in the schema of every function of the extension. */
extern Oid	log_relid(Oid funcid);

/* The same for functions of other extensions. */
extern Oid	log_relid_of_extension(void);

/* The extension's schema; 0 without one.  version: gets its version, or is NULL. */
extern Oid	log_find_extension(char **version);

/*
 * Opens es_events with RowExclusiveLock, to the end of the transaction.  The streams
 * must be locked before.
 */
extern Log *log_open(Oid relid);

/* A snapshot that sees all that is committed, at every isolation level. */
extern Snapshot log_snapshot(Log *log);
extern void log_close(Log *log);

/* The last version of the stream, 0 without events.  expected: one to look up first. */
extern int64 log_last_version(Log *log, text *stream, int64 expected);

/* Returns true if an event with this id is stored, and where.  stream: NULL for any. */
extern bool log_find_id(Log *log, const pg_uuid_t *id, text *stream, StoredEvent *found);

/* The greatest position in the table, 0 without one; and that without rows that were rolled back. */
extern int64 log_last_position(Log *log);
extern int64 log_last_stored_position(Log *log);

/*
 * Reads a stored event; its values last until the next look-up.  Returns false if it was
 * removed.
 */
extern bool log_read_event(Log *log, text *stream, int64 version, StoredContent *content);

/* Lets the next log_last_version look from this version on first. */
extern void log_remember_version(text *stream, int64 version);

/* Raises ES002.  why: a sentence. */
extern void log_fail_duplicate(const pg_uuid_t *id, const char *why);

/* log_lock.c */

/*
 * What can be locked, in the order in which all writers lock it.  The numbers are
 * classes of advisory locks; those of users are 1 and 2.
 */
typedef enum LogLockClass
{
	LOG_LOCK_STREAM = 3,
	LOG_LOCK_TAG = 4,
	LOG_LOCK_CONDITION = 5
} LogLockClass;

/* A lock that an append holds to the end of its transaction. */
typedef struct LogLock
{
	LogLockClass class;
	LOCKMODE	mode;
	uint64		hash;			/* of the name */
	text	   *name;
} LogLock;

extern LogLock log_lock_of_stream(text *stream);
extern LogLock log_lock_of_tag(text *tag, LOCKMODE mode);

/* Sorts the locks and takes them, or locks the whole log if they are too many. */
extern void log_lock_all(Oid log, LogLock *locks, int count);
extern void log_lock_stream(Oid log, text *stream);

/* Takes the lock of an appender on the log (RowExclusiveLock). */
extern void log_lock_to_append(Oid log);

/* Waits for a transaction that has locked the log; holds nothing then.  Error: ES009. */
extern void log_lock_await_whole(Oid log, text *stream);

/* Returns true if another transaction has that lock, also a prepared one. */
extern bool log_lock_has_holder(Oid log);

/*
 * Locks the log against all appends of others (ShareRowExclusiveLock), which go on
 * until the lock is there.  purpose: "to ...", for an error's context.  catch_up: what
 * to do after a wait, before the lock; or NULL.
 */
extern void log_lock_whole(Oid log, const char *purpose,
						   void (*catch_up) (void *arg), void *arg);

/* log_index.c */

/* The indexes of unique constraints. */
typedef enum LogIndex
{
	LOG_INDEX_ID,				/* (id) */
	LOG_INDEX_VERSION,			/* (stream, version) */
	LOG_INDEX_POSITION			/* (position) */
} LogIndex;

/* Finds the unique ones among the indexes of the log.  Error: one is missing. */
extern void log_index_find_all(Log *log);

/* log_version.c */

/*
 * Finds the last version of the stream, 0 without events, by one look at the index.
 * Returns false if that does not tell.
 */
extern bool log_version_find(Log *log, text *stream, int64 *version);

/* log_sequence.c */

/* Draws positions, which lie above all that are in the table, in ascending order. */
extern void log_sequence_draw(Log *log, NewEvent *events, int count);

/* Lets all positions that are drawn from now on lie above this one. */
extern void log_sequence_raise(Oid sequence, int64 position);

/* Refuses a position that no event can have yet.  name: of the argument. */
extern void log_sequence_check(Oid log, const char *name, int64 position);

/* log_column.c: columns that the owner has added */
extern void log_column_prepare(Log *log);
extern void log_column_fill(Log *log, TupleTableSlot *slot);

/* log_insert.c */

/*
 * Stores events that have their streams and versions, and fires triggers.  Sets ids
 * and positions.  Errors: ES001 and ES002, if another transaction got ahead.
 */
extern void log_insert(Log *log, NewEvent *events, int count);

/* Counts a stored event, and so many appends, if the transaction is committed. */
extern void log_insert_count(const NewEvent *event, int appends);

/* Returns true if an append fires any of these triggers. */
extern bool log_insert_fires(const TriggerDesc *triggers);

/* Returns true within the AFTER triggers of an append. */
extern bool log_insert_is_firing(void);

/* log_direct.c: a log that needs no executor */

/* Opens the indexes of such a log.  Returns false if it is another one. */
extern bool log_direct_open(Log *log);
extern void log_direct_close(Log *log);

/* Stores the entries of a row that was just stored in all indexes. */
extern void log_direct_insert_entries(Log *log, ItemPointer tid, const NewEvent *event);

/* log_guard.c */

/* Refuses what an append could not honour.  Returns the slots of the store. */
extern const char *log_guard_check_insert(Relation log);

/*
 * Refuses row triggers that could change more than is rewritten.  all_columns: of any column,
 * since more than data and metadata is.
 */
extern void log_guard_check_update(const TriggerDesc *triggers, bool all_columns);

/* Allows the caller's next UPDATE of es_events, or no more. */
extern void log_guard_allow_rewrite(bool allow);

#endif							/* EVENTSTORE_LOG_H */
