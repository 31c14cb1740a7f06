/*-------------------------------------------------------------------------
 *
 * stats.h
 *		Counters in shared memory (doc/internals/stats.md).
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_STATS_H
#define EVENTSTORE_STATS_H

#include "port/atomics.h"

/* stats_shmem.c */

/* What has counters of its own. */
typedef enum StatsKind
{
	STATS_CATEGORY,				/* by its name */
	STATS_INBOX					/* by topic and group */
} StatsKind;

/* What is counted, in the order of the views' columns. */
typedef enum StatsCounter
{
	/* of a category */
	STATS_APPENDS = 0,
	STATS_EVENTS,
	STATS_BYTES,
	STATS_CONFLICTS,
	STATS_RETRIES,
	STATS_DUPLICATES,
	STATS_LOCK_WAITS,
	STATS_LOCK_WAIT_TIME,		/* microseconds */

	/* of the inbox */
	STATS_INBOX_ACKNOWLEDGED = 0,
	STATS_INBOX_SKIPPED,
	STATS_INBOX_FAILED,
	STATS_INBOX_DUPLICATES,
	STATS_INBOX_ERRORS
} StatsCounter;

/* How many counters there are; the first ones count at commit. */
#define STATS_COUNTERS			8
#define STATS_INBOX_COUNTERS	5
#define STATS_AT_COMMIT			3

/* A category has one name; topic and group are two. */
#define STATS_NAMES				2

/* Bytes of a name, with the zero at its end. */
#define STATS_NAME_SIZE			128

/* What an entry is of, as memory and file have it. */
typedef struct StatsKey
{
	uint64		hash;			/* of the names; 0 for all that found no place */
	Oid			database;
	StatsKind	kind;
	char		names[STATS_NAMES][STATS_NAME_SIZE];	/* cut if they are long */
	bool		other;			/* it is of all that found no place */
} StatsKey;

typedef struct StatsEntry
{
	StatsKey	key;
	pg_atomic_uint64 since;		/* it counts since then */
	pg_atomic_uint64 counters[STATS_COUNTERS];
} StatsEntry;

extern void stats_shmem_init(void);

/* How many entries there can be; 0: nothing is counted. */
extern int	stats_max_entries(void);

/* How many entries there are; the entry of a number from 0, and the reverse. */
extern int	stats_entry_count(void);
extern StatsEntry *stats_entry_at(int number);
extern int	stats_entry_number(const StatsEntry *entry);

/*
 * Finds or makes the entry of these names in this database; NULL if there is no
 * memory left.  hash: of the names.
 */
extern StatsEntry *stats_entry(StatsKind kind, uint64 hash, const char *name,
							   int length, const char *second,
							   int second_length);

/* stats.c */
extern void stats_init(void);

/*
 * The entry of these names, NULL if nothing is counted.  A category has no second
 * name.
 */
extern StatsEntry *stats_find(StatsKind kind, const char *name, int length,
							  const char *second, int second_length);

/* Counts what has happened, even if the transaction is rolled back. */
extern void stats_count(StatsEntry *entry, StatsCounter counter,
						uint64 number);

/* Counts what has happened if the transaction is committed. */
extern void stats_count_at_commit(StatsEntry *entry, StatsCounter counter,
								  uint64 number);

#endif							/* EVENTSTORE_STATS_H */
