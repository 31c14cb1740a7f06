/*-------------------------------------------------------------------------
 *
 * retention_rule.c
 *		es_set_retention(), and the row of a rule.
 *
 * A rule that is set anew begins at the start of its category again: it may allow less
 * than before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"
#include "retention/rule.h"

PG_FUNCTION_INFO_V1(es_set_retention);

/* Arguments, in their order. */
enum
{
	ARG_CATEGORY, ARG_MAX_AGE, ARG_MAX_COUNT, ARG_MAX_LAG, ARG_SET_BY, RULE_ARGUMENTS
};

#define MAX_RULE_YEARS	1000

#define SET_RULE \
	"INSERT INTO @extschema@.es_retention AS r (category, max_age, max_count, max_lag, set_by)" \
	" VALUES ($1, $2, $3, $4, $5)" \
	" ON CONFLICT (category) DO UPDATE SET max_age = $2, max_count = $3, max_lag = $4," \
	" set_by = $5, set_at = pg_catalog.clock_timestamp(), aged_position = 0, seen_position = 0," \
	" left_streams = '{}', tagged_streams = '{}', left_behind = '{}', held_by = NULL," \
	" held_position = NULL, held_since = NULL, next_run = pg_catalog.clock_timestamp()," \
	" paced_until = NULL, pause = 10, attempts = 0, failing_since = NULL, sqlstate = NULL," \
	" message = NULL, detail = NULL"

#define DELETE_RULE "DELETE FROM @extschema@.es_retention r WHERE r.category = $1"

#define SELECT_RULE \
	"SELECT r.category, r.max_age, r.max_count, r.max_lag," \
	" pg_catalog.jsonb_build_object('retention', r.category, 'set_by', r.set_by)," \
	" r.aged_position, r.seen_position, r.left_streams, r.tagged_streams, r.left_behind," \
	" r.held_by, r.held_position, r.held_since, r.pause, pg_catalog.clock_timestamp()" \
	" FROM @extschema@.es_retention r "

#define UPDATE_RULE \
	"UPDATE @extschema@.es_retention SET aged_position = $2, seen_position = $3, left_streams = $4," \
	" tagged_streams = $5, left_behind = $6, held_by = $7, held_position = $8, held_since = $9," \
	" pause = $10, removed = removed + $11, removals = removals + $12, next_run = $13," \
	" paced_until = $14, ran_at = pg_catalog.clock_timestamp(), attempts = 0," \
	" failing_since = NULL, sqlstate = NULL, message = NULL, detail = NULL" \
	" WHERE category = $1"

/* A run that fails is tried again after seconds, and later after minutes. */
#define UPDATE_ERROR \
	"UPDATE @extschema@.es_retention r SET attempts = r.attempts + 1," \
	" failing_since = coalesce(r.failing_since, pg_catalog.clock_timestamp())," \
	" sqlstate = $2, message = $3, detail = $4, ran_at = pg_catalog.clock_timestamp()," \
	" next_run = pg_catalog.clock_timestamp() +" \
	"   pg_catalog.make_interval(secs => least(300, 2 ^ least(r.attempts, 9)))" \
	" FROM @extschema@.es_retention o" \
	" WHERE r.category = $1 AND o.category = $1 RETURNING o.message IS DISTINCT FROM $3"

/* Columns of SELECT_RULE. */
enum
{
	RULE_CATEGORY, RULE_MAX_AGE, RULE_MAX_COUNT, RULE_MAX_LAG, RULE_METADATA,
	RULE_AGED_POSITION, RULE_SEEN_POSITION, RULE_LEFT_STREAMS, RULE_TAGGED_STREAMS,
	RULE_LEFT_BEHIND, RULE_HELD_BY, RULE_HELD_POSITION, RULE_HELD_SINCE, RULE_PAUSE, RULE_NOW,
	RULE_COLUMNS
};

