/*-------------------------------------------------------------------------
 *
 * role.h
 *		Roles that own something, and what they keep of a session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_ROLE_H
#define EVENTSTORE_ROLE_H

#include "c.h"

/* role.c */

/* A role, as a column of the type es_role has it. */
typedef struct Role
{
	Oid			oid;			/* 0: there was no role of the name */
	NameData	name;			/* that it had when it was stored */
} Role;

/* Returns the role's oid; 0 if it does not exist (any more). */
extern Oid	role_find(const Role *role);

/* Returns what the type prints: the role's present name, or "name (dropped)". */
extern char *role_name(const Role *role);

/*
 * For the error that a role does not exist: says why, and what to do.  otherwise: a
 * clause, such as "drop the projection".
 */
extern char *role_missing_detail(const Role *role);
extern char *role_missing_hint(const Role *role, const char *otherwise);

#endif							/* EVENTSTORE_ROLE_H */
