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
 * The tables are read as the owner of the log, and only the subscriptions that the
 * caller may see are told to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/lag.h"
#include "failure/failure.h"
#include "subscription/subscription.h"

PG_FUNCTION_INFO_V1(es_subscription_lag);

#define VISIBLE_PARTITIONS \
	"SELECT p.subscription, p.partition," \
	"   CASE WHEN p.leased_until IS NULL THEN greatest(p.position, p.reached) ELSE p.position END," \
	"   s.partitions, s.categories, s.types," \
	"   p.earlier_upto, p.earlier_categories, p.earlier_types" \
	" FROM @extschema@.es_subscriptions s" \
	" JOIN @extschema@.es_partitions p ON p.subscription = s.name" \
	" WHERE $1 OR pg_catalog.pg_has_role($2, s.owner::oid, 'USAGE')" \
	" ORDER BY 1, 2"

enum
{
	SLAG_SUBSCRIPTION, SLAG_PARTITION, SLAG_AFTER, SLAG_PARTITIONS, SLAG_CATEGORIES,
	SLAG_TYPES, SLAG_EARLIER_UPTO, SLAG_EARLIER_CATEGORIES, SLAG_EARLIER_TYPES,
	SLAG_COLUMNS
};

/* Columns of the result. */
enum
{
	RESULT_SUBSCRIPTION, RESULT_PARTITION, RESULT_HORIZON, RESULT_HELD_SINCE,
	RESULT_EVENTS, RESULT_IS_ESTIMATE, RESULT_SINCE, RESULT_COLUMNS
};

/* What is built up row by row. */
typedef struct SubscriptionLags
{
	LagLook    *look;
	int64		horizon;
	const char *name;			/* of the subscription whose partitions come;
								 * NULL: none */
	LagGroup   *group;			/* its group */
} SubscriptionLags;

/* Adds a group with a filter that stands in two columns of the row. */
static LagGroup *
add_filter_group(SubscriptionLags *lags, const Datum *values, const bool *nulls,
				 int categories, int types)
{
	return lag_add_group(lags->look,
						 nulls[categories] ? NULL : DatumGetArrayTypeP(values[categories]),
						 nulls[types] ? NULL : DatumGetArrayTypeP(values[types]),
						 DatumGetInt32(values[SLAG_PARTITIONS]));
}

/* Adds a partition to the look. */
static void
add_partition_lag(SubscriptionLags *lags, HeapTuple row, TupleDesc desc, Lag *lag)
{
	Datum		values[SLAG_COLUMNS];
	bool		nulls[SLAG_COLUMNS];
	const char *name;
	int64		after;
	int			partition;

	heap_deform_tuple(row, desc, values, nulls);
	name = TextDatumGetCString(values[SLAG_SUBSCRIPTION]);
	partition = DatumGetInt32(values[SLAG_PARTITION]);
	after = DatumGetInt64(values[SLAG_AFTER]);
	if (lags->name == NULL || strcmp(lags->name, name) != 0)
	{
		lags->name = name;
		lags->group = add_filter_group(lags, values, nulls, SLAG_CATEGORIES, SLAG_TYPES);
	}
	if (!nulls[SLAG_EARLIER_UPTO] && DatumGetInt64(values[SLAG_EARLIER_UPTO]) > after)
	{
		int64		upto = DatumGetInt64(values[SLAG_EARLIER_UPTO]);

		lag_add_range(add_filter_group(lags, values, nulls, SLAG_EARLIER_CATEGORIES,
									   SLAG_EARLIER_TYPES),
					  partition, after, Min(upto, lags->horizon), lag);
		after = upto;
	}
	lag_add_range(lags->group, partition, after, lags->horizon, lag);
}

/* Returns the row of the partition. */
static void
put_partition_lag(ReturnSetInfo *result, HeapTuple row, TupleDesc desc,
				  const LagHorizon *horizon, const Lag *lag)
{
	bool		nulls[RESULT_COLUMNS] = {false};
	bool		isnull;
	Datum		values[RESULT_COLUMNS] = {
		heap_getattr(row, SLAG_SUBSCRIPTION + 1, desc, &isnull),
		heap_getattr(row, SLAG_PARTITION + 1, desc, &isnull),
		Int64GetDatum(horizon->position), TimestampTzGetDatum(horizon->held_since),
		Int64GetDatum(lag->events), BoolGetDatum(lag->is_estimate),
		TimestampTzGetDatum(lag->since)
	};

	nulls[RESULT_HELD_SINCE] = horizon->held_since == 0;
	nulls[RESULT_SINCE] = lag->since == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_subscription_lag(): a row for each partition of the subscriptions that the caller
 * may see.
 */
Datum
es_subscription_lag(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[2] = {BOOLOID, OIDOID};
	Datum		values[2] = {BoolGetDatum(operator_sees_all(log)), ObjectIdGetDatum(GetUserId())};
	SubscriptionLags lags = {.name = NULL};
	LagHorizon	horizon;
	Lag		   *found;
	uint64		count;
	uint64		i;
	Relation	rel = table_open(log, AccessShareLock);

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	lags.look = lag_begin(rel, GetActiveSnapshot(), &horizon);
	lags.horizon = horizon.position;
	count = own_sql_select(log, VISIBLE_PARTITIONS, 2, types, values, NULL);
	found = palloc0(sizeof(Lag) * Max(count, 1));
	for (i = 0; i < count; i++)
		add_partition_lag(&lags, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &found[i]);
	lag_find(lags.look);
	for (i = 0; i < count; i++)
		put_partition_lag((ReturnSetInfo *) fcinfo->resultinfo, SPI_tuptable->vals[i],
						  SPI_tuptable->tupdesc, &horizon, &found[i]);
	SPI_finish();
	table_close(rel, AccessShareLock);
	PG_RETURN_NULL();
}
