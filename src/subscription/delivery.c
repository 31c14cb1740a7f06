/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		One delivery of a subscription: which partition, which events.
 *
 * Under the lock of a partition's row, and in one transaction with what it
 * writes there and in es_failures:
 *
 *	1. take a snapshot and its horizon;
 *	2. claim a partition: the one that the consumer has in flight, else the one
 *	   that has waited longest among those that have something to deliver and
 *	   are free, or whose lease has expired;
 *	3. if anything is in flight, its lease expires, now that the consumer polls
 *	   again: its tokens are void, and each of its events counts one more
 *	   expired lease (redelivery.c);
 *	4. deliver a parked stream that is due, if there is one.  Nothing is in
 *	   flight then, so that its events lie below the checkpoint, which stays
 *	   where it is;
 *	5. else deliver the next events of the log, after what was read last
 *	   (reached), up to the horizon, and park those of parked streams;
 *	6. write which consumer has it now, until when, by which token, and how far
 *	   it goes.
 *
 * A partition that has nothing to deliver up to some position remembers that
 * position (reached), and the next partition is tried.  So it does where the time
 * for reading is over, and nothing was found yet: the next call goes on from there.
 *
 * Each time that the lease of an event expires, the next delivery of it has
 * half as many events; the last attempt delivers it alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "identity/identity.h"
#include "read/read.h"
#include "read/source.h"
#include "subscription/delivery.h"

/*
 * A partition that has nothing to deliver is written when it is so many positions behind,
 * with others that are half as many; one call writes so many.
 */
#define FARTHEST_BEHIND 4096
#define MAX_ADVANCED	32

/* So many events may be settled above the checkpoint, and a batch more. */
#define MAX_SETTLED		10000

/* Returns true if a parked stream may be due. */
static bool
is_stream_due(TimestampTz due_at, TimestampTz now)
{
	return due_at != 0 && due_at <= now;
}

/*
 * Returns true if nothing of the log is left for the partition, as this session knows
 * from reading for others.
 */
static bool
is_known_idle(const Delivery *delivery, const PartitionChoice *choice)
{
	return delivery->map != NULL &&
		partition_map_has_none(delivery->map, choice->number, choice->reached,
							   delivery->horizon);
}

/* Returns true if the partition may have something for the consumer. */
static bool
is_choice_eligible(const Delivery *delivery, const PartitionChoice *choice,
				   TimestampTz now)
{
	if (choice->leased_until != 0)
		return choice->leased_until <= now || choice->mine;
	return (choice->reached < delivery->horizon && !is_known_idle(delivery, choice)) ||
		is_stream_due(choice->due_at, now);
}

/* Returns true if the partition, which is locked, may have something for the consumer. */
static bool
is_partition_eligible(const Delivery *delivery, const Partition *partition)
{
	PartitionChoice choice = partition_choice(partition, delivery->consumer);

	return is_choice_eligible(delivery, &choice, GetCurrentTimestamp());
}

/*
 * Returns true if one partition is to be tried before the other: the consumer's
 * own first, then the one that has waited longer.
 */
static bool
is_choice_before(const PartitionChoice *one, const PartitionChoice *other)
{
	if (one->mine != other->mine)
		return one->mine;
	return one->delivered_at < other->delivered_at;
}

/* Returns the partition that is to be tried first, and marks it; NULL if there is none. */
static PartitionChoice *
take_first_choice(const Delivery *delivery, PartitionChoices *choices)
{
	TimestampTz now = GetCurrentTimestamp();
	PartitionChoice *first = NULL;
	int			i;

	for (i = 0; i < choices->count; i++)
	{
		PartitionChoice *one = &choices->values[i];

		if (!one->tried && is_choice_eligible(delivery, one, now) &&
			(first == NULL || is_choice_before(one, first)))
			first = one;
	}
	if (first != NULL)
		first->tried = true;
	return first;
}

/*
 * Locks the next partition that may have something for the consumer, and was not
 * tried yet; NULL if there is none.  What it may have is checked again under the lock.
 */
static Partition *
claim_partition(const Delivery *delivery, const Subscription *subscription,
				PartitionChoices *choices)
{
	PartitionChoice *candidate;

	while ((candidate = take_first_choice(delivery, choices)) != NULL)
	{
		Partition  *partition = partition_lock(subscription, candidate->number,
											   false);

		if (partition != NULL && is_partition_eligible(delivery, partition))
			return partition;
	}
	return NULL;
}

