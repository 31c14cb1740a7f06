/*-------------------------------------------------------------------------
 *
 * restore_statement.c
 *		Runs the statement of a definition that is restored.
 *
 * The owner of the log runs a text that comes from a dump, so it is parsed first.  It
 * must be one statement that adds something to a table.  This file sets the table in
 * the parsed statement, which must be one of the extension's.  The statement does not
 * name the extension's schema, as that may have another name in a copy.  Names are
 * looked up there first, then in the schema that the extension had in the dumped
 * database.
 *
 * Row security is only noted: the store is closed by it meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/role.h"
#include "restore/restore.h"

/* Refuses a statement that is none of those that a dump has.  why: a sentence. */
static void
refuse_statement(const RestoredItem *item, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a definition of a restore is refused: \"%s\"",
					item->definition->statement),
			 errdetail("%s", why),
			 errhint("Only what pg_dump has written is replayed; run other statements by hand.")));
}

/*
 * Sets the schema of a table, which must be one of the extension's, and the one that the
 * definition is for.
 */
static void
bind_table(RestoredItem *item, RangeVar *table)
{
	Oid			schema = get_rel_namespace(item->log);

	if (table == NULL || strcmp(table->relname, item->definition->table) != 0)
		refuse_statement(item, "It is for another table than it says.");
	item->relid = get_relname_relid(table->relname, schema);
	if (!OidIsValid(item->relid) || get_rel_relkind(item->relid) != RELKIND_RELATION ||
		getExtensionOfObject(RelationRelationId, item->relid) !=
		getExtensionOfObject(RelationRelationId, item->log))
		refuse_statement(item, psprintf("There is no table \"%s\" of eventstore.",
										table->relname));
	table->catalogname = NULL;
	table->schemaname = get_namespace_name(schema);
}

/* Returns true if ALTER TABLE may do this. */
static bool
is_alteration_allowed(AlterTableType type)
{
	switch (type)
	{
		case AT_EnableRowSecurity:
		case AT_DisableRowSecurity:
		case AT_ForceRowSecurity:
		case AT_AddConstraint:
		case AT_ReplicaIdentity:
		case AT_SetStorage:
		case AT_SetCompression:
		case AT_SetStatistics:
		case AT_SetOptions:
		case AT_SetNotNull:
		case AT_ColumnDefault:
		case AT_SetRelOptions:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
		case AT_EnableAlwaysRule:
		case AT_EnableReplicaRule:
		case AT_DisableRule:
			return true;
		default:
			return false;
	}
}

/* Returns true if the table's trigger is one of ours, which a dump does not change. */
static bool
is_own_trigger(const RestoredItem *item, const char *name)
{
	Relation	table = table_open(item->relid, AccessShareLock);
	bool		own = false;
	int			i;

	for (i = 0; table->trigdesc != NULL && i < table->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &table->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, name) == 0)
			own = getExtensionOfObject(ProcedureRelationId, trigger->tgfoid) ==
				getExtensionOfObject(RelationRelationId, item->log);
	}
	table_close(table, NoLock);
	return own;
}

static void
bind_alter_table(RestoredItem *item, AlterTableStmt *statement)
{
	AlterTableCmd *command = linitial(statement->cmds);

	if (statement->objtype != OBJECT_TABLE || list_length(statement->cmds) != 1 ||
		!is_alteration_allowed(command->subtype))
		refuse_statement(item, "It does something else to the table.");
	bind_table(item, statement->relation);
	if ((command->subtype == AT_DisableTrig || command->subtype == AT_EnableReplicaTrig) &&
		is_own_trigger(item, command->name))
		refuse_statement(item, "The trigger is one of eventstore.");
	item->is_row_security = command->subtype == AT_EnableRowSecurity ||
		command->subtype == AT_DisableRowSecurity;
	item->enable = command->subtype == AT_EnableRowSecurity;
}

/*
 * The names of what a comment or a label is on, to which the schema is added.
 */
static Node *
bind_names(RestoredItem *item, ObjectType type, Node *object)
{
	List	   *names = (List *) object;
	RangeVar   *table = makeRangeVar(NULL, item->definition->table, -1);

	bind_table(item, table);
	if (!IsA(names, List))
		refuse_statement(item, "It is about something else.");
	switch (type)
	{
		case OBJECT_TABLE:
		case OBJECT_COLUMN:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_TRIGGER:
		case OBJECT_RULE:
		case OBJECT_POLICY:
			if (strcmp(strVal(linitial(names)), table->relname) != 0)
				refuse_statement(item, "It is for another table than it says.");
			break;
		case OBJECT_INDEX:
			break;
		default:
			refuse_statement(item, "It is about something else.");
	}
	return (Node *) lcons(makeString(table->schemaname), names);
}

