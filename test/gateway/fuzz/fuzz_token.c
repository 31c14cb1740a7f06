/*-------------------------------------------------------------------------
 *
 * fuzz_token.c
 *		Tokens, keys and lists of roles, from bytes of libFuzzer.
 *
 * The first byte says what the others are.  A token whose signature is random is
 * refused before anything of it is looked at, so tokens are also signed here.  What must
 * hold: only a signature that was made with the key is good, and then each
 * verdict agrees with the claims.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base64url.h"
#include "claim_role.h"
#include "jwt.h"
#include "secret_file.h"
#include "token.h"

#define SECRET	"an HMAC's secret of some length, 46 bytes of it"
#define NOW		1700000000

static char fault[FAULT_SIZE];

static void
must(bool condition, const char *what)
{
	if (!condition)
	{
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

/* Appends bytes in the alphabet of base64url. */
static char *
fuzz_encode(char *to, const uint8_t *bytes, size_t length)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t	bits = 0;
	int			count = 0;

	for (size_t i = 0; i < length; i++)
	{
		bits = bits << 8 | bytes[i];
		for (count += 8; count >= 6; count -= 6)
			*to++ = letters[bits >> (count - 6) & 63];
	}
	if (count > 0)
		*to++ = letters[bits << (6 - count) & 63];
	return to;
}

/* A header and claims, with a newline between them, as a token with a good signature. */
static size_t
fuzz_sign(const uint8_t *data, size_t size, char *token)
{
	const uint8_t *newline = memchr(data, '\n', size);
	size_t		header = newline ? (size_t) (newline - data) : size;
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char	   *to = fuzz_encode(token, data, header);

	*to++ = '.';
	if (newline != NULL)
		to = fuzz_encode(to, newline + 1, size - header - 1);
	HMAC(EVP_sha256(), SECRET, strlen(SECRET), (unsigned char *) token, (size_t) (to - token), digest, NULL);
	*to++ = '.';
	return (size_t) (fuzz_encode(to, digest, sizeof(digest)) - token);
}

static void
fuzz_claims(const json_t *claims)
{
	const JwtRules rules[] = {{NULL, NULL, 0, true}, {"issuer", "audience", 60, true}, {"", "", 5, false}};
	static const char *names[] = {"role", "/realm_access/roles", "/a~1b/0", "", "/", "/~", "~0"};
	static const char *lists[] = {"", "reader, writer", "admins=operator, everybody=reader"};
	time_t		expires = 0;

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
	{
		JwtVerdict	verdict = jwt_check(claims, &rules[i], NOW, &expires);
		const json_t *exp = json_object_get(claims, "exp");

		must(verdict != JWT_VALID || !rules[i].require_exp || json_is_number(exp), "a valid token ends");
		must(verdict != JWT_VALID || expires == 0 || expires > NOW, "a valid token has not ended");
		must(verdict != JWT_VALID || i != 1
			 || strcmp(json_string_value(json_object_get(claims, "iss")), "issuer") == 0, "the issuer");
	}
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
	{
		ClaimRoles	roles = {0};

		must(claim_roles_read(lists[i], &roles, fault), lists[i]);
		for (size_t n = 0; n < sizeof(names) / sizeof(*names); n++)
		{
			const char *role = claim_role(&roles, claim_find(claims, names[n]));

			must(role == NULL || role_name_suits(role), "a role suits");
			must(role == NULL || i != 1 || strcmp(role, "reader") == 0 || strcmp(role, "writer") == 0, "a role is listed");
		}
		claim_roles_free(&roles);
	}
}

/* A token that is signed, or with one byte of it changed, or as it comes. */
static void
fuzz_token(uint8_t kind, const uint8_t *data, size_t size)
{
	static Key *key;
	char	   *token = malloc(size * 2 + 100);
	size_t		length;
	json_t	   *claims;

	if (key == NULL)
		key = key_of_secret(NULL, (const unsigned char *) SECRET, strlen(SECRET), "fuzz", fault);
	if (token == NULL || key == NULL)
		abort();
	if (kind == 0)
	{
		memcpy(token, data, size);
		length = size;
	}
	else
		length = fuzz_sign(data, size, token);
	if (kind == 2)
		token[length - 10] ^= 1;
	(void) token_is_wellformed(token, length);
	claims = jwt_claims(token, length, key);
	must(claims == NULL || kind == 1, "a signature that is not the key's");
	if (claims != NULL)
		fuzz_claims(claims);
	json_decref(claims);
	free(token);
}

static void
fuzz_text(uint8_t kind, const char *text, size_t length)
{
	Key		   *keys = NULL;
	ClaimRoles	roles = {0};
	unsigned char *bytes = malloc(BASE64URL_BYTES(length));
	char	   *again = malloc(length * 2 + 10);
	size_t		count;

	if (kind == 3)
	{
		must(jwks_read(text, length, "fuzz", &keys, fault) || keys == NULL, "no keys of a set that is refused");
		keys_free(keys);
	}
	else if (kind == 4)
	{
		for (int algorithm = KEY_HS256; algorithm <= KEY_ES256; algorithm++)
			keys_free(key_of_bytes((KeyAlgorithm) algorithm, "kid", text, length, "fuzz", fault));
	}
	else if (kind == 5)
	{
		if (claim_roles_read(text, &roles, fault))
			for (size_t i = 0; i < roles.count; i++)
				must(role_name_suits(roles.items[i].role), "a listed role suits");
		claim_roles_free(&roles);
	}
	else if (bytes != NULL && again != NULL && base64url_decode(text, length, bytes, &count))
	{
		must(fuzz_encode(again, bytes, count) == again + length && memcmp(again, text, length) == 0,
			 "base64url is as an encoder makes it");
	}
	free(bytes);
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;
	uint8_t		kind;

	if (size == 0 || size > 20000)
		return 0;
	kind = data[0] % 7;
	if (kind < 3)
		fuzz_token(kind, data + 1, size - 1);
	else if ((text = malloc(size)) != NULL)
	{
		memcpy(text, data + 1, size - 1);
		text[size - 1] = '\0';
		fuzz_text(kind, text, size - 1);
		free(text);
	}
	return 0;
}
