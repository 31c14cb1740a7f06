/*-------------------------------------------------------------------------
 *
 * log_insert.c
 *		New rows of es_events.
 *
 * The rows go in through the table access method: there is no plan, no executor
 * node and no privilege check, since EXECUTE on the calling function is the
 * privilege.  Constraints, indexes and AFTER triggers on es_events are honoured
 * as an INSERT would.  Where there are no others than our own, log_direct.c stores the
 * index entries.
 *
 * Positions are drawn when nothing that the caller did wrong can fail any more,
 * in this order: a transaction id, the positions (log_sequence.c), the next_xid, the
 * rows, the entries of their tags (tag_entry.c).  The horizon depends on this order
 * (horizon.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "eventstore.h"
#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/tags.h"

/* Rows that go to the table access method at once, and their data's bytes. */
#define INSERT_CHUNK_ROWS	1000
#define INSERT_CHUNK_BYTES	65536

/*
 * Rows go to the end of the table.  The free space map would scatter small events over
 * pages that larger ones have left with some room: each append would dirty another old
 * page, frozen long ago, and write it to the WAL as a whole.  Once events were removed, it
 * leads to the space that they have left.
 */
#define INSERT_OPTIONS(log)	(removed_any((log)->rel) ? 0 : TABLE_INSERT_SKIP_FSM)

/* The trigger for rows that come otherwise (tag_entry.c). */
#define TAG_TRIGGER			"es_events_tag"

/* log_insert is firing triggers. */
static bool firing = false;

/*
 * Fills the slot with the event.
 */
void
log_fill_slot(TupleTableSlot *slot, const NewEvent *event,
			  FullTransactionId next_xid, TimestampTz now)
{
	Datum	   *values = slot->tts_values - 1;	/* columns count from 1 */
	bool	   *nulls = slot->tts_isnull - 1;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, Natts_es_events * sizeof(bool));

	values[Anum_es_events_position] = Int64GetDatum(event->position);
	values[Anum_es_events_version] = Int64GetDatum(event->version);
	values[Anum_es_events_next_xid] = FullTransactionIdGetDatum(next_xid);
	values[Anum_es_events_recorded_at] = TimestampTzGetDatum(now);
	values[Anum_es_events_occurred_at] =
		TimestampTzGetDatum(event->occurred_at);
	nulls[Anum_es_events_occurred_at] = !event->has_occurred_at;
	values[Anum_es_events_id] = UUIDPGetDatum(&event->id);
	values[Anum_es_events_stream] = PointerGetDatum(event->stream);
	values[Anum_es_events_type] = PointerGetDatum(event->type);
	values[Anum_es_events_data] = event->data;
	values[Anum_es_events_metadata] = event->metadata;
	nulls[Anum_es_events_metadata] = event->metadata == (Datum) 0;
	values[Anum_es_events_tags] = event->tags;
	nulls[Anum_es_events_tags] = event->tags == (Datum) 0;
	values[Anum_es_events_body] = event->body;
	nulls[Anum_es_events_body] = event->body == (Datum) 0;
}

/* Computes generated columns and checks constraints, those of a partition, too. */
static void
complete_row(Log *log, TupleTableSlot *slot)
{
	TupleConstr *constraints = log->rel->rd_att->constr;

	if (constraints != NULL)
	{
		if (constraints->has_generated_stored)
			ExecComputeStoredGenerated(log->relinfo, log->estate, slot,
									   CMD_INSERT);
		ExecConstraints(log->relinfo, slot, log->estate);
	}
	if (log->rel->rd_rel->relispartition)
		ExecPartitionCheck(log->relinfo, slot, log->estate, true);
}

/* Stores the index entries of a row, and queues row triggers, by the executor. */
static void
insert_entries(Log *log, TupleTableSlot *slot, TransitionCaptureState *capture)
{
	List	   *recheck = compat_insert_index_tuples(log->relinfo, slot, log->estate);

	ExecARInsertTriggers(log->estate, log->relinfo, slot, recheck, capture);
	ResetPerTupleExprContext(log->estate);
}

/*
 * Stores a chunk of rows and their index entries, and queues row triggers.
 */
static void
insert_rows(Log *log, TupleTableSlot **slots, const NewEvent *events, int count,
			TransitionCaptureState *capture)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(log->row_memory);
	int			i;

	if (count == 1)
		table_tuple_insert(log->rel, slots[0], log->cid, INSERT_OPTIONS(log), NULL);
	else
		table_multi_insert(log->rel, slots, count, log->cid, INSERT_OPTIONS(log), NULL);
	MemoryContextSwitchTo(oldcontext);

	for (i = 0; i < count; i++)
	{
		if (log->estate != NULL)
			insert_entries(log, slots[i], capture);
		else
			log_direct_insert_entries(log, &slots[i]->tts_tid, &events[i]);
	}
}

