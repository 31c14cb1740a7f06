/*-------------------------------------------------------------------------
 *
 * jwt.h
 *		Verifying JSON web tokens.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_JWT_H
#define GATEWAY_JWT_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include <jansson.h>

#include "key.h"

typedef enum JwtVerdict
{
	JWT_VALID,
	JWT_EXPIRED,				/* its signature is good, and its time is over */
	JWT_INVALID
} JwtVerdict;

/* What the claims of a token must be. */
typedef struct JwtRules
{
	const char *issuer;			/* NULL or empty: any */
	const char *audience;		/* NULL or empty: any */
	int			leeway;			/* seconds that clocks may differ */
	bool		require_exp;	/* a token without an end is refused */
} JwtRules;

/* Returns the claims of a token whose signature is good, or NULL.  The caller frees them by json_decref. */
extern json_t *jwt_claims(const char *token, size_t length, const Key *keys);

/*
 * Checks the registered claims at a time.  expires becomes the second at which
 * the token ends, leeway included, and 0 if it never does.
 */
extern JwtVerdict jwt_check(const json_t *claims, const JwtRules *rules, time_t now, time_t *expires);

#endif							/* GATEWAY_JWT_H */
