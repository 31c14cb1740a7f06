/*-------------------------------------------------------------------------
 *
 * query_events.c
 *		es_query(): the events that match a query.
 *
 * A caller that decides on its result appends beyond the last position that it has read
 * (condition.c).  So no event with a lower position may come later.  If it could, the
 * condition would not see it.  An event of another tag may have drawn a lower position,
 * and not be committed yet.  So:
 *
 *	1. Where each item has tags, the call waits until no transaction appends an event with one of
 *	   them, takes a snapshot, and lets go of the locks at once.  Events that come later
 *	   draw positions later.
 *	2. Where that cannot be, it reads up to the horizon: for an item without tags, at
 *	   isolation levels of one snapshot, and on a standby.
 *
 * All is read in one snapshot, which is taken after the wait; that of the statement is
 * older.
 *
 * Row security holds, and hidden events do not count in max_count (visible_events.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "base/role.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/tags.h"
#include "read/present.h"
#include "read/read.h"
#include "tag/tag.h"

PG_FUNCTION_INFO_V1(es_query);

/* Arguments, in their order. */
enum
{
	ARG_QUERY, ARG_AFTER, ARG_MAX_COUNT, ARG_BACKWARD, ARG_BEFORE
};

/* A call of es_query. */
typedef struct QueryCall
{
	Oid			log;
	EventQuery *query;
	MatchRange	range;
	int64		max_count;
	Snapshot	snapshot;
	Presenter  *presenter;
	ReturnSetInfo *result;
	int64		count;			/* of events that are returned */
	MemoryContext context;		/* for one event */
} QueryCall;

/* Takes the arguments. */
static void
init_call(QueryCall *call, FunctionCallInfo fcinfo)
{
	memset(call, 0, sizeof(QueryCall));
	argument_not_null(fcinfo, ARG_QUERY, "query");
	argument_not_null(fcinfo, ARG_AFTER, "after_position");
	argument_not_null(fcinfo, ARG_BACKWARD, "backward");
	call->log = log_relid(fcinfo->flinfo->fn_oid);
	call->query = query_read(PG_GETARG_JSONB_P(ARG_QUERY));
	call->range.after = PG_GETARG_INT64(ARG_AFTER);
	log_sequence_check(call->log, "after_position", call->range.after);
	call->range.backward = PG_GETARG_BOOL(ARG_BACKWARD);
	call->range.upto = PG_INT64_MAX;
	if (!PG_ARGISNULL(ARG_BEFORE))
	{
		argument_range("before_position", PG_GETARG_INT64(ARG_BEFORE), 1, PG_INT64_MAX);
		call->range.upto = PG_GETARG_INT64(ARG_BEFORE) - 1;
	}
	call->max_count = PG_INT64_MAX;
	if (!PG_ARGISNULL(ARG_MAX_COUNT))
	{
		call->max_count = PG_GETARG_INT64(ARG_MAX_COUNT);
		argument_range("max_count", call->max_count, 0, PG_INT64_MAX);
	}
}

/* Returns true if the call may wait for appends, and see what they have stored. */
static bool
may_wait(const QueryCall *call)
{
	return !call->query->has_untagged && !IsolationUsesXactSnapshot() &&
		!RecoveryInProgress();
}

/* Takes the snapshot, and finds out how far it can be read. */
static void
take_snapshot(QueryCall *call)
{
	if (may_wait(call))
	{
		LogLock    *locks = palloc(sizeof(LogLock) * call->query->count);
		int			count = query_add_locks(call->log, call->query, locks);

		call->snapshot = log_lock_barrier(call->log, locks, count);
		pfree(locks);
		return;
	}
	call->snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ? GetActiveSnapshot() :
									  GetLatestSnapshot());
	call->range.upto = Min(call->range.upto, horizon_find(call->log, call->snapshot));
}

/* Adds an event to the result. */
static void
put_event(void *taker, TupleTableSlot *event)
{
	QueryCall  *call = taker;
	Datum		values[Natts_es_recorded_event];
	bool		nulls[Natts_es_recorded_event];
	MemoryContext context = MemoryContextSwitchTo(call->context);

	present_columns(call->presenter, event, values, nulls);
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
	MemoryContextSwitchTo(context);
	MemoryContextReset(call->context);
	call->count++;
}

/* Adds the events, for a caller that may read all. */
static void
read_all(QueryCall *call)
{
	MatchRows  *rows = match_rows_begin(call->log, call->query, &call->range, call->snapshot);
	TupleTableSlot *event;

	while (call->count < call->max_count && (event = match_rows_next(rows)) != NULL)
		put_event(call, event);
	match_rows_end(rows);
}

/* Adds the events that the caller may see. */
static void
read_by_sql(QueryCall *call)
{
	Match	   *match = match_begin(call->log, call->query, &call->range, call->snapshot);
	VisibleEvents wanted = {
		.log = call->log,
		.snapshot = call->snapshot,
		.backward = call->range.backward,
		.max_count = call->max_count,
		.take = put_event,
		.taker = call
	};

	visible_events_read(match, &wanted);
	match_end(match);
}

/*
 * es_query(query, after_position, max_count, backward, before_position)
 */
Datum
es_query(PG_FUNCTION_ARGS)
{
	QueryCall	call;

	init_call(&call, fcinfo);
	log_check_relid_open(call.log);
	if (pg_class_aclcheck(call.log, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(call.log));
	InitMaterializedSRF(fcinfo, 0);
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	call.context = AllocSetContextCreate(CurrentMemoryContext, "eventstore event",
										 ALLOCSET_DEFAULT_SIZES);
	take_snapshot(&call);
	/* what the awaited transactions have defined counts for their events */
	AcceptInvalidationMessages();
	call.presenter = present_begin(call.log);
	if (role_may_read_all(call.log, GetUserId()))
		read_all(&call);
	else
		read_by_sql(&call);
	UnregisterSnapshot(call.snapshot);
	present_end(call.presenter);
	return (Datum) 0;
}
