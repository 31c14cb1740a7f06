/*-------------------------------------------------------------------------
 *
 * read.h
 *		Reading events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_READ_H
#define EVENTSTORE_READ_H

#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "base/base.h"

/* event_reader.c */

/* Which events somebody gets, and with whose rights they are read. */
typedef struct EventSource
{
	Oid			log;			/* es_events */
	Oid			reader;			/* a role */
	text	   *category;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	int			partitions;		/* 0 or 1: they are not divided */
	int			partition;
	Int8Array	except;			/* positions that are left out */
	Int8Array	only;			/* the only ones that are not; none: all */
} EventSource;

/* Events that are handled together. */
typedef struct EventBatch
{
	Tuplestorestate *events;	/* rows of es_events in position order */
	int64		count;
	int64		upto;			/* the checkpoint when they are handled */
	bool		history;		/* are they of a projection's past? */
} EventBatch;

extern Tuplestorestate *event_batch_make(void);
extern TupleTableSlot *event_slot_make(Relation log);
extern int64 event_batch_last_position(Oid log, Tuplestorestate *events);
extern char *event_reader_sql(Relation log, const char *condition);
extern void event_reader_run_sql(Oid reader, Snapshot snapshot, const char *sql,
								 int count, Oid *types, const Datum *values,
								 const bool *nulls, Tuplestorestate *store);
extern bool event_reader_may_read_all(Oid log, Oid reader);
extern void event_reader_read(const EventSource *source, Snapshot snapshot,
							  int64 after, int64 upto, int limit, EventBatch *batch);

/* present.c */

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
	Natts_es_recorded_event = Anum_es_recorded_event_metadata
};

typedef struct Presenter Presenter;

extern Oid	present_type(Oid log);
extern Presenter *present_begin(Oid log);
extern void present_columns(Presenter *presenter, TupleTableSlot *event,
							Datum *values, bool *nulls);
extern Datum present_record(Presenter *presenter, TupleTableSlot *event);
extern Datum present_data(Presenter *presenter, TupleTableSlot *event);
extern Tuplestorestate *present_batch(Oid log, Tuplestorestate *events,
									  TupleDesc *desc);
extern void present_end(Presenter *presenter);

/* stream_scan.c */

typedef struct StreamScan StreamScan;

extern StreamScan *stream_scan_open(Oid log, text *stream, int64 after,
									int64 upto, Snapshot snapshot);
extern StreamScan *stream_scan_open_occurred(Oid log, text *stream,
											 int64 upto, TimestampTz until,
											 Snapshot snapshot);
extern TupleTableSlot *stream_scan_next(StreamScan *scan);
extern void stream_scan_close(StreamScan *scan);

#endif							/* EVENTSTORE_READ_H */