/* Refuses a category that no rule can be for. */
static void
check_rule_category(text *category)
{
	char	   *name = text_to_cstring(category);

	argument_name("a category", name, ES_MAX_STREAM_LENGTH);
	event_check_category(category);
	if (strcmp(name, "*") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a rule is for one category"),
				 errdetail("The category is \"*\"."),
				 errhint("Set a rule for each category.")));
	if (event_is_reserved(category))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("category \"%s\" is reserved", name),
				 errdetail("Names that begin with \"%s\" are for streams of eventstore itself.",
						   ES_RESERVED_PREFIX),
				 errhint("Name a category of your own.")));
}

/* Refuses an interval that is not positive, or that no time can be before now. */
static void
check_rule_interval(FunctionCallInfo fcinfo, int argument, const char *name)
{
	Interval	longest = {.month = MAX_RULE_YEARS * 12};

	if (PG_ARGISNULL(argument))
		return;
	argument_interval(name, PG_GETARG_INTERVAL_P(argument), false);
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, PG_GETARG_DATUM(argument),
										  IntervalPGetDatum(&longest))) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be %d years at most", name, MAX_RULE_YEARS),
				 errdetail("It is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out,
															   PG_GETARG_DATUM(argument))))));
}

/* Refuses limits that are wrong.  Returns false if there is none. */
static bool
check_rule_limits(FunctionCallInfo fcinfo)
{
	check_rule_interval(fcinfo, ARG_MAX_AGE, "max_age");
	check_rule_interval(fcinfo, ARG_MAX_LAG, "max_lag");
	if (!PG_ARGISNULL(ARG_MAX_COUNT))
		argument_range("max_count", PG_GETARG_INT64(ARG_MAX_COUNT), 1, PG_INT64_MAX);
	if (!PG_ARGISNULL(ARG_MAX_AGE) || !PG_ARGISNULL(ARG_MAX_COUNT))
		return true;
	if (!PG_ARGISNULL(ARG_MAX_LAG))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_lag needs max_age or max_count"),
				 errdetail("A rule without a limit removes nothing that a consumer could hold."),
				 errhint("Pass max_age, max_count or both; pass none of the three to remove the rule.")));
	return false;
}

/*
 * es_set_retention(category, max_age, max_count, max_lag)
 */
Datum
es_set_retention(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[RULE_ARGUMENTS] = {TEXTOID, INTERVALOID, INT8OID, INTERVALOID, NAMEOID};
	Datum		values[RULE_ARGUMENTS];
	char		nulls[RULE_ARGUMENTS];
	bool		has_limit;
	NameData	set_by;
	int			i;

	PreventCommandIfReadOnly("es_set_retention()");
	argument_not_null(fcinfo, ARG_CATEGORY, "category");
	check_rule_category(PG_GETARG_TEXT_PP(ARG_CATEGORY));
	has_limit = check_rule_limits(fcinfo);
	log_check_relid_open(log);
	for (i = 0; i < ARG_SET_BY; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	namestrcpy(&set_by, GetUserNameFromId(GetUserId(), false));
	values[ARG_SET_BY] = NameGetDatum(&set_by);
	nulls[ARG_SET_BY] = ' ';
	SPI_connect();
	if (has_limit)
		(void) own_sql_run(log, SET_RULE, RULE_ARGUMENTS, types, values, nulls);
	else
		(void) own_sql_run(log, DELETE_RULE, 1, types, values, nulls);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Reading and writing the row
 */

/* Returns the texts of an array. */
static List *
read_texts(Datum array)
{
	List	   *list = NIL;
	Datum	   *values;
	int			count;
	int			i;

	deconstruct_array(DatumGetArrayTypePCopy(array), TEXTOID, -1, false, TYPALIGN_INT, &values,
					  NULL, &count);
	for (i = 0; i < count; i++)
		list = lappend(list, DatumGetTextPP(values[i]));
	return list;
}

static Datum
make_texts(List *list)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(list), 1));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, list)
		values[count++] = PointerGetDatum(lfirst(cell));
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Returns a copy of the interval, or NULL. */
static Interval *
read_interval(Datum value, bool isnull)
{
	return isnull ? NULL : DatumGetIntervalP(datumCopy(value, false, sizeof(Interval)));
}

