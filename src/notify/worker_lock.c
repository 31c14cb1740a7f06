/*-------------------------------------------------------------------------
 *
 * worker_lock.c
 *		The locks by which processes see workers where the extension has no shared
 *		memory.  doc/internals/autostart.md has the order in which they are taken,
 *		looked at and released.
 *
 *	- server, of a database: the worker that serves it;
 *	- promise, of a database and a second of the clock: appends of that second may
 *	  leave their notifications to the worker that has it.  A worker has those of
 *	  this second and the next, and renews them when it begins a transaction;
 *	- place, of the cluster: there are as many as workers may be started without a
 *	  user;
 *	- token, of a database or a place, and a second: a session is starting a worker.
 *
 * They are locks in a class of the advisory locks that users cannot reach, held for
 * the session.  No process waits for one.  A look is a look-up in the lock table.
 *
 * Those of a worker belong to the lock method of ordinary locks, as a handler may
 * release all advisory locks of its session.  An error releases them with the
 * transaction; so the lock table is asked each time, and the worker takes them again.
 * At the end of the process they would stay, and are released before.
 *
 * The token belongs to the method of advisory locks: the server releases it when the
 * session ends.  A session has it longer than its second, until its next transaction
 * ends; by then no process looks at it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "notify/notify.h"

/* The class; log_lock.c and rebuild.c have the other ones. */
#define WORKER_LOCK_CLASS	6

typedef enum WorkerLock
{
	WORKER_LOCK_SERVER = 1,
	WORKER_LOCK_PROMISE,
	WORKER_LOCK_PLACE,
	WORKER_LOCK_TOKEN
} WorkerLock;

/* What a token is of, if it is of no place. */
#define OF_DATABASE		(-1)

/* This worker promises to notify; the first of the two seconds that it has. */
static bool promising = false;
static uint32 promised = 0;

/* The tokens of this session: that of the database, and one of a place. */
static LOCKTAG tokens[2];
static int	token_count = 0;
static uint32 token_second = 0;

static LOCKTAG
worker_lock_tag(Oid database, WorkerLock lock, int place, uint32 second)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, database, (place + 1) << 8 | lock, second,
						 WORKER_LOCK_CLASS);
	if (lock != WORKER_LOCK_TOKEN)
		tag.locktag_lockmethodid = DEFAULT_LOCKMETHOD;
	return tag;
}

static LOCKTAG
server_tag(void)
{
	return worker_lock_tag(MyDatabaseId, WORKER_LOCK_SERVER, OF_DATABASE, 0);
}

static LOCKTAG
promise_tag(uint32 second)
{
	return worker_lock_tag(MyDatabaseId, WORKER_LOCK_PROMISE, OF_DATABASE,
						   second);
}

static LOCKTAG
place_tag(int place)
{
	return worker_lock_tag(InvalidOid, WORKER_LOCK_PLACE, place, 0);
}

static uint32
second_of_clock(void)
{
	return (uint32) (GetCurrentTimestamp() / USECS_PER_SEC);
}

/* Returns true if a process has the lock. */
static bool
is_taken(const LOCKTAG *tag)
{
	return LockWaiterCount(tag) > 0;
}

/* Takes a lock if it is free, and if the lock table has room for it. */
static bool
try_worker_lock(const LOCKTAG *tag)
{
	return compat_lock_is_held(tag, ExclusiveLock) ||
		compat_try_session_lock(tag, ExclusiveLock);
}

static void
release_worker_lock(const LOCKTAG *tag)
{
	if (compat_lock_is_held(tag, ExclusiveLock))
		(void) LockRelease(tag, ExclusiveLock, true);
}

bool
worker_lock_is_served(void)
{
	LOCKTAG		tag = server_tag();

	return is_taken(&tag);
}

bool
worker_lock_is_promised(void)
{
	LOCKTAG		tag = promise_tag(second_of_clock());

	return is_taken(&tag);
}

static void
release_promises(void)
{
	LOCKTAG		first = promise_tag(promised);
	LOCKTAG		second = promise_tag(promised + 1);

	release_worker_lock(&first);
	release_worker_lock(&second);
}

