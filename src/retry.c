/*-------------------------------------------------------------------------
 *
 * retry.c
 *		es_retry and es_discard: what becomes of a failure.
 *
 * Both lock the projection's row first, or the subscription's partition, so
 * that no more events of the stream are parked meanwhile.  A projection tries
 * the parked events of the stream in order, beginning with the first, whichever
 * of them was named (projection_retry.c).  Events of a subscription become due, and
 * the next es_poll delivers them.  Messages belong to the inbox.
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
#include "projection/projection_failure.h"
#include "subscription/subscription.h"
#include "inbox/inbox.h"

PG_FUNCTION_INFO_V1(es_retry);
PG_FUNCTION_INFO_V1(es_discard);

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
		projection = projection_lock_operated(log, failure->name);
	else if (found && failure->kind == FAILURE_SUBSCRIPTION)
		*partition = partition_operated(log, failure->name, failure->partition);

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

/* Makes the parked events of the stream due that are still in the log. */
static int64
retry_partition_stream(FailureOwner owner, const char *stream, const Partition *partition)
{
	(void) failure_forget_removed(owner, stream, partition->reached);
	return failure_make_due(owner, stream);
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
		handled = projection_retry_stream(projection, failure.stream,
										  &projection_retry_by_user);
	else if (failure.kind == FAILURE_INBOX)
		handled = inbox_retry(log, failure.id);
	else
		handled = retry_partition_stream(subscription_failures(log, failure.name,
															   failure.partition),
										 failure.stream, partition);
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
	Failure		failure;
	Partition  *partition;
	Projection *projection = begin_retry(fcinfo, "es_discard()", &failure,
										 &partition);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	if (failure.kind == FAILURE_INBOX)
		inbox_discard(log, failure.id);
	else if (failure.kind == FAILURE_PROJECTION)
		projection_discard(projection, &failure);
	else
	{
		(void) failure_remove(log, failure.id);
		failure_release(subscription_failures(log, failure.name,
											  failure.partition),
						failure.stream);
	}
	wake_partition(partition);
	SPI_finish();
	PG_RETURN_VOID();
}
