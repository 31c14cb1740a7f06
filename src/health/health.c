/*-------------------------------------------------------------------------
 *
 * health.c
 *		es_health(): what needs a human, a row each, the most urgent first.
 *
 * The functions of sql/health_*.sql find the problems, each those of one subject.  They
 * look at the catalogs, at other sessions and at rows of every role.  So they run as
 * the owner of the log, by fixed statements, and only the owner may execute them.
 *
 * Each look is a subtransaction.  Its error, such as that of the horizon while the log
 * has no primary key, becomes a row, and the others go on.
 *
 * What the caller sees follows the status views: all, if it may read es_failures or is
 * a member of pg_read_all_stats; else the problems of what it owns.  A problem of the
 * log or the server is shown to these roles only.
 *
 * Nothing is written and no lock is taken beyond those of reading, so that the view
 * serves on a standby, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
#include "failure/failure.h"
#include "health/health.h"

PG_FUNCTION_INFO_V1(es_health);

#define HEALTH_COLUMNS	7

/*
 * eventstore.health_delay: seconds for which something that may end by itself must have
 * lasted before it is a problem: an open append, a consumer or a worker that does not
 * come.  An administrator makes it longer where appends take long, and shorter to see at
 * once what is open.
 */
static int	health_delay = 60;

/* What is looked at, and the function that does it; $1: the delay. */
typedef struct HealthPart
{
	const char *subject;
	const char *function;
} HealthPart;

static const HealthPart parts[] = {
	{"the log", "es_health_log()"},
	{"the horizon", "es_health_horizon($1)"},
	{"types", "es_health_types()"},
	{"personal data", "es_health_personal($1)"},
	{"projections", "es_health_projections($1)"},
	{"subscriptions", "es_health_subscriptions($1)"},
	{"the inbox", "es_health_inbox()"},
	{"retention", "es_health_retention($1)"},
	{"the logical replica", "es_health_replica($1)"}
};

/* $2: see all, $3: the caller. */
#define VISIBLE \
	"SELECT h.urgency, h.problem, h.object, h.since, h.message, h.remedy, h.remedy_by" \
	" FROM @extschema@.%s h WHERE $1 IS NOT NULL AND ($2 OR pg_has_role($3, h.owner, 'USAGE'))"

/* A part, and where its problems go. */
typedef struct HealthLook
{
	Oid			log;
	const HealthPart *part;
	ReturnSetInfo *result;
} HealthLook;

void
health_init(void)
{
	DefineCustomIntVariable("eventstore.health_delay",
							"How long something must have lasted before es_health shows it.",
							"It is for what may end by itself: open appends, missing consumers and workers.",
							&health_delay, 60, 0, 86400,
							PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Finds the problems of a part that the caller may see. */
static bool
find_problems(void *arg)
{
	HealthLook *look = arg;
	Interval	delay = {.time = health_delay * USECS_PER_SEC};
	Oid			types[3] = {INTERVALOID, BOOLOID, OIDOID};
	Datum		given[3] = {
		IntervalPGetDatum(&delay), BoolGetDatum(operator_sees_all(look->log)),
		ObjectIdGetDatum(GetUserId())
	};
	uint64		count;
	uint64		i;

	SPI_connect();
	count = own_sql_select(look->log, psprintf(VISIBLE, look->part->function),
						   3, types, given, NULL);
	for (i = 0; i < count; i++)
	{
		Datum		values[HEALTH_COLUMNS];
		bool		nulls[HEALTH_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values,
						  nulls);
		tuplestore_putvalues(look->result->setResult, look->result->setDesc,
							 values, nulls);
	}
	SPI_finish();
	return true;
}

/* Says that a part could not be looked at. */
static void
add_unknown(const HealthLook *look, const ErrorData *error)
{
	Datum		values[HEALTH_COLUMNS] = {
		Int32GetDatum(2), CStringGetTextDatum("health_unknown"),
		CStringGetTextDatum(look->part->subject), (Datum) 0,
		CStringGetTextDatum(psprintf("The look failed: %s%s%s", error->message,
									 error->detail ? " " : "",
									 error->detail ? error->detail : ""))
	};
	bool		nulls[HEALTH_COLUMNS] = {false, false, false, true, false, true, true};

	tuplestore_putvalues(look->result->setResult, look->result->setDesc, values,
						 nulls);
}

/*
 * es_health(): a row for each problem.
 */
Datum
es_health(PG_FUNCTION_ARGS)
{
	HealthLook	look = {
		.log = log_relid(fcinfo->flinfo->fn_oid),
		.result = (ReturnSetInfo *) fcinfo->resultinfo
	};
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < (int) lengthof(parts); i++)
	{
		ErrorData  *error;

		look.part = &parts[i];
		error = subtransaction_try(find_problems, &look);
		if (error != NULL)
			add_unknown(&look, error);
	}
	PG_RETURN_NULL();
}