/*
 * Gives the partition the token of its next delivery: of the time, so that no other
 * delivery has it, also not one that a crash has taken back.  If the clock is behind
 * the last token, it is the next number.  Then the delivery must not be lost, since
 * the one after it would get the number again.
 */
static void
draw_token(Delivery *delivery, Partition *partition)
{
	int64		last = Max(partition->token, identity_void_token()) / ES_MAX_PARTITIONS;
	int64		now = GetCurrentTimestamp();

	if (now <= last)
		delivery->must_last = true;
	partition->token = Max(now, last + 1) * ES_MAX_PARTITIONS + partition->number;
}

/* Delivers what was read, with a new token, up to the position of its last event. */
static void
deliver_batch(Delivery *delivery, Partition *partition, int64 upto)
{
	int8_array_append(&partition->tokens, partition->token);
	int8_array_append(&partition->uptos, upto);
	int8_array_append(&partition->counts, delivery->batch.count);
	partition->consumer = delivery->consumer ? pstrdup(delivery->consumer) :
		NULL;
	partition_extend_lease(partition);
	partition_write(partition, true);
	delivery->partition = partition;
}

/* Delivers the parked stream that is due, if there is one. */
static bool
deliver_stream(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	if (!is_stream_due(partition->due_at, GetCurrentTimestamp()) ||
		!redelivery_read_stream(delivery, partition, snapshot))
		return false;
	draw_token(delivery, partition);
	deliver_batch(delivery, partition, int8_array_last(delivery->positions));
	return true;
}

/* Returns how many events are in flight. */
static int64
count_in_flight(const Partition *partition)
{
	int64		count = 0;
	int			i;

	for (i = 0; i < partition->counts.count; i++)
		count += partition->counts.values[i];
	return count;
}

/* Returns how many events the next delivery may have. */
static int
delivery_limit(const Delivery *delivery, const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	int			expired = redelivery_expired_times(partition,
												   partition->reached + 1);
	int			limit = delivery->max_count;

	if (partition_is_in_flight(partition) &&
		redelivery_expired_times(partition, partition->position + 1) > 0)
		return 0;				/* what may kill consumers is alone in flight */
	if (expired > 0 && expired + 1 >= subscription->max_attempts)
		limit = 1;
	else if (expired > 0)
		limit = Max(limit >> Min(expired, 30), 1);
	return Min(limit, subscription->max_in_flight - count_in_flight(partition));
}

/*
 * Returns the position after which to read on.  What was scanned before has
 * nothing to deliver.
 */
static int64
read_start(const Delivery *delivery, const Partition *partition)
{
	const Scanned *scanned = delivery->scanned;

	if (scanned == NULL)
		return partition->reached;
	scanned += partition->number;
	if (scanned->changed_by != partition->subscription.changed_by)
		return partition->reached;	/* by another filter */
	return partition->reached >= scanned->from ?
		Max(partition->reached, scanned->to) : partition->reached;
}

/*
 * Remembers that the partition has nothing after what it has read, up to the position.
 */
static void
note_scanned(Delivery *delivery, const Partition *partition, int64 upto)
{
	Scanned    *scanned = delivery->scanned;

	if (upto < delivery->horizon)
		delivery->time_over = true;
	if (scanned == NULL)
		return;
	scanned += partition->number;
	scanned->changed_by = partition->subscription.changed_by;
	scanned->from = partition->reached;
	scanned->to = Max(partition->reached, upto);
}

/*
 * Makes the batch of the next read.  Where no event can be parked, all that are read
 * are delivered: then they become rows at once.
 */
static void
begin_batch(Delivery *delivery, const Partition *partition)
{
	EventBatch *batch = &delivery->batch;

	*batch = (EventBatch)
	{
		.events = event_batch_make()
	};
	if (partition->has_failures || delivery->expired_upto != 0)
		return;
	batch->take = delivery->take;
	batch->taker = delivery->taker;
}

/*
 * Reads the next events of the log that can be delivered, at most limit, into
 * the batch.  Returns false if there are none up to the horizon.
 */
