/*-------------------------------------------------------------------------
 *
 * ack.c
 *		es_ack and es_nack: what becomes of events that were delivered.
 *
 * Both lock the partition's row and need a token that is in flight.  So a
 * consumer whose events were redelivered to another one settles nothing.  A
 * token whose lease has expired is valid until the next delivery.
 *
 * es_ack moves the checkpoint.  A partition of which nothing is in flight any
 * more is free.  es_nack settles single events before the checkpoint gets
 * there: their positions are remembered (settled), and left out when the rest
 * is redelivered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "identity/identity.h"
#include "read/read.h"
#include "failure/failure.h"
#include "subscription/delivery.h"

PG_FUNCTION_INFO_V1(es_ack);
PG_FUNCTION_INFO_V1(es_nack);

/*
 * Takes subscription and token, the first two arguments, and locks the
 * partition.  Returns NULL if the token is that of the last delivery that was
 * settled, as it is when a call is repeated.  place: of the token among those
 * in flight.
 */
static Partition *
open_token(FunctionCallInfo fcinfo, const char *function, int64 *position,
		   int *place)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	int64		token;
	Partition  *partition;

	PreventCommandIfReadOnly(function);
	argument_not_null(fcinfo, 0, "subscription");
	argument_not_null(fcinfo, 1, "token");
	token = PG_GETARG_INT64(1);
	identity_check_consumer(log);
	SPI_connect();
	partition = partition_of_token(log,
								   text_to_cstring(PG_GETARG_TEXT_PP(0)),
								   token);
	*place = partition_find_token(partition, token);
	*position = partition->position;
	if (*place >= 0)
		return partition;
	if (token <= 0 || partition->acked_token != token)
		partition_refuse_token(partition, token);
	return NULL;
}

/*
 * Refuses a position that was not delivered with the token.  Of a parked
 * stream, es_nack may have taken it back since.
 */
static void
check_delivered_position(const Partition *partition, int place, int64 position)
{
	int64		upto = partition->uptos.values[place];

	if (position < 0 || (position > upto && partition->stream == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " INT64_FORMAT " was not delivered with this token",
						position),
				 errdetail("Token " INT64_FORMAT " is for events up to position " INT64_FORMAT ".",
						   partition->tokens.values[place], upto),
				 errhint("Pass the position of an event that came with the token.")));
}

/*
 * Reads events in flight that are not settled, after one position and up to
 * another, at most limit.
 */
static void
read_in_flight(const Partition *partition, int64 after, int64 upto, int limit,
			   EventBatch *batch)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ReadLimit	most = {.count = limit};

	*batch = (EventBatch)
	{
		.events = event_batch_make()
	};
	partition_read(partition, snapshot, after, upto, &most, batch);
	UnregisterSnapshot(snapshot);
}

/* Returns how many events in flight, up to a position, are not settled. */
static int64
count_unsettled(const Partition *partition, int64 upto)
{
	EventBatch	batch;

	read_in_flight(partition, partition->position, upto,
				   partition->subscription.max_in_flight, &batch);
	tuplestore_end(batch.events);
	return batch.count;
}

/*
 * Everything that was in flight is settled: frees the partition, and moves its
 * checkpoint to where the log was read.
 */
static void
finish_deliveries(Partition *partition)
{
	partition->acked_token = int8_array_last(partition->tokens);
	if (partition->stream == NULL)
		partition->position = partition->reached;
	partition_release(partition);
	int8_array_remove_upto(&partition->settled, partition->position);
	if (int8_array_last(partition->expired_upto) <= partition->position)
		partition->expired_upto.count = partition->expired_times.count = 0;
}

/* Returns true if anything in flight is not settled. */
static bool
has_unsettled(const Partition *partition)
{
	Failure		first;

	if (partition->stream == NULL)
		return partition->settled.count == 0 ||
			count_unsettled(partition, int8_array_last(partition->uptos)) > 0;
	return failure_first(partition_failures(partition), partition->stream, &first) &&
		first.position <= int8_array_last(partition->uptos);
}

/*
 * Begins the lease anew if anything is still in flight; frees the partition
 * otherwise.
 */
static void
renew_or_finish(Partition *partition)
{
	if (!has_unsettled(partition))
	{
		finish_deliveries(partition);
		return;
	}
	int8_array_remove_upto(&partition->settled, partition->position);
	partition_extend_lease(partition);
	partition_find_due(partition);
	if (partition->stream == NULL)
		partition->counts.values[0] = count_unsettled(partition,
													  partition->uptos.values[0]);
}

