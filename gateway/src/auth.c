/*-------------------------------------------------------------------------
 *
 * auth.c
 *		Tokens, keys and roles.
 *
 * A request has its token in the header Authorization, as RFC 6750 says.  The token
 * is looked for in the file of tokens first, and is otherwise a JSON web token.
 * A request without a token has the role anonymous_role, if that is set.  A request
 * with a token that is not valid has no role, whatever anonymous_role is.
 *
 * The client learns that a token has expired, so that it gets another one, and
 * nothing else about what is wrong with it.
 *
 * A signature of ES256 takes as long as the rest of a request here.  So the roles of JSON web
 * tokens that were verified are kept by the tokens' digests, until the tokens end or
 * keys are read again.  There is a place for each of some last digits of the digest, so
 * the memory is bounded, and a client that sends other tokens gains nothing.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "auth.h"
#include "claim_role.h"
#include "config.h"
#include "jwt.h"
#include "key.h"
#include "log.h"
#include "secret_file.h"
#include "token.h"

#define MAX_AUTHORIZATION	8192
#define VERIFIED_PLACES		1024	/* a power of two */

typedef struct VerifiedToken
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	Identity	identity;		/* without a role: the place is free */
} VerifiedToken;

static Key *auth_keys;
static TokenList auth_tokens;
static ClaimRoles auth_roles;
static VerifiedToken verified[VERIFIED_PLACES];

static const AuthRefusal no_token = {
	401, "The request needs a token.", "Bearer realm=\"eventstore\""
};
static const AuthRefusal two_tokens = {
	400, "The request has more than one header Authorization.",
	"Bearer realm=\"eventstore\", error=\"invalid_request\""
};
static const AuthRefusal expired_token = {
	401, "The token has expired.",
	"Bearer realm=\"eventstore\", error=\"invalid_token\", error_description=\"The token has expired\""
};
static const AuthRefusal invalid_token = {
	401, "The token is not valid.",
	"Bearer realm=\"eventstore\", error=\"invalid_token\", error_description=\"The token is not valid\""
};
static const AuthRefusal no_role = {
	403, "The token names no role that is allowed here.",
	"Bearer realm=\"eventstore\", error=\"insufficient_scope\""
};

static bool
is_set(const char *setting)
{
	return setting != NULL && *setting != '\0';
}

/* Says what is wrong with the file or list of a setting. */
static bool
auth_complain(const char *setting, const char *fault)
{
	log_line(LOG_LEVEL_ERROR, "unusable_setting", LOG_TEXT("setting", setting), LOG_TEXT("message", fault));
	return false;
}

/* A role of the file that no request could have is a mistake better found at the start. */
static bool
token_roles_suit(const TokenList *tokens)
{
	for (size_t i = 0; i < tokens->count; i++)
	{
		if (!role_name_suits(tokens->tokens[i].role))
			return auth_complain("token_file", "a line has a role that cannot be set");
	}
	return true;
}

bool
auth_load(void)
{
	Key		   *keys = NULL;
	TokenList	tokens = {0};
	ClaimRoles	roles = {0};
	char		fault[FAULT_SIZE] = "";

	if (is_set(config.anonymous_role) && !role_name_suits(config.anonymous_role))
		return auth_complain("anonymous_role", "it is not a role that can be set");
	if (!claim_roles_read(config.roles, &roles, fault))
		return auth_complain("roles", fault);
	if (is_set(config.jwt_keys) && !keys_read(config.jwt_keys, &keys, fault))
		auth_complain("jwt_keys", fault);
	else if (is_set(config.token_file) && !tokens_read(config.token_file, &tokens, fault))
		auth_complain("token_file", fault);
	else if (token_roles_suit(&tokens))
	{
		auth_free();
		auth_keys = keys;
		auth_tokens = tokens;
		auth_roles = roles;
		return true;
	}
	claim_roles_free(&roles);
	keys_free(keys);
	tokens_free(&tokens);
	return false;
}

void
auth_free(void)
{
	keys_free(auth_keys);
	auth_keys = NULL;
	tokens_free(&auth_tokens);
	claim_roles_free(&auth_roles);
	OPENSSL_cleanse(verified, sizeof(verified));
}

static bool
auth_refuse(AuthRefusal *refusal, const AuthRefusal *reason)
{
	*refusal = *reason;
	return false;
}

