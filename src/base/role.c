/*-------------------------------------------------------------------------
 *
 * role.c
 *		The type es_role: a role that owns something, as a column of a table.
 *
 * The role's oid is what counts, so that a role may be renamed, and a role that gets
 * the name of a dropped one gets nothing else of it.  (pg_upgrade keeps the oids of
 * roles.)  The type prints the role's present name, which a dump has: oids mean
 * nothing in another cluster.  Input looks the name up.
 *
 * The name is stored, too, as it was.  It serves where there is no role:
 *
 *	- oid 0: the name was that of no role when it was read, as in a restore that comes
 *	  before the roles.  It means the role that gets the name.
 *	- an oid that no role has: the role was dropped.  It prints "name (dropped)", and
 *	  that is read as a role that does not exist, so that a dump does not revive it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"

PG_FUNCTION_INFO_V1(es_role_in);
PG_FUNCTION_INFO_V1(es_role_out);
PG_FUNCTION_INFO_V1(es_role_recv);
PG_FUNCTION_INFO_V1(es_role_send);
PG_FUNCTION_INFO_V1(es_role_from_oid);
PG_FUNCTION_INFO_V1(es_role_to_oid);
PG_FUNCTION_INFO_V1(es_role_lt);
PG_FUNCTION_INFO_V1(es_role_le);
PG_FUNCTION_INFO_V1(es_role_eq);
PG_FUNCTION_INFO_V1(es_role_ne);
PG_FUNCTION_INFO_V1(es_role_ge);
PG_FUNCTION_INFO_V1(es_role_gt);
PG_FUNCTION_INFO_V1(es_role_cmp);

/* What follows the name of a role that was dropped. */
#define DROPPED_MARK " (dropped)"

/* Stands for the oid of a role that was dropped in another cluster: no role has it. */
#define DROPPED_ROLE ((Oid) 1)

/* Returns the role's oid; 0 if it does not exist. */
Oid
role_find(const Role *role)
{
	if (!OidIsValid(role->oid))
		return get_role_oid(NameStr(role->name), true);
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role->oid)) ?
		role->oid : InvalidOid;
}

/* Returns what the type prints. */
char *
role_name(const Role *role)
{
	char	   *name = OidIsValid(role->oid) ?
	GetUserNameFromId(role->oid, true) : NULL;

	if (name != NULL)
		return name;
	return psprintf("%s%s", NameStr(role->name),
					OidIsValid(role->oid) ? DROPPED_MARK : "");
}

/* Says why a role does not exist, for an error's detail. */
char *
role_missing_detail(const Role *role)
{
	return psprintf(OidIsValid(role->oid) ?
					"Role \"%s\" was dropped. A role that has its name now is another one." :
					"There is no role \"%s\".", NameStr(role->name));
}

/* Says what can be done about it.  otherwise: a clause, such as "drop it". */
char *
role_missing_hint(const Role *role, const char *otherwise)
{
	char	   *hint = psprintf("Create the role, or %s.", otherwise);

	if (OidIsValid(role->oid))
	{
		hint = psprintf("%s.", otherwise);
		hint[0] = pg_toupper((unsigned char) hint[0]);
	}
	return hint;
}

/* Makes the value of a role that exists. */
static Role *
make_role(Oid oid, const char *name)
{
	Role	   *role = palloc0(sizeof(Role));

	role->oid = oid;
	namestrcpy(&role->name, name);
	return role;
}

/* Reads what role_name returns. */
static Role *
read_role(char *text)
{
	int			length = strlen(text) - strlen(DROPPED_MARK);
	Oid			oid;

	if (length > 0 && strcmp(text +length, DROPPED_MARK) == 0 &&
		!OidIsValid(get_role_oid(text, true)))
		return make_role(DROPPED_ROLE, pnstrdup(text, length));
	oid = get_role_oid(text, true);
	return make_role(oid, text);
}

Datum
es_role_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(read_role(PG_GETARG_CSTRING(0)));
}

Datum
es_role_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(role_name((Role *) PG_GETARG_POINTER(0)));
}

Datum
es_role_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buffer = (StringInfo) PG_GETARG_POINTER(0);
	int			length;

	PG_RETURN_POINTER(read_role(pq_getmsgtext(buffer,
											  buffer->len - buffer->cursor,
											  &length)));
}

Datum
es_role_send(PG_FUNCTION_ARGS)
{
	char	   *name = role_name((Role *) PG_GETARG_POINTER(0));

	return DirectFunctionCall1(textsend, CStringGetTextDatum(name));
}

/* Casts oid and regrole. */
Datum
es_role_from_oid(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	char	   *name = GetUserNameFromId(oid, true);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with oid %u does not exist", oid),
				 errdetail("No role of this cluster has the oid."),
				 errhint("Name a role, or take an oid of pg_roles.")));
	PG_RETURN_POINTER(make_role(oid, name));
}

/* Casts to oid: 0 if there is no such role. */
Datum
es_role_to_oid(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(role_find((Role *) PG_GETARG_POINTER(0)));
}

/* Orders roles by what they print; of two dropped ones that had one name, by oid. */
static int
compare_roles(FunctionCallInfo fcinfo)
{
	const Role *one = (Role *) PG_GETARG_POINTER(0);
	const Role *other = (Role *) PG_GETARG_POINTER(1);
	int			result = strcmp(role_name(one), role_name(other));
	Oid			one_oid = OidIsValid(one->oid) ? one->oid : role_find(one);
	Oid			other_oid = OidIsValid(other->oid) ? other->oid : role_find(other);

	return result != 0 ? result :
		(one_oid > other_oid) - (one_oid < other_oid);
}

Datum
es_role_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) < 0);
}

Datum
es_role_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) <= 0);
}

Datum
es_role_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) == 0);
}

Datum
es_role_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) != 0);
}

Datum
es_role_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) >= 0);
}

Datum
es_role_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_roles(fcinfo) > 0);
}

Datum
es_role_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare_roles(fcinfo));
}

/*
 * Returns true if the role has SELECT on the table, and no row security hides rows.
 */
bool
role_may_read_all(Oid table, Oid role)
{
	return pg_class_aclcheck(table, role, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(table, role, true) != RLS_ENABLED;
}
