/*-------------------------------------------------------------------------
 *
 * projection_skip.c
 *		es_skip_event and es_unskip_event: events that a projection leaves out.
 *
 * A row of es_skipped_events outlives the event's failure: whatever reads events for
 * the projection from then on, a batch, a retry or a rebuild, does not get the event
 * (projection_skipped_positions), so that the log gives the same read model again.
 *
 * Both functions lock the projection's row, as a runner does for its batch, and take
 * the lock of its rebuild in the shared mode before that: a rebuild replays without
 * the row's lock, and might have passed the event.  They also write the row, so that
 * a runner with an older snapshot, at REPEATABLE READ, fails instead of using it.
 *
 * While nothing is skipped the table has no page, and a batch looks no further.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_skip_event);
PG_FUNCTION_INFO_V1(es_unskip_event);

/* Arguments of both, in their order. */
enum
{
	ARG_PROJECTION, ARG_POSITION, ARG_REASON
};

/* The values of $1 and $2 in statements on es_skipped_events. */
typedef struct SkippedKey
{
	Oid			types[2];
	Datum		values[2];
} SkippedKey;

static SkippedKey
skipped_key(const Projection *projection, int64 position)
{
	SkippedKey	key = {{TEXTOID, INT8OID},
	{CStringGetTextDatum(projection->name), Int64GetDatum(position)}};

	return key;
}

/* Returns true if the table may have rows: it has a page. */
static bool
may_have_skipped(Oid log)
{
	Relation	rel = table_open(own_table_relid(log, "es_skipped_events"),
								 AccessShareLock);
	bool		any = RelationGetNumberOfBlocks(rel) > 0;

	table_close(rel, AccessShareLock);
	return any;
}

/* Returns the positions after one and up to another that are left out. */
Int8Array
projection_skipped_positions(const Projection *projection, int64 after, int64 upto)
{
	Oid			types[3] = {TEXTOID, INT8OID, INT8OID};
	Datum		values[3] = {CStringGetTextDatum(projection->name),
	Int64GetDatum(after), Int64GetDatum(upto)};
	Int8Array	positions = {0};
	uint64		count;
	uint64		i;

	if (!may_have_skipped(projection->log))
		return positions;
	PushActiveSnapshot(GetLatestSnapshot());
	count = own_sql_select(projection->log,
						   "SELECT position FROM @extschema@.es_skipped_events"
						   " WHERE projection = $1 AND position > $2 AND position <= $3",
						   3, types, values, NULL);
	PopActiveSnapshot();
	for (i = 0; i < count; i++)
	{
		bool		isnull;

		int8_array_append(&positions,
						  DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
													  SPI_tuptable->tupdesc, 1,
													  &isnull)));
	}
	SPI_freetuptable(SPI_tuptable);
	return positions;
}

void
projection_forget_skipped(const Projection *projection)
{
	SkippedKey	key = skipped_key(projection, 0);

	(void) own_sql_run(projection->log,
					   "DELETE FROM @extschema@.es_skipped_events WHERE projection = $1",
					   1, key.types, key.values, NULL);
}

/* Refuses to go on while the projection is being rebuilt. */
static void
check_not_rebuilt(const char *name)
{
	if (!rebuild_lock_out(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("projection \"%s\" is being rebuilt", name),
				 errdetail("The rebuild may have passed the event."),
				 errhint("Wait until it is over, or cancel it. es_projection_status shows how far it is.")));
}

/* Opens SPI, and locks the projection that the caller owns or operates. */
static Projection *
begin_skip(FunctionCallInfo fcinfo, const char *function)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Projection *projection;
	char	   *name;

	argument_not_null(fcinfo, ARG_PROJECTION, "projection");
	argument_not_null(fcinfo, ARG_POSITION, "position");
	PreventCommandIfReadOnly(function);
	projection_check_outside_handler(function);
	isolation_check(function);
	log_sequence_check(log, "position", PG_GETARG_INT64(ARG_POSITION));
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_PROJECTION));
	SPI_connect();
	projection_check_operator(projection_get(log, name, ""));
	check_not_rebuilt(name);
	projection = projection_lock_operated(log, name);
	if (projection->kind == PROJECTION_REFRESH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("projection \"%s\" cannot skip single events", name),
				 errdetail("It refreshes a materialized view as a whole."),
				 errhint("Leave the event out in the view's query.")));
	return projection;
}

/* Returns true if the event is left out already. */
static bool
is_skipped(const Projection *projection, int64 position)
{
	SkippedKey	key = skipped_key(projection, position);

	return own_sql_run(projection->log,
					   "SELECT FROM @extschema@.es_skipped_events"
					   " WHERE projection = $1 AND position = $2",
					   2, key.types, key.values, NULL) > 0;
}

/* Returns true if there was an event at the position. */
static bool
was_removed(Oid log, int64 position)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(position);

	return own_sql_run(log,
					   "SELECT FROM @extschema@.es_removals WHERE positions @> $1 LIMIT 1",
					   1, &type, &value, NULL) > 0;
}

