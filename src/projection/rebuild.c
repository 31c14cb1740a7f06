/*-------------------------------------------------------------------------
 *
 * rebuild.c
 *		es_rebuild_projection(): makes the read model anew from the whole log
 *		while it is read and kept up to date.
 *
 *	1. Temporary tables with the names of the projection's tables are made.
 *	2. The log is replayed into them: the handler finds them first, as pg_temp
 *	   is first in its search_path.  The old rows are not touched; the
 *	   projection goes on with them in other sessions.  A handler that writes to
 *	   its tables by other names is detected by the lock that this takes, and
 *	   refused.
 *	3. The projection's row is locked, and its tables against writers
 *	   (ShareRowExclusiveLock); for a sync one es_events, too, in the same moment.
 *	   Appends and other writers go on until all these locks are there
 *	   (table_lock.c).  What came meanwhile is replayed.
 *	4. The swap: in the old tables what is not as in the new ones is deleted,
 *	   changed, inserted, in all of them by one statement, so that foreign keys
 *	   are checked when it is over.  Readers see the old rows until the commit,
 *	   then the new ones; the tables are the same, and so is all that depends
 *	   on them.
 *	5. Checkpoint and failures are written, the temporary tables dropped.
 *
 * All of it is one transaction: an error, a cancel or a crash leaves the old
 * rows as they were.  Other sessions see the progress as advisory locks: of all
 * that a transaction does, only its locks show before it commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/wait.h"
#include "log/log.h"
#include "failure/failure.h"
#include "retention/rule.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_rebuild_projection);

#define DONE				1000	/* thousandths */
#define NOTICE_STEP			100

/* A rebuild that is going on. */
typedef struct Rebuild
{
	Projection *projection;
	List	   *tables;			/* rebuild_tables.c's */
	int64		from;			/* the position at which it begins */
	int			progress;		/* thousandths */
} Rebuild;

/* Keeps others from rebuilding the projection until the transaction ends. */
bool
rebuild_lock(const char *name, bool wait)
{
	LOCKTAG		tag;
	WaitContext context;
	LockAcquireResult result;

	rebuild_lock_tag(&tag, name, 0, REBUILD_LOCK_CLASS);
	wait_context_begin(&context, "the rebuild of projection", name, -1);
	result = LockAcquire(&tag, ExclusiveLock, false, !wait);
	wait_context_end(&context);
	if (result == LOCKACQUIRE_NOT_AVAIL)
		return false;

	/* one that has not seen the lock removes events that are still to be read */
	retention_await_step();
	return true;
}

