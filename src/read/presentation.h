/*-------------------------------------------------------------------------
 *
 * presentation.h
 *		What presenting events in C and in SQL have in common: of present.c and present_call.c
 *		alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PRESENTATION_H
#define EVENTSTORE_PRESENTATION_H

#include "log/log.h"
#include "personal/personal.h"
#include "read/read.h"
#include "type/upcast.h"

/* What is done to stored events. */
typedef struct Presentation
{
	Oid			log;
	bool		opens;			/* attributes may be encrypted */
	bool		sees;			/* the reader may see them */
	OpenedState opened;			/* what events have lacked so far */
	const char *purpose;		/* for which no key may be missing; NULL: none */
	Upcasting  *upcasting;		/* NULL: there are no upcasters */
} Presentation;

/* An event, and where it is. */
typedef struct PresentedEvent
{
	SealedEvent sealed;
	int64		position;		/* 0: not known */
} PresentedEvent;

/* Where es_events has the columns of es_recorded_event. */
extern const AttrNumber present_stored_columns[];

/* Learns what is to be done to events, for the current user. */
extern Presentation presentation_begin(Oid log);

/* Returns true if that is nothing. */
extern bool presentation_is_plain(const Presentation *how);

/*
 * Presents data and metadata in the columns of an es_recorded_event.  Returns false if there is
 * nothing to do.
 */
extern bool present_values(Presentation *how, Datum *values, bool *nulls);

#endif							/* EVENTSTORE_PRESENTATION_H */
