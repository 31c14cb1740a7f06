/*-------------------------------------------------------------------------
 *
 * lag_scan.c
 *		Counts the events of a category, of a query, or of all, that consumers have left.
 *
 * First the category is read backward from the last event.  What every consumer wants
 * of it is counted.  Most consumers are near the end: those whose checkpoint is reached
 * so have an exact lag, also where another one is far behind.
 *
 * For the others the positions below are divided (strata), finely near the end and
 * evenly farther away.  Some events at the beginning of each are looked at.  They give
 * how many there are to a position, and how many of them a group wants.  A partition
 * gets its share of that, an even one unless it was seen to have more or less than
 * chance explains, as with one large stream.  So the estimate follows a
 * category that came early, paused or grew.
 *
 * Then the first event that each of the others wants is searched for, from its
 * checkpoint on.  If it is not among the next ones, its time is that of the last one
 * that was looked at, which is earlier.  So an age is never too small.
 *
 * Events of a query that has indexes are those that have one tag of each of its items
 * (query_widen), so that each step takes as long as any other.  Each is compared with
 * the query.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/lag.h"

/* The work of beginning to read at a position. */
#define LAG_SEEK	(4 * LAG_EVENT)

/* The greatest number of strata of positions, half of which are even. */
#define MAX_STRATA		32

/* Events that are looked at in each of them at least, where work is short. */
#define LEAST_SAMPLE	16

/* Events that are looked at for the first one of a consumer at least. */
#define LEAST_SEARCH	16

/*
 * A partition's difference from the others counts as chance up to this number of
 * standard deviations, and of events.
 */
#define CHANCE			3.0

/* The events of the category that a partition wants. */
typedef struct LagPart
{
	int64		counted;		/* in its range, among those that were read
								 * backward */
	int64		seen;			/* in the even strata, to know its share; */
	int64		most;			/* in one of them, */
	int64		here;			/* and in the last one, */
	int			stratum;		/* which has this number */
	TimestampTz since;			/* of the first one; 0: none was met */
} LagPart;

/* What a group wants of the category. */
typedef struct LagWant
{
	LagGroup   *group;
	LagPart    *parts;			/* by partition */
	double		even;			/* what each of them has seen, were all the
								 * same */
	int64		sampled;		/* in the stratum that is read */
	double		rates[MAX_STRATA];	/* events to a position, by stratum */
	double		shares;			/* sum of those of its partitions */
} LagWant;

/* A range that was not read to its beginning. */
typedef struct LagRest
{
	LagWant    *want;
	int			partition;
	int64		after;
} LagRest;

/* The events of the category that are looked at. */
typedef struct LagScan
{
	const LagSource *source;
	Datum		category;		/* 0: all */
	text	   *checked;		/* the category, if it is not in the index */
	const EventQuery *wide;		/* the query; NULL: the category */
	Match	   *match;			/* of the query */
	Relation	index;
	IndexScanDesc scan;
	LagWant    *wants;
	int			count;			/* of wants */
	int64		after;			/* of all ranges */
	int64		upto;
	int64		low;			/* all from here on was read backward */
	int64		strata[MAX_STRATA + 1]; /* their bounds, downward from low - 1 */
	int			strata_count;
	int			stratum;		/* that is read */
	int64		work;			/* that is left */
	int64		position;		/* of the last event, */
	int64		run_after;		/* and after which all up to it was read */
	TimestampTz recorded_at;
} LagScan;

/* What becomes of an event that a partition wants. */
typedef void (*LagMatch) (LagScan *scan, LagWant *want, int partition);

/* Begins to look events of the query up, in one direction. */
static void
seek_lag_match(LagScan *scan, int64 after, int64 upto, ScanDirection direction)
{
	MatchRange	range = {
		.after = after,.upto = upto,.backward = direction == BackwardScanDirection
	};

	if (scan->match != NULL)
		match_end(scan->match);
	scan->match = match_begin(RelationGetRelid(scan->source->log), scan->wide, &range,
							  scan->source->snapshot);
	if (scan->scan == NULL)
		scan->scan = compat_index_beginscan(scan->source->log, scan->index,
											scan->source->snapshot, 1);
}

/* Goes to the events of the category after a position and up to another. */
static void
seek_lag_category(LagScan *scan, int64 after, int64 upto)
{
	ScanKeyData keys[3];
	int			count = 0;

	if (scan->category != 0 && scan->checked == NULL)
		table_row_key(&keys[count++], scan->index, 1, BTEqualStrategyNumber, F_TEXTEQ,
					  scan->category);
	table_row_key(&keys[count], scan->index, count + 1, BTGreaterStrategyNumber,
				  F_INT8GT, Int64GetDatum(after));
	table_row_key(&keys[count + 1], scan->index, count + 1, BTLessEqualStrategyNumber,
				  F_INT8LE, Int64GetDatum(upto));
	count += 2;
	if (scan->scan == NULL)
		scan->scan = compat_index_beginscan(scan->source->log, scan->index,
											scan->source->snapshot, count);
	index_rescan(scan->scan, keys, count, NULL, 0);
}

