/*-------------------------------------------------------------------------
 *
 * event.h
 *		Streams and new events, by themselves: their names and what they may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_EVENT_H
#define EVENTSTORE_EVENT_H

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "stats/stats.h"

/* stream.c */

/* Refuses a name that is empty or too long for the indexes. */
extern void stream_check_name(text *stream);

/* Refuses it for new events, too, if it is one of the store's own. */
extern void stream_check_new(text *stream);

/* The counters of the stream's category; NULL if nothing is counted. */
extern StatsEntry *stream_stats(text *stream);

/* Counts ES001, and that the session appends to the stream of its last ES001. */
extern void stream_count_conflict(text *stream);
extern void stream_count_retry(text *stream);

/* The bytes of the name before the first '-', all without one. */
extern int	stream_category_length(text *stream);
extern char *stream_category(text *stream);
extern bool stream_equal(text *a, text *b);
extern uint64 stream_hash(text *stream);

/* The partition of the stream, from 0.  Subscriptions rely on its never changing. */
extern int	stream_partition(text *stream, int partitions);

/* categories.c */

/* Names that are chosen, as of a filter. */
typedef struct TextSet
{
	ArrayType  *array;			/* NULL: any */
	Datum	   *values;			/* its elements */
	int			count;
	bool		sorted;			/* by text_set_sort */
} TextSet;

/* Takes the array apart, which has no nulls; NULL: any. */
extern TextSet text_set_make(ArrayType *array);

/* Compares two elements by their bytes, as the collation "C" does, for qsort and bsearch. */
extern int	text_set_compare(const void *one, const void *other);

/*
 * Sorts the elements by their bytes, and keeps each of them once.  One of very many is
 * found soon then.
 */
extern void text_set_sort(TextSet *set);

/* Returns true if the category of the stream is one of them. */
extern bool text_set_has_category(const TextSet *categories, text *stream);

/* Returns true if the type is one of them. */
extern bool text_set_has_type(const TextSet *types, text *type);

/* Refuses an array that is no list of categories. */
extern void categories_check(ArrayType *categories);

/* event.c */

/* An event on its way into the log. */
typedef struct NewEvent
{
	/* by the caller */
	text	   *stream;
	text	   *type;
	Datum		data;			/* jsonb, as it came: toasted or not */
	Datum		metadata;		/* the same; 0 = NULL */
	Datum		tags;			/* text[]; 0 = NULL.  Sorted and distinct once
								 * the event is checked */
	Datum		body;			/* bytea, as it came; 0 = NULL */
	bool		has_id;			/* else log_insert makes one */
	bool		id_is_key;		/* its composite key made it */
	bool		has_occurred_at;
	TimestampTz occurred_at;
	bool		has_recorded_at;	/* else it is now */
	TimestampTz recorded_at;
	pg_uuid_t	id;
	int64		version;
	int64		row;			/* its number in an import, from 1; 0: in none */
	int64		expected;		/* version of its stream, where events of one
								 * append name their streams */

	/* by event_identify */
	Datum		upcast;			/* data as of its type's schema version; 0:
								 * data is */
	bool		is_personal;	/* it has personal attributes */

	int64		position;		/* by log_insert; not 0: it has it */
} NewEvent;

/* Returns a column of a row of es_events; 0 for null. */
extern Datum stored_event_column(Relation log, HeapTuple row, int column);

/* Each refuses what no event may have. */
extern void event_check_type_name(text *type);
extern void event_check_type_names(ArrayType *types);
extern void event_check_category(text *category);
extern void event_check_metadata(Datum metadata);
extern void event_check_id(const pg_uuid_t *id);

/* Returns true if the name is the store's own. */
extern bool event_is_reserved(text *name);

/* Refuses a name of the store's own.  what: it names, with its article. */
extern void event_check_reserved(text *name, const char *what);

/* Metadata that may be left out; 0 for a JSON null. */
extern Datum event_metadata(Datum metadata);

/* Refuses an event that is wrong by itself; its stream is checked by the caller. */
extern void event_check_new(NewEvent *event);

/* log_insert.c */

/* Fills a cleared row of es_events, whose other columns are null. */
extern void log_fill_slot(TupleTableSlot *slot, const NewEvent *event,
						  FullTransactionId next_xid, TimestampTz now);

#endif							/* EVENTSTORE_EVENT_H */
