/*-------------------------------------------------------------------------
 *
 * log_index.c
 *		The indexes of es_events that our code scans by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "log/log.h"

#define CATEGORY_INDEX "es_events_category_position_idx"

static void
missing_index(const char *columns)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a unique index of table \"es_events\" is missing"),
			 errdetail("There is no valid unique index on %s.", columns),
			 errhint("Restore the constraint that eventstore made.")));
}

/* Is this the valid unique index on these columns (second: or none)? */
static bool
index_is_on(Relation index, AttrNumber first, AttrNumber second)
{
	const		FormData_pg_index *form = index->rd_index;
	int			keys = second == InvalidAttrNumber ? 1 : 2;

	return form->indisvalid && form->indisunique &&
		form->indnkeyatts == keys && form->indkey.values[0] == first &&
		(keys == 1 || form->indkey.values[1] == second) &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/*
 * Finds an index by its columns, as REINDEX CONCURRENTLY changes its oid.
 */
Relation
log_index_of(ResultRelInfo *relinfo, AttrNumber first, AttrNumber second)
{
	int			i;

	for (i = 0; i < relinfo->ri_NumIndices; i++)
	{
		Relation	index = relinfo->ri_IndexRelationDescs[i];

		if (index_is_on(index, first, second))
			return index;
	}
	missing_index(second == InvalidAttrNumber ? "(id)" : "(stream, version)");
	return NULL;
}

/*
 * Opens the unique index on stream and version, for who reads a stream by
 * himself; NULL if there is none.
 */
Relation
log_index_open_version(Relation log)
{
	List	   *relids = RelationGetIndexList(log);
	ListCell   *cell;

	foreach(cell, relids)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index_is_on(index, Anum_es_events_stream, Anum_es_events_version))
			return index;
		index_close(index, AccessShareLock);
	}
	return NULL;
}

/*
 * Opens the index on the position, for who reads the log by itself.
 */
Relation
log_index_open_position(Relation log)
{
	Oid			relid = compat_primary_key_index(log);
	Relation	index;

	if (!OidIsValid(relid))
		missing_index("(position)");
	index = index_open(relid, AccessShareLock);
	if (index->rd_index->indkey.values[0] != Anum_es_events_position)
		missing_index("(position)");
	return index;
}

/* Is the index one on (es_category(stream), position), of all events? */
static bool
is_category_index(Relation index, Oid schema)
{
	List	   *expressions = RelationGetIndexExpressions(index);
	FuncExpr   *call;

	if (index->rd_index->indnatts != 2 || !index->rd_index->indisvalid ||
		index->rd_index->indkey.values[1] != Anum_es_events_position ||
		list_length(expressions) != 1 || !IsA(linitial(expressions), FuncExpr) ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	call = linitial(expressions);
	return list_length(call->args) == 1 && IsA(linitial(call->args), Var) &&
		castNode(Var, linitial(call->args))->varattno == Anum_es_events_stream &&
		get_func_namespace(call->funcid) == schema &&
		strcmp(get_func_name(call->funcid), "es_category") == 0;
}

/*
 * Opens the index on category and position; NULL if somebody has replaced it.
 */
Relation
log_index_open_category(Relation log)
{
	Oid			schema = RelationGetNamespace(log);
	Oid			relid = get_relname_relid(CATEGORY_INDEX, schema);
	Relation	index = OidIsValid(relid) ?
	try_relation_open(relid, AccessShareLock) : NULL;

	if (index == NULL)
		return NULL;
	if (index->rd_rel->relkind == RELKIND_INDEX &&
		index->rd_index->indrelid == RelationGetRelid(log) &&
		is_category_index(index, schema))
		return index;
	relation_close(index, AccessShareLock);
	return NULL;
}
