/*-------------------------------------------------------------------------
 *
 * privilege.c
 *		es_grant() and es_revoke(): privileges for the four kinds of users
 *		(design: doc/operate/security.md).
 *
 * The privileges that a kind needs are in the view es_privileges, and nowhere else.  The
 * statements GRANT and REVOKE run as the caller, which must have the rights of
 * the owner: with less, GRANT would grant a part and only warn.
 *
 * No record is kept of what was granted.  es_revoke revokes all privileges that the
 * kind needs, except what the role still needs for another kind that it holds:
 * a writer may also be a reader or an operator.  As a reader is a part of an
 * operator, revoking either revokes reading.  No other kind is a part of another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_grant);
PG_FUNCTION_INFO_V1(es_revoke);

/* Arguments, in their order. */
enum
{
	ARG_ROLE, ARG_KIND
};

static const char *const kinds[] = {"reader", "writer", "operator", "retention", "personal"};

/* True if the role has the privilege by a direct grant. */
#define HAS_PRIVILEGE(p) \
	"EXISTS (SELECT FROM pg_catalog.aclexplode(" p ".acl) a" \
	" WHERE a.grantee = $2 AND a.privilege_type = " p ".privilege)"

/* True if the role owns the schema: it needs no grant there. */
#define OWN_SCHEMA \
	"(p.type = 'SCHEMA' AND $2 = (SELECT n.nspowner FROM pg_catalog.pg_namespace n" \
	" WHERE pg_catalog.quote_ident(n.nspname) = p.object))"

/* Kinds that are revoked together, as one is a part of the other, are the same here. */
#define WITH_PARTS(kind) "replace(" kind ", 'operator', 'reader')"

/* $1: the kind, $2: the role. */
static const char *const what_to_grant =
"SELECT p.type, p.privilege, pg_catalog.string_agg(p.object, ', ' ORDER BY p.object)"
" FROM @extschema@.es_privileges p WHERE p.kind = $1 AND NOT " OWN_SCHEMA
" GROUP BY p.type, p.privilege ORDER BY p.type, p.privilege";

static const char *const what_to_revoke =
"SELECT p.type, p.privilege, pg_catalog.string_agg(p.object, ', ' ORDER BY p.object)"
" FROM @extschema@.es_privileges p WHERE p.kind = $1 AND NOT " OWN_SCHEMA
" AND " HAS_PRIVILEGE("p")
" AND NOT EXISTS (SELECT FROM @extschema@.es_privileges q"
" WHERE q.object = p.object AND q.type = p.type AND q.privilege = p.privilege"
" AND " WITH_PARTS("q.kind") " <> " WITH_PARTS("$1")
" AND NOT EXISTS (SELECT FROM @extschema@.es_privileges r"
" WHERE r.kind = q.kind AND NOT " HAS_PRIVILEGE("r") "))"
" GROUP BY p.type, p.privilege ORDER BY p.type, p.privilege";

/* Refuses a word that names no kind. */
static void
check_user_kind(const char *kind)
{
	int			i;

	for (i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(kind, kinds[i]) == 0)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("kind must be 'reader', 'writer', 'operator', 'retention' or 'personal'"),
			 errdetail("It is '%s'.", kind),
			 errhint("A reader reads events, a writer appends them, an operator defines types and projections and keeps them running, retention removes events, personal sees personal attributes.")));
}

/* Refuses a role that does not exist, or that has every privilege anyway. */
static void
check_grantee(Oid role, Oid owner)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with oid %u does not exist", role),
				 errdetail("There is no such role in this cluster."),
				 errhint("Name a role as in GRANT, such as 'app' or '\"My app\"'.")));
	if (role == owner)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_GRANT_OPERATION),
				 errmsg("role \"%s\" owns eventstore",
						GetUserNameFromId(role, false)),
				 errdetail("The owner has every privilege already."),
				 errhint("Let programs connect as another role.")));
}

/* Refuses a caller that could grant a part only, or nothing. */
static void
check_grantor(Oid owner)
{
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of eventstore to grant or revoke"),
				 errdetail("Its tables and functions belong to \"%s\".",
						   GetUserNameFromId(owner, false)),
				 errhint("Call it as that role, or as a superuser.")));
}

/*
 * Runs the statements, one for each type of objects and privilege.  They name
 * every object with its schema.
 */
static void
run_grant_statements(const SPITupleTable *rows, const char *verb, const char *to,
					 Oid role)
{
	RunAs		saved = run_as(GetUserId(), false, "pg_catalog, pg_temp");
	uint64		i;

	for (i = 0; i < rows->numvals; i++)
	{
		char	   *sql = psprintf("%s %s ON %s %s %s %s", verb,
								   SPI_getvalue(rows->vals[i], rows->tupdesc, 2),
								   SPI_getvalue(rows->vals[i], rows->tupdesc, 1),
								   SPI_getvalue(rows->vals[i], rows->tupdesc, 3),
								   to,
								   quote_identifier(GetUserNameFromId(role, false)));
		int			result = SPI_execute(sql, false, 0);

		if (result < 0)
			elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	}
	run_as_end(saved);
}

/*
 * Refuses to leave a role without USAGE on the schema.  The schema may belong
 * to another role than eventstore, and GRANT only warns where the caller has no
 * right to grant.
 */
static void
check_schema_usage(Oid log, Oid role)
{
	Oid			schema = get_rel_namespace(log);

	if (!DatumGetBool(DirectFunctionCall3(has_schema_privilege_id_id,
										  ObjectIdGetDatum(role),
										  ObjectIdGetDatum(schema),
										  CStringGetTextDatum("USAGE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("could not grant USAGE on schema \"%s\"",
						get_namespace_name(schema)),
				 errdetail("The schema is not yours, and role \"%s\" may not use it.",
						   GetUserNameFromId(role, false)),
				 errhint("Let the schema's owner grant it first.")));
}

/* Checks the arguments, finds the statements that are needed, and runs them. */
static void
change_privileges(FunctionCallInfo fcinfo, const char *function,
				  const char *what, const char *verb, const char *to)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Oid			owner = run_as_owner(log);
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2];

	PreventCommandIfReadOnly(function);
	argument_not_null(fcinfo, ARG_ROLE, "role");
	argument_not_null(fcinfo, ARG_KIND, "kind");
	values[0] = PG_GETARG_DATUM(ARG_KIND);
	values[1] = ObjectIdGetDatum(PG_GETARG_OID(ARG_ROLE));
	check_user_kind(text_to_cstring(PG_GETARG_TEXT_PP(ARG_KIND)));
	check_grantee(PG_GETARG_OID(ARG_ROLE), owner);
	check_grantor(owner);
	SPI_connect();
	(void) own_sql_run(log, what, 2, types, values, NULL);
	run_grant_statements(SPI_tuptable, verb, to, PG_GETARG_OID(ARG_ROLE));
	SPI_finish();
}

/*
 * es_grant(role, kind)
 */
Datum
es_grant(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo, "es_grant()", what_to_grant, "GRANT", "TO");
	check_schema_usage(log_relid(fcinfo->flinfo->fn_oid), PG_GETARG_OID(ARG_ROLE));
	PG_RETURN_VOID();
}

/*
 * es_revoke(role, kind)
 */
Datum
es_revoke(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo, "es_revoke()", what_to_revoke, "REVOKE", "FROM");
	PG_RETURN_VOID();
}