/* Goes to the events after a position and up to another. */
static void
seek_lag(LagScan *scan, int64 after, int64 upto, ScanDirection direction)
{
	if (scan->wide != NULL)
		seek_lag_match(scan, after, upto, direction);
	else
		seek_lag_category(scan, after, upto);
	scan->run_after = after;
	scan->work -= LAG_SEEK;
}

/* Puts the next event into the slot.  Returns false if there is none. */
static bool
next_lag_event(LagScan *scan, ScanDirection direction)
{
	TupleTableSlot *slot = scan->source->slot;
	ScanKeyData key;
	int64		position;

	if (scan->wide == NULL)
		return index_getnext_slot(scan->scan, direction, slot);
	while ((position = match_next(scan->match)) != 0)
	{
		table_row_key(&key, scan->index, 1, BTEqualStrategyNumber, F_INT8EQ,
					  Int64GetDatum(position));
		index_rescan(scan->scan, &key, 1, NULL, 0);
		if (index_getnext_slot(scan->scan, ForwardScanDirection, slot))
			return true;
	}
	return false;
}

/* Returns true if the event in the slot is of the category. */
static bool
is_of_category(const LagScan *scan, text *stream)
{
	int			length;

	if (scan->checked == NULL)
		return true;
	length = stream_category_length(stream);
	return length == (int) VARSIZE_ANY_EXHDR(scan->checked) &&
		memcmp(VARDATA_ANY(stream), VARDATA_ANY(scan->checked), length) == 0;
}

/* Returns true if the group wants the event in the slot, which is of a category of it. */
static bool
is_wanted(const LagScan *scan, const LagGroup *group, text *stream)
{
	TupleTableSlot *event = scan->source->slot;

	return notice_or_event_has_type(event, &group->types) &&
		(scan->wide == NULL || text_set_has_category(&group->categories, stream)) &&
		query_matches(group->query, event);
}

/* Shows the event in the slot to all groups. */
static void
match_event(LagScan *scan, LagMatch match)
{
	TupleTableSlot *slot = scan->source->slot;
	bool		isnull;
	text	   *stream = DatumGetTextPP(slot_getattr(slot, Anum_es_events_stream, &isnull));
	uint64		hash = stream_hash(stream);
	int			i;

	if (!is_of_category(scan, stream))
		return;
	for (i = 0; i < scan->count; i++)
	{
		LagWant    *want = &scan->wants[i];

		if (is_wanted(scan, want->group, stream))
			match(scan, want, (int) (hash % (uint64) want->group->partitions));
	}
}

/* Reads the next event.  Returns false if there is none. */
static bool
read_lag_event(LagScan *scan, ScanDirection direction, LagMatch match)
{
	TupleTableSlot *slot = scan->source->slot;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (!next_lag_event(scan, direction))
		return false;
	scan->work -= LAG_EVENT + scan->count;
	scan->position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull));
	scan->recorded_at = DatumGetTimestampTz(slot_getattr(slot, Anum_es_events_recorded_at,
														 &isnull));
	match_event(scan, match);
	return true;
}

/* Counts an event that was read backward. */
static void
count_event(LagScan *scan, LagWant *want, int partition)
{
	const LagRange *range = &want->group->ranges[partition];
	LagPart    *part = &want->parts[partition];

	if (range->lag == NULL || scan->position <= range->after ||
		scan->position > range->upto)
		return;
	part->counted++;
	part->since = scan->recorded_at;
}

/* Counts an event of a stratum. */
static void
sample_event(LagScan *scan, LagWant *want, int partition)
{
	LagPart    *part = &want->parts[partition];

	want->sampled++;
	if (scan->stratum < scan->strata_count / 2)
		return;
	if (part->stratum != scan->stratum)
		part->here = 0;
	part->stratum = scan->stratum;
	part->here++;
	part->seen++;
	part->most = Max(part->most, part->here);
}

/* Notes an event that is the first one of its partition after the checkpoint. */
static void
note_first_event(LagScan *scan, LagWant *want, int partition)
{
	const LagRange *range = &want->group->ranges[partition];
	LagPart    *part = &want->parts[partition];

	if (range->lag != NULL && part->since == 0 && range->after < scan->position &&
		range->after >= scan->run_after && range->after + 1 < scan->low)
		part->since = scan->recorded_at;
}

