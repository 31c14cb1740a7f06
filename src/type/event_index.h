/*-------------------------------------------------------------------------
 *
 * event_index.h
 *		Indexes on es_events for the events of one type, which users ask for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_EVENT_INDEX_H
#define EVENTSTORE_EVENT_INDEX_H

/* event_index.c */

typedef struct EventIndex
{
	const char *function;		/* that makes it, for errors */
	char	   *name;
	char	   *definition;		/* the statement that makes it */
	Oid			relid;
} EventIndex;

/*
 * Returns the name es_events_WHAT_idx; if that is too long, or is not unique, what is cut and
 * the hash of all that makes the index different from others is in it.
 */
extern char *event_index_name(const char *what, bool is_unique, uint64 hash);

/* Returns a string as the server writes it in definitions of indexes. */
extern char *event_index_quote(const char *string);

/*
 * Finds the index, or makes it.  expression: access method and key, as the server writes
 * them.  SPI is connected.  Errors: the name is that of something else.
 */
extern void event_index_find_or_make(EventIndex *index, Oid log, const char *type,
									 const char *expression);

#endif							/* EVENTSTORE_EVENT_INDEX_H */
