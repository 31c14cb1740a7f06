/*-------------------------------------------------------------------------
 *
 * subscription_alter.c
 *		es_alter_subscription() and es_rename_subscription().
 *
 * Another filter holds from where each partition is: after the last event that is in
 * flight, or else after the checkpoint.  What is in flight, or is to be redelivered, was
 * chosen by the filter before; the partition keeps that one until its checkpoint has
 * passed those events (earlier_upto), so that acknowledging and redelivering them finds
 * the same events again.
 *
 * Both lock all partitions, and so wait for transactions that have polled or
 * acknowledged.  A session that waits for a partition meanwhile reads the subscription
 * again under the partition's lock (partition_lock).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/log.h"
#include "notify/notify.h"
#include "failure/failure.h"
#include "retention/rule.h"
#include "subscription/subscription.h"

PG_FUNCTION_INFO_V1(es_alter_subscription);
PG_FUNCTION_INFO_V1(es_rename_subscription);

/* Arguments of es_alter_subscription, in their order. */
enum
{
	ARG_NAME, ARG_CATEGORY, ARG_TYPES, ARG_LEASE, ARG_MAX_ATTEMPTS,
	ARG_MAX_IN_FLIGHT, ARG_ALL_CATEGORIES, ARG_ALL_TYPES, ARG_QUERY, ARG_ANY_EVENT,
	ARG_COUNT
};

/* Is a delivery from the log in flight, and up to where? */
#define IN_FLIGHT		"(p.leased_until IS NOT NULL AND p.stream IS NULL)"
#define LAST_IN_FLIGHT	"p.uptos[cardinality(p.uptos)]"

/* Is the filter before still needed? */
#define HAS_EARLIER		"coalesce(p.earlier_upto > p.position, false)"

/* Refuses arguments that are wrong by themselves. */
static void
check_alter_arguments(FunctionCallInfo fcinfo, Oid log)
{
	const NullableDatum *args = fcinfo->args;
	const SubscriptionArguments given = {
		.categories = args[ARG_CATEGORY],.types = args[ARG_TYPES],.query = args[ARG_QUERY],
		.lease = args[ARG_LEASE],.max_attempts = args[ARG_MAX_ATTEMPTS],
		.max_in_flight = args[ARG_MAX_IN_FLIGHT]
	};

	argument_not_null(fcinfo, ARG_NAME, "name");
	argument_list_or_all(fcinfo, ARG_CATEGORY, "category", ARG_ALL_CATEGORIES,
						 "all_categories");
	argument_list_or_all(fcinfo, ARG_TYPES, "types", ARG_ALL_TYPES, "all_types");
	argument_list_or_all(fcinfo, ARG_QUERY, "query", ARG_ANY_EVENT, "any_event");
	subscription_check_arguments(log, &given);
}

/*
 * Refuses another filter while events that two filters have chosen are in flight: no
 * third one can be kept.
 */
static void
check_one_filter_in_flight(Oid log, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	if (own_sql_run(log,
					"SELECT p.partition FROM @extschema@.es_partitions p"
					" WHERE p.subscription = $1 AND " IN_FLIGHT
					" AND " HAS_EARLIER " AND " LAST_IN_FLIGHT " > p.earlier_upto"
					" ORDER BY p.partition LIMIT 1", 1, &type, &value, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the filter of subscription \"%s\" cannot be changed now",
						name),
				 errdetail("Events that were delivered before and after its last change are in flight in partition %d.",
						   DatumGetInt32(own_sql_value(1))),
				 errhint("Change it when those that were delivered first are acknowledged.")));
}

