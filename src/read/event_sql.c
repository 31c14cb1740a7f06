/*-------------------------------------------------------------------------
 *
 * event_sql.c
 *		Reading events by SQL as a role that may not see all of them: the
 *		planner knows its privileges and its row security.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "read/read.h"

/* Our columns of es_events, in their order. */
#define EVENT_COLUMNS \
	"e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id," \
	" e.stream, e.type, e.data, e.metadata, e.tags, e.body"

/* Makes a statement on a table of the log's schema that has the columns of events. */
static char *
make_event_sql(Relation log, const char *table, const char *condition)
{
	const char *schema = get_namespace_name(RelationGetNamespace(log));

	return psprintf("SELECT " EVENT_COLUMNS " FROM %s.%s e WHERE %s",
					quote_identifier(schema), table, condition);
}

char *
event_sql_make(Relation log, const char *condition)
{
	return make_event_sql(log, "es_events", condition);
}

char *
event_sql_make_archived(Relation log, const char *condition)
{
	return make_event_sql(log, "es_archived_events", condition);
}

static ParamListInfo
make_event_params(int count, const Oid *types, const Datum *values,
				  const bool *nulls)
{
	ParamListInfo params = makeParamList(count);
	int			i;

	for (i = 0; i < count; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	return params;
}

/* Planned each time, since the plan depends on how much of the log is read. */
void
event_sql_run(Oid reader, Snapshot snapshot, const char *sql, int count,
			  Oid *types, const Datum *values, const bool *nulls,
			  Tuplestorestate *store)
{
	SPIExecuteOptions options = {0};
	RunAs		saved = run_as(reader, true, "pg_catalog, pg_temp");
	int			result;

	/* what the session has set is for what the caller reads itself */
	if (reader != saved.userid)
		(void) set_config_option("row_security", "on", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	options.params = make_event_params(count, types, values, nulls);
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, store,
									CurrentMemoryContext, false, NULL, NULL);
	PushActiveSnapshot(snapshot);
	SPI_connect();
	result = SPI_execute_plan_extended(own_sql_cached_plan(sql, count, types,
														   CURSOR_OPT_CUSTOM_PLAN),
									   &options);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	SPI_finish();
	PopActiveSnapshot();
	options.dest->rDestroy(options.dest);
	run_as_end(saved);
}
