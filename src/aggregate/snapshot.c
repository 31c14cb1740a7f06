/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		The table es_snapshots: states of streams at versions, from which a
 *		fold can go on.  They are a cache.
 *
 * Nobody waits here.  There is no unique key but an id; the table is left
 * alone if somebody has locked it as a whole; rows are only locked to be
 * deleted, and those that somebody else has locked are passed over.
 *
 * What makes a row fit, and why old ones are thinned out: doc/aggregate.md.
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
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/base.h"
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
	Anum_es_snapshots_state
};

/*
 * Locks a relation of ours, if nobody has locked it as a whole; else returns
 * InvalidOid.
 */
static Oid
lock_now(Oid log, const char *name, LOCKMODE lock)
{
	Oid			relid = get_relname_relid(name, get_rel_namespace(log));

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, lock) ?
		relid : InvalidOid;
}

/* Is it one of those whom the present user trusts with the reducer's states? */
static bool
is_trusted(const FoldSource *of, const NameData *taken_by)
{
	Oid			trusted[] = {GetUserId(), of->reducer.owner, run_as_owner(of->log)};
	Oid			role = get_role_oid(NameStr(*taken_by), true);
	int			i;

	for (i = 0; i < (int) lengthof(trusted); i++)
	{
		if (role == trusted[i])
			return OidIsValid(role);
	}
	return false;
}

static Datum
column(TupleTableSlot *slot, int number)
{
	bool		isnull;

	return slot_getattr(slot, number, &isnull);
}

/* Can the fold begin at this row? */
static bool
fits(const FoldSource *of, TimestampTz until, TupleTableSlot *slot)
{
	return (uint64) DatumGetInt64(column(slot, Anum_es_snapshots_fingerprint)) == of->reducer.fingerprint &&
		(uint64) DatumGetInt64(column(slot, Anum_es_snapshots_initial)) == of->initial &&
		DatumGetTimestampTz(column(slot, Anum_es_snapshots_recorded_at)) <= until &&
		is_trusted(of, DatumGetName(column(slot, Anum_es_snapshots_taken_by)));
}

/* Copies the state and what is known of it. */
static void
take(TupleTableSlot *slot, StreamState *kept)
{
	Datum		state = slot_getattr(slot, Anum_es_snapshots_state,
									 &kept->state.isnull);

	kept->version = DatumGetInt64(column(slot, Anum_es_snapshots_version));
	kept->recorded_at =
		DatumGetTimestampTz(column(slot, Anum_es_snapshots_recorded_at));
	kept->state.value = kept->state.isnull ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
}

/* Looks for the last row that fits. */
static bool
find(const FoldSource *of, Relation rel, Relation index, int64 upto,
	 TimestampTz until, Snapshot snapshot, StreamState *kept)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, 3);
	ScanKeyData keys[3];
	bool		found = false;

	table_row_key(&keys[0], index, 1, BTEqualStrategyNumber, F_TEXTEQ,
				  PointerGetDatum(of->stream));
	table_row_key(&keys[1], index, 2, BTEqualStrategyNumber, F_TEXTEQ,
				  CStringGetTextDatum(of->reducer.signature));
	table_row_key(&keys[2], index, 3, BTLessEqualStrategyNumber, F_INT8LE,
				  Int64GetDatum(upto));
	index_rescan(scan, keys, 3, NULL, 0);
	while (!found && index_getnext_slot(scan, BackwardScanDirection, slot))
	{
		found = fits(of, until, slot);
		if (found)
			take(slot, kept);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/*
 * Finds the last state of the stream that fits the reducer: at a version that
 * is not beyond upto, none of whose events was recorded later than until.  It
 * is copied into the current memory context.
 */
bool
snapshot_find(const FoldSource *of, int64 upto, TimestampTz until,
			  Snapshot snapshot, StreamState *kept)
{
	Oid			relid = lock_now(of->log, SNAPSHOTS, AccessShareLock);
	Oid			indexid;
	Relation	rel;
	Relation	index;
	bool		found;

	if (!OidIsValid(relid))
		return false;
	rel = table_open(relid, NoLock);
	indexid = lock_now(of->log, SNAPSHOTS_INDEX, AccessShareLock);
	if (!OidIsValid(indexid))
	{
		table_close(rel, AccessShareLock);
		return false;
	}
	index = index_open(indexid, NoLock);
	found = find(of, rel, index, upto, until, snapshot, kept);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return found;
}

/* The parameters of the statements that write. */
enum
{
	PARAM_STREAM, PARAM_REDUCER, PARAM_TAKEN_BY, PARAM_INITIAL,
	PARAM_FINGERPRINT, PARAM_VERSION, PARAM_RECORDED_AT, PARAM_STATE, PARAMS
};

/* All that this role has kept for the stream, the reducer and its first state. */
#define SAME \
	"o.stream = $1 AND o.reducer = $2 AND o.taken_by = $3 AND o.initial = $4"

/*
 * Writes the row, and deletes what the reducer's earlier definitions have left,
 * and one of the older rows, if they are closer to each other than they need
 * to be.
 */
static void
write_row(Oid log, int nargs, Oid *types, Datum *values, const char *nulls)
{
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_snapshots"
					   " (stream, reducer, taken_by, initial, fingerprint,"
					   " version, recorded_at, state)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
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
 * Keeps a state of the stream, taken by the present user.  Returns false
 * if the table is locked as a whole.
 */
bool
snapshot_save(const FoldSource *of, const StreamState *kept)
{
	static Oid	types[PARAMS] = {TEXTOID, TEXTOID, NAMEOID, INT8OID, INT8OID,
	INT8OID, TIMESTAMPTZOID, JSONBOID};
	CommitProgress before = async_commit_begin();
	NameData	taken_by = {0};
	Datum		values[PARAMS] = {
		PointerGetDatum(of->stream),
		CStringGetTextDatum(of->reducer.signature), NameGetDatum(&taken_by),
		Int64GetDatum((int64) of->initial),
		Int64GetDatum((int64) of->reducer.fingerprint),
		Int64GetDatum(kept->version), TimestampTzGetDatum(kept->recorded_at),
		kept->state.value
	};
	char		nulls[PARAMS + 1] = "        ";

	if (!OidIsValid(lock_now(of->log, SNAPSHOTS, RowExclusiveLock)))
		return false;
	namestrcpy(&taken_by, GetUserNameFromId(GetUserId(), false));
	nulls[PARAM_STATE] = kept->state.isnull ? 'n' : ' ';
	SPI_connect();
	write_row(of->log, PARAMS, types, values, nulls);
	SPI_finish();
	async_commit_end(before);
	return true;
}

/*
 * May this transaction keep states that nobody has asked it to keep?  Those
 * of one snapshot do not, so that a cache is never the reason why they cannot be
 * serialized.
 */
bool
snapshot_may_save(void)
{
	return !XactReadOnly && !RecoveryInProgress() && !IsInParallelMode() &&
		!IsolationUsesXactSnapshot();
}
