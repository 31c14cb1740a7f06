/*-------------------------------------------------------------------------
 *
 * retention_run.c
 *		Running rules: es_run_retention() and, through retention_run_due, the workers.
 *
 * A worker does one step a transaction: at most so many events, in so much time.  After
 * it all workers of the database pause, so that they remove no more than
 * eventstore.retention_rate.  A rule that has no more to do rests: until its next
 * event is too old, or for some seconds to see what is new.  It rests longer if it found
 * little in each stream, since each removal leaves a row in es_removals.
 *
 * A step that fails is rolled back, and its error is noted in the rule, which is tried again
 * later.  The other rules go on.  A step is rolled back by a crash, too, and done again; so
 * its commit need not wait for the disk.
 *
 * A clock that was ahead has left times that lie far ahead.  Those are not waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/tags.h"
#include "retention/rule.h"

PG_FUNCTION_INFO_V1(es_run_retention);

/* Limits of a worker's step; the time is in milliseconds. */
#define STEP_EVENTS		1000
#define STEP_STREAMS	100
#define STEP_TIME		100

/* Limits of a call of es_run_retention. */
#define CALL_EVENTS		100000
#define CALL_STREAMS	900

/*
 * Milliseconds until a worker looks again: if another is at work; at least, if it had
 * nothing to do; at most; without a rule.
 */
#define LOOK_PAUSE		1000
#define LOCKED_PAUSE	10
#define LONGEST_WAIT	300000
#define NO_RULE_WAIT	3600000

/* Seconds from one look of a rule at new events to the next. */
#define SHORTEST_PAUSE	10
#define IDLE_PAUSE		60		/* of a rule without max_count */
#define LONGEST_PAUSE	300

/* To look at so many events counts as the removal of one. */
#define LOOKED_AT		10

/* Events in a removal that are few, or many. */
#define FEW_EVENTS		10
#define MANY_EVENTS		100

/* Milliseconds between two looks for what may be purged, and rows in one. */
#define PURGE_PAUSE		60000
#define PURGE_SIZE		1000

/* Workers pause after the rule. */
#define PACED \
	"r.paced_until BETWEEN pg_catalog.clock_timestamp()" \
	" AND pg_catalog.clock_timestamp() + interval '2 minutes'"

/* The rule that is due first, unless workers pause. */
#define DUE_RULE \
	"WHERE (r.next_run <= pg_catalog.clock_timestamp()" \
	"  OR r.next_run > pg_catalog.clock_timestamp() + interval '10 minutes')" \
	" AND NOT EXISTS (SELECT FROM @extschema@.es_retention r WHERE " PACED ")" \
	" ORDER BY r.next_run LIMIT 1 FOR UPDATE SKIP LOCKED"

/* $1: the age in seconds, $2: so many. */
#define PURGE_IDS \
	"DELETE FROM @extschema@.es_removed_ids r WHERE r.id = ANY (ARRAY(" \
	" SELECT i.id FROM @extschema@.es_removed_ids i" \
	" WHERE i.removed_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)" \
	" ORDER BY i.removed_at LIMIT $2 FOR UPDATE SKIP LOCKED))"

#define NEXT_RUN \
	"SELECT coalesce((extract(epoch FROM greatest(min(r.next_run), max(r.paced_until) FILTER (WHERE " PACED "))" \
	"  - pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8, 3600000) FROM @extschema@.es_retention r"

int			retention_rate = 1000;

/*
 * eventstore.retry_window: seconds for which a retry of an append is known whose events
 * were removed.  An administrator makes it longer if programs may retry later than that,
 * and shorter to save the space.
 */
static int	retry_window = 7 * 24 * 3600;

