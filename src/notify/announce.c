/*-------------------------------------------------------------------------
 *
 * announce.c
 *		Notifications by a worker.
 *
 * A worker notifies listeners of all events between the last notification and the
 * horizon, once for each channel, however many transactions appended them.  The
 * server's NOTIFY makes transactions commit one after another.  In this way only
 * workers do so, and appenders do not.
 *
 *	1. Take the horizon of the active snapshot.  The events up to it are the
 *	   same under every later snapshot.
 *	2. Without a lock, see whether there is anything to do, and not too soon.
 *	3. Try to lock es_notified.  If another worker has it, come again later.
 *	4. See again whether there is anything to do.
 *	5. Notify, and update es_notified if that is due.
 *	6. At the commit, while the lock is held, store in shared memory how far
 *	   listeners have been notified (worker_slot.c).
 *
 * Shared memory has the position up to which listeners were notified.  The table
 * es_notified has it as it was some seconds ago at most.  A row that is updated a
 * hundred times a second would fill the table with dead versions as soon as a long
 * transaction keeps VACUUM from removing them.  A worker that starts from the row
 * notifies of some events again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "notify/notify.h"

/*
 * How much longer than the work a pause is, but for what it costs to notify few, and its
 * limit; in milliseconds.
 */
#define PAUSE_FACTOR	200
#define COST_OF_FEW		0.06
#define LONGEST_PAUSE	1000

/* How old, in milliseconds, es_notified is when it is written again. */
#define STORE_INTERVAL	1000

/*
 * eventstore.notify_interval: milliseconds from one notification of a worker
 * to the next.  An administrator makes it longer if there are many listeners,
 * which are expensive to wake, and shorter if they must be fast.
 */
int			notify_interval = 10;

/* How far this transaction notifies listeners; log 0: it does not. */
static Notified announced = {0};

/*
 * Reads from es_notified how far listeners of a log have been notified.  If it
 * has no row yet, no worker has been there, and nothing below the horizon was
 * left to one.  But a worker that is there now may have been left something:
 * the extension may have been dropped and created again, for which it had to wait.
 */
static void
load_notified(Notified *notified, Oid log, int64 horizon)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(worker_slot_may_owe() ? 0 : horizon);
	bool		isnull;

	if (own_sql_run(log, "SELECT position FROM @extschema@.es_notified",
					0, NULL, NULL, NULL) == 0)
		own_sql_run(log,
					"INSERT INTO @extschema@.es_notified (position) VALUES ($1) RETURNING position",
					1, &type, &value, NULL);
	memset(notified, 0, sizeof(Notified));
	notified->log = log;
	notified->file = log_file(log);
	notified->position = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
													 SPI_tuptable->tupdesc,
													 1, &isnull));
	notified->stored = notified->position;
}

/* Returns true if it is time to update es_notified. */
static bool
is_notified_store_due(const Notified *notified, TimestampTz now)
{
	return notified->stored < notified->position &&
		TimestampDifferenceExceeds(notified->stored_at, now, STORE_INTERVAL);
}

static void
store_notified(Notified *notified, TimestampTz now)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(notified->position);

	own_sql_run(notified->log,
				"UPDATE @extschema@.es_notified SET position = $1",
				1, &type, &value, NULL);
	notified->stored = notified->position;
	notified->stored_at = now;
}

/*
 * Notifies listeners of the events above a position, up to the horizon.
 */
static void
announce_events(Oid log, int64 after, int64 horizon)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(after), Int64GetDatum(horizon)};
	char		channel[NAMEDATALEN];
	uint64		count;
	uint64		i;

	notify_position(NOTIFY_CHANNEL, horizon);
	count = own_sql_run(log,
						"SELECT @extschema@.es_category(stream), max(position)"
						" FROM @extschema@.es_events"
						" WHERE position > $1 AND position <= $2 GROUP BY 1",
						2, types, values, NULL);
	for (i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		text	   *category = DatumGetTextPP(SPI_getbinval(tuple, desc, 1,
															&isnull));

		notify_write_channel(VARDATA_ANY(category),
							 VARSIZE_ANY_EXHDR(category), channel);
		notify_position(channel,
						DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Step 5 of the header. */
static AnnounceResult
announce_new(Oid log, int64 horizon, TimestampTz now)
{
	AnnounceResult result = ANNOUNCE_NOTHING_NEW;
	Notified	notified;

	SPI_connect();
	if (!worker_slot_get_notified(log, &notified))
		load_notified(&notified, log, horizon);
	if (notified.position < horizon)
	{
		announce_events(log, notified.position, horizon);
		notified.position = horizon;
		notified.at = now;
		result = ANNOUNCE_DONE;
	}
	if (is_notified_store_due(&notified, now))
		store_notified(&notified, now);
	SPI_finish();
	announced = notified;
	return result;
}

/*
 * Steps 2 and 4 of the header.  Returns ANNOUNCE_DONE to go on.
 */
static AnnounceResult
announce_is_due(Oid log, int64 horizon, TimestampTz now)
{
	Notified	notified;

	if (!worker_slot_get_notified(log, &notified))
		return ANNOUNCE_DONE;
	if (notified.position < horizon &&
		!TimestampDifferenceExceeds(notified.at, now,
									Max(notify_interval, (int) notified.pause)))
		return ANNOUNCE_LATER;
	return notified.position < horizon ||
		is_notified_store_due(&notified, now) ?
		ANNOUNCE_DONE : ANNOUNCE_NOTHING_NEW;
}

AnnounceResult
announce_run(Oid log)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		horizon = horizon_find(log, GetActiveSnapshot());
	AnnounceResult result = announce_is_due(log, horizon, now);

	if (result == ANNOUNCE_DONE)
		result = own_table_try_lock(log, "es_notified") ?
			announce_is_due(log, horizon, now) : ANNOUNCE_LATER;
	if (result == ANNOUNCE_DONE)
		result = announce_new(log, horizon, now);
	return result;
}

bool
announce_is_behind(Oid log, int64 horizon)
{
	return notify_is_by_worker() && worker_slot_last_served(log) < horizon;
}

/*
 * The cost grows with the number of sessions that listen, whatever they listen
 * to, as the server wakes each of them.  What these then do costs several times
 * as much.  So the pause is longer than notify_interval where they are many.
 */
void
announce_set_cost(double milliseconds)
{
	double		cost = Max(milliseconds - COST_OF_FEW, 0);

	worker_slot_set_pause(Min(cost * PAUSE_FACTOR, LONGEST_PAUSE));
}

/* Step 6 of the header; nothing here may fail. */
static void
announce_at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (event == XACT_EVENT_COMMIT && OidIsValid(announced.log))
		worker_slot_set_notified(&announced);
	announced.log = InvalidOid;
}

void
announce_init(void)
{
	DefineCustomIntVariable("eventstore.notify_interval",
							"Time between two notifications by a worker.",
							NULL, &notify_interval, 10, 1, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	RegisterXactCallback(announce_at_transaction_end, NULL);
}
