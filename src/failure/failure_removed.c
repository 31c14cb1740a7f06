/*-------------------------------------------------------------------------
 *
 * failure_removed.c
 *		Parked events that were removed from the log since.
 *
 * A removal does not touch es_failures, since it would have to wait for all that handle
 * events.  Whoever comes to the first event of a parked stream finds that it is gone: a
 * retry, a delivery, or a batch that parks more events behind it.  Then all failures of the
 * stream go whose events are gone, and what waited behind them is due.  A removal takes
 * the oldest events of a stream, so that the first of them is gone if any is.
 *
 * A notice that was appended waits behind the parked events like any event.  A compaction
 * changes the last event that it stands for, which the reader may have passed.  So it
 * takes the place of those that are gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/removed.h"
#include "failure/failure.h"

/* Returns true if something was ever removed from the log. */
static bool
may_be_removed(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	bool		any = removed_any(log);

	table_close(log, AccessShareLock);
	return any;
}

bool
failure_is_removed(Oid log, int64 position)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(position);

	return may_be_removed(log) &&
		own_sql_run_on_all_rows(log,
								"SELECT FROM @extschema@.es_events WHERE position = $1",
								1, &type, &value, NULL, true) == 0;
}

/*
 * Removes the failures, and parks the event that a compaction has left in their place.  The
 * first of them is read, which is null if there was none, and how many there were.
 */
static int64
remove_failures(FailureOwner owner, const char *stream, int64 passed, int64 *first)
{
	Oid			types[4] = {TEXTOID, TEXTOID, INT8OID, INT4OID};
	Datum		values[4] = {CStringGetTextDatum(owner.name), CStringGetTextDatum(stream),
	Int64GetDatum(passed), Int32GetDatum(owner.partition)};

	(void) own_sql_run_on_all_rows(owner.log,
								   psprintf("WITH gone AS (DELETE FROM @extschema@.es_failures f"
											" WHERE f.%s = $1 AND f.stream = $2 AND NOT EXISTS"
											" (SELECT FROM @extschema@.es_events e"
											" WHERE e.position = f.position)"
											" RETURNING f.position),"
											" kept AS (SELECT * FROM @extschema@.es_events"
											" WHERE stream = $2 ORDER BY version LIMIT 1),"
											" left_by AS (INSERT INTO @extschema@.es_failures"
											" (%s, event_id, position, stream, type, version,"
											" partition, attempts, retry_at, first_failed_at,"
											" last_failed_at)"
											" SELECT $1, id, position, stream, type, version,"
											" nullif($4, -1), 0, now(), now(), now() FROM kept"
											" WHERE type = '" ES_COMPACTED "' AND position <= $3"
											" AND position > (SELECT min(position) FROM gone)"
											" ON CONFLICT (%s, position) DO NOTHING)"
											" SELECT count(*), min(position) FROM gone",
											owner.column, owner.column, owner.column),
								   4, types, values, NULL, true);
	*first = DatumGetInt64(own_sql_value(2));
	return DatumGetInt64(own_sql_value(1));
}

bool
failure_forget_removed(FailureOwner owner, const char *stream, int64 passed)
{
	Failure		failure;
	int64		first;
	int64		count;

	if (!failure_first(owner, stream, &failure) ||
		!failure_is_removed(owner.log, failure.position))
		return false;
	count = remove_failures(owner, stream, passed, &first);
	failure_release(owner, stream);
	ereport(NOTICE,
			(errmsg("%s \"%s\" does not get " INT64_FORMAT " parked event(s) of stream \"%s\"",
					owner.column, owner.name, count, stream),
			 errdetail("The first was at position " INT64_FORMAT ". It was removed from the log.",
					   first)));
	return true;
}
