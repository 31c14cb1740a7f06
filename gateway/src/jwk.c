/*-------------------------------------------------------------------------
 *
 * jwk.c
 *		JSON web key sets (RFC 7517), as identity providers publish them.
 *
 * A key's algorithm is its member "alg", or follows from its type: RSA keys are
 * for RS256, EC keys for ES256.  A key of type "oct" must name HS256.  Keys for
 * encryption and keys of other algorithms are passed over, since providers publish
 * them in the same set.  A key of ours that is not well formed is a fault.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/param_build.h>

#include "base64url.h"
#include "key.h"
#include "secret_file.h"

#define P256_BYTES 32

/* The bytes of a member that is base64url; NULL if it is none.  The caller frees them. */
static unsigned char *
jwk_bytes(const json_t *jwk, const char *member, size_t *length)
{
	const json_t *value = json_object_get(jwk, member);
	unsigned char *bytes;

	if (!json_is_string(value))
		return NULL;
	bytes = malloc(BASE64URL_BYTES(json_string_length(value)));
	if (bytes != NULL && !base64url_decode(json_string_value(value), json_string_length(value), bytes, length))
	{
		free(bytes);
		bytes = NULL;
	}
	return bytes;
}

static EVP_PKEY *
pkey_of_params(const char *type, OSSL_PARAM_BLD *builder)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY   *pkey = NULL;

	if (params != NULL && context != NULL && EVP_PKEY_fromdata_init(context) == 1
		&& EVP_PKEY_fromdata(context, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
		pkey = NULL;
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_free(params);
	return pkey;
}

static EVP_PKEY *
jwk_rsa(const json_t *jwk)
{
	size_t		n_length = 0;
	size_t		e_length = 0;
	unsigned char *n_bytes = jwk_bytes(jwk, "n", &n_length);
	unsigned char *e_bytes = jwk_bytes(jwk, "e", &e_length);
	BIGNUM	   *n = n_bytes ? BN_bin2bn(n_bytes, (int) n_length, NULL) : NULL;
	BIGNUM	   *e = e_bytes ? BN_bin2bn(e_bytes, (int) e_length, NULL) : NULL;
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	EVP_PKEY   *pkey = NULL;

	if (n != NULL && e != NULL && builder != NULL
		&& OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n)
		&& OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e))
		pkey = pkey_of_params("RSA", builder);
	OSSL_PARAM_BLD_free(builder);
	BN_free(n);
	BN_free(e);
	free(n_bytes);
	free(e_bytes);
	return pkey;
}

static EVP_PKEY *
jwk_ec(const json_t *jwk)
{
	unsigned char point[1 + 2 * P256_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};
	size_t		x_length = 0;
	size_t		y_length = 0;
	unsigned char *x = jwk_bytes(jwk, "x", &x_length);
	unsigned char *y = jwk_bytes(jwk, "y", &y_length);
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	EVP_PKEY   *pkey = NULL;

	if (x != NULL && y != NULL && x_length == P256_BYTES && y_length == P256_BYTES && builder != NULL)
	{
		memcpy(point + 1, x, P256_BYTES);
		memcpy(point + 1 + P256_BYTES, y, P256_BYTES);
		if (OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0)
			&& OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)))
			pkey = pkey_of_params("EC", builder);
	}
	OSSL_PARAM_BLD_free(builder);
	free(x);
	free(y);
	return pkey;
}

static Key *
jwk_secret(const json_t *jwk, const char *kid, const char *path, char *fault)
{
	size_t		length = 0;
	unsigned char *secret = jwk_bytes(jwk, "k", &length);
	Key		   *key;

	if (secret == NULL)
	{
		snprintf(fault, FAULT_SIZE, "a key in \"%s\" is not well formed", path);
		return NULL;
	}
	key = key_of_secret(kid, secret, length, path, fault);
	secret_file_free((char *) secret, length);
	return key;
}

/* Returns true if a key of a set is for signatures of an algorithm of ours. */
static bool
jwk_is_ours(const json_t *jwk, KeyAlgorithm *algorithm)
{
	const char *type = json_string_value(json_object_get(jwk, "kty"));
	const char *name = json_string_value(json_object_get(jwk, "alg"));
	const char *use = json_string_value(json_object_get(jwk, "use"));
	const char *curve = json_string_value(json_object_get(jwk, "crv"));

	if (type == NULL || (use != NULL && strcmp(use, "sig") != 0))
		return false;
	if (strcmp(type, "RSA") == 0 && (name == NULL || strcmp(name, "RS256") == 0))
		*algorithm = KEY_RS256;
	else if (strcmp(type, "EC") == 0 && (name == NULL || strcmp(name, "ES256") == 0)
			 && curve != NULL && strcmp(curve, "P-256") == 0)
		*algorithm = KEY_ES256;
	else if (strcmp(type, "oct") == 0 && name != NULL && strcmp(name, "HS256") == 0)
		*algorithm = KEY_HS256;
	else
		return false;
	return true;
}

static Key *
key_of_jwk(const json_t *jwk, KeyAlgorithm algorithm, const char *path, char *fault)
{
	const char *kid = json_string_value(json_object_get(jwk, "kid"));
	EVP_PKEY   *pkey;

	if (algorithm == KEY_HS256)
		return jwk_secret(jwk, kid, path, fault);
	pkey = algorithm == KEY_RS256 ? jwk_rsa(jwk) : jwk_ec(jwk);
	if (pkey == NULL)
	{
		snprintf(fault, FAULT_SIZE, "a key in \"%s\" is not well formed", path);
		return NULL;
	}
	return key_of_pkey(algorithm, kid, pkey, path, fault);
}

bool
jwks_read(const char *bytes, size_t length, const char *path, Key **keys, char *fault)
{
	json_error_t error;
	json_t	   *set = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &error);
	json_t	   *list = json_object_get(set, "keys");
	bool		sound = json_is_array(list);
	json_t	   *jwk;
	size_t		i;

	*keys = NULL;
	if (!sound)
		snprintf(fault, FAULT_SIZE, "\"%s\" is not a JSON web key set", path);
	json_array_foreach(list, i, jwk)
	{
		KeyAlgorithm algorithm;
		Key		   *key;

		if (!jwk_is_ours(jwk, &algorithm))
			continue;
		key = key_of_jwk(jwk, algorithm, path, fault);
		if (key == NULL)
		{
			sound = false;
			break;
		}
		key->next = *keys;
		*keys = key;
	}
	json_decref(set);
	if (!sound)
	{
		keys_free(*keys);
		*keys = NULL;
	}
	return sound;
}
