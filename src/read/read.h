/*-------------------------------------------------------------------------
 *
 * read.h
 *		Reading events, and presenting them.
 *
 * Events are read as rows of es_events: by position for projections and
 * subscriptions (event_reader.c), by stream for folds (stream_scan.c).  Before a
 * user gets one it is presented (present.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_READ_H
#define EVENTSTORE_READ_H

#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "tag/tag.h"

/* event_batch.c: events that were read together */

typedef struct EventBatch
{
	Tuplestorestate *events;	/* rows of es_events in position order */
	int64		count;
	int64		bytes;			/* where reading is limited by them */
	int64		upto;			/* the checkpoint when they are handled */
	bool		history;		/* are they of a projection's past? */

	/*
	 * Takes an event that a scan has read, instead of the store; NULL: the
	 * store does.  Events that are read by SQL are in the store in any case.
	 */
	void		(*take) (void *taker, TupleTableSlot *event);
	void	   *taker;
	int64		last;			/* the position of the last event that it took */
} EventBatch;

/* Makes an empty store of events, in memory as far as work_mem goes. */
extern Tuplestorestate *event_batch_make(void);

/* Makes a slot for the rows of a store; the log is open. */
extern TupleTableSlot *event_slot_make(Relation log);

/* Returns the position of an event of a store: so many are before it. */
extern int64 event_batch_position(Oid log, Tuplestorestate *events,
								  int64 before);

/* The same of the last event; the store is not empty. */
extern int64 event_batch_last_position(Oid log, Tuplestorestate *events);

/* Returns the bytes of an event's data, metadata and body, as they are before compression. */
extern int64 event_slot_bytes(TupleTableSlot *slot);

/*
 * Leaves the first events of the batch, which together have at most so many bytes, but at
 * least one.  Returns true if any is left out.
 */
extern bool event_batch_cut(Relation log, EventBatch *batch, int64 bytes);

/*
 * Returns the name of an event for errors: "event at position 7 (version 3 of
 * stream ...)".  with_id: its id is part of it.
 */
extern char *event_slot_describe(TupleTableSlot *slot, bool with_id);

/* Returns the name of the first event of a store, without its id. */
extern char *event_batch_describe_first(Relation log,
										Tuplestorestate *events);

/*
 * Returns the name of the only event of a store, or how many there are, with the
 * first and the last.  An error context callback may call it.
 */
extern char *event_batch_describe(Relation log, Tuplestorestate *events);

/* event_sql.c: reading by SQL */

/*
 * Returns the statement that reads the events e for which the condition holds.
 * The condition may end in ORDER BY and LIMIT.  The log is open.
 */
extern char *event_sql_make(Relation log, const char *condition);

/* The same of the archive. */
extern char *event_sql_make_archived(Relation log, const char *condition);

/*
 * Runs such a statement as the reader, with the snapshot, and adds its rows to
 * the store.  nulls: NULL if no parameter is null.  Errors: the reader may not
 * read events.
 */
extern void event_sql_run(Oid reader, Snapshot snapshot, const char *sql,
						  int count, Oid *types, const Datum *values,
						  const bool *nulls, Tuplestorestate *store);

/* event_reader.c: the next events of a source */

/* Which events are read, and with whose rights. */
typedef struct EventSource
{
	Oid			log;			/* es_events */
	Oid			reader;			/* a role */
	ArrayType  *categories;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	const EventQuery *query;	/* NULL: any */
	int			partitions;		/* 0 or 1: they are not divided */
	int			partition;
	Int8Array	except;			/* positions that are left out */
	Int8Array	only;			/* the only ones that are read; none: all */
	const char *subscription;	/* whose partitions are remembered; NULL: none
								 * are */
	TransactionId changed_by;	/* last wrote it */
} EventSource;

/* Where reading ends: of all events of the batch, also those that it had before. */
typedef struct ReadLimit
{
	int			count;
	int64		bytes;			/* of data, metadata and body; 0: any.  The
								 * first event may have more */
	const Deadline *deadline;	/* NULL: none */
} ReadLimit;

/*
 * Reads the events of the source after one position and not beyond another, as
 * far as the limit goes, into batch->events, which is made before.  There are no
 * others up to batch->upto.
 */
extern void event_reader_read(const EventSource *source, Snapshot snapshot,
							  int64 after, int64 upto, const ReadLimit *limit,
							  EventBatch *batch);

/* visible_events.c: events of a match, as the current user may read them */

typedef struct VisibleEvents
{
	Oid			log;
	Snapshot	snapshot;		/* of the match */
	bool		backward;		/* as the match */
	int64		max_count;		/* hidden ones do not count */
	void		(*take) (void *taker, TupleTableSlot *event);
	void	   *taker;
} VisibleEvents;

/* Gives the events of the match that the user may see to the taker, in their order. */
extern void visible_events_read(Match *match, const VisibleEvents *wanted);

/* stream_scan.c: the events of a stream, as the current user may read them */

typedef struct StreamScan StreamScan;

/*
 * Opens the events after a version and up to another, in the order of versions.
 * Errors: the user may not read events.
 */
extern StreamScan *stream_scan_open(Oid log, text *stream, int64 after,
									int64 upto, Snapshot snapshot);

/*
 * Opens the events up to a version that happened until a time, in the order in
 * which they happened.
 */
extern StreamScan *stream_scan_open_occurred(Oid log, text *stream,
											 int64 upto, TimestampTz until,
											 Snapshot snapshot);

/* Returns the next event, a row of es_events; NULL after the last one. */
extern TupleTableSlot *stream_scan_next(StreamScan *scan);
extern void stream_scan_close(StreamScan *scan);

/* present.c: rows of es_events as users see them */

/* Columns of es_recorded_event. */
enum
{
	Anum_es_recorded_event_position = 1,
	Anum_es_recorded_event_version,
	Anum_es_recorded_event_recorded_at,
	Anum_es_recorded_event_occurred_at,
	Anum_es_recorded_event_id,
	Anum_es_recorded_event_stream,
	Anum_es_recorded_event_type,
	Anum_es_recorded_event_data,
	Anum_es_recorded_event_metadata,
	Anum_es_recorded_event_tags,
	Anum_es_recorded_event_body,
	Natts_es_recorded_event = Anum_es_recorded_event_body
};

/* kept_version.c */

/* Returns the version of the stream's first event; 0 without one, 1 if none was removed. */
extern int64 kept_first_version(Oid log, text *stream, Snapshot snapshot);

/* The same of what is committed now. */
extern int64 kept_first_version_now(Oid log, text *stream);

/* query_matches() in SQL, of an event e.  parameter: the query.  An item excludes nothing by what it leaves out. */
#define EVENT_SQL_MATCHES_QUERY(parameter) \
	" AND EXISTS (SELECT FROM jsonb_array_elements(" parameter ") AS i (item)" \
	" WHERE (NOT i.item ? 'types' OR " \
	ES_HAS_TYPE("ARRAY(SELECT jsonb_array_elements_text(i.item->'types'))") ")" \
	" AND (NOT i.item ? 'tags' OR to_jsonb(e.tags) @> (i.item->'tags')))"

#endif							/* EVENTSTORE_READ_H */
