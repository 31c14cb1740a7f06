/*-------------------------------------------------------------------------
 *
 * log_index.c
 *		The indexes of es_events that our code scans by itself.
 *
 * An index belongs to the extension because one of the extension's constraints owns it,
 * and not because of its columns.  The owner of the table may add an index on the same
 * columns in another order, or with another operator class.  A scan of that index would
 * give wrong results.  A name does not tell either, as constraints can be renamed, and
 * an oid changes with REINDEX CONCURRENTLY.
 *
 * The constraint of an index is looked up in pg_constraint once, and the index's
 * oid is remembered.  It stays right for as long as the table has a valid index
 * with this oid: an index is never taken from its constraint, but dropped with it,
 * and REINDEX CONCURRENTLY makes the old index invalid in the transaction in which
 * it hands the constraint to the new one.
 *
 * The index on category and position belongs to no constraint.  It is known by its
 * name, and its definition is checked; without it readers walk the whole log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "log/log.h"

#define CATEGORY_INDEX "es_events_category_position_idx"

/* Columns of a unique constraint. */
#define MAX_KEY_COLUMNS 2

typedef struct UniqueKey
{
	const char *columns;		/* for people */
	int			count;
	AttrNumber	attributes[MAX_KEY_COLUMNS];
} UniqueKey;

static const UniqueKey unique_keys[] = {
	[LOG_INDEX_ID] = {"(id)", 1, {Anum_es_events_id}},
	[LOG_INDEX_VERSION] = {"(stream, version)", 2,
	{Anum_es_events_stream, Anum_es_events_version}},
	[LOG_INDEX_POSITION] = {"(position)", 1, {Anum_es_events_position}}
};

/* What is known of the table with this oid. */
static Oid	known_log = InvalidOid;
static Oid	known_indexes[lengthof(unique_keys)];

/* Pages to the right of the last one known that are looked at one by one. */
#define MAX_STEPS_RIGHT 4

/* Where the last leaf of the position index was when we looked before. */
static CompatFile last_leaf_file;
static BlockNumber last_leaf_block;
static Buffer last_leaf_buffer = InvalidBuffer;

static void
fail_missing_index(const char *columns)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a unique constraint of table \"es_events\" is missing"),
			 errdetail("There is no valid, non-deferrable constraint on %s.",
					   columns),
			 errhint("Add the constraint that eventstore made again.")));
}

/*
 * Returns true if a key column of the index has the order of its type, which for
 * texts is that of their bytes.
 */
static bool
has_default_order(Relation index, int column, Oid type)
{
	Oid			collation = type == TEXTOID ? C_COLLATION_OID : InvalidOid;

	return index->rd_indoption[column] == 0 &&
		index->rd_indcollation[column] == collation &&
		index->rd_opfamily[column] ==
		lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
}

/* Returns true if the index is one that a constraint on the key may have. */
static bool
index_has_key(Relation index, const UniqueKey *key)
{
	const		FormData_pg_index *form = index->rd_index;
	TupleDesc	desc = RelationGetDescr(index);
	int			i;

	if (!form->indisvalid || !form->indimmediate ||
		form->indnkeyatts != key->count ||
		index->rd_rel->relam != BTREE_AM_OID)
		return false;
	for (i = 0; i < key->count; i++)
	{
		if (form->indkey.values[i] != key->attributes[i] ||
			!has_default_order(index, i, TupleDescAttr(desc, i)->atttypid))
			return false;
	}
	return true;
}

/*
 * Returns true if the key of the index is the position alone, in its usual order.
 */
bool
log_index_is_on_position(Relation index)
{
	return index_has_key(index, &unique_keys[LOG_INDEX_POSITION]);
}

