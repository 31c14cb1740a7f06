/*-------------------------------------------------------------------------
 *
 * poll.c
 *		es_poll(): looks for something to deliver, and waits for it.
 *
 * While there is time left, a look is a subtransaction, and locks rows only when
 * there seems to be something.  A look that finds nothing is rolled back, and
 * its locks with it, so that none is held during the sleep.  What it has found
 * out about the log is remembered here (Scanned).  The last look is made in the
 * transaction itself, and writes it to the tables.
 *
 * A subscription may have to read over many events that do not match.  A call does so
 * for a second, or for as long as it waits, and always ends before a time-out of the
 * statement.  Then it writes how far it has come, and returns nothing.
 *
 * During the sleep there is no snapshot either, where that is possible
 * (sleep.c).  The sleep ends when a transaction of an appender ends (wakeup.c),
 * when a lease expires or a parked stream is due, after a second, or by a
 * signal.  Where appenders do not wake it, it is short, and longer each time.
 *
 * A transaction that has done nothing but deliver does not wait for the disk
 * when it commits (async_commit.c).  If a crash takes it back, its token is
 * void, and its events are redelivered.  A transaction that has moved a
 * checkpoint does wait, and one whose token the next delivery could get again
 * (delivery.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"
#include "identity/identity.h"
#include "notify/notify.h"
#include "read/present.h"
#include "read/read.h"
#include "read/source.h"
#include "subscription/delivery.h"

PG_FUNCTION_INFO_V1(es_poll);

#define MAX_MAX_COUNT		1000000

/* Milliseconds for reading over events that do not match, if it does not wait longer. */
#define LEAST_READING		1000

#define LONGEST_CONSUMER	255

/* What pg_stat_activity shows of a call that waits. */
#define WAIT_EVENT		"EventstorePoll"

/* Columns of es_poll before those of the event. */
#define DELIVERY_COLUMNS	3

/*
 * Where appenders do not wake the call, its sleeps grow from the first to the
 * last, in milliseconds.
 */
#define FIRST_SLEEP		1
#define LAST_SLEEP		100

/* The longest sleep where they do, and the longest pause before it. */
#define LONGEST_SLEEP	1000
#define LONGEST_PAUSE	50

/* Arguments, in their order. */
enum
{
	ARG_SUBSCRIPTION, ARG_CONSUMER, ARG_MAX_COUNT, ARG_WAIT, ARG_AFTER_TOKEN, ARG_MAX_BYTES
};

/* Columns of es_poll before those of the event, as a tuple has them. */
typedef struct DeliveryColumns
{
	int64		token;
	int32		partition;
	int32		attempt;
} DeliveryColumns;

/* A call of es_poll. */
typedef struct Poll
{
	Delivery	delivery;
	Deadline	deadline;		/* when it gives up */
	Deadline	reading;		/* when it reads no further */
	Sleeper		sleeper;
	long		sleep;			/* the next one, where appenders do not wake */
	bool		final;			/* is the look the last one? */
	bool		found;			/* something */
	TimestampTz next;			/* when there may be something; 0: unknown */
	long		pause;			/* before it can be woken again */
	ReturnSetInfo *result;
	Presenter  *presenter;		/* of its rows */
	int			number;			/* of the last row among those of a stream */
	bool		copies_rows;	/* are rows of the log as the extension makes
								 * them? */
	HeapTupleData copy;			/* of a row; room for one */
	Size		copy_size;
	MemoryContext context;		/* of a look */
} Poll;

/* Takes the arguments. */
static void
init_poll(Poll *poll, FunctionCallInfo fcinfo)
{
	Delivery   *delivery = &poll->delivery;

	argument_not_null(fcinfo, ARG_SUBSCRIPTION, "subscription");
	argument_not_null(fcinfo, ARG_MAX_COUNT, "max_count");
	argument_not_null(fcinfo, ARG_WAIT, "wait");
	argument_not_null(fcinfo, ARG_MAX_BYTES, "max_bytes");
	memset(poll, 0, sizeof(Poll));
	delivery->max_count = argument_int32(fcinfo, ARG_MAX_COUNT, "max_count", 1,
										 MAX_MAX_COUNT);
	delivery->max_bytes = PG_GETARG_INT64(ARG_MAX_BYTES);
	argument_range("max_bytes", delivery->max_bytes, 1, PG_INT64_MAX);
	argument_interval("wait", PG_GETARG_INTERVAL_P(ARG_WAIT), true);
	delivery->log = log_relid(fcinfo->flinfo->fn_oid);
	delivery->name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_SUBSCRIPTION));
	if (!PG_ARGISNULL(ARG_CONSUMER))
	{
		delivery->consumer = text_to_cstring(PG_GETARG_TEXT_PP(ARG_CONSUMER));
		argument_name("a consumer", delivery->consumer, LONGEST_CONSUMER);
	}
	if (!PG_ARGISNULL(ARG_AFTER_TOKEN))
	{
		delivery->after_token = PG_GETARG_INT64(ARG_AFTER_TOKEN);
		argument_range("after_token", delivery->after_token, 1, PG_INT64_MAX);
	}
	poll->deadline = sleep_deadline(PG_GETARG_DATUM(ARG_WAIT));
	poll->reading = poll->deadline;
	poll->reading.milliseconds = Max(poll->reading.milliseconds, LEAST_READING);
	sleep_heed_timeouts(&poll->deadline);
	sleep_heed_timeouts(&poll->reading);
	delivery->deadline = &poll->reading;
	poll->sleep = FIRST_SLEEP;
}

