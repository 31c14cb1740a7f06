/*-------------------------------------------------------------------------
 *
 * rotate.c
 *		es_rotate_keys(): wraps the keys of subjects by the first key-encryption key.
 *
 * A call wraps so many keys that another one wraps, and holds the locks of their rows.  Until the
 * last key is wrapped anew the old file must be there.  Appends and reads go on meanwhile, as they
 * can unwrap by both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "base/setting.h"
#include "log/replica.h"
#include "log/tags.h"
#include "personal/personal.h"

PG_FUNCTION_INFO_V1(es_rotate_keys);

/*
 * $1: the fingerprint of the first file's key, $2: at most so many.  By the index of
 * fingerprints, so that a call does not look at keys that were wrapped before.
 */
static const char *const find_old_keys =
"SELECT pg_catalog.array_agg(k.subject) FROM ("
"(SELECT subject FROM @extschema@.es_subject_keys WHERE key_encryption_key < $1 AND key IS NOT NULL"
" ORDER BY key_encryption_key LIMIT $2) UNION ALL"
" (SELECT subject FROM @extschema@.es_subject_keys WHERE key_encryption_key > $1 AND key IS NOT NULL"
" ORDER BY key_encryption_key LIMIT $2) LIMIT $2) k";

/* $2: subjects. */
static const char *const lock_old_keys =
"SELECT subject, key, key_encryption_key FROM @extschema@.es_subject_keys"
" WHERE subject = ANY ($2) AND key IS NOT NULL AND key_encryption_key <> $1"
" ORDER BY subject FOR UPDATE";

static const char *const store_key =
"UPDATE @extschema@.es_subject_keys SET key = $2, key_encryption_key = $3 WHERE subject = $1";

/* Wraps one key anew. */
static void
rotate_key(Oid log, const FileKey *wrapper, Datum subject, Datum wrapped, const char *fingerprint)
{
	Oid			types[3] = {TEXTOID, BYTEAOID, TEXTOID};
	Datum		values[3] = {subject, (Datum) 0, CStringGetTextDatum(wrapper->fingerprint)};

	values[1] = PointerGetDatum(subject_key_rewrap(DatumGetTextPP(subject), DatumGetByteaPP(wrapped),
												   fingerprint, wrapper));
	(void) own_sql_run(log, store_key, 3, types, values, NULL);
}

/*
 * Finds keys that the first file's does not wrap, and locks their rows.  Others that rotate may
 * have wrapped all that it has found.  Returns how many SPI has.
 */
static uint64
lock_keys(Oid log, const FileKey *wrapper, int64 max_keys)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Oid			array_types[2] = {TEXTOID, TEXTARRAYOID};
	Datum		values[2] = {CStringGetTextDatum(wrapper->fingerprint), Int64GetDatum(max_keys)};
	Datum		found[2] = {values[0]};
	int			level = settings_begin_by_index();
	uint64		count = 0;

	while (count == 0)
	{
		CHECK_FOR_INTERRUPTS();
		(void) own_sql_run(log, find_old_keys, 2, types, values, NULL);
		found[1] = own_sql_value(1);
		if (found[1] == (Datum) 0)
			break;
		count = own_sql_run(log, lock_old_keys, 2, array_types, found, NULL);
	}
	settings_end(level);
	return count;
}

/*
 * es_rotate_keys(max_keys) returns bigint: how many were wrapped anew.
 */
Datum
es_rotate_keys(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	const FileKey *wrapper;
	SPITupleTable *rows;
	uint64		count;
	uint64		i;

	PreventCommandIfReadOnly("es_rotate_keys()");
	isolation_check("es_rotate_keys()");
	replica_refuse(log, "rotate keys");
	argument_not_null(fcinfo, 0, "max_keys");
	argument_range("max_keys", PG_GETARG_INT64(0), 1, PG_INT64_MAX);
	wrapper = key_file_first();
	SPI_connect();
	count = lock_keys(log, wrapper, PG_GETARG_INT64(0));
	rows = SPI_tuptable;
	for (i = 0; i < count; i++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		rotate_key(log, wrapper, SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull),
				   SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &isnull),
				   SPI_getvalue(rows->vals[i], rows->tupdesc, 3));
	}
	SPI_finish();
	PG_RETURN_INT64((int64) count);
}
