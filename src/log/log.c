/*-------------------------------------------------------------------------
 *
 * log.c
 *		The table es_events: look-ups for an append, and the append itself.
 *
 * Who appends to a stream keeps this order (design and proof: doc/append.md):
 *
 *	1. lock the stream (stream.c), to the end of the transaction;
 *	2. log_open: RowExclusiveLock on es_events, to the end of the transaction,
 *	   and a snapshot that sees all that is committed now;
 *	3. look up ids (log_find_id), the last version (log_last_version), and
 *	   raise whatever the caller did wrong;
 *	4. log_insert: a transaction id, then the positions, then the next_xid, then
 *	   the rows;
 *	5. log_close: AFTER triggers fire here.
 *
 * The horizon (horizon.c) relies on 2 and 4: whoever owns a position held the
 * lock and had a transaction id before it drew the position, and an event's
 * next_xid is the next transaction id at a moment after its position was drawn.
 *
 * The rows go in through the table access method: there is no plan, no
 * executor node and no privilege check, since EXECUTE on the calling function
 * is the privilege.  Constraints, indexes and AFTER triggers on es_events are
 * honoured as an INSERT would; BEFORE INSERT row triggers are refused, as they
 * could change what the order above relies on.  Our own, es_events_complete, is
 * for rows that come by INSERT or COPY, from a dump say.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/sequence.h"
#include "executor/nodeModifyTable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "eventstore.h"
#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"

#define CATEGORY_INDEX "es_events_category_position_idx"

PG_FUNCTION_INFO_V1(es_events_refuse);
PG_FUNCTION_INFO_V1(es_events_complete);

/* The trigger for rows that are not appended by us. */
#define COMPLETE_TRIGGER "es_events_complete"

/* Rows that go to the table access method at once, and their data's bytes. */
#define INSERT_CHUNK_ROWS	1000
#define INSERT_CHUNK_BYTES	65536

/* Streams whose last version a backend remembers: 16 kB. */
#define VERSION_GUESSES		1024

/* Is log_insert firing triggers? */
static bool appending = false;

/* How deep in triggers one UPDATE is allowed; -1: none is. */
static int	rewrite_depth = -1;

/*
 * The relation of this name in the schema of one of our functions.
 */
static Oid
sibling_relid(Oid namespace, const char *name)
{
	Oid			relid = get_relname_relid(name, namespace);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of eventstore does not exist", name),
				 errdetail("There is none in schema \"%s\".",
						   get_namespace_name(namespace)),
				 errhint("Create the extension again.")));
	return relid;
}

/*
 * The oid of es_events, which is in the schema of every function of ours.
 */
Oid
log_relid(Oid funcid)
{
	return sibling_relid(get_func_namespace(funcid), "es_events");
}

/* A type's name must not be empty or long. */
void
event_check_type_name(text *type)
{
	int			length = VARSIZE_ANY_EXHDR(type);

	if (length == 0 || length > ES_MAX_TYPE_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 length == 0 ?
				 errmsg("an event's type must not be empty") :
				 errmsg("an event's type is too long"),
				 errdetail("The type has %d bytes, the limit is %d: a type is a name, not a text.",
						   length, ES_MAX_TYPE_LENGTH),
				 errhint("Name what happened, such as 'deposited', and put the rest into data.")));
}

/* Metadata is an object, so that more can be added to it. */
void
event_check_metadata(Datum metadata)
{
	Jsonb	   *object = DatumGetJsonbP(metadata);

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be an object"),
				 errdetail("The metadata is %s.",
						   JB_ROOT_IS_SCALAR(object) ? "a scalar" : "an array"),
				 errhint("Give an object, such as '{\"correlation_id\": \"...\"}', or null.")));
}

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
static Relation
find_index(ResultRelInfo *relinfo, AttrNumber first, AttrNumber second)
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
 * Refuses triggers that could change or skip a row that is numbered.  Our own
 * is for rows that come by INSERT and COPY.
 */
static void
check_triggers(ResultRelInfo *relinfo)
{
	TriggerDesc *triggers = relinfo->ri_TrigDesc;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								 TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT) &&
			strcmp(trigger->tgname, COMPLETE_TRIGGER) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE INSERT row trigger"),
					 errdetail("Trigger \"%s\" could change or skip an event that has its position.",
							   trigger->tgname),
					 errhint("Use a CHECK constraint or an AFTER trigger, whose error refuses the append.")));
	}
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

/*
 * Opens es_events for appending.  The stream must be locked before, so that
 * the snapshot sees its last event.
 */