/* Reads backward from the end, as far as the work goes. */
static void
read_lag_backward(LagScan *scan, int64 work)
{
	int64		least = scan->work - work;

	seek_lag(scan, scan->after, scan->upto, BackwardScanDirection);
	scan->low = scan->upto + 1;
	do
	{
		if (!read_lag_event(scan, BackwardScanDirection, count_event))
		{
			scan->low = scan->after + 1;
			return;
		}
		scan->low = scan->position;
	} while (scan->work > least);
}

/* Returns the ranges that were not read to their beginning, by that. */
static int
compare_rests(const void *a, const void *b)
{
	int64		one = ((const LagRest *) a)->after;
	int64		other = ((const LagRest *) b)->after;

	return (one > other) - (one < other);
}

static LagRest *
make_rests(const LagScan *scan, int *count)
{
	LagRest    *rests;
	int			most = 0;
	int			i;
	int			j;

	for (i = 0; i < scan->count; i++)
		most += scan->wants[i].group->partitions;
	rests = palloc(sizeof(LagRest) * most);
	*count = 0;
	for (i = 0; i < scan->count; i++)
	{
		LagWant    *want = &scan->wants[i];

		for (j = 0; j < want->group->partitions; j++)
		{
			const LagRange *range = &want->group->ranges[j];

			if (range->lag != NULL && range->after + 1 < scan->low)
				rests[(*count)++] = (LagRest)
			{
				want, j, range->after
			};
		}
	}
	qsort(rests, *count, sizeof(LagRest), compare_rests);
	return rests;
}

/*
 * Divides the positions after the first of these ranges: half of the strata are even,
 * and the one at the end is halved, and its half, by the others.
 */
static void
make_strata(LagScan *scan, int count)
{
	int64		last = scan->low - 1;
	int64		length = last - scan->after;
	int			even = Max(count / 2, 1);
	int			number = 0;
	int			i;

	scan->strata[0] = last;
	for (i = count - even; i >= 1 - even; i--)
	{
		int64		distance = i > 0 ? (length / even) >> Min(i, 62) :
		(int64) ((double) length * (1 - i) / even);
		int64		bound = i == 1 - even ? scan->after : last - distance;

		if (bound < scan->strata[number] && number < MAX_STRATA)
			scan->strata[++number] = bound;
	}
	scan->strata_count = number;
}

/* Reads events at the beginning of each stratum, as far as the work goes. */
static void
sample_strata(LagScan *scan, int64 work)
{
	int64		events = work / (LAG_EVENT + scan->count);
	int			sample;
	int			i;
	int			j;

	make_strata(scan, (int) Max(Min(events / LEAST_SAMPLE, MAX_STRATA), 1));
	sample = (int) Max(events / scan->strata_count - LAG_SEEK / LAG_EVENT, 1);
	for (i = 0; i < scan->strata_count; i++)
	{
		int64		upto = scan->strata[i];
		int64		after = scan->strata[i + 1];
		int			count = 0;

		seek_lag(scan, after, upto, ForwardScanDirection);
		scan->stratum = i;
		for (j = 0; j < scan->count; j++)
			scan->wants[j].sampled = 0;
		while (count < sample && read_lag_event(scan, ForwardScanDirection, sample_event))
			count++;
		if (count == sample)
			upto = scan->position;
		for (j = 0; j < scan->count; j++)
			scan->wants[j].rates[i] = (double) scan->wants[j].sampled / (upto - after);
	}
}

/*
 * Returns the share of a partition in what the group wants, of want->shares.  It has more
 * than the others only if it has so without the stratum in which it has most, since a
 * stream may have many events at once.
 */
static double
partition_share(const LagWant *want, int partition)
{
	const LagPart *part = &want->parts[partition];
	double		chance = CHANCE * sqrt(want->even) + CHANCE;
	double		often = (double) (part->seen - part->most);

	if (often > want->even + chance)
		return often - chance;
	return part->seen < want->even - chance ? part->seen + chance : want->even;
}

static void
sum_shares(LagWant *want)
{
	int			i;

	for (i = 0; i < want->group->partitions; i++)
		want->even += (double) want->parts[i].seen / want->group->partitions;
	for (i = 0; i < want->group->partitions; i++)
		want->shares += partition_share(want, i);
}

