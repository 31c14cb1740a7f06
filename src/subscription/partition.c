/*-------------------------------------------------------------------------
 *
 * partition.c
 *		A partition of a subscription: its row in es_partitions.
 *
 * A transaction that delivers from a partition, or settles what was delivered,
 * holds the lock of its row until it ends.  es_poll does not wait for the lock,
 * as it can go on with another partition; all others wait.  Only what was read
 * under the lock counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/wait.h"
#include "identity/identity.h"
#include "read/read.h"
#include "read/source.h"
#include "failure/failure.h"
#include "subscription/subscription.h"

/* Columns of es_partitions. */
enum
{
	PART_SUBSCRIPTION, PART_PARTITION, PART_POSITION, PART_REACHED,
	PART_DELIVERED_AT, PART_LEASED_UNTIL, PART_DUE_AT, PART_TOKEN,
	PART_ACKED_TOKEN, PART_CONSUMER, PART_TOKENS, PART_UPTOS, PART_COUNTS, PART_STREAM,
	PART_HAS_FAILURES, PART_SETTLED, PART_EXPIRED_UPTO,
	PART_EXPIRED_TIMES, PART_EARLIER_UPTO, PART_EARLIER_CATEGORIES,
	PART_EARLIER_TYPES, PART_EARLIER_QUERY, PART_COLUMNS
};

