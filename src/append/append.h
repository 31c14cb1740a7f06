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

/* append.c */
extern int64 append_event(Oid relid, NewEvent *event);
extern int64 append_to_stream(Oid relid, text *stream, int64 expected,
							  NewEvent *events, int count, int64 *position);

/* import.c */
extern void import_init(void);

#endif							/* EVENTSTORE_APPEND_H */
