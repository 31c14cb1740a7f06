/*-------------------------------------------------------------------------
 *
 * jwt.c
 *		Verifying JSON web tokens (RFC 7519) in compact form (RFC 7515).
 *
 * The header says by which key: "alg" must be the algorithm of a key of ours, and
 * "kid", if there is one, that key's id.  Nothing else of the header is believed: keys
 * in it ("jwk", "jku", "x5c") are not looked at, and a token with "crit" is refused,
 * since nothing critical is understood here.  The claims are parsed only
 * after the signature was found good.
 *
 * This is done by OpenSSL and jansson.  libjwt, which does the same, parses a
 * key's PEM text anew for each token, and leaves the comparison of the algorithm with
 * that of the key to its caller.
 *
 *-------------------------------------------------------------------------
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base64url.h"
#include "jwt.h"

#define ES256_SIGNATURE 64
#define ES256_DER_MAX	80

/* The three parts of a token, as they stand in it. */
typedef struct JwtParts
{
	const char *text;			/* header and payload, with the point between them */
	size_t		text_length;
	size_t		header_length;
	const char *signature;
	size_t		signature_length;
} JwtParts;

static bool
jwt_split(const char *token, size_t length, JwtParts *parts)
{
	const char *first = memchr(token, '.', length);
	const char *second = first ? memchr(first + 1, '.', length - (size_t) (first + 1 - token)) : NULL;

	if (second == NULL || memchr(second + 1, '.', length - (size_t) (second + 1 - token)) != NULL)
		return false;
	parts->text = token;
	parts->text_length = (size_t) (second - token);
	parts->header_length = (size_t) (first - token);
	parts->signature = second + 1;
	parts->signature_length = length - parts->text_length - 1;
	return true;
}

/* The JSON object in a part, or NULL. */
static json_t *
jwt_part_object(const char *part, size_t length)
{
	unsigned char *bytes = malloc(BASE64URL_BYTES(length));
	size_t		bytes_length;
	json_error_t error;
	json_t	   *object = NULL;

	if (bytes != NULL && base64url_decode(part, length, bytes, &bytes_length))
		object = json_loadb((char *) bytes, bytes_length, JSON_REJECT_DUPLICATES, &error);
	free(bytes);
	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}

static bool
hmac_is_good(const Key *key, const JwtParts *parts, const unsigned char *signature, size_t length)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];

	if (length != sizeof(digest)
		|| HMAC(EVP_sha256(), key->secret, (int) key->secret_length, (const unsigned char *) parts->text,
				parts->text_length, digest, NULL) == NULL)
		return false;
	return CRYPTO_memcmp(digest, signature, sizeof(digest)) == 0;
}

static bool
pkey_signature_is_good(const Key *key, const JwtParts *parts, const unsigned char *signature, size_t length)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		good;

	good = context != NULL
		&& EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key->pkey) == 1
		&& EVP_DigestVerify(context, signature, length, (const unsigned char *) parts->text, parts->text_length) == 1;
	EVP_MD_CTX_free(context);
	return good;
}