/* Refuses a position at which there is no event. */
static void
check_event_exists(Oid log, int64 position)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(position);

	if (own_sql_run(log,
					"SELECT FROM @extschema@.es_events WHERE position = $1",
					1, &type, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no event at position " INT64_FORMAT, position),
				 was_removed(log, position) ?
				 errdetail("It was removed from the log.") :
				 errdetail("Positions have gaps."),
				 errhint("failed_position in es_projection_status is the position of the event that fails.")));
}

/* Returns true if the projection gets the event, with the rights of its owner. */
static bool
gets_event(const Projection *projection, int64 position)
{
	Projection	before = *projection;
	EventBatch	batch = {.events = event_batch_make()};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	before.position = position - 1;
	projection_read_batch(&before, snapshot, position, 1, &batch);
	UnregisterSnapshot(snapshot);
	tuplestore_end(batch.events);
	return batch.count > 0;
}

/* Returns true if the checkpoint has passed the position. */
static bool
has_passed(const Projection *projection, int64 position)
{
	return projection->position >= position ||
		(projection->sync && projection->running);
}

/*
 * Refuses an event that the projection does not get anyway.  One before start_position,
 * which may have been changed, comes as long as the checkpoint lies before it.
 */
static void
check_gets_event(const Projection *projection, int64 position)
{
	bool		early = position <= projection->start_position &&
	has_passed(projection, position);

	if (early || !gets_event(projection, position))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("projection \"%s\" does not get the event at position " INT64_FORMAT,
						projection->name, position),
				 early ?
				 errdetail("It begins after position " INT64_FORMAT ".",
						   projection->start_position) :
				 errdetail("Its filter leaves the event out, or its owner may not read it.")));
}

/* Stores that the event is left out, by whom and why.  reason: NULL for none. */
static void
insert_skipped(const Projection *projection, int64 position, Datum reason)
{
	Oid			types[4] = {TEXTOID, INT8OID, TEXTOID, TEXTOID};
	Datum		values[4] = {CStringGetTextDatum(projection->name),
		Int64GetDatum(position), reason,
	CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))};

	(void) own_sql_run(projection->log,
					   "INSERT INTO @extschema@.es_skipped_events"
					   " SELECT $1, e.position, e.id, e.stream, e.type, $3, $4::name,"
					   " clock_timestamp() FROM @extschema@.es_events e"
					   " WHERE e.position = $2",
					   4, types, values, reason ? "    " : "  n ");
}

/* Says that the read model stays as it is until it is rebuilt. */
static void
notice_passed(const Projection *projection, int64 position, const char *what)
{
	ereport(NOTICE,
			(errmsg("projection \"%s\" has passed the event at position " INT64_FORMAT,
					projection->name, position),
			 errdetail("The read model stays as it is. A rebuild %s the event.", what),
			 errhint("Call es_rebuild_projection().")));
}

/*
 * Writes the projection's row.  A projection that waits at the event, or searches for
 * it, goes on at once.
 */
static void
go_on_after_skip(const Projection *projection, int64 position)
{
	bool		waits = projection->message != NULL &&
	position > projection->position &&
	position <= projection->suspect_upto;

	projection_update(projection, waits ?
					  "ran_at = ran_at" PROJECTION_GOES_ON : "ran_at = ran_at",
					  0, NULL, NULL, NULL);
}

/*
 * es_skip_event(projection, position, reason): the projection leaves the event out
 * from now on.  If it waits at the event it goes on; if the event is parked, those
 * that only wait behind it are handled.
 */
Datum
es_skip_event(PG_FUNCTION_ARGS)
{
	Projection *projection = begin_skip(fcinfo, "es_skip_event()");
	int64		position = PG_GETARG_INT64(ARG_POSITION);
	Failure		failure;
	bool		parked = failure_at(projection_failures(projection), position, &failure);

	if (is_skipped(projection, position))
	{
		ereport(NOTICE,
				(errmsg("projection \"%s\" skips the event at position " INT64_FORMAT " already",
						projection->name, position)));
		SPI_finish();
		PG_RETURN_VOID();
	}
	check_event_exists(projection->log, position);
	if (!parked)				/* else it got the event */
		check_gets_event(projection, position);
	insert_skipped(projection, position, PG_ARGISNULL(ARG_REASON) ? (Datum) 0 :
				   PG_GETARG_DATUM(ARG_REASON));
	go_on_after_skip(projection, position);
	if (parked)
		projection_discard(projection, &failure);
	else if (has_passed(projection, position))
		notice_passed(projection, position, "leaves out");
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_unskip_event(projection, position): the projection gets the event again, if it
 * is still ahead, or in a rebuild.
 */
Datum
es_unskip_event(PG_FUNCTION_ARGS)
{
	Projection *projection = begin_skip(fcinfo, "es_unskip_event()");
	int64		position = PG_GETARG_INT64(ARG_POSITION);
	SkippedKey	key = skipped_key(projection, position);

	if (own_sql_run(projection->log,
					"DELETE FROM @extschema@.es_skipped_events"
					" WHERE projection = $1 AND position = $2",
					2, key.types, key.values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not skip the event at position " INT64_FORMAT,
						projection->name, position),
				 errdetail("The table es_skipped_events has no such row."),
				 errhint("es_visible_skipped_events lists the events that are skipped.")));
	go_on_after_skip(projection, position);
	if (has_passed(projection, position))
		notice_passed(projection, position, "handles");
	SPI_finish();
	PG_RETURN_VOID();
}
