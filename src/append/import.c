/*-------------------------------------------------------------------------
 *
 * import.c
 *		The view es_import: INSERT and COPY append to the log.
 *
 * An INSTEAD OF row trigger checks a row and keeps it; a full chunk, and at
 * the end of the statement an AFTER statement trigger, append what is kept:
 *
 *	1. give those rows ids whose types have a composite key (event_check.c);
 *	2. lock the stream of each row (see stream.c for what happens with many),
 *	   then open the log;
 *	3. a row whose id is stored in the same stream, or came before in the
 *	   chunk, is a retry and is left out; an id of another stream is ES002;
 *	4. number the rows of each stream from its last version on, which is
 *	   looked up once a chunk: triggers of the chunk before may have appended;
 *	5. check them against the definitions of their types: ES004;
 *	6. hand the rows to the log, remember whom to wake.
 *
 * Statements nest: what feeds an INSERT may itself insert here, and fail and
 * be caught.  So each subtransaction keeps rows of its own, in its memory: a
 * flush takes those of the present one, a rollback forgets them.  A statement
 * flushes before its subtransaction ends, which is checked at commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/detoast.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "stats/stats.h"
#include "log/log.h"
#include "notify/notify.h"
#include "type/type.h"
#include "append/append.h"

/* A chunk is appended when it has so many rows, or bytes of data. */
#define IMPORT_CHUNK_ROWS	1000
#define IMPORT_CHUNK_BYTES	(1024 * 1024)

/* Columns of es_import. */
enum
{
	Anum_es_import_stream = 1,
	Anum_es_import_type,
	Anum_es_import_data,
	Anum_es_import_metadata,
	Anum_es_import_id,
	Anum_es_import_occurred_at,
	Natts_es_import = Anum_es_import_occurred_at
};

PG_FUNCTION_INFO_V1(es_import_row);
PG_FUNCTION_INFO_V1(es_import_flush);

/* Rows of one subtransaction that wait to be appended. */
typedef struct Import
{
	struct Import *outer;		/* of a subtransaction around this one */
	SubTransactionId subid;
	MemoryContext context;		/* this struct and the rows' values */
	NewEvent	rows[IMPORT_CHUNK_ROWS];
	int			count;
	Size		bytes;			/* of data and metadata in the rows */
} Import;

/* The last version of a stream, within a chunk. */
typedef struct StreamVersion
{
	text	   *stream;
	int64		version;
	uint32		hash;
	char		status;			/* for simplehash */
} StreamVersion;

/* An id that a chunk gives. */
typedef struct ChunkId
{
	pg_uuid_t	id;
	text	   *stream;
} ChunkId;

static Import *import = NULL;	/* the innermost; in CurTransactionContext */

#define SH_PREFIX versions
#define SH_ELEMENT_TYPE StreamVersion
#define SH_KEY_TYPE text *
#define SH_KEY stream
#define SH_HASH_KEY(tb, key) ((uint32) stream_hash(key))
#define SH_EQUAL(tb, a, b) stream_equal(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"
#include "utils/timestamp.h"

/*
 * The rows of the present subtransaction.
 */
static Import *
get_import(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	MemoryContext context;
	Import	   *made;

	if (import != NULL && import->subid == subid)
		return import;
	context = AllocSetContextCreate(CurTransactionContext,
									"eventstore import",
									ALLOCSET_DEFAULT_SIZES);
	made = MemoryContextAllocZero(context, sizeof(Import));
	made->context = context;
	made->subid = subid;
	made->outer = import;
	import = made;
	return made;
}

/* A column's value; an error if it is null. */
static Datum
required(HeapTuple tuple, TupleDesc desc, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						NameStr(TupleDescAttr(desc, column - 1)->attname)),
				 errdetail("Column %d of a row of es_import is null.",
						   column)));
	return value;
}

/* A copy that needs no other table's toast. */
static Datum
keep_jsonb(Datum value)
{
	struct varlena *given = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(given))
		return PointerGetDatum(detoast_external_attr(given));
	return datumCopy(value, false, -1);
}

/*
 * Checks a row and reads it into an event, copied into the current context.
 */
static void
read_row(NewEvent *event, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value;

	memset(event, 0, sizeof(NewEvent));
	event->stream = DatumGetTextPCopy(required(tuple, desc,
											   Anum_es_import_stream));
	stream_check_name(event->stream);
	event->type = DatumGetTextPCopy(required(tuple, desc,
											 Anum_es_import_type));
	event_check_type_name(event->type);
	event->data = keep_jsonb(required(tuple, desc, Anum_es_import_data));
	value = heap_getattr(tuple, Anum_es_import_metadata, desc, &isnull);
	if (!isnull)
	{
		event_check_metadata(value);
		event->metadata = keep_jsonb(value);
	}
	value = heap_getattr(tuple, Anum_es_import_id, desc, &isnull);
	event->has_id = !isnull;
	if (event->has_id)
		event->id = *DatumGetUUIDP(value);
	value = heap_getattr(tuple, Anum_es_import_occurred_at, desc, &isnull);
	event->has_occurred_at = !isnull;
	if (event->has_occurred_at)
		event->occurred_at = DatumGetTimestampTz(value);
}