/* The bytes of a value, as they are before compression. */
static Size
raw_bytes(Datum value)
{
	return value ? toast_raw_datum_size(value) - VARHDRSZ : 0;
}

/* The number of events in the next chunk. */
static int
chunk_size(const NewEvent *events, int count)
{
	Size		bytes = 0;
	int			i;

	for (i = 0; i < count && i < INSERT_CHUNK_ROWS; i++)
	{
		bytes += toast_raw_datum_size(events[i].data) + raw_bytes(events[i].body);
		if (bytes > INSERT_CHUNK_BYTES)
			return i + 1;
	}
	return i;
}

/* Makes a row of the event, and checks it as an INSERT would. */
static void
make_row(Log *log, TupleTableSlot *slot, const NewEvent *event,
		 FullTransactionId next_xid, TimestampTz now)
{
	log_fill_slot(slot, event, next_xid, event->has_recorded_at ? event->recorded_at : now);
	if (log->added_columns != NIL)
		log_column_fill(log, slot);
	ExecStoreVirtualTuple(slot);
	if (log->estate != NULL)
		complete_row(log, slot);
}

/*
 * Stores all events, chunk by chunk; the slots of a chunk serve the next.
 */
static void
insert_chunks(Log *log, NewEvent *events, int count, FullTransactionId next_xid,
			  TransitionCaptureState *capture)
{
	TupleTableSlot *slots[INSERT_CHUNK_ROWS];
	TimestampTz now = GetCurrentTimestamp();
	int			made = 1;
	int			done;
	int			chunk;
	int			i;

	slots[0] = log->slot;
	for (done = 0; done < count; done += chunk)
	{
		CHECK_FOR_INTERRUPTS();
		chunk = chunk_size(events + done, count - done);
		for (i = 0; i < chunk; i++)
		{
			if (i == made)
				slots[made++] = table_slot_create(log->rel, &log->slots);
			make_row(log, slots[i], &events[done + i], next_xid, now);
		}
		insert_rows(log, slots, &events[done], chunk, capture);
		if (log->estate == NULL && count > 1)
			MemoryContextReset(log->row_memory);
	}
}

/*
 * Draws positions, in a transaction that has an id.
 */
void
log_draw(Log *log, NewEvent *events, int count)
{
	(void) GetTopTransactionId();
	log_sequence_draw(log, events, count);
}

/*
 * Draws the positions, unless that is done, and stores the rows.  The horizon depends on
 * the order of these steps.
 */
static void
draw_and_insert(Log *log, NewEvent *events, int count,
				TransitionCaptureState *capture)
{
	FullTransactionId next_xid;

	if (events[0].position == 0)
		log_draw(log, events, count);
	next_xid = ReadNextFullTransactionId();
	insert_chunks(log, events, count, next_xid, capture);
	tag_entry_insert(log, events, count);
}

/* Returns true if the violated constraint has this index of es_events. */
static bool
is_violation_of(Relation index, const Log *log, const ErrorData *error)
{
	return error->constraint_name != NULL && error->table_name != NULL &&
		strcmp(error->constraint_name, RelationGetRelationName(index)) == 0 &&
		strcmp(error->table_name, RelationGetRelationName(log->rel)) == 0 &&
		get_namespace_oid(error->schema_name, true) == RelationGetNamespace(log->rel);
}

/*
 * Turns a violation of one of our unique constraints into our own error.  The server
 * names the key only to a role that may read it.
 */
static void
translate_violation(Log *log, const NewEvent *events, int count,
					const ErrorData *error)
{
	const char *stream = events[0].stream == events[count - 1].stream ?
	psprintf("stream \"%s\"", text_to_cstring(events[0].stream)) :
	"one of several streams";
	const char *key = error->detail ? error->detail :
	"The key is shown only to roles that may read es_events.";

	if (is_violation_of(log->id_index, log, error))
		ereport(ERROR,
				(errcode(ERRCODE_ES_DUPLICATE_EVENT),
				 errmsg("duplicate event for %s", stream),
				 errdetail("%s", key),
				 errhint("Another transaction stored this id in another stream at the same moment; give every event an id of its own.")));
	if (is_violation_of(log->version_index, log, error))
	{
		stream_count_conflict(events[0].stream);
		ereport(ERROR,
				(errcode(ERRCODE_ES_WRONG_EXPECTED_VERSION),
				 errmsg("wrong expected version of %s", stream),
				 errdetail("%s", key),
				 errhint("Another transaction wrote to es_events directly; try again.")));
	}
	if (is_violation_of(log->position_index, log, error))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not append to %s: its position was taken", stream),
				 errdetail("%s", key),
				 errhint("Another transaction writes to es_events by INSERT or COPY; try again. Such a transaction should first LOCK TABLE es_events IN SHARE ROW EXCLUSIVE MODE.")));
}

