/*-------------------------------------------------------------------------
 *
 * subscription.c
 *		A subscription: its row in es_subscriptions, and those of its partitions
 *		in es_partitions.
 *
 * Rows are read and written as the owner of the log.  Who delivers from a
 * partition, or settles what was delivered, holds the lock of the partition's
 * row until the end of his transaction: es_poll by FOR UPDATE SKIP LOCKED, as
 * others can go on with another partition, the rest by FOR UPDATE.  Who wants
 * all partitions locks them in the order of their numbers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "eventstore.h"

PG_FUNCTION_INFO_V1(es_create_subscription);
PG_FUNCTION_INFO_V1(es_drop_subscription);
PG_FUNCTION_INFO_V1(es_seek);

#define MAX_MAX_ATTEMPTS	1000
#define MAX_MAX_IN_FLIGHT	1000000

/*
 * The columns of both tables that are read, in this order.
 */
enum
{
	LOAD_NAME = 1, LOAD_OWNER, LOAD_CATEGORY, LOAD_TYPES, LOAD_PARTITIONS,
	LOAD_LEASE, LOAD_MAX_ATTEMPTS, LOAD_MAX_IN_FLIGHT, LOAD_PARTITION,
	LOAD_POSITION, LOAD_REACHED, LOAD_CONSUMER, LOAD_LEASED_UNTIL, LOAD_TOKEN,
	LOAD_ACKED_TOKEN, LOAD_TOKENS, LOAD_UPTOS, LOAD_STREAM, LOAD_SETTLED,
	LOAD_LOST_UPTO, LOAD_LOST_TIMES, LOAD_HAS_FAILURES, LOAD_DUE_AT, LOAD_COUNTS
};

#define SUBSCRIPTION_COLUMNS \
	"s.name, s.owner, s.category, s.types, s.partitions, s.lease," \
	" s.max_attempts, s.max_in_flight"

#define LOAD_SQL \
	"SELECT " SUBSCRIPTION_COLUMNS ", p.partition, p.position, p.reached," \
	" p.consumer, p.leased_until, p.token, p.acked_token, p.tokens, p.uptos," \
	" p.stream, p.settled, p.lost_upto, p.lost_times, p.has_failures," \
	" p.due_at, p.counts" \
	" FROM @extschema@.es_subscriptions s" \
	" JOIN @extschema@.es_partitions p ON p.subscription = s.name "

static void
load_subscription(Subscription *subscription, Oid log)
{
	subscription->log = log;
	subscription->name = run_own_text(LOAD_NAME);
	subscription->owner_name = pstrdup(NameStr(*DatumGetName(run_own_value(LOAD_OWNER))));
	subscription->owner = get_role_oid(subscription->owner_name, true);
	if (run_own_value(LOAD_CATEGORY))
		subscription->category = DatumGetTextPCopy(run_own_value(LOAD_CATEGORY));
	if (run_own_value(LOAD_TYPES))
		subscription->types = DatumGetArrayTypePCopy(run_own_value(LOAD_TYPES));
	subscription->partitions = DatumGetInt32(run_own_value(LOAD_PARTITIONS));
	subscription->lease = *DatumGetIntervalP(run_own_value(LOAD_LEASE));
	subscription->max_attempts = DatumGetInt32(run_own_value(LOAD_MAX_ATTEMPTS));
	subscription->max_in_flight = DatumGetInt32(run_own_value(LOAD_MAX_IN_FLIGHT));
}

/*
 * Makes a partition of the row that was just read, in the current memory
 * context.
 */
static Partition *
make_partition(Oid log)
{
	Partition  *partition = palloc0(sizeof(Partition));

	load_subscription(&partition->subscription, log);
	partition->number = DatumGetInt32(run_own_value(LOAD_PARTITION));
	partition->position = DatumGetInt64(run_own_value(LOAD_POSITION));
	partition->reached = DatumGetInt64(run_own_value(LOAD_REACHED));
	partition->consumer = run_own_text(LOAD_CONSUMER);
	partition->leased_until = DatumGetTimestampTz(run_own_value(LOAD_LEASED_UNTIL));
	partition->token = DatumGetInt64(run_own_value(LOAD_TOKEN));
	partition->acked_token = DatumGetInt64(run_own_value(LOAD_ACKED_TOKEN));
	partition->tokens = numbers_load(LOAD_TOKENS);
	partition->uptos = numbers_load(LOAD_UPTOS);
	partition->stream = run_own_text(LOAD_STREAM);
	partition->settled = numbers_load(LOAD_SETTLED);
	partition->lost_upto = numbers_load(LOAD_LOST_UPTO);
	partition->lost_times = numbers_load(LOAD_LOST_TIMES);
	partition->has_failures = DatumGetBool(run_own_value(LOAD_HAS_FAILURES));
	partition->due_at = DatumGetTimestampTz(run_own_value(LOAD_DUE_AT));
	partition->counts = numbers_load(LOAD_COUNTS);
	return partition;
}