/* Adds a row of a delivery: token, partition, attempt, and the event. */
static void
put_row(Poll *poll, TupleTableSlot *slot)
{
	const Partition *partition = poll->delivery.partition;
	Datum		values[DELIVERY_COLUMNS + Natts_es_recorded_event];
	bool		nulls[DELIVERY_COLUMNS + Natts_es_recorded_event] = {false};
	Datum	   *event = &values[DELIVERY_COLUMNS];
	int64		position;

	present_columns(poll->presenter, slot, event, &nulls[DELIVERY_COLUMNS]);
	position = DatumGetInt64(event[Anum_es_recorded_event_position - 1]);
	values[0] = Int64GetDatum(partition->token);
	values[1] = Int32GetDatum(partition->number);
	values[2] = Int32GetDatum(redelivery_attempt(&poll->delivery, position, &poll->number));
	tuplestore_putvalues(poll->result->setResult, poll->result->setDesc, values, nulls);
}

/* Adds it as a copy of the row, with these columns before it. */
static void
put_copy(Poll *poll, HeapTuple row, const DeliveryColumns *columns)
{
	EventRowPrefix prefix = {DELIVERY_COLUMNS, sizeof(DeliveryColumns), (const char *) columns};
	Size		size = row->t_len + EVENT_ROW_EXTRA(prefix.size);

	if (poll->copy_size < size)
	{
		poll->copy.t_data = MemoryContextAlloc(poll->context, 2 * size);
		poll->copy_size = 2 * size;
	}
	event_row_compose(row, &prefix, &poll->copy);
	tuplestore_puttuple(poll->result->setResult, &poll->copy);
}

/*
 * The same of an event that has just been read.  A row that has our columns alone is not
 * taken apart.
 */
static void
take_event(void *taker, TupleTableSlot *event)
{
	Poll	   *poll = taker;
	const Partition *partition = poll->delivery.partition;
	HeapTuple	row = TTS_IS_BUFFERTUPLE(event) ? ExecFetchSlotHeapTuple(event, false, NULL) : NULL;
	DeliveryColumns columns;

	if (row == NULL || !poll->copies_rows ||
		HeapTupleHeaderGetNatts(row->t_data) != Natts_es_events)
	{
		put_row(poll, event);
		return;
	}
	columns.token = partition->token;
	columns.partition = partition->number;
	columns.attempt = redelivery_attempt(&poll->delivery, event_row_position(row), &poll->number);
	put_copy(poll, row, &columns);
}

/* Adds the rows of events that were not taken as they were read. */
static void
put_rows(Poll *poll)
{
	Tuplestorestate *events = poll->delivery.batch.events;
	Relation	log = table_open(poll->delivery.log, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore event",
												  ALLOCSET_DEFAULT_SIZES);

	tuplestore_rescan(events);
	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		put_row(poll, slot);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
}

/* Prepares the rows of a look. */
static void
begin_rows(Poll *poll)
{
	Relation	log = table_open(poll->delivery.log, AccessShareLock);

	poll->number = 0;
	poll->presenter = present_begin(poll->delivery.log);
	poll->copies_rows = event_row_is_usual(log) &&
		poll->result->setDesc->natts == DELIVERY_COLUMNS + Natts_es_recorded_event;
	poll->copy_size = 0;
	poll->delivery.take = present_is_plain(poll->presenter) ? take_event : NULL;
	poll->delivery.taker = poll;
	table_close(log, AccessShareLock);
}

/*
 * Delivers, if there is anything.  What upcasters change is presented when all that is
 * delivered was read, as they may run anything.
 */
