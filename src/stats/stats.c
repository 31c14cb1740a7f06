/*-------------------------------------------------------------------------
 *
 * stats.c
 *		Counters: what happens in each category, and in each topic and group of
 *		the inbox.  What is counted when, and why so: doc/internals/stats.md.
 *
 * The counters are in shared memory (stats_shmem.c).  A counter is an atomic word, to
 * which a backend adds without a lock: counting never waits, and several counters are
 * never read at one moment.  A backend remembers some entries, and looks up others.
 *
 * What counts only if it is committed waits in the backend's list "pending", which has
 * an element for each entry and subtransaction.  Ids of subtransactions ascend, and
 * open ones are nested, so the elements of one that ends, and of those within it, are
 * the end of the list.  Each element has the number of the one before it of the same
 * entry; "newest" has the number of the last one.
 *
 * The elements are added to the entries after the commit, where nothing may fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "stats/stats.h"

/* How many entries a backend remembers. */
#define KNOWN			256

/* An entry that a backend remembers. */
typedef struct Known
{
	uint64		hash;
	StatsKind	kind;
	StatsEntry *entry;
} Known;

/* What a subtransaction has done. */
typedef struct Pending
{
	StatsEntry *entry;
	SubTransactionId subid;
	int			before;			/* the entry's element before this; -1: none */
	uint64		counts[STATS_AT_COMMIT];
} Pending;

static Pending *pending = NULL;
static int	pending_count = 0;
static int	pending_size = 0;
static int *newest = NULL;		/* by entry: its last element; -1: none */

PG_FUNCTION_INFO_V1(es_stats);
PG_FUNCTION_INFO_V1(es_inbox_stats);
PG_FUNCTION_INFO_V1(es_stats_reset);

/*
 * Finds the entry of these names among those that the backend remembers, or in the
 * shared memory.  Must be called in a transaction.
 */
StatsEntry *
stats_find(StatsKind kind, const char *name, int length, const char *second,
		   int second_length)
{
	static Known known[KNOWN];
	Known	   *slot;
	uint64		hash;

	if (stats_max_entries() == 0)
		return NULL;
	hash = hash_bytes_extended((const unsigned char *) name, length, kind);
	if (kind != STATS_CATEGORY)
		hash = hash_bytes_extended((const unsigned char *) second,
								   second_length, hash);
	slot = &known[hash % KNOWN];
	if (slot->entry == NULL || slot->hash != hash || slot->kind != kind)
	{
		slot->entry = stats_entry(kind, hash, name, length, second, second_length);
		slot->hash = hash;
		slot->kind = kind;
	}
	return slot->entry;
}

/*
 * Counts what has happened, even if the transaction is rolled back.
 */
void
stats_count(StatsEntry *entry, StatsCounter counter, uint64 number)
{
	if (entry != NULL)
		pg_atomic_fetch_add_u64(&entry->counters[counter], number);
}

/* Makes room for more elements. */
static void
enlarge_pending(void)
{
	int			i;

	if (newest == NULL)
	{
		int		   *made = MemoryContextAlloc(TopMemoryContext,
											  stats_max_entries() * sizeof(int));

		for (i = 0; i < stats_max_entries(); i++)
			made[i] = -1;
		newest = made;
	}
	if (pending == NULL)
		pending = MemoryContextAlloc(TopMemoryContext, 8 * sizeof(Pending));
	else
		pending = repalloc_huge(pending, pending_size * 2 * sizeof(Pending));
	pending_size = pending_size == 0 ? 8 : pending_size * 2;
}

/* The element of the entry for the current subtransaction. */
static Pending *
current_pending(StatsEntry *entry)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	int			before = newest ? newest[stats_entry_number(entry)] : -1;
	Pending    *element;

	if (before >= 0 && pending[before].subid == subid)
		return &pending[before];
	if (pending_count == pending_size)
		enlarge_pending();
	element = &pending[pending_count];
	memset(element, 0, sizeof(Pending));
	element->entry = entry;
	element->subid = subid;
	element->before = before;
	newest[stats_entry_number(entry)] = pending_count++;
	return element;
}

/*
 * Counts what has happened if the transaction is committed.  The counter is one of
 * the first STATS_AT_COMMIT.
 */
void
stats_count_at_commit(StatsEntry *entry, StatsCounter counter, uint64 number)
{
	if (entry != NULL)
		current_pending(entry)->counts[counter] += number;
}

/* Removes the last element. */
static void
pop_pending(void)
{
	Pending    *last = &pending[--pending_count];

	newest[stats_entry_number(last->entry)] = last->before;
}

/* Adds what an element has counted to its entry. */
static void
publish_pending(const Pending *element)
{
	int			i;

	for (i = 0; i < STATS_AT_COMMIT; i++)
	{
		if (element->counts[i] > 0)
			stats_count(element->entry, i, element->counts[i]);
	}
}

