/*-------------------------------------------------------------------------
 *
 * rebuild_keys.c
 *		Foreign keys that refer to a table that is swapped, and have an action
 *		(CASCADE, SET NULL, SET DEFAULT, RESTRICT).
 *
 * The server queues an action for each row that is deleted, or whose key is
 * changed, even if another row has the same key in the end.  Rows that refer to
 * the key would be deleted for no reason, or, if two rows have exchanged their
 * keys, all end up at one of them.
 *
 * Here an action is queued only if the key is gone, that is, if no new row has
 * it.  Else it is held back: its trigger is disabled while the row's triggers
 * are queued, in a list of triggers that is a copy of our own and that no other
 * statement sees.  When all rows are there, the check of NO ACTION takes its
 * place, as a trigger may have kept the row with the key away.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "projection/rebuild.h"

/* An action that was not queued. */
typedef struct HeldBack
{
	StoredTable *stored;
	Trigger    *trigger;
	ItemPointerData tid;		/* the old row */
} HeldBack;

/* Looks up the foreign keys that refer to the table and have an action. */
List *
rebuild_keys_find(const Projection *projection, Oid relid)
{
	List	   *keys = NIL;
	SPITupleTable *found;
	uint64		i;

	(void) rebuild_run_sql(projection,
						   psprintf("SELECT c.oid,"
									" string_agg(format('k.%%1$I OPERATOR(%%2$I.%%3$s) t.%%1$I',"
									" attname, nspname, oprname), ' AND ')"
									" FROM pg_constraint c"
									" CROSS JOIN unnest(confkey, conppeqop) AS u (attnum, op)"
									" JOIN pg_attribute a ON attrelid = confrelid AND a.attnum = u.attnum"
									" JOIN pg_operator o ON o.oid = op"
									" JOIN pg_namespace n ON n.oid = oprnamespace"
									" WHERE contype = 'f' AND confrelid = %u AND conparentid = 0"
									" AND (confdeltype <> 'a' OR confupdtype <> 'a')"
									" GROUP BY c.oid", relid));
	found = SPI_tuptable;
	for (i = 0; i < found->numvals; i++)
	{
		ActingKey  *key = palloc0(sizeof(ActingKey));
		bool		isnull;

		key->constraint = DatumGetObjectId(SPI_getbinval(found->vals[i],
														 found->tupdesc, 1,
														 &isnull));
		key->same = SPI_getvalue(found->vals[i], found->tupdesc, 2);
		keys = lappend(keys, key);
	}
	SPI_freetuptable(found);
	return keys;
}

/* Returns the constraint that a partition's constraint stems from. */
static Oid
top_constraint(Oid constraint)
{
	for (;;)
	{
		HeapTuple	tuple = SearchSysCache1(CONSTROID,
											ObjectIdGetDatum(constraint));
		Oid			parent;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for constraint %u", constraint);
		parent = ((Form_pg_constraint) GETSTRUCT(tuple))->conparentid;
		ReleaseSysCache(tuple);
		if (!OidIsValid(parent))
			return constraint;
		constraint = parent;
	}
}

/* Returns the key whose action the trigger is; NULL if it is of none. */
static ActingKey *
key_of_trigger(const TableSwap *swap, const Trigger *trigger)
{
	Oid			constraint;
	ListCell   *cell;

	if (RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK)
		return NULL;
	constraint = top_constraint(trigger->tgconstraint);
	foreach(cell, swap->keys)
	{
		ActingKey  *key = lfirst(cell);

		if (key->constraint == constraint)
			return key;
	}
	return NULL;
}

/* Notes which triggers of the table are actions of which foreign keys. */
void
rebuild_keys_open(const TableSwap *swap, StoredTable *stored)
{
	TriggerDesc *triggers = stored->relinfo->ri_TrigDesc;
	int			count = triggers == NULL ? 0 : triggers->numtriggers;
	int			i;

	stored->keys = palloc(sizeof(ActingKey *) * count);
	stored->enabled = palloc(count);
	for (i = 0; i < count; i++)
	{
		stored->keys[i] = key_of_trigger(swap, &triggers->triggers[i]);
		stored->enabled[i] = triggers->triggers[i].tgenabled;
	}
}

/*
 * Disables the actions on the row at hand whose key remains, and notes them for
 * the check; enables the others.
 */
void
rebuild_keys_hold_back(TableSwap *swap, StoredTable *stored, TupleTableSlot *new)
{
	ResultRelInfo *relinfo = stored->relinfo;
	TriggerDesc *triggers = relinfo->ri_TrigDesc;
	MemoryContext oldcontext = MemoryContextSwitchTo(swap->estate->es_query_cxt);
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		HeldBack   *held_back;

		if (stored->keys[i] == NULL)
			continue;
		trigger->tgenabled = stored->keys[i]->remains ? TRIGGER_DISABLED :
			stored->enabled[i];
		if (!stored->keys[i]->remains ||
			!TRIGGER_FOR_DELETE(trigger->tgtype) || /* one of a key's two */
			!RI_FKey_pk_upd_check_required(trigger, relinfo->ri_RelationDesc,
										   stored->old, new))
			continue;
		held_back = palloc(sizeof(HeldBack));
		held_back->stored = stored;
		held_back->trigger = trigger;
		held_back->tid = stored->old->tts_tid;
		swap->held_back = lappend(swap->held_back, held_back);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* Does what a foreign key with NO ACTION would do about the old row. */
static void
check_held_back(const HeldBack *held_back)
{
	StoredTable *stored = held_back->stored;

	LOCAL_FCINFO(fcinfo, 0);
	TriggerData trigger = {
		.type = T_TriggerData,
		.tg_event = TRIGGER_EVENT_DELETE | TRIGGER_EVENT_ROW,
		.tg_relation = stored->relinfo->ri_RelationDesc,
		.tg_trigger = held_back->trigger,
		.tg_trigslot = stored->old
	};
	ItemPointerData tid = held_back->tid;
	bool		should_free;

	rebuild_change_fetch_old(stored, &tid);
	trigger.tg_trigtuple = ExecFetchSlotHeapTuple(stored->old, false,
												  &should_free);
	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, (Node *) &trigger,
							 NULL);
	(void) RI_FKey_noaction_del(fcinfo);
	if (should_free)
		heap_freetuple(trigger.tg_trigtuple);
	ExecClearTuple(stored->old);
}

/* Checks the foreign keys whose actions were held back. */
void
rebuild_keys_check(const TableSwap *swap)
{
	ListCell   *cell;

	foreach(cell, swap->held_back)
	{
		CHECK_FOR_INTERRUPTS();
		check_held_back(lfirst(cell));
	}
}
