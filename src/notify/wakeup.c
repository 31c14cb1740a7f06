/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *		What appenders and workers of a database tell each other.
 *
 * There is shared memory only if shared_preload_libraries names eventstore:
 * a slot for each database of eventstore.databases.  Without a slot nothing
 * here does anything, and everybody is told that there is no worker.
 *
 * An appender whose transaction is over counts it, and wakes those who wait for
 * that, workers and long polls of consumers:
 *
 *		appender						who waits
 *		1. transaction is over			1. remembers the count
 *		2. adds 1 to the count			2. does all there is to do
 *		3. if anybody waits, takes		3. marks itself, and then that anybody
 *		   that mark and all others,	   waits
 *		   and sets the latches of		4. if the count has changed: back to 1
 *		   these						5. waits
 *
 * Steps 2 of the one and 3 of the other are atomic operations with full memory
 * barriers: either the appender sees the mark, or the other sees the count.
 * Who works or rests has no mark, so that a stream of commits costs an addition
 * each, and a signal only now and then.
 *
 * Each process of the server has a bit among the marks of a database.  Each
 * worker has one more: in present, and in sending from its first successful
 * look for what is to be announced until it fails to announce or ends.  An appender whose eventstore.notify is auto leaves its notifications
 * to such a worker; but not to one that has been in one transaction for long,
 * with a slow handler perhaps, since nobody knows when it will look again.
 *
 * The latches are those of the PGPROCs, which stay where they are: a latch that
 * is set after its process has gone wakes somebody in vain.
 *
 * The slot also has what was last announced, so that the table es_notified
 * need not be written each time.  It is lost with the memory; then more is
 * announced than is new.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "notify/notify.h"

/* Workers of one database, also those started by hand: bits of a word. */
#define SLOT_WORKERS	32

/* Milliseconds in one transaction until a worker is not relied on. */
#define LONG_WORK		1000

typedef struct DatabaseSlot
{
	pg_atomic_uint64 ends;		/* transactions of appenders that are over */
	pg_atomic_uint32 waiting;	/* does anybody wait? */
	pg_atomic_uint32 sending;
	pg_atomic_uint64 working[SLOT_WORKERS]; /* since when; 0: it is not */
	Oid			database;		/* 0 until its first worker came */
	slock_t		mutex;			/* of all that follows */
	uint32		present;
	Published	announced;
} DatabaseSlot;

/*
 * eventstore.databases: which databases have workers.  An administrator lists
 * those whose projections are to run and whose listeners are to be woken by
 * themselves; each takes processes from max_worker_processes.
 */
static char *databases = NULL;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static DatabaseSlot *slots = NULL;	/* one for each name of the list */
static int	slot_count = 0;
static pg_atomic_uint64 *marks = NULL;	/* of who waits; see marks_of */

static DatabaseSlot *joined = NULL; /* a worker's own */
static int	place = -1;			/* its bit there */

/*
 * The names of eventstore.databases, each once, in the present memory context.
 */
List *
worker_slot_databases(void)
{
	List	   *names;
	List	   *unique = NIL;
	ListCell   *lc;

	if (databases == NULL ||
		!SplitIdentifierString(pstrdup(databases), ',', &names))
		return NIL;
	foreach(lc, names)
	{
		ListCell   *other;
		bool		again = false;

		foreach(other, unique)
			again = again || strcmp(lfirst(other), lfirst(lc)) == 0;
		if (!again)
			unique = lappend(unique, lfirst(lc));
	}
	return unique;
}

static bool
check_databases(char **value, void **extra, GucSource source)
{
	List	   *names;

	if (*value == NULL || SplitIdentifierString(pstrdup(*value), ',', &names))
		return true;
	GUC_check_errdetail("It is not a list of names: \"%s\".", *value);
	GUC_check_errhint("Put commas between the names, and double quotes around those with upper case or special characters.");
	return false;
}

/* How many words of 64 bits have one for each process of the server. */
static int
mark_words(void)
{
	return (MaxBackends + 63) / 64;
}

/* The words of a slot. */
static pg_atomic_uint64 *
marks_of(DatabaseSlot *slot)
{
	return marks + (slot - slots) * mark_words();
}