bool
rebuild_lock_out(const char *name)
{
	LOCKTAG		tag;

	rebuild_lock_tag(&tag, name, 0, REBUILD_LOCK_CLASS);
	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Makes the rebuild the only one of the projection, and shows when it began.
 */
static void
hold_rebuild_locks(const Projection *projection)
{
	pg_time_t	now = timestamptz_to_time_t(GetCurrentTimestamp());
	LOCKTAG		tag;

	if (!rebuild_lock(projection->name, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("projection \"%s\" is being rebuilt", projection->name),
				 errdetail("Another transaction rebuilds it, or changes it."),
				 errhint("es_projection_status shows how far it is.")));
	rebuild_lock_tag(&tag, projection->name, 1,
					 REBUILD_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	rebuild_lock_tag(&tag, projection->name, (uint32) now,
					 REBUILD_BEGIN_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Shows how far the rebuild is, in thousandths. */
static void
show_progress(Rebuild *rebuild, int progress)
{
	const Projection *projection = rebuild->projection;
	LOCKTAG		tag;

	if (progress <= rebuild->progress)
		return;
	rebuild_lock_tag(&tag, projection->name, progress + 1,
					 REBUILD_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	rebuild_lock_tag(&tag, projection->name, rebuild->progress + 1,
					 REBUILD_LOCK_CLASS);
	(void) LockRelease(&tag, ExclusiveLock, false);
	if (progress / NOTICE_STEP != rebuild->progress / NOTICE_STEP)
		ereport(NOTICE,
				(errmsg("rebuilding projection \"%s\": %d %%",
						projection->name, progress / 10)));
	rebuild->progress = progress;
}

/*
 * Returns true if this transaction has written to the table, or truncated it.  The
 * rebuild itself takes ShareRowExclusiveLock before the last replay.
 */
static bool
is_written_by_me(Relation table)
{
	return CheckRelationLockedByMe(table, RowExclusiveLock, false) ||
		CheckRelationLockedByMe(table, ExclusiveLock, true);
}

/*
 * Refuses to go on when this transaction has written to one of the tables.
 */
static void
check_untouched(const Projection *projection, const char *detail,
				const char *hint)
{
	ListCell   *cell;

	foreach(cell, projection->tables)
	{
		Relation	table;

		/* an error if it was dropped */
		(void) projection_relation_name(lfirst_oid(cell));
		table = table_open(lfirst_oid(cell), AccessShareLock);
		if (is_written_by_me(table))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("projection \"%s\" cannot be rebuilt",
							projection->name),
					 errdetail(detail, RelationGetRelationName(table)),
					 errhint("%s", hint)));
		table_close(table, AccessShareLock);
	}
}

/* After each batch of the replay. */
static void
note_progress(const Projection *projection, const Replay *replay)
{
	Rebuild    *rebuild = replay->progress_data;
	double		done = projection->position - rebuild->from;
	double		all = Max(replay->upto - rebuild->from, 1);

	check_untouched(projection,
					"The handler has written to table \"%s\" itself: it is filled under its name without a schema.",
					"Let the handler name its tables without their schemas, and not be of LANGUAGE sql with BEGIN ATOMIC.");
	rebuild_compact_tables(projection, rebuild->tables);
	show_progress(rebuild, Min(DONE * done / all, DONE));
}

/* Lists the projection's tables with their partitions, as LOCK TABLE locks them. */
static List *
list_tables(const Projection *projection)
{
	List	   *relids = NIL;
	ListCell   *cell;

	foreach(cell, projection->tables)
		relids = list_concat_unique_oid(relids,
										find_all_inheritors(lfirst_oid(cell), NoLock,
															NULL));
	return relids;
}

/*
 * Locks the projection's row and tables, and replays what came meanwhile: step 3 of
 * the header.
 */
static void
replay_rest(Rebuild *rebuild, Replay *replay)
{
	Projection *current = projection_lock_operated(rebuild->projection->log,
												   rebuild->projection->name);

	if (current->created_at != rebuild->projection->created_at)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is not the same any more", current->name),
				 errdetail("It was dropped and created again while it was rebuilt."),
				 errhint("Rebuild it again.")));
	if (current->sync && current->running)
	{
		projection_lock_tables(rebuild->projection,
							   lcons_oid(current->log, list_tables(current)),
							   "to rebuild sync projection", replay);
		replay_to_end(rebuild->projection, replay);
	}
	else
	{
		replay_to_horizon(rebuild->projection, current->position, replay);
		projection_lock_tables(rebuild->projection, list_tables(current),
							   "to rebuild projection", NULL);
	}
}

/* Warns of events that the rebuild has parked. */
static void
warn_of_parked_events(const Projection *projection, const Replay *replay)
{
	const ParkedEvent *first = NULL;
	int			count = 0;
	ListCell   *cell;

	foreach(cell, replay->parked)
	{
		const ParkedEvent *parked = lfirst(cell);

		if (parked->error == NULL)
			continue;
		if (count++ == 0)
			first = parked;
	}
	if (count > 0)
		projection_warn(projection,
						psprintf("has parked %d event(s) in its rebuild, the first of them at position "
								 INT64_FORMAT, count, first->position),
						first->error, FAILURE_HINT);
}

/* Writes checkpoint and failures, and clears what had stopped the projection. */
static void
write_rebuilt_row(const Projection *projection, const Replay *replay)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(projection->position);

	failure_remove_after(projection_failures(projection), 0);
	projection_save_parked(projection, replay->parked);
	warn_of_parked_events(projection, replay);
	projection_update(projection, "position = $2" PROJECTION_GOES_ON,
					  1, &type, &value, NULL);
}

/* Refreshes a materialized view, whatever its min_interval. */
static void
rebuild_view(Projection *projection)
{
	projection_apply(projection, NULL, true);
	projection_update(projection, "refreshed_at = clock_timestamp()",
					  0, NULL, NULL, NULL);
}

/* Refuses the archive for a view, whose own query says what it reads. */
static void
check_reads_events(const Projection *projection, bool archived)
{
	if (archived)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" cannot be rebuilt with archived events",
						projection->name),
				 errdetail("It refreshes a materialized view, which gets no events."),
				 errhint("Let the view read es_all_events.")));
}

