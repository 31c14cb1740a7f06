/*-------------------------------------------------------------------------
 *
 * log_type_index.c
 *		The indexes on the positions of the events of one type (es_index_type).
 *
 * Such an index is known by its definition: a B-tree on the position of the rows for which
 * the type is equal to a constant.  Its name and its owner do not matter.
 *
 * The positions and types of stored events never change.  So an index has all events that
 * a snapshot sees, unless it was made when rows that es_rewrite has replaced were still
 * there for older snapshots: as the planner, such a snapshot then does without it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_operator.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "log/log.h"

/* Returns true if every snapshot of the transaction may use the index. */
static bool
is_for_snapshots(Relation index)
{
	return !index->rd_index->indcheckxmin ||
		TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data),
							  TransactionXmin);
}

/*
 * Returns the type whose events alone the index has; NULL if it is another index.
 */
text *
log_type_index_type(Relation index)
{
	List	   *predicate;
	OpExpr	   *equal;
	Var		   *column;
	Const	   *type;

	if (!log_index_is_on_position(index))
		return NULL;
	predicate = RelationGetIndexPredicate(index);
	if (list_length(predicate) != 1 || !IsA(linitial(predicate), OpExpr))
		return NULL;
	equal = linitial(predicate);
	if (equal->opno != TextEqualOperator || list_length(equal->args) != 2 ||
		!IsA(linitial(equal->args), Var) || !IsA(lsecond(equal->args), Const))
		return NULL;
	column = linitial(equal->args);
	type = lsecond(equal->args);
	if (column->varattno != Anum_es_events_type || type->constisnull)
		return NULL;
	return DatumGetTextPP(type->constvalue);
}

/* Notes the index for the types of which it has the events.  Returns true if there is any. */
static bool
note_index(Relation *found, const TextSet *types, Relation index)
{
	text	   *type = is_for_snapshots(index) ? log_type_index_type(index) : NULL;
	bool		is_new = false;
	int			i;

	for (i = 0; type != NULL && i < types->count; i++)
	{
		if (found[i] == NULL && stream_equal(DatumGetTextPP(types->values[i]), type))
		{
			found[i] = index;
			is_new = true;
		}
	}
	return is_new;
}

/* Opens the indexes of the types, each once; NULL where a type has none. */
static Relation *
open_type_indexes(Relation log, const TextSet *types)
{
	Relation   *found = palloc0(sizeof(Relation) * types->count);
	List	   *oids = RelationGetIndexList(log);
	ListCell   *cell;

	foreach(cell, oids)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!note_index(found, types, index))
			index_close(index, AccessShareLock);
	}
	list_free(oids);
	return found;
}

/*
 * Opens an index for each of the types, which is there once however often a type is.
 */
List *
log_type_index_open_all(Relation log, const TextSet *types)
{
	Relation   *found = open_type_indexes(log, types);
	List	   *indexes = NIL;
	bool		complete = true;
	ListCell   *cell;
	int			i;

	for (i = 0; i < types->count; i++)
	{
		if (found[i] == NULL)
			complete = false;
		else
			indexes = list_append_unique_ptr(indexes, found[i]);
	}
	pfree(found);
	if (complete)
		return indexes;
	foreach(cell, indexes)
		index_close(lfirst(cell), AccessShareLock);
	list_free(indexes);
	return NIL;
}