static Size
marks_size(void)
{
	return mul_size(mul_size(slot_count, mark_words()),
					sizeof(pg_atomic_uint64));
}

static void
request_memory(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(mul_size(slot_count, sizeof(DatabaseSlot)));
	RequestAddinShmemSpace(marks_size());
}

/* At the start of the server, and again after a crash of one of its processes. */
static void
make_slots(void)
{
	bool		found;
	int			i;
	int			j;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("eventstore",
							mul_size(slot_count, sizeof(DatabaseSlot)),
							&found);
	for (i = 0; i < slot_count && !found; i++)
	{
		memset(&slots[i], 0, sizeof(DatabaseSlot));
		pg_atomic_init_u64(&slots[i].ends, 0);
		pg_atomic_init_u32(&slots[i].waiting, 0);
		pg_atomic_init_u32(&slots[i].sending, 0);
		for (j = 0; j < SLOT_WORKERS; j++)
			pg_atomic_init_u64(&slots[i].working[j], 0);
		SpinLockInit(&slots[i].mutex);
	}
	marks = ShmemInitStruct("eventstore marks", marks_size(), &found);
	for (i = 0; i < slot_count * mark_words() && !found; i++)
		pg_atomic_init_u64(&marks[i], 0);
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Defines eventstore.databases and asks for the memory; only while the server
 * loads its libraries.
 */
void
wakeup_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomStringVariable("eventstore.databases",
							   "Databases that have workers.",
							   "A list of names. Each takes eventstore.workers processes.",
							   &databases, "", PGC_POSTMASTER, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
	slot_count = list_length(worker_slot_databases());
	if (slot_count == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_slots;
}

/*
 * The slot of this database, NULL if there is none yet.  It stays the same: a
 * database is neither dropped nor renamed while somebody is connected.
 */
static DatabaseSlot *
my_slot(void)
{
	static DatabaseSlot *mine = NULL;
	int			i;

	for (i = 0; mine == NULL && slots != NULL && i < slot_count; i++)
	{
		if (slots[i].database == MyDatabaseId)
			mine = &slots[i];
	}
	return mine;
}

/* Takes the marks of a word, and wakes the processes that they are of. */
static void
wake_marked(pg_atomic_uint64 *word, int first)
{
	uint64		marked;
	int			i;

	if (pg_atomic_read_u64(word) == 0)
		return;
	marked = pg_atomic_exchange_u64(word, 0);
	for (i = 0; marked != 0; i++, marked >>= 1)
	{
		if ((marked & 1) != 0)
			SetLatch(&ProcGlobal->allProcs[first + i].procLatch);
	}
}

/*
 * An appender's transaction is over: wakes those who wait.  Must not fail, as
 * the transaction may have been committed.
 */
void
wakeup_send(void)
{
	DatabaseSlot *slot = my_slot();
	int			i;

	if (slot == NULL)
		return;
	pg_atomic_fetch_add_u64(&slot->ends, 1);
	if (pg_atomic_read_u32(&slot->waiting) == 0)
		return;
	(void) pg_atomic_exchange_u32(&slot->waiting, 0);
	for (i = 0; i < mark_words(); i++)
		wake_marked(&marks_of(slot)[i], i * 64);
}

/* Has a worker been in one transaction for long? */
static bool
works_long(DatabaseSlot *slot, int worker)
{
	TimestampTz since = pg_atomic_read_u64(&slot->working[worker]);

	return since != 0 &&
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), LONG_WORK);
}

/*
 * Is there a worker of this database that sends notifications, and soon?
 */
bool
worker_slot_notifies(void)
{
	DatabaseSlot *slot = my_slot();
	uint32		sending = slot ? pg_atomic_read_u32(&slot->sending) : 0;
	int			i;

	for (i = 0; sending != 0; i++, sending >>= 1)
	{
		if ((sending & 1) != 0 && !works_long(slot, i))
			return true;
	}
	return false;
}

/* A worker takes its bits away when its process ends. */
static void
leave(int code, Datum arg)
{
	uint32		bit = UINT32_C(1) << place;

	pg_atomic_fetch_and_u32(&joined->sending, ~bit);
	SpinLockAcquire(&joined->mutex);
	joined->present &= ~bit;
	pg_atomic_write_u64(&joined->working[place], 0);
	SpinLockRelease(&joined->mutex);
	joined = NULL;
}