void
retention_init(void)
{
	DefineCustomIntVariable("eventstore.retention_rate",
							"Events that workers remove by rules of retention in a second.",
							"It is for each database; 0 stops workers from removing any.",
							&retention_rate, 1000, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventstore.retry_window",
							"How long ids of removed events are kept, to know retries.",
							NULL, &retry_window, 7 * 24 * 3600, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/*
 * Workers
 */

/*
 * Returns the pause of a rule that has no more to do.  What it found decides how
 * long the next one is.
 */
static TimestampTz
find_next_run(const RetentionStep *step, TimestampTz now)
{
	RetentionRule *rule = step->rule;
	int			idle = rule->max_count > 0 ? SHORTEST_PAUSE : IDLE_PAUSE;
	TimestampTz next = TimestampTzPlusMilliseconds(now, 1000L * idle);

	if (step->streams > 0)
	{
		if (step->events < step->streams * FEW_EVENTS)
			rule->pause = Min(rule->pause * 2, LONGEST_PAUSE);
		else if (step->events > step->streams * MANY_EVENTS)
			rule->pause = Max(rule->pause / 2, SHORTEST_PAUSE);
		return TimestampTzPlusMilliseconds(now, 1000L * rule->pause);
	}
	if (step->due_at != 0 && step->due_at < next)
		next = Max(step->due_at, TimestampTzPlusMilliseconds(now, 1000L));
	return next;
}

/* Runs a step, as work for a subtransaction, and writes what it did. */
static bool
run_step(void *arg)
{
	RetentionStep *step = arg;
	RetentionNote note = {0};
	TimestampTz now;

	hold_find(step->rule, false, &step->hold);
	step_run(step);
	hold_note(step->rule, &step->hold);
	now = GetCurrentTimestamp();
	note.events = step->events;
	note.removals = step->streams;
	note.next_run = step->more ? now : find_next_run(step, now);
	if (step->more || step->events > 0)
		note.paced_until = step->rule->now +
			(step->events + step->looked / LOOKED_AT) * USECS_PER_SEC / retention_rate;
	rule_write(step->rule, &note);
	return true;
}

/* Returns how long to wait until the next rule is due. */
static long
find_wait(Oid log)
{
	long		wait;

	(void) own_sql_run(log, NEXT_RUN, 0, NULL, NULL, NULL);
	wait = (long) DatumGetInt64(own_sql_value(1));
	return Min(Max(wait, 0), LONGEST_WAIT);
}

/* Runs a step of a rule; returns how long to wait then. */
static long
run_due_rule(RetentionRule *rule)
{
	RetentionStep step = {
		.rule = rule,
		.own_transaction = true,
		.max_events = Min(STEP_EVENTS, retention_rate),
		.max_streams = STEP_STREAMS,
		.max_time = STEP_TIME
	};
	ErrorData  *error = subtransaction_try(run_step, &step);

	if (error != NULL)
		rule_write_error(rule, error);
	return find_wait(rule->log);
}

/* Purges what was kept for long enough.  Returns how long to wait then. */
static long
purge_removed(Oid log)
{
	static TimestampTz purged_at = 0;
	Oid			types[2] = {FLOAT8OID, INT4OID};
	Datum		values[2] = {Float8GetDatum(retry_window), Int32GetDatum(PURGE_SIZE)};
	TimestampTz now = GetCurrentTimestamp();

	if (purged_at <= now && !TimestampDifferenceExceeds(purged_at, now, PURGE_PAUSE))
		return find_wait(log);
	if (own_sql_run(log, PURGE_IDS, 2, types, values, NULL) == PURGE_SIZE)
		return Min(PURGE_SIZE * 1000L / retention_rate, LOOK_PAUSE);
	purged_at = now;
	return find_wait(log);
}

/* Returns true if the table has no page, and so no row. */
static bool
table_has_no_page(Oid log, const char *table)
{
	Relation	rel = relation_open(own_table_relid(log, table), AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	relation_close(rel, AccessShareLock);
	return pages == 0;
}

long
retention_run_due(Oid log)
{
	RetentionRule *rule;
	long		wait;

	if (retention_rate == 0 ||
		(table_has_no_page(log, "es_retention") && table_has_no_page(log, "es_removals")))
		return NO_RULE_WAIT;
	if (log_relid_is_closed(log) || log_restore_is_going_on(log) || !retention_try_lock())
		return LOOK_PAUSE;
	SPI_connect();
	rule = rule_select(log, DUE_RULE, NULL);
	if (rule != NULL)
		wait = run_due_rule(rule);
	else
		/* one that is due, but is locked, is not waited for */
		wait = Max(purge_removed(log), LOCKED_PAUSE);
	SPI_finish();
	return wait;
}

/*
 * es_run_retention
 */

/* Arguments, in their order. */
enum
{
	ARG_CATEGORY, ARG_DRY_RUN, ARG_FORCE
};

/* Columns of the result. */
enum
{
	RESULT_CATEGORY, RESULT_STREAMS, RESULT_EVENTS, RESULT_HELD_BY, RESULT_HELD_SINCE,
	RESULT_MORE, RESULT_COLUMNS
};

/* Adds a row to the result. */
static void
add_result(ReturnSetInfo *result, const RetentionStep *step)
{
	const RetentionRule *rule = step->rule;
	Datum		values[RESULT_COLUMNS] = {
		PointerGetDatum(rule->category), Int64GetDatum(step->streams),
		Int64GetDatum(step->events), PointerGetDatum(rule->held_by),
		TimestampTzGetDatum(rule->held_since), BoolGetDatum(step->more)
	};
	bool		nulls[RESULT_COLUMNS] = {false};

	nulls[RESULT_HELD_BY] = nulls[RESULT_HELD_SINCE] = rule->held_by == NULL;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Runs steps of a rule, up to the limits of a call, and writes what they did. */
static void
run_rule(RetentionStep *step)
{
	RetentionNote note = {0};

	do
	{
		step_run(step);
	} while (step->more && step->events < step->max_events &&
			 step->streams < step->max_streams && log_lock_count() < ES_MAX_LOG_LOCKS);
	hold_note(step->rule, &step->hold);
	note.events = step->events;
	note.removals = step->streams;
	note.next_run = GetCurrentTimestamp();
	rule_write(step->rule, &note);
}

/* Runs a rule, or counts what it would remove. */
static void
run_or_count(RetentionRule *rule, bool dry_run, bool force, ReturnSetInfo *result)
{
	RetentionStep step = {
		.rule = rule,
		.max_events = CALL_EVENTS,
		.max_streams = CALL_STREAMS
	};

	hold_find(rule, force, &step.hold);
	if (dry_run)
	{
		target_count_all(rule, &step.hold, &step.streams, &step.events);
		hold_note(rule, &step.hold);
	}
	else
		run_rule(&step);
	add_result(result, &step);
}

/* Returns the categories that have rules, or the one that is given; 42704 without a rule. */
static List *
list_categories(Oid log, text *category)
{
	Oid			type = TEXTOID;
	Datum		value = PointerGetDatum(category);
	const char *null = category == NULL ? "n" : NULL;
	uint64		count = own_sql_run(log, "SELECT r.category FROM @extschema@.es_retention r"
									" WHERE $1 IS NULL OR r.category = $1 ORDER BY r.category",
									1, &type, &value, null);
	List	   *categories = NIL;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		bool		isnull;

		categories = lappend(categories,
							 DatumGetTextPCopy(SPI_getbinval(SPI_tuptable->vals[i],
															 SPI_tuptable->tupdesc, 1, &isnull)));
	}
	if (categories == NIL && category != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("category \"%s\" has no rule of retention", text_to_cstring(category)),
				 errdetail("There is no row of it in es_retention."),
				 errhint("Set a rule by es_set_retention().")));
	return categories;
}

/*
 * es_run_retention(category, dry_run, force): a row for each rule.
 */
Datum
es_run_retention(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	bool		dry_run = argument_is_true(fcinfo, ARG_DRY_RUN);
	bool		force = argument_is_true(fcinfo, ARG_FORCE);
	ListCell   *cell;

	isolation_check("es_run_retention()");
	log_check_relid_open(log);
	InitMaterializedSRF(fcinfo, 0);
	if (!dry_run)
	{
		PreventCommandIfReadOnly("es_run_retention()");
		retention_lock();
	}
	SPI_connect();
	foreach(cell, list_categories(log, PG_ARGISNULL(ARG_CATEGORY) ? NULL :
								  PG_GETARG_TEXT_PP(ARG_CATEGORY)))
	{
		RetentionRule *rule = rule_select(log, dry_run ? "WHERE r.category = $1" :
										  "WHERE r.category = $1 FOR UPDATE", lfirst(cell));

		if (rule != NULL)
			run_or_count(rule, dry_run, force, (ReturnSetInfo *) fcinfo->resultinfo);
	}
	SPI_finish();
	PG_RETURN_NULL();
}
