/*-------------------------------------------------------------------------
 *
 * stats.c
 *		Counters: what happens in each category, and in each topic and group of
 *		the inbox.  What is counted when, and why so: doc/stats.md.
 *
 * There is shared memory for eventstore.stats_categories entries only if
 * shared_preload_libraries names eventstore; else nothing is counted.
 *
 *	- An entry is known by its database, its kind and a hash of its names; what
 *	  finds no place has one entry for each database and kind.  Entries are
 *	  found by the directory, an open hash table of their numbers, under the
 *	  lock; a backend remembers some, as entries are never removed.
 *
 *	- A counter is an atomic word, and whoever counts adds to it, without a
 *	  lock; nobody waits for a count, and nobody reads several at one moment.
 *
 *	- What counts only if it is committed waits in the backend's list pending,
 *	  an element for each entry and subtransaction.  Ids of subtransactions
 *	  ascend, and those that are open lie within each other: so what belongs to
 *	  one that ends, and to those that were within it, is the end of the list.
 *	  Each element knows the one before it of the same entry; newest has the
 *	  last one.
 *
 *	- The list is added to the entries after the commit, where nothing may fail.
 *
 * The postmaster writes the entries to a file when it ends, and reads and
 * removes that when it starts; it is used only if the server was shut down, as
 * the server's own statistics are.  The first who looks for an entry then
 * drops those of databases that are gone: before that nobody remembers any.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "eventstore.h"

#define LOCK_NAME		"eventstore_stats"

/* What is counted is kept here while the server is down. */
#define STATS_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/eventstore.stat"
#define STATS_MAGIC		0x45530001

/* Entries, beyond those of the setting, for what found no place. */
#define OTHERS			64

/* Entries that a backend remembers. */
#define KNOWN			256

/* Bytes of a name, with the zero at its end. */
#define NAME_SIZE		128

#define NAMES			2

/* What an entry is of, as memory and file have it. */
typedef struct StatsKey
{
	uint64		hash;			/* of the names; 0 for what found no place */
	Oid			database;
	StatsKind	kind;
	char		names[NAMES][NAME_SIZE];	/* cut if they are long */
	bool		other;			/* did it find no place? */
} StatsKey;

struct StatsEntry
{
	StatsKey	key;
	pg_atomic_uint64 since;		/* it counts since then */
	pg_atomic_uint64 counters[STATS_COUNTERS];
};

/* An entry in the file. */
typedef struct StoredEntry
{
	StatsKey	key;
	uint64		since;
	uint64		counters[STATS_COUNTERS];
} StoredEntry;

typedef struct FileHeader
{
	uint32		magic;
	uint32		size;			/* of an entry */
	uint32		count;
	pg_crc32c	crc;			/* of the entries */
} FileHeader;

typedef struct Stats
{
	bool		swept;			/* are entries of dropped databases gone? */
	int			count;			/* of entries */
	int			others;			/* among them */
	StatsEntry	entries[FLEXIBLE_ARRAY_MEMBER];
} Stats;

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

/*
 * eventstore.stats_categories: how many categories, and topics and groups of
 * the inbox, of all databases are counted apart.  An administrator who has
 * more gives them memory, 370 bytes each; with 0 nothing is counted.
 */
static int	stats_categories = 1000;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static Stats *stats = NULL;
static uint32 *directory = NULL;	/* numbers of entries from 1; 0: free */
static LWLock *lock = NULL;

static Pending *pending = NULL;
static int	pending_count = 0;
static int	pending_size = 0;
static int *newest = NULL;		/* by entry: its last element; -1: none */

PG_FUNCTION_INFO_V1(es_stats);
PG_FUNCTION_INFO_V1(es_inbox_stats);
PG_FUNCTION_INFO_V1(es_stats_reset);

/*
 * Entries
 */

static int
max_entries(void)
{
	return stats_categories + OTHERS;
}

