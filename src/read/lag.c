/*-------------------------------------------------------------------------
 *
 * lag.c
 *		How far consumers are behind, at a cost that does not grow with it.
 *
 * The status views ask for all projections, or all partitions of all subscriptions, at
 * once.  Those that want events of the same category are served together: one scan
 * reads the category's events, and each that is read is shown to all of them
 * (lag_scan.c).  So 1,024 partitions do not take 1,024 scans.  Those with a query that
 * has indexes are looked up by these, for each query by itself.
 *
 * A look may do a limited amount of work (LAG_WORK), however much there is to count.
 * Half of it goes to all categories alike.  A category that is read as a whole by this is
 * done.  The others share the rest of the work, and begin again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "read/lag.h"

/* Work of a look: about so many events are read. */
#define LAG_WORK	(20000 * LAG_EVENT)

/* Columns of the answer after the two of the consumer. */
enum
{
	LAG_HORIZON = 2, LAG_HELD_SINCE, LAG_EVENTS, LAG_IS_ESTIMATE, LAG_SINCE, LAG_COLUMNS
};

/* The horizon, up to which events can be handled. */
typedef struct LagHorizon
{
	int64		position;
	TimestampTz held_since;		/* when the first event above it was recorded;
								 * 0: there is none */
} LagHorizon;

struct LagLook
{
	LagSource	source;
	List	   *groups;
};

/* A category, and a group that wants its events. */
typedef struct LagPair
{
	Datum		category;		/* 0: all */
	LagGroup   *group;
} LagPair;

/* A category, and all groups that want its events. */
typedef struct LagUnit
{
	Datum		category;
	List	   *groups;
} LagUnit;

/* Finds when the first event above the horizon was recorded; 0: there is none. */
static TimestampTz
find_held_since(const LagSource *source, int64 horizon)
{
	ScanKeyData key;
	IndexScanDesc scan;
	TimestampTz since = 0;
	bool		isnull;

	table_row_key(&key, source->positions, 1, BTGreaterStrategyNumber, F_INT8GT,
				  Int64GetDatum(horizon));
	scan = compat_index_beginscan(source->log, source->positions, source->snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, source->slot))
		since = DatumGetTimestampTz(slot_getattr(source->slot, Anum_es_events_recorded_at,
												 &isnull));
	index_endscan(scan);
	ExecClearTuple(source->slot);
	return since;
}

/*
 * Begins a look at the events that the snapshot sees, in the current memory context, and
 * finds its horizon.
 */
static LagLook *
lag_begin(Relation log, Snapshot snapshot, LagHorizon *horizon)
{
	LagLook    *look = palloc0(sizeof(LagLook));
	LagSource  *source = &look->source;

	horizon->position = horizon_find(RelationGetRelid(log), snapshot);
	source->log = log;
	source->snapshot = snapshot;
	source->positions = log_index_open_position(log);
	if (source->positions == NULL)
		elog(ERROR, "the index of positions is missing");	/* the horizon needs it */
	source->categories = log_index_open_category(log);
	source->slot = table_slot_create(log, NULL);
	horizon->held_since = find_held_since(source, horizon->position);
	return look;
}

LagGroup *
lag_add_group(LagLook *look, ArrayType *categories, ArrayType *types,
			  const EventQuery *query, int partitions)
{
	LagGroup   *group = palloc0(sizeof(LagGroup));

	group->categories = text_set_make(categories);
	group->types = text_set_make(types);
	group->query = query;
	if (query_is_indexed(look->source.log, query))
		group->wide = query_widen(RelationGetRelid(look->source.log), query);
	group->partitions = partitions;
	look->groups = lappend(look->groups, group);
	return group;
}

void
lag_add_range(LagGroup *group, int partition, int64 after, int64 upto, Lag *lag)
{
	if (after >= upto)
		return;
	if (group->ranges == NULL)
	{
		group->ranges = palloc0(sizeof(LagRange) * group->partitions);
		group->after = after;
	}
	group->ranges[partition] = (LagRange)
	{
		.after = after,.upto = upto,.lag = lag
	};
	group->after = Min(group->after, after);
	group->upto = Max(group->upto, upto);
}

/* Orders by category, that of all events first. */
static int
compare_pairs(const void *a, const void *b)
{
	const LagPair *one = a;
	const LagPair *other = b;
	text	   *left;
	text	   *right;
	int			order;

	if (one->category == 0 || other->category == 0)
		return (one->category != 0) - (other->category != 0);
	left = DatumGetTextPP(one->category);
	right = DatumGetTextPP(other->category);
	order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right),
				   Min(VARSIZE_ANY_EXHDR(left), VARSIZE_ANY_EXHDR(right)));
	return order != 0 ? order :
		(int) VARSIZE_ANY_EXHDR(left) - (int) VARSIZE_ANY_EXHDR(right);
}

/*
 * Returns a pair for each category of each group that is behind, in their order, without
 * those that look events up by a query.
 */
