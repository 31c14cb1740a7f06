/*-------------------------------------------------------------------------
 *
 * index.h
 *		The indexes of es_events that our code scans by itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_INDEX_H
#define EVENTSTORE_INDEX_H

#include "utils/relcache.h"

#include "log/event.h"

/* log_index.c */

/* Returns true if it is the index on category and position. */
extern bool log_index_is_category(Relation log, Relation index);

/* Open an index; the first and the last one return NULL if it is missing. */
extern Relation log_index_open_version(Relation log);
extern Relation log_index_open_position(Relation log);
extern Relation log_index_open_category(Relation log);

/* Reads the greatest entry of the position index; false if its last page is empty. */
extern bool log_index_last_position(Relation index, int64 *position);

/* Returns true if the key of the index is the position alone, in its usual order. */
extern bool log_index_is_on_position(Relation index);

/* log_type_index.c */

/* Returns the type, if the index is on the positions of its events alone; else NULL. */
extern text *log_type_index_type(Relation index);

/*
 * Opens, for each of the types, an index on the positions of its events alone.  Returns NIL
 * if a type has none.
 */
extern List *log_type_index_open_all(Relation log, const TextSet *types);

#endif							/* EVENTSTORE_INDEX_H */