RetentionRule *
rule_select(Oid log, const char *rest, text *value)
{
	Oid			type = TEXTOID;
	Datum		argument = PointerGetDatum(value);
	Datum		values[RULE_COLUMNS];
	bool		nulls[RULE_COLUMNS];
	RetentionRule *rule;

	if (own_sql_run(log, psprintf(SELECT_RULE "%s", rest), value != NULL ? 1 : 0, &type,
					&argument, NULL) == 0)
		return NULL;
	heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, values, nulls);
	rule = palloc0(sizeof(RetentionRule));
	rule->log = log;
	rule->category = DatumGetTextPCopy(values[RULE_CATEGORY]);
	rule->max_age = read_interval(values[RULE_MAX_AGE], nulls[RULE_MAX_AGE]);
	rule->max_count = nulls[RULE_MAX_COUNT] ? 0 : DatumGetInt64(values[RULE_MAX_COUNT]);
	rule->max_lag = read_interval(values[RULE_MAX_LAG], nulls[RULE_MAX_LAG]);
	rule->metadata = datumCopy(values[RULE_METADATA], false, -1);
	rule->aged_position = DatumGetInt64(values[RULE_AGED_POSITION]);
	rule->seen_position = DatumGetInt64(values[RULE_SEEN_POSITION]);
	rule->left_streams = read_texts(values[RULE_LEFT_STREAMS]);
	rule->tagged_streams = read_texts(values[RULE_TAGGED_STREAMS]);
	rule->left_behind = read_texts(values[RULE_LEFT_BEHIND]);
	if (!nulls[RULE_HELD_BY])
	{
		rule->held_by = DatumGetTextPCopy(values[RULE_HELD_BY]);
		rule->held_position = DatumGetInt64(values[RULE_HELD_POSITION]);
		rule->held_since = DatumGetTimestampTz(values[RULE_HELD_SINCE]);
	}
	rule->pause = DatumGetInt32(values[RULE_PAUSE]);
	rule->now = DatumGetTimestampTz(values[RULE_NOW]);
	return rule;
}

void
rule_write(const RetentionRule *rule, const RetentionNote *note)
{
	Oid			types[14] = {
		TEXTOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, INT8OID,
		TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[14] = {
		PointerGetDatum(rule->category), Int64GetDatum(rule->aged_position),
		Int64GetDatum(rule->seen_position), make_texts(rule->left_streams),
		make_texts(rule->tagged_streams), make_texts(rule->left_behind),
		PointerGetDatum(rule->held_by), Int64GetDatum(rule->held_position),
		TimestampTzGetDatum(rule->held_since), Int32GetDatum(rule->pause),
		Int64GetDatum(note->events), Int64GetDatum(note->removals),
		TimestampTzGetDatum(note->next_run), TimestampTzGetDatum(note->paced_until)
	};
	char		nulls[] = "              ";

	if (rule->held_by == NULL)
		nulls[6] = nulls[7] = nulls[8] = 'n';
	if (note->paced_until == 0)
		nulls[13] = 'n';
	(void) own_sql_run(rule->log, UPDATE_RULE, 14, types, values, nulls);
}

void
rule_write_error(const RetentionRule *rule, const ErrorData *error)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4] = {
		PointerGetDatum(rule->category),
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)),
		CStringGetTextDatum(error->message ? error->message : "no message"),
		error->detail ? CStringGetTextDatum(error->detail) : (Datum) 0
	};
	const char *nulls = error->detail ? "    " : "   n";

	if (own_sql_run(rule->log, UPDATE_ERROR, 4, types, values, nulls) > 0 &&
		DatumGetBool(own_sql_value(1)))
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("retention of category \"%s\" fails: %s",
						text_to_cstring(rule->category), error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("It is tried again; es_retention_status shows the error.")));
}

TimestampTz
rule_time_before(const RetentionRule *rule, const Interval *interval)
{
	if (interval == NULL)
		return 0;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(rule->now),
												   IntervalPGetDatum(interval)));
}
