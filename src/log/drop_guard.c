/*-------------------------------------------------------------------------
 *
 * drop_guard.c
 *		Keeps the log from being dropped by mistake.
 *
 * DROP EXTENSION removes every event, without CASCADE, and so do DROP SCHEMA ...
 * CASCADE and DROP OWNED where they reach the extension.  A hook, which the server
 * calls before it drops an object, refuses to drop es_events while it has rows, unless
 * eventstore.allow_drop is on.  By then the table's indexes and triggers are gone, so
 * that the table itself is read.
 *
 * The hook is there where the library is loaded.  An event trigger of the extension,
 * which fires before these three statements in its database, has a function of the
 * library, and so loads it.  It does nothing else.
 *
 * A table that was taken out of the extension (ALTER EXTENSION ... DROP TABLE) is not
 * guarded any more, and a database can be dropped as any other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_guard_drop);

static object_access_hook_type next_object_access_hook = NULL;

/*
 * eventstore.allow_drop: whether the log may be dropped while it has events.  An
 * administrator turns it on in the session that drops the store.
 */
static bool allow_drop = false;

/* Returns true if the relation is the log of this extension. */
static bool
is_own_log(Oid relid)
{
	char	   *name = get_rel_name(relid);
	Oid			extension;

	if (name == NULL || strcmp(name, "es_events") != 0)
		return false;
	extension = getExtensionOfObject(RelationRelationId, relid);
	return OidIsValid(extension) &&
		strcmp(get_extension_name(extension), "eventstore") == 0;
}

/* Refuses to drop the log if it has an event. */
static void
check_log_is_empty(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(log, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(log, NULL);
	bool		isnull;

	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log has events, and would be dropped with them"),
				 errdetail("Table \"%s\" of extension eventstore has an event at position " INT64_FORMAT ".",
						   RelationGetRelationName(log),
						   DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull))),
				 errhint("If the events are not needed any more, run SET eventstore.allow_drop = on first.")));
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(log, NoLock);
}

/* The hook. */
static void
guard_object(ObjectAccessType access, Oid class, Oid object, int subid, void *arg)
{
	if (next_object_access_hook != NULL)
		next_object_access_hook(access, class, object, subid, arg);
	if (access == OAT_DROP && class == RelationRelationId && subid == 0 &&
		!allow_drop && is_own_log(object))
		check_log_is_empty(object);
}

/*
 * ON ddl_command_start of statements that may drop the extension: that it is called has
 * loaded the library, and with it the hook.
 */
Datum
es_guard_drop(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called as an event trigger",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errdetail("It was called in another way.")));
	PG_RETURN_NULL();
}

void
drop_guard_init(void)
{
	DefineCustomBoolVariable("eventstore.allow_drop",
							 "Allows dropping the extension while the log has events.",
							 "DROP EXTENSION removes every event.",
							 &allow_drop, false, PGC_USERSET, 0, NULL, NULL, NULL);
	next_object_access_hook = object_access_hook;
	object_access_hook = guard_object;
}