static void
take_place(DatabaseSlot *slot)
{
	SpinLockAcquire(&slot->mutex);
	for (place = 0; place < SLOT_WORKERS; place++)
	{
		if ((slot->present & (UINT32_C(1) << place)) == 0)
			break;
	}
	if (place < SLOT_WORKERS)
	{
		slot->present |= UINT32_C(1) << place;
		slot->database = MyDatabaseId;
		joined = slot;
	}
	SpinLockRelease(&slot->mutex);
}

/*
 * Makes this process a worker of its database, whose name is given.  False if
 * there is no place: it can work, but nobody will wake it.
 */
bool
worker_slot_join(const char *database)
{
	ListCell   *lc;
	int			i = 0;

	if (slots == NULL)
		return false;
	foreach(lc, worker_slot_databases())
	{
		if (strcmp(lfirst(lc), database) == 0)
			break;
		i++;
	}
	if (i < slot_count)
		take_place(&slots[i]);
	if (joined != NULL)
		before_shmem_exit(leave, (Datum) 0);
	return joined != NULL;
}

/* Are those who wait woken, in this database? */
bool
wakeup_is_possible(void)
{
	return my_slot() != NULL;
}

/* How many appenders' transactions have come to their end. */
uint64
wakeup_count(void)
{
	DatabaseSlot *slot = my_slot();

	return slot == NULL ? 0 : pg_atomic_read_u64(&slot->ends);
}

/* Says whether appenders may leave notifications to this worker. */
void
worker_slot_set_notifying(bool sending)
{
	uint32		bit;

	if (joined == NULL)
		return;
	bit = UINT32_C(1) << place;
	if (((pg_atomic_read_u32(&joined->sending) & bit) != 0) == sending)
		return;
	if (sending)
		pg_atomic_fetch_or_u32(&joined->sending, bit);
	else
		pg_atomic_fetch_and_u32(&joined->sending, ~bit);
}

/* Says that this worker starts a transaction, or has ended it. */
void
worker_slot_set_working(bool working)
{
	if (joined != NULL)
		pg_atomic_write_u64(&joined->working[place],
							working ? GetCurrentTimestamp() : 0);
}

/* The word of this process's mark, and its bit there. */
static pg_atomic_uint64 *
my_mark(DatabaseSlot *slot, uint64 *bit)
{
	int			number = MyProc - ProcGlobal->allProcs;

	*bit = UINT64_C(1) << (number % 64);
	return &marks_of(slot)[number / 64];
}

/*
 * From now on this process's latch is set when a transaction ends.  False if
 * one has ended since the count was read.
 */
bool
wakeup_begin_wait(uint64 ends)
{
	DatabaseSlot *slot = my_slot();
	pg_atomic_uint64 *word;
	uint64		bit;

	if (slot == NULL)
		return true;
	word = my_mark(slot, &bit);
	pg_atomic_fetch_or_u64(word, bit);
	(void) pg_atomic_exchange_u32(&slot->waiting, 1);
	return pg_atomic_read_u64(&slot->ends) == ends;
}

void
wakeup_end_wait(void)
{
	DatabaseSlot *slot = my_slot();
	pg_atomic_uint64 *word;
	uint64		bit;

	if (slot == NULL)
		return;
	word = my_mark(slot, &bit);
	pg_atomic_fetch_and_u64(word, ~bit);
}

/*
 * What was announced of this log; false if the memory does not know, or if
 * this process is no worker.
 */
bool
worker_slot_get_published(Oid log, Published *announced)
{
	if (joined == NULL)
		return false;
	SpinLockAcquire(&joined->mutex);
	*announced = joined->announced;
	SpinLockRelease(&joined->mutex);
	return announced->log == log;
}

void
worker_slot_set_published(const Published *announced)
{
	if (joined == NULL)
		return;
	SpinLockAcquire(&joined->mutex);
	joined->announced = *announced;
	SpinLockRelease(&joined->mutex);
}

/* Sets how long the next announcement must wait, at least. */
void
worker_slot_set_pause(double pause)
{
	if (joined == NULL)
		return;
	SpinLockAcquire(&joined->mutex);
	joined->announced.pause = pause;
	SpinLockRelease(&joined->mutex);
}
