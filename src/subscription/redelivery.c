/*-------------------------------------------------------------------------
 *
 * redelivery.c
 *		Events that are delivered again: those whose lease expired, and those
 *		of parked streams.
 *
 * A consumer that dies does not report which event killed it.  So each partition
 * counts, for ranges of positions after the checkpoint, how many deliveries
 * expired (expired_upto, expired_times).  The delivery that follows has fewer
 * events (delivery.c), and the last attempt has one.  If that expires, too, the
 * event is parked.
 *
 * An event that es_nack has parked is in es_failures, with those of its stream
 * that wait behind it.  When it is due, the events of the stream are delivered
 * from there in order, the ones that failed alone.  es_failures counts the
 * attempts at these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "subscription/delivery.h"

/* Returns why an event is parked whose leases have all expired. */
static ErrorData *
expired_error(int times)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->message = "the lease expired before the event was acknowledged";
	error->detail = psprintf("It was delivered %d times, and its lease expired each time.",
							 times);
	return error;
}

int
redelivery_expired_times(const Partition *partition, int64 position)
{
	int			i;

	for (i = 0; i < partition->expired_upto.count; i++)
	{
		if (partition->expired_upto.values[i] >= position)
			return (int) partition->expired_times.values[i];
	}
	return 0;
}

int
redelivery_attempt(const Delivery *delivery, int64 position, int *number)
{
	if (delivery->positions.count == 0)
		return redelivery_expired_times(delivery->partition, position) + 1;
	while (delivery->positions.values[*number] < position)
		(*number)++;
	return (int) delivery->attempts.values[*number];
}

/* Returns the first of the ends, and of two more, that follows a position. */
static int64
next_range_end(const Int8Array *ends, int64 position, int64 one, int64 other)
{
	int64		next = PG_INT64_MAX;
	int			i;

	if (one > position)
		next = one;
	if (other > position)
		next = Min(next, other);
	for (i = 0; i < ends->count; i++)
	{
		if (ends->values[i] > position)
			return Min(next, ends->values[i]);
	}
	return next;
}

void
redelivery_add_expiry(Partition *partition, int64 after, int64 upto)
{
	Int8Array	ends = {0};
	Int8Array	times = {0};
	int64		start = partition->position;
	int64		end;

	while ((end = next_range_end(&partition->expired_upto, start, after,
								 upto)) != PG_INT64_MAX)
	{
		int8_array_append(&ends, end);
		int8_array_append(&times, redelivery_expired_times(partition, end) +
						  (start >= after && end <= upto ? 1 : 0));
		start = end;
	}
	partition->expired_upto = ends;
	partition->expired_times = times;
}

/*
 * The lease of a parked stream has expired.  Its first event has failed, and is
 * delivered again, alone.  If it was alone, and often enough, it is parked for
 * good.
 */
static void
expire_stream(const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	FailureOwner owner = partition_failures(partition);
	int64		upto = int8_array_last(partition->uptos);
	Failure		first;

	if (!failure_first(owner, partition->stream, &first) ||
		first.position > upto)
		return;					/* it was discarded meanwhile */
	failure_record_attempt(subscription->log, first.id, expired_error(first.attempts), 0,
						   first.position == upto &&
						   first.attempts >= subscription->max_attempts ?
						   FAILURE_PARKED : 0);
}

void
redelivery_expire(Delivery *delivery, Partition *partition)
{
	if (partition->stream != NULL)
		expire_stream(partition);
	else
	{
		delivery->expired_upto = int8_array_last(partition->uptos);
		redelivery_add_expiry(partition, partition->position, delivery->expired_upto);
		partition->reached = partition->position;
	}
	partition_release(partition);
}

char *
redelivery_find_stream(const Partition *partition)
{
	Oid			types[3] = {TEXTOID, INT4OID, INT8OID};
	Datum		values[3] = {
		CStringGetTextDatum(partition->subscription.name),
		Int32GetDatum(partition->number), Int64GetDatum(partition->position)
	};

	if (own_sql_run(partition->subscription.log,
					"SELECT f.stream FROM @extschema@.es_failures f"
					" WHERE f.subscription = $1 AND f.partition = $2"
					" AND f.retry_at <= clock_timestamp() AND f.position <= $3"
					" AND NOT EXISTS (SELECT FROM @extschema@.es_failures g"
					" WHERE g.subscription = f.subscription"
					" AND g.stream = f.stream AND g.position < f.position)"
					" ORDER BY f.retry_at, f.position LIMIT 1",
					3, types, values, NULL) == 0)
		return NULL;
	return own_sql_text(1);
}

/*
 * Takes the first events of the stream from es_failures, and counts an attempt
 * at each: one that has failed, alone, or those that wait up to such a one.
 * Fills positions and attempts of the delivery.
 */
