/*-------------------------------------------------------------------------
 *
 * subscription.c
 *		A subscription: its row in es_subscriptions; es_create_subscription,
 *		es_drop_subscription, es_seek.
 *
 * A transaction that changes all partitions of a subscription locks them in the
 * order of their numbers, and so waits for those that deliver or acknowledge.
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

#include "eventstore.h"
#include "base/base.h"
#include "base/wait.h"
#include "log/log.h"
#include "type/type.h"
#include "notify/notify.h"
#include "read/source.h"
#include "failure/failure.h"
#include "retention/rule.h"
#include "subscription/subscription.h"

PG_FUNCTION_INFO_V1(es_create_subscription);
PG_FUNCTION_INFO_V1(es_drop_subscription);
PG_FUNCTION_INFO_V1(es_seek);

#define MAX_MAX_ATTEMPTS	1000
#define MAX_MAX_IN_FLIGHT	1000000

/* Columns of es_subscriptions. */
enum
{
	SUB_NAME, SUB_OWNER, SUB_CATEGORIES, SUB_TYPES, SUB_QUERY, SUB_START_POSITION,
	SUB_PARTITIONS, SUB_LEASE, SUB_MAX_ATTEMPTS, SUB_MAX_IN_FLIGHT, SUB_COLUMNS
};

/* Reads a row, into the current memory context. */
static void
load_subscription(Subscription *subscription, Oid log, const TableRow *row)
{
	Datum	   *values = row->slot->tts_values;
	bool	   *nulls = row->slot->tts_isnull;
	bool		isnull;

	memset(subscription, 0, sizeof(Subscription));
	slot_getsomeattrs(row->slot, SUB_COLUMNS);
	subscription->log = log;
	subscription->name = TextDatumGetCString(values[SUB_NAME]);
	subscription->owner_role = *(Role *) DatumGetPointer(values[SUB_OWNER]);
	subscription->owner = role_find(&subscription->owner_role);
	if (!nulls[SUB_CATEGORIES])
		subscription->categories = DatumGetArrayTypePCopy(values[SUB_CATEGORIES]);
	if (!nulls[SUB_TYPES])
		subscription->types = DatumGetArrayTypePCopy(values[SUB_TYPES]);
	if (!nulls[SUB_QUERY])
		subscription->query = query_read(DatumGetJsonbPCopy(values[SUB_QUERY]));
	subscription->partitions = DatumGetInt32(values[SUB_PARTITIONS]);
	subscription->lease = *DatumGetIntervalP(values[SUB_LEASE]);
	subscription->max_attempts = DatumGetInt32(values[SUB_MAX_ATTEMPTS]);
	subscription->max_in_flight = DatumGetInt32(values[SUB_MAX_IN_FLIGHT]);
	subscription->changed_by =
		DatumGetTransactionId(slot_getsysattr(row->slot, MinTransactionIdAttributeNumber,
											  &isnull));
}

/* Reads the subscription of this name; returns false if there is none. */
static bool
find_subscription(Oid log, const char *name, Subscription *subscription)
{
	TableRow	row;
	bool		found;

	table_row_open(&row, log, "es_subscriptions", AccessShareLock);
	table_row_find(&row, name, NULL);
	found = table_row_next(&row);
	if (found)
		load_subscription(subscription, log, &row);
	table_row_close(&row);
	return found;
}

/* Refuses a subscription that is not the caller's. */
static void
check_subscription_owner(const Subscription *subscription)
{
	if (!superuser() &&
		(!OidIsValid(subscription->owner) ||
		 !has_privs_of_role(GetUserId(), subscription->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"",
						subscription->name),
				 errdetail("Its owner is \"%s\".", role_name(&subscription->owner_role)),
				 errhint("Ask the owner, or become a member of that role.")));
}

/* Reads the subscription of this name; an error if there is none. */
static void
get_subscription(Oid log, const char *name, Subscription *subscription)
{
	if (!find_subscription(log, name, subscription))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name),
				 errdetail("There is no subscription of this name in this database."),
				 errhint("es_subscription_status lists the subscriptions.")));
}

void
subscription_own(Oid log, const char *name, Subscription *subscription)
{
	get_subscription(log, name, subscription);
	check_subscription_owner(subscription);
}

