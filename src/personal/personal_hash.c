/*-------------------------------------------------------------------------
 *
 * personal_hash.c
 *		es_personal_hash(): a hash of a value that nobody can make again once the person is erased.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "log/replica.h"
#include "log/tags.h"
#include "personal/personal.h"

PG_FUNCTION_INFO_V1(es_personal_hash);

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
