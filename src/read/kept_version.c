/*-------------------------------------------------------------------------
 *
 * kept_version.c
 *		es_kept_after(): where the versions of a stream begin from which events were
 *		removed.
 *
 * es_load() counts versions from there.  While nothing was removed from the store all streams
 * begin at 1, and the planner leaves the call out.  Its plans become invalid with the first
 * removal, which invalidates the relation cache's entry of es_events (log/removed.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/primnodes.h"
#include "nodes/supportnodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"

PG_FUNCTION_INFO_V1(es_kept_after);
PG_FUNCTION_INFO_V1(es_kept_after_support);

/* Looks up the first version that the snapshot sees of the stream; 0: none. */
static int64
find_first_version(Relation log, text *stream, Snapshot snapshot)
{
	Relation	index = log_index_open_version(log);
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;
	int64		version = 0;
	bool		isnull;

	if (index == NULL)
		return 1;
	slot = table_slot_create(log, NULL);
	scan = compat_index_beginscan(log, index, snapshot, 1);
	table_row_key(&key, index, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(stream));
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, slot))
		version = DatumGetInt64(slot_getattr(slot, Anum_es_events_version, &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return version;
}

/*
 * Finds the first version of the stream.
 */
int64
kept_first_version(Oid relid, text *stream, Snapshot snapshot)
{
	Relation	log = table_open(relid, AccessShareLock);
	int64		first = removed_any(log) ? find_first_version(log, stream, snapshot) : 1;

	table_close(log, AccessShareLock);
	return first;
}

/*
 * As kept_first_version(), for what is committed now.
 */
int64
kept_first_version_now(Oid relid, text *stream)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		first = kept_first_version(relid, stream, snapshot);

	UnregisterSnapshot(snapshot);
	return first;
}

/* es_kept_after(stream, after_version) returns bigint */
Datum
es_kept_after(PG_FUNCTION_ARGS)
{
	int64		after = PG_GETARG_INT64(1);
	int64		first = kept_first_version(log_relid(fcinfo->flinfo->fn_oid),
										   PG_GETARG_TEXT_PP(0), GetActiveSnapshot());

	PG_RETURN_INT64(Max(after, first - 1));
}

/* es_kept_after_support(internal): the planner's question about a call. */
Datum
es_kept_after_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	FuncExpr   *call;
	Relation	log;
	bool		any;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	call = ((SupportRequestSimplify *) request)->fcall;
	log = table_open(log_relid(call->funcid), AccessShareLock);
	any = removed_any(log);
	table_close(log, NoLock);
	PG_RETURN_POINTER(any || list_length(call->args) != 2 ? NULL : lsecond(call->args));
}