/* The bytes of what may be large. */
static Size
row_size(const NewEvent *row)
{
	Size		size = VARSIZE_ANY(DatumGetPointer(row->data));

	if (row->metadata)
		size += VARSIZE_ANY(DatumGetPointer(row->metadata));
	return size;
}

/*
 * Is the row's event stored already, or given before in the chunk?
 */
static bool
is_retry(Log *log, HTAB *ids, const NewEvent *row)
{
	StoredEvent stored;
	ChunkId    *given;
	bool		found;

	if (!row->has_id)
		return false;
	given = hash_search(ids, &row->id, HASH_ENTER, &found);
	if (!found)
		given->stream = row->stream;
	else if (!stream_equal(given->stream, row->stream))
		log_fail_duplicate(&row->id,
						   psprintf("The id is given for stream \"%s\" and again for stream \"%s\".",
									text_to_cstring(given->stream),
									text_to_cstring(row->stream)));
	if (found)
		return true;
	if (!log_find_id(log, &row->id, row->stream, &stored))
		return false;
	if (!stored.same_stream)
		log_fail_duplicate(&row->id, stored.place);
	return true;
}

/* The version that the next event of the stream gets. */
static int64
next_version(Log *log, versions_hash *versions, text *stream)
{
	bool		found;
	StreamVersion *last = versions_insert(versions, stream, &found);

	if (!found)
		last->version = log_last_version(log, stream, 0);
	if (last->version == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("stream \"%s\" is full", text_to_cstring(stream)),
				 errdetail("Its version is " INT64_FORMAT ".",
						   last->version)));
	return ++last->version;
}

/*
 * Numbers the rows, moves those that are to be stored to the front and
 * returns how many they are.
 */
static int
number_rows(Log *log, NewEvent *rows, int count)
{
	HASHCTL		control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(ChunkId),
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *ids = hash_create("eventstore import ids", count, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	versions_hash *versions = versions_create(CurrentMemoryContext, count,
											  NULL);
	int			kept = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (is_retry(log, ids, &rows[i]))
		{
			stats_count(stream_stats(rows[i].stream), STATS_DUPLICATES, 1);
			continue;
		}
		rows[kept] = rows[i];
		rows[kept].version = next_version(log, versions, rows[kept].stream);
		kept++;
	}
	return kept;
}

/*
 * Appends the rows.
 */
static void
append_rows(Oid funcid, NewEvent *rows, int count)
{
	Oid			relid = log_relid(funcid);
	Log		   *log;
	int			kept;
	int			i;

	event_identify(relid, rows, count);
	for (i = 0; i < count; i++)
		stream_lock(relid, rows[i].stream);
	log = log_open(relid);
	kept = number_rows(log, rows, count);
	event_check(relid, rows, kept);
	if (kept > 0)
	{
		notify_wake_at_end();
		log_insert(log, rows, kept);
		for (i = 0; i < kept; i++)
			log_insert_count(&rows[i], 1);
		notify_events(rows, kept);
	}
	log_close(log);
}

/*
 * Appends what the present subtransaction has kept.  Triggers that fire
 * meanwhile may import rows of their own, so that these are taken out first.
 */
static void
flush(Oid funcid)
{
	Import	   *full = import;
	MemoryContext oldcontext;

	if (full == NULL || full->subid != GetCurrentSubTransactionId())
		return;
	import = full->outer;
	oldcontext = MemoryContextSwitchTo(full->context);
	append_rows(funcid, full->rows, full->count);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(full->context);
}

/*
 * The trigger's data, for an INSERT into the view that eventstore made: what
 * comes through here is appended without a check of privileges.
 */
static TriggerData *
check_insert(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_import");

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		RelationGetNumberOfAttributes(trigger->tg_relation) != Natts_es_import)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called by INSERT",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errdetail("The view has %d columns, eventstore made %d.",
						   RelationGetNumberOfAttributes(trigger->tg_relation),
						   Natts_es_import)));
	return trigger;
}

/*
 * INSTEAD OF INSERT: keeps a row.
 */
Datum
es_import_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = check_insert(fcinfo);
	Import	   *rows;
	NewEvent   *row;
	MemoryContext oldcontext;

	rows = get_import();
	row = &rows->rows[rows->count];
	oldcontext = MemoryContextSwitchTo(rows->context);
	read_row(row, trigger->tg_trigtuple,
			 RelationGetDescr(trigger->tg_relation));
	MemoryContextSwitchTo(oldcontext);
	rows->count++;
	rows->bytes += row_size(row);
	if (rows->count == IMPORT_CHUNK_ROWS || rows->bytes > IMPORT_CHUNK_BYTES)
		flush(fcinfo->flinfo->fn_oid);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * AFTER INSERT, once a statement: appends the rest.
 */
Datum
es_import_flush(PG_FUNCTION_ARGS)
{
	(void) check_insert(fcinfo);
	flush(fcinfo->flinfo->fn_oid);
	return PointerGetDatum(NULL);
}

static void
import_at_transaction_end(XactEvent event, void *arg)
{
	if (import == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		elog(ERROR, "%d rows of es_import were not appended", import->count);
	import = NULL;
}

static void
import_at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (import != NULL && import->subid >= subid)
		import = import->outer;
}

/*
 * Asks to be told of transactions' ends.
 */
void
import_init(void)
{
	RegisterXactCallback(import_at_transaction_end, NULL);
	RegisterSubXactCallback(import_at_subtransaction_end, NULL);
}
