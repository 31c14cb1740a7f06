/*-------------------------------------------------------------------------
 *
 * retention_find.c
 *		What a rule removes: two walks over its category, and the oldest events of a stream.
 *
 * Both walks follow the index of categories, in the order of positions, and go on where they
 * were.  So each event is looked at twice, whatever the category has been for long.
 *
 *	aged: the events that are too old.  It ends at the first one that is not: it and those
 *		behind it are younger.  So a clock that was behind for a while lets nothing be
 *		removed early.  An event whose time is in the future, from a clock that was ahead,
 *		ends no walk: the age of those that follow it counts.
 *	new: all events up to the limit, for streams that have got too many, and for those
 *		whose last event had to stay until another one followed.
 *
 * A walk gives the names of streams.  What is removed of a stream are its first events,
 * as long as they are below the position of the aged walk, or are more than max_count,
 * but not the last one, nor one that is parked.  Positions ascend with versions, so these
 * are all events before a version.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "base/setting.h"
#include "eventstore.h"
#include "log/log.h"
#include "retention/retention.h"
#include "retention/rule.h"

/* Events that a walk looks at in one statement. */
#define BATCH_SIZE	1000

/* Events of the category $1 after the position $2, up to $3; $4: at most so many. */
#define BATCH \
	"WITH batch AS MATERIALIZED (" \
	" SELECT e.position, e.stream, e.recorded_at FROM @extschema@.es_events e" \
	" WHERE @extschema@.es_category(e.stream) = $1" \
	" AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1)" \
	" AND e.position > $2 AND e.position <= $3 ORDER BY e.position LIMIT $4)"

/*
 * The streams of those that are taken, and in each row what the walk needs to know.
 */
#define BATCH_STREAMS \
	" SELECT s.stream, s.at, i.upto, i.looked, i.young_at FROM info i" \
	" LEFT JOIN (SELECT b.stream, min(b.position) AS at FROM batch b, info i" \
	"   WHERE b.position <= i.upto GROUP BY b.stream) s ON true ORDER BY s.at"

/* $5: now, $6: older events are too old, $7: take all of them. */
#define SELECT_AGED_BATCH \
	BATCH ", young AS (SELECT min(b.position) AS position FROM batch b" \
	" WHERE b.recorded_at >= $6 AND b.recorded_at <= $5 AND NOT $7)," \
	" info AS (SELECT max(b.position) FILTER (WHERE ($7 OR b.recorded_at < $6)" \
	"   AND (y.position IS NULL OR b.position < y.position)) AS upto," \
	" count(*) AS looked, (SELECT b.recorded_at FROM batch b, young y WHERE b.position = y.position) AS young_at" \
	" FROM batch b CROSS JOIN young y)" \
	BATCH_STREAMS

#define SELECT_NEW_BATCH \
	BATCH ", info AS (SELECT max(b.position) AS upto, count(*) AS looked," \
	" NULL::pg_catalog.timestamptz AS young_at FROM batch b)" \
	BATCH_STREAMS

enum
{
	BATCH_STREAM, BATCH_AT, BATCH_UPTO, BATCH_LOOKED, BATCH_YOUNG_AT, BATCH_COLUMNS
};

/* Is the first event that is not in the future too old?  As above; $4 is not used. */
#define SELECT_PRESENT_EVENT \
	"SELECT e.recorded_at < $6 FROM @extschema@.es_events e" \
	" WHERE @extschema@.es_category(e.stream) = $1" \
	" AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1)" \
	" AND e.position > $2 AND e.position <= $3 AND e.recorded_at <= $5 AND $4 IS NOT NULL" \
	" ORDER BY e.position LIMIT 1"

/* Has the event e a tag that a condition can ask for?  Those of subjects are none. */
#define HAS_TAGS \
	"e.tags IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.unnest(e.tags) t (tag)" \
	" WHERE NOT pg_catalog.starts_with(t.tag, '" ES_SUBJECT_TAG "'))"

/*
 * $1: the stream, $2: events up to here are too old, $3: the limit, $4: max_count or null,
 * $5: at most so many, $6: what was parked before that is not kept, or null, $7: forced.
 */
