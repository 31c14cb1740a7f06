/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		One delivery of a subscription: which partition, which events.
 *
 * Under the lock of a partition's row, and in one transaction with what it
 * writes there and in es_failures:
 *
 *	1. take a snapshot and its horizon;
 *	2. claim a partition: the one that the consumer has in hand, else the one
 *	   that has waited longest of those that are free, or whose lease has run
 *	   out, and have something to be delivered;
 *	3. what was in hand is lost: its tokens are void, and how often each of its
 *	   events was lost is kept;
 *	4. a parked stream that is due comes first, when nothing is in hand: so its
 *	   events lie below the checkpoint, which stays where it is;
 *	5. else the next events of the log, after what was read last (reached), up
 *	   to the horizon; those of parked streams are set aside;
 *	6. write who has it now, until when, by which token, and how far it goes.
 *
 * What is found to have nothing is remembered (reached), and the next
 * partition is tried.
 *
 * A consumer that dies does not say which event killed it.  So a delivery that
 * was lost is repeated with fewer events, the last attempt with one; if that
 * is lost, too, it is parked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "subscription/subscription.h"

/* So many events may be set aside above the checkpoint, and a batch more. */
#define MAX_SETTLED		10000

/* Why an event is parked that was never acknowledged. */
static ErrorData *
lost_error(int times)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->message = "the lease ran out before it was acknowledged";
	error->detail = psprintf("It was delivered and lost %d times.", times);
	return error;
}

/* Has the consumer the partition in hand? */
static bool
is_mine(const Delivery *delivery, const Partition *partition)
{
	return partition_is_in_flight(partition) && delivery->consumer != NULL &&
		partition->consumer != NULL &&
		strcmp(partition->consumer, delivery->consumer) == 0;
}

/* May a parked stream be due? */
static bool
is_due(const Partition *partition, TimestampTz now)
{
	return partition->due_at != 0 && partition->due_at <= now;
}

/* May the partition have something for the consumer? */
static bool
is_eligible(const Delivery *delivery, const Partition *partition)
{
	TimestampTz now = GetCurrentTimestamp();

	if (partition_is_in_flight(partition))
		return partition->leased_until <= now || is_mine(delivery, partition);
	return partition->reached < delivery->horizon || is_due(partition, now);
}

/*
 * Is the one to be tried before the other: the consumer's own, or what has
 * waited longer?
 */
static bool
is_before(const Delivery *delivery, const Partition *one,
		  const Partition *other)
{
	bool		mine = is_mine(delivery, one);

	if (mine != is_mine(delivery, other))
		return mine;
	return one->served_at < other->served_at;
}

/* Takes the one that is to be tried first out of the list. */
static Partition *
take_first(const Delivery *delivery, List **partitions)
{
	Partition  *first = NULL;
	ListCell   *cell;

	foreach(cell, *partitions)
	{
		Partition  *one = lfirst(cell);

		if (is_eligible(delivery, one) &&
			(first == NULL || is_before(delivery, one, first)))
			first = one;
	}
	*partitions = list_delete_ptr(*partitions, first);
	return first;
}

/*
 * Claims the next partition of the list that has something for the consumer,
 * and takes it out of there; NULL if there is none.  Whether that is so counts
 * when it is locked.
 */
static Partition *
claim(const Delivery *delivery, const Subscription *subscription,
	  List **partitions)
{
	Partition  *candidate;

	while ((candidate = take_first(delivery, partitions)) != NULL)
	{
		Partition  *partition = partition_lock(subscription, candidate->number,
											   false);

		if (partition != NULL && is_eligible(delivery, partition))
			return partition;
	}
	return NULL;
}

/*
 * How often the event at the position, after the checkpoint, was delivered and
 * lost.
 */
int
delivery_expired(const Partition *partition, int64 position)
{
	int			i;

	for (i = 0; i < partition->expired_upto.count; i++)
	{
		if (partition->expired_upto.values[i] >= position)
			return (int) partition->expired_times.values[i];
	}
	return 0;
}

