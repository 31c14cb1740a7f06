/*-------------------------------------------------------------------------
 *
 * import.c
 *		The views es_import and es_import_log: INSERT and COPY append to the log.
 *
 * An INSTEAD OF row trigger checks a row and keeps it.  Rows are appended (write.c)
 * when a chunk is full, and at the end of the statement by an AFTER statement
 * trigger.  Each row is by itself: it expects nothing of its stream, and is left
 * out if it is a retry.  Rows of es_import_log have their positions, versions and times,
 * and are stored by import_log.c.  A chunk looks up the versions of its streams anew, as
 * triggers of the chunk before may have appended to them.
 *
 * If session_replication_role is replica, the triggers do not fire, and rows would be
 * lost silently.  es_import_fires() refuses them.
 *
 * Statements nest: a function that feeds an INSERT may itself insert here, and fail
 * and be caught.  So each subtransaction has rows of its own, in its memory.  A flush
 * takes those of the current one, a rollback forgets them.  A statement flushes before
 * its subtransaction ends, which is checked at commit.
 *
 * Rows are numbered by statement, for errors.  How many were left out is said at the
 * end of the statement that flushes them.
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
#include "base/context.h"
#include "log/log.h"
#include "append/append.h"

/* A chunk is appended when it has so many rows, or bytes of data. */
#define IMPORT_CHUNK_ROWS	1000
#define IMPORT_CHUNK_BYTES	(1024 * 1024)

/* Columns that es_import_log has before those of es_import. */
enum
{
	Anum_es_import_log_position = 1,
	Anum_es_import_log_version,
	Anum_es_import_log_recorded_at,
	Natts_before_es_import = Anum_es_import_log_recorded_at
};

/* Columns of es_import. */
enum
{
	Anum_es_import_stream = 1,
	Anum_es_import_type,
	Anum_es_import_data,
	Anum_es_import_metadata,
	Anum_es_import_id,
	Anum_es_import_occurred_at,
	Anum_es_import_tags,
	Anum_es_import_body,
	Natts_es_import = Anum_es_import_body
};

PG_FUNCTION_INFO_V1(es_import_fires);
PG_FUNCTION_INFO_V1(es_import_row);
PG_FUNCTION_INFO_V1(es_import_flush);

/* Rows of one subtransaction that wait to be appended. */
typedef struct Import
{
	struct Import *outer;		/* of a subtransaction around this one */
	SubTransactionId subid;
	bool		of_log;			/* rows of es_import_log */
	MemoryContext context;		/* this struct */
	MemoryContext values;		/* of the rows */
	NewEvent	rows[IMPORT_CHUNK_ROWS];
	int			count;
	Size		bytes;			/* of data, metadata and body in the rows */
	int64		left_out;		/* rows of the statement, so far */
	int64		first_left_out; /* the number of the first one */
} Import;

static Import *import = NULL;	/* the innermost; in CurTransactionContext */

/* Returns true if the rows are those of a statement on the view in this subtransaction. */
static bool
is_current(const Import *rows, bool of_log)
{
	return rows != NULL && rows->subid == GetCurrentSubTransactionId() && rows->of_log == of_log;
}

/*
 * The rows of the current subtransaction.  A statement on one view that is run for a row of
 * the other ends before that goes on, so that its rows are the innermost meanwhile.
 */
static Import *
current_import(bool of_log)
{
	MemoryContext context;
	Import	   *made;

	if (is_current(import, of_log))
		return import;
	context = AllocSetContextCreate(CurTransactionContext,
									"eventstore import",
									ALLOCSET_DEFAULT_SIZES);
	made = MemoryContextAllocZero(context, sizeof(Import));
	made->context = context;
	made->values = AllocSetContextCreate(context, "eventstore import rows",
										 ALLOCSET_DEFAULT_SIZES);
	made->subid = GetCurrentSubTransactionId();
	made->of_log = of_log;
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
				 errdetail("Column %d of a row of the import is null.",
						   column)));
	return value;
}

