/*-------------------------------------------------------------------------
 *
 * projection_sync.c
 *		The trigger of a sync projection: a statement trigger on es_events that
 *		hands the events of an append to the handler, as part of the append.
 *
 * There is no checkpoint to move, so that appends do not queue for it.  The
 * trigger fires in every session_replication_role.  It does nothing for rows
 * that are inserted in another way, by a restore: the read model is restored,
 * too.  projection_mode.c makes the trigger.
 *
 * What the trigger needs of es_projections is cached until an invalidation
 * message for es_events comes, as making, changing and dropping a trigger sends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_projection_sync);

/* The projections of this backend's appends, in a context of their own. */
static List *cached_projections = NIL;
static MemoryContext cache_context = NULL;
static Oid	cached_log = InvalidOid;
static bool cache_valid = false;
static int	cache_users = 0;

/* The relcache callback: something of es_events, or of any table, changed. */
static void
forget_cached_projections(Datum arg, Oid relid)
{
	if (relid == cached_log || !OidIsValid(relid))
		cache_valid = false;
}

/* Registers the callback that marks the cache invalid. */
void
projection_sync_init(void)
{
	CacheRegisterRelcacheCallback(forget_cached_projections, (Datum) 0);
}

/* Empties the cache, which is not in use. */
static void
empty_projection_cache(Oid log)
{
	ListCell   *cell;

	foreach(cell, cached_projections)
	{
		Projection *projection = lfirst(cell);

		if (projection->plan != NULL)
			SPI_freeplan(projection->plan);
	}
	cached_projections = NIL;
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(CacheMemoryContext,
											  "eventstore sync projections",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(cache_context);
	cached_log = log;
	cache_valid = true;
}

/*
 * Reads the projection's row as it is now: the snapshot of an append at
 * REPEATABLE READ may be older.
 */
static Projection *
read_latest_projection(Oid log, const char *name)
{
	Projection *projection;

	PushActiveSnapshot(GetLatestSnapshot());
	projection = projection_get_visible(log, name);
	PopActiveSnapshot();
	return projection;
}

/* Reads the projection into the cache. */
static Projection *
load_projection_into_cache(Oid log, const char *name)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(cache_context);
	Projection *projection = read_latest_projection(log, name);

	projection->cached = true;
	cached_projections = lappend(cached_projections, projection);
	MemoryContextSwitchTo(oldcontext);
	return projection;
}

/*
 * Returns the projection of a trigger.  An append within a handler may find the
 * cache out of date while it is in use, and does without it.
 */
static Projection *
find_cached_projection(Oid log, const char *name)
{
	ListCell   *cell;

	if (!cache_valid || cached_log != log)
	{
		if (cache_users > 0)
			return read_latest_projection(log, name);
		empty_projection_cache(log);
	}
	foreach(cell, cached_projections)
	{
		if (strcmp(((Projection *) lfirst(cell))->name, name) == 0)
			return lfirst(cell);
	}
	return load_projection_into_cache(log, name);
}

/* Returns true if the projection wants the event in the slot. */
static bool
is_event_wanted(const Projection *projection, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		stream = slot_getattr(slot, Anum_es_events_stream, &isnull);

	return text_set_has_category(&projection->categories, DatumGetTextPP(stream)) &&
		notice_or_event_has_type(slot, &projection->types) &&
		query_matches(projection->event_query, slot);
}

/*
 * Returns the events of an append that the projection wants, in position order:
 * the same tuplestore if it wants all.
 */
static Tuplestorestate *
filter_wanted_events(const Projection *projection, Relation log,
					 Tuplestorestate *appended)
{
	Tuplestorestate *wanted;
	TupleTableSlot *slot;

	if (projection->categories.array == NULL && projection->types.array == NULL &&
		projection->event_query == NULL)
		return appended;
	wanted = event_batch_make();
	slot = event_slot_make(log);
	tuplestore_rescan(appended);
	while (tuplestore_gettupleslot(appended, true, false, slot))
	{
		if (is_event_wanted(projection, slot))
			tuplestore_puttupleslot(wanted, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return wanted;
}

/* Applies the events; meanwhile the cache must stay as it is. */
static void
apply_wanted_events(Projection *projection, Tuplestorestate *wanted)
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
apply_appended_events(Projection *projection, TriggerData *trigger)
{
	Tuplestorestate *wanted;

	if (!projection->sync || !projection->running)
		return;
	wanted = filter_wanted_events(projection, trigger->tg_relation,
								  trigger->tg_newtable);
	if (tuplestore_tuple_count(wanted) > 0)
		apply_wanted_events(projection, wanted);
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
 * AFTER INSERT, once a statement: hands the appended events to the projection
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
	apply_appended_events(find_cached_projection(RelationGetRelid(trigger->tg_relation),
												 trigger->tg_trigger->tgargs[0]), trigger);
	SPI_finish();
	return PointerGetDatum(NULL);
}