static LagPair *
make_pairs(const LagLook *look, int *count)
{
	LagPair    *pairs;
	ListCell   *cell;
	int			i;

	*count = 0;
	foreach(cell, look->groups)
		* count += Max(((LagGroup *) lfirst(cell))->categories.count, 1);
	pairs = palloc(sizeof(LagPair) * Max(*count, 1));
	*count = 0;
	foreach(cell, look->groups)
	{
		LagGroup   *group = lfirst(cell);

		if (group->ranges == NULL || group->wide != NULL)
			continue;
		if (group->categories.array == NULL)
			pairs[(*count)++] = (LagPair)
		{
			.group = group
		};
		for (i = 0; i < group->categories.count; i++)
			pairs[(*count)++] = (LagPair)
		{
			group->categories.values[i], group
		};
	}
	qsort(pairs, *count, sizeof(LagPair), compare_pairs);
	return pairs;
}

/* Returns a list of LagUnit: one for each group that looks events up by a query. */
static List *
make_query_units(const LagLook *look)
{
	List	   *units = NIL;
	ListCell   *cell;

	foreach(cell, look->groups)
	{
		LagGroup   *group = lfirst(cell);
		LagUnit    *unit;

		if (group->ranges == NULL || group->wide == NULL)
			continue;
		unit = palloc0(sizeof(LagUnit));
		unit->groups = list_make1(group);
		units = lappend(units, unit);
	}
	return units;
}

/* Adds one for each category, with all groups that want it. */
static List *
make_units(const LagLook *look)
{
	int			count;
	LagPair    *pairs = make_pairs(look, &count);
	List	   *units = make_query_units(look);
	LagUnit    *unit = NULL;
	int			i;

	for (i = 0; i < count; i++)
	{
		LagGroup   *group = pairs[i].group;

		if (i == 0 || compare_pairs(&pairs[i - 1], &pairs[i]) != 0)
		{
			unit = palloc0(sizeof(LagUnit));
			unit->category = pairs[i].category;
			units = lappend(units, unit);
		}
		unit->groups = lappend(unit->groups, group);
	}
	return units;
}

/*
 * Scans each unit with an equal share of the work, and leaves what is left of it.
 * Returns those of which more would have to be read.
 */
static List *
scan_units(const LagSource *source, List *units, int64 *work, bool estimate)
{
	List	   *rest = NIL;
	int			left = list_length(units);
	ListCell   *cell;

	foreach(cell, units)
	{
		LagUnit    *unit = lfirst(cell);
		int64		share = *work / left--;
		int64		unused = share;

		if (!lag_scan_category(source, unit->category, unit->groups, &unused, estimate))
			rest = lappend(rest, unit);
		*work = Max(*work - share + unused, 0);
	}
	return rest;
}

/* Finds all lags. */
static void
lag_find(LagLook *look)
{
	LagSource  *source = &look->source;
	List	   *units = make_units(look);
	int64		half = LAG_WORK / 2;
	int64		work;

	units = scan_units(source, units, &half, false);
	work = LAG_WORK / 2 + half;
	(void) scan_units(source, units, &work, true);
	ExecDropSingleTupleTableSlot(source->slot);
	if (source->categories != NULL)
		index_close(source->categories, AccessShareLock);
	index_close(source->positions, AccessShareLock);
}

/* Returns a row: the consumer's two columns, and what was found. */
static void
put_lag(ReturnSetInfo *result, HeapTuple row, TupleDesc desc, const LagHorizon *horizon,
		const Lag *lag)
{
	bool		nulls[LAG_COLUMNS] = {false};
	bool		isnull;
	Datum		values[LAG_COLUMNS] = {
		heap_getattr(row, 1, desc, &isnull),
		heap_getattr(row, 2, desc, &isnull),
		Int64GetDatum(horizon->position), TimestampTzGetDatum(horizon->held_since),
		Int64GetDatum(lag->events), BoolGetDatum(lag->is_estimate),
		TimestampTzGetDatum(lag->since)
	};

	nulls[LAG_HELD_SINCE] = horizon->held_since == 0;
	nulls[LAG_SINCE] = lag->since == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
lag_answer(FunctionCallInfo fcinfo, Oid log, bool sees_all, const char *consumers,
		   LagAdder add, void *state)
{
	Oid			types[3] = {BOOLOID, OIDOID, INT8OID};
	Datum		values[3] = {BoolGetDatum(sees_all), ObjectIdGetDatum(GetUserId())};
	LagHorizon	horizon;
	LagLook    *look;
	Lag		   *lags;
	uint64		count;
	uint64		i;
	Relation	rel = table_open(log, AccessShareLock);

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	look = lag_begin(rel, GetActiveSnapshot(), &horizon);
	values[2] = Int64GetDatum(horizon.position);
	count = own_sql_select(log, consumers, 3, types, values, NULL);
	lags = palloc0(sizeof(Lag) * Max(count, 1));
	for (i = 0; i < count; i++)
		add(look, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, horizon.position,
			&lags[i], state);
	lag_find(look);
	for (i = 0; i < count; i++)
		put_lag((ReturnSetInfo *) fcinfo->resultinfo, SPI_tuptable->vals[i],
				SPI_tuptable->tupdesc, &horizon, &lags[i]);
	SPI_finish();
	table_close(rel, AccessShareLock);
}