/* A copy that needs no other table's toast. */
static Datum
copy_value(Datum value)
{
	struct varlena *given = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(given))
		return PointerGetDatum(detoast_external_attr(given));
	return datumCopy(value, false, -1);
}

/* Reads what a row of es_import_log has before the columns of es_import. */
static void
read_place(NewEvent *event, HeapTuple tuple, TupleDesc desc)
{
	event->position = DatumGetInt64(required_column(tuple, desc, Anum_es_import_log_position));
	event->version = DatumGetInt64(required_column(tuple, desc, Anum_es_import_log_version));
	event->recorded_at = DatumGetTimestampTz(required_column(tuple, desc, Anum_es_import_log_recorded_at));
	event->has_recorded_at = true;
	if (TIMESTAMP_NOT_FINITE(event->recorded_at))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("recorded_at must be finite"),
				 errdetail("It is %sinfinity.",
						   TIMESTAMP_IS_NOBEGIN(event->recorded_at) ? "-" : ""),
				 errhint("Take the time of the event before it if its own is not known.")));
}

/*
 * Checks a row and reads it into an event, copied into the current context.  before: how many
 * columns are before those of es_import.
 */
static void
read_import_row(NewEvent *event, HeapTuple tuple, TupleDesc desc, int before)
{
	bool		isnull;
	Datum		value;

	event->stream = DatumGetTextPCopy(required_column(tuple, desc,
													  before + Anum_es_import_stream));
	stream_check_new(event->stream);
	event->type = DatumGetTextPCopy(required_column(tuple, desc,
													before + Anum_es_import_type));
	event->data = copy_value(required_column(tuple, desc, before + Anum_es_import_data));
	value = heap_getattr(tuple, before + Anum_es_import_metadata, desc, &isnull);
	if (!isnull)
		event->metadata = copy_value(value);
	value = heap_getattr(tuple, before + Anum_es_import_id, desc, &isnull);
	event->has_id = !isnull;
	if (event->has_id)
		event->id = *DatumGetUUIDP(value);
	value = heap_getattr(tuple, before + Anum_es_import_occurred_at, desc, &isnull);
	event->has_occurred_at = !isnull;
	if (event->has_occurred_at)
		event->occurred_at = DatumGetTimestampTz(value);
	value = heap_getattr(tuple, before + Anum_es_import_tags, desc, &isnull);
	if (!isnull)
		event->tags = PointerGetDatum(DatumGetArrayTypePCopy(value));
	value = heap_getattr(tuple, before + Anum_es_import_body, desc, &isnull);
	if (!isnull)
		event->body = copy_value(value);
	event_check_new(event);
}

/* The bytes of data, metadata and body, which may be large. */
static Size
import_row_size(const NewEvent *row)
{
	Size		size = VARSIZE_ANY(DatumGetPointer(row->data));

	if (row->metadata)
		size += VARSIZE_ANY(DatumGetPointer(row->metadata));
	if (row->body)
		size += VARSIZE_ANY(DatumGetPointer(row->body));
	return size;
}

/*
 * Appends the rows of the current subtransaction.  They are taken out meanwhile, since
 * triggers that fire may import rows of their own.
 */
static void
append_rows(Import *full, Oid funcid)
{
	Write		write = {.expected = EXPECTED_ANY};
	MemoryContext oldcontext;

	import = full->outer;
	oldcontext = MemoryContextSwitchTo(full->values);
	write.log = log_relid(funcid);
	write.events = full->rows;
	write.count = full->count;
	if (full->of_log && full->count > 0)
		import_log_store(write.log, full->rows, full->count);
	else
		write_events(&write);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(full->values);
	if (full->left_out == 0)
		full->first_left_out = write.first_left_out;
	full->left_out += write.left_out;
	full->count = 0;
	full->bytes = 0;
	import = full;
}

/* Says how many rows were left out. */
static void
report_left_out(const Import *done)
{
	if (done->left_out > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " row was left out",
							   INT64_FORMAT " rows were left out",
							   done->left_out, done->left_out),
				 errdetail("The first is row " INT64_FORMAT ". Events with these ids are stored in their streams already, or came before in the same statement.",
						   done->first_left_out)));
}

