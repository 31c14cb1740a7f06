/*-------------------------------------------------------------------------
 *
 * present.h
 *		Presenting events: what a reader gets of a row of es_events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PRESENT_H
#define EVENTSTORE_PRESENT_H

#include "personal/personal.h"
#include "read/read.h"

/* Presents the events of one statement or batch. */
typedef struct Presenter Presenter;

/* The type es_recorded_event, which is in the schema of the log. */
extern Oid	present_type(Oid log);

/* Makes a presenter in the current memory context. */
extern Presenter *present_begin(Oid log);
extern void present_end(Presenter *presenter);

/* Returns true if all events are presented as they are stored. */
extern bool present_is_plain(const Presenter *presenter);

/*
 * Raises an error for an event that no key opens here, rather than to present what it lacks as
 * null, to a user who may see it.  purpose: "project an event", after "cannot".
 */
extern void present_require_keys(Presenter *presenter, const char *purpose);

/* Returns true if the current user, who made it, may not see personal attributes. */
extern bool present_hides(const Presenter *presenter);

/* What presented events have lacked so far. */
extern OpenedState present_opened(const Presenter *presenter);

/*
 * Gives the columns of an es_recorded_event.  event: a row of es_events.  The
 * values are in the current memory context or in the slot.
 */
extern void present_columns(Presenter *presenter, TupleTableSlot *event,
							Datum *values, bool *nulls);

/*
 * Returns the event as an argument of a function: an expanded record, which procedural
 * languages take without a copy.  Its values may be lent: be those in the slot's row.
 */
extern Datum present_record(Presenter *presenter, TupleTableSlot *event);
extern bool present_is_lent(TupleTableSlot *event, Datum value);

/* Returns the data alone, in the current memory context or in the slot. */
extern Datum present_data(Presenter *presenter, TupleTableSlot *event);

/*
 * Returns the events of a batch for a query, and their columns in *desc.  Without
 * upcasters it is the same store: columns of the log that are not part of an
 * event are marked in *desc as dropped, so that nothing has to be copied.
 */
extern Tuplestorestate *present_batch(Oid log, Tuplestorestate *events,
									  TupleDesc *desc);

#endif							/* EVENTSTORE_PRESENT_H */
