/*-------------------------------------------------------------------------
 *
 * operator.c
 *		Operators: roles that act on what others own.
 *
 * An operator retries and discards failures, pauses, resumes and rebuilds
 * projections and seeks subscriptions of every role.  It does not become their
 * owner: what runs does so with the rights of the owner, or of the role that
 * received a message, as it does in a worker.
 *
 * No role is marked as an operator.  It is one that may read es_failures and execute
 * es_retry.  Only es_grant() of the kind "operator" grants both.  A privilege to read
 * alone is not enough, which members of pg_read_all_data have, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/base.h"
#include "failure/failure.h"

/* Returns the function es_retry(bigint). */
static Oid
find_retry_function(Oid log)
{
	Oid			argument = INT8OID;
	oidvector  *arguments = buildoidvector(&argument, 1);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum("es_retry"),
						   PointerGetDatum(arguments),
						   ObjectIdGetDatum(get_rel_namespace(log)));
}

bool
operator_is_caller(Oid log)
{
	Oid			function = find_retry_function(log);

	return pg_class_aclcheck(own_table_relid(log, "es_failures"), GetUserId(),
							 ACL_SELECT) == ACLCHECK_OK &&
		OidIsValid(function) &&
		compat_check_acl(ProcedureRelationId, function, GetUserId(),
						 ACL_EXECUTE) == ACLCHECK_OK;
}

bool
operator_may_act(Oid log, Oid owner)
{
	return superuser() ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner)) ||
		operator_is_caller(log);
}

bool
operator_sees_all(Oid log)
{
	return pg_class_aclcheck(own_table_relid(log, "es_failures"), GetUserId(),
							 ACL_SELECT) == ACLCHECK_OK ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}