/*
 * Reads the first partition p, of a subscription s, that fits the rest of the
 * statement, in which $1, $2 ... are the values; NULL if there is none.
 */
Partition *
partition_select(Oid log, const char *rest, int nargs, Oid *types,
				 Datum *values, const char *nulls)
{
	Partition  *partition;

	if (run_own_sql(log, psprintf(LOAD_SQL "%s", rest), nargs, types, values,
					nulls) == 0)
		return NULL;
	partition = make_partition(log);
	SPI_freetuptable(SPI_tuptable);
	return partition;
}

/*
 * Reads the subscription of this name; false if there is none.
 */
static bool
find_subscription(Oid log, const char *name, Subscription *subscription)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	memset(subscription, 0, sizeof(Subscription));
	if (run_own_sql(log,
					"SELECT " SUBSCRIPTION_COLUMNS
					" FROM @extschema@.es_subscriptions s WHERE s.name = $1",
					1, &type, &value, NULL) == 0)
		return false;
	load_subscription(subscription, log);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * Refuses a subscription that is not the caller's.
 */
void
subscription_check_owner(const Subscription *subscription)
{
	if (!superuser() &&
		(!OidIsValid(subscription->owner) ||
		 !has_privs_of_role(GetUserId(), subscription->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"",
						subscription->name),
				 errdetail("Its owner is \"%s\".", subscription->owner_name),
				 errhint("Ask the owner, or become a member of that role.")));
}

/*
 * Refuses a subscription that is not there, or not the caller's.
 */
void
subscription_check(Oid log, const char *name)
{
	Subscription subscription;

	if (!find_subscription(log, name, &subscription))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name),
				 errdetail("There is no subscription of this name in this database."),
				 errhint("es_subscription_status lists the subscriptions.")));
	subscription_check_owner(&subscription);
}

/*
 * Reads a partition of the caller's subscription and locks it.  NULL if it has
 * none of this number.
 */
Partition *
partition_own(Oid log, const char *name, int number)
{
	Oid			types[2] = {TEXTOID, INT4OID};
	Datum		values[2] = {CStringGetTextDatum(name), Int32GetDatum(number)};
	Partition  *partition = partition_select(log,
											 "WHERE s.name = $1 AND p.partition = $2"
											 " FOR UPDATE OF p",
											 2, types, values, NULL);

	if (partition == NULL)
		subscription_check(log, name);
	else
		subscription_check_owner(&partition->subscription);
	return partition;
}

/* Whose failures those of a subscription are. */
FailureOwner
subscription_failures(Oid log, const char *name, int partition)
{
	FailureOwner owner = {log, "subscription", name, partition};

	return owner;
}

/* Is anything of it in hand? */
bool
partition_in_hand(const Partition *partition)
{
	return partition->leased_until != 0;
}

/*
 * Nothing of it is in hand any more.
 */
void
partition_free(Partition *partition)
{
	partition->consumer = NULL;
	partition->leased_until = 0;
	partition->tokens.count = partition->uptos.count = 0;
	partition->counts.count = 0;
	partition->stream = NULL;
	partition_look_for_due(partition);
}

/*
 * A parked stream may be due now: its failures have changed, or it was above
 * the checkpoint.
 */
void
partition_look_for_due(Partition *partition)
{
	if (partition->has_failures)
		partition->due_at = GetCurrentTimestamp();
}

/*
 * What is in hand is the consumer's for another lease from now on.
 */
void
partition_extend_lease(Partition *partition)
{
	partition->leased_until =
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												TimestampTzGetDatum(GetCurrentTimestamp()),
												IntervalPGetDatum(&partition->subscription.lease)));
}

/* The place of the token among those of the deliveries in hand; -1: not there. */
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

/*
 * Refuses a token by which nothing is in hand.
 */
void
partition_refuse_token(const Partition *partition, int64 token)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_NOT_CLAIMED),
			 errmsg("nothing is in hand with token " INT64_FORMAT, token),
			 partition == NULL ? errdetail("The subscription has no such partition.") :
			 partition_in_hand(partition) ?
			 errdetail("The events of partition %d were given to %s with token " INT64_FORMAT ".",
					   partition->number,
					   partition->consumer ?
					   psprintf("consumer \"%s\"", partition->consumer) :
					   "another consumer", partition->token) :
			 errdetail("Nothing of partition %d is in hand of anybody.",
					   partition->number),
			 errhint("Give up what was delivered with the token, and poll again.")));
}

/*
 * Locks the partition of the caller's subscription that the token is of.
 */