/* Returns a text, or 0 for null. */
static Datum
text_datum(const char *string)
{
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

/* Returns a text of the row, or NULL, in the current memory context. */
static char *
row_text_or_null(const TableRow *row, int column)
{
	return row->slot->tts_isnull[column] ? NULL :
		TextDatumGetCString(row->slot->tts_values[column]);
}

/* Returns a time of the row, or 0 for null. */
static TimestampTz
row_time_or_null(const TableRow *row, int column)
{
	return row->slot->tts_isnull[column] ? 0 :
		DatumGetTimestampTz(row->slot->tts_values[column]);
}

/* Returns an array of texts of the row, or NULL, in the current memory context. */
static ArrayType *
row_texts_or_null(const TableRow *row, int column)
{
	return row->slot->tts_isnull[column] ? NULL :
		DatumGetArrayTypePCopy(row->slot->tts_values[column]);
}

/*
 * Returns true if what is in flight was delivered in an earlier incarnation of the store,
 * to a consumer that may have read another log.
 */
static bool
is_flight_void(TimestampTz leased_until, int64 token)
{
	return leased_until != 0 && token <= identity_void_token();
}

/*
 * Takes back what is in flight, to be delivered again.  No lease has expired, so that it
 * counts as no attempt.
 */
static void
take_back_flight(Partition *partition)
{
	if (partition->stream != NULL)
		partition->due_at = GetCurrentTimestamp();
	else
		partition->reached = partition->position;
	partition->consumer = NULL;
	partition->leased_until = 0;
	partition->tokens.count = partition->uptos.count = 0;
	partition->counts.count = 0;
	partition->stream = NULL;
}

/* Makes a partition of the row that was read. */
static Partition *
make_partition(const Subscription *subscription, const TableRow *row)
{
	Partition  *partition = palloc0(sizeof(Partition));
	Datum	   *values = row->slot->tts_values;

	slot_getsomeattrs(row->slot, PART_COLUMNS);
	partition->subscription = *subscription;
	partition->row = ExecCopySlotHeapTuple(row->slot);
	partition->number = DatumGetInt32(values[PART_PARTITION]);
	partition->position = DatumGetInt64(values[PART_POSITION]);
	partition->reached = DatumGetInt64(values[PART_REACHED]);
	partition->delivered_at = row_time_or_null(row, PART_DELIVERED_AT);
	partition->consumer = row_text_or_null(row, PART_CONSUMER);
	partition->leased_until = row_time_or_null(row, PART_LEASED_UNTIL);
	partition->token = DatumGetInt64(values[PART_TOKEN]);
	partition->acked_token = DatumGetInt64(values[PART_ACKED_TOKEN]);
	partition->tokens = int8_array_read(values[PART_TOKENS]);
	partition->uptos = int8_array_read(values[PART_UPTOS]);
	partition->counts = int8_array_read(values[PART_COUNTS]);
	partition->stream = row_text_or_null(row, PART_STREAM);
	partition->has_failures = DatumGetBool(values[PART_HAS_FAILURES]);
	partition->due_at = row_time_or_null(row, PART_DUE_AT);
	partition->settled = int8_array_read(values[PART_SETTLED]);
	partition->expired_upto = int8_array_read(values[PART_EXPIRED_UPTO]);
	partition->expired_times = int8_array_read(values[PART_EXPIRED_TIMES]);
	if (!row->slot->tts_isnull[PART_EARLIER_UPTO])
		partition->earlier_upto = DatumGetInt64(values[PART_EARLIER_UPTO]);
	partition->earlier_categories = row_texts_or_null(row, PART_EARLIER_CATEGORIES);
	partition->earlier_types = row_texts_or_null(row, PART_EARLIER_TYPES);
	if (!row->slot->tts_isnull[PART_EARLIER_QUERY])
		partition->earlier_query = query_read(DatumGetJsonbPCopy(values[PART_EARLIER_QUERY]));
	if (is_flight_void(partition->leased_until, partition->token))
		take_back_flight(partition);
	return partition;
}

/* Returns true if the row is of a consumer that has a name. */
static bool
is_consumer_of_row(const TableRow *row, const char *consumer)
{
	return consumer != NULL && !row->slot->tts_isnull[PART_CONSUMER] &&
		strcmp(TextDatumGetCString(row->slot->tts_values[PART_CONSUMER]), consumer) == 0;
}

/* The same for a row of which no partition was made. */
static void
take_back_choice(PartitionChoice *choice, const TableRow *row)
{
	choice->leased_until = 0;
	choice->mine = false;
	if (row->slot->tts_isnull[PART_STREAM])
		choice->reached = DatumGetInt64(row->slot->tts_values[PART_POSITION]);
	else
		choice->due_at = GetCurrentTimestamp();
}

/* Takes no more from the row in the slot than is needed. */
static void
read_choice(const TableRow *row, const char *consumer, PartitionChoice *choice)
{
	slot_getsomeattrs(row->slot, PART_TOKEN + 1);
	choice->number = DatumGetInt32(row->slot->tts_values[PART_PARTITION]);
	choice->reached = DatumGetInt64(row->slot->tts_values[PART_REACHED]);
	choice->delivered_at = row_time_or_null(row, PART_DELIVERED_AT);
	choice->leased_until = row_time_or_null(row, PART_LEASED_UNTIL);
	choice->due_at = row_time_or_null(row, PART_DUE_AT);
	choice->mine = choice->tried = false;
	if (choice->leased_until == 0)
		return;
	slot_getsomeattrs(row->slot, PART_STREAM + 1);
	choice->mine = is_consumer_of_row(row, consumer);
	if (is_flight_void(choice->leased_until,
					   DatumGetInt64(row->slot->tts_values[PART_TOKEN])))
		take_back_choice(choice, row);
}

/* Takes the next row, by the walk if there is one. */
static bool
next_choice_row(TableRow *row, RowWalk *walk)
{
	HeapTuple	next;

	if (walk == NULL)
		return table_row_next(row);
	next = row_walk_next(walk);
	if (next != NULL)
		row_walk_store(walk, next, row->slot);
	return next != NULL;
}

/* All are read at each poll, as another session may have delivered to the consumer. */
PartitionChoices
partition_choices(const Subscription *subscription, const char *consumer)
{
	PartitionChoices choices = {palloc(sizeof(PartitionChoice) * subscription->partitions), 0};
	RowWalk    *walk;
	TableRow	row;

	table_row_open(&row, subscription->log, "es_partitions", AccessShareLock);
	table_row_find(&row, subscription->name, NULL);
	walk = subscription->partitions > 1 && row_walk_is_possible(row.rel) ?
		row_walk_begin(row.rel, row.scan) : NULL;
	while (choices.count < subscription->partitions && next_choice_row(&row, walk))
		read_choice(&row, consumer, &choices.values[choices.count++]);
	if (walk != NULL)
		row_walk_end(walk);
	table_row_close(&row);
	return choices;
}

PartitionChoice
partition_choice(const Partition *partition, const char *consumer)
{
	PartitionChoice choice = {
		partition->number, partition->reached, partition->delivered_at,
		partition->leased_until, partition->due_at, false, false
	};

	choice.mine = partition_is_in_flight(partition) && consumer != NULL &&
		partition->consumer != NULL && strcmp(partition->consumer, consumer) == 0;
	return choice;
}

Partition *
partition_peek(const Subscription *subscription, int number)
{
	Partition  *partition = NULL;
	TableRow	row;

	table_row_open(&row, subscription->log, "es_partitions", AccessShareLock);
	table_row_find(&row, subscription->name, &number);
	if (table_row_next(&row))
		partition = make_partition(subscription, &row);
	table_row_close(&row);
	return partition;
}

/*
 * Returns true if the subscription is not as it was read before its partition was
 * locked: it has another filter, or the name, by which it is read, is another one's.
 * Under the lock neither can change any more.
 */
static bool
has_changed(const Subscription *subscription)
{
	Subscription now = *subscription;

	return !subscription_reread(&now) || now.changed_by != subscription->changed_by;
}

Partition *
partition_lock(const Subscription *subscription, int number, bool wait)
{
	Partition  *partition = NULL;
	TableRow	row;
	WaitContext context;

	wait_context_begin(&context, "subscription", subscription->name, number);
	table_row_open(&row, subscription->log, "es_partitions", RowShareLock);
	table_row_find(&row, subscription->name, &number);
	if (table_row_next(&row) && table_row_lock(&row, wait))
		partition = make_partition(subscription, &row);
	table_row_close(&row);
	wait_context_end(&context);
	if (partition != NULL && has_changed(subscription))
		return NULL;
	return partition;
}

/*
 * Locks a partition of a subscription that is read by one of the two functions, and
 * tries again if the subscription was changed meanwhile.
 */
static Partition *
lock_checked_partition(Oid log, const char *name, int number,
					   void (*read) (Oid log, const char *name, Subscription *subscription))
{
	Subscription subscription;
	Partition  *partition;
	TransactionId changed_by;

	read(log, name, &subscription);
	do
	{
		changed_by = subscription.changed_by;
		partition = partition_lock(&subscription, number, true);
		if (partition != NULL)
			return partition;
		read(log, name, &subscription);
	} while (subscription.changed_by != changed_by);
	return NULL;
}

Partition *
partition_own(Oid log, const char *name, int number)
{
	return lock_checked_partition(log, name, number, subscription_own);
}

Partition *
partition_operated(Oid log, const char *name, int number)
{
	return lock_checked_partition(log, name, number, subscription_operated);
}

FailureOwner
partition_failures(const Partition *partition)
{
	return subscription_failures(partition->subscription.log,
								 partition->subscription.name,
								 partition->number);
}

bool
partition_is_in_flight(const Partition *partition)
{
	return partition->leased_until != 0;
}

void
partition_release(Partition *partition)
{
	partition->consumer = NULL;
	partition->leased_until = 0;
	partition->tokens.count = partition->uptos.count = 0;
	partition->counts.count = 0;
	partition->stream = NULL;
	partition_find_due(partition);
}

void
partition_move_checkpoint(Partition *partition, int64 position)
{
	if (partition->position == position)
		return;
	partition->position = position;
	int8_array_remove_upto(&partition->settled, position);
	partition_find_due(partition);
}

void
partition_find_due(Partition *partition)
{
	Oid			types[3] = {TEXTOID, INT4OID, INT8OID};
	Datum		values[3] = {
		text_datum(partition->subscription.name),
		Int32GetDatum(partition->number), Int64GetDatum(partition->position)
	};

	if (!partition->has_failures)
		return;
	(void) own_sql_run(partition->subscription.log,
					   "SELECT (SELECT min(f.retry_at) FROM @extschema@.es_failures f"
					   " WHERE f.subscription = $1 AND f.partition = $2"
					   " AND f.retry_at IS NOT NULL AND f.position <= $3"
					   " AND NOT EXISTS (SELECT FROM @extschema@.es_failures g"
					   " WHERE g.subscription = f.subscription"
					   " AND g.stream = f.stream AND g.position < f.position)),"
					   " EXISTS (SELECT FROM @extschema@.es_failures"
					   " WHERE subscription = $1 AND partition = $2)",
					   3, types, values, NULL);
	partition->due_at = DatumGetTimestampTz(own_sql_value(1));
	partition->has_failures = DatumGetBool(own_sql_value(2));
	SPI_freetuptable(SPI_tuptable);
}

void
partition_extend_lease(Partition *partition)
{
	partition->leased_until =
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												TimestampTzGetDatum(GetCurrentTimestamp()),
												IntervalPGetDatum(&partition->subscription.lease)));
}

