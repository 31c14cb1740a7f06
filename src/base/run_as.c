/*-------------------------------------------------------------------------
 *
 * run_as.c
 *		Running statements as another role: our own ones as the owner of the
 *		log, a projection's as its owner.
 *
 * The role and its search_path are changed together and restored together.  An
 * error restores both when its (sub)transaction is aborted.  Settings that a
 * statement changes by SET are restored, too.
 *
 * The role cannot get at the caller's rights: it cannot be changed back from inside.
 * A role that may not act as the caller is also kept from leaving behind what would
 * run later as the caller (deferred triggers, temporary tables), as in the server's
 * logical replication.  Not every minor release of the server keeps it from making
 * temporary types, which take the place of pg_catalog's for the caller.  A hook does,
 * which a backend installs when it first needs it, so that preloading changes nothing
 * for others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/role.h"

static object_access_hook_type next_access = NULL;

/*
 * Returns true if the type, which was just made, is in a temporary schema.  Types of
 * rows and their arrays do not count: they come with tables, which the server refuses
 * itself or needs, as for REFRESH.
 */
static bool
is_temporary_type(Oid type)
{
	Relation	types = table_open(TypeRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_type_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(type));
	scan = systable_beginscan(types, TypeOidIndexId, true, SnapshotSelf, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_type form = (Form_pg_type) GETSTRUCT(tuple);

		result = form->typtype != TYPTYPE_COMPOSITE &&
			form->typtype != TYPTYPE_BASE &&
			isAnyTempNamespace(form->typnamespace);
	}
	systable_endscan(scan);
	table_close(types, AccessShareLock);
	return result;
}

/* Refuses temporary types where temporary tables are refused. */
static void
refuse_temporary_type(ObjectAccessType access, Oid class, Oid object,
					  int subid, void *arg)
{
	if (next_access != NULL)
		next_access(access, class, object, subid, arg);
	if (access == OAT_POST_CREATE && class == TypeRelationId &&
		InSecurityRestrictedOperation() && is_temporary_type(object))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot create temporary type within security-restricted operation"),
				 errdetail("It would take the place of other types of its name in the rest of the session."),
				 errhint("Create the type in a schema.")));
}

/* Installs the hook in this backend, once. */
static void
watch_temporary_types(void)
{
	static bool watching = false;

	if (watching)
		return;
	next_access = object_access_hook;
	object_access_hook = refuse_temporary_type;
	watching = true;
}

/*
 * Becomes the user, with the search_path, until run_as_end.
 */
RunAs
run_as(Oid userid, bool restricted, const char *search_path)
{
	RunAs		saved;
	int			security;

	GetUserIdAndSecContext(&saved.userid, &saved.security);
	security = saved.security | SECURITY_LOCAL_USERID_CHANGE;
	if (restricted && !compat_can_become(userid, saved.userid))
	{
		security |= SECURITY_RESTRICTED_OPERATION;
		watch_temporary_types();
	}
	SetUserIdAndSecContext(userid, security);
	saved.guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", search_path, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/* Restores what run_as changed. */
void
run_as_end(RunAs saved)
{
	AtEOXact_GUC(false, saved.guc_level);
	SetUserIdAndSecContext(saved.userid, saved.security);
}

/* The owner of a relation. */
Oid
run_as_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * For what only a role may have done that could do all of it by itself.
 */
void
run_as_check_owner(Oid log, const char *what)
{
	Oid			owner = run_as_owner(log);

	if (has_privs_of_role(GetUserId(), owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to %s", what),
			 errdetail("Role \"%s\" does not have the privileges of the owner of es_events, \"%s\".",
					   GetUserNameFromId(GetUserId(), false),
					   GetUserNameFromId(owner, false)),
			 errhint("Do it as that owner or as a superuser.")));
}

/*
 * Adds a schema of the session's search_path to one that is kept.  Names that may
 * change meanwhile are not kept: that of the extension's schema, and the user's if it
 * stands for a schema.
 */
static void
keep_schema(StringInfo kept, Oid log, const char *name)
{
	Oid			schema = get_rel_namespace(log);

	if (strcmp(name, "$user") == 0)
	{
		char	   *user = GetUserNameFromId(GetUserId(), false);

		if (OidIsValid(get_namespace_oid(user, true)))
			name = user;
	}
	appendStringInfo(kept, "%s%s", kept->len > 0 ? ", " : "",
					 get_namespace_oid(name, true) == schema ? SCHEMA_MARK :
					 quote_identifier(name));
}

/*
 * The search_path of the session, to be kept.  It goes without pg_temp, which is
 * added at the end when the path is used.
 */
char *
run_as_session_path(Oid log)
{
	char	   *path = pstrdup(namespace_search_path);
	StringInfoData kept;
	List	   *names;
	ListCell   *cell;

	initStringInfo(&kept);
	if (!SplitIdentifierString(path, ',', &names))
		names = NIL;
	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), "pg_temp") != 0)
			keep_schema(&kept, log, lfirst(cell));
	}
	if (kept.len == 0)
		appendStringInfoString(&kept, "pg_catalog");
	return kept.data;
}

/*
 * A path that was kept, with the present name of the extension's schema.
 */
char *
run_as_kept_path(Oid log, const char *kept)
{
	StringInfoData path;
	bool		quoted = false;

	if (strstr(kept, SCHEMA_MARK) == NULL)
		return pstrdup(kept);
	initStringInfo(&path);
	while (*kept != '\0')
	{
		if (!quoted && strncmp(kept, SCHEMA_MARK, strlen(SCHEMA_MARK)) == 0)
		{
			appendStringInfoString(&path,
								   quote_identifier(get_namespace_name(get_rel_namespace(log))));
			kept += strlen(SCHEMA_MARK);
			continue;
		}
		quoted ^= *kept == '"';
		appendStringInfoChar(&path, *kept++);
	}
	return path.data;
}

/* The first schema of a path that was kept that does not exist; NULL if all do. */
static char *
find_missing_schema(Oid log, const char *kept)
{
	List	   *names;
	ListCell   *cell;

	if (!SplitIdentifierString(run_as_kept_path(log, kept), ',', &names))
		return NULL;
	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), "$user") != 0 &&
			!OidIsValid(get_namespace_oid(lfirst(cell), true)))
			return lfirst(cell);
	}
	return NULL;
}

/* Returns true if the error that is raised is that a name was not found. */
static bool
is_name_missing(void)
{
	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_UNDEFINED_SCHEMA:
			return true;
		default:
			return false;
	}
}

/*
 * Names the schema of a path that was kept that does not exist.  A name is looked up
 * where the server can look up others, so this can.
 */
void
run_as_path_context(Oid log, const char *kept)
{
	char	   *schema;

	if (!is_name_missing() || !IsTransactionState())
		return;
	schema = find_missing_schema(log, kept);
	if (schema != NULL)
		errcontext("schema \"%s\" of the stored search_path, %s, does not exist",
				   schema, kept);
}