static Size
stats_size(void)
{
	return add_size(offsetof(Stats, entries),
					mul_size(max_entries(), sizeof(StatsEntry)));
}

/* At most half of it is used, so that a search is short. */
static uint32
directory_length(void)
{
	return 2 * max_entries();
}

static Size
directory_size(void)
{
	return mul_size(directory_length(), sizeof(uint32));
}

static bool
same_key(const StatsKey *a, const StatsKey *b)
{
	return a->hash == b->hash && a->database == b->database &&
		a->kind == b->kind && a->other == b->other;
}

/* Where the entry is in the directory, or would be; the caller has the lock. */
static uint32 *
find_place(const StatsKey *key)
{
	uint32		length = directory_length();
	uint32		place = (key->hash ^ key->database) % length;

	while (directory[place] != 0 &&
		   !same_key(&stats->entries[directory[place] - 1].key, key))
		place = (place + 1) % length;
	return &directory[place];
}

/* Makes an entry at its place; there is memory for it. */
static StatsEntry *
make_entry(const StatsKey *key, uint32 *place, TimestampTz since)
{
	StatsEntry *entry = &stats->entries[stats->count];
	int			i;

	entry->key = *key;
	pg_atomic_init_u64(&entry->since, since);
	for (i = 0; i < STATS_COUNTERS; i++)
		pg_atomic_init_u64(&entry->counters[i], 0);
	if (key->other)
		stats->others++;
	stats->count++;
	*place = stats->count;
	return entry;
}

/* The key of the entry for what finds no place. */
static StatsKey
other_key(const StatsKey *key)
{
	StatsKey	other = {
		.database = key->database,
		.kind = key->kind,
		.other = true
	};

	return other;
}

/* Is there no place for another entry with a name? */
static bool
is_full(void)
{
	return stats->count - stats->others >= stats_categories;
}

/*
 * Finds an entry, or, if it cannot be made, that for what finds no place; NULL
 * if there is none.  The caller has the lock, shared at least.
 */
static StatsEntry *
find_entry(const StatsKey *key)
{
	StatsKey	other = other_key(key);
	uint32		number = *find_place(key);

	if (number == 0 && is_full())
		number = *find_place(&other);
	return number == 0 ? NULL : &stats->entries[number - 1];
}

/*
 * Finds or makes an entry, or that for what finds no place; NULL if there is
 * no memory left.  The caller has the lock.
 */
static StatsEntry *
get_entry(const StatsKey *key, TimestampTz since)
{
	StatsKey	other = other_key(key);
	StatsEntry *entry = find_entry(key);

	if (entry == NULL && !is_full())
		entry = make_entry(key, find_place(key), since);
	if (entry == NULL && stats->others < OTHERS)
		entry = make_entry(&other, find_place(&other), since);
	return entry;
}

/*
 * Empties the memory.
 */
static void
clear(void)
{
	stats->count = 0;
	stats->others = 0;
	memset(directory, 0, directory_size());
}

/*
 * Writes a name as it is shown; one that is too long ends with a hash of all
 * of it.
 */
static void
write_name(char *to, const char *name, int length)
{
	uint64		hash;

	memset(to, 0, NAME_SIZE);
	if (length < NAME_SIZE)
	{
		memcpy(to, name, length);
		return;
	}
	hash = hash_bytes_extended((const unsigned char *) name, length, 0);
	length = pg_mbcliplen(name, length, NAME_SIZE - 18);
	memcpy(to, name, length);
	snprintf(to + length, NAME_SIZE - length, "#%016llx",
			 (unsigned long long) hash);
}

/*
 * Dropped databases
 */

static int
compare_oids(const void *a, const void *b)
{
	Oid			first = *(const Oid *) a;
	Oid			second = *(const Oid *) b;

	return first < second ? -1 : first > second;
}

/*
 * The databases of entries that do not exist any more.  The catalogs must not
 * be read under the lock.
 */
