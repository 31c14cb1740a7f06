/*-------------------------------------------------------------------------
 *
 * projection_mode.c
 *		How a projection becomes sync, and ceases to be: its trigger is made,
 *		enabled, disabled, dropped.
 *
 * A projection becomes sync at a point where no event is skipped or handled
 * twice:
 *
 *	1. its row is locked, so that no runner has it; it catches up by batches;
 *	2. ShareRowExclusiveLock on es_events waits for every open append, and keeps
 *	   new ones out until the end of the transaction.  Those that come while it
 *	   waits go on (table_lock.c), and it catches up with them before it has the
 *	   lock;
 *	3. it catches up with the rest, all of which is stable now;
 *	4. the trigger is made, or enabled.
 *
 * It ceases to be sync under the same lock, with the last position as its
 * checkpoint.  The trigger stays, disabled.
 *
 * A projection that is dropped leaves a disabled trigger, too: DROP TRIGGER takes
 * AccessExclusiveLock on es_events, for which every transaction that has read the
 * log would be waited for, and every later reader would wait.  Disabled triggers
 * without a projection are dropped by the next es_drop_projection() that gets that
 * lock at once, and is a transaction by itself, so that readers do not wait longer
 * than for its commit.  A new projection of the same name finds the trigger again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "base/base.h"
#include "base/role.h"
#include "base/wait.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/replica.h"
#include "failure/failure.h"
#include "projection/projection_define.h"
#include "projection/rebuild.h"

PG_FUNCTION_INFO_V1(es_projection_restore);

/* A projection that waits for the lock, and its replay. */
typedef struct ProjectionLock
{
	Projection *projection;
	Replay	   *replay;
} ProjectionLock;

/* Runs a statement on a trigger of es_events, as the owner of the log. */
static void
run_trigger_statement(Oid log, const char *sql)
{
	RunAs		saved = run_as(run_as_owner(log), false,
							   "pg_catalog, pg_temp");
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
}

/* Returns true if it is the trigger of a projection. */
static bool
is_projection_trigger(const Trigger *trigger, Relation log)
{
	return get_func_namespace(trigger->tgfoid) == RelationGetNamespace(log) &&
		strcmp(get_func_name(trigger->tgfoid), "es_projection_sync") == 0;
}

/*
 * Lists the triggers of projections that es_events has.  Looking up functions may
 * build the relation's own list of triggers anew.
 */
static List *
list_projection_triggers(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	TriggerDesc *triggers = CopyTriggerDesc(log->trigdesc);
	List	   *found = NIL;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_projection_trigger(&triggers->triggers[i], log))
			found = lappend(found, &triggers->triggers[i]);
	}
	table_close(log, AccessShareLock);
	return found;
}

/* Returns the projection's trigger, enabled or not; NULL if there is none. */
static const Trigger *
find_projection_trigger(Oid log, const char *name)
{
	ListCell   *cell;

	foreach(cell, list_projection_triggers(log))
	{
		const Trigger *trigger = lfirst(cell);

		if (strcmp(trigger->tgname, name) == 0)
			return trigger;
	}
	return NULL;
}

/* Does with the trigger what ALTER TABLE can: the action. */
static void
alter_projection_trigger(Oid log, const char *action, const char *name)
{
	run_trigger_statement(log,
						  psprintf("ALTER TABLE %s.es_events %s TRIGGER %s",
								   quote_identifier(get_namespace_name(get_rel_namespace(log))),
								   action, quote_identifier(name)));
}

/* Makes the trigger, or enables the one that is there. */
static void
make_projection_trigger(Oid log, const char *name)
{
	const char *schema =
	quote_identifier(get_namespace_name(get_rel_namespace(log)));

	if (find_projection_trigger(log, name) == NULL)
		run_trigger_statement(log,
							  psprintf("CREATE TRIGGER %s AFTER INSERT ON %s.es_events"
									   " REFERENCING NEW TABLE AS new_events"
									   " FOR EACH STATEMENT"
									   " EXECUTE FUNCTION %s.es_projection_sync(%s)",
									   quote_identifier(name), schema, schema,
									   quote_literal_cstr(name)));
	alter_projection_trigger(log, "ENABLE ALWAYS", name);
}

