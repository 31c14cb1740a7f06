/*-------------------------------------------------------------------------
 *
 * log_direct.c
 *		Storing rows without the executor, where nothing needs it.
 *
 * An ordinary log is one as the extension made it: no columns, indexes, CHECKs or
 * AFTER triggers of the owner's, no sync projections.  There an INSERT has to store the
 * row and one entry in each of four indexes, whose values are known, and one in the index of
 * its type if es_index_type() has made one.  The executor's
 * state, its descriptions of the indexes and the expression of one of them take a
 * quarter as many instructions again as those entries.  So they are left out, and each
 * index gets its values directly.  Any other log, and one that may be another,
 * goes through the executor (log_insert.c).
 *
 * Whether the log is ordinary is decided each time it is opened, from the relation's own
 * entry in the server's cache, under RowExclusiveLock.  That lock keeps others from
 * adding triggers, columns, constraints and indexes until the transaction ends, and the
 * open relation keeps this session from it.  An index that is being made concurrently
 * is on the list of the table's indexes before any query may rely on its entries.  So
 * are the old and the new one during REINDEX CONCURRENTLY.
 *
 * Nothing is kept from one transaction to the next but the oids of the four indexes
 * (log_index.c), whose definitions never change.
 *
 * Indexes are locked with RowExclusiveLock, as by an INSERT, to the end of the
 * transaction: the server releases all locks together with less work than one by one.
 * ALTER INDEX ... SET TABLESPACE, the only statement that locks an index and not the
 * table, waits until then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

#include "eventstore.h"
#include "log/log.h"
#include "log/tags.h"

/* The unique ones, and that on category and position. */
#define ORDINARY_INDEXES	4

/* Room for the category of a stream, as a text. */
typedef union CategoryText
{
	text		value;
	char		room[VARHDRSZ + ES_MAX_STREAM_LENGTH];
} CategoryText;

/* Returns true if the row needs no more than our own columns. */
static bool
has_ordinary_columns(TupleDesc desc)
{
	const TupleConstr *constraints = desc->constr;

	return desc->natts == Natts_es_events &&
		(constraints == NULL || constraints->num_check == 0) &&
		!TupleDescAttr(desc, Anum_es_events_occurred_at - 1)->attnotnull &&
		!TupleDescAttr(desc, Anum_es_events_metadata - 1)->attnotnull &&
		!TupleDescAttr(desc, Anum_es_events_tags - 1)->attnotnull &&
		!TupleDescAttr(desc, Anum_es_events_body - 1)->attnotnull;
}

/* Returns true if its entries can be stored, and have the columns of its key alone. */
static bool
is_plain_index(Relation index)
{
	const		FormData_pg_index *form = index->rd_index;

	return form->indisvalid && form->indisready && form->indimmediate &&
		form->indnatts == form->indnkeyatts;
}

/* Returns true if it is one of the four. */
static bool
is_ordinary_index(const Log *log, Relation index)
{
	return index == log->id_index || index == log->version_index ||
		index == log->position_index || log_index_is_category(log->rel, index);
}

/* Returns true if these are the four, and indexes of types, whose types it notes. */
static bool
are_ordinary_indexes(Log *log)
{
	int			ordinary = 0;
	int			i;

	log->index_types = palloc0(sizeof(text *) * log->index_count);
	for (i = 0; i < log->index_count; i++)
	{
		if (!is_plain_index(log->indexes[i]))
			return false;
		if (is_ordinary_index(log, log->indexes[i]))
			ordinary++;
		else if ((log->index_types[i] = log_type_index_type(log->indexes[i])) == NULL)
			return false;
	}
	return ordinary == ORDINARY_INDEXES;
}

/* Opens all indexes of the table. */
static void
open_indexes(Log *log, List *oids)
{
	ListCell   *cell;

	log->indexes = palloc(sizeof(Relation) * list_length(oids));
	foreach(cell, oids)
		log->indexes[log->index_count++] = index_open(lfirst_oid(cell),
													  RowExclusiveLock);
}

/*
 * Closes the indexes.  The locks stay.
 */
void
log_direct_close(Log *log)
{
	int			i;

	for (i = 0; i < log->index_count; i++)
		index_close(log->indexes[i], NoLock);
	pfree(log->indexes);
	log->indexes = NULL;
	log->index_count = 0;
}

/*
 * Opens the indexes of an ordinary log.  Returns false if it is another one.
 */
bool
log_direct_open(Log *log)
{
	List	   *oids;

	if (!has_ordinary_columns(RelationGetDescr(log->rel)) ||
		log->rel->rd_rel->relispartition || log_insert_fires_others(log->rel->trigdesc))
		return false;
	oids = RelationGetIndexList(log->rel);
	if (list_length(oids) < ORDINARY_INDEXES)
		return false;
	open_indexes(log, oids);
	list_free(oids);
	log_index_find_all(log);
	if (are_ordinary_indexes(log))
		return true;
	log_direct_close(log);
	return false;
}

/* Makes the text that es_category() returns for the stream. */
static Datum
category_text(text *stream, CategoryText *category)
{
	int			length = stream_category_length(stream);

	SET_VARSIZE(category->room, VARHDRSZ + length);
	memcpy(category->room + VARHDRSZ, VARDATA_ANY(stream), length);
	return PointerGetDatum(category);
}

/*
 * Stores the entries of a row that was just stored, in the order in which the server
 * would.
 */
void
log_direct_insert_entries(Log *log, ItemPointer tid, const NewEvent *event)
{
	static IndexInfo none = {.type = T_IndexInfo};	/* a B-tree does not look
													 * at it */
	bool		nulls[2] = {false, false};
	CategoryText category;
	int			i;

	for (i = 0; i < log->index_count; i++)
	{
		Relation	index = log->indexes[i];
		Datum		values[2] = {0, 0};

		if (log->index_types[i] != NULL && !stream_equal(log->index_types[i], event->type))
			continue;
		if (index == log->id_index)
			values[0] = UUIDPGetDatum(&event->id);
		else if (index == log->position_index || log->index_types[i] != NULL)
			values[0] = Int64GetDatum(event->position);
		else if (index == log->version_index)
		{
			values[0] = PointerGetDatum(event->stream);
			values[1] = Int64GetDatum(event->version);
		}
		else
		{
			values[0] = category_text(event->stream, &category);
			values[1] = Int64GetDatum(event->position);
		}
		(void) index_insert(index, values, nulls, tid, log->rel,
							index->rd_index->indisunique ? UNIQUE_CHECK_YES :
							UNIQUE_CHECK_NO, false, &none);
	}
}
