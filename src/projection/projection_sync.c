/*-------------------------------------------------------------------------
 *
 * projection_sync.c
 *		Sync projections: each has a statement trigger on es_events, which
 *		hands the events of an append to the handler as part of it.
 *
 * There is no checkpoint to move, so that appends do not queue for it.  A
 * projection becomes sync at a point where nothing is skipped or done twice:
 *
 *	1. its row is locked, so that no runner has it; it catches up by batches;
 *	2. ShareRowExclusiveLock on es_events: waits for every open append, keeps
 *	   new ones out until the end of the transaction;
 *	3. it catches up with what came meanwhile: all of it is decided now;
 *	4. the trigger is made.
 *
 * It stops being sync under the same lock, with the last position as its
 * checkpoint; the trigger stays, disabled, until the projection is dropped.
 *
 * The trigger fires in every session_replication_role.  It does nothing for
 * rows that are inserted without us, by a restore: the read model is restored,
 * too.  What it needs of es_projections is cached until an invalidation
 * message for es_events comes, as making and dropping a trigger sends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"
#include "failure/failure.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_projection_sync);
PG_FUNCTION_INFO_V1(es_projection_restore);

/* Projections of this backend's appends; in a context of their own. */
static List *cached = NIL;
static MemoryContext cache_context = NULL;
static Oid	cached_log = InvalidOid;
static bool cache_valid = false;
static int	cache_users = 0;

static void
forget_cached(Datum arg, Oid relid)
{
	if (relid == cached_log || !OidIsValid(relid))
		cache_valid = false;
}

/*
 * Asks to be told when es_events changes.
 */
void
projection_sync_init(void)
{
	CacheRegisterRelcacheCallback(forget_cached, (Datum) 0);
}

/* Empties the cache, which nobody uses. */
static void
empty_cache(Oid log)
{
	ListCell   *cell;

	foreach(cell, cached)
	{
		Projection *projection = lfirst(cell);

		if (projection->plan != NULL)
			SPI_freeplan(projection->plan);
	}
	cached = NIL;
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(CacheMemoryContext,
											  "eventstore sync projections",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(cache_context);
	cached_log = log;
	cache_valid = true;
}

/*
 * Reads the projection's row as it is now, which an append in a transaction of
 * one snapshot may not see.
 */
static Projection *
read_latest(Oid log, const char *name)
{
	Projection *projection;

	PushActiveSnapshot(GetLatestSnapshot());
	projection = projection_peek(log, name);
	PopActiveSnapshot();
	return projection;
}

/*
 * Reads the projection into the cache.
 */
static Projection *
load_cached(Oid log, const char *name)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(cache_context);
	Projection *projection = read_latest(log, name);

	projection->cached = true;
	cached = lappend(cached, projection);
	MemoryContextSwitchTo(oldcontext);
	return projection;
}

/*
 * The projection that a trigger is for.  An append within a handler may find
 * the cache out of date while it is in use, and does without it.
 */
static Projection *
get_projection(Oid log, const char *name)
{
	ListCell   *cell;

	if (!cache_valid || cached_log != log)
	{
		if (cache_users > 0)
			return read_latest(log, name);
		empty_cache(log);
	}
	foreach(cell, cached)
	{
		if (strcmp(((Projection *) lfirst(cell))->name, name) == 0)
			return lfirst(cell);
	}
	return load_cached(log, name);
}

/*
 * The events of an append that the projection wants, in position order.
 */
static Tuplestorestate *
filter_events(const Projection *projection, Relation log,
			  Tuplestorestate *appended)
{
	Tuplestorestate *wanted;
	TupleTableSlot *slot;

	if (projection->category == NULL && projection->types == NULL)
		return appended;
	wanted = event_batch_make();
	slot = event_slot_make(log);
	tuplestore_rescan(appended);
	while (tuplestore_gettupleslot(appended, true, false, slot))
	{
		bool		isnull;
		Datum		stream = slot_getattr(slot, Anum_es_events_stream, &isnull);
		Datum		type = slot_getattr(slot, Anum_es_events_type, &isnull);

		if (projection_wants(projection, DatumGetTextPP(stream),
							 DatumGetTextPP(type)))
			tuplestore_puttupleslot(wanted, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return wanted;
}

/* Applies the events; until then the cache must stay as it is. */
static void
apply_wanted(Projection *projection, Tuplestorestate *wanted)
{
	cache_users++;
	PG_TRY();
	{
		projection_apply(projection, wanted, false);
	}
	PG_FINALLY();
	{
		cache_users--;
	}
	PG_END_TRY();
}

/* Hands the events of an append to the projection. */
static void
apply_append(Projection *projection, TriggerData *trigger)
{
	Tuplestorestate *wanted;

	if (!projection->sync || !projection->running)
		return;
	wanted = filter_events(projection, trigger->tg_relation,
						   trigger->tg_newtable);
	if (tuplestore_tuple_count(wanted) > 0)
		apply_wanted(projection, wanted);
	if (wanted != trigger->tg_newtable)
		tuplestore_end(wanted);
}

/* Refuses a trigger that es_create_projection did not make. */
static void
check_sync_trigger(const TriggerData *trigger)
{
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		trigger->tg_newtable == NULL || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" is not one of a projection",
						trigger->tg_trigger->tgname),
				 errdetail("Such a trigger is AFTER INSERT, FOR EACH STATEMENT, with a transition table and the projection's name."),
				 errhint("Use es_create_projection() to make it.")));
}

/*
 * AFTER INSERT, once a statement: hands what was appended to the projection
 * that the trigger's argument names.
 */
