/*-------------------------------------------------------------------------
 *
 * foreign_streams.c
 *		es_remove_foreign_streams(): removes the streams that are of another store.
 *
 * A store that was split has the events of the other half from before.  Each stream that is
 * not in the slots goes as a whole, without a notice, which would be an append to a stream of
 * another store (doc/internals/slots.md).
 *
 * The log is locked before the slots are looked at, as by an append: es_set_slots() waits for
 * the end of the transaction, and then finds in es_removals what was removed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "aggregate/aggregate.h"
#include "base/base.h"
#include "eventstore.h"
#include "log/closed.h"
#include "log/tags.h"
#include "retention/retention.h"
#include "retention/rule.h"

PG_FUNCTION_INFO_V1(es_remove_foreign_streams);

/* Limits of a call. */
#define CALL_LOOKED		100000
#define CALL_REMOVED	100000
#define CALL_FOREIGN	900

/* Arguments, in their order. */
enum
{
	ARG_AFTER_POSITION, ARG_DRY_RUN, ARG_FORCE
};

/* What a call has done. */
typedef struct ForeignRun
{
	Oid			log;
	RetentionHold hold;
	int64		streams;
	int64		events;
	int64		position;		/* where the next call goes on */
	bool		held;			/* a stream was left */
	bool		more;
} ForeignRun;

/*
 * $1: the position before, $2: the hold, $3: at most so many events, null: all; $4: forced.
 * A row for each foreign stream, with what the walk needs to know; one without a stream, if
 * there is none.
 */
static const char *const find_foreign =
"WITH batch AS MATERIALIZED (SELECT e.position, e.stream FROM @extschema@.es_events e"
" WHERE e.position > $1 ORDER BY e.position LIMIT $3),"
" info AS (SELECT max(b.position) AS upto, count(*) AS looked FROM batch b),"
" name AS (SELECT b.stream, min(b.position) AS at FROM batch b"
" WHERE NOT @extschema@.es_partition(b.stream, 1024) <@ @extschema@.es_slots() GROUP BY b.stream)"
" SELECT n.stream, n.at, coalesce(i.upto, $1), i.looked, l.events, l.last <= $2 AND ($4 OR NOT EXISTS"
" (SELECT FROM @extschema@.es_failures f WHERE f.stream = n.stream))"
" FROM info i LEFT JOIN name n ON true LEFT JOIN LATERAL (SELECT count(*) AS events,"
" max(e.position) AS last FROM @extschema@.es_events e WHERE e.stream = n.stream) l ON true"
" ORDER BY n.at";

enum
{
	FOREIGN_STREAM, FOREIGN_AT, FOREIGN_UPTO, FOREIGN_LOOKED, FOREIGN_EVENTS, FOREIGN_FREE,
	FOREIGN_COLUMNS
};

/* Refuses a store without slots: no stream is foreign there, or every one is. */
static void
foreign_check_slots(Oid log)
{
	char	   *slots;

	(void) own_sql_run(log, "SELECT nullif(@extschema@.es_slots(), '{}')::text, @extschema@.es_slots()::text", 0, NULL, NULL, NULL);
	if (own_sql_text(1) != NULL)
		return;
	slots = own_sql_text(2);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store has no slots"),
			 slots == NULL ? errdetail("es_slots() is null, so that no stream is of another store.") :
			 errdetail("es_slots() is empty, so that every stream is of another store."),
			 errhint("Set the slots of the store by es_set_slots().")));
}

/* Removes a stream.  Returns how many events it had, also in the archive. */
static int64
remove_foreign_stream(Oid log, text *stream)
{
	Removal		removal = {
		.log = log,.stream = stream,.action = "foreign",
		.with_archive = true,.of_any_store = true
	};

	SPI_connect();
	removal_begin(&removal);
	removal_describe(&removal, PG_INT64_MAX);
	removal_delete(&removal, 0);
	SPI_finish();
	return removal.count;
}

/* Does what is to be done with a stream.  Returns false if the call has done enough. */
static bool
run_foreign_row(ForeignRun *run, Datum *values, bool dry_run)
{
	if (!DatumGetBool(values[FOREIGN_FREE]))
	{
		run->held = true;
		return true;
	}
	if (dry_run)
		run->events += DatumGetInt64(values[FOREIGN_EVENTS]);
	else if (run->events >= CALL_REMOVED || run->streams >= CALL_FOREIGN ||
			 log_lock_count() >= ES_MAX_LOG_LOCKS)
	{
		run->position = DatumGetInt64(values[FOREIGN_AT]) - 1;
		run->more = true;
		return false;
	}
	else
		run->events += remove_foreign_stream(run->log, DatumGetTextPP(values[FOREIGN_STREAM]));
	run->streams++;
	return true;
}

/* Looks at the next events of the log, and removes the foreign streams that they are of. */
static void
run_foreign(ForeignRun *run, bool dry_run)
{
	Oid			types[4] = {INT8OID, INT8OID, INT8OID, BOOLOID};
	Datum		params[4] = {
		Int64GetDatum(run->position), Int64GetDatum(run->hold.position),
		Int64GetDatum(CALL_LOOKED), BoolGetDatum(run->hold.forced)
	};
	uint64		count = own_sql_run(run->log, find_foreign, 4, types, params,
									dry_run ? "  n " : NULL);
	SPITupleTable *rows = SPI_tuptable;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		Datum		values[FOREIGN_COLUMNS];
		bool		nulls[FOREIGN_COLUMNS];

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(rows->vals[i], rows->tupdesc, values, nulls);
		if (i == 0)
			run->more = !dry_run && DatumGetInt64(values[FOREIGN_LOOKED]) == CALL_LOOKED;
		if (!nulls[FOREIGN_STREAM] && !run_foreign_row(run, values, dry_run))
			return;
		if (i == count - 1)
			run->position = DatumGetInt64(values[FOREIGN_UPTO]);
	}
}

/*
 * es_remove_foreign_streams(after_position, dry_run, force)
 */
Datum
es_remove_foreign_streams(PG_FUNCTION_ARGS)
{
	ForeignRun	run = {.log = log_relid(fcinfo->flinfo->fn_oid)};
	RetentionRule any = {.log = run.log};
	bool		dry_run = argument_is_true(fcinfo, ARG_DRY_RUN);
	Datum		values[5];
	bool		nulls[5] = {false};

	isolation_check("es_remove_foreign_streams()");
	argument_not_null(fcinfo, ARG_AFTER_POSITION, "after_position");
	run.position = PG_GETARG_INT64(ARG_AFTER_POSITION);
	argument_range("after_position", run.position, 0, PG_INT64_MAX);
	log_check_relid_open(run.log);
	if (!dry_run)
	{
		PreventCommandIfReadOnly("es_remove_foreign_streams()");
		retention_lock();
		LockRelationOid(run.log, RowExclusiveLock);
	}
	SPI_connect();
	foreign_check_slots(run.log);
	hold_find(&any, argument_is_true(fcinfo, ARG_FORCE), &run.hold);
	run_foreign(&run, dry_run);
	nulls[3] = !run.held;
	values[3] = CStringGetTextDatum(run.hold.held_by);
	values[3] = SPI_datumTransfer(values[3], false, -1);
	SPI_finish();
	values[0] = Int64GetDatum(run.streams);
	values[1] = Int64GetDatum(run.events);
	values[2] = Int64GetDatum(run.position);
	values[4] = BoolGetDatum(run.more);
	return fold_row(fcinfo, values, nulls);
}
