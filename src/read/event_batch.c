/*-------------------------------------------------------------------------
 *
 * event_batch.c
 *		Events that were read together: rows of es_events in a tuplestore.
 *
 * Rows are kept as they are stored, or with our columns alone; both can be read
 * through a slot that has the columns of the log.  They are presented when they
 * are given to users (present.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "base/base.h"
#include "log/log.h"
#include "read/read.h"

Tuplestorestate *
event_batch_make(void)
{
	return tuplestore_begin_heap(false, false, work_mem);
}

TupleTableSlot *
event_slot_make(Relation log)
{
	return MakeSingleTupleTableSlot(RelationGetDescr(log),
									&TTSOpsMinimalTuple);
}

int64
event_batch_last_position(Oid relid, Tuplestorestate *events)
{
	Relation	log = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = event_slot_make(log);
	int64		position;
	bool		isnull;

	tuplestore_rescan(events);
	tuplestore_skiptuples(events, tuplestore_tuple_count(events) - 1, true);
	(void) tuplestore_gettupleslot(events, true, false, slot);
	position = DatumGetInt64(slot_getattr(slot, Anum_es_events_position,
										  &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_close(log, AccessShareLock);
	return position;
}
