/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		The table es_snapshots: states of streams at versions, and of tags at positions,
 *		from which a fold can go on.  They are a cache.
 *
 * No transaction waits here.  There is no unique key but an id.  The table is
 * left alone if another session has locked it as a whole.  Rows are only locked
 * to be deleted, and those that another transaction has locked are skipped.
 *
 * doc/internals/fold.md says which rows fit, and why old ones are thinned out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/role.h"
#include "aggregate/aggregate.h"

#define SNAPSHOTS	"es_snapshots"
#define SNAPSHOTS_INDEX "es_snapshots_stream_reducer_version_idx"

/* Columns of es_snapshots. */
enum
{
	Anum_es_snapshots_id = 1,
	Anum_es_snapshots_stream,
	Anum_es_snapshots_reducer,
	Anum_es_snapshots_version,
	Anum_es_snapshots_taken_by,
	Anum_es_snapshots_fingerprint,
	Anum_es_snapshots_initial,
	Anum_es_snapshots_recorded_at,
	Anum_es_snapshots_state,
	Anum_es_snapshots_taken_at,
	Anum_es_snapshots_of_tag,
	Anum_es_snapshots_personal
};

/*
 * Locks a relation of ours without waiting; InvalidOid if that is not possible.
 */
static Oid
lock_at_once(Oid log, const char *name, LOCKMODE lock)
{
	Oid			relid = get_relname_relid(name, get_rel_namespace(log));

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, lock) ?
		relid : InvalidOid;
}

/*
 * Returns true if the current user trusts states of this reducer that the role
 * has taken.
 */
static bool
is_trusted(const FoldSource *source, const Role *taken_by)
{
	Oid			trusted[] = {GetUserId(), source->reducer.owner, run_as_owner(source->log)};
	Oid			role = role_find(taken_by);
	int			i;

	for (i = 0; i < (int) lengthof(trusted); i++)
	{
		if (role == trusted[i])
			return OidIsValid(role);
	}
	return false;
}

/* A column that is never null. */
static Datum
snapshot_column(TupleTableSlot *slot, int number)
{
	bool		isnull;

	return slot_getattr(slot, number, &isnull);
}

/* Returns true if the fold can begin at this row. */
static bool
snapshot_fits(const FoldSource *source, TimestampTz until, TupleTableSlot *slot)
{
	return DatumGetBool(snapshot_column(slot, Anum_es_snapshots_of_tag)) == source->of_query &&
		(uint64) DatumGetInt64(snapshot_column(slot, Anum_es_snapshots_fingerprint)) == source->reducer.fingerprint &&
		(uint64) DatumGetInt64(snapshot_column(slot, Anum_es_snapshots_initial)) == source->initial &&
		DatumGetTimestampTz(snapshot_column(slot, Anum_es_snapshots_recorded_at)) <= until &&
		is_trusted(source, (Role *) DatumGetPointer(snapshot_column(slot, Anum_es_snapshots_taken_by)));
}

/* Copies the state, its version and its time. */
static void
copy_state(TupleTableSlot *slot, StreamState *found)
{
	Datum		state = slot_getattr(slot, Anum_es_snapshots_state,
									 &found->state.isnull);

	found->snapshot = DatumGetInt64(snapshot_column(slot, Anum_es_snapshots_id));
	found->version = DatumGetInt64(snapshot_column(slot, Anum_es_snapshots_version));
	found->personal = DatumGetBool(snapshot_column(slot, Anum_es_snapshots_personal));
	found->recorded_at =
		DatumGetTimestampTz(snapshot_column(slot, Anum_es_snapshots_recorded_at));
	found->state.value = found->state.isnull ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
}

/* Looks for the last row that fits. */
static bool
find_last_fitting(const FoldSource *source, Relation rel, Relation index,
				  int64 upto, TimestampTz until, Snapshot snapshot,
				  StreamState *found)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, 3);
	ScanKeyData keys[3];
	bool		fits = false;

	table_row_key(&keys[0], index, 1, BTEqualStrategyNumber, F_TEXTEQ,
				  PointerGetDatum(source->stream));
	table_row_key(&keys[1], index, 2, BTEqualStrategyNumber, F_TEXTEQ,
				  CStringGetTextDatum(source->reducer.signature));
	table_row_key(&keys[2], index, 3, BTLessEqualStrategyNumber, F_INT8LE,
				  Int64GetDatum(upto));
	index_rescan(scan, keys, 3, NULL, 0);
	while (!fits && index_getnext_slot(scan, BackwardScanDirection, slot))
	{
		fits = snapshot_fits(source, until, slot);
		if (fits)
			copy_state(slot, found);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return fits;
}

/*
 * Reads the index backward.  There is no snapshot for a fold that would have to
 * wait for the table or the index.
 */
