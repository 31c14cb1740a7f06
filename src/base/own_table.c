/*-------------------------------------------------------------------------
 *
 * own_table.c
 *		The extension's own relations, which are found by their names in its schema.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"

/*
 * The extension's relation of this name, which is in its schema.
 */
Oid
own_table_in_schema(Oid schema, const char *name)
{
	Oid			relid = get_relname_relid(name, schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of eventstore does not exist", name),
				 errdetail("There is none in schema \"%s\".",
						   get_namespace_name(schema)),
				 errhint("Create the extension again.")));
	return relid;
}

/*
 * The same in the schema of the log.
 */
Oid
own_table_relid(Oid log, const char *table)
{
	return own_table_in_schema(get_rel_namespace(log), table);
}

/*
 * The relation's name for a statement.
 */
char *
own_table_quoted_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * Makes the transaction the only one that works on the table, until it ends.
 * Returns false if another one does.
 */
bool
own_table_try_lock(Oid log, const char *table)
{
	return ConditionalLockRelationOid(own_table_relid(log, table),
									  ShareUpdateExclusiveLock);
}

/*
 * The data of a trigger of the relation; an error if the function was called by
 * hand, or for a relation of this name that eventstore did not make.
 */
TriggerData *
own_trigger_data(FunctionCallInfo fcinfo, const char *relation)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			funcid = fcinfo->flinfo->fn_oid;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		RelationGetNamespace(trigger->tg_relation) != get_func_namespace(funcid) ||
		strcmp(RelationGetRelationName(trigger->tg_relation), relation) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called as a trigger of %s",
						get_func_name(funcid), relation),
				 errdetail("It was called in another way, or for another relation.")));
	return trigger;
}
