/*-------------------------------------------------------------------------
 *
 * cipher.c
 *		AES-256-GCM and HMAC-SHA-256, by OpenSSL.
 *
 * Nonces are 96 random bits.  One key encrypts what is about one person, or wraps the keys of
 * all persons at each rotation, which is far from the 2^32 texts that such nonces are good for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "access/xact.h"

#include "personal/personal.h"

/* What the cipher was set up for last. */
typedef struct CipherUse
{
	bool		set;
	bool		seals;
	uint8		key[CIPHER_KEY_BYTES];
} CipherUse;

/*
 * Kept for the session: making one costs more than what it does.  It has its key until another
 * one is used, or to the end of the transaction, as events of one person often come in a row.
 */
static EVP_CIPHER_CTX *cipher = NULL;
static CipherUse *use = NULL;	/* in memory for keys */

/* Wipes the key. */
static void
forget_cipher(void)
{
	EVP_CIPHER_CTX_free(cipher);
	cipher = NULL;
	if (use != NULL)
		OPENSSL_cleanse(use, sizeof(CipherUse));
}

/* Raises that OpenSSL has failed.  Its reason tells nothing of keys and texts. */
static void
fail_cipher(const char *what)
{
	unsigned long code = ERR_get_error();

	forget_cipher();
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("could not %s", what),
			 errdetail("OpenSSL says: %s.",
					   code == 0 ? "no reason" : ERR_reason_error_string(code))));
}

/* Puts another key in the place of the one that was used, at the end of a transaction. */
static void
wipe_key(XactEvent event, void *arg)
{
	static const uint8 none[CIPHER_KEY_BYTES] = {0};

	if (use == NULL || !use->set)
		return;
	OPENSSL_cleanse(use, sizeof(CipherUse));
	if (EVP_CipherInit_ex(cipher, NULL, NULL, none, NULL, -1) != 1)
		forget_cipher();
}

/* Returns the cipher, set up for the key and the nonce. */
static EVP_CIPHER_CTX *
begin_cipher(const uint8 *key, const uint8 *nonce, bool seals)
{
	const char *what = seals ? "encrypt" : "decrypt";
	bool		again;

	if (use == NULL)
	{
		use = key_memory_alloc(sizeof(CipherUse));
		RegisterXactCallback(wipe_key, NULL);
	}
	if (cipher == NULL)
	{
		cipher = EVP_CIPHER_CTX_new();
		if (cipher == NULL ||
			EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, NULL, NULL, 1) != 1)
			fail_cipher("make a cipher");
	}
	again = use->set && use->seals == seals && memcmp(use->key, key, CIPHER_KEY_BYTES) == 0;
	use->set = false;
	if (EVP_CipherInit_ex(cipher, NULL, NULL, again ? NULL : key, nonce, seals ? 1 : 0) != 1)
		fail_cipher(what);
	use->set = true;
	use->seals = seals;
	memcpy(use->key, key, CIPHER_KEY_BYTES);
	return cipher;
}

void
cipher_random(uint8 *bytes, int length)
{
	if (!pg_strong_random(bytes, length))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not get random bytes"),
				 errdetail("The system or OpenSSL has none.")));
}

void
cipher_seal(const uint8 *key, CipherText known, CipherText plain, uint8 *sealed)
{
	uint8	   *body = sealed + CIPHER_NONCE_BYTES;
	EVP_CIPHER_CTX *c;
	int			length;
	int			rest;

	cipher_random(sealed, CIPHER_NONCE_BYTES);
	c = begin_cipher(key, sealed, true);
	if (EVP_EncryptUpdate(c, NULL, &length, known.bytes, known.length) != 1 ||
		EVP_EncryptUpdate(c, body, &length, plain.bytes, plain.length) != 1 ||
		EVP_EncryptFinal_ex(c, body + length, &rest) != 1 ||
		EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, CIPHER_TAG_BYTES, body + plain.length) != 1)
		fail_cipher("encrypt");
}

bool
cipher_open(const uint8 *key, CipherText known, CipherText sealed, uint8 *plain)
{
	EVP_CIPHER_CTX *c;
	int			length = sealed.length - CIPHER_MORE_BYTES;
	const uint8 *body = sealed.bytes + CIPHER_NONCE_BYTES;
	int			done = 0;
	int			rest = 0;
	bool		opened;

	if (length < 0)
		return false;
	c = begin_cipher(key, sealed.bytes, false);
	if (EVP_DecryptUpdate(c, NULL, &done, known.bytes, known.length) != 1 ||
		EVP_DecryptUpdate(c, plain, &done, body, length) != 1 ||
		EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, CIPHER_TAG_BYTES,
							unconstify(uint8 *, body + length)) != 1)
		fail_cipher("decrypt");
	opened = EVP_DecryptFinal_ex(c, plain + done, &rest) == 1;
	if (!opened)
	{
		ERR_clear_error();
		OPENSSL_cleanse(plain, length);
	}
	return opened;
}

void
cipher_hash(const uint8 *key, CipherText text, uint8 *hash)
{
	unsigned int length = CIPHER_KEY_BYTES;

	if (HMAC(EVP_sha256(), key, CIPHER_KEY_BYTES, text.bytes, text.length, hash, &length) == NULL)
		fail_cipher("hash");
}
