/*-------------------------------------------------------------------------
 *
 * retention.h
 *		Removing events from the log (doc/internals/retention.md).
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_RETENTION_H
#define EVENTSTORE_RETENTION_H

#include "append/append.h"
#include "log/removed.h"

/* removal.c */

/* The removal of events of one stream, from the first one up to a version. */
typedef struct Removal
{
	/* by the caller */
	Oid			log;			/* es_events */
	text	   *stream;
	const char *action;			/* as in es_removals */
	Datum		metadata;		/* jsonb, why; 0: none */
	bool		with_archive;	/* also its events in the archive */
	int64		upto;			/* about the last version that is removed,
								 * whose tags are looked for; 0: all */
	bool		of_any_store;	/* also if the stream is of another one */

	/* by removal_begin */
	Datum		locked;			/* tags that are locked; 0: none */
	int64		last;			/* version of the stream's last event; 0: none */
	NoticeKind	last_kind;
	StoredContent last_event;	/* its type, data and position, unless last is
								 * 0 */

	/* by removal_describe: the events that are removed */
	int64		first_version;	/* 0: there are none */
	int64		last_version;
	int64		count;
	Datum		tags;			/* that they have, all; 0: none */
	Datum		data;			/* of a notice that stands for them: an object */
	int64		horizon;		/* the floor that is left to the horizon */

	/* by removal_append_notice; or the caller, if another event says so */
	int64		version;
	int64		position;		/* 0: none */
} Removal;

/*
 * All of these are called in this order, between SPI_connect() and SPI_finish().
 *
 * Locks the stream and the tags of its events to the end of the transaction, and looks at
 * its last event.  Errors: a trigger of es_events could keep a row.
 */
extern void removal_begin(Removal *removal);

/* Returns the tags that events of a stream up to a version have; 0: none.  SPI is connected. */
extern Datum removal_tags(Oid log, text *stream, int64 upto);

/*
 * Looks at the events up to a version, whose tags it locks.  It may wait for others that
 * append, so that all positions up to theirs are decided.
 */
extern void removal_describe(Removal *removal, int64 upto);

/*
 * Appends a notice of this type to the stream, which stands for the events.  extra: an
 * object whose keys are added to its data; 0: none.
 */
extern void removal_append_notice(Removal *removal, const char *type, Datum extra);

/*
 * Deletes the events, and records it.  keep: the version of one that is not deleted; 0:
 * none.  Error: 40001, if the transaction's snapshot does not have all of them.
 */
extern void removal_delete(Removal *removal, int64 keep);

/* Makes a function's result of a removal: version, position and how many events. */
extern Datum removal_row(FunctionCallInfo fcinfo, const Removal *removal);

/* stream_removal.c */

/*
 * Truncates a stream: removes its events before a version, never the last one, and of them
 * the oldest ones, max_events at most.  Returns how many.  metadata: 0: none.  of_any_store:
 * also if it is a stream of another store.  Errors: 0A000, an event has tags.
 */
extern int64 removal_truncate(Oid log, text *stream, int64 before_version, Datum metadata,
							  int64 max_events, bool of_any_store);

#endif							/* EVENTSTORE_RETENTION_H */