static bool
auth_identify(Identity *identity, const char *role, time_t expires)
{
	strncpy(identity->role, role, ROLE_SIZE - 1);
	identity->role[ROLE_SIZE - 1] = '\0';
	identity->expires = expires;
	return true;
}

static VerifiedToken *
verified_place(const unsigned char *digest)
{
	return &verified[(digest[0] << 8 | digest[1]) & (VERIFIED_PLACES - 1)];
}

static bool
jwt_authorize(const char *token, size_t length, const unsigned char *digest, Identity *identity, AuthRefusal *refusal)
{
	const JwtRules rules = {config.jwt_issuer, config.jwt_audience, (int) config.jwt_leeway, config.jwt_require_exp};
	json_t	   *claims = jwt_claims(token, length, auth_keys);
	VerifiedToken *place = verified_place(digest);
	const AuthRefusal *reason = NULL;
	JwtVerdict	verdict;
	const char *role;
	time_t		expires;

	if (claims == NULL)
		return auth_refuse(refusal, &invalid_token);
	verdict = jwt_check(claims, &rules, time(NULL), &expires);
	role = claim_role(&auth_roles, claim_find(claims, config.role_claim));
	if (verdict != JWT_VALID)
		reason = verdict == JWT_EXPIRED ? &expired_token : &invalid_token;
	else if (role == NULL)
		reason = &no_role;
	else
	{
		auth_identify(identity, role, expires);
		memcpy(place->digest, digest, sizeof(place->digest));
		place->identity = *identity;
	}
	json_decref(claims);
	return reason == NULL || auth_refuse(refusal, reason);
}

static bool
token_authorize(const char *token, size_t length, Identity *identity, AuthRefusal *refusal)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	const VerifiedToken *place;
	const char *role;

	if (length > MAX_AUTHORIZATION || !token_is_wellformed(token, length))
		return auth_refuse(refusal, &invalid_token);
	SHA256((const unsigned char *) token, length, digest);
	role = token_role(&auth_tokens, digest);
	if (role != NULL)
		return auth_identify(identity, role, 0);
	place = verified_place(digest);
	if (place->identity.role[0] == '\0' || CRYPTO_memcmp(place->digest, digest, sizeof(digest)) != 0)
		return jwt_authorize(token, length, digest, identity, refusal);
	if (place->identity.expires != 0 && time(NULL) >= place->identity.expires)
		return auth_refuse(refusal, &expired_token);
	*identity = place->identity;
	return true;
}

/* The value of the header is NULL if there is none. */
static bool
auth_authorize_header(const char *header, Identity *identity, AuthRefusal *refusal)
{
	const char *token;
	size_t		length;

	memset(identity, 0, sizeof(*identity));
	if (header == NULL && is_set(config.anonymous_role))
		return auth_identify(identity, config.anonymous_role, 0);
	if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0)
		return auth_refuse(refusal, &no_token);
	token = header + 7 + strspn(header + 7, " ");
	length = strlen(token);
	while (length > 0 && (token[length - 1] == ' ' || token[length - 1] == '\t'))
		length--;
	return token_authorize(token, length, identity, refusal);
}

typedef struct AuthorizationHeaders
{
	const char *value;
	int			count;
} AuthorizationHeaders;

static enum MHD_Result
authorization_seen(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	AuthorizationHeaders *headers = arg;

	(void) kind;
	if (strcasecmp(name, "Authorization") == 0)
	{
		headers->value = value ? value : "";
		headers->count++;
	}
	return MHD_YES;
}

bool
auth_authorize(const Request *request, Identity *identity, AuthRefusal *refusal)
{
	AuthorizationHeaders headers = {NULL, 0};

	MHD_get_connection_values(request->connection, MHD_HEADER_KIND, authorization_seen, &headers);
	if (headers.count > 1)
	{
		memset(identity, 0, sizeof(*identity));
		return auth_refuse(refusal, &two_tokens);
	}
	return auth_authorize_header(headers.value, identity, refusal);
}

/* What has begun is not undone: it is event streams that look at the end of their tokens. */
void
auth_recheck(Request *request)
{
	Identity	identity;
	AuthRefusal refusal;

	if (request->identity.role[0] == '\0' || request->route == NULL || request->route->flags & ROUTE_PUBLIC)
		return;
	if (!auth_authorize(request, &identity, &refusal) || strcmp(identity.role, request->identity.role) != 0)
		request->identity.expires = 1;
}
