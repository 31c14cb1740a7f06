/*-------------------------------------------------------------------------
 *
 * subject_key.c
 *		The keys of subjects: rows of es_subject_keys.
 *
 * A row has the key, wrapped by AES-256-GCM with a key-encryption key, whose fingerprint it
 * has, too.  What is authenticated with it is the subject, so that the key of one person does not
 * open what is about another one.  The key of an erased subject is null, and the row stays.
 *
 * Rows are read with a snapshot of their own, whatever the isolation level: what was erased before
 * the call is erased for it.
 *
 * Keys that were read with are cached, as a row costs more than what it decrypts.  A change of a row,
 * which is an erasure or a rotation, sends an invalidation of the table with its commit, before
 * it returns.  A reader takes in what was sent before each event that it opens, and forgets all keys.
 * So no event is opened after the erasure has returned.  A key that is inserted changes nothing that
 * is cached.  One that is written with is read from its row, which a rollback may take away.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/compat.h"
#include "eventstore.h"
#include "personal/personal.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_subject_keys_changed);

#define KEYS_TABLE "es_subject_keys"

/* Columns of es_subject_keys. */
enum
{
	Anum_keys_subject = 1,
	Anum_keys_key,
	Anum_keys_key_encryption_key,
	Anum_keys_created_at,
	Anum_keys_erased_at
};

/* Keys that are cached. */
#define CACHED_KEYS 64

/* A key that was read with. */
typedef struct CachedKey
{
	Oid			log;			/* 0: none */
	int			length;
	char		subject[ES_MAX_SUBJECT_LENGTH];
	uint8		key[CIPHER_KEY_BYTES];
} CachedKey;

static CachedKey *cached = NULL;	/* CACHED_KEYS, in memory for keys */
static bool is_cached = false;	/* is any? */
static uint64 files_seen = 0;	/* changes of key files */

/* Changes of rows, and the table that they are of. */
static uint64 changes = 1;
static Oid	keys_relid = InvalidOid;

/* A row. */
typedef struct KeyRow
{
	bool		found;
	bool		is_own;			/* it was written by this transaction, and may
								 * go with it */
	bytea	   *wrapped;		/* NULL: erased */
	char	   *fingerprint;
	TimestampTz erased_at;
} KeyRow;

static void
forget_keys(void)
{
	if (is_cached)
		OPENSSL_cleanse(cached, sizeof(CachedKey) * CACHED_KEYS);
	is_cached = false;
}

/* Invalidation callback. */
static void
note_key_change(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != keys_relid)
		return;
	changes++;
	forget_keys();
}

/* Learns the table of the log, from when on its changes count. */
static void
watch_table(Oid log)
{
	static bool registered = false;
	static Oid	watched = InvalidOid;

	if (!registered)
		CacheRegisterRelcacheCallback(note_key_change, (Datum) 0);
	registered = true;
	if (watched == log && OidIsValid(keys_relid))
		return;
	keys_relid = own_table_relid(log, KEYS_TABLE);
	watched = log;
	changes++;
	forget_keys();
}

uint64
subject_key_changes(Oid log)
{
	watch_table(log);
	AcceptInvalidationMessages();
	return changes;
}