bool
snapshot_find(const FoldSource *source, int64 upto, TimestampTz until,
			  Snapshot snapshot, StreamState *found)
{
	Oid			relid = lock_at_once(source->log, SNAPSHOTS, AccessShareLock);
	Oid			indexid;
	Relation	rel;
	Relation	index;
	bool		fits;

	if (!OidIsValid(relid))
		return false;
	rel = table_open(relid, NoLock);
	indexid = lock_at_once(source->log, SNAPSHOTS_INDEX, AccessShareLock);
	if (!OidIsValid(indexid))
	{
		table_close(rel, AccessShareLock);
		return false;
	}
	index = index_open(indexid, NoLock);
	fits = find_last_fitting(source, rel, index, upto, until, snapshot, found);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return fits;
}

bool
snapshot_is_saved_now(const FoldSource *source, const StreamState *state)
{
	Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());
	StreamState found;
	bool		saved = snapshot_find(source, state->version, DT_NOEND, latest, &found) &&
	found.snapshot == state->snapshot;

	UnregisterSnapshot(latest);
	return saved;
}

/* The parameters of the statements that write. */
enum
{
	PARAM_STREAM, PARAM_REDUCER, PARAM_TAKEN_BY, PARAM_INITIAL,
	PARAM_FINGERPRINT, PARAM_OF_TAG, PARAM_VERSION, PARAM_RECORDED_AT, PARAM_STATE,
	PARAM_PERSONAL, PARAMS
};

/* This role's snapshots of the stream, or the tag, by the reducer from the initial state. */
#define SAME \
	"o.stream = $1 AND o.reducer = $2 AND o.taken_by::oid = $3 AND o.initial = $4" \
	" AND o.of_tag = $6"

/*
 * Writes the row.  Deletes the rows of the reducer's earlier definitions, and
 * one of the older rows if they are closer to each other than necessary.
 */
static void
write_snapshot(Oid log, int nargs, Oid *types, Datum *values, const char *nulls)
{
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_snapshots"
					   " (stream, reducer, taken_by, initial, fingerprint,"
					   " of_tag, version, recorded_at, state, personal)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
					   nargs, types, values, nulls);
	if (IsolationUsesXactSnapshot())
		return;
	(void) own_sql_run(log,
					   "DELETE FROM @extschema@.es_snapshots WHERE id IN ("
					   "SELECT s.id FROM @extschema@.es_snapshots s"
					   " WHERE s.id = ANY (ARRAY("
					   "(SELECT o.id FROM @extschema@.es_snapshots o"
					   " WHERE " SAME " AND o.fingerprint <> $5)"
					   " UNION ALL (SELECT w.id FROM"
					   " (SELECT o.id, o.version, max(o.version) OVER () AS last,"
					   " lag(o.version, 1, 0::bigint) OVER v AS before,"
					   " lead(o.version) OVER v AS after"
					   " FROM @extschema@.es_snapshots o"
					   " WHERE " SAME " AND o.fingerprint = $5"
					   " WINDOW v AS (ORDER BY o.version, o.id)) w"
					   " WHERE w.after - w.before <= (w.last - w.version) / 2"
					   " ORDER BY w.version LIMIT 1)))"
					   " FOR UPDATE SKIP LOCKED)",
					   PARAM_VERSION, types, values, nulls);
}

/*
 * Saves the state.  The commit of a transaction that writes nothing else need
 * not wait for the disk.
 */
bool
snapshot_save(const FoldSource *source, const StreamState *state)
{
	static Oid	types[PARAMS] = {TEXTOID, TEXTOID, OIDOID, INT8OID, INT8OID,
	BOOLOID, INT8OID, TIMESTAMPTZOID, JSONBOID, BOOLOID};
	CommitProgress before = async_commit_begin();
	Datum		values[PARAMS] = {
		PointerGetDatum(source->stream),
		CStringGetTextDatum(source->reducer.signature), ObjectIdGetDatum(GetUserId()),
		Int64GetDatum((int64) source->initial),
		Int64GetDatum((int64) source->reducer.fingerprint),
		BoolGetDatum(source->of_query), Int64GetDatum(state->version), TimestampTzGetDatum(state->recorded_at),
		state->state.value, BoolGetDatum(state->personal)
	};
	char		nulls[PARAMS + 1] = "          ";

	if (!OidIsValid(lock_at_once(source->log, SNAPSHOTS, RowExclusiveLock)))
		return false;
	nulls[PARAM_STATE] = state->state.isnull ? 'n' : ' ';
	SPI_connect();
	write_snapshot(source->log, PARAMS, types, values, nulls);
	SPI_finish();
	async_commit_end(before);
	return true;
}

/*
 * Refuses to write where that is impossible, and at REPEATABLE READ and above,
 * since a cache must not be the reason for a serialization failure.
 */
bool
snapshot_may_save(void)
{
	return !XactReadOnly && !RecoveryInProgress() && !IsInParallelMode() &&
		!IsolationUsesXactSnapshot();
}