int
partition_find_token(const Partition *partition, int64 token)
{
	int			i;

	for (i = 0; i < partition->tokens.count; i++)
	{
		if (partition->tokens.values[i] == token)
			return i;
	}
	return -1;
}

void
partition_refuse_token(const Partition *partition, int64 token)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_NOT_CLAIMED),
			 errmsg("nothing is in flight with token " INT64_FORMAT, token),
			 partition == NULL ? errdetail("The subscription has no such partition.") :
			 token > 0 && token <= identity_void_token() ?
			 errdetail("It is from before the store was restored, promoted or copied.") :
			 partition_is_in_flight(partition) ?
			 errdetail("The events of partition %d were delivered to %s with token " INT64_FORMAT ".",
					   partition->number,
					   partition->consumer ?
					   psprintf("consumer \"%s\"", partition->consumer) :
					   "another consumer", partition->token) :
			 errdetail("Nothing of partition %d is in flight.",
					   partition->number),
			 errhint("Discard what was delivered with the token, and poll again.")));
}

int
partition_number_of_token(int64 token)
{
	return (int) (token & (ES_MAX_PARTITIONS - 1));
}

Partition *
partition_of_token(Oid log, const char *name, int64 token)
{
	Partition  *partition = partition_own(log, name,
										  partition_number_of_token(token));

	if (partition == NULL)
		partition_refuse_token(NULL, token);
	return partition;
}

