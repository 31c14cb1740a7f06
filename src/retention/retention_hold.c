/*-------------------------------------------------------------------------
 *
 * retention_hold.c
 *		What holds a rule: consumers that have not read the events yet.
 *
 * Nothing is removed above the horizon, nor above the least checkpoint of
 *
 *	- each async projection that may want events of the category, paused and failed ones,
 *	  too;
 *	- each sync projection that is paused or has failed: one that runs has handled all
 *	  events, as parts of their appends;
 *	- each projection that is rebuilt: its start_position, as nothing says where the rebuild
 *	  reads;
 *	- each partition of a subscription that may want them.  What is in flight lies above
 *	  its checkpoint.
 *
 * Events that were parked lie below a checkpoint.  They hold their own streams alone, from the
 * first of them on (retention_find.c).
 *
 * A consumer whose oldest unread event of the category is older than max_lag holds nothing
 * any more.  It is left behind: it misses events that are removed.  A rebuild is not.
 * Consumers that keep their positions themselves are not known here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/log.h"
#include "retention/rule.h"

/*
 * $1: the category; null: any, $2: the horizon, $3: what is older is too old to hold; null: nothing
 * is.  Projections come at any position, as one may be rebuilt.
 */
#define SELECT_CONSUMERS \
	"SELECT c.kind, c.name, c.position, c.start_position, (e.recorded_at < $3) IS TRUE" \
	" FROM (SELECT 'projection' AS kind, p.name," \
	"   CASE WHEN p.mode = 'sync' AND p.state = 'running' THEN $2 ELSE p.position END AS position," \
	"   p.start_position FROM @extschema@.es_projections p" \
	"   WHERE $1 IS NULL OR p.categories IS NULL OR $1 = ANY (p.categories)" \
	" UNION ALL SELECT 'subscription', p.subscription," \
	"   CASE WHEN p.leased_until IS NULL THEN greatest(p.position, p.reached) ELSE p.position END," \
	"   NULL FROM @extschema@.es_subscriptions s" \
	"   JOIN @extschema@.es_partitions p ON p.subscription = s.name" \
	"   WHERE $1 IS NULL OR s.categories IS NULL OR $1 = ANY (s.categories) OR (p.earlier_upto > p.position" \
	"     AND (p.earlier_categories IS NULL OR $1 = ANY (p.earlier_categories)))) c" \
	" LEFT JOIN LATERAL (SELECT e.recorded_at FROM @extschema@.es_events e" \
	"   WHERE @extschema@.es_category(e.stream) = $1" \
	"   AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1)" \
	"   AND e.position > c.position AND e.position <= $2" \
	"   ORDER BY e.position LIMIT 1) e ON c.position < $2 AND $3 IS NOT NULL" \
	" WHERE c.kind = 'projection' OR c.position < $2" \
	" ORDER BY c.position"

enum
{
	CONSUMER_KIND, CONSUMER_NAME, CONSUMER_POSITION, CONSUMER_START, CONSUMER_IS_BEHIND,
	CONSUMER_COLUMNS
};

/* $1: the category, $2: where it is held, $3: what is too old; null: new events count. */
#define SELECT_HELD_EVENT \
	"SELECT FROM (SELECT e.recorded_at FROM @extschema@.es_events e" \
	"   WHERE @extschema@.es_category(e.stream) = $1" \
	"   AND @extschema@.es_by_index(@extschema@.es_category(e.stream), $1)" \
	"   AND e.position > $2 ORDER BY e.position LIMIT 1) e" \
	" WHERE $3 IS NULL OR e.recorded_at < $3"

/* Returns true if the list has the text. */
static bool
list_has_text(List *list, text *value)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		if (stream_equal(lfirst(cell), value))
			return true;
	}
	return false;
}

/* Holds the rule at the position, if nothing does at a lower one. */
static void
lower_hold(RetentionHold *hold, int64 position, const char *what, const char *name)
{
	if (position >= hold->position)
		return;
	hold->position = position;
	hold->held_by = psprintf("%s %s", what, name);
}

/* Notes that a consumer is left behind, and logs it the first time. */
static void
leave_behind(const RetentionRule *rule, List **behind, const char *kind, const char *name,
			 int64 position)
{
	text	   *consumer = cstring_to_text(psprintf("%s %s", kind, name));

	if (list_has_text(*behind, consumer))
		return;
	*behind = lappend(*behind, consumer);
	if (!list_has_text(rule->left_behind, consumer))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("retention of category \"%s\" leaves %s \"%s\" behind",
						text_to_cstring(rule->category), kind, name),
				 errdetail("It has read up to position " INT64_FORMAT
						   ", and its first unread event is older than max_lag: events that it has not read are removed.",
						   position),
				 errhint("Let it catch up, or drop it; es_retention_status lists it.")));
}

/* Lets a consumer, a row of the statement, hold the rule. */
static void
add_consumer(const RetentionRule *rule, HeapTuple row, RetentionHold *hold, List **behind)
{
	Datum		values[CONSUMER_COLUMNS];
	bool		nulls[CONSUMER_COLUMNS];
	const char *kind;
	const char *name;
	int64		position;

	heap_deform_tuple(row, SPI_tuptable->tupdesc, values, nulls);
	kind = TextDatumGetCString(values[CONSUMER_KIND]);
	name = TextDatumGetCString(values[CONSUMER_NAME]);
	position = DatumGetInt64(values[CONSUMER_POSITION]);
	if (!nulls[CONSUMER_START] && rebuild_is_going_on(name))
		lower_hold(hold, DatumGetInt64(values[CONSUMER_START]), "rebuild of projection", name);
	if (DatumGetBool(values[CONSUMER_IS_BEHIND]))
		leave_behind(rule, behind, kind, name, position);
	else
		lower_hold(hold, position, kind, name);
}

void
hold_find(RetentionRule *rule, bool force, RetentionHold *hold)
{
	int64		horizon = horizon_now(rule->log);
	Oid			types[3] = {TEXTOID, INT8OID, TIMESTAMPTZOID};
	Datum		values[3] = {
		PointerGetDatum(rule->category), Int64GetDatum(horizon),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_lag))
	};
	char		nulls[] = "   ";
	List	   *behind = NIL;
	uint64		count;
	uint64		i;

	hold->position = horizon;
	hold->held_by = "horizon";
	hold->forced = force;
	if (force)
		return;
	if (rule->category == NULL)
		nulls[0] = 'n';
	if (rule->max_lag == NULL)
		nulls[2] = 'n';
	count = own_sql_run(rule->log, SELECT_CONSUMERS, 3, types, values, nulls);
	for (i = 0; i < count; i++)
		add_consumer(rule, SPI_tuptable->vals[i], hold, &behind);
	rule->left_behind = behind;
}

void
hold_note(RetentionRule *rule, const RetentionHold *hold)
{
	Oid			types[3] = {TEXTOID, INT8OID, TIMESTAMPTZOID};
	Datum		values[3] = {
		PointerGetDatum(rule->category), Int64GetDatum(hold->position),
		TimestampTzGetDatum(rule_time_before(rule, rule->max_age))
	};
	const char *nulls = rule->max_count > 0 || rule->max_age == NULL ? "  n" : "   ";
	text	   *held_by = cstring_to_text(hold->held_by);

	if (own_sql_run(rule->log, SELECT_HELD_EVENT, 3, types, values, nulls) == 0)
		rule->held_by = NULL;
	else if (rule->held_by == NULL || rule->held_position != hold->position ||
			 !stream_equal(rule->held_by, held_by))
	{
		rule->held_by = held_by;
		rule->held_position = hold->position;
		rule->held_since = rule->now;
	}
}
