/*-------------------------------------------------------------------------
 *
 * key.h
 *		Keys by which JSON web tokens are verified.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_KEY_H
#define GATEWAY_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/evp.h>

/* The algorithms that are accepted.  There is no other, "none" included. */
typedef enum KeyAlgorithm
{
	KEY_HS256,
	KEY_RS256,
	KEY_ES256
} KeyAlgorithm;

typedef struct Key
{
	KeyAlgorithm algorithm;
	char	   *kid;			/* NULL: for tokens of any kid, or without one */
	EVP_PKEY   *pkey;			/* of RS256 and ES256: the public key */
	unsigned char *secret;		/* of HS256 */
	size_t		secret_length;
	struct Key *next;
} Key;

/* Finds the algorithm of a name as in a token's header.  Returns true if there is one. */
extern bool key_algorithm(const char *name, KeyAlgorithm *algorithm);

/*
 * Reads a list of keys.  Returns true, with NULL in keys if the list is empty,
 * or false and a sentence in fault.
 */
extern bool keys_read(const char *path, Key **keys, char *fault);

/* Frees keys, and wipes secrets. */
extern void keys_free(Key *keys);

/*
 * Makes a key of bytes, as a file of the list has them: the secret itself, or a
 * public key or certificate in PEM.  Returns NULL and a sentence in fault.
 */
extern Key *key_of_bytes(KeyAlgorithm algorithm, const char *kid, const char *bytes, size_t length,
						 const char *path, char *fault);

/* Makes a key of one that OpenSSL has made, which it takes, also if it fails. */
extern Key *key_of_pkey(KeyAlgorithm algorithm, const char *kid, EVP_PKEY *pkey, const char *path, char *fault);

/* Makes a key of a secret. */
extern Key *key_of_secret(const char *kid, const unsigned char *secret, size_t length, const char *path, char *fault);

/* Reads a JSON web key set (jwk.c).  Returns as keys_read does. */
extern bool jwks_read(const char *bytes, size_t length, const char *path, Key **keys, char *fault);

#endif							/* GATEWAY_KEY_H */