static bool
read_log(Delivery *delivery, Partition *partition, Snapshot snapshot,
		 int limit)
{
	ReadLimit	read = {limit, delivery->max_bytes, delivery->deadline};
	EventBatch *batch = &delivery->batch;
	int64		from = read_start(delivery, partition);
	int64		nothing_upto = delivery->horizon;

	while (from < delivery->horizon)
	{
		begin_batch(delivery, partition);
		partition_read(partition, snapshot, from, delivery->horizon, &read, batch);
		if (batch->count == 0)
		{
			nothing_upto = batch->upto;
			note_scanned(delivery, partition, nothing_upto);
			break;
		}
		if (!redelivery_park_expired(delivery, partition) && partition->has_failures)
			redelivery_park_waiting(delivery, partition);
		if (batch->count > 0)
			return true;

		tuplestore_end(batch->events);
		from = partition->reached = batch->upto;
		if (!partition_is_in_flight(partition))
		{
			/* all events of the batch were parked */
			partition_move_checkpoint(partition, from);
			delivery->must_last = true;
		}
		else if (partition->settled.count > MAX_SETTLED)
			return false;		/* the rest when some are acknowledged */
	}
	/* another consumer may have read further before the lock was ours */
	partition->reached = Max(partition->reached, nothing_upto);
	return false;
}

/* Returns true if the log has an event that the partition gets. */
static bool
peek_log(Delivery *delivery, const Partition *partition, Snapshot snapshot)
{
	ReadLimit	one = {.count = 1,.deadline = delivery->deadline};
	EventBatch	batch = {.events = event_batch_make()};

	partition_read(partition, snapshot, read_start(delivery, partition),
				   delivery->horizon, &one, &batch);
	if (batch.count == 0)
		note_scanned(delivery, partition, batch.upto);
	tuplestore_end(batch.events);
	return batch.count > 0;
}

/* Delivers the next events of the log, if there are any. */
static bool
deliver_log(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	int			limit = delivery_limit(delivery, partition);
	int64		last_token = partition->token;
	EventBatch *batch = &delivery->batch;

	if (limit < 1)
		return false;
	delivery->partition = partition;
	draw_token(delivery, partition);	/* rows have it */
	if (!read_log(delivery, partition, snapshot, limit))
	{
		partition->token = last_token;
		return false;
	}
	partition->reached = batch->upto;
	deliver_batch(delivery, partition, tuplestore_tuple_count(batch->events) == 0 ? batch->last :
				  event_batch_last_position(delivery->log, batch->events));
	return true;
}

/*
 * The log has nothing to deliver.  The checkpoint moves to where the log was
 * read, and a parked stream may now lie below it.
 */
static bool
deliver_rest(Delivery *delivery, Partition *partition, Snapshot snapshot)
{
	partition_move_checkpoint(partition, partition->reached);
	delivery->must_last = true;
	return deliver_stream(delivery, partition, snapshot);
}

/*
 * Returns true if the partition is known to be idle, and another session would read over
 * more than so many positions for it.
 */
static bool
is_idle_behind(const Delivery *delivery, const PartitionChoice *choice, int64 positions)
{
	return !choice->tried && choice->leased_until == 0 &&
		delivery->horizon - choice->reached > positions && is_known_idle(delivery, choice);
}

/* Writes that the partition has nothing up to the horizon, if it is still so. */
static void
advance_idle(Delivery *delivery, const Subscription *subscription, int number)
{
	Partition  *partition = partition_lock(subscription, number, false);
	PartitionChoice choice;

	if (partition == NULL)
		return;
	choice = partition_choice(partition, delivery->consumer);
	if (!is_idle_behind(delivery, &choice, 0))
		return;
	partition->reached = delivery->horizon;
	partition_move_checkpoint(partition, partition->reached);
	partition_write(partition, false);
	delivery->must_last = true;
}

/*
 * Writes how far idle partitions are, not each time, as this session knows it, but before
 * a new session would have to read over much.  One call writes few of them.
 */
static void
advance_idle_partitions(Delivery *delivery, const Subscription *subscription,
						const PartitionChoices *choices)
{
	bool		due = false;
	int			left = MAX_ADVANCED;
	int			i;

	for (i = 0; i < choices->count && !due; i++)
		due = is_idle_behind(delivery, &choices->values[i], FARTHEST_BEHIND);
	for (i = 0; i < choices->count && due && left > 0; i++)
	{
		if (!is_idle_behind(delivery, &choices->values[i], FARTHEST_BEHIND / 2))
			continue;
		advance_idle(delivery, subscription, choices->values[i].number);
		left--;
	}
}

