/*-------------------------------------------------------------------------
 *
 * removed.c
 *		What was removed from the log: whether anything was, ids, and the floor that
 *		removals leave to the horizon (doc/internals/retention.md).
 *
 * Whether anything was ever removed is kept with the relation cache's entry of es_events,
 * in the place that the server leaves to a table's access method and that heap does not
 * use.  The server frees it when the entry is invalidated.  The first removal of the store
 * sends that message itself, when its row in es_removals is stored and before it commits
 * (removed_publish): what a session then finds out counts pages and not visible rows.  So no
 * snapshot that sees a removal is older than the message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/role.h"
#include "log/log.h"
#include "log/removed.h"

PG_FUNCTION_INFO_V1(es_removals_changed);

#define REMOVALS	"es_removals"
#define REMOVED_IDS "es_removed_ids"

/* Columns of es_removed_ids. */
enum
{
	Anum_es_removed_ids_id = 1,
	Anum_es_removed_ids_stream,
	Anum_es_removed_ids_version,
	Anum_es_removed_ids_position
};

/* The column of es_removals_horizon_idx, and of es_removals. */
#define HORIZON_INDEX	"es_removals_horizon_idx"
#define Anum_es_removals_horizon	8

/* What is kept with the relation cache's entry of es_events. */
typedef struct RemovedFlag
{
	bool		any;
} RemovedFlag;

/* Returns true if es_removals has a page, whoever has stored a row there. */
static bool
has_removals(Relation log)
{
	Relation	rel = table_open(own_table_relid(RelationGetRelid(log), REMOVALS),
								 AccessShareLock);
	bool		any = RelationGetNumberOfBlocks(rel) > 0;

	table_close(rel, AccessShareLock);
	return any;
}

/*
 * Returns true if something was ever removed.
 */
bool
removed_any(Relation log)
{
	RemovedFlag *flag = log->rd_amcache;
	bool		any;

	if (log->rd_tableam != GetHeapamTableAmRoutine())
		return has_removals(log);
	if (flag != NULL)
		return flag->any;
	any = has_removals(log);
	flag = MemoryContextAlloc(CacheMemoryContext, sizeof(RemovedFlag));
	flag->any = any;
	log->rd_amcache = flag;
	return any;
}

/*
 * Lets all sessions know, now and when the transaction commits, that something is removed.
 * The second message is for standbys.
 */
static void
removed_publish(Oid log)
{
	SharedInvalidationMessage message = {0};

	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = log;
	SendSharedInvalidMessages(&message, 1);
	CacheInvalidateRelcacheByRelid(log);
}

/*
 * AFTER INSERT of es_removals, also of rows that come otherwise, for example from a dump.
 */
Datum
es_removals_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, REMOVALS);
	Oid			relid = own_table_in_schema(RelationGetNamespace(trigger->tg_relation),
											"es_events");
	Relation	log = table_open(relid, AccessShareLock);
	RemovedFlag *flag = log->rd_amcache;

	if (flag == NULL || !flag->any)
		removed_publish(relid);
	table_close(log, AccessShareLock);
	return PointerGetDatum(NULL);
}

/* A scan of a table of ours by one of its indexes. */
typedef struct RemovedScan
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} RemovedScan;