/*
 * Refuses to make or end a sync projection while an append fires its triggers:
 * its events would be handled by both the trigger and the batch, or by none.
 */
static void
check_not_appending(const Projection *projection)
{
	if (log_insert_is_firing())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("projection \"%s\" cannot be changed now",
						projection->name),
				 errdetail("An append of this session is calling its triggers."),
				 errhint("Change it when the append is over.")));
}

/* Refuses a projection that cannot be sync. */
void
projection_check_sync(const Projection *projection)
{
	if (projection->kind == PROJECTION_REFRESH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Each append would refresh the whole materialized view, and wait for the one before it."),
				 errhint("Leave it async, or use a query that maintains a table.")));
	if (check_enable_rls(projection->log, projection_owner_role(projection),
						 true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Row security hides events from its owner, but a trigger gets all of them."),
				 errhint("Leave it async, or let a role own it that may read all events.")));
	if (failure_streams(projection_failures(projection), NULL) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Some of its events wait in es_failures, and later ones of their streams would overtake them."),
				 errhint("Call es_retry() or es_discard() for them first.")));
}

/* Handles what became stable during a wait for the lock. */
static void
catch_up_with_wait(void *arg)
{
	ProjectionLock *lock = arg;

	replay_to_horizon(lock->projection, 0, lock->replay);
}

/*
 * Locks the log, or tables, against writers, which go on until the lock is there.
 * purpose: "to ... projection", for an error's context.  replay: catches up with
 * appends, or is NULL.
 */
void
projection_lock_tables(Projection *projection, List *relids, const char *purpose,
					   Replay *replay)
{
	ProjectionLock data = {.projection = projection,.replay = replay};
	PatientLock lock = {
		.relids = relids,
		.mode = ShareRowExclusiveLock,
		.purpose = psprintf("%s \"%s\"", purpose, projection->name),
		.catch_up = replay == NULL ? NULL : catch_up_with_wait,
		.arg = &data
	};

	table_lock_patiently(&lock);
}

/* The same for the log alone. */
static void
lock_projected_log(Projection *projection, const char *purpose, Replay *replay)
{
	projection_lock_tables(projection, list_make1_oid(projection->log), purpose,
						   replay);
}

/*
 * Locks the log if the projection is sync and running, so that every append is either
 * before or after what is changed now; returns false if it need not.
 */
bool
projection_lock_sync(Projection *projection, const char *purpose)
{
	if (!projection->sync || !projection->running)
		return false;
	check_not_appending(projection);
	lock_projected_log(projection, purpose, NULL);
	return true;
}

/* Makes a projection sync: steps 1 to 4 of the header. */
void
projection_begin_sync(Projection *projection)
{
	Replay		replay = {0};
	Oid			type = INT8OID;
	Datum		value;

	check_not_appending(projection);
	replica_refuse(projection->log, "make a projection sync");
	projection_check_sync(projection);
	replay_to_horizon(projection, 0, &replay);
	lock_projected_log(projection, "to make sync projection", &replay);
	replay_to_end(projection, &replay);
	value = Int64GetDatum(projection->position);
	projection_update(projection, "mode = 'sync', position = $2" PROJECTION_NO_ERROR,
					  1, &type, &value, NULL);
	make_projection_trigger(projection->log, projection->name);
}

/*
 * Ends being sync: disables the trigger.  It is missing if a restore has left it out, or
 * the log's owner has dropped it.
 */
void
projection_end_sync(Projection *projection)
{
	check_not_appending(projection);
	lock_projected_log(projection, "to end sync projection", NULL);
	if (find_projection_trigger(projection->log, projection->name) != NULL)
		alter_projection_trigger(projection->log, "DISABLE", projection->name);
	projection->position = projection_last_position(projection->log);
}

