/*-------------------------------------------------------------------------
 *
 * role.h
 *		Roles that own something, and running as another role.
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

/* Returns true if the role has SELECT on the table, and no row security hides rows from it. */
extern bool role_may_read_all(Oid table, Oid role);

/* run_as.c */

/* The role that ran before, and what must be restored. */
typedef struct RunAs
{
	Oid			userid;
	int			security;
	int			guc_level;
} RunAs;

/*
 * Becomes the user, with this search_path, until run_as_end.  restricted: a user
 * that may not act as the caller is also kept from leaving anything behind in the
 * session.
 */
extern RunAs run_as(Oid userid, bool restricted, const char *search_path);
extern void run_as_end(RunAs saved);

extern Oid	run_as_owner(Oid relid);

/* Refuses a role without the rights of the owner of es_events.  what: as in "restore". */
extern void run_as_check_owner(Oid log, const char *what);

/* Stands for the extension's schema, whatever its name is. */
#define SCHEMA_MARK "@extschema@"

/* The session's search_path without pg_temp, to be kept; and that as it is to be used. */
extern char *run_as_session_path(Oid log);
extern char *run_as_kept_path(Oid log, const char *kept);

/*
 * For an error context callback: says which schema of a path that was kept does not
 * exist, if that may be why a name was not found.
 */
extern void run_as_path_context(Oid log, const char *kept);

/* own_sql.c */

/*
 * Runs a statement as own_sql_run does.  It sees all rows, also where the owner has forced
 * row security on itself.  latest: with a new snapshot.
 */
extern uint64 own_sql_run_on_all_rows(Oid log, const char *sql, int nargs, Oid *types,
									  Datum *values, const char *nulls, bool latest);

/* The same of one without parameters. */
extern uint64 own_sql_on_all_rows(Oid log, const char *sql, bool latest);

#endif							/* EVENTSTORE_ROLE_H */