/*
 * Which attempt the delivery is at its event at the position.  number: of the
 * event among those of a parked stream, which some may be missing of; it
 * starts with 0.
 */
int
delivery_attempt(const Delivery *delivery, int64 position, int *number)
{
	if (delivery->positions.count == 0)
		return delivery_expired(delivery->partition, position) + 1;
	while (delivery->positions.values[*number] < position)
		(*number)++;
	return (int) delivery->attempts.values[*number];
}

/* The first of the ends that comes after a position, or one of two more. */
static int64
next_end(const Int8Array *ends, int64 position, int64 one, int64 other)
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

/*
 * Counts that the events after one position and up to another were lost once
 * more.
 */
static void
add_loss(Partition *partition, int64 after, int64 upto)
{
	Int8Array	ends = {0};
	Int8Array	times = {0};
	int64		start = partition->position;
	int64		end;

	while ((end = next_end(&partition->expired_upto, start, after,
						   upto)) != PG_INT64_MAX)
	{
		int8_array_append(&ends, end);
		int8_array_append(&times, delivery_expired(partition, end) +
						  (start >= after && end <= upto ? 1 : 0));
		start = end;
	}
	partition->expired_upto = ends;
	partition->expired_times = times;
}

/*
 * The parked stream that was in hand was lost: its first event has failed, and
 * is delivered again, alone; if it was alone and often enough it is parked.
 */
static void
lose_stream(const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	FailureOwner owner = partition_failures(partition);
	int64		upto = int8_array_last(partition->uptos);
	Failure		first;

	if (!failure_first(owner, partition->stream, &first) ||
		first.position > upto)
		return;					/* that was discarded meanwhile */
	failure_record_attempt(subscription->log, first.id, lost_error(first.attempts), 0,
						   first.position == upto &&
						   first.attempts >= subscription->max_attempts ?
						   FAILURE_PARKED : 0);
}

/*
 * What was in hand was lost.
 */
static void
lose(Delivery *delivery, Partition *partition)
{
	if (partition->stream != NULL)
		lose_stream(partition);
	else
	{
		delivery->expired_upto = int8_array_last(partition->uptos);
		add_loss(partition, partition->position, delivery->expired_upto);
		partition->reached = partition->position;
	}
	partition_free(partition);
}

/* The token of the partition's next delivery. */
static int64
next_token(const Partition *partition)
{
	int64		time = Max(GetCurrentTimestamp(),
						   partition->token / ES_MAX_PARTITIONS + 1);

	return time * ES_MAX_PARTITIONS + partition->number;
}

/*
 * Gives what was read, up to the position of its last event, to the consumer.
 */
static void
give(Delivery *delivery, Partition *partition, int64 upto)
{
	partition->token = next_token(partition);
	int8_array_append(&partition->tokens, partition->token);
	int8_array_append(&partition->uptos, upto);
	int8_array_append(&partition->counts, delivery->batch.count);
	partition->consumer = delivery->consumer ? pstrdup(delivery->consumer) :
		NULL;
	partition_extend_lease(partition);
	partition_write(partition, true);
	delivery->partition = partition;
}

/*
 * Finds the stream of es_failures that is to be delivered next, below the
 * checkpoint; NULL if there is none.
 */
static char *
find_due_stream(const Partition *partition)
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
 * at each: one that has failed, alone, or those that wait up to such a one.  Fills positions and attempts
 * of the delivery.
 */
