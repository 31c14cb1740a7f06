/*-------------------------------------------------------------------------
 *
 * published_horizon.c
 *		The table es_published_horizon: the horizon that the primary publishes for
 *		its standbys.
 *
 * A worker of the primary writes the row, in a transaction whose snapshot gave the
 * horizon, and the row travels with the WAL.  A reader that sees it on a standby sees
 * every event that this snapshot saw (doc/internals/horizon.md, Fact 3).
 *
 * One worker at a time writes.  Another one that finds it busy tries again later.  The
 * table's index leads to the row before all of its older versions, since they have
 * lower positions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"

#define TABLE "es_published_horizon"

/*
 * The position up to which the log is stable for a reader with the snapshot; 0 if
 * none is published.
 */
int64
published_horizon_read(Oid log, Snapshot snapshot)
{
	Relation	rel = table_open(own_table_relid(log, TABLE), AccessShareLock);
	Relation	index = index_open(compat_primary_key_index(rel),
								   AccessShareLock);
	int64		position = table_row_last_number(rel, index, 1, snapshot);

	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return position;
}

/*
 * Publishes that the log is stable up to the position.
 */
bool
published_horizon_write(Oid log, int64 position)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(position);

	if (!own_table_try_lock(log, TABLE))
		return false;
	SPI_connect();
	own_sql_run(log,
				"UPDATE @extschema@." TABLE " SET position = $1 WHERE position < $1",
				1, &type, &value, NULL);
	SPI_finish();
	return true;
}
