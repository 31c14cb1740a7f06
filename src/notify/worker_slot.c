/*-------------------------------------------------------------------------
 *
 * worker_slot.c
 *		The state of the workers of each database, in shared memory.
 *
 * There is shared memory only if shared_preload_libraries names eventstore:
 * one slot for each database of eventstore.databases.  A slot belongs to the
 * database whose worker joined it last.  Where a database has no slot, a worker is
 * seen by its locks (worker_lock.c), and one worker alone notifies.  It remembers
 * by itself how far it has notified.
 *
 * Each worker of a database takes a place in its slot:
 *
 *	- present says which places are taken;
 *	- notifying says which workers notify listeners.  A worker sets its bit
 *	  after its first successful look for what is new, and clears it when it
 *	  fails or ends.  An appender whose eventstore.notify is auto leaves its
 *	  notifications to such a worker;
 *	- working says since when a worker has been in its present transaction.
 *	  It is unknown when a worker in a long transaction, with a slow handler
 *	  perhaps, will look again.  Appenders do not rely on it.
 *
 * The slot also holds how far listeners have been notified, so that the table
 * es_notified need not be written each time.  A restart of the server loses
 * this; some events are then notified again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "notify/notify.h"

/* Workers of one database, also those started by hand: bits of a word. */
#define SLOT_WORKERS	32

/* Milliseconds in one transaction after which a worker is not relied on. */
#define LONG_WORK		1000

typedef struct WorkerSlot
{
	pg_atomic_uint32 notifying;
	pg_atomic_uint64 working[SLOT_WORKERS]; /* since when; 0: it is not */
	Oid			database;		/* 0 until its first worker came */
	slock_t		mutex;			/* protects what follows */
	uint32		present;
	Notified	notified;
} WorkerSlot;

/*
 * eventstore.databases: which databases have workers.  An administrator lists
 * the databases whose projections are to run, and whose listeners are to be
 * notified, without es_start_worker(); each takes processes from
 * max_worker_processes.
 */
static char *databases = NULL;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static WorkerSlot *slots = NULL;	/* one for each name of the list */
static int	slot_count = 0;

static WorkerSlot *joined = NULL;	/* the slot of this worker */
static int	place = -1;			/* its place there */

/* This worker has told appenders that it notifies, at some time. */
static bool has_notified = false;

/* How far listeners have been notified by this worker, if it serves without a slot. */
static Notified served = {0};

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

static Size
worker_slots_size(void)
{
	return mul_size(slot_count, sizeof(WorkerSlot));
}

static void
request_worker_slots(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(worker_slots_size());
}

static void
init_worker_slot(WorkerSlot *slot)
{
	int			i;

	memset(slot, 0, sizeof(WorkerSlot));
	pg_atomic_init_u32(&slot->notifying, 0);
	for (i = 0; i < SLOT_WORKERS; i++)
		pg_atomic_init_u64(&slot->working[i], 0);
	SpinLockInit(&slot->mutex);
}

/* At the start of the server, and again after a crash of one of its processes. */
static void
make_worker_slots(void)
{
	bool		found;
	int			i;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("eventstore workers", worker_slots_size(), &found);
	for (i = 0; i < slot_count && !found; i++)
		init_worker_slot(&slots[i]);
	LWLockRelease(AddinShmemInitLock);
}

void
worker_slot_init(void)
{
	/* known without preloading, too, so that its line is no invalid parameter */
	DefineCustomStringVariable("eventstore.databases",
							   "Databases that have workers.",
							   "A list of names. Each takes eventstore.workers processes.",
							   &databases, "",
							   process_shared_preload_libraries_in_progress ?
							   PGC_POSTMASTER : PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	slot_count = list_length(worker_slot_databases());
	if (slot_count == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_worker_slots;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_worker_slots;
}

int
worker_slot_count(void)
{
	return slot_count;
}

/*
 * The number is remembered, but holds only as long as the slot belongs to this
 * database: the name in the list may have gone to another one.
 */
int
worker_slot_number(void)
{
	static int	number = -1;
	int			i;

	if (slots == NULL)
		return -1;
	if (number >= 0 && slots[number].database == MyDatabaseId)
		return number;
	number = -1;
	for (i = 0; i < slot_count && number < 0; i++)
	{
		if (slots[i].database == MyDatabaseId)
			number = i;
	}
	return number;
}

/* Returns true if a worker has been in one transaction for long. */
static bool
works_long(WorkerSlot *slot, int worker)
{
	TimestampTz since = pg_atomic_read_u64(&slot->working[worker]);

	return since != 0 &&
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), LONG_WORK);
}

