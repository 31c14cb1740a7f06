/*-------------------------------------------------------------------------
 *
 * upcast.h
 *		Upcasting stored events: data of an earlier schema version becomes that of the present one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_UPCAST_H
#define EVENTSTORE_UPCAST_H

#include "type/type.h"

/* upcast.c */

/* The upcasters for one statement or batch. */
typedef struct Upcasting Upcasting;

/*
 * Returns copies of all upcasters, by type, category and from_version: a List of
 * Upcaster in the current memory context.
 */
extern List *upcast_functions(Oid log);

/*
 * Finds the upcaster that an es_function or a stored signature names.  Errors: it
 * names none that the current user may execute.
 */
extern Oid	upcast_find_function(const char *name);

/*
 * Prepares to upcast events, in the current memory context; returns NULL if there
 * are no upcasters.  Ends it; NULL is possible.
 */
extern Upcasting *upcast_begin(Oid log);
extern void upcast_end(Upcasting *upcasting);

/*
 * Returns the schema version to which upcasting leads the event; 0 if it changes
 * nothing, or upcasting is NULL.  stream: NULL for none.  metadata: 0 for none.
 */
extern int	upcast_version(const Upcasting *upcasting, text *stream, text *type,
						   Datum metadata);

/*
 * Returns data upcast to a version, or as far as upcasters lead; the same data if
 * there is nothing to do, or upcasting is NULL.  position: for the context of an
 * error; 0: it has none yet.  metadata: 0 for none.  Errors: the upcaster's own;
 * it does not exist, its owner does not, or it returned null.
 */
extern Datum upcast_data(Upcasting *upcasting, int64 position, text *stream,
						 text *type, Datum data, Datum metadata, int version);

/*
 * Returns metadata that says the version to which upcast_data leads; the same
 * metadata, which may be 0, if there is nothing to do, or upcasting is NULL.
 */
extern Datum upcast_metadata(Upcasting *upcasting, text *stream, text *type,
							 Datum metadata);

#endif							/* EVENTSTORE_UPCAST_H */
