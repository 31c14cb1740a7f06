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

#include "fmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "read/lag.h"
#include "failure/failure.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_projection_lag);

/* What a running sync projection wants was handled by the append. */
#define VISIBLE_PROJECTIONS \
	"SELECT p.name, CASE WHEN p.mode = 'sync' AND p.state = 'running'" \
	"   THEN greatest(p.position, $3) ELSE p.position END, p.categories, p.types," \
	" p.event_query" \
	" FROM @extschema@.es_projections p" \
	" WHERE $1 OR pg_catalog.pg_has_role($2, p.owner::oid, 'USAGE')"

enum
{
	PLAG_NAME, PLAG_POSITION, PLAG_CATEGORIES, PLAG_TYPES, PLAG_EVENT_QUERY, PLAG_COLUMNS
};

/* Adds a projection to the look. */
static void
add_projection_lag(LagLook *look, HeapTuple row, TupleDesc desc, int64 horizon, Lag *lag,
				   void *state)
{
	Datum		values[PLAG_COLUMNS];
	bool		nulls[PLAG_COLUMNS];
	LagGroup   *group;

	heap_deform_tuple(row, desc, values, nulls);
	group = lag_add_group(look,
						  nulls[PLAG_CATEGORIES] ? NULL : DatumGetArrayTypeP(values[PLAG_CATEGORIES]),
						  nulls[PLAG_TYPES] ? NULL : DatumGetArrayTypeP(values[PLAG_TYPES]),
						  nulls[PLAG_EVENT_QUERY] ? NULL :
						  query_read(DatumGetJsonbP(values[PLAG_EVENT_QUERY])), 1);
	lag_add_range(group, 0, DatumGetInt64(values[PLAG_POSITION]), horizon, lag);
}

/*
 * es_projection_lag(): a row for each projection that the caller may see.
 */
Datum
es_projection_lag(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	lag_answer(fcinfo, log, operator_sees_all(log), VISIBLE_PROJECTIONS,
			   add_projection_lag, NULL);
	PG_RETURN_NULL();
}