bool
worker_slot_notifies(void)
{
	int			number = worker_slot_number();
	WorkerSlot *slot = number < 0 ? NULL : &slots[number];
	uint32		notifying;
	int			i;

	if (slot == NULL)
		return worker_lock_is_promised();
	notifying = pg_atomic_read_u32(&slot->notifying);
	for (i = 0; notifying != 0; i++, notifying >>= 1)
	{
		if ((notifying & 1) != 0 && !works_long(slot, i))
			return true;
	}
	return false;
}

bool
worker_slot_may_owe(void)
{
	int			number = worker_slot_number();

	if (has_notified)
		return true;
	return number < 0 ? worker_lock_is_promised() :
		pg_atomic_read_u32(&slots[number].notifying) != 0;
}

/* The process of a worker ends. */
static void
leave_worker_slot(int code, Datum arg)
{
	uint32		bit = UINT32_C(1) << place;

	pg_atomic_fetch_and_u32(&joined->notifying, ~bit);
	SpinLockAcquire(&joined->mutex);
	joined->present &= ~bit;
	pg_atomic_write_u64(&joined->working[place], 0);
	SpinLockRelease(&joined->mutex);
	joined = NULL;
}

/* Takes a free place of the slot, if there is one. */
static void
take_worker_place(WorkerSlot *slot)
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

/* The number of the slot that a name of the list has; -1 if it is not there. */
static int
find_listed(const char *database)
{
	ListCell   *lc;
	int			i = 0;

	foreach(lc, worker_slot_databases())
	{
		if (strcmp(lfirst(lc), database) == 0)
			return i;
		i++;
	}
	return -1;
}

bool
worker_slot_is_listed(const char *database)
{
	return slots != NULL && find_listed(database) >= 0;
}

bool
worker_slot_join(const char *database)
{
	int			i = slots == NULL ? -1 : find_listed(database);

	if (i >= 0 && i < slot_count)
		take_worker_place(&slots[i]);
	if (joined != NULL)
		before_shmem_exit(leave_worker_slot, (Datum) 0);
	return joined != NULL;
}

void
worker_slot_set_notifying(bool notifying)
{
	uint32		bit;

	has_notified |= notifying;
	if (joined == NULL)
	{
		worker_lock_set_promising(notifying && worker_lock_serves());
		return;
	}
	bit = UINT32_C(1) << place;
	if (((pg_atomic_read_u32(&joined->notifying) & bit) != 0) == notifying)
		return;
	if (notifying)
		pg_atomic_fetch_or_u32(&joined->notifying, bit);
	else
		pg_atomic_fetch_and_u32(&joined->notifying, ~bit);
}

void
worker_slot_set_working(bool working)
{
	if (joined == NULL)
		worker_lock_renew_promise();
	else
		pg_atomic_write_u64(&joined->working[place],
							working ? GetCurrentTimestamp() : 0);
}

/* Returns true if it is of this log, in its present file. */
static bool
is_notified_of(const Notified *notified, Oid log)
{
	return notified->log == log && notified->file == log_file(log);
}

bool
worker_slot_get_notified(Oid log, Notified *notified)
{
	if (joined == NULL)
	{
		*notified = served;
		return is_notified_of(&served, log) && worker_lock_serves();
	}
	SpinLockAcquire(&joined->mutex);
	*notified = joined->notified;
	SpinLockRelease(&joined->mutex);
	return is_notified_of(notified, log);
}

void
worker_slot_set_notified(const Notified *notified)
{
	served = *notified;
	if (joined == NULL)
		return;
	SpinLockAcquire(&joined->mutex);
	joined->notified = *notified;
	SpinLockRelease(&joined->mutex);
}

bool
worker_slot_serve(void)
{
	if (joined != NULL)
		return false;
	if (worker_lock_serves())
		return true;
	if (!worker_lock_serve())
		return false;
	served.log = InvalidOid;	/* another may have notified meanwhile */
	return true;
}

void
worker_slot_go_on_serving(void)
{
	if (joined == NULL && !worker_lock_serve())
		worker_lock_set_promising(false);
}

int64
worker_slot_last_served(Oid log)
{
	return is_notified_of(&served, log) ? served.position : -1;
}

void
worker_slot_set_pause(double pause)
{
	served.pause = pause;
	if (joined == NULL)
		return;
	SpinLockAcquire(&joined->mutex);
	joined->notified.pause = pause;
	SpinLockRelease(&joined->mutex);
}