const PartitionMap *
partition_find_map(const Subscription *subscription)
{
	EventSource source = {
		.log = subscription->log,
		.categories = subscription->categories,
		.types = subscription->types,
		.query = subscription->query,
		.partitions = subscription->partitions,
		.subscription = subscription->name,
		.changed_by = subscription->changed_by
	};
	Relation	log;
	PartitionMap *map;

	if (!OidIsValid(subscription->owner) ||
		!role_may_read_all(subscription->log, subscription->owner))
		return NULL;
	log = table_open(subscription->log, AccessShareLock);
	map = partition_map_find(&source, log);
	table_close(log, AccessShareLock);
	return map;
}

EventSource
partition_source(const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	EventSource source = {
		.log = subscription->log,
		.reader = subscription->owner,
		.categories = subscription->categories,
		.types = subscription->types,
		.query = subscription->query,
		.partitions = subscription->partitions,
		.partition = partition->number,
		.except = partition->settled
	};

	if (!OidIsValid(subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of subscription \"%s\" does not exist",
						subscription->name),
				 errdetail("%s", role_missing_detail(&subscription->owner_role)),
				 errhint("%s", role_missing_hint(&subscription->owner_role,
												 "drop the subscription and create it again"))));
	return source;
}

void
partition_read(const Partition *partition, Snapshot snapshot, int64 after, int64 upto,
			   const ReadLimit *limit, EventBatch *batch)
{
	EventSource source = partition_source(partition);
	EventSource earlier = source;

	batch->count = 0;
	batch->upto = upto;
	if (after < partition->earlier_upto)
	{
		earlier.categories = partition->earlier_categories;
		earlier.types = partition->earlier_types;
		earlier.query = partition->earlier_query;
		event_reader_read(&earlier, snapshot, after, Min(upto, partition->earlier_upto),
						  limit, batch);
		if (batch->count == limit->count || batch->upto < partition->earlier_upto)
			return;
		after = partition->earlier_upto;
	}
	source.subscription = partition->subscription.name;
	source.changed_by = partition->subscription.changed_by;
	if (after < upto)
		event_reader_read(&source, snapshot, after, upto, limit, batch);
}