/*
 * Delivers from the first partition that has something for the consumer.  The
 * partitions that have nothing are written only if something is delivered, or
 * if this is the final look.  One over which time has passed comes last next time.
 */
static bool
deliver_any(Delivery *delivery, Snapshot snapshot, bool final)
{
	List	   *empty = NIL;
	PartitionChoices choices;
	Subscription subscription;
	Partition  *partition;
	bool		found = false;
	ListCell   *cell;

	subscription_own(delivery->log, delivery->name, &subscription);
	delivery->map = partition_find_map(&subscription);
	choices = partition_choices(&subscription, delivery->consumer);
	while (!found && !delivery->time_over &&
		   (partition = claim_partition(delivery, &subscription, &choices)) != NULL)
	{
		delivery->expired_upto = 0;
		if (partition_is_in_flight(partition))
			redelivery_expire(delivery, partition);
		found = deliver_stream(delivery, partition, snapshot) ||
			deliver_log(delivery, partition, snapshot) ||
			deliver_rest(delivery, partition, snapshot);
		if (!found)
			empty = lappend(empty, partition);
	}
	foreach(cell, empty)
	{
		if (found || final)
			partition_write(lfirst(cell), delivery->time_over && lnext(empty, cell) == NULL);
		delivery->must_last = true;
	}
	if (found || final)
		advance_idle_partitions(delivery, &subscription, &choices);
	return found;
}

/*
 * Delivers what follows a delivery that the consumer has in flight.  What was
 * delivered after that one expires.
 */
static bool
deliver_after(Delivery *delivery, Snapshot snapshot)
{
	Partition  *partition = partition_of_token(delivery->log, delivery->name,
											   delivery->after_token);
	int			place = partition_find_token(partition, delivery->after_token);
	int			settled = partition->settled.count;
	bool		expires = place + 1 < partition->tokens.count;

	delivery->expired_upto = 0;
	if (place < 0)
		partition_refuse_token(partition, delivery->after_token);
	if (partition->stream != NULL)
		return false;
	if (expires)
	{
		redelivery_add_expiry(partition, partition->uptos.values[place],
							  int8_array_last(partition->uptos));
		partition->tokens.count = partition->uptos.count = place + 1;
		partition->counts.count = place + 1;
		partition->reached = int8_array_last(partition->uptos);
	}
	if (deliver_log(delivery, partition, snapshot))
		return true;
	if (expires || partition->settled.count > settled || delivery->time_over)
		partition_write(partition, false);
	return false;
}

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

/* Returns true if the next delivery after the token may have something. */
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

/* Returns true if the partition seems to have something for the consumer. */
static bool
peek_partition(Delivery *delivery, const Subscription *subscription, int number,
			   Snapshot snapshot)
{
	Partition  *partition = partition_peek(subscription, number);

	if (partition == NULL)
		return false;
	if (delivery->after_token != 0)
		return peek_after(delivery, partition, snapshot);
	if (!is_partition_eligible(delivery, partition))
		return false;
	return partition_is_in_flight(partition) ||
		(is_stream_due(partition->due_at, GetCurrentTimestamp()) &&
		 redelivery_find_stream(partition) != NULL) ||
		peek_log(delivery, partition, snapshot);
}

/* Returns true if any partition seems to have something for the consumer. */
static bool
peek_any(Delivery *delivery, const Subscription *subscription, Snapshot snapshot)
{
	PartitionChoices choices = partition_choices(subscription, delivery->consumer);
	TimestampTz now = GetCurrentTimestamp();
	bool		found = false;
	int			i;

	delivery->map = partition_find_map(subscription);
	for (i = 0; i < choices.count && !found && !delivery->time_over; i++)
		found = is_choice_eligible(delivery, &choices.values[i], now) &&
			peek_partition(delivery, subscription, choices.values[i].number, snapshot);
	return found;
}

bool
delivery_peek(Delivery *delivery)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Subscription subscription;
	bool		found;

	delivery->horizon = horizon_find(delivery->log, snapshot);
	subscription_own(delivery->log, delivery->name, &subscription);
	if (delivery->after_token != 0)
		found = peek_partition(delivery, &subscription,
							   partition_number_of_token(delivery->after_token), snapshot);
	else
		found = peek_any(delivery, &subscription, snapshot);
	UnregisterSnapshot(snapshot);
	return found;
}

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