static void
take_failures(Delivery *delivery, const Partition *partition,
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

/* Parks a stream whose first event the owner cannot read any more. */
static void
park_hidden(const Partition *partition, const char *stream)
{
	ErrorData	error = {
		.sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE,
		.message = "the event is hidden from the subscription's owner"
	};
	Failure		first;

	if (failure_first(partition_failures(partition), stream, &first))
		failure_record_attempt(partition->subscription.log, first.id, &error, 0, FAILURE_PARKED);
}

/*
 * Delivers the parked stream that is due, if there is one.
 */
static bool
deliver_stream(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	char	   *stream = find_due_stream(partition);
	EventSource source;
	Int8Array	positions;

	if (stream == NULL)
	{
		partition_find_due(partition);
		return false;
	}
	take_failures(delivery, partition, stream);
	positions = delivery->positions;
	source = partition_source(partition);
	source.except.count = 0;
	source.only = positions;
	delivery->batch.events = event_batch_make();
	event_reader_read(&source, snapshot, positions.values[0] - 1,
					  int8_array_last(positions), positions.count, &delivery->batch);
	if (delivery->batch.count == 0)
	{
		park_hidden(partition, stream);
		delivery->checkpoint_moved = true;
		delivery->positions.count = delivery->attempts.count = 0;
		return false;
	}
	partition->stream = stream;
	give(delivery, partition, int8_array_last(positions));
	return true;
}

/* How many events are in hand. */
static int64
count_in_hand(const Partition *partition)
{
	int64		count = 0;
	int			i;

	for (i = 0; i < partition->counts.count; i++)
		count += partition->counts.values[i];
	return count;
}

/*
 * How many events the next delivery may have.
 */
static int
delivery_limit(const Delivery *delivery, const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	int			lost = delivery_expired(partition, partition->reached + 1);
	int			limit = delivery->max_count;

	if (partition_is_in_flight(partition) &&
		delivery_expired(partition, partition->position + 1) > 0)
		return 0;				/* one that is suspected is alone in hand */
	if (lost > 0 && lost + 1 >= subscription->max_attempts)
		limit = 1;
	else if (lost > 0)
		limit = Max(limit >> Min(lost, 30), 1);
	return Min(limit, subscription->max_in_flight - count_in_hand(partition));
}

/* Where to read on: what has nothing more was read before. */
static int64
read_from(const Delivery *delivery, const Partition *partition)
{
	const Scanned *scanned = delivery->scanned;

	if (scanned == NULL)
		return partition->reached;
	scanned += partition->number;
	return partition->reached >= scanned->from ?
		Max(partition->reached, scanned->to) : partition->reached;
}

/* Remembers that the partition has nothing from where it was read from on. */
static void
note_scanned(Delivery *delivery, const Partition *partition)
{
	Scanned    *scanned = delivery->scanned;

	if (scanned == NULL)
		return;
	scanned += partition->number;
	scanned->from = partition->reached;
	scanned->to = Max(partition->reached, delivery->horizon);
}

/*
 * Parks the only event of a batch if it was the only one of the delivery that
 * was lost, and was tried often enough.
 */
static bool
park_lost(Delivery *delivery, Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	EventBatch *batch = &delivery->batch;
	int			lost = delivery_expired(partition, batch->upto);
	List	   *aside;
	text	   *stream;

	if (batch->count != 1 || batch->upto != delivery->expired_upto ||
		lost < subscription->max_attempts)
		return false;
	aside = park_first(delivery->log, batch, lost_error(lost), lost, NIL,
					   &stream);
	park_save(partition_failures(partition),
			  aside, FAILURE_PARKED);
	partition->has_failures = true;
	batch->count = 0;
	return true;
}

/* Sets the events of parked streams aside. */
static void
set_aside(Delivery *delivery, Partition *partition)
{
	FailureOwner owner = partition_failures(partition);
	List	   *streams = park_streams(owner, &delivery->batch);
	List	   *aside = park_take(delivery->log, &delivery->batch, streams, NIL);
	ListCell   *cell;

	foreach(cell, aside)
	{
		ParkedEvent *one = lfirst(cell);

		one->attempts = delivery_expired(partition, one->position);
		int8_array_append(&partition->settled, one->position);
	}
	park_save(owner, aside, FAILURE_PARKED);
	foreach(cell, streams)
		failure_release(owner, text_to_cstring(lfirst(cell)));
}

/*
 * Reads the next events of the log that can be delivered, at most limit, into
 * the batch.  False if there are none up to the horizon.
 */
static bool
read_log(Delivery *delivery, Partition *partition, Snapshot snapshot,
		 int limit)
{
	EventSource source = partition_source(partition);
	EventBatch *batch = &delivery->batch;
	int64		from = read_from(delivery, partition);

	while (from < delivery->horizon)
	{
		batch->events = event_batch_make();
		event_reader_read(&source, snapshot, from, delivery->horizon, limit, batch);
		if (batch->count == 0)
		{
			note_scanned(delivery, partition);
			break;
		}
		if (!park_lost(delivery, partition) && partition->has_failures)
			set_aside(delivery, partition);
		if (batch->count > 0)
			return true;

		tuplestore_end(batch->events);
		from = partition->reached = batch->upto;
		if (!partition_is_in_flight(partition))
		{
			/* what was set aside or parked is done with */
			partition_move(partition, from);
			delivery->checkpoint_moved = true;
		}
		else if (partition->settled.count > MAX_SETTLED)
			return false;		/* the rest when some is acknowledged */
	}
	/* another one may have had a later horizon before the lock was ours */
	partition->reached = Max(partition->reached, delivery->horizon);
	return false;
}

/* Has the log an event that the partition gets? */
static bool
peek_log(Delivery *delivery, const Partition *partition, Snapshot snapshot)
{
	EventSource source = partition_source(partition);
	EventBatch	batch = {.events = event_batch_make()};

	event_reader_read(&source, snapshot, read_from(delivery, partition),
					  delivery->horizon, 1, &batch);
	if (batch.count == 0)
		note_scanned(delivery, partition);
	tuplestore_end(batch.events);
	return batch.count > 0;
}

/*
 * Delivers the next events of the log, if there are any.
 */
static bool
deliver_log(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	int			limit = delivery_limit(delivery, partition);

	if (limit < 1 || !read_log(delivery, partition, snapshot, limit))
		return false;
	partition->reached = delivery->batch.upto;
	give(delivery, partition,
		 event_batch_last_position(delivery->log, delivery->batch.events));
	return true;
}

/*
 * The log has nothing to be delivered: the checkpoint moves to where it was
 * read, and a parked stream may have come below it.
 */
static bool
deliver_rest(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	partition_move(partition, partition->reached);
	delivery->checkpoint_moved = true;
	return is_due(partition, GetCurrentTimestamp()) &&
		deliver_stream(delivery, partition, snapshot);
}

/*
 * Delivers from the first partition that has something for the consumer.
 * Those that have not are written only if final, or if there is something.
 */
static bool
deliver_any(Delivery *delivery, Snapshot snapshot, bool final)
{
	List	   *empty = NIL;
	List	   *partitions;
	Subscription subscription;
	Partition  *partition;
	bool		found = false;
	ListCell   *cell;

	subscription_own(delivery->log, delivery->name, &subscription);
	partitions = partition_list(&subscription);
	while (!found &&
		   (partition = claim(delivery, &subscription, &partitions)) != NULL)
	{
		delivery->expired_upto = 0;
		if (partition_is_in_flight(partition))
			lose(delivery, partition);
		found = (is_due(partition, GetCurrentTimestamp()) &&
				 deliver_stream(delivery, partition, snapshot)) ||
			deliver_log(delivery, partition, snapshot);
		if (!found)
			found = deliver_rest(delivery, partition, snapshot);
		if (!found)
			empty = lappend(empty, partition);
	}
	foreach(cell, empty)
	{
		if (found || final)
			partition_write(lfirst(cell), false);
		delivery->checkpoint_moved = true;
	}
	return found;
}

/*
 * Delivers what follows a delivery that the consumer has in hand.  What was
 * delivered after that is lost.
 */
static bool
deliver_after(Delivery *delivery, Snapshot snapshot)
{
	Partition  *partition = partition_of_token(delivery->log, delivery->name,
											   delivery->after_token);
	int			place = partition_find_token(partition, delivery->after_token);
	int			settled = partition->settled.count;
	bool		lost = place + 1 < partition->tokens.count;

	delivery->expired_upto = 0;
	if (place < 0)
		partition_refuse_token(partition, delivery->after_token);
	if (partition->stream != NULL)
		return false;
	if (lost)
	{
		add_loss(partition, partition->uptos.values[place],
				 int8_array_last(partition->uptos));
		partition->tokens.count = partition->uptos.count = place + 1;
		partition->counts.count = place + 1;
		partition->reached = int8_array_last(partition->uptos);
	}
	if (deliver_log(delivery, partition, snapshot))
		return true;
	if (lost || partition->settled.count > settled)
		partition_write(partition, false);
	return false;
}

/*
 * Delivers events to a consumer, if there are any for him.  final: what is
 * found to have none is written down, too.
 */
bool
delivery_make(Delivery *delivery, bool final)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found;

	delivery->horizon = horizon_find(delivery->log, snapshot);
	if (delivery->after_token != 0)
		found = deliver_after(delivery, snapshot);
	else
		found = deliver_any(delivery, snapshot, final);
	UnregisterSnapshot(snapshot);
	return found;
}

