/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *		Waking the processes that wait for appenders.
 *
 * Workers and long polls of consumers wait for transactions of appenders to
 * end, committed or not.  Each database that has a slot (worker_slot.c) has a
 * count of the transactions that ended, one mark for each process of the
 * server that waits, and a flag that says whether any process waits.
 *
 *		appender						process that waits
 *		1. its transaction is over		1. reads the count
 *		2. adds 1 to the count			2. does all there is to do
 *		3. if the flag is set, takes	3. sets its mark, and then the flag
 *		   the flag and all marks, and	4. if the count has changed, goes back
 *		   sets the latches of the		   to 1
 *		   marked processes				5. waits for its latch
 *
 * Steps 2 of the appender and 3 of the other are atomic operations with full
 * memory barriers.  Either the appender sees the flag and the mark, or the
 * other sees the new count.  A process that works or pauses has no mark.  So a
 * stream of commits costs an addition each, and a signal only now and then.
 *
 * The latches are those of the PGPROCs, which never move.  A latch that is set
 * after its process has ended wakes another process unnecessarily.
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

#include "notify/notify.h"

/* Of one database. */
typedef struct Wakeup
{
	pg_atomic_uint64 count;		/* transactions of appenders that ended */
	pg_atomic_uint32 waiting;	/* the flag: does any process wait? */
} Wakeup;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static Wakeup *wakeups = NULL;	/* by number of the slot */
static pg_atomic_uint64 *marks = NULL;	/* see marks_of */

/* How many words of 64 bits have one for each process of the server. */
static int
mark_words(void)
{
	return (MaxBackends + 63) / 64;
}

/* The words of a slot. */
static pg_atomic_uint64 *
marks_of(int slot)
{
	return marks + slot * mark_words();
}

static Size
wakeups_size(void)
{
	return mul_size(worker_slot_count(), sizeof(Wakeup));
}

static Size
marks_size(void)
{
	return mul_size(mul_size(worker_slot_count(), mark_words()),
					sizeof(pg_atomic_uint64));
}

static void
request_wakeups(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(wakeups_size());
	RequestAddinShmemSpace(marks_size());
}

/* At the start of the server, and again after a crash of one of its processes. */
static void
make_wakeups(void)
{
	bool		found;
	int			i;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	wakeups = ShmemInitStruct("eventstore wake-ups", wakeups_size(), &found);
	for (i = 0; i < worker_slot_count() && !found; i++)
	{
		pg_atomic_init_u64(&wakeups[i].count, 0);
		pg_atomic_init_u32(&wakeups[i].waiting, 0);
	}
	marks = ShmemInitStruct("eventstore marks", marks_size(), &found);
	for (i = 0; i < worker_slot_count() * mark_words() && !found; i++)
		pg_atomic_init_u64(&marks[i], 0);
	LWLockRelease(AddinShmemInitLock);
}

void
wakeup_init(void)
{
	if (worker_slot_count() == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_wakeups;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_wakeups;
}

bool
wakeup_is_possible(void)
{
	return worker_slot_number() >= 0;
}

uint64
wakeup_count(void)
{
	int			slot = worker_slot_number();

	return slot < 0 ? 0 : pg_atomic_read_u64(&wakeups[slot].count);
}

/* Takes the marks of a word, and wakes the processes that set them. */
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

void
wakeup_send(void)
{
	int			slot = worker_slot_number();
	int			i;

	if (slot < 0)
		return;
	pg_atomic_fetch_add_u64(&wakeups[slot].count, 1);
	if (pg_atomic_read_u32(&wakeups[slot].waiting) == 0)
		return;
	(void) pg_atomic_exchange_u32(&wakeups[slot].waiting, 0);
	for (i = 0; i < mark_words(); i++)
		wake_marked(&marks_of(slot)[i], i * 64);
}

/* The word of this process's mark, and its bit there. */
static pg_atomic_uint64 *
mark_of_process(int slot, uint64 *bit)
{
	int			number = MyProc - ProcGlobal->allProcs;

	*bit = UINT64_C(1) << (number % 64);
	return &marks_of(slot)[number / 64];
}

bool
wakeup_begin_wait(uint64 count)
{
	int			slot = worker_slot_number();
	pg_atomic_uint64 *word;
	uint64		bit;

	if (slot < 0)
		return true;
	word = mark_of_process(slot, &bit);
	pg_atomic_fetch_or_u64(word, bit);
	(void) pg_atomic_exchange_u32(&wakeups[slot].waiting, 1);
	return pg_atomic_read_u64(&wakeups[slot].count) == count;
}

void
wakeup_end_wait(void)
{
	int			slot = worker_slot_number();
	pg_atomic_uint64 *word;
	uint64		bit;

	if (slot < 0)
		return;
	word = mark_of_process(slot, &bit);
	pg_atomic_fetch_and_u64(word, ~bit);
}