/*
 * Stores the rows.  A unique violation means that another transaction stored the id
 * in another stream at the same moment, or wrote to es_events directly.  It is caught
 * only to be raised again as ES002, ES001 or 40001.
 */
static void
insert_or_translate(Log *log, NewEvent *events, int count,
					TransitionCaptureState *capture)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		draw_and_insert(log, events, count, capture);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		FlushErrorState();
		translate_violation(log, events, count, error);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * Counts an event that was stored.
 */
void
log_insert_count(const NewEvent *event, int appends)
{
	StatsEntry *stats = stream_stats(event->stream);

	stats_count_at_commit(stats, STATS_APPENDS, appends);
	stats_count_at_commit(stats, STATS_EVENTS, 1);
	stats_count_at_commit(stats, STATS_BYTES, raw_bytes(event->data) +
						  raw_bytes(event->metadata) + raw_bytes(event->body));
}

/*
 * Returns true if an append is firing its triggers.  Rows that are restored fire
 * triggers, too.
 */
bool
log_insert_is_firing(void)
{
	return firing;
}

/*
 * Stores the rows of a table with AFTER triggers or statement triggers, and fires
 * them.
 */
static void
insert_and_fire(Log *log, NewEvent *events, int count)
{
	TransitionCaptureState *capture;
	bool		was_firing = firing;

	AfterTriggerBeginQuery();
	capture = MakeTransitionCaptureState(log->relinfo->ri_TrigDesc,
										 RelationGetRelid(log->rel),
										 CMD_INSERT);
	ExecBSInsertTriggers(log->estate, log->relinfo);
	insert_or_translate(log, events, count, capture);
	PG_TRY();
	{
		firing = true;
		ExecASInsertTriggers(log->estate, log->relinfo, capture);
		AfterTriggerEndQuery(log->estate);
	}
	PG_FINALLY();
	{
		firing = was_firing;
	}
	PG_END_TRY();
}

/* Returns true if it is the trigger that stores entries of tags. */
static bool
is_tag_trigger(const Trigger *trigger)
{
	return strcmp(trigger->tgname, TAG_TRIGGER) == 0;
}

/* Returns true if an append fires the trigger. */
static bool
is_fired(const Trigger *trigger)
{
	if (!TRIGGER_FOR_INSERT(trigger->tgtype))
		return false;
	if (TRIGGER_FOR_ROW(trigger->tgtype))
		return TRIGGER_FOR_AFTER(trigger->tgtype);
	return trigger->tgenabled != TRIGGER_DISABLED;
}

/*
 * Returns true if an append has AFTER row triggers, or statement triggers to fire, other
 * than ours, which has nothing to do for rows that are appended.  Statement triggers that
 * are disabled, such as one that a sync projection has left, cost no more than this look
 * at them.  The server asks for itself which row triggers are disabled, and expects to be
 * ready for them.
 */
bool
log_insert_fires_others(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_fired(&triggers->triggers[i]) && !is_tag_trigger(&triggers->triggers[i]))
			return true;
	}
	return false;
}

/*
 * The same with ours: the executor would queue it.
 */
bool
log_insert_fires(const TriggerDesc *triggers)
{
	return triggers != NULL &&
		(triggers->trig_insert_after_row || log_insert_fires_others(triggers));
}

/*
 * The memory for what toasting and the like leave.  One row without the executor leaves
 * little, which goes with the caller's memory.
 */
static MemoryContext
memory_for_rows(Log *log, int count)
{
	if (log->estate != NULL)
		return GetPerTupleMemoryContext(log->estate);
	return count == 1 ? CurrentMemoryContext :
		AllocSetContextCreate(CurrentMemoryContext, "eventstore rows",
							  ALLOCSET_DEFAULT_SIZES);
}

/*
 * Stores events that have their streams and versions.
 */
void
log_insert(Log *log, NewEvent *events, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		if (!events[i].has_id)
			uuid_generate_v7(&events[i].id);
	}
	log->cid = GetCurrentCommandId(true);
	log->row_memory = memory_for_rows(log, count);
	if (log->estate != NULL && log_insert_fires(log->relinfo->ri_TrigDesc))
		insert_and_fire(log, events, count);
	else
		insert_or_translate(log, events, count, NULL);
	if (log->estate == NULL && count > 1)
		MemoryContextDelete(log->row_memory);
	for (i = 0; i < count; i++)
	{
		if (i + 1 == count || events[i + 1].stream != events[i].stream)
			log_remember_version(events[i].stream, events[i].version);
	}

	/* The next append in this command must see these events. */
	CommandCounterIncrement();
}