/* May the next delivery after a token have something? */
static bool
peek_after(Delivery *delivery, const Partition *partition, Snapshot snapshot)
{
	int			place = partition_find_token(partition, delivery->after_token);

	if (place < 0 || place + 1 < partition->tokens.count)
		return true;
	return partition->stream == NULL &&
		delivery_limit(delivery, partition) > 0 &&
		peek_log(delivery, partition, snapshot);
}

/* May the partition have something for the consumer? */
static bool
peek_partition(Delivery *delivery, const Partition *partition,
			   Snapshot snapshot)
{
	if (delivery->after_token != 0)
		return partition->number == partition_number(delivery->after_token) &&
			peek_after(delivery, partition, snapshot);
	if (!is_eligible(delivery, partition))
		return false;
	return partition_is_in_flight(partition) ||
		(is_due(partition, GetCurrentTimestamp()) &&
		 find_due_stream(partition) != NULL) ||
		peek_log(delivery, partition, snapshot);
}

/*
 * May there be something to deliver?  No row is locked, so that no transaction
 * id is taken.
 */
bool
delivery_peek(Delivery *delivery)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Subscription subscription;
	ListCell   *cell;
	bool		found = false;

	delivery->horizon = horizon_find(delivery->log, snapshot);
	subscription_own(delivery->log, delivery->name, &subscription);
	foreach(cell, partition_list(&subscription))
	{
		found = peek_partition(delivery, lfirst(cell), snapshot);
		if (found)
			break;
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * When a lease of the subscription runs out, or a parked stream is due, so
 * that there may be something to deliver; 0: there is no such time.
 */
TimestampTz
delivery_next_time(const Delivery *delivery)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(delivery->name);

	(void) own_sql_run(delivery->log,
					   "SELECT least(min(leased_until) FILTER"
					   " (WHERE leased_until > clock_timestamp()),"
					   " min(due_at) FILTER (WHERE due_at > clock_timestamp()),"
					   " CASE WHEN bool_or(due_at <= clock_timestamp()) THEN"
					   " (SELECT min(retry_at) FROM @extschema@.es_failures"
					   " WHERE subscription = $1 AND retry_at > clock_timestamp()) END)"
					   " FROM @extschema@.es_partitions WHERE subscription = $1",
					   1, &type, &value, NULL);
	return DatumGetTimestampTz(own_sql_value(1));
}