#define SELECT_TARGET \
	"WITH edge AS MATERIALIZED (SELECT" \
	" (SELECT e.version FROM @extschema@.es_events e WHERE e.stream = $1" \
	"   AND @extschema@.es_by_index(e.stream, $1) ORDER BY e.version DESC LIMIT 1) AS last," \
	" (SELECT e.position FROM @extschema@.es_events e WHERE e.stream = $1" \
	"   AND @extschema@.es_by_index(e.stream, $1) ORDER BY e.version LIMIT 1) AS first_position," \
	" CASE WHEN NOT $7 THEN (SELECT min(f.version) FROM @extschema@.es_failures f" \
	"   WHERE f.stream = $1 AND ($6 IS NULL OR f.first_failed_at >= $6)) END AS parked)" \
	" SELECT count(h.version)::int, max(h.version) + 1, coalesce(bool_or(h.tagged), false)," \
	" coalesce(bool_or(h.has_tags), false), bool_or(edge.parked IS NOT NULL)" \
	" FROM edge LEFT JOIN LATERAL (SELECT e.version, e.position, e.tags IS NOT NULL AS has_tags," \
	"   " HAS_TAGS " AS tagged" \
	"   FROM @extschema@.es_events e WHERE e.stream = $1" \
	"   AND @extschema@.es_by_index(e.stream, $1)" \
	"   AND e.version < CASE WHEN edge.first_position <= $2 THEN edge.last" \
	"     WHEN $4 IS NOT NULL THEN least(edge.last, edge.last - $4 + 1) ELSE 0 END" \
	"   ORDER BY e.version LIMIT $5) h" \
	" ON (h.position <= $2 OR h.version <= edge.last - $4) AND h.position <= $3" \
	" AND (edge.parked IS NULL OR h.version < edge.parked)"

/*
 * The same of all streams of the category $1 at once; $2: older events are too old, or
 * null, $3 to $7 as above, of which $5 is now.
 */
#define COUNT_TARGETS \
	"WITH young AS MATERIALIZED (SELECT (SELECT e.position FROM @extschema@.es_events e" \
	"   WHERE @extschema@.es_category(e.stream) = $1" \
	"   AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1) AND e.position <= $3" \
	"   AND e.recorded_at >= $2 AND e.recorded_at <= $5 ORDER BY e.position LIMIT 1) AS position)," \
	" aged AS MATERIALIZED (SELECT (SELECT e.position FROM @extschema@.es_events e, young y" \
	"   WHERE @extschema@.es_category(e.stream) = $1" \
	"   AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1) AND e.position <= $3" \
	"   AND (y.position IS NULL OR e.position < y.position) AND e.recorded_at < $2" \
	"   ORDER BY e.position DESC LIMIT 1) AS position)," \
	" stream AS (SELECT e.stream, max(e.version) AS last FROM @extschema@.es_events e" \
	"   WHERE @extschema@.es_category(e.stream) = $1 GROUP BY e.stream)," \
	" found AS (SELECT s.stream, count(*) AS events" \
	"   FROM stream s CROSS JOIN aged a JOIN @extschema@.es_events e ON e.stream = s.stream" \
	"   WHERE e.version < s.last AND e.position <= $3" \
	"   AND (e.position <= a.position OR e.version <= s.last - $4)" \
	"   AND ($7 OR e.version < ALL (SELECT f.version FROM @extschema@.es_failures f" \
	"     WHERE f.stream = s.stream AND ($6 IS NULL OR f.first_failed_at >= $6)))" \
	"   GROUP BY s.stream HAVING NOT bool_or(" HAS_TAGS "))" \
	" SELECT count(*), coalesce(sum(f.events), 0)::pg_catalog.int8 FROM found f"

/* Runs a statement that must use the indexes of the log. */
static void
run_by_index(Oid log, const char *sql, int nargs, Oid *types, Datum *values,
			 const char *nulls)
{
	int			level = settings_begin_by_index();

	(void) own_sql_run(log, sql, nargs, types, values, nulls);
	settings_end(level);
}

/* Reads what the batch is from the rows of its statement. */
static void
read_batch(int64 after, int64 upto, RetentionBatch *batch)
{
	uint64		i;

	memset(batch, 0, sizeof(RetentionBatch));
	batch->upto = after;
	for (i = 0; i < SPI_processed; i++)
	{
		Datum		values[BATCH_COLUMNS];
		bool		nulls[BATCH_COLUMNS];
		BatchStream *stream;

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		batch->looked = (int) DatumGetInt64(values[BATCH_LOOKED]);
		if (!nulls[BATCH_UPTO])
			batch->upto = DatumGetInt64(values[BATCH_UPTO]);
		if (!nulls[BATCH_YOUNG_AT])
			batch->young_at = DatumGetTimestampTz(values[BATCH_YOUNG_AT]);
		if (nulls[BATCH_STREAM])
			break;
		stream = palloc(sizeof(BatchStream));
		stream->name = DatumGetTextPCopy(values[BATCH_STREAM]);
		stream->at = DatumGetInt64(values[BATCH_AT]);
		batch->streams = lappend(batch->streams, stream);
	}
	SPI_freetuptable(SPI_tuptable);
	batch->ended = batch->looked < BATCH_SIZE || batch->young_at != 0;
}

