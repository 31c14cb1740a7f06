/*-------------------------------------------------------------------------
 *
 * tag_table.c
 *		The table es_tags, opened if it is as the extension has made it.
 *
 * Entries are stored without the executor (tag_entry.c), and looked up in the primary
 * key alone (match.c).  What the owner adds to the table, a trigger, a constraint, a column,
 * an index on expressions, would not be honoured.  So it is refused.  An index on columns
 * is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "log/tags.h"

/* Refuses a table that was changed. */
static void
fail_changed_table(const char *what, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"es_tags\" was changed"),
			 name == NULL ? errdetail("%s.", what) : errdetail("%s, \"%s\".", what, name),
			 errhint("Undo the change, and call es_reindex_tags().")));
}

/* Refuses columns of others, which were not dropped, and of other types. */
static void
check_columns(Relation table)
{
	static const Oid types[Natts_es_tags] = {TEXTOID, INT8OID, TEXTOID};
	int			count = RelationGetNumberOfAttributes(table);
	int			i;

	for (i = 0; i < Max(count, Natts_es_tags); i++)
	{
		if (i >= Natts_es_tags ? !TupleDescAttr(RelationGetDescr(table), i)->attisdropped :
			i >= count || TupleDescAttr(RelationGetDescr(table), i)->atttypid != types[i])
			fail_changed_table("Its columns are others", NULL);
	}
}

/* Refuses what an INSERT would do besides. */
static void
check_insert(Relation table)
{
	const TriggerDesc *triggers = table->trigdesc;
	const TupleConstr *constraints = RelationGetDescr(table)->constr;

	if (triggers != NULL && (triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
							 triggers->trig_insert_before_statement || triggers->trig_insert_after_statement))
		fail_changed_table("It has a trigger on INSERT", NULL);
	if (constraints != NULL && constraints->num_check > 0)
		fail_changed_table("It has a CHECK constraint", constraints->check[0].ccname);
	if (table->rd_rules != NULL)
		fail_changed_table("It has a rule", NULL);
}

/* Refuses indexes that are not on columns alone. */
static void
check_indexes(CatalogIndexState indexes)
{
	int			i;

	for (i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *info = indexes->ri_IndexRelationInfo[i];
		Relation	index = indexes->ri_IndexRelationDescs[i];

		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL || info->ii_ExclusionOps != NULL ||
			!index->rd_index->indimmediate)
			fail_changed_table("It has an index that is partial, on expressions or deferrable",
							   RelationGetRelationName(index));
	}
}

/*
 * Opens the table.
 */
Relation
tag_table_open(Oid log, LOCKMODE mode)
{
	Relation	table = table_open(own_table_relid(log, "es_tags"), mode);

	check_columns(table);
	return table;
}

/*
 * Opens the primary key.
 */
Relation
tag_table_open_key(Relation table)
{
	Oid			relid = compat_primary_key_index(table);
	Relation	index;
	int			i;

	if (!OidIsValid(relid))
		fail_changed_table("It has no primary key", NULL);
	index = index_open(relid, AccessShareLock);
	for (i = 0; i < Natts_es_tags; i++)
	{
		if (index->rd_index->indnatts != Natts_es_tags || index->rd_index->indkey.values[i] != i + 1)
			fail_changed_table("Its primary key is another one", RelationGetRelationName(index));
	}
	return index;
}

/*
 * Opens the indexes to store entries.
 */
CatalogIndexState
tag_table_open_indexes(Relation table)
{
	CatalogIndexState indexes;

	check_insert(table);
	indexes = CatalogOpenIndexes(table);
	check_indexes(indexes);
	return indexes;
}
