/*-------------------------------------------------------------------------
 *
 * tags.h
 *		Tags of events, and the table that finds events by them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_TAGS_H
#define EVENTSTORE_TAGS_H

#include "log/log.h"

/* tags.c */

/* Refuses what are no tags.  Returns them sorted and distinct; 0: none. */
extern Datum tags_check(Datum tags);

/* Returns true if both arrays have the same tags; 0: none. */
extern bool tags_equal(Datum one, Datum other);

/* tag_entry.c: entries of the table es_tags */

/* Stores the entries of events that were just stored. */
extern void tag_entry_insert(Log *log, const NewEvent *events, int count);

/*
 * Makes all entries agree with all events, while appends go on.  Returns how many it has
 * added and removed.  SPI is connected.
 */
extern void tag_entry_reindex(Oid log, int64 *added, int64 *removed);

/* log_insert.c */

/* Returns true if it fires any but the trigger that stores entries of tags. */
extern bool log_insert_fires_others(const TriggerDesc *triggers);

#endif							/* EVENTSTORE_TAGS_H */