Log *
log_open(Oid relid)
{
	Log		   *log = palloc0(sizeof(Log));
	MemoryContext oldcontext;

	LockRelationOid(relid, RowExclusiveLock);
	log->estate = CreateExecutorState();
	oldcontext = MemoryContextSwitchTo(log->estate->es_query_cxt);

	/* The server makes the ResultRelInfo: its size varies in minor releases */
	log->relinfo = ExecGetTriggerResultRel(log->estate, relid, NULL);
	log->estate->es_trig_target_relations = NIL;
	log->estate->es_opened_result_relations = list_make1(log->relinfo);
	log->rel = log->relinfo->ri_RelationDesc;
	check_triggers(log->relinfo);
	ExecOpenIndices(log->relinfo, false);
	log->id_index = find_index(log->relinfo, Anum_es_events_id,
							   InvalidAttrNumber);
	log->version_index = find_index(log->relinfo, Anum_es_events_stream,
									Anum_es_events_version);
	log->slot = table_slot_create(log->rel, &log->estate->es_tupleTable);
	log->sequence = sibling_relid(RelationGetNamespace(log->rel),
								  "es_position");
	MemoryContextSwitchTo(oldcontext);

	log->latest = RegisterSnapshot(GetLatestSnapshot());
	return log;
}

/*
 * Closes what log_open opened; the lock stays to the end of the transaction.
 */
void
log_close(Log *log)
{
	UnregisterSnapshot(log->latest);
	ExecResetTupleTable(log->estate->es_tupleTable, false);
	ExecCloseResultRelations(log->estate);
	table_close(log->rel, NoLock);
	FreeExecutorState(log->estate);
	pfree(log);
}

/*
 * Fetches the last row that an index has for the keys into log->slot.
 */
static bool
fetch_last(Log *log, Relation index, ScanKey keys, int nkeys)
{
	IndexScanDesc scan;
	bool		found;

	scan = compat_index_beginscan(log->rel, index, log->latest, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, log->slot);
	index_endscan(scan);		/* the slot has a pin of its own */
	return found;
}

static Datum
fetched(Log *log, AttrNumber column)
{
	bool		isnull;

	return slot_getattr(log->slot, column, &isnull);
}

/* What a backend has last seen as the version of a stream: only a guess. */
typedef struct VersionGuess
{
	uint64		hash;			/* of the stream's name */
	int64		version;
} VersionGuess;

/*
 * Where the guess of a stream is kept; version 0 if it was another stream's.
 */
static VersionGuess *
version_guess(text *stream)
{
	static VersionGuess guesses[VERSION_GUESSES];
	uint64		hash = stream_hash(stream);
	VersionGuess *guess = &guesses[hash % VERSION_GUESSES];

	if (guess->hash != hash)
	{
		guess->hash = hash;
		guess->version = 0;
	}
	return guess;
}

/*
 * Fetches the stream's last event among those whose version compares so with
 * the given one into log->slot.
 */
static bool
fetch_version(Log *log, text *stream, StrategyNumber strategy,
			  RegProcedure compare, int64 version)
{
	ScanKeyData keys[2];

	table_row_key(&keys[0], log->version_index, 1, BTEqualStrategyNumber,
				  F_TEXTEQ, PointerGetDatum(stream));
	table_row_key(&keys[1], log->version_index, 2, strategy, compare,
				  Int64GetDatum(version));
	return fetch_last(log, log->version_index, keys, 2);
}

/* The stream's last version, if it is not below at_least; else 0. */
static int64
last_version_from(Log *log, text *stream, int64 at_least)
{
	if (!fetch_version(log, stream, BTGreaterEqualStrategyNumber, F_INT8GE,
					   at_least))
		return 0;
	return DatumGetInt64(fetched(log, Anum_es_events_version));
}

/*
 * The last version of the stream, 0 for a stream without events.  expected: a
 * version if the caller expects one.
 *
 * An index scan reads all entries on a page that fit its keys.  Of a long
 * stream these are a hundred, four times the work of finding the page, so that
 * it pays to look from a guess on first: the expected version, or the last
 * that this backend has seen.
 */
int64
log_last_version(Log *log, text *stream, int64 expected)
{
	int64		guess = expected > 0 ? expected : version_guess(stream)->version;
	int64		last = 0;

	if (guess > 0)
		last = last_version_from(log, stream, guess);
	if (last == 0)
		last = last_version_from(log, stream, 0);
	return last;
}

/*
 * The position of an event that is known to be stored.
 */
int64
log_position(Log *log, text *stream, int64 version)
{
	if (!fetch_version(log, stream, BTEqualStrategyNumber, F_INT8EQ, version))
		elog(ERROR, "event " INT64_FORMAT " of a stream is missing", version);
	return DatumGetInt64(fetched(log, Anum_es_events_position));
}

/*
 * May the caller be told where events are that are not his?
 */
static bool
may_read(Log *log)
{
	Oid			relid = RelationGetRelid(log->rel);

	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}

/*
 * Finds the stored event with this id; compares its stream with "stream".
 */