/* Lets each partition go on with the new filter after what is in flight. */
static void
keep_earlier_filter(Oid log, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_partitions p SET"
					   " earlier_upto = CASE WHEN " HAS_EARLIER " THEN p.earlier_upto"
					   " WHEN " IN_FLIGHT " THEN " LAST_IN_FLIGHT " END,"
					   " earlier_categories = CASE WHEN " HAS_EARLIER " THEN p.earlier_categories"
					   " WHEN " IN_FLIGHT " THEN s.categories END,"
					   " earlier_types = CASE WHEN " HAS_EARLIER " THEN p.earlier_types"
					   " WHEN " IN_FLIGHT " THEN s.types END,"
					   " earlier_query = CASE WHEN " HAS_EARLIER " THEN p.earlier_query"
					   " WHEN " IN_FLIGHT " THEN s.query END,"
					   " reached = CASE WHEN " IN_FLIGHT " THEN " LAST_IN_FLIGHT
					   " ELSE p.position END"
					   " FROM @extschema@.es_subscriptions s"
					   " WHERE s.name = $1 AND p.subscription = s.name",
					   1, &type, &value, NULL);
}

/* Changes what is not null. */
static void
update_subscription(FunctionCallInfo fcinfo, Oid log)
{
	Oid			types[ARG_COUNT] = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INTERVALOID,
	INT8OID, INT8OID, BOOLOID, BOOLOID, JSONBOID, BOOLOID};
	Datum		values[ARG_COUNT];
	char		nulls[ARG_COUNT];
	int			i;

	for (i = 0; i < ARG_COUNT; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_subscriptions SET"
					   " categories = CASE WHEN $7 THEN NULL ELSE coalesce($2, categories) END,"
					   " types = CASE WHEN $8 THEN NULL ELSE coalesce($3, types) END,"
					   " query = CASE WHEN $10 THEN NULL ELSE coalesce($9, query) END,"
					   " lease = coalesce($4, lease),"
					   " max_attempts = coalesce($5, max_attempts),"
					   " max_in_flight = coalesce($6, max_in_flight)"
					   " WHERE name = $1", ARG_COUNT, types, values, nulls);
}

/* Returns true if the filter is changed. */
static bool
changes_filter(FunctionCallInfo fcinfo)
{
	return !PG_ARGISNULL(ARG_CATEGORY) || !PG_ARGISNULL(ARG_TYPES) ||
		!PG_ARGISNULL(ARG_QUERY) || argument_is_true(fcinfo, ARG_ALL_CATEGORIES) ||
		argument_is_true(fcinfo, ARG_ALL_TYPES) || argument_is_true(fcinfo, ARG_ANY_EVENT);
}

/*
 * es_alter_subscription(name, category, types, lease, max_attempts, max_in_flight,
 * all_categories, all_types, query, any_event): changes what is not null.
 */
Datum
es_alter_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;
	Subscription subscription;

	PreventCommandIfReadOnly("es_alter_subscription()");
	retention_keep_out();
	check_alter_arguments(fcinfo, log);
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	SPI_connect();
	subscription_lock(log, name, subscription_own, &subscription);
	if (changes_filter(fcinfo))
	{
		check_one_filter_in_flight(log, name);
		keep_earlier_filter(log, name);
	}
	update_subscription(fcinfo, log);
	notify_wake_at_end();
	SPI_finish();
	PG_RETURN_VOID();
}

/* Gives the subscription's rows the new name. */
static void
rename_rows(Oid log, const char *name, const char *new_name)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(name),
	CStringGetTextDatum(new_name)};

	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_subscriptions SET name = $2 WHERE name = $1",
					   2, types, values, NULL);
	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_partitions SET subscription = $2"
					   " WHERE subscription = $1", 2, types, values, NULL);
	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_failures SET subscription = $2"
					   " WHERE subscription = $1", 2, types, values, NULL);
}

/*
 * es_rename_subscription(name, new_name): what is in flight keeps its tokens.
 */
Datum
es_rename_subscription(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;
	char	   *new_name;
	Subscription subscription;

	PreventCommandIfReadOnly("es_rename_subscription()");
	argument_not_null(fcinfo, 0, "name");
	argument_not_null(fcinfo, 1, "new_name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	new_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	argument_name("a subscription", new_name, NAMEDATALEN - 1);
	SPI_connect();
	subscription_lock(log, name, subscription_own, &subscription);
	subscription_check_name_is_free(log, new_name);
	rename_rows(log, name, new_name);
	notify_wake_at_end();
	SPI_finish();
	PG_RETURN_VOID();
}