/* The transaction is over; nothing here may fail. */
static void
stats_at_transaction_end(XactEvent event, void *arg)
{
	bool		counts = event == XACT_EVENT_COMMIT ||
	event == XACT_EVENT_PREPARE;

	if (!counts && event != XACT_EVENT_ABORT)
		return;
	while (pending_count > 0)
	{
		if (counts)
			publish_pending(&pending[pending_count - 1]);
		pop_pending();
	}
}

/* Adds what an element has counted to the one before it of the same entry. */
static void
merge_pending(const Pending *element)
{
	int			i;

	for (i = 0; i < STATS_AT_COMMIT; i++)
		pending[element->before].counts[i] += element->counts[i];
	newest[stats_entry_number(element->entry)] = element->before;
}

/*
 * Makes the elements of a subtransaction its parent's.  Where the parent has one for
 * the same entry, they are merged, and the list's last element takes the free place.
 */
static void
pass_to_parent(int first, SubTransactionId parent)
{
	int			i;

	for (i = pending_count - 1; i >= first; i--)
	{
		Pending    *element = &pending[i];

		element->subid = parent;
		if (element->before < 0 || pending[element->before].subid != parent)
			continue;
		merge_pending(element);
		*element = pending[--pending_count];
		if (i < pending_count)
			newest[stats_entry_number(element->entry)] = i;
	}
}

static void
stats_at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
							SubTransactionId parent, void *arg)
{
	int			first = pending_count;

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (pending_count > 0 && pending[pending_count - 1].subid >= subid)
			pop_pending();
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		while (first > 0 && pending[first - 1].subid >= subid)
			first--;
		pass_to_parent(first, parent);
	}
}

/*
 * Requests the memory, and registers for the ends of transactions.
 */
void
stats_init(void)
{
	stats_shmem_init();
	RegisterXactCallback(stats_at_transaction_end, NULL);
	RegisterSubXactCallback(stats_at_subtransaction_end, NULL);
}

/*
 * The views
 */

/* Lock waits are counted in microseconds, and shown in milliseconds. */
static Datum
counter_value(StatsEntry *entry, StatsCounter counter)
{
	uint64		value = pg_atomic_read_u64(&entry->counters[counter]);

	if (entry->key.kind == STATS_CATEGORY && counter == STATS_LOCK_WAIT_TIME)
		return Float8GetDatum(value / 1000.0);
	return Int64GetDatum(value);
}

/* The row of an entry: its names, its counters, and since when. */
static void
put_entry(ReturnSetInfo *result, StatsEntry *entry, int names, int counters)
{
	Datum		values[STATS_NAMES + STATS_COUNTERS + 1];
	bool		nulls[STATS_NAMES + STATS_COUNTERS + 1] = {false};
	int			i;

	for (i = 0; i < names; i++)
	{
		values[i] = CStringGetTextDatum(entry->key.names[i]);
		nulls[i] = entry->key.other;
	}
	for (i = 0; i < counters; i++)
		values[names + i] = counter_value(entry, i);
	values[names + counters] =
		TimestampTzGetDatum(pg_atomic_read_u64(&entry->since));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static Datum
put_entries(FunctionCallInfo fcinfo, StatsKind kind, int names, int counters)
{
	int			count = stats_entry_count();
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < count; i++)
	{
		StatsEntry *entry = stats_entry_at(i);

		if (entry->key.database == MyDatabaseId && entry->key.kind == kind)
			put_entry((ReturnSetInfo *) fcinfo->resultinfo, entry, names,
					  counters);
	}
	return (Datum) 0;
}

/*
 * es_stats(): a row for each category of this database.
 */
Datum
es_stats(PG_FUNCTION_ARGS)
{
	return put_entries(fcinfo, STATS_CATEGORY, 1, STATS_COUNTERS);
}

/*
 * es_inbox_stats(): a row for each topic and group.
 */
Datum
es_inbox_stats(PG_FUNCTION_ARGS)
{
	return put_entries(fcinfo, STATS_INBOX, 2, STATS_INBOX_COUNTERS);
}

/*
 * es_stats_reset(): sets the counters of this database to zero.
 */
Datum
es_stats_reset(PG_FUNCTION_ARGS)
{
	int			count = stats_entry_count();
	TimestampTz now = GetCurrentTimestamp();
	int			i;
	int			j;

	for (i = 0; i < count; i++)
	{
		StatsEntry *entry = stats_entry_at(i);

		if (entry->key.database != MyDatabaseId)
			continue;
		for (j = 0; j < STATS_COUNTERS; j++)
			pg_atomic_write_u64(&entry->counters[j], 0);
		pg_atomic_write_u64(&entry->since, now);
	}
	PG_RETURN_VOID();
}