static void
release_places(void)
{
	int			place;

	for (place = 0; place < AUTOSTART_MAX_WORKERS; place++)
	{
		LOCKTAG		tag = place_tag(place);

		release_worker_lock(&tag);
	}
}

void
worker_lock_release_all(void)
{
	LOCKTAG		server = server_tag();

	worker_lock_set_promising(false);
	release_worker_lock(&server);
	release_places();
}

/* The process of a worker ends. */
static void
release_at_exit(int code, Datum arg)
{
	worker_lock_release_all();
}

bool
worker_lock_serve(void)
{
	static bool registered = false;
	LOCKTAG		tag = server_tag();

	if (!registered)
		before_shmem_exit(release_at_exit, (Datum) 0);
	registered = true;
	return try_worker_lock(&tag);
}

bool
worker_lock_serves(void)
{
	LOCKTAG		tag = server_tag();

	return compat_lock_is_held(&tag, ExclusiveLock);
}

/*
 * The new seconds are taken before the old ones are released, so that there is no
 * moment without a promise.
 */
void
worker_lock_renew_promise(void)
{
	uint32		now = second_of_clock();
	LOCKTAG		this = promise_tag(now);
	LOCKTAG		next = promise_tag(now + 1);
	uint32		second;

	if (!promising)
		return;
	if (now == promised && compat_lock_is_held(&next, ExclusiveLock))
		return;
	(void) try_worker_lock(&this);
	(void) try_worker_lock(&next);
	for (second = promised; second <= promised + 1; second++)
	{
		LOCKTAG		old = promise_tag(second);

		if (second != now && second != now + 1)
			release_worker_lock(&old);
	}
	promised = now;
}

void
worker_lock_set_promising(bool value)
{
	if (promising == value)
		return;
	promising = value;
	if (promising)
		worker_lock_renew_promise();
	else
		release_promises();
}

/* Returns true if this worker has a place. */
static bool
has_place(void)
{
	int			place;

	for (place = 0; place < AUTOSTART_MAX_WORKERS; place++)
	{
		LOCKTAG		tag = place_tag(place);

		if (compat_lock_is_held(&tag, ExclusiveLock))
			return true;
	}
	return false;
}

bool
worker_lock_take_place(int places)
{
	int			place;

	if (has_place())
		return true;
	for (place = 0; place < places; place++)
	{
		LOCKTAG		tag = place_tag(place);

		if (try_worker_lock(&tag))
			return true;
	}
	return false;
}

/*
 * Counts all places, as there may be more workers than places since the setting was
 * changed.
 */
bool
worker_lock_place_is_free(int places)
{
	int			taken = 0;
	int			place;

	for (place = 0; place < AUTOSTART_MAX_WORKERS && taken < places; place++)
	{
		LOCKTAG		tag = place_tag(place);

		if (is_taken(&tag))
			taken++;
	}
	return taken < places;
}

/* Takes the token of a place, or of the database. */
static bool
take_token(int place)
{
	LOCKTAG		tag = worker_lock_tag(place == OF_DATABASE ? MyDatabaseId :
									  InvalidOid, WORKER_LOCK_TOKEN, place,
									  token_second);

	if (!try_worker_lock(&tag))
		return false;
	tokens[token_count++] = tag;
	return true;
}

void
worker_lock_end_tokens(void)
{
	if (token_count == 0 || token_second == second_of_clock())
		return;
	while (token_count > 0)
		release_worker_lock(&tokens[--token_count]);
}

/*
 * The tokens that this session has already are those of a worker that it has started in
 * this second.
 */
TokenResult
worker_lock_take_tokens(int places)
{
	int			place;

	worker_lock_end_tokens();
	if (token_count > 0)
		return TOKEN_OF_ANOTHER;
	token_second = second_of_clock();
	if (!worker_lock_place_is_free(places))
		return TOKEN_NO_PLACE;
	if (!take_token(OF_DATABASE))
		return TOKEN_OF_ANOTHER;
	for (place = 0; place < places; place++)
	{
		LOCKTAG		tag = place_tag(place);

		if (!is_taken(&tag) && take_token(place))
			return TOKEN_TAKEN;
	}
	return TOKEN_NO_PLACE;
}
