/*-------------------------------------------------------------------------
 *
 * key.c
 *		Keys by which JSON web tokens are verified.
 *
 * A list of keys has a line for each:
 *
 *		ALGORITHM KID FILE
 *
 * ALGORITHM is HS256, RS256, ES256, or JWKS for a JSON web key set.  KID is the
 * key's id, or - where tokens have none.  FILE is relative to the list's folder.
 * Lines that begin with # and empty lines say nothing.
 *
 * A key belongs to one algorithm, and a token is verified only by keys of the
 * algorithm that it names.  So a public key is never the secret of an HMAC, which
 * is how tokens were forged elsewhere.  For the same reason a secret must not look
 * like a key in PEM.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "key.h"
#include "secret_file.h"
#include "text.h"

/* RFC 7518, 3.2 and 3.3 */
#define MIN_SECRET_LENGTH	32
#define MIN_RSA_BITS		2048

bool
key_algorithm(const char *name, KeyAlgorithm *algorithm)
{
	if (strcmp(name, "HS256") == 0)
		*algorithm = KEY_HS256;
	else if (strcmp(name, "RS256") == 0)
		*algorithm = KEY_RS256;
	else if (strcmp(name, "ES256") == 0)
		*algorithm = KEY_ES256;
	else
		return false;
	return true;
}

static void
key_free(Key *key)
{
	if (key == NULL)
		return;
	if (key->secret != NULL)
		OPENSSL_cleanse(key->secret, key->secret_length);
	free(key->secret);
	EVP_PKEY_free(key->pkey);
	free(key->kid);
	free(key);
}

void
keys_free(Key *keys)
{
	while (keys != NULL)
	{
		Key		   *next = keys->next;

		key_free(keys);
		keys = next;
	}
}

static Key *
key_make(KeyAlgorithm algorithm, const char *kid, const char *path, char *fault)
{
	Key		   *key = calloc(1, sizeof(Key));

	if (key != NULL)
	{
		key->algorithm = algorithm;
		if (kid == NULL || (key->kid = strdup(kid)) != NULL)
			return key;
	}
	key_free(key);
	snprintf(fault, FAULT_SIZE, "out of memory for the key \"%s\"", path);
	return NULL;
}

static bool
pkey_suits(KeyAlgorithm algorithm, EVP_PKEY *pkey, const char *path, char *fault)
{
	char		curve[64] = "";

	if (algorithm == KEY_RS256)
	{
		if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA)
			snprintf(fault, FAULT_SIZE, "the key in \"%s\" is not an RSA key, which RS256 needs", path);
		else if (EVP_PKEY_get_bits(pkey) < MIN_RSA_BITS)
			snprintf(fault, FAULT_SIZE, "the RSA key in \"%s\" has %d bits, and %d are needed", path,
					 EVP_PKEY_get_bits(pkey), MIN_RSA_BITS);
		else
			return true;
		return false;
	}
	if (EVP_PKEY_get_base_id(pkey) == EVP_PKEY_EC
		&& EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve), NULL) == 1
		&& strcmp(curve, "prime256v1") == 0)
		return true;
	snprintf(fault, FAULT_SIZE, "the key in \"%s\" is not a key of the curve P-256, which ES256 needs", path);
	return false;
}

Key *
key_of_pkey(KeyAlgorithm algorithm, const char *kid, EVP_PKEY *pkey, const char *path, char *fault)
{
	Key		   *key = NULL;

	if (pkey_suits(algorithm, pkey, path, fault))
		key = key_make(algorithm, kid, path, fault);
	if (key == NULL)
		EVP_PKEY_free(pkey);
	else
		key->pkey = pkey;
	return key;
}

Key *
key_of_secret(const char *kid, const unsigned char *secret, size_t length, const char *path, char *fault)
{
	Key		   *key;

	if (length < MIN_SECRET_LENGTH)
	{
		snprintf(fault, FAULT_SIZE, "the secret in \"%s\" has %zu bytes, and HS256 needs %d", path, length,
				 MIN_SECRET_LENGTH);
		return NULL;
	}
	key = key_make(KEY_HS256, kid, path, fault);
	if (key == NULL)
		return NULL;
	key->secret = malloc(length);
	if (key->secret == NULL)
	{
		key_free(key);
		snprintf(fault, FAULT_SIZE, "out of memory for the key \"%s\"", path);
		return NULL;
	}
	memcpy(key->secret, secret, length);
	key->secret_length = length;
	return key;
}

/* The public key of a PEM text, or of the certificate in it; NULL without one. */
static EVP_PKEY *
pem_public_key(const char *bytes, size_t length)
{
	BIO		   *text = BIO_new_mem_buf(bytes, (int) length);
	EVP_PKEY   *pkey = NULL;

	if (text != NULL && strstr(bytes, "-----BEGIN CERTIFICATE-----") != NULL)
	{
		X509	   *certificate = PEM_read_bio_X509(text, NULL, NULL, NULL);

		if (certificate != NULL)
			pkey = X509_get_pubkey(certificate);
		X509_free(certificate);
	}
	else if (text != NULL)
		pkey = PEM_read_bio_PUBKEY(text, NULL, NULL, NULL);
	BIO_free(text);
	return pkey;
}

