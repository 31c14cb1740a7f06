/*-------------------------------------------------------------------------
 *
 * stats_shmem.c
 *		The entries of counters in shared memory, and their file.
 *
 * There is memory for eventstore.stats_categories entries, if
 * shared_preload_libraries names eventstore.
 *
 * An entry is known by its database, its kind and a hash of its names.  All names that
 * find no place share one entry for each database and kind.  The directory, an open
 * hash table of the entries' numbers, is read and changed under the lock.  Entries are
 * never removed or moved once a backend has found one.
 *
 * The postmaster writes the entries to a file when it ends.  When it starts, it reads
 * the file and removes it.  The file is used only if the server was shut down cleanly,
 * as the server's own statistics are.  The first backend that looks for an entry then
 * drops those of databases that no longer exist.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "stats/stats.h"

#define LOCK_NAME		"eventstore_stats"

/* Counters are stored here while the server is down. */
#define STATS_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/eventstore.stat"
#define STATS_MAGIC		0x45530001

/* Entries, beyond those of the setting, for what found no place. */
#define OTHERS			64

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
	bool		swept;			/* entries of dropped databases are gone */
	int			count;			/* of entries */
	int			others;			/* among them */
	StatsEntry	entries[FLEXIBLE_ARRAY_MEMBER];
} Stats;

/*
 * eventstore.stats_categories: how many categories, and topics and groups of the
 * inbox, of all databases have counters of their own.  With more of them, an
 * administrator raises it, at 370 bytes each; with 0 nothing is counted.
 */
static int	stats_categories = 1000;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static Stats *stats = NULL;
static uint32 *directory = NULL;	/* numbers of entries from 1; 0: free */
static LWLock *lock = NULL;

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

/* The place of an entry in the directory, or of a new one; under the lock. */
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

/* Makes an entry at its place, for which there must be memory. */
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

/* The key of the entry for all names that find no place. */
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

/* Returns true if there is no place for another entry with names. */
static bool
is_full(void)
{
	return stats->count - stats->others >= stats_categories;
}

/*
 * Finds an entry; if there is no place for it, finds the shared one.  NULL if there is
 * none.  The caller holds the lock, at least shared.
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
 * Finds or makes an entry, or the shared one; NULL if there is no memory left.  The
 * caller holds the lock.
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
 * Removes all entries.
 */
static void
clear_entries(void)
{
	stats->count = 0;
	stats->others = 0;
	memset(directory, 0, directory_size());
}

/*
 * Writes a name as it is shown.  One that is too long ends with a hash of all of it.
 */
static void
write_name(char *to, const char *name, int length)
{
	uint64		hash;

	memset(to, 0, STATS_NAME_SIZE);
	if (length < STATS_NAME_SIZE)
	{
		memcpy(to, name, length);
		return;
	}
	hash = hash_bytes_extended((const unsigned char *) name, length, 0);
	length = pg_mbcliplen(name, length, STATS_NAME_SIZE - 18);
	memcpy(to, name, length);
	snprintf(to + length, STATS_NAME_SIZE - length, "#%016llx",
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
 * The databases of entries that no longer exist.  The catalogs must not be read under
 * the lock.
 */
static Oid *
find_dropped_databases(int *count)
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
 * Removes the entries of these databases.  The others move forward, which does no harm
 * while no backend remembers any.  The caller holds the lock.
 */
static void
remove_entries(const Oid *databases, int count)
{
	int			all = stats->count;
	int			i;

	clear_entries();
	for (i = 0; i < all; i++)
	{
		StatsEntry	entry = stats->entries[i];

		if (bsearch(&entry.key.database, databases, count, sizeof(Oid),
					compare_oids) == NULL)
			*make_entry(&entry.key, find_place(&entry.key), 0) = entry;
	}
}

/*
 * Removes the entries of dropped databases, once after the server's start.
 */
static void
sweep_dropped(void)
{
	int			count;
	Oid		   *dropped = find_dropped_databases(&count);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!stats->swept && count > 0)
		remove_entries(dropped, count);
	stats->swept = true;
	LWLockRelease(lock);
	pfree(dropped);
}

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

/*
 * Finds or makes the entry of these names in this database.  Must be called in a
 * transaction.
 */
StatsEntry *
stats_entry(StatsKind kind, uint64 hash, const char *name, int length,
			const char *second, int second_length)
{
	StatsKey	key = {.hash = hash,.database = MyDatabaseId,.kind = kind};
	StatsEntry *entry;

	if (!stats->swept)
		sweep_dropped();
	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry(&key);
	LWLockRelease(lock);
	return entry ? entry :
		make_named(&key, name, length, second, second_length);
}

/*
 * The number of entries.  Must be called in a transaction.
 */
int
stats_entry_count(void)
{
	int			count;

	if (stats == NULL)
		return 0;
	if (!stats->swept)
		sweep_dropped();
	LWLockAcquire(lock, LW_SHARED);
	count = stats->count;
	LWLockRelease(lock);
	return count;
}

/* The entry of a number from 0. */
StatsEntry *
stats_entry_at(int number)
{
	return &stats->entries[number];
}

int
stats_entry_number(const StatsEntry *entry)
{
	return entry - stats->entries;
}

/* How many entries there can be; 0: nothing is counted. */
int
stats_max_entries(void)
{
	return stats == NULL ? 0 : max_entries();
}

/*
 * The file
 */

/* Returns true if the server was shut down cleanly and its statistics are valid. */
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

/* Logs that something could not be done with the file. */
static void
warn_about_file(const char *what)
{
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, STATS_FILE)));
}

