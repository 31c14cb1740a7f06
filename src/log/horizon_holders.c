/*-------------------------------------------------------------------------
 *
 * horizon_holders.c
 *		es_horizon_holders(): the transactions that hold the horizon now.
 *
 * They are the transactions of sessions, and prepared ones, that hold a lock on es_events
 * with which they may append (horizon.c).  A lock without a transaction id
 * has drawn no position yet and does not count.
 *
 * The server shows what a session does to its own role and to members of
 * pg_read_all_stats.  So the query runs as the owner of the log, by a fixed statement.
 * It gives neither the session's statement nor data.
 *
 * The streams that a transaction has locked are known by hashes of their names
 * (log_lock.c).  A hash is looked for among the streams of the last events.  A stream
 * that is not among them, such as a new one, is left out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"

#include "base/base.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_horizon_holders);

#define HOLDER_COLUMNS	9

/* A lock on es_events with which one may append. */
#define WRITE_MODES \
	"'{RowExclusiveLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'"

/* The streams of the last events, by hash, in the form of pg_locks. */
#define RECENT_STREAMS \
	"SELECT DISTINCT e.stream, hashtextextended(e.stream, 0) AS hash FROM" \
	" (SELECT stream FROM @extschema@.es_events ORDER BY position DESC LIMIT 1000) e"

static const char *const holders_sql =
"WITH own AS MATERIALIZED (SELECT * FROM pg_locks l"
" WHERE l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())),"
" holder AS (SELECT DISTINCT l.pid, l.virtualtransaction FROM own l"
" WHERE l.locktype = 'relation' AND l.relation = $1"
" AND l.granted AND l.mode = ANY (" WRITE_MODES "::text[])),"
" known AS (SELECT h.pid, h.virtualtransaction, x.transactionid AS xid"
" FROM holder h JOIN pg_locks x ON x.virtualtransaction = h.virtualtransaction"
" AND x.pid IS NOT DISTINCT FROM h.pid"
" AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted"
" AND (h.pid IS NULL OR x.transactionid = (SELECT m.backend_xid"
" FROM pg_stat_activity m WHERE m.pid = h.pid))),"
" recent AS MATERIALIZED (" RECENT_STREAMS ")"
" SELECT k.pid, p.gid, coalesce(p.prepared, a.xact_start) AS since,"
" coalesce(p.owner, a.usename)::text AS username, a.application_name, host(a.client_addr),"
" CASE WHEN k.pid IS NULL THEN 'prepared' ELSE a.state END,"
" (SELECT array_agg(r.stream ORDER BY r.stream) FROM own l JOIN recent r"
" ON l.classid = ((r.hash >> 32) & 4294967295)::oid AND l.objid = (r.hash & 4294967295)::oid"
" WHERE l.locktype = 'advisory' AND l.objsubid = 3 AND l.granted"
" AND l.virtualtransaction = k.virtualtransaction AND l.pid IS NOT DISTINCT FROM k.pid),"
" CASE WHEN p.gid IS NOT NULL THEN format('ROLLBACK PREPARED %L', p.gid)"
" ELSE format('SELECT pg_terminate_backend(%s)', k.pid) END"
" FROM known k LEFT JOIN pg_stat_activity a ON a.pid = k.pid"
" LEFT JOIN pg_prepared_xacts p ON p.transaction = k.xid AND k.pid IS NULL"
" ORDER BY since, k.pid, p.gid";

/*
 * es_horizon_holders(): a row for each transaction that holds the horizon, the oldest
 * first.
 */
Datum
es_horizon_holders(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(log);
	uint64		count;
	uint64		i;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	count = own_sql_select(log, holders_sql, 1, &type, &value, NULL);
	for (i = 0; i < count; i++)
	{
		Datum		values[HOLDER_COLUMNS];
		bool		nulls[HOLDER_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values,
						  nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	SPI_finish();
	PG_RETURN_NULL();
}