static Oid *
find_dropped(int *count)
{
	Oid		   *found = palloc(sizeof(Oid) * max_entries());
	int			all;
	int			kept = 0;
	int			i;

	LWLockAcquire(lock, LW_SHARED);
	all = stats->count;
	for (i = 0; i < all; i++)
		found[i] = stats->entries[i].key.database;
	LWLockRelease(lock);
	qsort(found, all, sizeof(Oid), compare_oids);
	for (i = 0; i < all; i++)
	{
		if ((i == 0 || found[i] != found[i - 1]) &&
			!SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(found[i])))
			found[kept++] = found[i];
	}
	*count = kept;
	return found;
}

/*
 * Leaves the entries of these databases out; the caller has the lock.  The
 * others move forward, which nobody notices, as nobody remembers any yet.
 */
static void
remove_entries(const Oid *databases, int count)
{
	int			all = stats->count;
	int			i;

	clear();
	for (i = 0; i < all; i++)
	{
		StatsEntry	entry = stats->entries[i];

		if (bsearch(&entry.key.database, databases, count, sizeof(Oid),
					compare_oids) == NULL)
			*make_entry(&entry.key, find_place(&entry.key), 0) = entry;
	}
}

/*
 * Drops the entries of dropped databases, once after the server's start.
 */
static void
sweep(void)
{
	int			count;
	Oid		   *dropped = find_dropped(&count);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!stats->swept && count > 0)
		remove_entries(dropped, count);
	stats->swept = true;
	LWLockRelease(lock);
	pfree(dropped);
}

/*
 * Counting
 */

/* Makes the entry of these names in the shared memory. */
static StatsEntry *
make_named(StatsKey *key, const char *name, int length, const char *second,
		   int second_length)
{
	TimestampTz now = GetCurrentTimestamp();
	StatsEntry *entry;

	write_name(key->names[0], name, length);
	write_name(key->names[1], second, second_length);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = get_entry(key, now);
	LWLockRelease(lock);
	return entry;
}

/* Finds or makes the entry of these names in the shared memory. */
static StatsEntry *
look_up(StatsKind kind, uint64 hash, const char *name, int length,
		const char *second, int second_length)
{
	StatsKey	key = {.hash = hash,.database = MyDatabaseId,.kind = kind};
	StatsEntry *entry;

	if (!stats->swept)
		sweep();
	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry(&key);
	LWLockRelease(lock);
	return entry ? entry :
		make_named(&key, name, length, second, second_length);
}

/*
 * The entry of these names; NULL if nothing is counted.  Categories have no
 * second name.  In a transaction.
 */
StatsEntry *
stats_find(StatsKind kind, const char *name, int length, const char *second,
		   int second_length)
{
	static Known known[KNOWN];
	Known	   *slot;
	uint64		hash;

	if (stats == NULL)
		return NULL;
	hash = hash_bytes_extended((const unsigned char *) name, length, kind);
	if (kind != STATS_CATEGORY)
		hash = hash_bytes_extended((const unsigned char *) second,
								   second_length, hash);
	slot = &known[hash % KNOWN];
	if (slot->entry == NULL || slot->hash != hash || slot->kind != kind)
	{
		slot->entry = look_up(kind, hash, name, length, second, second_length);
		slot->hash = hash;
		slot->kind = kind;
	}
	return slot->entry;
}

/*
 * Counts what has happened, whatever becomes of the transaction.
 */
void
stats_count(StatsEntry *entry, StatsCounter counter, uint64 number)
{
	if (entry != NULL)
		pg_atomic_fetch_add_u64(&entry->counters[counter], number);
}

/* Makes place for one more element. */
static void
enlarge_pending(void)
{
	int			i;

	if (newest == NULL)
	{
		int		   *made = MemoryContextAlloc(TopMemoryContext,
											  max_entries() * sizeof(int));

		for (i = 0; i < max_entries(); i++)
			made[i] = -1;
		newest = made;
	}
	if (pending == NULL)
		pending = MemoryContextAlloc(TopMemoryContext, 8 * sizeof(Pending));
	else
		pending = repalloc_huge(pending, pending_size * 2 * sizeof(Pending));
	pending_size = pending_size == 0 ? 8 : pending_size * 2;
}