/* Says where the rebuild begins, unless it is at the beginning of the log. */
static void
notice_rebuild_start(const Projection *projection)
{
	if (projection->start_position > 0)
		ereport(NOTICE,
				(errmsg("rebuilding projection \"%s\" from the events after position " INT64_FORMAT,
						projection->name, projection->start_position),
				 errdetail("Its start_position leaves out earlier events."),
				 errhint("es_alter_projection() changes the start_position.")));
}

/*
 * Does steps 1 to 5 of the header; returns the number of events.  archived: also those of
 * the archive.  None of them is parked, as only an event of the log can be retried.
 */
static int64
rebuild_read_model(Projection *projection, bool archived)
{
	Rebuild		rebuild = {.projection = projection};
	Replay		replay = {.progress = note_progress,.progress_data = &rebuild,
	.park = projection->park && !projection->sync && !archived};

	check_untouched(projection,
					"The transaction has written to table \"%s\" before.",
					"Call es_rebuild_projection() in a transaction of its own.");
	notice_rebuild_start(projection);
	projection->archived = archived;
	rebuild_notice_removed(projection);
	rebuild.tables = rebuild_make_tables(projection);
	projection->rebuilding = true;
	projection->batch_limit = 0;
	projection->position = rebuild.from = projection->start_position;
	replay_to_horizon(projection, 0, &replay);
	replay_rest(&rebuild, &replay);
	show_progress(&rebuild, DONE);
	rebuild_swap_tables(projection, rebuild.tables);
	rebuild_move_sequences(projection, rebuild.tables);
	write_rebuilt_row(projection, &replay);
	rebuild_drop_tables(projection, rebuild.tables);
	return replay.handled;
}

/* Refuses a projection whose read model is not known. */
static void
check_has_tables(const Projection *projection)
{
	if (projection->tables == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" has no tables to rebuild",
						projection->name),
				 errdetail("It was created without the argument \"tables\"."),
				 errhint("Drop it, which leaves its tables, and create it again with \"tables\".")));
}

/*
 * Refuses an operator whose session has temporary objects.  In a rebuild pg_temp is
 * first in the owner's search_path, so that the owner's code would find those of the
 * operator, and run with the owner's rights what they call.
 */
static void
check_no_temporary_objects(const Projection *projection)
{
	if (projection_is_own(projection))
		return;
	(void) own_sql_run(projection->log,
					   "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema())"
					   " OR EXISTS (SELECT FROM pg_type WHERE typnamespace = pg_my_temp_schema())",
					   0, NULL, NULL, NULL);
	if (DatumGetBool(own_sql_value(1)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot be rebuilt in this session",
						projection->name),
				 errdetail("The session has temporary objects, which code of the owner \"%s\" would find first.",
						   role_name(&projection->owner)),
				 errhint("DISCARD TEMP first, or rebuild it in another session.")));
}

/*
 * Locks the projection against other rebuilds and changes of its code, and reads it
 * again: it may have been changed before the lock was there.
 */
static Projection *
begin_rebuild(Projection *projection)
{
	hold_rebuild_locks(projection);
	projection = projection_get(projection->log, projection->name, "");
	projection_check_operator(projection);
	check_has_tables(projection);
	check_no_temporary_objects(projection);
	return projection;
}

/*
 * es_rebuild_projection(name, archived) returns bigint: rebuilds the read model;
 * returns how many events were handled.
 */
Datum
es_rebuild_projection(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Projection *projection;
	int64		handled = 0;

	argument_not_null(fcinfo, 0, "name");
	PreventCommandIfReadOnly("es_rebuild_projection()");
	projection_check_outside_handler("es_rebuild_projection()");
	isolation_check("es_rebuild_projection()");
	SPI_connect();
	projection = projection_get(log, text_to_cstring(PG_GETARG_TEXT_PP(0)), "");
	projection_check_operator(projection);
	if (projection->kind == PROJECTION_REFRESH)
	{
		check_reads_events(projection, argument_is_true(fcinfo, 1));
		rebuild_view(projection_lock_operated(log, projection->name));
	}
	else
		handled = rebuild_read_model(begin_rebuild(projection), argument_is_true(fcinfo, 1));
	SPI_finish();
	PG_RETURN_INT64(handled);
}
