/*-------------------------------------------------------------------------
 *
 * published_horizon.c
 *		The table es_published_horizon: the horizon that the primary publishes for
 *		its standbys and its subscribers.
 *
 * A worker of the primary writes the row of its incarnation, in a transaction whose snapshot
 * gave the horizon, and the row travels with the WAL, or by logical replication.  A reader
 * that sees it elsewhere sees every event that this snapshot saw (doc/internals/horizon.md,
 * Fact 3).  So the greatest position of all rows counts.
 *
 * One worker at a time writes.  Another one that finds it busy tries again later.  The
 * table's index leads to the row before all of its older versions, since they have
 * lower positions.
 *
 * A row that logical replication brings lets events be read.  The trigger
 * es_published_horizon_applied has a worker look for them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/base.h"
#include "log/log.h"
#include "log/replica.h"

PG_FUNCTION_INFO_V1(es_published_horizon_applied);

#define TABLE "es_published_horizon"

/* What published_horizon_known() gives, and of which log. */
static Oid	known_log = InvalidOid;
static Oid	known_file = InvalidOid;
static int64 known_position = 0;
static bool known_to_subscribers = false;

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

static void
forget_known(Datum arg, int cache, uint32 hash)
{
	known_log = InvalidOid;
}

/* Returns true if a publication has the table. */
static bool
is_published(Oid table)
{
	return XLogLogicalInfoActive() &&
		(GetRelationPublications(table) != NIL ||
		 GetSchemaPublications(get_rel_namespace(table)) != NIL ||
		 GetAllTablesPublications() != NIL);
}

/*
 * The row is what subscribers know.  Standbys may find more by themselves.
 */
int64 *
published_horizon_known(Oid log, Snapshot snapshot, bool *to_subscribers)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PUBLICATIONOID, forget_known, (Datum) 0);
		CacheRegisterSyscacheCallback(PUBLICATIONRELMAP, forget_known, (Datum) 0);
		CacheRegisterSyscacheCallback(PUBLICATIONNAMESPACEMAP, forget_known, (Datum) 0);
	}
	registered = true;
	while (known_log != log || known_file != log_file(log))
	{
		known_log = log;		/* before the look-up, which may forget it */
		known_file = log_file(log);
		known_position = published_horizon_read(log, snapshot);
		known_to_subscribers = is_published(own_table_relid(log, TABLE));
	}
	*to_subscribers = known_to_subscribers;
	return &known_position;
}

/* Writes the row of the present incarnation. */
static void
write_row(Oid log, int64 position)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(position);

	SPI_connect();
	own_sql_run(log,
				"WITH own AS (SELECT @extschema@.es_incarnation() AS id),"
				" higher AS (UPDATE @extschema@." TABLE " AS h SET position = $1 FROM own"
				" WHERE h.incarnation OPERATOR(pg_catalog.=) own.id AND h.position OPERATOR(pg_catalog.<) $1)"
				" INSERT INTO @extschema@." TABLE " (position, incarnation) SELECT $1, own.id FROM own"
				" WHERE NOT EXISTS (SELECT FROM @extschema@." TABLE " AS h"
				" WHERE h.incarnation OPERATOR(pg_catalog.=) own.id)",
				1, &type, &value, NULL);
	SPI_finish();
}

bool
published_horizon_write(Oid log, int64 position)
{
	if (!own_table_try_lock(log, TABLE))
		return false;
	write_row(log, position);
	return true;
}

void
published_horizon_raise(Oid log, int64 position)
{
	LockRelationOid(own_table_relid(log, TABLE), ShareUpdateExclusiveLock);
	write_row(log, position);
}

/*
 * AFTER INSERT OR UPDATE of es_published_horizon for each row: a replica may read on.
 */
Datum
es_published_horizon_applied(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, TABLE);

	if (IsLogicalWorker())
	{
		replica_check_apply(own_table_in_schema(RelationGetNamespace(trigger->tg_relation),
												"es_events"));
		log_guard_note_applied();
	}
	return PointerGetDatum(NULL);
}