/* Reads the subject's row, as it is committed now or was written by this transaction. */
static KeyRow
read_row(Oid log, text *subject)
{
	Relation	rel = table_open(own_table_relid(log, KEYS_TABLE), AccessShareLock);
	KeyRow		row = {0};
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		value;
	bool		isnull;

	ScanKeyInit(&key, Anum_keys_subject, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(subject));
	scan = systable_beginscan(rel, compat_primary_key_index(rel), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	row.found = HeapTupleIsValid(tuple);
	if (row.found)
	{
		row.is_own = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
		value = heap_getattr(tuple, Anum_keys_key, RelationGetDescr(rel), &isnull);
		row.wrapped = isnull ? NULL : DatumGetByteaPCopy(value);
		value = heap_getattr(tuple, Anum_keys_key_encryption_key, RelationGetDescr(rel), &isnull);
		row.fingerprint = isnull ? NULL : TextDatumGetCString(value);
		value = heap_getattr(tuple, Anum_keys_erased_at, RelationGetDescr(rel), &isnull);
		row.erased_at = isnull ? 0 : DatumGetTimestampTz(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return row;
}

/* What is authenticated with a wrapped key. */
static CipherText
known_of_key(text *subject)
{
	CipherText	known = {(const uint8 *) VARDATA_ANY(subject), VARSIZE_ANY_EXHDR(subject)};

	return known;
}

/* Unwraps the key of a row. */
static SubjectKeyState
unwrap_key(const KeyRow *row, text *subject, uint8 *key)
{
	CipherText	sealed;
	const FileKey *wrapper;

	if (!row->found)
		return SUBJECT_KEY_NONE;
	if (row->wrapped == NULL)
		return SUBJECT_KEY_ERASED;
	sealed.bytes = (const uint8 *) VARDATA_ANY(row->wrapped);
	sealed.length = VARSIZE_ANY_EXHDR(row->wrapped);
	if (row->fingerprint == NULL || sealed.length != CIPHER_KEY_BYTES + CIPHER_MORE_BYTES)
		return SUBJECT_KEY_DAMAGED;
	wrapper = key_file_find(row->fingerprint);
	if (wrapper == NULL)
		return SUBJECT_KEY_UNWRAPPABLE;
	return cipher_open(wrapper->key, known_of_key(subject), sealed, key) ?
		SUBJECT_KEY_THERE : SUBJECT_KEY_DAMAGED;
}

/* The place of the subject in the cache. */
static CachedKey *
cache_place(text *subject)
{
	if (cached == NULL)
		cached = key_memory_alloc(sizeof(CachedKey) * CACHED_KEYS);
	return &cached[hash_bytes((const unsigned char *) VARDATA_ANY(subject),
							  VARSIZE_ANY_EXHDR(subject)) % CACHED_KEYS];
}

SubjectKeyState
subject_key_find(Oid log, text *subject, uint8 *key)
{
	CachedKey  *place;
	SubjectKeyState state;
	KeyRow		row;
	uint64		seen;

	watch_table(log);
	AcceptInvalidationMessages();
	if (VARSIZE_ANY_EXHDR(subject) > ES_MAX_SUBJECT_LENGTH)
		return SUBJECT_KEY_DAMAGED;
	place = cache_place(subject);
	if (files_seen != key_file_changes())
		forget_keys();
	files_seen = key_file_changes();
	if (is_cached && place->log == log && place->length == (int) VARSIZE_ANY_EXHDR(subject) &&
		memcmp(place->subject, VARDATA_ANY(subject), place->length) == 0)
	{
		memcpy(key, place->key, CIPHER_KEY_BYTES);
		return SUBJECT_KEY_THERE;
	}
	seen = changes;
	row = read_row(log, subject);
	state = unwrap_key(&row, subject, key);
	if (state != SUBJECT_KEY_THERE || row.is_own || seen != changes)
		return state;
	files_seen = key_file_changes();
	place->log = log;
	place->length = VARSIZE_ANY_EXHDR(subject);
	memcpy(place->subject, VARDATA_ANY(subject), place->length);
	memcpy(place->key, key, CIPHER_KEY_BYTES);
	is_cached = true;
	return state;
}

/* Wraps a key. */
static bytea *
wrap_key(const FileKey *wrapper, text *subject, const uint8 *key)
{
	int			length = CIPHER_KEY_BYTES + CIPHER_MORE_BYTES;
	bytea	   *wrapped = palloc(VARHDRSZ + length);
	CipherText	plain = {key, CIPHER_KEY_BYTES};

	SET_VARSIZE(wrapped, VARHDRSZ + length);
	cipher_seal(wrapper->key, known_of_key(subject), plain, (uint8 *) VARDATA(wrapped));
	return wrapped;
}

/* Makes a key, and stores its row. */
static void
make_key(Oid log, text *subject, uint8 *key)
{
	const FileKey *wrapper = key_file_first();
	Oid			types[3] = {TEXTOID, BYTEAOID, TEXTOID};
	Datum		values[3];

	cipher_random(key, CIPHER_KEY_BYTES);
	values[0] = PointerGetDatum(subject);
	values[1] = PointerGetDatum(wrap_key(wrapper, subject, key));
	values[2] = CStringGetTextDatum(wrapper->fingerprint);
	SPI_connect();
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@." KEYS_TABLE
					   " (subject, key, key_encryption_key) VALUES ($1, $2, $3)",
					   3, types, values, NULL);
	SPI_finish();
}

/* Raises what is wrong with a key that is there. */
static void
fail_key(SubjectKeyState state, text *subject, const KeyRow *row)
{
	if (state == SUBJECT_KEY_ERASED)
		ereport(ERROR,
				(errcode(ERRCODE_ES_SUBJECT_ERASED),
				 errmsg("subject \"%s\" was erased", text_to_cstring(subject)),
				 errdetail("It was erased at %s. Nothing personal can be stored of it any more.",
						   timestamptz_to_str(row->erased_at)),
				 errhint("A person who comes back gets another subject.")));
	/* nothing can be wrapped either, if a file is missing */
	(void) key_file_first();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the key of subject \"%s\" cannot be used", text_to_cstring(subject)),
			 state == SUBJECT_KEY_DAMAGED ?
			 errdetail("Its row in es_subject_keys is damaged.") :
			 errdetail("It is wrapped by the key-encryption key %s, which is in no file that eventstore.key_file names and that can be used.",
					   row->fingerprint),
			 state == SUBJECT_KEY_DAMAGED ?
			 errhint("Restore the row from a backup.") :
			 errhint("Name the file with that key, too.")));
}

void
subject_key_get(Oid log, text *subject, uint8 *key)
{
	KeyRow		row = read_row(log, subject);
	SubjectKeyState state = unwrap_key(&row, subject, key);

	if (state == SUBJECT_KEY_NONE)
		make_key(log, subject, key);
	else if (state != SUBJECT_KEY_THERE)
		fail_key(state, subject, &row);
}

bytea *
subject_key_rewrap(text *subject, bytea *wrapped, const char *fingerprint, const FileKey *wrapper)
{
	KeyRow		row = {.found = true,.wrapped = wrapped};
	uint8		key[CIPHER_KEY_BYTES];
	SubjectKeyState state;
	bytea	   *result;

	row.fingerprint = fingerprint == NULL ? NULL : pstrdup(fingerprint);
	state = unwrap_key(&row, subject, key);
	if (state != SUBJECT_KEY_THERE)
		fail_key(state, subject, &row);
	result = wrap_key(wrapper, subject, key);
	OPENSSL_cleanse(key, sizeof(key));
	return result;
}

/*
 * es_subject_keys_changed(): AFTER a change of es_subject_keys for each row, sends the
 * invalidation to all sessions.  An INSERT by logical replication may bring the first key of all, and
 * with it events that are encrypted.
 */
Datum
es_subject_keys_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, KEYS_TABLE);
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		CacheInvalidateRelcache(trigger->tg_relation);
	else if (!event_type_has_personal(log))
		event_type_note_personal(log);
	return PointerGetDatum(NULL);
}