/*
 * Gives a sync projection a trigger of its new name, and disables the other, which stays
 * like that of a projection that is dropped: to rename it would keep readers waiting.
 */
void
projection_rename_trigger(const Projection *projection, const char *new_name)
{
	if (find_projection_trigger(projection->log, projection->name) != NULL)
		alter_projection_trigger(projection->log, "DISABLE", projection->name);
	make_projection_trigger(projection->log, new_name);
}

/* Disables the trigger of a projection that is dropped. */
void
projection_end_trigger(Projection *projection)
{
	const Trigger *trigger = find_projection_trigger(projection->log,
													 projection->name);

	if (trigger == NULL || trigger->tgenabled == TRIGGER_DISABLED)
		return;
	check_not_appending(projection);
	lock_projected_log(projection, "to drop sync projection", NULL);
	alter_projection_trigger(projection->log, "DISABLE", projection->name);
}

/* Returns true if the trigger is disabled, and no projection has its name. */
static bool
is_left_trigger(Oid log, const Trigger *trigger)
{
	return trigger->tgenabled == TRIGGER_DISABLED &&
		projection_find(log, trigger->tgname, "") == NULL;
}

/* Returns true if a statement of this session is using es_events. */
static bool
is_log_in_use(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	bool		used = log->rd_refcnt > 1 || AfterTriggerPendingOnRel(relid);

	table_close(log, AccessShareLock);
	return used;
}

/*
 * Drops the triggers that dropped projections have left, if that takes no wait, and
 * makes no other session wait for longer than the commit.  The list is made
 * again under the lock.
 */
void
projection_drop_left_triggers(Oid log)
{
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(log)));
	ListCell   *cell;

	if (IsTransactionBlock() || IsSubTransaction() ||
		list_projection_triggers(log) == NIL || is_log_in_use(log) ||
		!ConditionalLockRelationOid(log, AccessExclusiveLock))
		return;
	foreach(cell, list_projection_triggers(log))
	{
		const Trigger *trigger = lfirst(cell);

		if (is_left_trigger(log, trigger))
			run_trigger_statement(log,
								  psprintf("DROP TRIGGER %s ON %s.es_events",
										   quote_identifier(trigger->tgname),
										   schema));
	}
}

/* Returns a column of the inserted row, as text. */
static char *
restored_column_text(TriggerData *trigger, const char *column)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getvalue(trigger->tg_trigtuple, desc,
						SPI_fnumber(desc, column));
}

/*
 * AFTER INSERT on es_projections: a sync projection that is restored gets its
 * trigger.
 */
Datum
es_projection_restore(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_projections");
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		elog(ERROR, "es_projection_restore is for rows that are inserted");
	log_restore_begin();
	name = restored_column_text(trigger, "name");
	if (strcmp(restored_column_text(trigger, "mode"), "sync") == 0 &&
		strcmp(restored_column_text(trigger, "state"), "running") == 0)
	{
		SPI_connect();
		log_lock_whole(log, psprintf("to restore sync projection \"%s\"", name),
					   NULL, NULL);
		make_projection_trigger(log, name);
		SPI_finish();
	}
	return PointerGetDatum(NULL);
}

/*
 * Gives sync projections that run the triggers that they miss, since their rows were
 * restored where triggers are disabled.  Returns how many.  SPI must be connected.
 */
int
projection_restore_triggers(Oid log)
{
	uint64		count = own_sql_select(log, "SELECT name::text FROM @extschema@.es_projections"
									   " WHERE mode = 'sync' AND state = 'running'",
									   0, NULL, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;
	int			made = 0;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		char	   *name = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		const Trigger *trigger = find_projection_trigger(log, name);

		if (trigger != NULL && trigger->tgenabled == TRIGGER_FIRES_ALWAYS)
			continue;
		make_projection_trigger(log, name);
		made++;
	}
	return made;
}