/* Statistics are named with the schema that they had. */
static void
bind_statistics(RestoredItem *item, CreateStatsStmt *statement)
{
	RangeVar   *table = list_length(statement->relations) == 1 &&
	IsA(linitial(statement->relations), RangeVar) ? linitial(statement->relations) : NULL;

	bind_table(item, table);
	if (list_length(statement->defnames) == 2 && item->from->schema != NULL &&
		strcmp(strVal(linitial(statement->defnames)), item->from->schema) == 0)
		linitial(statement->defnames) = makeString(table->schemaname);
}

static void
bind_publication(RestoredItem *item, AlterPublicationStmt *statement)
{
	PublicationObjSpec *object = list_length(statement->pubobjects) == 1 ?
	linitial(statement->pubobjects) : NULL;

	if (object == NULL || object->pubobjtype != PUBLICATIONOBJ_TABLE ||
		statement->action != AP_AddObjects || statement->options != NIL)
		refuse_statement(item, "It does something else to the publication.");
	bind_table(item, object->pubtable->relation);
}

/* Sets the table of a parsed statement, and refuses one of another kind. */
static void
bind_statement(RestoredItem *item, Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			bind_alter_table(item, (AlterTableStmt *) statement);
			break;
		case T_CreatePolicyStmt:
			bind_table(item, ((CreatePolicyStmt *) statement)->table);
			break;
		case T_IndexStmt:
			bind_table(item, ((IndexStmt *) statement)->relation);
			break;
		case T_CreateTrigStmt:
			bind_table(item, ((CreateTrigStmt *) statement)->relation);
			break;
		case T_RuleStmt:
			bind_table(item, ((RuleStmt *) statement)->relation);
			break;
		case T_CommentStmt:
			{
				CommentStmt *comment = (CommentStmt *) statement;

				comment->object = bind_names(item, comment->objtype, comment->object);
				break;
			}
		case T_SecLabelStmt:
			{
				SecLabelStmt *label = (SecLabelStmt *) statement;

				label->object = bind_names(item, label->objtype, label->object);
				break;
			}
		case T_CreateStatsStmt:
			bind_statistics(item, (CreateStatsStmt *) statement);
			break;
		case T_AlterPublicationStmt:
			bind_publication(item, (AlterPublicationStmt *) statement);
			break;
		default:
			refuse_statement(item, "It is of another kind.");
	}
}

/* Runs a parsed statement. */
static void
run_parsed(RawStmt *parsed, const char *text)
{
	PlannedStmt *utility = makeNode(PlannedStmt);

	utility->commandType = CMD_UTILITY;
	utility->utilityStmt = parsed->stmt;
	utility->stmt_location = parsed->stmt_location;
	utility->stmt_len = parsed->stmt_len;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(utility, text, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/* Where names of the statement are looked up. */
static char *
restored_path(const RestoredItem *item)
{
	const char *schema = get_namespace_name(get_rel_namespace(item->log));
	const char *path = quote_identifier(schema);

	if (item->from->schema == NULL || strcmp(item->from->schema, schema) == 0)
		return psprintf("%s, pg_temp", path);
	return psprintf("%s, %s, pg_temp", path, quote_identifier(item->from->schema));
}

/*
 * A session that adds a table to a publication itself, as a dump may, has locked the
 * publication, and waits for the table, which is locked here.  So this one does not wait
 * for it for long: the definition fails, and is there when the restore is finished.
 */
static void
wait_shortly(void)
{
	(void) set_config_option("lock_timeout", "100ms", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Runs the statement as the owner of the log.
 */
void
restore_run_item(RestoredItem *item)
{
	RunAs		saved = run_as(run_as_owner(item->log), false, restored_path(item));
	List	   *parsed = pg_parse_query(item->definition->statement);

	if (list_length(parsed) != 1)
		refuse_statement(item, "It is not one statement.");
	bind_statement(item, linitial_node(RawStmt, parsed)->stmt);
	if (IsA(linitial_node(RawStmt, parsed)->stmt, AlterPublicationStmt))
		wait_shortly();
	if (!item->is_row_security)
		run_parsed(linitial(parsed), item->definition->statement);
	run_as_end(saved);
}