static Datum
int8_array_datum(Int8Array numbers)
{
	return PointerGetDatum(int8_array_make(numbers));
}

/* Writes the filter before, as long as events that it has chosen are not settled. */
static void
write_earlier_filter(const Partition *partition, Datum *values, bool *nulls)
{
	bool		needed = partition->earlier_upto > partition->position;

	values[PART_EARLIER_UPTO] = Int64GetDatum(partition->earlier_upto);
	values[PART_EARLIER_CATEGORIES] = PointerGetDatum(partition->earlier_categories);
	values[PART_EARLIER_TYPES] = PointerGetDatum(partition->earlier_types);
	if (partition->earlier_query != NULL)
		values[PART_EARLIER_QUERY] = JsonbPGetDatum(partition->earlier_query->json);
	nulls[PART_EARLIER_UPTO] = !needed;
	nulls[PART_EARLIER_CATEGORIES] = !needed || partition->earlier_categories == NULL;
	nulls[PART_EARLIER_TYPES] = !needed || partition->earlier_types == NULL;
	nulls[PART_EARLIER_QUERY] = !needed || partition->earlier_query == NULL;
}

void
partition_write(Partition *partition, bool delivered)
{
	Datum		values[PART_COLUMNS];
	bool		nulls[PART_COLUMNS] = {false};
	TableRow	row;

	if (delivered)
		partition->delivered_at = GetCurrentTimestamp();
	values[PART_SUBSCRIPTION] = text_datum(partition->subscription.name);
	values[PART_PARTITION] = Int32GetDatum(partition->number);
	values[PART_POSITION] = Int64GetDatum(partition->position);
	values[PART_REACHED] = Int64GetDatum(Max(partition->reached,
											 partition->position));
	values[PART_DELIVERED_AT] = TimestampTzGetDatum(partition->delivered_at);
	nulls[PART_DELIVERED_AT] = partition->delivered_at == 0;
	values[PART_CONSUMER] = text_datum(partition->consumer);
	nulls[PART_CONSUMER] = partition->consumer == NULL;
	values[PART_LEASED_UNTIL] = TimestampTzGetDatum(partition->leased_until);
	nulls[PART_LEASED_UNTIL] = partition->leased_until == 0;
	values[PART_TOKEN] = Int64GetDatum(partition->token);
	values[PART_ACKED_TOKEN] = Int64GetDatum(partition->acked_token);
	values[PART_TOKENS] = int8_array_datum(partition->tokens);
	values[PART_UPTOS] = int8_array_datum(partition->uptos);
	values[PART_COUNTS] = int8_array_datum(partition->counts);
	values[PART_STREAM] = text_datum(partition->stream);
	nulls[PART_STREAM] = partition->stream == NULL;
	values[PART_HAS_FAILURES] = BoolGetDatum(partition->has_failures);
	values[PART_DUE_AT] = TimestampTzGetDatum(partition->due_at);
	nulls[PART_DUE_AT] = partition->due_at == 0;
	values[PART_SETTLED] = int8_array_datum(partition->settled);
	values[PART_EXPIRED_UPTO] = int8_array_datum(partition->expired_upto);
	values[PART_EXPIRED_TIMES] = int8_array_datum(partition->expired_times);
	write_earlier_filter(partition, values, nulls);
	table_row_open(&row, partition->subscription.log, "es_partitions",
				   RowExclusiveLock);
	table_row_update(&row, partition->row, values, nulls, PART_COLUMNS);
	table_row_close(&row);
}