/* Returns how many events a rest has, as its strata have it and its share of them. */
static double
estimate_rest(const LagScan *scan, const LagRest *rest)
{
	const LagWant *want = rest->want;
	const LagGroup *group = want->group;
	int64		end = group->ranges[rest->partition].upto;
	double		events = 0;
	int			i;

	for (i = 0; i < scan->strata_count; i++)
	{
		int64		upto = Min(scan->strata[i], end);
		int64		after = Max(scan->strata[i + 1], rest->after);

		if (after < upto)
			events += want->rates[i] * (upto - after);
	}
	if (group->partitions == 1 || want->shares == 0)
		return events / group->partitions;
	return events * partition_share(want, rest->partition) / want->shares;
}

/*
 * Searches for the first event of each rest, in their order, so that one may be met
 * on the way to another.
 */
static void
search_first_events(LagScan *scan, LagRest *rests, int count, int64 work)
{
	int64		least = scan->work - work;
	int64		most = Max(work / (LAG_EVENT + scan->count) / count, LEAST_SEARCH);
	int64		read_upto = -1;
	TimestampTz before = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		LagPart    *part = &rests[i].want->parts[rests[i].partition];
		int			looked = 0;

		if (part->since == 0 && rests[i].after > read_upto && (scan->work > least || i == 0))
		{
			seek_lag(scan, rests[i].after, scan->upto, ForwardScanDirection);
			read_upto = rests[i].after;
		}
		while (part->since == 0 && rests[i].after <= read_upto && looked < most &&
			   (scan->work > least || before == 0) &&
			   read_lag_event(scan, ForwardScanDirection, note_first_event))
		{
			looked++;
			read_upto = scan->position;
			before = scan->recorded_at;
		}
		if (part->since == 0)
			part->since = before;
	}
}

/* Adds what was found to the lags of a group. */
static void
add_counted(const LagWant *want)
{
	int			i;

	for (i = 0; i < want->group->partitions; i++)
	{
		const LagPart *part = &want->parts[i];
		Lag		   *lag = want->group->ranges[i].lag;

		if (lag == NULL)
			continue;
		lag->events += part->counted;
		if (part->since != 0 && (lag->since == 0 || part->since < lag->since))
			lag->since = part->since;
	}
}

/* Estimates what was not read. */
static void
estimate_rests(LagScan *scan, LagRest *rests, int count)
{
	int			i;

	for (i = 0; i < count; i++)
		rests[i].want->parts[rests[i].partition].since = 0;
	sample_strata(scan, scan->work / 2);
	search_first_events(scan, rests, count, scan->work);
	for (i = 0; i < scan->count; i++)
		sum_shares(&scan->wants[i]);
	for (i = 0; i < count; i++)
	{
		Lag		   *lag = rests[i].want->group->ranges[rests[i].partition].lag;

		lag->is_estimate = true;
		lag->events += Max((int64) estimate_rest(scan, &rests[i]), 1);
	}
}

/* Begins to look at the events of the category. */
static void
begin_lag_scan(LagScan *scan, List *groups)
{
	ListCell   *cell;

	scan->wide = ((LagGroup *) linitial(groups))->wide;
	scan->index = scan->category != 0 && scan->source->categories != NULL ?
		scan->source->categories : scan->source->positions;
	if (scan->category != 0 && scan->source->categories == NULL)
		scan->checked = DatumGetTextPP(scan->category);
	scan->wants = palloc0(sizeof(LagWant) * list_length(groups));
	scan->after = PG_INT64_MAX;
	foreach(cell, groups)
	{
		LagGroup   *group = lfirst(cell);
		LagWant    *want = &scan->wants[scan->count++];

		want->group = group;
		want->parts = palloc0(sizeof(LagPart) * group->partitions);
		scan->after = Min(scan->after, group->after);
		scan->upto = Max(scan->upto, group->upto);
	}
}

static void
end_lag_scan(LagScan *scan)
{
	int			i;

	index_endscan(scan->scan);
	if (scan->match != NULL)
		match_end(scan->match);
	ExecClearTuple(scan->source->slot);
	for (i = 0; i < scan->count; i++)
		pfree(scan->wants[i].parts);
	pfree(scan->wants);
}

bool
lag_scan_category(const LagSource *source, Datum category, List *groups, int64 *work,
				  bool estimate)
{
	LagScan		scan = {.source = source,.category = category,.work = *work};
	LagRest    *rests;
	int			count;
	int			i;

	begin_lag_scan(&scan, groups);
	read_lag_backward(&scan, estimate ? scan.work / 2 : scan.work);
	rests = make_rests(&scan, &count);
	if (count > 0 && estimate)
		estimate_rests(&scan, rests, count);
	pfree(rests);
	for (i = 0; (count == 0 || estimate) && i < scan.count; i++)
		add_counted(&scan.wants[i]);
	end_lag_scan(&scan);
	*work = scan.work;
	return count == 0 || estimate;
}