Partition *
partition_of_token(Oid log, const char *name, int64 token)
{
	Partition  *partition = partition_own(log, name,
										  (int) (token & (ES_MAX_PARTITIONS - 1)));

	if (partition == NULL)
		partition_refuse_token(NULL, token);
	return partition;
}

/*
 * Which events it gets; an error if there is no role any more that could read
 * them.
 */
EventSource
partition_source(const Partition *partition)
{
	const Subscription *subscription = &partition->subscription;
	EventSource source = {
		.log = subscription->log,
		.reader = subscription->owner,
		.category = subscription->category,
		.types = subscription->types,
		.partitions = subscription->partitions,
		.partition = partition->number,
		.except = partition->settled
	};

	if (!OidIsValid(subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of subscription \"%s\" does not exist",
						subscription->name),
				 errdetail("There is no role \"%s\".", subscription->owner_name),
				 errhint("Create the role, or drop the subscription and create it again.")));
	return source;
}

/* The statement that writes a row, and how many values it has. */
#define WRITE_SQL \
	"UPDATE @extschema@.es_partitions SET position = $3, reached = $4," \
	" consumer = $5, leased_until = $6, token = $7, acked_token = $8," \
	" tokens = $9, uptos = $10, counts = $11, stream = $12, settled = $13," \
	" lost_upto = $14, lost_times = $15, has_failures = $16, due_at = $17," \
	" served_at = CASE WHEN $18 THEN clock_timestamp() ELSE served_at END" \
	" WHERE subscription = $1 AND partition = $2"
#define WRITE_VALUES 18

/* A text, or 0 for null. */
static Datum
text_datum(const char *string)
{
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

static Datum
numbers_datum(Numbers numbers)
{
	return PointerGetDatum(numbers_array(numbers));
}

/*
 * Writes the partition's row.  served: it has just been delivered from.
 */
void
partition_write(const Partition *partition, bool served)
{
	Oid			types[WRITE_VALUES] = {TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID,
		TIMESTAMPTZOID, INT8OID, INT8OID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	TEXTOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, BOOLOID, TIMESTAMPTZOID, BOOLOID};
	Datum		values[WRITE_VALUES] = {
		text_datum(partition->subscription.name),
		Int32GetDatum(partition->number),
		Int64GetDatum(partition->position),
		Int64GetDatum(Max(partition->reached, partition->position)),
		text_datum(partition->consumer),
		TimestampTzGetDatum(partition->leased_until),
		Int64GetDatum(partition->token),
		Int64GetDatum(partition->acked_token),
		numbers_datum(partition->tokens),
		numbers_datum(partition->uptos),
		numbers_datum(partition->counts),
		text_datum(partition->stream),
		numbers_datum(partition->settled),
		numbers_datum(partition->lost_upto),
		numbers_datum(partition->lost_times),
		BoolGetDatum(partition->has_failures),
		TimestampTzGetDatum(partition->due_at),
		BoolGetDatum(served)
	};
	char		nulls[WRITE_VALUES];

	memset(nulls, ' ', sizeof(nulls));
	nulls[4] = partition->consumer ? ' ' : 'n';
	nulls[5] = partition->leased_until ? ' ' : 'n';
	nulls[11] = partition->stream ? ' ' : 'n';
	nulls[16] = partition->due_at ? ' ' : 'n';
	(void) run_own_sql(partition->subscription.log, WRITE_SQL, WRITE_VALUES,
					   types, values, nulls);
}

/* Arguments of es_create_subscription, in their order. */
enum
{
	ARG_NAME, ARG_CATEGORY, ARG_TYPES, ARG_START_POSITION, ARG_PARTITIONS,
	ARG_LEASE, ARG_MAX_ATTEMPTS, ARG_MAX_IN_FLIGHT, ARG_COUNT
};

/* Refuses a lease whose end could not be told. */
static void
check_lease(Datum lease)
{
	argument_interval("lease", DatumGetIntervalP(lease), false);
	(void) DirectFunctionCall2(timestamptz_pl_interval,
							   TimestampTzGetDatum(GetCurrentTimestamp()),
							   lease);
}

/*
 * Refuses arguments that are wrong by themselves.
 */
static void
check_arguments(FunctionCallInfo fcinfo)
{
	argument_not_null(fcinfo, ARG_NAME, "name");
	argument_not_null(fcinfo, ARG_PARTITIONS, "partitions");
	argument_not_null(fcinfo, ARG_LEASE, "lease");
	argument_not_null(fcinfo, ARG_MAX_ATTEMPTS, "max_attempts");
	argument_not_null(fcinfo, ARG_MAX_IN_FLIGHT, "max_in_flight");
	argument_name("a subscription",
				  text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)), NAMEDATALEN - 1);
	if (!PG_ARGISNULL(ARG_TYPES))
		argument_types(PG_GETARG_ARRAYTYPE_P(ARG_TYPES));
	if (!PG_ARGISNULL(ARG_START_POSITION))
		argument_range("start_position", PG_GETARG_INT64(ARG_START_POSITION), 0,
					   PG_INT64_MAX);
	argument_range("partitions", PG_GETARG_INT32(ARG_PARTITIONS), 1,
				   ES_MAX_PARTITIONS);
	check_lease(PG_GETARG_DATUM(ARG_LEASE));
	argument_range("max_attempts", PG_GETARG_INT32(ARG_MAX_ATTEMPTS), 1,
				   MAX_MAX_ATTEMPTS);
	argument_range("max_in_flight", PG_GETARG_INT32(ARG_MAX_IN_FLIGHT), 1,
				   MAX_MAX_IN_FLIGHT);
}