/* The element of the entry for the present subtransaction. */
static Pending *
get_pending(StatsEntry *entry)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	int			before = newest ? newest[entry - stats->entries] : -1;
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
	newest[entry - stats->entries] = pending_count++;
	return element;
}

/*
 * Counts what is done if the transaction is committed; one of the first
 * STATS_AT_COMMIT counters.
 */
void
stats_count_at_commit(StatsEntry *entry, StatsCounter counter, uint64 number)
{
	if (entry != NULL)
		get_pending(entry)->counts[counter] += number;
}

/* Forgets the last element. */
static void
pop_pending(void)
{
	Pending    *last = &pending[--pending_count];

	newest[last->entry - stats->entries] = last->before;
}

static void
add_pending(const Pending *element)
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
			add_pending(&pending[pending_count - 1]);
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
	newest[element->entry - stats->entries] = element->before;
}

/*
 * Makes what a subtransaction has counted its parent's.  Where the parent has
 * an element for it, the last one takes its place.
 */
static void
give_to_parent(int first, SubTransactionId parent)
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
			newest[element->entry - stats->entries] = i;
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
		give_to_parent(first, parent);
	}
}

/*
 * The file
 */

/* Was the server shut down, so that its own statistics are kept, too? */
static bool
was_shut_down(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		result = crc_ok &&
	(control->state == DB_SHUTDOWNED ||
	 control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return result;
}

static pg_crc32c
entries_crc(const StoredEntry *entries, uint32 count)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, entries, count * sizeof(StoredEntry));
	FIN_CRC32C(crc);
	return crc;
}

/* Says that the file is of no use. */
static void
complain(const char *what)
{
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, STATS_FILE)));
}

/* The entries as the file has them, in a piece of memory. */
static StoredEntry *
stored_entries(void)
{
	StoredEntry *stored = palloc0(Max(stats->count, 1) * sizeof(StoredEntry));
	int			i;
	int			j;

	for (i = 0; i < stats->count; i++)
	{
		StatsEntry *entry = &stats->entries[i];

		stored[i].key = entry->key;
		stored[i].since = pg_atomic_read_u64(&entry->since);
		for (j = 0; j < STATS_COUNTERS; j++)
			stored[i].counters[j] = pg_atomic_read_u64(&entry->counters[j]);
	}
	return stored;
}

static bool
write_entries(FILE *file)
{
	StoredEntry *stored = stored_entries();
	FileHeader	header = {
		.magic = STATS_MAGIC,
		.size = sizeof(StoredEntry),
		.count = stats->count,
		.crc = entries_crc(stored, stats->count)
	};
	bool		written = fwrite(&header, sizeof(header), 1, file) == 1 &&
	fwrite(stored, sizeof(StoredEntry), header.count, file) == header.count;

	pfree(stored);
	return written;
}

/* The postmaster ends; with another code than 0 after a crash. */
static void
write_file(int code, Datum arg)
{
	FILE	   *file;
	bool		written;

	if (code != 0 || stats == NULL)
		return;
	file = AllocateFile(STATS_FILE ".tmp", PG_BINARY_W);
	if (file == NULL)
	{
		complain("create");
		return;
	}
	written = write_entries(file);
	if (FreeFile(file) != 0 || !written)
	{
		complain("write");
		unlink(STATS_FILE ".tmp");
	}
	else
		(void) durable_rename(STATS_FILE ".tmp", STATS_FILE, LOG);
}

/*
 * Takes an entry of the file.  If there is no place any more it goes where new
 * ones would.
 */
static void
take_entry(const StoredEntry *stored)
{
	StatsEntry *entry = get_entry(&stored->key, stored->since);
	int			i;

	for (i = 0; i < STATS_COUNTERS; i++)
		stats_count(entry, i, stored->counters[i]);
}