/* Returns true if the constraint keeps the columns of the key unique. */
static bool
is_constraint_on(HeapTuple constraint, TupleDesc desc, const UniqueKey *key)
{
	Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(constraint);
	bool		isnull;
	Datum		columns;
	ArrayType  *array;

	if ((form->contype != CONSTRAINT_UNIQUE &&
		 form->contype != CONSTRAINT_PRIMARY) || form->condeferrable)
		return false;
	columns = heap_getattr(constraint, Anum_pg_constraint_conkey, desc,
						   &isnull);
	if (isnull)
		return false;
	array = DatumGetArrayTypeP(columns);
	return ARR_NDIM(array) == 1 && ARR_DIMS(array)[0] == key->count &&
		memcmp((char *) array + ARR_OVERHEAD_NONULLS(1), key->attributes,
			   key->count * sizeof(AttrNumber)) == 0;
}

/* Returns true if the index is valid and has the columns and the order of the key. */
static bool
is_usable(Oid relid, const UniqueKey *key)
{
	Relation	index = index_open(relid, AccessShareLock);
	bool		usable = index_has_key(index, key);

	index_close(index, AccessShareLock);
	return usable;
}

/*
 * Finds the index of a constraint on the key in pg_constraint; InvalidOid if there
 * is none.
 */
static Oid
find_constraint_index(Oid log, const UniqueKey *key)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData of_log;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			found = InvalidOid;

	ScanKeyInit(&of_log, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(log));
	scan = systable_beginscan(constraints, ConstraintRelidTypidNameIndexId,
							  true, NULL, 1, &of_log);
	while (!OidIsValid(found) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			index = ((Form_pg_constraint) GETSTRUCT(tuple))->conindid;

		if (is_constraint_on(tuple, RelationGetDescr(constraints), key) &&
			is_usable(index, key))
			found = index;
	}
	systable_endscan(scan);
	table_close(constraints, AccessShareLock);
	return found;
}

/*
 * Looks the index up anew, and remembers it.
 */
static Oid
learn_index(Oid log, LogIndex which)
{
	if (known_log != log)
	{
		memset(known_indexes, 0, sizeof(known_indexes));
		known_log = log;
	}
	known_indexes[which] = find_constraint_index(log, &unique_keys[which]);
	return known_indexes[which];
}

/* Returns the open index with this oid, NULL if it is not there or not valid. */
static Relation
find_open_index(const Log *log, Oid relid)
{
	int			i;

	for (i = 0; i < log->index_count; i++)
	{
		Relation	index = log->indexes[i];

		if (RelationGetRelid(index) == relid)
			return index->rd_index->indisvalid ? index : NULL;
	}
	return NULL;
}

/* Returns one of the indexes that were opened with es_events. */
static Relation
find_unique_index(const Log *log, LogIndex which)
{
	Oid			relid = RelationGetRelid(log->rel);
	Relation	index = NULL;

	if (known_log == relid)
		index = find_open_index(log, known_indexes[which]);
	if (index == NULL)
		index = find_open_index(log, learn_index(relid, which));
	if (index == NULL)
		fail_missing_index(unique_keys[which].columns);
	return index;
}

/*
 * Finds the unique indexes among those that were opened with es_events.
 */
void
log_index_find_all(Log *log)
{
	log->id_index = find_unique_index(log, LOG_INDEX_ID);
	log->version_index = find_unique_index(log, LOG_INDEX_VERSION);
	log->position_index = find_unique_index(log, LOG_INDEX_POSITION);
}

/* Opens the index with this oid, if the table has it and it is valid; else NULL. */
static Relation
try_open_index(Relation log, Oid relid)
{
	Relation	index;

	if (!list_member_oid(RelationGetIndexList(log), relid))
		return NULL;
	index = index_open(relid, AccessShareLock);
	if (index->rd_index->indisvalid)
		return index;
	index_close(index, AccessShareLock);
	return NULL;
}

/*
 * Opens the unique index on stream and version, which has a stream's events in
 * order; NULL if there is none.
 */
Relation
log_index_open_version(Relation log)
{
	Oid			relid = RelationGetRelid(log);
	Relation	index = NULL;

	if (known_log == relid)
		index = try_open_index(log, known_indexes[LOG_INDEX_VERSION]);
	if (index == NULL)
		index = try_open_index(log, learn_index(relid, LOG_INDEX_VERSION));
	return index;
}