/* Stores the rows. */
static void
insert_subscription(FunctionCallInfo fcinfo, Oid log)
{
	Oid			types[ARG_COUNT + 1] = {TEXTOID, TEXTOID, TEXTARRAYOID, INT8OID,
	INT4OID, INTERVALOID, INT4OID, INT4OID, NAMEOID};
	Datum		values[ARG_COUNT + 1];
	char		nulls[ARG_COUNT + 1];
	int			i;

	memset(nulls, ' ', sizeof(nulls));
	for (i = 0; i < ARG_COUNT; i++)
	{
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (PG_ARGISNULL(ARG_START_POSITION))
		values[ARG_START_POSITION] = Int64GetDatum(horizon_now(log));
	nulls[ARG_START_POSITION] = ' ';
	values[ARG_COUNT] = DirectFunctionCall1(namein,
											CStringGetDatum(GetUserNameFromId(GetUserId(), false)));
	(void) run_own_sql(log,
					   "WITH s AS (INSERT INTO @extschema@.es_subscriptions"
					   " (name, category, types, start_position, partitions,"
					   " lease, max_attempts, max_in_flight, owner)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *)"
					   " INSERT INTO @extschema@.es_partitions (subscription,"
					   " partition, position, reached)"
					   " SELECT s.name, i, s.start_position, s.start_position"
					   " FROM s, generate_series(0, s.partitions - 1) AS i",
					   ARG_COUNT + 1, types, values, nulls);
}

/*
 * es_create_subscription(...): makes a subscription, owned by the caller.
 */
Datum
es_create_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Subscription other;
	char	   *name;

	PreventCommandIfReadOnly("es_create_subscription()");
	check_arguments(fcinfo);
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	SPI_connect();
	if (find_subscription(log, name, &other))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", name),
				 errdetail("There is a subscription of this name in this database."),
				 errhint("Use it as it is, or es_drop_subscription() first.")));
	insert_subscription(fcinfo, log);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Locks all partitions of the caller's subscription. */
static void
lock_partitions(Oid log, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	subscription_check(log, name);
	(void) run_own_sql(log,
					   "SELECT FROM @extschema@.es_partitions"
					   " WHERE subscription = $1 ORDER BY partition FOR UPDATE",
					   1, &type, &value, NULL);
}

/*
 * es_drop_subscription(name): its failures are forgotten.
 */
Datum
es_drop_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Oid			type = TEXTOID;
	Datum		value = PG_GETARG_DATUM(0);

	PreventCommandIfReadOnly("es_drop_subscription()");
	SPI_connect();
	lock_partitions(log, name);
	failure_remove_after(subscription_failures(log, name, 0), 0);
	(void) run_own_sql(log,
					   "DELETE FROM @extschema@.es_partitions WHERE subscription = $1",
					   1, &type, &value, NULL);
	(void) run_own_sql(log,
					   "DELETE FROM @extschema@.es_subscriptions WHERE name = $1",
					   1, &type, &value, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_seek(subscription, position): what is in hand is void; what was set aside
 * after the position will be delivered from the log again.
 */
Datum
es_seek(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2];
	char	   *name;
	int64		position;

	PreventCommandIfReadOnly("es_seek()");
	argument_not_null(fcinfo, 0, "subscription");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	position = PG_ARGISNULL(1) ? horizon_now(log) : PG_GETARG_INT64(1);
	argument_range("position", position, 0, PG_INT64_MAX);
	SPI_connect();
	lock_partitions(log, name);
	failure_remove_after(subscription_failures(log, name, 0), position);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = Int64GetDatum(position);
	(void) run_own_sql(log,
					   "UPDATE @extschema@.es_partitions SET position = $2,"
					   " reached = $2, consumer = NULL, leased_until = NULL,"
					   " tokens = '{}', uptos = '{}', counts = '{}', stream = NULL,"
					   " settled = '{}', lost_upto = '{}', lost_times = '{}',"
					   " due_at = CASE WHEN has_failures THEN clock_timestamp() END"
					   " WHERE subscription = $1", 2, types, values, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}