void
subscription_operated(Oid log, const char *name, Subscription *subscription)
{
	get_subscription(log, name, subscription);
	if (!operator_is_caller(log))
		check_subscription_owner(subscription);
}

bool
subscription_reread(Subscription *subscription)
{
	return find_subscription(subscription->log, subscription->name, subscription);
}

FailureOwner
subscription_failures(Oid log, const char *name, int partition)
{
	FailureOwner owner = {log, "subscription", name, partition};

	return owner;
}

/* Arguments of es_create_subscription, in their order. */
enum
{
	ARG_NAME, ARG_CATEGORY, ARG_TYPES, ARG_START_POSITION, ARG_PARTITIONS,
	ARG_LEASE, ARG_MAX_ATTEMPTS, ARG_MAX_IN_FLIGHT, ARG_QUERY, ARG_COUNT
};

/* Refuses a lease whose end is no valid time. */
static void
check_lease(Datum lease)
{
	argument_interval("lease", DatumGetIntervalP(lease), false);
	(void) DirectFunctionCall2(timestamptz_pl_interval,
							   TimestampTzGetDatum(GetCurrentTimestamp()),
							   lease);
}

/* Refuses a number that is given and out of range. */
static void
check_given_range(const NullableDatum *given, const char *name, int64 greatest)
{
	if (!given->isnull)
		argument_range(name, DatumGetInt64(given->value), 1, greatest);
}

void
subscription_check_arguments(Oid log, const SubscriptionArguments *given)
{
	if (!given->categories.isnull)
		categories_check(DatumGetArrayTypeP(given->categories.value));
	if (!given->types.isnull)
		event_type_check_filter(log, DatumGetArrayTypeP(given->types.value));
	if (!given->query.isnull)
		query_check_filter(log, given->query.value, "query");
	if (!given->lease.isnull)
		check_lease(given->lease.value);
	check_given_range(&given->max_attempts, "max_attempts", MAX_MAX_ATTEMPTS);
	check_given_range(&given->max_in_flight, "max_in_flight", MAX_MAX_IN_FLIGHT);
}

/* Refuses arguments that are wrong by themselves. */
static void
check_create_arguments(FunctionCallInfo fcinfo, Oid log)
{
	const NullableDatum *args = fcinfo->args;
	const SubscriptionArguments given = {
		.categories = args[ARG_CATEGORY],.types = args[ARG_TYPES],.query = args[ARG_QUERY],
		.lease = args[ARG_LEASE],.max_attempts = args[ARG_MAX_ATTEMPTS],
		.max_in_flight = args[ARG_MAX_IN_FLIGHT]
	};

	argument_not_null(fcinfo, ARG_NAME, "name");
	argument_not_null(fcinfo, ARG_PARTITIONS, "partitions");
	argument_not_null(fcinfo, ARG_LEASE, "lease");
	argument_not_null(fcinfo, ARG_MAX_ATTEMPTS, "max_attempts");
	argument_not_null(fcinfo, ARG_MAX_IN_FLIGHT, "max_in_flight");
	argument_name("a subscription",
				  text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)), NAMEDATALEN - 1);
	argument_range("partitions", PG_GETARG_INT64(ARG_PARTITIONS), 1,
				   ES_MAX_PARTITIONS);
	subscription_check_arguments(log, &given);
	if (!PG_ARGISNULL(ARG_START_POSITION))
		log_sequence_check(log, "start_position",
						   PG_GETARG_INT64(ARG_START_POSITION));
}

/*
 * Stores the rows; returns false if another transaction has stored some of this
 * name.
 */
static bool
insert_subscription(FunctionCallInfo fcinfo, Oid log)
{
	Oid			types[ARG_COUNT + 1] = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8OID,
	INT8OID, INTERVALOID, INT8OID, INT8OID, JSONBOID, OIDOID};
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
	values[ARG_COUNT] = ObjectIdGetDatum(GetUserId());
	return own_sql_run(log,
					   "WITH s AS (INSERT INTO @extschema@.es_subscriptions"
					   " (name, categories, types, start_position, partitions,"
					   " lease, max_attempts, max_in_flight, query, owner)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
					   " ON CONFLICT DO NOTHING RETURNING *)"
					   " INSERT INTO @extschema@.es_partitions (subscription,"
					   " partition, position, reached)"
					   " SELECT s.name, i, s.start_position, s.start_position"
					   " FROM s, generate_series(0, s.partitions - 1) AS i",
					   ARG_COUNT + 1, types, values, nulls) > 0;
}