/* An editor ends the last line, and nobody means that to belong to the secret. */
static size_t
without_line_end(const char *bytes, size_t length)
{
	if (length > 0 && bytes[length - 1] == '\n')
		length--;
	if (length > 0 && bytes[length - 1] == '\r')
		length--;
	return length;
}

Key *
key_of_bytes(KeyAlgorithm algorithm, const char *kid, const char *bytes, size_t length, const char *path, char *fault)
{
	bool		is_pem = strstr(bytes, "-----BEGIN ") != NULL;
	EVP_PKEY   *pkey;

	if (algorithm == KEY_HS256 && !is_pem)
		return key_of_secret(kid, (const unsigned char *) bytes, without_line_end(bytes, length), path, fault);
	if (algorithm == KEY_HS256)
	{
		snprintf(fault, FAULT_SIZE, "\"%s\" is a key or certificate in PEM, which is no secret for HS256", path);
		return NULL;
	}
	pkey = pem_public_key(bytes, length);
	if (pkey == NULL)
	{
		snprintf(fault, FAULT_SIZE, "\"%s\" has no public key or certificate in PEM", path);
		return NULL;
	}
	return key_of_pkey(algorithm, kid, pkey, path, fault);
}

/* Where a file of the list is: beside the list, unless its path is absolute. */
static char *
beside_list(const char *list, const char *file)
{
	const char *slash = strrchr(list, '/');
	size_t		folder = *file == '/' || slash == NULL ? 0 : (size_t) (slash - list) + 1;
	char	   *path = malloc(folder + strlen(file) + 1);

	if (path != NULL)
	{
		memcpy(path, list, folder);
		strcpy(path + folder, file);
	}
	return path;
}

/* A set that has a secret must be a file that few may read, as any secret. */
static bool
jwks_file_read(const char *bytes, size_t length, const char *path, Key **keys, char *fault)
{
	bool		has_secret = false;
	size_t		again_length;
	char	   *again;

	if (!jwks_read(bytes, length, path, keys, fault))
		return false;
	for (const Key *key = *keys; key != NULL; key = key->next)
		has_secret |= key->secret != NULL;
	if (!has_secret)
		return true;
	again = secret_file_read(path, true, &again_length, fault);
	if (again != NULL)
	{
		secret_file_free(again, again_length);
		return true;
	}
	keys_free(*keys);
	*keys = NULL;
	return false;
}

static void
keys_put_before(Key *more, Key **keys)
{
	while (more != NULL)
	{
		Key		   *next = more->next;

		more->next = *keys;
		*keys = more;
		more = next;
	}
}

/* Reads the keys of one file, and puts them before the others. */
static bool
key_file_read(const char *algorithm_name, const char *kid, const char *path, Key **keys, char *fault)
{
	KeyAlgorithm algorithm = KEY_HS256;
	bool		is_set = strcmp(algorithm_name, "JWKS") == 0;
	bool		done;
	Key		   *more = NULL;
	size_t		length;
	char	   *bytes;

	if (!is_set && !key_algorithm(algorithm_name, &algorithm))
	{
		snprintf(fault, FAULT_SIZE, "\"%s\" is not HS256, RS256, ES256 or JWKS", algorithm_name);
		return false;
	}
	bytes = secret_file_read(path, !is_set && algorithm == KEY_HS256, &length, fault);
	if (bytes == NULL)
		return false;
	if (is_set)
		done = jwks_file_read(bytes, length, path, &more, fault);
	else
	{
		more = key_of_bytes(algorithm, strcmp(kid, "-") == 0 ? NULL : kid, bytes, length, path, fault);
		done = more != NULL;
	}
	secret_file_free(bytes, length);
	keys_put_before(more, keys);
	return done;
}

static bool
key_line_read(char *line, const char *list, Key **keys, char *fault)
{
	char	   *algorithm = text_take_word(&line);
	char	   *kid = text_take_word(&line);
	char	   *file = text_take_word(&line);
	char	   *path;
	bool		done;

	if (algorithm == NULL || kid == NULL || file == NULL || text_take_word(&line) != NULL)
	{
		snprintf(fault, FAULT_SIZE, "a line has the words ALGORITHM KID FILE");
		return false;
	}
	path = beside_list(list, file);
	if (path == NULL)
	{
		snprintf(fault, FAULT_SIZE, "out of memory");
		return false;
	}
	done = key_file_read(algorithm, kid, path, keys, fault);
	free(path);
	return done;
}

bool
keys_read(const char *path, Key **keys, char *fault)
{
	size_t		length;
	char	   *bytes = secret_file_read(path, false, &length, fault);
	char	   *rest = bytes;
	char	   *line;
	char		reason[FAULT_SIZE];
	int			number = 0;

	*keys = NULL;
	if (bytes == NULL)
		return false;
	while ((line = text_take_line(&rest)) != NULL)
	{
		number++;
		if (*line == '\0' || *line == '#' || key_line_read(line, path, keys, reason))
			continue;
		snprintf(fault, FAULT_SIZE, "line %d of \"%.100s\": %.380s", number, path, reason);
		keys_free(*keys);
		*keys = NULL;
		secret_file_free(bytes, length);
		return false;
	}
	secret_file_free(bytes, length);
	return true;
}