/* Acknowledges events of the log up to the position. */
static void
ack_log(Partition *partition, int64 upto)
{
	int			done = 0;

	if (upto >= int8_array_last(partition->uptos))
	{
		finish_deliveries(partition);
		return;
	}
	partition->position = Max(partition->position, upto);
	while (partition->uptos.values[done] <= partition->position)
		done++;
	if (done > 0)
		partition->acked_token = partition->tokens.values[done - 1];
	int8_array_remove_first(&partition->uptos, done);
	int8_array_remove_first(&partition->tokens, done);
	int8_array_remove_first(&partition->counts, done);
	renew_or_finish(partition);
}

/* Acknowledges events of a parked stream up to the position. */
static void
ack_stream(Partition *partition, int64 upto)
{
	upto = Min(upto, int8_array_last(partition->uptos));
	failure_remove_stream(partition_failures(partition), partition->stream, upto);
	if (upto >= int8_array_last(partition->uptos))
		finish_deliveries(partition);
	else
		renew_or_finish(partition);
}

/*
 * es_ack(subscription, token, upto_position) returns bigint: acknowledges what
 * was delivered with the token, and before it, up to the position; returns the
 * checkpoint.  Errors: ES006 if nothing is in flight with the token.
 */
Datum
es_ack(PG_FUNCTION_ARGS)
{
	int			place;
	int64		position;
	int64		upto;
	Partition  *partition = open_token(fcinfo, "es_ack()", &position, &place);

	if (partition != NULL)
	{
		upto = PG_ARGISNULL(2) ? partition->uptos.values[place] :
			PG_GETARG_INT64(2);
		check_delivered_position(partition, place, upto);
		if (partition->stream != NULL)
			ack_stream(partition, upto);
		else
			ack_log(partition, upto);
		partition_write(partition, false);
		position = partition->position;
	}
	SPI_finish();
	PG_RETURN_INT64(position);
}

/* What es_nack does with an event. */
typedef enum Action
{
	ACTION_RETRY, ACTION_PARK, ACTION_SKIP
} Action;

static const char *const action_names[] = {"retry", "park", "skip"};

static Action
action_of_name(text *action)
{
	char	   *word = text_to_cstring(action);
	int			i;

	for (i = ACTION_RETRY; i <= ACTION_SKIP; i++)
	{
		if (strcmp(word, action_names[i]) == 0)
			return (Action) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown action \"%s\"", word),
			 errdetail("It must be 'retry', 'park' or 'skip'.")));
}

/*
 * Remembers that an event in flight is settled, which its delivery has no more in
 * flight.
 */
static void
settle_position(Partition *partition, int64 position)
{
	int			place = 0;

	int8_array_append(&partition->settled, position);
	while (place < partition->uptos.count && partition->uptos.values[place] < position)
		place++;
	if (place < partition->counts.count && partition->counts.values[place] > 0)
		partition->counts.values[place]--;
}

/*
 * Parks an event in flight, and those in flight of its stream that come after
 * it.
 */
static void
park_event(Partition *partition, EventBatch *event, ErrorData *error, int attempts,
		   double pause)
{
	Oid			log = partition->subscription.log;
	EventBatch	later;
	text	   *stream;
	List	   *failed = park_first(log, event, error, attempts, NIL, &stream);
	List	   *waiting;
	ListCell   *cell;

	partition->has_failures = true;
	park_save(partition_failures(partition), failed, pause);
	read_in_flight(partition, event->upto, int8_array_last(partition->uptos),
				   partition->subscription.max_in_flight, &later);
	waiting = park_take(log, &later, list_make1(stream), NIL);
	foreach(cell, waiting)
	{
		ParkedEvent *one = lfirst(cell);

		one->attempts = redelivery_expired_times(partition, one->position) + 1;
		settle_position(partition, one->position);
	}
	park_save(partition_failures(partition), waiting, FAILURE_PARKED);
	tuplestore_end(later.events);
}

/* Returns true if an event of the partition was removed from the position. */
static bool
is_removed_from_partition(const Partition *partition, int64 position)
{
	const Subscription *subscription = &partition->subscription;
	Oid			types[3] = {INT8OID, INT8OID, INT4OID};
	Datum		values[3] = {Int64GetDatum(position),
		Int64GetDatum(subscription->partitions),
	Int32GetDatum(partition->number)};

	return position > partition->position &&
		failure_is_removed(subscription->log, position) &&
		own_sql_run(subscription->log,
					"SELECT FROM @extschema@.es_removals WHERE positions @> $1"
					" AND @extschema@.es_partition(stream, $2) = $3 LIMIT 1",
					3, types, values, NULL) > 0;
}