/* Opens the table and an index. */
static void
open_removed(RemovedScan *scan, Oid log, const char *table, Oid indexid,
			 Snapshot snapshot, ScanKey keys, int nkeys)
{
	scan->rel = table_open(own_table_relid(log, table), AccessShareLock);
	scan->index = index_open(OidIsValid(indexid) ? indexid :
							 compat_primary_key_index(scan->rel), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = compat_index_beginscan(scan->rel, scan->index, snapshot, nkeys);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
}

static void
close_removed(RemovedScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
}

/* A column of the row, which is never null. */
static Datum
removed_column(RemovedScan *scan, int column)
{
	bool		isnull;

	return slot_getattr(scan->slot, column, &isnull);
}

/* Says where the removed event was. */
static void
describe_removed(Log *log, RemovedScan *scan, text *stream, StoredEvent *found)
{
	text	   *its_stream = DatumGetTextPP(removed_column(scan, Anum_es_removed_ids_stream));

	found->version = DatumGetInt64(removed_column(scan, Anum_es_removed_ids_version));
	found->position = DatumGetInt64(removed_column(scan, Anum_es_removed_ids_position));
	found->same_stream = stream == NULL || stream_equal(its_stream, stream);
	if (!found->same_stream)
		found->place = role_may_read_all(RelationGetRelid(log->rel), GetUserId()) ?
			psprintf("The id was stored in stream \"%s\" at version " INT64_FORMAT ", and was removed.",
					 text_to_cstring(its_stream), found->version) :
			"The id was stored in another stream.";
}

/*
 * Looks up where the event with the id was.
 */
bool
removed_find_id(Log *log, const pg_uuid_t *id, text *stream, StoredEvent *found)
{
	RemovedScan scan;
	ScanKeyData key;
	bool		result;

	if (!removed_any(log->rel))
		return false;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	open_removed(&scan, RelationGetRelid(log->rel), REMOVED_IDS, InvalidOid,
				 log_snapshot(log), &key, 1);
	result = index_getnext_slot(scan.scan, ForwardScanDirection, scan.slot);
	if (result)
		describe_removed(log, &scan, stream, found);
	close_removed(&scan);
	return result;
}

/*
 * Looks up the position of the event that was at a version of the stream.
 */
int64
removed_position(Log *log, text *stream, int64 version)
{
	Oid			relid = RelationGetRelid(log->rel);
	Oid			indexid = own_table_relid(relid, "es_removed_ids_stream_version_key");
	Relation	index = index_open(indexid, AccessShareLock);
	RemovedScan scan;
	ScanKeyData keys[2];
	int64		position = 0;

	table_row_key(&keys[0], index, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(stream));
	table_row_key(&keys[1], index, 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(version));
	open_removed(&scan, relid, REMOVED_IDS, indexid, log_snapshot(log), keys, 2);
	if (index_getnext_slot(scan.scan, ForwardScanDirection, scan.slot))
		position = DatumGetInt64(removed_column(&scan, Anum_es_removed_ids_position));
	close_removed(&scan);
	index_close(index, AccessShareLock);
	return position;
}

/*
 * Returns true if the removal is the transaction's own, and its snapshot may be older than
 * that: then it does not see all that lies below the floor.
 */
static bool
is_beyond_snapshot(TupleTableSlot *removal)
{
	bool		isnull;

	return IsolationUsesXactSnapshot() &&
		TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(removal,
																				  MinTransactionIdAttributeNumber,
																				  &isnull)));
}

/* The greatest horizon of a removal that the snapshot sees. */
static int64
greatest_horizon(Oid log, Snapshot snapshot)
{
	RemovedScan scan;
	int64		horizon = 0;

	open_removed(&scan, log, REMOVALS, own_table_relid(log, HORIZON_INDEX), snapshot, NULL, 0);
	while (horizon == 0 && index_getnext_slot(scan.scan, BackwardScanDirection, scan.slot))
	{
		if (!is_beyond_snapshot(scan.slot))
			horizon = DatumGetInt64(removed_column(&scan, Anum_es_removals_horizon));
	}
	close_removed(&scan);
	return horizon;
}

/*
 * The floor of the horizon.  A removal that the snapshot sees has sent its message before,
 * which is accepted here.
 */
int64
removed_horizon(Relation log, Snapshot snapshot)
{
	AcceptInvalidationMessages();
	return removed_any(log) ? greatest_horizon(RelationGetRelid(log), snapshot) : 0;
}

/*
 * Opens es_removals to look for notices.
 */
Relation
removed_open_notices(Relation log, Relation *index)
{
	Oid			relid = RelationGetRelid(log);

	*index = index_open(own_table_relid(relid, "es_removals_position_idx"), AccessShareLock);
	return table_open(own_table_relid(relid, REMOVALS), AccessShareLock);
}
