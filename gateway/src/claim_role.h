/*-------------------------------------------------------------------------
 *
 * claim_role.h
 *		From the claims of a token to a role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CLAIM_ROLE_H
#define GATEWAY_CLAIM_ROLE_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* A value that a claim may have, and the role that it stands for. */
typedef struct ClaimRole
{
	char	   *value;
	char	   *role;
} ClaimRole;

typedef struct ClaimRoles
{
	ClaimRole  *items;
	size_t		count;			/* 0: a claim may name any role */
} ClaimRoles;

/* Reads a list "role, value=role, ...".  Returns true, or false and a sentence in fault. */
extern bool claim_roles_read(const char *text, ClaimRoles *roles, char *fault);

/* Frees what a list holds. */
extern void claim_roles_free(ClaimRoles *roles);

/* Finds a claim by its name, or by its JSON pointer; NULL without one. */
extern const json_t *claim_find(const json_t *claims, const char *name);

/* Returns the role of a claim, or NULL if it has none that is allowed. */
extern const char *claim_role(const ClaimRoles *roles, const json_t *claim);

/* Returns true if a name can be the role of a request. */
extern bool role_name_suits(const char *name);

#endif							/* GATEWAY_CLAIM_ROLE_H */