/*
 * Settles an event in flight that is not there: there is nothing left to try if it was removed
 * from the log since it was delivered.
 */
static Action
nack_missing(Partition *partition, int64 position)
{
	if (!is_removed_from_partition(partition, position))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no event at position " INT64_FORMAT " is in flight",
						position),
				 errdetail("Partition %d of subscription \"%s\" has none there, or it was acknowledged.",
						   partition->number, partition->subscription.name),
				 errhint("Pass the position of an event that came with the token.")));
	ereport(NOTICE,
			(errmsg("the event at position " INT64_FORMAT " is skipped", position),
			 errdetail("It was removed from the log after it was delivered.")));
	settle_position(partition, position);
	return ACTION_SKIP;
}

/* Settles an event of the log; returns the action that was taken. */
static Action
nack_log(Partition *partition, int64 position, ErrorData *error,
		 Action action)
{
	int			attempts = redelivery_expired_times(partition, position) + 1;
	EventBatch	event;

	read_in_flight(partition, Max(position - 1, partition->position), position,
				   1, &event);
	if (event.count == 0)
		return nack_missing(partition, position);
	if (action == ACTION_RETRY &&
		attempts >= partition->subscription.max_attempts)
		action = ACTION_PARK;
	if (action != ACTION_SKIP)
		park_event(partition, &event, error, attempts,
				   action == ACTION_PARK ? FAILURE_PARKED :
				   failure_pause(attempts));
	settle_position(partition, position);
	tuplestore_end(event.events);
	return action;
}

/*
 * Settles an event of a parked stream; returns the action that was taken.
 * Unless it is skipped, those behind it are not in flight any more.
 */
static Action
nack_stream(Partition *partition, int64 position, ErrorData *error,
			Action action)
{
	Oid			log = partition->subscription.log;
	Failure		failure;

	if (position > int8_array_last(partition->uptos) ||
		!failure_at(partition_failures(partition), position, &failure))
		return action;			/* the call is repeated, or it was discarded */
	if (action == ACTION_RETRY &&
		failure.attempts >= partition->subscription.max_attempts)
		action = ACTION_PARK;
	if (action == ACTION_SKIP)
	{
		(void) failure_remove(log, failure.id);
		failure_release(partition_failures(partition), partition->stream);
	}
	else
	{
		failure_record_attempt(log, failure.id, error, 0,
							   action == ACTION_PARK ? FAILURE_PARKED :
							   failure_pause(failure.attempts));
		partition->uptos.values[0] = position - 1;
	}
	return action;
}

/*
 * Settles an event in flight, if it is not settled yet; returns the action that
 * was taken.
 */
static Action
nack_event(Partition *partition, int64 position, text *reason, Action action)
{
	ErrorData	error = {.message = text_to_cstring(reason)};

	if (int8_array_has(&partition->settled, position))
		return action;			/* the call is repeated, perhaps */
	if (partition->stream != NULL)
		action = nack_stream(partition, position, &error, action);
	else
		action = nack_log(partition, position, &error, action);
	renew_or_finish(partition);
	partition_write(partition, false);
	return action;
}

/*
 * es_nack(subscription, token, position, reason, action) returns text: settles
 * an event that could not be handled; the rest of the delivery stays in flight.
 * Returns the action that was taken: park after the last attempt, even if the
 * caller asked for a retry.  Errors: ES006 if nothing is in flight with the
 * token.
 */
Datum
es_nack(PG_FUNCTION_ARGS)
{
	int			place;
	int64		checkpoint;
	Partition  *partition;
	Action		action;

	argument_not_null(fcinfo, 2, "position");
	argument_not_null(fcinfo, 3, "reason");
	argument_not_null(fcinfo, 4, "action");
	action = action_of_name(PG_GETARG_TEXT_PP(4));
	partition = open_token(fcinfo, "es_nack()", &checkpoint, &place);
	if (partition != NULL)
	{
		check_delivered_position(partition, place, PG_GETARG_INT64(2));
		action = nack_event(partition, PG_GETARG_INT64(2), PG_GETARG_TEXT_PP(3),
							action);
	}
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(action_names[action]));
}
