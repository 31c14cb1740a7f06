/*-------------------------------------------------------------------------
 *
 * retry.c
 *		es_retry and es_discard: what becomes of a failure.
 *
 * Both lock the projection's row first, or the subscription's partition, so
 * that no more events of the stream are parked meanwhile.  A projection tries
 * the parked events of the stream in order, beginning with the first, whichever
 * of them was named.  Each is tried in a subtransaction, and leaves es_failures
 * in the transaction in which it takes effect.  Events of a subscription become
 * due, and the next es_poll delivers them.  Messages belong to the inbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "log/log.h"
#include "notify/notify.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "subscription/subscription.h"
#include "inbox/inbox.h"

PG_FUNCTION_INFO_V1(es_retry);
PG_FUNCTION_INFO_V1(es_discard);

/* Reads the event of a failure as a batch of its own. */
static void
read_failed_event(Projection *projection, int64 position, EventBatch *batch)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	projection->position = position - 1;
	batch->events = event_batch_make();
	projection_read_batch(projection, snapshot, position, 1, batch);
	UnregisterSnapshot(snapshot);
	if (batch->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("projection \"%s\" cannot read the event that is to be retried",
						projection->name),
				 errdetail("The event at position " INT64_FORMAT " is hidden from its owner.",
						   position),
				 errhint("Give the owner the right to read it, or es_discard() it.")));
}

/* Tries one parked event again; returns false if it failed again. */
static bool
retry_event(Projection *projection, const Failure *failure)
{
	ErrorData  *error;
	EventBatch	batch;

	read_failed_event(projection, failure->position, &batch);
	error = projection_try_batch(projection, &batch, false);
	tuplestore_end(batch.events);
	if (error == NULL)
		return failure_remove(projection->log, failure->id);
	failure_record_attempt(projection->log, failure->id, error, 1, FAILURE_PARKED);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("event at position " INT64_FORMAT " failed%s: %s",
					failure->position, failure->failed ? " again" : "",
					error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("Later events of stream \"%s\" wait behind it.",
					 failure->stream)));
	return false;
}

/*
 * Tries the parked events of a stream in order until one fails; returns how many
 * succeeded.
 */
static int64
retry_stream(Projection *projection, char *stream)
{
	Failure		failure = {.stream = stream};
	int64		handled = 0;

	while (failure_first(projection_failures(projection), stream, &failure))
	{
		CHECK_FOR_INTERRUPTS();
		if (!retry_event(projection, &failure))
			break;
		handled++;
	}
	return handled;
}

/*
 * Finds the failure and locks what it belongs to, so that it is not handled
 * meanwhile: a projection, which is returned, or a partition.
 */
static Projection *
open_failure(Oid log, int64 id, const char *function, Failure *failure,
			 Partition **partition)
{
	Projection *projection = NULL;
	bool		found = failure_find(log, id, failure);

	if (found && failure->kind != FAILURE_INBOX)
		isolation_check(function);
	if (found && failure->kind == FAILURE_PROJECTION)
		projection = projection_lock_own(log, failure->name);
	else if (found && failure->kind == FAILURE_SUBSCRIPTION)
		*partition = partition_own(log, failure->name, failure->partition);

	/* another session may have been faster */
	if (!found || !failure_find(log, id, failure))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no failure with id " INT64_FORMAT, id),
				 errdetail("It was retried or discarded, or has never existed."),
				 errhint("es_failures lists the failures.")));
	return projection;
}

/* Begins es_retry and es_discard. */
static Projection *
begin_retry(FunctionCallInfo fcinfo, const char *function, Failure *failure,
			Partition **partition)
{
	*partition = NULL;
	argument_not_null(fcinfo, 0, "failure_id");
	PreventCommandIfReadOnly(function);
	projection_check_outside_handler(function);
	SPI_connect();
	return open_failure(log_relid(fcinfo->flinfo->fn_oid), PG_GETARG_INT64(0),
						function, failure, partition);
}

/* Wakes consumers: failures of the partition have changed. */
static void
wake_partition(Partition *partition)
{
	if (partition == NULL)
		return;
	partition_find_due(partition);
	partition_write(partition, false);
	notify_wake_at_end();
}

/*
 * es_retry(failure_id) returns bigint: tries the message, or the parked events
 * of the stream, again; returns how many were handled, or will be delivered.
 */
Datum
es_retry(PG_FUNCTION_ARGS)
{
	Failure		failure;
	Partition  *partition;
	Projection *projection = begin_retry(fcinfo, "es_retry()", &failure,
										 &partition);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	int64		handled;

	if (failure.kind == FAILURE_PROJECTION)
		handled = retry_stream(projection, failure.stream);
	else if (failure.kind == FAILURE_INBOX)
		handled = inbox_retry(log, failure.id);
	else
		handled = failure_make_due(subscription_failures(log, failure.name,
														 failure.partition),
								   failure.stream);
	wake_partition(partition);
	SPI_finish();
	PG_RETURN_INT64(handled);
}

/*
 * es_discard(failure_id): discards the event or message.  Events that only
 * waited behind it are handled, or will be delivered.
 */
Datum
es_discard(PG_FUNCTION_ARGS)
{
	Failure		failure,
				next;
	Partition  *partition;
	Projection *projection = begin_retry(fcinfo, "es_discard()", &failure,
										 &partition);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	if (failure.kind == FAILURE_INBOX)
		inbox_discard(log, failure.id);
	else
		(void) failure_remove(log, failure.id);
	if (failure.kind == FAILURE_SUBSCRIPTION)
		failure_release(subscription_failures(log, failure.name,
											  failure.partition),
						failure.stream);
	if (failure.kind == FAILURE_PROJECTION &&
		failure_first(projection_failures(projection), failure.stream,
					  &next) && !next.failed)
		(void) retry_stream(projection, failure.stream);
	wake_partition(partition);
	SPI_finish();
	PG_RETURN_VOID();
}