/* Names the row that is being read in an error's context. */
static void
import_row_context(void *arg)
{
	errcontext("row " INT64_FORMAT " of the import", *(int64 *) arg);
}

/* Numbers the rows of the statement that calls the trigger. */
static int64 *
statement_rows(FmgrInfo *trigger)
{
	if (trigger->fn_extra == NULL)
		trigger->fn_extra = MemoryContextAllocZero(trigger->fn_mcxt,
												   sizeof(int64));
	return trigger->fn_extra;
}

/*
 * The trigger's data, for an INSERT into the view that eventstore made, since rows are
 * appended without a check of privileges.
 */
static TriggerData *
import_trigger_data(FunctionCallInfo fcinfo, bool *of_log)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			columns = Natts_es_import;

	*of_log = CALLED_AS_TRIGGER(fcinfo) &&
		strcmp(RelationGetRelationName(trigger->tg_relation), "es_import_log") == 0;
	if (*of_log)
		columns += Natts_before_es_import;
	trigger = own_trigger_data(fcinfo, *of_log ? "es_import_log" : "es_import");
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		RelationGetNumberOfAttributes(trigger->tg_relation) != columns)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called by INSERT",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errdetail("The view has %d columns instead of %d.",
						   RelationGetNumberOfAttributes(trigger->tg_relation),
						   columns)));
	return trigger;
}

/*
 * INSTEAD OF INSERT: stores a row for the next chunk.
 */
Datum
es_import_row(PG_FUNCTION_ARGS)
{
	bool		of_log;
	TriggerData *trigger = import_trigger_data(fcinfo, &of_log);
	int64	   *number = statement_rows(fcinfo->flinfo);
	Import	   *rows;
	NewEvent   *row;
	MemoryContext oldcontext;
	ErrorContextCallback context;

	++*number;
	rows = current_import(of_log);
	row = &rows->rows[rows->count];
	oldcontext = MemoryContextSwitchTo(rows->values);
	context_push(&context, import_row_context, number);
	memset(row, 0, sizeof(NewEvent));
	if (of_log)
		read_place(row, trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation));
	read_import_row(row, trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation),
					of_log ? Natts_before_es_import : 0);
	context_pop(&context);
	MemoryContextSwitchTo(oldcontext);
	row->row = *number;
	rows->count++;
	rows->bytes += import_row_size(row);
	if (rows->count == IMPORT_CHUNK_ROWS || rows->bytes > IMPORT_CHUNK_BYTES)
		append_rows(rows, fcinfo->flinfo->fn_oid);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * AFTER INSERT, once a statement: appends the rest.
 */
Datum
es_import_flush(PG_FUNCTION_ARGS)
{
	Import	   *done = import;
	bool		of_log;

	(void) import_trigger_data(fcinfo, &of_log);
	if (is_current(done, of_log))
	{
		append_rows(done, fcinfo->flinfo->fn_oid);
		import = done->outer;
		report_left_out(done);
		MemoryContextDelete(done->context);
	}
	return PointerGetDatum(NULL);
}

/*
 * Checked for each row of es_import, as a constraint of a column's type: refuses rows
 * for which the triggers would not fire.
 */
Datum
es_import_fires(PG_FUNCTION_ARGS)
{
	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot append by es_import in this session"),
				 errdetail("session_replication_role is replica, which keeps the triggers of a view from firing."),
				 errhint("SET session_replication_role = origin, or use es_append() or es_append_batch().")));
	PG_RETURN_BOOL(true);
}

static void
import_at_transaction_end(XactEvent event, void *arg)
{
	bool		commits = event == XACT_EVENT_PRE_COMMIT ||
	event == XACT_EVENT_PRE_PREPARE;
	Import	   *rows;

	for (rows = commits ? import : NULL; rows != NULL; rows = rows->outer)
	{
		if (rows->count > 0)
			elog(ERROR, "%d rows of es_import were not appended", rows->count);
	}
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