static bool
deliver_rows(Poll *poll)
{
	Delivery   *delivery = &poll->delivery;
	bool		found;

	begin_rows(poll);
	found = delivery_make(delivery, poll->final);
	if (found && tuplestore_tuple_count(delivery->batch.events) > 0)
		put_rows(poll);
	if (found)
		tuplestore_end(delivery->batch.events);
	present_end(poll->presenter);
	return found;
}

/* Looks once; the last look is written to the tables. */
static bool
look_once(void *arg)
{
	Poll	   *poll = arg;
	MemoryContext context = MemoryContextSwitchTo(poll->context);

	MemoryContextReset(poll->context);
	poll->found = (poll->final || delivery_peek(&poll->delivery)) && deliver_rows(poll);
	if (!poll->found && !poll->final)
		poll->next = delivery_next_time(&poll->delivery);
	MemoryContextSwitchTo(context);
	return poll->found;
}

/* Looks in a subtransaction, which is rolled back if nothing is found. */
static void
look_and_forget(Poll *poll)
{
	ErrorData  *error = subtransaction_try(look_once, poll);

	if (error != NULL)
		ReThrowError(error);
}

/* Returns how long to sleep, in milliseconds. */
static long
poll_sleep_time(Poll *poll)
{
	long		time = wakeup_is_possible() ? LONGEST_SLEEP : poll->sleep;

	poll->sleep = Min(poll->sleep * 2, LAST_SLEEP);
	time = Min(time, sleep_left(&poll->deadline));
	return poll->next == 0 ? time :
		Min(time, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												  poll->next));
}

/*
 * Sleeps until it is woken, but not for longer than there is time.  count: the
 * one before the look that found nothing.  A call that is woken unnecessarily
 * again and again pauses before it can be woken once more, so that a stream of
 * commits to other categories does not keep it busy.
 */
static void
sleep_until_woken(Poll *poll, uint64 count)
{
	long		time = poll_sleep_time(poll);

	sleep_release_snapshot(&poll->sleeper);
	if (time > 0 && poll->pause > 0)
		sleep_nap(Min(time, poll->pause), WAIT_EVENT);
	if (time > 0 && wakeup_begin_wait(count))
		sleep_nap(time, WAIT_EVENT);
	wakeup_end_wait();
	poll->pause = count == wakeup_count() ? 0 :
		Min(Max(poll->pause * 2, 1), LONGEST_PAUSE);
	CHECK_FOR_INTERRUPTS();
	sleep_restore_snapshot(&poll->sleeper);
}

/*
 * Looks and sleeps until something is found or the time is over.  A look may
 * lock a row unnecessarily, because another consumer was faster, or because all
 * that there was had to be parked.  It has taken a transaction id then, with
 * which no call should sleep; so the wait is over, too.
 */
static void
wait_for_delivery(Poll *poll, bool had_id)
{
	poll->delivery.scanned = palloc0(sizeof(Scanned) * ES_MAX_PARTITIONS);
	for (;;)
	{
		uint64		count = wakeup_count();

		look_and_forget(poll);
		if (poll->found || poll->delivery.time_over || sleep_left(&poll->deadline) == 0 ||
			(!had_id && TransactionIdIsValid(GetTopTransactionIdIfAny())))
			return;
		sleep_until_woken(poll, count);
	}
}

/*
 * es_poll(subscription, consumer, max_count, wait, after_token): delivers the
 * next events of one partition.  Errors: ES006 for after_token.
 */
Datum
es_poll(PG_FUNCTION_ARGS)
{
	CommitProgress before;
	Poll		poll;

	PreventCommandIfReadOnly("es_poll()");
	log_check_relid_open(log_relid(fcinfo->flinfo->fn_oid));
	init_poll(&poll, fcinfo);
	identity_check_consumer(poll.delivery.log);
	before = async_commit_begin();
	InitMaterializedSRF(fcinfo, 0);
	poll.result = (ReturnSetInfo *) fcinfo->resultinfo;
	poll.sleeper = sleep_prepare(fcinfo);
	SPI_connect();
	poll.context = AllocSetContextCreate(CurrentMemoryContext,
										 "eventstore poll",
										 ALLOCSET_DEFAULT_SIZES);
	if (sleep_left(&poll.deadline) > 0)
	{
		isolation_check("es_poll() with wait");
		wait_for_delivery(&poll, before.has_id);
	}
	poll.final = true;
	if (!poll.found)
		(void) look_once(&poll);
	if (poll.found && !poll.delivery.must_last)
		async_commit_end(before);
	SPI_finish();
	return (Datum) 0;
}
