/*-------------------------------------------------------------------------
 *
 * tags.h
 *		Tags of events, and the table that finds events by them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_TAGS_H
#define EVENTSTORE_TAGS_H

#include "utils/snapshot.h"

#include "log/log.h"

/* tags.c */

/* Refuses what are no tags.  Returns them sorted and distinct; 0: none. */
extern Datum tags_check(Datum tags);

/* Returns true if tags are as they are stored: sorted and distinct. */
extern bool tags_are_stored_form(Datum tags);

/* Adds tags of right lengths to a checked array; 0: none. */
extern Datum tags_add(Datum tags, const Datum *added, int count);

/* Returns those tags of a checked array that another one has not, and how many. */
extern int	tags_missing(Datum tags, Datum others, Datum **missing);

/* Takes an array of tags apart, and returns how many there are.  Errors: a null. */
extern int	tags_values(Datum tags, Datum **values);

/* Counts the tags of an array, and adds their locks, by an event.  Returns how many. */
extern int	tags_count(Datum tags);
extern int	tags_add_locks(Datum tags, LogLock *locks);

/* Takes the locks of those that are not among other ones, whose locks the transaction has. */
extern void tags_lock_missing(Oid log, Datum tags, Datum locked);

/* Returns true if both arrays have the same tags; 0: none. */
extern bool tags_equal(Datum one, Datum other);

/* tag_entry.c: entries of the table es_tags */

/* Columns of es_tags. */
enum
{
	Anum_es_tags_tag = 1,
	Anum_es_tags_position,
	Anum_es_tags_type,
	Natts_es_tags = Anum_es_tags_type
};

/* Stores the entries of events that were just stored. */
extern void tag_entry_insert(Log *log, const NewEvent *events, int count);

/*
 * Makes the entries of a row of es_events that was changed, or removed (new_row: NULL), those
 * of the new one.  SPI is connected.
 */
extern void tag_entry_replace(Relation log, HeapTuple old_row, HeapTuple new_row);

/*
 * Makes all entries agree with all events, while appends go on.  Returns how many it has
 * added and removed.  SPI is connected.
 */
extern void tag_entry_reindex(Oid log, int64 *added, int64 *removed);

/* tag_table.c: es_tags, opened if it is as the extension has made it */

extern Relation tag_table_open(Oid log, LOCKMODE mode);

/* Opens the primary key, (tag, position) and the type, to look up entries. */
extern Relation tag_table_open_key(Relation table);

/* Opens all indexes, to store entries.  CatalogCloseIndexes() closes them. */
extern struct ResultRelInfo *tag_table_open_indexes(Relation table);

/* log_lock.c */

/* The lock of conditions that no tag's lock guards: one of them at a time. */
extern LogLock log_lock_of_conditions(Oid log);

/*
 * Takes the locks that no other transaction has, without waiting.  Returns false if any is
 * missing, or if they are too many.
 */
extern bool log_lock_try_all(Oid log, LogLock *locks, int count);

/*
 * How many locks the transaction has taken; and what to count, when those that were taken
 * since are released by a rollback.
 */
extern int	log_lock_count(void);
extern void log_lock_forget(int count);

/* Returns true if the transaction has locked the whole log. */
extern bool log_lock_is_whole(Oid log);

/*
 * Waits until every other transaction that may own a position by now has ended, or has
 * rolled it back.  New ones are not waited for, since they draw higher positions.
 * purpose: "to ...", for an error's context.
 */
extern void log_lock_await_appenders(Oid log, const char *purpose);

/*
 * Waits until no transaction holds the locks to append, and returns a registered snapshot
 * that sees all of it.  The locks are held for that moment alone.
 */
extern Snapshot log_lock_barrier(Oid log, LogLock *locks, int count);

/* log_sequence.c */

/* The position that was drawn last. */
extern int64 log_sequence_last(Oid log);

/* log_insert.c */

/*
 * Draws the positions of events before they are stored, when the caller can still be
 * refused: they are lost then.
 */
extern void log_draw(Log *log, NewEvent *events, int count);

/* Returns true if it fires any but the trigger that stores entries of tags. */
extern bool log_insert_fires_others(const TriggerDesc *triggers);

#endif							/* EVENTSTORE_TAGS_H */
