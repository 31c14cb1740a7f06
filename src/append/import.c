/*-------------------------------------------------------------------------
 *
 * import.c
 *		The view es_import: INSERT and COPY append to the log.
 *
 * An INSTEAD OF row trigger checks a row and keeps it.  Rows are appended (write.c)
 * when a chunk is full, and at the end of the statement by an AFTER statement
 * trigger.  Each row is by itself: it expects nothing of its stream, and is left
 * out if it is a retry.  A chunk looks up the versions of its streams anew, as
 * triggers of the chunk before may have appended to them.
 *
 * Statements nest: a function that feeds an INSERT may itself insert here, and fail
 * and be caught.  So each subtransaction has rows of its own, in its memory.  A flush
 * takes those of the current one, a rollback forgets them.  A statement flushes before
 * its subtransaction ends, which is checked at commit.
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
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/log.h"
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

static Import *import = NULL;	/* the innermost; in CurTransactionContext */

/*
 * The rows of the current subtransaction.
 */
static Import *
current_import(void)
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
required_column(HeapTuple tuple, TupleDesc desc, AttrNumber column)
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
copy_jsonb(Datum value)
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
read_import_row(NewEvent *event, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value;

	memset(event, 0, sizeof(NewEvent));
	event->stream = DatumGetTextPCopy(required_column(tuple, desc,
													  Anum_es_import_stream));
	stream_check_name(event->stream);
	event->type = DatumGetTextPCopy(required_column(tuple, desc,
													Anum_es_import_type));
	event_check_type_name(event->type);
	event->data = copy_jsonb(required_column(tuple, desc, Anum_es_import_data));
	value = heap_getattr(tuple, Anum_es_import_metadata, desc, &isnull);
	if (!isnull)
	{
		event_check_metadata(value);
		event->metadata = copy_jsonb(value);
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

/* The bytes of data and metadata, which may be large. */
static Size
import_row_size(const NewEvent *row)
{
	Size		size = VARSIZE_ANY(DatumGetPointer(row->data));

	if (row->metadata)
		size += VARSIZE_ANY(DatumGetPointer(row->metadata));
	return size;
}

/*
 * Appends the rows of the current subtransaction.  They are taken out first, since
 * triggers that fire meanwhile may import rows of their own.
 */
static void
append_rows(Oid funcid)
{
	Import	   *full = import;
	Write		write = {.expected = EXPECTED_ANY};
	MemoryContext oldcontext;

	if (full == NULL || full->subid != GetCurrentSubTransactionId())
		return;
	import = full->outer;
	oldcontext = MemoryContextSwitchTo(full->context);
	write.log = log_relid(funcid);
	write.events = full->rows;
	write.count = full->count;
	write_events(&write);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(full->context);
}

/*
 * The trigger's data, for an INSERT into the view that eventstore made, since rows are
 * appended without a check of privileges.
 */
static TriggerData *
import_trigger_data(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_import");

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		RelationGetNumberOfAttributes(trigger->tg_relation) != Natts_es_import)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called by INSERT",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errdetail("The view has %d columns instead of %d.",
						   RelationGetNumberOfAttributes(trigger->tg_relation),
						   Natts_es_import)));
	return trigger;
}

/*
 * INSTEAD OF INSERT: stores a row for the next chunk.
 */
Datum
es_import_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = import_trigger_data(fcinfo);
	Import	   *rows;
	NewEvent   *row;
	MemoryContext oldcontext;

	rows = current_import();
	row = &rows->rows[rows->count];
	oldcontext = MemoryContextSwitchTo(rows->context);
	read_import_row(row, trigger->tg_trigtuple,
					RelationGetDescr(trigger->tg_relation));
	MemoryContextSwitchTo(oldcontext);
	rows->count++;
	rows->bytes += import_row_size(row);
	if (rows->count == IMPORT_CHUNK_ROWS || rows->bytes > IMPORT_CHUNK_BYTES)
		append_rows(fcinfo->flinfo->fn_oid);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * AFTER INSERT, once a statement: appends the rest.
 */
Datum
es_import_flush(PG_FUNCTION_ARGS)
{
	(void) import_trigger_data(fcinfo);
	append_rows(fcinfo->flinfo->fn_oid);
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
 * Registers for the ends of transactions and subtransactions.
 */
void
import_init(void)
{
	RegisterXactCallback(import_at_transaction_end, NULL);
	RegisterSubXactCallback(import_at_subtransaction_end, NULL);
}
