/*-------------------------------------------------------------------------
 *
 * auth.h
 *		Tokens, keys and roles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include <stdbool.h>

#include "request.h"

typedef struct AuthRefusal
{
	unsigned	status;			/* 401; 400 for two tokens; 403 for a role that is not allowed */
	const char *detail;
	const char *challenge;		/* WWW-Authenticate */
} AuthRefusal;

/* Reads key and token files; on SIGHUP again, where a failure keeps the old ones.  Says what is wrong in the log. */
extern bool auth_load(void);
extern void auth_free(void);

/* Finds the role of a request, from its header Authorization; returns false with the refusal. */
extern bool auth_authorize(const Request *request, Identity *identity, AuthRefusal *refusal);

/* After auth_load: a request whose token is no longer good, or has another role now, is marked as expired. */
extern void auth_recheck(Request *request);

#endif							/* GATEWAY_AUTH_H */