bool
log_find_id(Log *log, const pg_uuid_t *id, text *stream, StoredEvent *found)
{
	ScanKeyData key;
	text	   *its_stream;

	table_row_key(&key, log->id_index, 1, BTEqualStrategyNumber, F_UUID_EQ,
				  UUIDPGetDatum(id));
	if (!fetch_last(log, log->id_index, &key, 1))
		return false;

	found->version = DatumGetInt64(fetched(log, Anum_es_events_version));
	found->position = DatumGetInt64(fetched(log, Anum_es_events_position));
	its_stream = DatumGetTextPP(fetched(log, Anum_es_events_stream));
	found->same_stream = stream_equal(its_stream, stream);
	if (!found->same_stream)
		found->place = may_read(log) ?
			psprintf("The id is stored in stream \"%s\" at version " INT64_FORMAT ".",
					 text_to_cstring(its_stream), found->version) :
			"The id is stored in another stream.";
	return true;
}

/*
 * Raises ES002: the id belongs to another event.  why: a sentence.
 */
void
log_fail_duplicate(const pg_uuid_t *id, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_DUPLICATE_EVENT),
			 errmsg("duplicate event %s", uuid_to_cstring(id)),
			 errdetail("%s", why),
			 errhint("Give every event an id of its own; a retry repeats the whole append with the same ids in the same stream.")));
}

/*
 * Fills the slot with the event.
 */
static void
fill_slot(TupleTableSlot *slot, const NewEvent *event,
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
	ExecStoreVirtualTuple(slot);
}

/* What the table's owner may have added: generated columns, constraints. */
static void
complete_row(Log *log, TupleTableSlot *slot)
{
	TupleConstr *constraints = log->rel->rd_att->constr;

	if (constraints == NULL)
		return;
	if (constraints->has_generated_stored)
		ExecComputeStoredGenerated(log->relinfo, log->estate, slot,
								   CMD_INSERT);
	ExecConstraints(log->relinfo, slot, log->estate);
}

/*
 * Stores a chunk of rows and their index entries, and queues row triggers.
 */
static void
insert_rows(Log *log, TupleTableSlot **slots, int count,
			TransitionCaptureState *capture)
{
	CommandId	cid = log->estate->es_output_cid;
	MemoryContext oldcontext;
	int			i;

	/* what toasting and the like leave goes with the tuple's context */
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(log->estate));
	if (count == 1)
		table_tuple_insert(log->rel, slots[0], cid, 0, NULL);
	else
		table_multi_insert(log->rel, slots, count, cid, 0, NULL);
	MemoryContextSwitchTo(oldcontext);

	for (i = 0; i < count; i++)
	{
		List	   *recheck = compat_insert_index_tuples(log->relinfo,
														 slots[i],
														 log->estate);

		ExecARInsertTriggers(log->estate, log->relinfo, slots[i], recheck,
							 capture);
		ResetPerTupleExprContext(log->estate);
	}
}

/* How many of the events make the next chunk. */
static int
chunk_size(const NewEvent *events, int count)
{
	Size		bytes = 0;
	int			i;

	for (i = 0; i < count && i < INSERT_CHUNK_ROWS; i++)
	{
		bytes += toast_raw_datum_size(events[i].data);
		if (bytes > INSERT_CHUNK_BYTES)
			return i + 1;
	}
	return i;
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
				slots[made++] = table_slot_create(log->rel,
												  &log->estate->es_tupleTable);
			fill_slot(slots[i], &events[done + i], next_xid, now);
			complete_row(log, slots[i]);
		}
		insert_rows(log, slots, chunk, capture);
	}
}

/*
 * Draws the positions and stores the rows.  The order of these steps is what
 * the horizon stands on.
 */
static void
draw_and_insert(Log *log, NewEvent *events, int count,
				TransitionCaptureState *capture)
{
	FullTransactionId next_xid;
	int			i;

	(void) GetTopTransactionId();
	for (i = 0; i < count; i++)
		events[i].position = nextval_internal(log->sequence, false);
	next_xid = ReadNextFullTransactionId();
	insert_chunks(log, events, count, next_xid, capture);
}

/*
 * Turns a violation of one of our unique indexes into our own error.  The
 * server tells the key only to who may read it.
 */
static void
translate_violation(Log *log, const NewEvent *events, int count,
					const ErrorData *error)
{
	const char *index = error->constraint_name;
	const char *stream = events[0].stream == events[count - 1].stream ?
	psprintf("stream \"%s\"", text_to_cstring(events[0].stream)) :
	"one of several streams";
	const char *key = error->detail ? error->detail :
	"The key is not shown to who may not read es_events.";

	if (index == NULL)
		return;
	if (strcmp(index, RelationGetRelationName(log->id_index)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_DUPLICATE_EVENT),
				 errmsg("duplicate event for %s", stream),
				 errdetail("%s", key),
				 errhint("Another transaction stored this id in another stream at the same moment; give every event an id of its own.")));
	if (strcmp(index, RelationGetRelationName(log->version_index)) == 0)
	{
		stream_conflict(events[0].stream);
		ereport(ERROR,
				(errcode(ERRCODE_ES_WRONG_EXPECTED_VERSION),
				 errmsg("wrong expected version of %s", stream),
				 errdetail("%s", key),
				 errhint("Somebody wrote to es_events without es_append; try again.")));
	}
}