/* Reads the entries; false if they are damaged. */
static bool
read_entries(FILE *file)
{
	FileHeader	header;
	StoredEntry *stored;
	bool		valid;
	uint32		i;

	if (fread(&header, sizeof(header), 1, file) != 1 ||
		header.magic != STATS_MAGIC || header.size != sizeof(StoredEntry) ||
		header.count > MaxAllocSize / sizeof(StoredEntry))
		return false;
	stored = palloc_extended(Max(header.count, 1) * sizeof(StoredEntry),
							 MCXT_ALLOC_NO_OOM);
	if (stored == NULL)
		return false;
	valid = fread(stored, sizeof(StoredEntry), header.count, file) == header.count &&
		entries_crc(stored, header.count) == header.crc;
	for (i = 0; valid && i < header.count; i++)
		take_entry(&stored[i]);
	pfree(stored);
	return valid;
}

/*
 * Reads the file, if there is one, and removes it.
 */
static void
read_file(void)
{
	FILE	   *file = AllocateFile(STATS_FILE, PG_BINARY_R);

	if (file == NULL)
	{
		if (errno != ENOENT)
			complain("read");
		return;
	}
	if (was_shut_down() && !read_entries(file))
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ignoring invalid data in file \"%s\"", STATS_FILE)));
	FreeFile(file);
	unlink(STATS_FILE);
}

/*
 * Shared memory
 */

static void
request_memory(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(stats_size());
	RequestAddinShmemSpace(directory_size());
	RequestNamedLWLockTranche(LOCK_NAME, 1);
}

/* At the start of the server, and again after a crash of one of its processes. */
static void
make_memory(void)
{
	bool		found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	directory = ShmemInitStruct("eventstore stats directory",
								directory_size(), &found);
	stats = ShmemInitStruct("eventstore stats", stats_size(), &found);
	lock = &GetNamedLWLockTranche(LOCK_NAME)->lock;
	if (!found)
	{
		stats->swept = false;
		clear();
	}
	LWLockRelease(AddinShmemInitLock);
	if (IsUnderPostmaster)
		return;
	on_shmem_exit(write_file, (Datum) 0);
	if (!found)
		read_file();
}

/*
 * Defines the setting and asks for the memory; only while the server loads its
 * libraries.
 */
void
stats_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomIntVariable("eventstore.stats_categories",
							"Number of categories that are counted apart.",
							"Of all databases, with topics and groups of the inbox; 0 counts nothing.",
							&stats_categories, 1000, 0, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	if (stats_categories == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_memory;
	RegisterXactCallback(stats_at_transaction_end, NULL);
	RegisterSubXactCallback(stats_at_subtransaction_end, NULL);
}

/*
 * The views
 */

/* How many entries there are. */
static int
entry_count(void)
{
	int			count;

	if (stats == NULL)
		return 0;
	if (!stats->swept)
		sweep();
	LWLockAcquire(lock, LW_SHARED);
	count = stats->count;
	LWLockRelease(lock);
	return count;
}

/* Lock waits are kept in microseconds, and shown in milliseconds. */
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
	Datum		values[NAMES + STATS_COUNTERS + 1];
	bool		nulls[NAMES + STATS_COUNTERS + 1] = {false};
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
	int			count = entry_count();
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < count; i++)
	{
		StatsEntry *entry = &stats->entries[i];

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
	int			count = entry_count();
	TimestampTz now = GetCurrentTimestamp();
	int			i;
	int			j;

	for (i = 0; i < count; i++)
	{
		StatsEntry *entry = &stats->entries[i];

		if (entry->key.database != MyDatabaseId)
			continue;
		for (j = 0; j < STATS_COUNTERS; j++)
			pg_atomic_write_u64(&entry->counters[j], 0);
		pg_atomic_write_u64(&entry->since, now);
	}
	PG_RETURN_VOID();
}