void
batch_find_aged(const RetentionRule *rule, int64 upto, RetentionBatch *batch)
{
	Oid			types[7] = {
		TEXTOID, INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID
	};
	Datum		values[7] = {
		PointerGetDatum(rule->category), Int64GetDatum(rule->aged_position),
		Int64GetDatum(upto), Int32GetDatum(BATCH_SIZE), TimestampTzGetDatum(rule->now),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_age)), BoolGetDatum(false)
	};

	run_by_index(rule->log, SELECT_AGED_BATCH, 7, types, values, NULL);
	read_batch(rule->aged_position, upto, batch);
	if (batch->ended || batch->upto > rule->aged_position)
		return;

	/* all of them are in the future: the next one that is not decides */
	run_by_index(rule->log, SELECT_PRESENT_EVENT, 6, types, values, NULL);
	if (SPI_processed == 0 || !DatumGetBool(own_sql_value(1)))
	{
		batch->ended = true;
		return;
	}
	values[6] = BoolGetDatum(true);
	run_by_index(rule->log, SELECT_AGED_BATCH, 7, types, values, NULL);
	read_batch(rule->aged_position, upto, batch);
}

void
batch_find_new(const RetentionRule *rule, int64 upto, RetentionBatch *batch)
{
	Oid			types[4] = {TEXTOID, INT8OID, INT8OID, INT4OID};
	Datum		values[4] = {
		PointerGetDatum(rule->category), Int64GetDatum(rule->seen_position),
		Int64GetDatum(upto), Int32GetDatum(BATCH_SIZE)
	};

	run_by_index(rule->log, SELECT_NEW_BATCH, 4, types, values, NULL);
	read_batch(rule->seen_position, upto, batch);
	if (batch->ended)
		batch->upto = Max(batch->upto, upto);
}

void
target_find(const RetentionRule *rule, const RetentionHold *hold, text *stream,
			int64 aged_position, int64 limit, RetentionTarget *target)
{
	Oid			types[7] = {
		TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, BOOLOID
	};
	Datum		values[7] = {
		PointerGetDatum(stream), Int64GetDatum(aged_position), Int64GetDatum(hold->position),
		Int64GetDatum(rule->max_count), Int64GetDatum(limit),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_lag)), BoolGetDatum(hold->forced)
	};
	char		nulls[] = "       ";
	bool		has_tags;

	if (rule->max_count == 0)
		nulls[3] = 'n';
	if (rule->max_lag == NULL)
		nulls[5] = 'n';
	run_by_index(rule->log, SELECT_TARGET, 7, types, values, nulls);
	target->count = DatumGetInt32(own_sql_value(1));
	target->before = DatumGetInt64(own_sql_value(2));
	target->tagged = DatumGetBool(own_sql_value(3));
	has_tags = DatumGetBool(own_sql_value(4));
	target->parked = DatumGetBool(own_sql_value(5));
	SPI_freetuptable(SPI_tuptable);
	target->tags = !has_tags || target->tagged ? (Datum) 0 :
		removal_tags(rule->log, stream, target->before - 1);
}

void
target_count_all(const RetentionRule *rule, const RetentionHold *hold, int64 *streams,
				 int64 *events)
{
	Oid			types[7] = {
		TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID
	};
	Datum		values[7] = {
		PointerGetDatum(rule->category),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_age)),
		Int64GetDatum(hold->position), Int64GetDatum(rule->max_count),
		TimestampTzGetDatum(rule->now),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_lag)), BoolGetDatum(hold->forced)
	};
	char		nulls[] = "       ";

	if (rule->max_age == NULL)
		nulls[1] = 'n';
	if (rule->max_count == 0)
		nulls[3] = 'n';
	if (rule->max_lag == NULL)
		nulls[5] = 'n';
	(void) own_sql_run(rule->log, COUNT_TARGETS, 7, types, values, nulls);
	*streams = DatumGetInt64(own_sql_value(1));
	*events = DatumGetInt64(own_sql_value(2));
	SPI_freetuptable(SPI_tuptable);
}