Datum
es_projection_sync(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");

	check_sync_trigger(trigger);
	if (!log_insert_is_firing())
		return PointerGetDatum(NULL);
	SPI_connect();
	apply_append(get_projection(RelationGetRelid(trigger->tg_relation),
								trigger->tg_trigger->tgargs[0]), trigger);
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* Runs a statement on es_events for which the name is quoted already. */
static void
change_trigger(Oid log, const char *sql)
{
	RunAs		saved = run_as(run_as_owner(log), false,
							   "pg_catalog, pg_temp");
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
}

/* Is this the trigger of the projection of this name? */
static bool
is_trigger_of(const Trigger *trigger, Relation log, const char *name)
{
	return strcmp(trigger->tgname, name) == 0 &&
		get_func_namespace(trigger->tgfoid) == RelationGetNamespace(log) &&
		strcmp(get_func_name(trigger->tgfoid), "es_projection_sync") == 0;
}

/*
 * Has es_events the projection's trigger, awake or not?  Looking up functions
 * may build the relation's own list of triggers anew.
 */
static bool
has_trigger(Oid relid, const char *name)
{
	Relation	log = table_open(relid, AccessShareLock);
	TriggerDesc *triggers = CopyTriggerDesc(log->trigdesc);
	bool		found = false;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		found = found || is_trigger_of(&triggers->triggers[i], log, name);
	table_close(log, AccessShareLock);
	return found;
}

/* Changes es_events: what ALTER TABLE is to do with the trigger. */
static void
alter_trigger(Oid log, const char *action, const char *name)
{
	change_trigger(log,
				   psprintf("ALTER TABLE %s.es_events %s TRIGGER %s",
							quote_identifier(get_namespace_name(get_rel_namespace(log))),
							action, quote_identifier(name)));
}

/* Makes the trigger, or wakes the one that sleeps. */
static void
make_trigger(Oid log, const char *name)
{
	const char *schema =
	quote_identifier(get_namespace_name(get_rel_namespace(log)));

	if (!has_trigger(log, name))
		change_trigger(log,
					   psprintf("CREATE TRIGGER %s AFTER INSERT ON %s.es_events"
								" REFERENCING NEW TABLE AS new_events"
								" FOR EACH STATEMENT"
								" EXECUTE FUNCTION %s.es_projection_sync(%s)",
								quote_identifier(name), schema, schema,
								quote_literal_cstr(name)));
	alter_trigger(log, "ENABLE ALWAYS", name);
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

/*
 * Refuses a projection that cannot be sync.
 */
void
projection_check_sync(const Projection *projection)
{
	if (projection->kind == PROJECTION_REFRESH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Each append would refresh the whole materialized view, and wait for the one before it."),
				 errhint("Leave it async, or write a query that keeps a table.")));
	if (check_enable_rls(projection->log, projection->owner,
						 true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Row security hides events from its owner, and a trigger is given all of them."),
				 errhint("Leave it async, or let a role own it that may read all events.")));
	if (failure_streams(projection_failures(projection), NULL) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot be sync", projection->name),
				 errdetail("Events of it wait in es_failures, and later ones of their streams would pass them."),
				 errhint("es_retry or es_discard them first.")));
}

/*
 * Handles what is decided, without keeping anybody waiting.
 */
static void
catch_up(Projection *projection)
{
	Replay		replay = {0};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	replay_projection(projection, snapshot,
					  horizon_find(projection->log, snapshot), &replay);
	UnregisterSnapshot(snapshot);
}

/*
 * Handles what is left; nobody else can append.  A handler can, which makes
 * more.
 */
void
projection_finish(Projection *projection, Replay *replay)
{
	int64		last;

	while ((last = projection_last_position(projection->log)) >
		   projection->position)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		replay_projection(projection, snapshot, last, replay);
		UnregisterSnapshot(snapshot);
	}
}

/* Writes mode and checkpoint into the row. */
static void
write_mode(const Projection *projection, const char *mode)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {CStringGetTextDatum(mode),
	Int64GetDatum(projection->position)};

	projection_update(projection, "mode = $2, position = $3", 2, types,
					  values, NULL);
}

/*
 * Makes a projection sync: steps 1 to 4 of the header.  Its row is locked.
 */
void
projection_attach(Projection *projection)
{
	Replay		replay = {0};

	check_not_appending(projection);
	projection_check_sync(projection);
	catch_up(projection);
	LockRelationOid(projection->log, ShareRowExclusiveLock);
	projection_finish(projection, &replay);
	write_mode(projection, "sync");
	make_trigger(projection->log, projection->name);
}

/*
 * Ends being sync: the trigger sleeps, as to drop it would wait for everybody
 * who reads the log.  The row is locked; its mode is the caller's to change.
 */
void
projection_detach(Projection *projection)
{
	check_not_appending(projection);
	LockRelationOid(projection->log, ShareRowExclusiveLock);
	alter_trigger(projection->log, "DISABLE", projection->name);
	projection->position = projection_last_position(projection->log);
}

/*
 * Drops the trigger, if the projection is or was sync.
 */
void
projection_drop_trigger(Projection *projection)
{
	const char *schema =
	quote_identifier(get_namespace_name(get_rel_namespace(projection->log)));

	if (!has_trigger(projection->log, projection->name))
		return;
	check_not_appending(projection);
	change_trigger(projection->log,
				   psprintf("DROP TRIGGER %s ON %s.es_events",
							quote_identifier(projection->name), schema));
}

static char *
column_text(TriggerData *trigger, const char *column)
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
	name = column_text(trigger, "name");
	if (strcmp(column_text(trigger, "mode"), "sync") == 0 &&
		strcmp(column_text(trigger, "state"), "running") == 0)
	{
		SPI_connect();
		make_trigger(log, name);
		SPI_finish();
	}
	return PointerGetDatum(NULL);
}