static void
take_stream_events(Delivery *delivery, const Partition *partition,
				   const char *stream)
{
	Oid			types[4] = {TEXTOID, TEXTOID, INT8OID, INT4OID};
	Datum		values[4] = {
		CStringGetTextDatum(partition->subscription.name),
		CStringGetTextDatum(stream), Int64GetDatum(partition->position),
		Int32GetDatum(Min(delivery->max_count,
						  partition->subscription.max_in_flight))
	};
	uint64		count;
	uint64		i;

	count = own_sql_run(delivery->log,
						"WITH f AS (SELECT id, row_number() OVER (ORDER BY position) = 1"
						" OR bool_and(message IS NULL) OVER (ORDER BY position) AS fits"
						" FROM @extschema@.es_failures WHERE subscription = $1"
						" AND stream = $2 AND position <= $3"
						" ORDER BY position LIMIT $4),"
						" u AS (UPDATE @extschema@.es_failures u"
						" SET attempts = u.attempts + 1 FROM f"
						" WHERE u.id = f.id AND f.fits"
						" RETURNING u.position, u.attempts)"
						" SELECT position, attempts FROM u ORDER BY position",
						4, types, values, NULL);
	for (i = 0; i < count; i++)
	{
		bool		isnull;

		int8_array_append(&delivery->positions,
						  DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
													  SPI_tuptable->tupdesc, 1,
													  &isnull)));
		int8_array_append(&delivery->attempts,
						  DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
													  SPI_tuptable->tupdesc, 2,
													  &isnull)));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Gives back the events that the batch has no room for: they were not attempted. */
static void
return_stream_events(Delivery *delivery, const Partition *partition)
{
	Oid			types[2] = {TEXTOID, INT8ARRAYOID};
	Datum		values[2] = {CStringGetTextDatum(partition->subscription.name)};
	Int8Array	rest = {0};

	while (int8_array_last(delivery->positions) > delivery->batch.upto)
	{
		int8_array_append(&rest, int8_array_last(delivery->positions));
		delivery->positions.count--;
		delivery->attempts.count--;
	}
	if (rest.count == 0)
		return;
	values[1] = PointerGetDatum(int8_array_make(rest));
	(void) own_sql_run(delivery->log, "UPDATE @extschema@.es_failures SET attempts = attempts - 1"
					   " WHERE subscription = $1 AND position = ANY ($2)",
					   2, types, values, NULL);
}

/* Parks a stream whose first event the owner cannot read any more. */
static void
park_hidden_stream(const Partition *partition, const char *stream)
{
	ErrorData	error = {
		.sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE,
		.message = "the event is hidden from the subscription's owner"
	};
	Failure		first;

	if (failure_first(partition_failures(partition), stream, &first))
		failure_record_attempt(partition->subscription.log, first.id, &error, 0, FAILURE_PARKED);
}

/* Reads the first events of the stream that are to be delivered.  Returns false if it cannot. */
static bool
read_stream_events(Delivery *delivery, Partition *partition, const char *stream,
				   Snapshot snapshot)
{
	ReadLimit	limit = {.bytes = delivery->max_bytes};
	EventSource source;
	Int8Array	positions;

	take_stream_events(delivery, partition, stream);
	positions = delivery->positions;
	source = partition_source(partition);
	source.except.count = 0;
	source.categories = source.types = NULL;	/* whatever the filter is by
												 * now */
	source.query = NULL;
	source.only = positions;
	limit.count = positions.count;
	delivery->batch.events = event_batch_make();
	event_reader_read(&source, snapshot, positions.values[0] - 1,
					  int8_array_last(positions),
					  &limit, &delivery->batch);
	if (delivery->batch.count == 0)
	{
		delivery->must_last = true;
		delivery->positions.count = delivery->attempts.count = 0;
		return false;
	}
	return_stream_events(delivery, partition);
	return true;
}

/* Events that were removed from the log since make way for those behind them. */
bool
redelivery_read_stream(Delivery *delivery, Partition *partition,
					   Snapshot snapshot)
{
	char	   *stream;

	while ((stream = redelivery_find_stream(partition)) != NULL)
	{
		if (read_stream_events(delivery, partition, stream, snapshot))
		{
			partition->stream = stream;
			return true;
		}
		if (!failure_forget_removed(partition_failures(partition), stream, partition->reached))
		{
			park_hidden_stream(partition, stream);
			return false;
		}
	}
	partition_find_due(partition);
	return false;
}

bool
redelivery_park_expired(Delivery *delivery, Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	EventBatch *batch = &delivery->batch;
	int			expired = redelivery_expired_times(partition, batch->upto);
	List	   *parked;
	text	   *stream;

	if (batch->count != 1 || batch->upto != delivery->expired_upto ||
		expired < subscription->max_attempts)
		return false;
	parked = park_first(delivery->log, batch, expired_error(expired), expired,
						NIL, &stream);
	park_save(partition_failures(partition), parked, FAILURE_PARKED);
	partition->has_failures = true;
	batch->count = 0;
	return true;
}

void
redelivery_park_waiting(Delivery *delivery, Partition *partition)
{
	FailureOwner owner = partition_failures(partition);
	List	   *streams = park_streams(owner, &delivery->batch);
	List	   *waiting = park_take(delivery->log, &delivery->batch, streams, NIL);
	ListCell   *cell;

	foreach(cell, waiting)
	{
		ParkedEvent *one = lfirst(cell);

		one->attempts = redelivery_expired_times(partition, one->position);
		int8_array_append(&partition->settled, one->position);
	}
	park_save(owner, waiting, FAILURE_PARKED);
	foreach(cell, streams)
		failure_release(owner, text_to_cstring(lfirst(cell)));
	park_release_removed(owner, waiting, delivery->batch.upto);
}
