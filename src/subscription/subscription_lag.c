/*-------------------------------------------------------------------------
 *
 * subscription_lag.c
 *		es_subscription_lag(): how far each partition of each subscription is behind.
 *
 * All of them are looked at together, so that the cost of es_subscription_status does
 * not grow with the log or the number of partitions (src/read/lag.c).  Where nothing
 * is in flight, nothing is wanted up to the position that the log was read to
 * (reached).  Events up to earlier_upto were chosen by an earlier filter.
 *
 * The tables are read as the owner of the log.  The result has only the subscriptions
 * that the caller may see.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/log.h"
#include "read/lag.h"
#include "failure/failure.h"
#include "subscription/subscription.h"

PG_FUNCTION_INFO_V1(es_subscription_lag);

#define VISIBLE_PARTITIONS \
	"SELECT p.subscription, p.partition," \
	"   CASE WHEN p.leased_until IS NULL THEN greatest(p.position, p.reached) ELSE p.position END," \
	"   s.partitions, s.categories, s.types, s.query," \
	"   p.earlier_upto, p.earlier_categories, p.earlier_types, p.earlier_query" \
	" FROM @extschema@.es_subscriptions s" \
	" JOIN @extschema@.es_partitions p ON p.subscription = s.name" \
	" WHERE $1 OR pg_catalog.pg_has_role($2, s.owner::oid, 'USAGE')" \
	" ORDER BY 1, 2"

enum
{
	SLAG_SUBSCRIPTION, SLAG_PARTITION, SLAG_AFTER, SLAG_PARTITIONS, SLAG_CATEGORIES,
	SLAG_TYPES, SLAG_QUERY, SLAG_EARLIER_UPTO, SLAG_EARLIER_CATEGORIES, SLAG_EARLIER_TYPES,
	SLAG_EARLIER_QUERY, SLAG_COLUMNS
};

/* The subscription whose partitions come. */
typedef struct LaggingSubscription
{
	const char *name;			/* NULL: none */
	LagGroup   *group;
} LaggingSubscription;

/* Adds a group with a filter that stands in three columns of the row, from this one on. */
static LagGroup *
add_filter_group(LagLook *look, const Datum *values, const bool *nulls,
				 int filter)
{
	return lag_add_group(look,
						 nulls[filter] ? NULL : DatumGetArrayTypeP(values[filter]),
						 nulls[filter + 1] ? NULL : DatumGetArrayTypeP(values[filter + 1]),
						 nulls[filter + 2] ? NULL : query_read(DatumGetJsonbP(values[filter + 2])),
						 DatumGetInt32(values[SLAG_PARTITIONS]));
}

/* Adds a partition to the look. */
static void
add_partition_lag(LagLook *look, HeapTuple row, TupleDesc desc, int64 horizon, Lag *lag,
				  void *state)
{
	LaggingSubscription *subscription = state;
	Datum		values[SLAG_COLUMNS];
	bool		nulls[SLAG_COLUMNS];
	const char *name;
	int64		after;
	int			partition;

	heap_deform_tuple(row, desc, values, nulls);
	name = TextDatumGetCString(values[SLAG_SUBSCRIPTION]);
	partition = DatumGetInt32(values[SLAG_PARTITION]);
	after = DatumGetInt64(values[SLAG_AFTER]);
	if (subscription->name == NULL || strcmp(subscription->name, name) != 0)
	{
		subscription->name = name;
		subscription->group = add_filter_group(look, values, nulls, SLAG_CATEGORIES);
	}
	if (!nulls[SLAG_EARLIER_UPTO] && DatumGetInt64(values[SLAG_EARLIER_UPTO]) > after)
	{
		int64		upto = DatumGetInt64(values[SLAG_EARLIER_UPTO]);

		lag_add_range(add_filter_group(look, values, nulls, SLAG_EARLIER_CATEGORIES),
					  partition, after, Min(upto, horizon), lag);
		after = upto;
	}
	lag_add_range(subscription->group, partition, after, horizon, lag);
}

/*
 * es_subscription_lag(): a row for each partition of the subscriptions that the caller
 * may see.
 */
Datum
es_subscription_lag(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	LaggingSubscription subscription = {NULL, NULL};

	lag_answer(fcinfo, log, operator_sees_all(log), VISIBLE_PARTITIONS,
			   add_partition_lag, &subscription);
	PG_RETURN_NULL();
}