/*
 * Opens the index of the primary key, which has the log in order.
 */
Relation
log_index_open_position(Relation log)
{
	const UniqueKey *key = &unique_keys[LOG_INDEX_POSITION];
	Oid			relid = compat_primary_key_index(log);
	Relation	index;

	if (!OidIsValid(relid))
		fail_missing_index(key->columns);
	index = index_open(relid, AccessShareLock);
	if (!index_has_key(index, key))
		fail_missing_index(key->columns);
	return index;
}

/*
 * Returns the last leaf of the index, locked for reading, if it is the page where
 * it was before, or a little to the right of it; else InvalidBuffer.  All leaves are
 * linked to the right, up to the last one, whatever the page was used for since.
 */
static Buffer
lock_known_last_leaf(Relation index)
{
	Buffer		buffer = last_leaf_buffer;
	int			steps;

	if (!BufferIsValid(buffer) ||
		memcmp(&last_leaf_file, &compat_file_of(index), sizeof(CompatFile)) != 0 ||
		!ReadRecentBuffer(last_leaf_file, MAIN_FORKNUM, last_leaf_block, buffer))
		return InvalidBuffer;
	LockBuffer(buffer, BT_READ);
	for (steps = 0; steps < MAX_STEPS_RIGHT; steps++)
	{
		BTPageOpaque page = BTPageGetOpaque(BufferGetPage(buffer));

		if (!P_ISLEAF(page) || P_IGNORE(page))
			break;
		if (P_RIGHTMOST(page))
			return buffer;
		buffer = _bt_relandgetbuf(index, buffer, page->btpo_next, BT_READ);
	}
	_bt_relbuf(index, buffer);
	return InvalidBuffer;
}

/*
 * Reads the greatest position that the index has, whether its row is visible or not.
 * Returns false if the index' last page is empty.  Each append does so.  A scan would
 * read all entries of a page; this looks at one, on the page that the append's own
 * entry goes to, and mostly finds the page without a search.
 */
bool
log_index_last_position(Relation index, int64 *position)
{
	Buffer		buffer = lock_known_last_leaf(index);
	Page		page;
	OffsetNumber last;
	bool		found = false;

	if (!BufferIsValid(buffer))
		buffer = compat_last_leaf(index);
	if (!BufferIsValid(buffer))
		return false;
	page = BufferGetPage(buffer);
	last = PageGetMaxOffsetNumber(page);
	if (last >= P_FIRSTDATAKEY(BTPageGetOpaque(page)))
	{
		IndexTuple	entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, last));
		bool		isnull;

		*position = DatumGetInt64(index_getattr(entry, 1, RelationGetDescr(index),
												&isnull));
		found = true;
	}
	last_leaf_file = compat_file_of(index);
	last_leaf_block = BufferGetBlockNumber(buffer);
	last_leaf_buffer = buffer;
	_bt_relbuf(index, buffer);
	return found;
}

/*
 * Returns true if the index is one on (es_category(stream), position), in this
 * order, of all events.
 */
static bool
is_category_index(Relation index, Oid schema)
{
	List	   *expressions = RelationGetIndexExpressions(index);
	FuncExpr   *call;

	if (index->rd_index->indnkeyatts != 2 || !index->rd_index->indisvalid ||
		index->rd_rel->relam != BTREE_AM_OID ||
		index->rd_index->indkey.values[1] != Anum_es_events_position ||
		!has_default_order(index, 0, TEXTOID) ||
		!has_default_order(index, 1, INT8OID) ||
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
 * Returns true if the index, under any name, is one on category and position.  Its
 * definition is looked at once, as it stays the same for as long as the index has its oid.
 */
bool
log_index_is_category(Relation log, Relation index)
{
	static Oid	known = InvalidOid;

	if (RelationGetRelid(index) == known)
		return true;
	if (!is_category_index(index, RelationGetNamespace(log)))
		return false;
	known = RelationGetRelid(index);
	return true;
}

/*
 * Opens the index on category and position, NULL if it is not there or is another one.
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