/* The entries in the form of the file. */
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

/* Writes the file when the postmaster ends, unless after a crash: code is not 0. */
static void
write_stats_file(int code, Datum arg)
{
	FILE	   *file;
	bool		written;

	if (code != 0 || stats == NULL)
		return;
	file = AllocateFile(STATS_FILE ".tmp", PG_BINARY_W);
	if (file == NULL)
	{
		warn_about_file("create");
		return;
	}
	written = write_entries(file);
	if (FreeFile(file) != 0 || !written)
	{
		warn_about_file("write");
		unlink(STATS_FILE ".tmp");
	}
	else
		(void) durable_rename(STATS_FILE ".tmp", STATS_FILE, LOG);
}

/*
 * Adds an entry of the file; to the shared one if there is no place left.
 */
static void
add_stored_entry(const StoredEntry *stored)
{
	StatsEntry *entry = get_entry(&stored->key, stored->since);
	int			i;

	for (i = 0; entry != NULL && i < STATS_COUNTERS; i++)
		pg_atomic_fetch_add_u64(&entry->counters[i], stored->counters[i]);
}

/* Reads the entries.  Returns false if they are damaged. */
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
		add_stored_entry(&stored[i]);
	pfree(stored);
	return valid;
}

/*
 * Reads the file, if there is one, and removes it.
 */
static void
read_stats_file(void)
{
	FILE	   *file = AllocateFile(STATS_FILE, PG_BINARY_R);

	if (file == NULL)
	{
		if (errno != ENOENT)
			warn_about_file("read");
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
request_stats_memory(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(stats_size());
	RequestAddinShmemSpace(directory_size());
	RequestNamedLWLockTranche(LOCK_NAME, 1);
}

/* At the server's start, and again after one of its processes has crashed. */
static void
make_stats_memory(void)
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
		clear_entries();
	}
	LWLockRelease(AddinShmemInitLock);
	if (IsUnderPostmaster)
		return;
	on_shmem_exit(write_stats_file, (Datum) 0);
	if (!found)
		read_stats_file();
}

/*
 * Defines the setting and requests the memory, which is only possible while the server
 * loads its libraries.
 */
void
stats_shmem_init(void)
{
	/* known without preloading, too, so that its line is no invalid parameter */
	DefineCustomIntVariable("eventstore.stats_categories",
							"Number of categories with counters of their own.",
							"In all databases, including topics and groups of the inbox; 0 counts nothing.",
							&stats_categories, 1000, 0, 100000,
							process_shared_preload_libraries_in_progress ?
							PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress || stats_categories == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_stats_memory;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_stats_memory;
}
