/*-------------------------------------------------------------------------
 *
 * projection_lag.c
 *		es_projection_lag(): how far each projection is behind.
 *
 * All projections are looked at together, so that the cost of es_projection_status does
 * not grow with them or with the log (src/read/lag.c).  What they want is read as the
 * owner of the log, and only those that the caller may see are told to it.
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
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "read/lag.h"
#include "failure/failure.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_projection_lag);

/* What a running sync projection wants was handled by the append. */
#define VISIBLE_PROJECTIONS \
	"SELECT p.name, CASE WHEN p.mode = 'sync' AND p.state = 'running'" \
	"   THEN greatest(p.position, $3) ELSE p.position END, p.categories, p.types" \
	" FROM @extschema@.es_projections p" \
	" WHERE $1 OR pg_catalog.pg_has_role($2, p.owner::oid, 'USAGE')"

enum
{
	PLAG_NAME, PLAG_POSITION, PLAG_CATEGORIES, PLAG_TYPES, PLAG_COLUMNS
};

/* Columns of the result. */
enum
{
	RESULT_NAME, RESULT_POSITION, RESULT_HORIZON, RESULT_HELD_SINCE, RESULT_EVENTS,
	RESULT_IS_ESTIMATE, RESULT_SINCE, RESULT_COLUMNS
};

/* Adds a projection to the look. */
static void
add_projection_lag(LagLook *look, HeapTuple row, TupleDesc desc, int64 horizon, Lag *lag)
{
	Datum		values[PLAG_COLUMNS];
	bool		nulls[PLAG_COLUMNS];
	LagGroup   *group;

	heap_deform_tuple(row, desc, values, nulls);
	group = lag_add_group(look,
						  nulls[PLAG_CATEGORIES] ? NULL : DatumGetArrayTypeP(values[PLAG_CATEGORIES]),
						  nulls[PLAG_TYPES] ? NULL : DatumGetArrayTypeP(values[PLAG_TYPES]), 1);
	lag_add_range(group, 0, DatumGetInt64(values[PLAG_POSITION]), horizon, lag);
}

/* Returns the row of the projection. */
static void
put_projection_lag(ReturnSetInfo *result, HeapTuple row, TupleDesc desc,
				   const LagHorizon *horizon, const Lag *lag)
{
	bool		nulls[RESULT_COLUMNS] = {false};
	bool		isnull;
	Datum		values[RESULT_COLUMNS] = {
		heap_getattr(row, PLAG_NAME + 1, desc, &isnull),
		heap_getattr(row, PLAG_POSITION + 1, desc, &isnull),
		Int64GetDatum(horizon->position), TimestampTzGetDatum(horizon->held_since),
		Int64GetDatum(lag->events), BoolGetDatum(lag->is_estimate),
		TimestampTzGetDatum(lag->since)
	};

	nulls[RESULT_HELD_SINCE] = horizon->held_since == 0;
	nulls[RESULT_SINCE] = lag->since == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_projection_lag(): a row for each projection that the caller may see.
 */
Datum
es_projection_lag(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[3] = {BOOLOID, OIDOID, INT8OID};
	Datum		values[3];
	LagHorizon	horizon;
	LagLook    *look;
	Lag		   *lags;
	uint64		count;
	uint64		i;
	Relation	rel = table_open(log, AccessShareLock);

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	look = lag_begin(rel, GetActiveSnapshot(), &horizon);
	values[0] = BoolGetDatum(operator_sees_all(log));
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = Int64GetDatum(horizon.position);
	count = own_sql_select(log, VISIBLE_PROJECTIONS, 3, types, values, NULL);
	lags = palloc0(sizeof(Lag) * Max(count, 1));
	for (i = 0; i < count; i++)
		add_projection_lag(look, SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
						   horizon.position, &lags[i]);
	lag_find(look);
	for (i = 0; i < count; i++)
		put_projection_lag((ReturnSetInfo *) fcinfo->resultinfo, SPI_tuptable->vals[i],
						   SPI_tuptable->tupdesc, &horizon, &lags[i]);
	SPI_finish();
	table_close(rel, AccessShareLock);
	PG_RETURN_NULL();
}
