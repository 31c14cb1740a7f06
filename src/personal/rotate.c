/*-------------------------------------------------------------------------
 *
 * rotate.c
 *		es_rotate_keys(): wraps the keys of subjects by the first key-encryption key, and
 *		es_personal_hash(), which hashes by the key of a subject.
 *
 * A call wraps so many keys, in the order of their subjects, and holds the locks of their rows.  Until
 * the last key is wrapped anew the old file must be there.  Appends and reads go on meanwhile, as
 * they can unwrap by both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/replica.h"
#include "log/tags.h"
#include "personal/personal.h"

PG_FUNCTION_INFO_V1(es_rotate_keys);
PG_FUNCTION_INFO_V1(es_personal_hash);

static const char *const find_old_keys =
"SELECT subject, key, key_encryption_key FROM @extschema@.es_subject_keys"
" WHERE key IS NOT NULL AND key_encryption_key IS DISTINCT FROM $1"
" ORDER BY subject LIMIT $2 FOR UPDATE";

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
 * es_rotate_keys(max_keys) returns bigint: how many were wrapped anew.
 */
Datum
es_rotate_keys(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2];
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
	values[0] = CStringGetTextDatum(wrapper->fingerprint);
	values[1] = PG_GETARG_DATUM(0);
	SPI_connect();
	count = own_sql_run(log, find_old_keys, 2, types, values, NULL);
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

/*
 * es_personal_hash(subject, value) returns text: hexadecimal digits of HMAC-SHA-256, by a key that
 * comes of the subject's.
 */
Datum
es_personal_hash(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	text	   *subject;
	text	   *value;
	const char *purpose = "eventstore hash of a value";
	LogLock		lock;
	uint8		key[CIPHER_KEY_BYTES];
	uint8		own[CIPHER_KEY_BYTES];
	uint8		hash[CIPHER_KEY_BYTES];
	char		digits[2 * CIPHER_KEY_BYTES + 1];
	CipherText	words = {(const uint8 *) purpose, strlen(purpose)};
	CipherText	given;

	PreventCommandIfReadOnly("es_personal_hash()");
	argument_not_null(fcinfo, 0, "subject");
	argument_not_null(fcinfo, 1, "value");
	subject = PG_GETARG_TEXT_PP(0);
	subject_check(subject);
	replica_refuse(log, "make keys");
	lock = log_lock_of_tag(subject_tag(subject), ExclusiveLock);
	log_lock_all(log, &lock, 1);
	subject_key_get(log, subject, key);
	cipher_hash(key, words, own);
	value = PG_GETARG_TEXT_PP(1);
	given.bytes = (const uint8 *) VARDATA_ANY(value);
	given.length = VARSIZE_ANY_EXHDR(value);
	cipher_hash(own, given, hash);
	OPENSSL_cleanse(key, sizeof(key));
	OPENSSL_cleanse(own, sizeof(own));
	digits[hex_encode((char *) hash, CIPHER_KEY_BYTES, digits)] = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(digits));
}
