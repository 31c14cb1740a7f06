/*-------------------------------------------------------------------------
 *
 * append.h
 *		Appending events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_APPEND_H
#define EVENTSTORE_APPEND_H

#include "utils/jsonb.h"

#include "log/log.h"

/* expected_version.c */

typedef int64 ExpectedVersion;	/* a version, or one of these */

#define EXPECTED_NONE		INT64CONST(0)
#define EXPECTED_ANY		INT64CONST(-1)
#define EXPECTED_EXISTS		INT64CONST(-2)

extern void expected_version_check(text *stream, ExpectedVersion expected,
								   int64 actual);

/* event_array.c */
extern Datum event_array_no_data(void);
extern NewEvent *event_array_make(text *stream, int count);
extern NewEvent *event_array_read(text *stream, Jsonb *array, int *count);

/* write.c */

/* What is to be appended, and what came of it. */
typedef struct Write
{
	/* by the caller */
	Oid			log;			/* es_events */
	text	   *stream;			/* of all events, which are a batch; NULL:
								 * each is by itself and names its own */
	ExpectedVersion expected;	/* of that stream */
	NewEvent   *events;
	int			count;			/* of events; later of those that are stored */

	/* by the steps, if there is one stream */
	int64		version;		/* of the last event; without events the
								 * stream's */
	int64		position;		/* of the last event; 0: none */
} Write;

extern void write_identify(Write *write);
extern void write_lock(Write *write);
extern void write_locked(Write *write);
extern void write_events(Write *write);

/* write_retry.c */
extern bool write_retry_find(Write *write, Log *log);

/* import.c */
extern void import_init(void);

#endif							/* EVENTSTORE_APPEND_H */