/*
 * Stores the rows.  A unique violation means that somebody stored the id in
 * another stream at the same moment, or wrote to es_events without us; it is
 * caught only to be raised again as ES002 or ES001.
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

/* The bytes of a value, as they are before compression. */
static Size
raw_bytes(Datum value)
{
	return value ? toast_raw_datum_size(value) - VARHDRSZ : 0;
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
						  raw_bytes(event->metadata));
}

/*
 * Is an append firing its triggers?  Rows that are restored fire them, too.
 */
bool
log_insert_is_firing(void)
{
	return appending;
}

/*
 * Does the same for a table with AFTER triggers or statement triggers.
 */
static void
insert_and_fire(Log *log, NewEvent *events, int count)
{
	TransitionCaptureState *capture;
	bool		was_appending = appending;

	AfterTriggerBeginQuery();
	capture = MakeTransitionCaptureState(log->relinfo->ri_TrigDesc,
										 RelationGetRelid(log->rel),
										 CMD_INSERT);
	ExecBSInsertTriggers(log->estate, log->relinfo);
	insert_or_translate(log, events, count, capture);
	PG_TRY();
	{
		appending = true;
		ExecASInsertTriggers(log->estate, log->relinfo, capture);
		AfterTriggerEndQuery(log->estate);
	}
	PG_FINALLY();
	{
		appending = was_appending;
	}
	PG_END_TRY();
}

/*
 * Appends the events, whose stream and version are set, and fires the
 * triggers.  Fills in id and position.
 */
void
log_insert(Log *log, NewEvent *events, int count)
{
	TriggerDesc *triggers = log->relinfo->ri_TrigDesc;
	int			i;

	for (i = 0; i < count; i++)
	{
		if (!events[i].has_id)
			uuid_generate_v7(&events[i].id);
	}
	log->estate->es_output_cid = GetCurrentCommandId(true);
	if (triggers != NULL &&
		(triggers->trig_insert_before_statement ||
		 triggers->trig_insert_after_row ||
		 triggers->trig_insert_after_statement))
		insert_and_fire(log, events, count);
	else
		insert_or_translate(log, events, count, NULL);
	for (i = 0; i < count; i++)
	{
		if (i + 1 == count || events[i + 1].stream != events[i].stream)
			version_guess(events[i].stream)->version = events[i].version;
	}

	/* The next append in this command must see these events. */
	CommandCounterIncrement();
}

/*
 * The trigger's data; an error if the function is called by hand, or for
 * another relation than the one of this name that eventstore made.
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
				 errdetail("It was called for another purpose.")));
	return trigger;
}

/*
 * BEFORE INSERT of a row that does not come from here but from a dump, say:
 * its next_xid is of another cluster, and is replaced by one of this.
 */
Datum
es_events_complete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	int			column = Anum_es_events_next_xid;
	Datum		next_xid;
	bool		isnull = false;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called by INSERT",
						COMPLETE_TRIGGER),
				 errdetail("It belongs to the table es_events.")));
	(void) GetCurrentTransactionId();
	next_xid = FullTransactionIdGetDatum(ReadNextFullTransactionId());
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 1, &column, &next_xid,
													 &isnull));
}

/* How many triggers deep we are. */
static int
trigger_depth(void)
{
	return DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH));
}

/*
 * Allows the next UPDATE of es_events that the caller himself runs, or no more.
 * Whatever a trigger runs meanwhile is deeper, and is not meant.
 */
void
log_guard_allow_rewrite(bool allow)
{
	rewrite_depth = allow ? trigger_depth() : -1;
}

/* Is this UPDATE the one that is allowed?  Then it was the last. */
static bool
take_rewrite(void)
{
	if (rewrite_depth < 0 || trigger_depth() != rewrite_depth + 1)
		return false;
	rewrite_depth = -1;
	return true;
}

/*
 * BEFORE UPDATE OR DELETE OR TRUNCATE of es_events: refuses it, but for the
 * one UPDATE of es_rewrite().
 */
Datum
es_events_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");

	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && take_rewrite())
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events cannot be changed or removed"),
			 errdetail("%s of \"%s\" was refused.",
					   TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE" :
					   TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE" :
					   "TRUNCATE",
					   RelationGetRelationName(trigger->tg_relation)),
			 errhint("Append an event that corrects the earlier one.")));
	return PointerGetDatum(NULL);
}