/* A token has the two numbers of the signature one after the other, and OpenSSL wants them in DER. */
static bool
ecdsa_is_good(const Key *key, const JwtParts *parts, const unsigned char *signature, size_t length)
{
	unsigned char der[ES256_DER_MAX];
	unsigned char *end = der;
	ECDSA_SIG  *pair;
	BIGNUM	   *r;
	BIGNUM	   *s;
	int			der_length = 0;

	if (length != ES256_SIGNATURE || (pair = ECDSA_SIG_new()) == NULL)
		return false;
	r = BN_bin2bn(signature, ES256_SIGNATURE / 2, NULL);
	s = BN_bin2bn(signature + ES256_SIGNATURE / 2, ES256_SIGNATURE / 2, NULL);
	if (r != NULL && s != NULL && ECDSA_SIG_set0(pair, r, s) == 1)
	{
		if (i2d_ECDSA_SIG(pair, NULL) <= ES256_DER_MAX)
			der_length = i2d_ECDSA_SIG(pair, &end);
	}
	else
	{
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(pair);
	return der_length > 0 && pkey_signature_is_good(key, parts, der, (size_t) der_length);
}

static bool
signature_is_good(const Key *key, const JwtParts *parts, const unsigned char *signature, size_t length)
{
	switch (key->algorithm)
	{
		case KEY_HS256:
			return hmac_is_good(key, parts, signature, length);
		case KEY_RS256:
			return pkey_signature_is_good(key, parts, signature, length);
		case KEY_ES256:
			return ecdsa_is_good(key, parts, signature, length);
	}
	return false;
}

/* Returns true if a key of the header's algorithm and id has made the signature. */
static bool
jwt_signed_by_one(const json_t *header, const JwtParts *parts, const unsigned char *signature, size_t length,
				  const Key *keys)
{
	const char *name = json_string_value(json_object_get(header, "alg"));
	const json_t *kid = json_object_get(header, "kid");
	KeyAlgorithm algorithm;

	if (name == NULL || !key_algorithm(name, &algorithm) || json_object_get(header, "crit") != NULL
		|| (kid != NULL && !json_is_string(kid)))
		return false;
	for (const Key *key = keys; key != NULL; key = key->next)
	{
		if (key->algorithm == algorithm
			&& (kid == NULL || key->kid == NULL || strcmp(key->kid, json_string_value(kid)) == 0)
			&& signature_is_good(key, parts, signature, length))
			return true;
	}
	return false;
}

json_t *
jwt_claims(const char *token, size_t length, const Key *keys)
{
	JwtParts	parts;
	unsigned char *signature;
	size_t		signature_length;
	json_t	   *header;
	json_t	   *claims = NULL;

	if (!jwt_split(token, length, &parts))
		return NULL;
	header = jwt_part_object(token, parts.header_length);
	signature = malloc(BASE64URL_BYTES(parts.signature_length));
	if (header != NULL && signature != NULL
		&& base64url_decode(parts.signature, parts.signature_length, signature, &signature_length)
		&& jwt_signed_by_one(header, &parts, signature, signature_length, keys))
		claims = jwt_part_object(parts.text + parts.header_length + 1, parts.text_length - parts.header_length - 1);
	json_decref(header);
	free(signature);
	return claims;
}

/*
 * Reads a claim that is a time.  Returns true if it is a sound one or absent, when
 * seconds is left alone.  A time may have a fraction.
 */
static bool
jwt_time(const json_t *claims, const char *name, double *seconds)
{
	const json_t *value = json_object_get(claims, name);

	if (value == NULL)
		return true;
	if (!json_is_number(value))
		return false;
	*seconds = json_number_value(value);
	return isfinite(*seconds) && fabs(*seconds) < 1e15;
}

static bool
issuer_suits(const json_t *claims, const char *issuer)
{
	const char *iss = json_string_value(json_object_get(claims, "iss"));

	return issuer == NULL || *issuer == '\0' || (iss != NULL && strcmp(iss, issuer) == 0);
}

static bool
audience_suits(const json_t *claims, const char *audience)
{
	const json_t *aud = json_object_get(claims, "aud");
	const json_t *one;
	size_t		i;

	if (audience == NULL || *audience == '\0')
		return true;
	if (json_is_string(aud))
		return strcmp(json_string_value(aud), audience) == 0;
	json_array_foreach(aud, i, one)
	{
		if (json_is_string(one) && strcmp(json_string_value(one), audience) == 0)
			return true;
	}
	return false;
}

JwtVerdict
jwt_check(const json_t *claims, const JwtRules *rules, time_t now, time_t *expires)
{
	double		exp = 0;
	double		nbf = 0;
	double		end;

	*expires = 0;
	if (!jwt_time(claims, "exp", &exp) || !jwt_time(claims, "nbf", &nbf)
		|| !issuer_suits(claims, rules->issuer) || !audience_suits(claims, rules->audience))
		return JWT_INVALID;
	if (json_object_get(claims, "exp") == NULL)
	{
		if (rules->require_exp)
			return JWT_INVALID;
	}
	else
	{
		end = exp + rules->leeway;
		if ((double) now >= end)
			return JWT_EXPIRED;
		*expires = (time_t) end + ((double) (time_t) end < end);
	}
	return (double) now + rules->leeway < nbf ? JWT_INVALID : JWT_VALID;
}
