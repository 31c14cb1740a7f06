/*-------------------------------------------------------------------------
 *
 * append.h
 *		Appending events: everything that does so makes a Write and calls write.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_APPEND_H
#define EVENTSTORE_APPEND_H

#include "utils/jsonb.h"

#include "log/log.h"
#include "tag/tag.h"

/* expected_version.c */

typedef int64 ExpectedVersion;	/* a version, or one of these */

#define EXPECTED_NONE		INT64CONST(0)
#define EXPECTED_ANY		INT64CONST(-1)
#define EXPECTED_EXISTS		INT64CONST(-2)

/* Error: ES001, unless a stream at the actual version is as expected. */
extern void expected_version_check(text *stream, ExpectedVersion expected,
								   int64 actual);

/* Returns what a word or a number stands for.  Errors: it is neither. */
extern ExpectedVersion expected_version_of(const char *string);

/* deleted_stream.c */

/* The same of a stream of the log, which may have been deleted: then it has no version. */
extern void deleted_stream_check_expected(Log *log, text *stream,
										  ExpectedVersion expected, int64 version);

/* Refuses to append to a stream at the version that was deleted for good.  Error: ES003. */
extern void deleted_stream_refuse(Log *log, text *stream, int64 version);

/* event_array.c */

/* The data of an event that has none: an empty object. */
extern Datum event_array_no_data(void);

/* Makes room for events of the stream.  Error: they are more than ES_MAX_BATCH. */
extern NewEvent *event_array_make(text *stream, int count);

/*
 * Reads a jsonb array of objects into events of the stream, and sets their number.
 * stream: NULL if each names its own, or has it by its first tag.
 * Errors name the event in their context.
 */
extern NewEvent *event_array_read(text *stream, Jsonb *array, int *count);

/*
 * Returns the tags of a jsonb array of strings, an array of text; 0 for JSON's null.
 * Errors name the event in their context.
 */
extern Datum event_array_tags(Datum tags, int number);

/* Refuses events that are wrong by themselves, naming the event in the context. */
extern void event_array_check(NewEvent *events, int count);

/* write.c */

/* Events to append, and the result. */
typedef struct Write
{
	/* by the caller */
	Oid			log;			/* es_events */
	text	   *stream;			/* of all events, which are one batch; NULL:
								 * each names its own */
	bool		is_whole;		/* without a stream: all events or none, else
								 * each is by itself */
	bool		no_retry;		/* an id that is stored is an error, never a
								 * retry; one stream only */
	const Condition *condition; /* that must hold; NULL: none */
	ExpectedVersion expected;	/* of that stream */
	NewEvent   *events;
	int			count;			/* of events; later of those that are stored */

	/* by the steps, if there is one stream */
	int64		version;		/* of the last event; without events the
								 * stream's */
	int64		position;		/* of the last event; 0: none */
	int64		first_position; /* of the first one, if is_whole */

	/* by the steps, if events are by themselves */
	int			left_out;		/* events that are stored already */
	int64		first_left_out; /* the row of the first one */
} Write;

/*
 * The whole sequence, for a caller that has EXECUTE on an appending function, which
 * is the privilege.  Errors: ES001, ES002, ES004.
 */
extern void write_events(Write *write);

/*
 * Its parts, for a caller that decides on the events when their streams are locked:
 * write_lock, write_identify, then write_locked with the other steps.  write_locks: what
 * they lock, their streams and tags.
 */
extern void write_lock(Write *write);
extern LogLock *write_locks(const Write *write, int *count);
extern void write_identify(Write *write);
extern void write_locked(Write *write);

/* tag_metadata.c */
extern void tag_metadata_init(void);

/*
 * Adds to events the tags that eventstore.tag_metadata makes of their metadata.
 * Errors: a tag is too long, or an event has too many.
 */
extern void tag_metadata_add(NewEvent *events, int count);

/* Returns true if both have the same tags, but for those that metadata makes. */
extern bool tag_metadata_same_tags(const NewEvent *event, const StoredContent *other);

/* write_retry.c */

/*
 * Returns true if the whole write is a retry, with its first result in it.  Rows of
 * an import that are retries are left out.  Error: ES002.
 */
extern bool write_retry_find(Write *write, Log *log);

/*
 * Refuses ids of events that were removed, for a write without retries.  Those that are
 * stored violate the index.  Error: ES002.
 */
extern void write_retry_refuse_removed(const Write *write, Log *log);

/* rewrite.c */

/* Returns true if the event at the position was rewritten. */
extern bool rewrite_is_recorded(Log *log, int64 position);

/* import.c */
extern void import_init(void);

/* import_log.c */

/*
 * Stores rows of es_import_log, which have all that they are to have.  Errors: a row is not
 * above all that is stored, or its version does not follow.
 */
extern void import_log_store(Oid relid, NewEvent *events, int count);

#endif							/* EVENTSTORE_APPEND_H */