static void
fail_name_taken(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("subscription \"%s\" already exists", name),
			 errdetail("There is a subscription of this name in this database."),
			 errhint("es_alter_subscription() changes it, es_drop_subscription() drops it.")));
}

void
subscription_check_name_is_free(Oid log, const char *name)
{
	Subscription other;

	if (find_subscription(log, name, &other))
		fail_name_taken(name);
}

/*
 * es_create_subscription(...): makes a subscription, owned by the caller.
 */
Datum
es_create_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;

	PreventCommandIfReadOnly("es_create_subscription()");
	retention_keep_out();
	check_create_arguments(fcinfo, log);
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	SPI_connect();
	subscription_check_name_is_free(log, name);
	if (!insert_subscription(fcinfo, log))
		fail_name_taken(name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Locks all partitions of a subscription. */
static void
lock_partitions(Oid log, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);
	WaitContext context;

	wait_context_begin(&context, "the partitions of subscription", name, -1);
	(void) own_sql_run(log,
					   "SELECT FROM @extschema@.es_partitions"
					   " WHERE subscription = $1 ORDER BY partition FOR UPDATE",
					   1, &type, &value, NULL);
	wait_context_end(&context);
}

void
subscription_lock(Oid log, const char *name,
				  void (*read) (Oid log, const char *name, Subscription *subscription),
				  Subscription *subscription)
{
	TransactionId changed_by;

	/* once more if another one has got the name before the locks were there */
	read(log, name, subscription);
	do
	{
		changed_by = subscription->changed_by;
		lock_partitions(log, name);
		read(log, name, subscription);
	} while (subscription->changed_by != changed_by);
}

/*
 * es_drop_subscription(name): also removes its failures.
 */
Datum
es_drop_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;
	Oid			type = TEXTOID;
	Datum		value = PG_GETARG_DATUM(0);
	Subscription subscription;

	argument_not_null(fcinfo, ARG_NAME, "name");
	PreventCommandIfReadOnly("es_drop_subscription()");
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	SPI_connect();
	subscription_lock(log, name, subscription_own, &subscription);
	failure_remove_after(subscription_failures(log, name, 0), 0);
	(void) own_sql_run(log,
					   "DELETE FROM @extschema@.es_partitions WHERE subscription = $1",
					   1, &type, &value, NULL);
	(void) own_sql_run(log,
					   "DELETE FROM @extschema@.es_subscriptions WHERE name = $1",
					   1, &type, &value, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_seek(subscription, position): voids what is in flight.  Events that are
 * parked after the position will be delivered from the log again.
 */
Datum
es_seek(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2];
	char	   *name;
	int64		position;
	Subscription subscription;

	PreventCommandIfReadOnly("es_seek()");
	retention_keep_out();
	argument_not_null(fcinfo, 0, "subscription");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	position = PG_ARGISNULL(1) ? horizon_now(log) : PG_GETARG_INT64(1);
	log_sequence_check(log, "position", position);
	SPI_connect();
	subscription_lock(log, name, subscription_operated, &subscription);
	failure_remove_after(subscription_failures(log, name, 0), position);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = Int64GetDatum(position);
	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_partitions SET position = $2,"
					   " reached = $2, consumer = NULL, leased_until = NULL,"
					   " tokens = '{}', uptos = '{}', counts = '{}', stream = NULL,"
					   " settled = '{}', expired_upto = '{}', expired_times = '{}',"
					   " earlier_upto = NULL, earlier_categories = NULL, earlier_types = NULL,"
					   " earlier_query = NULL,"
					   " due_at = CASE WHEN has_failures THEN clock_timestamp() END"
					   " WHERE subscription = $1", 2, types, values, NULL);

	/*
	 * what sessions remember of the log below the horizon may be restored by
	 * hand since
	 */
	(void) own_sql_run(log, "UPDATE @extschema@.es_subscriptions SET name = name WHERE name = $1",
					   1, types, values, NULL);
	partition_map_forget();
	notify_wake_at_end();
	SPI_finish();
	PG_RETURN_VOID();
}
