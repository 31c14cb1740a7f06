/*-------------------------------------------------------------------------
 *
 * present.c
 *		The one place where a stored event becomes what users see: a reader, a
 *		handler, a reducer, the query of a projection, a consumer.
 *
 * A stored event is a row of es_events.  It has a column that is internal, and may have
 * others that the owner has added.  Users see an es_recorded_event, which has columns of
 * its own in an order of its own, with data and metadata as of the current schema
 * version of the event's type, and with the personal attributes that its reader may see.
 *
 * Code in C makes a Presenter for a statement or a batch, and presents one event
 * after the other.  The read functions are plain SQL: they list the columns
 * themselves, and call es_upcast_data and es_upcast_metadata for every row.
 * While no upcaster is defined, and no attribute is personal, the planner puts their argument in
 * their place (es_upcast_support), so that plans are what they would be without.  They are
 * made again when that changes, see event_type.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "utils/builtins.h"
#include "utils/expandedrecord.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "base/compat.h"
#include "log/log.h"
#include "personal/personal.h"
#include "type/type.h"
#include "type/upcast.h"
#include "read/present.h"
#include "read/read.h"

PG_FUNCTION_INFO_V1(es_recorded_event);
PG_FUNCTION_INFO_V1(es_upcast);
PG_FUNCTION_INFO_V1(es_upcast_data);
PG_FUNCTION_INFO_V1(es_upcast_metadata);
PG_FUNCTION_INFO_V1(es_upcast_support);

#define RECORDED_EVENT "es_recorded_event"

/* Where es_events has the columns of es_recorded_event. */
static const AttrNumber stored_columns[Natts_es_recorded_event] = {
	Anum_es_events_position,
	Anum_es_events_version,
	Anum_es_events_recorded_at,
	Anum_es_events_occurred_at,
	Anum_es_events_id,
	Anum_es_events_stream,
	Anum_es_events_type,
	Anum_es_events_data,
	Anum_es_events_metadata,
	Anum_es_events_tags,
	Anum_es_events_body
};

/* Arguments of es_upcast_data and es_upcast_metadata, in their order. */
enum
{
	ARG_POSITION, ARG_ID, ARG_STREAM, ARG_TYPE, ARG_DATA, ARG_METADATA
};

/* What is done to stored events. */
typedef struct Presentation
{
	Oid			log;
	bool		opens;			/* attributes may be encrypted */
	bool		sees;			/* the reader may see them */
	OpenedState opened;			/* what events have lacked so far */
	const char *purpose;		/* for which no key may be missing; NULL: none */
	Upcasting  *upcasting;		/* NULL: there are no upcasters */
} Presentation;

/* An event, and where it is. */
typedef struct PresentedEvent
{
	SealedEvent sealed;
	int64		position;		/* 0: not known */
} PresentedEvent;

struct Presenter
{
	Oid			type;			/* es_recorded_event */
	Presentation how;
	MemoryContext context;		/* of this */
	ExpandedRecordHeader *record;	/* an empty one; NULL: not needed so far */
};

/* Metadata of more bytes is not kept from one call to the next. */
#define MAX_KEPT_METADATA	65536

/* What a call in a statement caches from one row to the next. */
typedef struct CallCache
{
	uint64		generation;		/* of what is defined */
	Oid			user;			/* who may see what how says */
	Presentation how;
} CallCache;

Oid
present_type(Oid log)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum(RECORDED_EVENT),
									   ObjectIdGetDatum(get_rel_namespace(log)));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"%s\" does not exist", RECORDED_EVENT),
				 errdetail("It belongs to the extension eventstore, and is in its schema \"%s\".",
						   get_namespace_name(get_rel_namespace(log))),
				 errhint("Create the extension again.")));
	return type;
}

/* Learns what is to be done to events, for the current user. */
static Presentation
presentation_begin(Oid log)
{
	Presentation how = {.log = log};

	how.upcasting = upcast_begin(log);
	how.opens = event_type_has_personal(log);
	how.sees = how.opens && open_may_see(log, GetUserId());
	return how;
}

static bool
is_plain(const Presentation *how)
{
	return how->upcasting == NULL && !how->opens;
}

Presenter *
present_begin(Oid log)
{
	Presenter  *presenter = palloc0(sizeof(Presenter));

	presenter->context = CurrentMemoryContext;
	presenter->type = present_type(log);
	presenter->how = presentation_begin(log);
	return presenter;
}

void
present_end(Presenter *presenter)
{
	if (presenter->record != NULL)
		DeleteExpandedObject(ExpandedRecordGetDatum(presenter->record));
	upcast_end(presenter->how.upcasting);
	pfree(presenter);
}

bool
present_is_plain(const Presenter *presenter)
{
	return is_plain(&presenter->how);
}

void
present_require_keys(Presenter *presenter, const char *purpose)
{
	presenter->how.purpose = purpose;
}

bool
present_hides(const Presenter *presenter)
{
	return presenter->how.opens && !presenter->how.sees;
}

OpenedState
present_opened(const Presenter *presenter)
{
	return presenter->how.opened;
}

/* An empty record in the current memory context. */
static ExpandedRecordHeader *
make_empty_record(Presenter *presenter)
{
	if (presenter->record == NULL)
		presenter->record =
			make_expanded_record_from_typeid(presenter->type, -1,
											 presenter->context);
	return make_expanded_record_from_exprecord(presenter->record,
											   CurrentMemoryContext);
}

/* A column of a slot; 0 for null. */
static Datum
slot_column(TupleTableSlot *event, AttrNumber number)
{
	bool		isnull;
	Datum		value = slot_getattr(event, number, &isnull);

	return isnull ? (Datum) 0 : value;
}

/*
 * Presents data and metadata of an event: opens what is encrypted, then upcasts.
 */
static void
present_event(Presentation *how, PresentedEvent *event)
{
	SealedEvent *sealed = &event->sealed;

	if (how->opens && sealed->metadata != (Datum) 0 && sealed->id != NULL)
	{
		OpenedState opened = open_event(how->log, sealed, how->sees);

		how->opened = Max(how->opened, opened);
		if (opened == OPENED_LOCKED && how->purpose != NULL)
			open_refuse(opened, how->purpose);
	}
	if (upcast_version(how->upcasting, sealed->stream, sealed->type, sealed->metadata) == 0)
		return;
	sealed->data = upcast_data(how->upcasting, event->position, sealed->stream, sealed->type,
							   sealed->data, sealed->metadata, PG_INT32_MAX);
	sealed->metadata = upcast_metadata(how->upcasting, sealed->stream, sealed->type,
									   sealed->metadata);
}

/* A column of an es_recorded_event; 0 for null. */
#define RECORDED(column) \
	(nulls[Anum_es_recorded_event_##column - 1] ? (Datum) 0 : values[Anum_es_recorded_event_##column - 1])

/*
 * Presents data and metadata in the columns of an es_recorded_event.  Returns
 * false if there is nothing to do.
 */
static bool
present_values(Presentation *how, Datum *values, bool *nulls)
{
	PresentedEvent event;
	Datum		data = RECORDED(data);
	Datum		metadata = RECORDED(metadata);

	if (RECORDED(type) == (Datum) 0 || data == (Datum) 0)
		return false;
	event.position = DatumGetInt64(RECORDED(position));
	event.sealed.id = (pg_uuid_t *) DatumGetPointer(RECORDED(id));
	event.sealed.stream = RECORDED(stream) == (Datum) 0 ? NULL : DatumGetTextPP(RECORDED(stream));
	event.sealed.type = DatumGetTextPP(RECORDED(type));
	event.sealed.data = data;
	event.sealed.metadata = metadata;
	if (event.sealed.stream == NULL)
		event.sealed.id = NULL;
	present_event(how, &event);
	values[Anum_es_recorded_event_data - 1] = event.sealed.data;
	values[Anum_es_recorded_event_metadata - 1] = event.sealed.metadata;
	nulls[Anum_es_recorded_event_metadata - 1] = event.sealed.metadata == (Datum) 0;
	return event.sealed.data != data || event.sealed.metadata != metadata;
}

void
present_columns(Presenter *presenter, TupleTableSlot *event, Datum *values,
				bool *nulls)
{
	enum
	{
		before = Anum_es_events_next_xid - 1,
		after = Natts_es_events - Anum_es_events_next_xid
	};

	/* all but next_xid, in the same order */
	StaticAssertStmt(before + after == Natts_es_recorded_event,
					 "es_events and es_recorded_event have other columns");
	slot_getsomeattrs(event, Natts_es_events);
	memcpy(values, event->tts_values, sizeof(Datum) * before);
	memcpy(values + before, event->tts_values + Anum_es_events_next_xid,
		   sizeof(Datum) * after);
	memcpy(nulls, event->tts_isnull, sizeof(bool) * before);
	memcpy(nulls + before, event->tts_isnull + Anum_es_events_next_xid,
		   sizeof(bool) * after);
	if (!is_plain(&presenter->how))
		(void) present_values(&presenter->how, values, nulls);
}

/* The row of a slot as it is stored; NULL if it is not stored as one. */
static HeapTuple
stored_row(TupleTableSlot *event)
{
	if (TTS_IS_BUFFERTUPLE(event))
		return ((HeapTupleTableSlot *) event)->tuple;
	if (TTS_IS_MINIMALTUPLE(event))
		return ((MinimalTupleTableSlot *) event)->tuple;
	return NULL;
}

/*
 * Makes the record of the values where they are, in the row.  To the record that is
 * where a row of its own would be, so that nothing there is freed when a function
 * sets a column.  Copying them costs more than all else that is done for an event.
 */
static void
lend_row(Presenter *presenter, TupleTableSlot *event, HeapTuple row,
		 ExpandedRecordHeader *record)
{
	present_columns(presenter, event, record->dvalues, record->dnulls);
	record->fstartptr = (char *) row->t_data;
	record->fendptr = record->fstartptr + row->t_len;
	record->flags |= ER_FLAG_DVALUES_VALID;
}

Datum
present_record(Presenter *presenter, TupleTableSlot *event)
{
	ExpandedRecordHeader *record = make_empty_record(presenter);
	HeapTuple	row = stored_row(event);
	Datum		values[Natts_es_recorded_event];
	bool		nulls[Natts_es_recorded_event];

	if (row != NULL && !HeapTupleHasExternal(row) && is_plain(&presenter->how))
		lend_row(presenter, event, row, record);
	else
	{
		present_columns(presenter, event, values, nulls);
		expanded_record_set_fields(record, values, nulls, true);
	}
	return ExpandedRecordGetDatum(record);
}

/* Returns true if a value that is passed by reference is in the row of the slot. */
bool
present_is_lent(TupleTableSlot *event, Datum value)
{
	HeapTuple	row = stored_row(event);
	char	   *bytes = DatumGetPointer(value);

	return row != NULL && bytes >= (char *) row->t_data &&
		bytes < (char *) row->t_data + row->t_len;
}

Datum
present_data(Presenter *presenter, TupleTableSlot *slot)
{
	PresentedEvent event;
	Datum		data = slot_column(slot, Anum_es_events_data);

	if (is_plain(&presenter->how))
		return data;
	event.position = DatumGetInt64(slot_column(slot, Anum_es_events_position));
	event.sealed.id = DatumGetUUIDP(slot_column(slot, Anum_es_events_id));
	event.sealed.stream = DatumGetTextPP(slot_column(slot, Anum_es_events_stream));
	event.sealed.type = DatumGetTextPP(slot_column(slot, Anum_es_events_type));
	event.sealed.data = data;
	event.sealed.metadata = slot_column(slot, Anum_es_events_metadata);
	present_event(&presenter->how, &event);
	return event.sealed.data;
}

/* The columns of the log, with all hidden that are not part of an event. */
static TupleDesc
visible_columns(Relation log)
{
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(log));
	bool	   *visible = palloc0(sizeof(bool) * desc->natts);
	int			i;

	for (i = 0; i < Natts_es_recorded_event; i++)
		visible[stored_columns[i] - 1] = true;
	for (i = 0; i < desc->natts; i++)
	{
		if (visible[i])
			continue;
		TupleDescAttr(desc, i)->attisdropped = true;
		populate_compact_attribute(desc, i);
	}
	pfree(visible);
	return desc;
}

/* Adds an event, presented, to a store of rows of the log. */
static void
put_presented(Presenter *presenter, TupleTableSlot *event, TupleDesc desc,
			  Tuplestorestate *store)
{
	Datum		values[Natts_es_recorded_event];
	bool		nulls[Natts_es_recorded_event];
	Datum	   *row_values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *row_nulls = palloc(sizeof(bool) * desc->natts);
	int			i;

	present_columns(presenter, event, values, nulls);
	memset(row_nulls, true, sizeof(bool) * desc->natts);
	for (i = 0; i < Natts_es_recorded_event; i++)
	{
		row_values[stored_columns[i] - 1] = values[i];
		row_nulls[stored_columns[i] - 1] = nulls[i];
	}
	tuplestore_putvalues(store, desc, row_values, row_nulls);
}

/* The events of a batch, presented, in another store. */
static Tuplestorestate *
present_into_store(Presenter *presenter, Relation log, TupleDesc desc,
				   Tuplestorestate *events)
{
	Tuplestorestate *presented = event_batch_make();
	TupleTableSlot *slot = event_slot_make(log);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore event",
												  ALLOCSET_DEFAULT_SIZES);

	PushActiveSnapshot(GetTransactionSnapshot());
	tuplestore_rescan(events);
	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		put_presented(presenter, slot, desc, presented);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	}
	PopActiveSnapshot();
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	return presented;
}

Tuplestorestate *
present_batch(Oid relid, Tuplestorestate *events, TupleDesc *desc)
{
	Relation	log = table_open(relid, AccessShareLock);
	Presenter  *presenter = present_begin(relid);

	present_require_keys(presenter, "project an event");
	*desc = visible_columns(log);
	if (!is_plain(&presenter->how))
		events = present_into_store(presenter, log, *desc, events);
	present_end(presenter);
	table_close(log, NoLock);
	return events;
}

/*
 * What a call in a statement does to events, which is looked up once and again when
 * something else is defined.  Upcasters that were known before may be running, and are left to the
 * statement's end.  The user may be another one at each call.  What a user may see is
 * looked up once, as the rights on tables are.
 */
static Presentation *
cached_presentation(FunctionCallInfo fcinfo)
{
	CallCache  *cache = fcinfo->flinfo->fn_extra;
	MemoryContext oldcontext;
	uint64		generation;

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
									   sizeof(CallCache));
		cache->how.log = log_relid(fcinfo->flinfo->fn_oid);
		fcinfo->flinfo->fn_extra = cache;
	}
	generation = event_type_generation(cache->how.log);
	if (cache->generation != generation)
	{
		oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		cache->how = presentation_begin(cache->how.log);
		cache->generation = generation;
		cache->user = GetUserId();
		MemoryContextSwitchTo(oldcontext);
	}
	if (cache->user != GetUserId())
	{
		cache->how.sees = cache->how.opens && open_may_see(cache->how.log, GetUserId());
		cache->user = GetUserId();
	}
	return &cache->how;
}

/*
 * Metadata that es_upcast_data has found for an event, for es_upcast_metadata, which comes next in a
 * row.  It has nothing of what was encrypted.
 */
static struct
{
	pg_uuid_t	id;
	bool		sees;
	uint64		changes;		/* of keys; 0: nothing was found */
	uint64		file_changes;	/* of key files */
	StringInfoData stored;		/* the event's metadata, in the session's
								 * memory */
	StringInfoData opened;		/* what became of it; empty: null */
}			found_metadata;

/* Copies a value; 0 is empty. */
static void
copy_found(StringInfo copy, Datum value)
{
	if (copy->data == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(copy);
		MemoryContextSwitchTo(oldcontext);
	}
	resetStringInfo(copy);
	if (value != (Datum) 0)
		appendBinaryStringInfo(copy, DatumGetPointer(value), VARSIZE_ANY(DatumGetPointer(value)));
}

/* Opens the event, and keeps what becomes of its metadata. */
static void
open_and_keep(Presentation *how, PresentedEvent *event)
{
	SealedEvent *sealed = &event->sealed;
	Datum		stored;

	if (!how->opens || sealed->metadata == (Datum) 0 || sealed->id == NULL)
		return;
	found_metadata.changes = 0;
	sealed->metadata = PointerGetDatum(PG_DETOAST_DATUM(sealed->metadata));
	stored = sealed->metadata;
	/* what no key opens is looked at again, as a key file may have come */
	if (open_event(how->log, sealed, how->sees) == OPENED_LOCKED)
		return;
	if (sealed->metadata == stored || VARSIZE_ANY(DatumGetPointer(stored)) > MAX_KEPT_METADATA)
		return;
	copy_found(&found_metadata.stored, stored);
	copy_found(&found_metadata.opened, sealed->metadata);
	found_metadata.id = *sealed->id;
	found_metadata.sees = how->sees;
	found_metadata.changes = subject_key_changes(how->log);
	found_metadata.file_changes = key_file_changes();
}

/* Takes what was kept.  Returns false if that is of another event. */
static bool
take_kept_metadata(Presentation *how, SealedEvent *sealed)
{
	struct varlena *stored = PG_DETOAST_DATUM(sealed->metadata);

	if (found_metadata.changes == 0 || found_metadata.sees != how->sees ||
		memcmp(&found_metadata.id, sealed->id, sizeof(pg_uuid_t)) != 0 ||
		found_metadata.stored.len != (int) VARSIZE_ANY(stored) ||
		memcmp(found_metadata.stored.data, stored, found_metadata.stored.len) != 0 ||
		found_metadata.changes != subject_key_changes(how->log) ||
		found_metadata.file_changes != key_file_changes())
		return false;
	sealed->metadata = found_metadata.opened.len == 0 ? (Datum) 0 :
		PointerGetDatum(memcpy(palloc(found_metadata.opened.len), found_metadata.opened.data,
							   found_metadata.opened.len));
	return true;
}

/* An argument; 0 for null. */
static Datum
argument_or_zero(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? (Datum) 0 : PG_GETARG_DATUM(number);
}

/* The event that the arguments are; one without a stream is not opened. */
static PresentedEvent
presented_arguments(FunctionCallInfo fcinfo)
{
	PresentedEvent event = {.position = DatumGetInt64(argument_or_zero(fcinfo, ARG_POSITION))};

	if (!PG_ARGISNULL(ARG_STREAM))
		event.sealed.stream = PG_GETARG_TEXT_PP(ARG_STREAM);
	if (!PG_ARGISNULL(ARG_ID) && event.sealed.stream != NULL)
		event.sealed.id = PG_GETARG_UUID_P(ARG_ID);
	event.sealed.type = PG_GETARG_TEXT_PP(ARG_TYPE);
	event.sealed.data = PG_GETARG_DATUM(ARG_DATA);
	event.sealed.metadata = argument_or_zero(fcinfo, ARG_METADATA);
	return event;
}

/*
 * es_upcast_data(position, id, stream, type, data, metadata): data as of the current schema
 * version, with what the user may see.
 */
Datum
es_upcast_data(PG_FUNCTION_ARGS)
{
	Presentation *how = cached_presentation(fcinfo);
	PresentedEvent event;

	if (PG_ARGISNULL(ARG_DATA))
		PG_RETURN_NULL();
	if (is_plain(how) || PG_ARGISNULL(ARG_TYPE))
		PG_RETURN_DATUM(PG_GETARG_DATUM(ARG_DATA));
	event = presented_arguments(fcinfo);
	open_and_keep(how, &event);
	PG_RETURN_DATUM(upcast_data(how->upcasting, event.position, event.sealed.stream,
								event.sealed.type, event.sealed.data, event.sealed.metadata,
								PG_INT32_MAX));
}

/*
 * es_upcast_metadata(position, id, stream, type, data, metadata): metadata that says of
 * which version es_upcast_data is, and what it lacks.
 */
Datum
es_upcast_metadata(PG_FUNCTION_ARGS)
{
	Presentation *how = cached_presentation(fcinfo);
	Datum		metadata = argument_or_zero(fcinfo, ARG_METADATA);

	if (!is_plain(how) && !PG_ARGISNULL(ARG_TYPE) && !PG_ARGISNULL(ARG_DATA))
	{
		PresentedEvent event = presented_arguments(fcinfo);

		if (how->opens && event.sealed.id != NULL && event.sealed.metadata != (Datum) 0 &&
			!take_kept_metadata(how, &event.sealed))
			(void) open_event(how->log, &event.sealed, how->sees);
		metadata = upcast_metadata(how->upcasting, event.sealed.stream, event.sealed.type,
								   event.sealed.metadata);
	}
	if (metadata == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(metadata);
}

/* The row of es_recorded_event, presented; NULL if there is nothing to do. */
static HeapTuple
present_row(Presentation *how, HeapTupleHeader event)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(event),
											  HeapTupleHeaderGetTypMod(event));
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	HeapTupleData row = {
		.t_len = HeapTupleHeaderGetDatumLength(event),
		.t_data = event
	};
	HeapTuple	presented = NULL;

	heap_deform_tuple(&row, desc, values, nulls);
	if (present_values(how, values, nulls))
		presented = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return presented;
}

/*
 * es_upcast(event es_recorded_event) returns es_recorded_event: the event as of
 * the current schema version.
 */
Datum
es_upcast(PG_FUNCTION_ARGS)
{
	Presentation *how = cached_presentation(fcinfo);
	HeapTuple	presented = is_plain(how) ? NULL : present_row(how, PG_GETARG_HEAPTUPLEHEADER(0));

	PG_RETURN_DATUM(presented == NULL ? PG_GETARG_DATUM(0) :
					HeapTupleGetDatum(presented));
}

/*
 * es_recorded_event(event es_events) returns es_recorded_event: the row as an
 * event, with data and metadata as they are stored.
 */
Datum
es_recorded_event(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	Datum		values[Natts_es_recorded_event];
	bool		nulls[Natts_es_recorded_event];
	TupleDesc	desc;
	int			i;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function returns no row");
	for (i = 0; i < Natts_es_recorded_event; i++)
		values[i] = GetAttributeByNum(row, stored_columns[i], &nulls[i]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* The argument that a call returns while there is nothing to do to events. */
static Node *
returned_argument(FuncExpr *call)
{
	const char *name = get_func_name(call->funcid);

	if (list_length(call->args) == 1)
		return linitial(call->args);
	if (list_length(call->args) != ARG_METADATA + 1)
		return NULL;
	return list_nth(call->args, strcmp(name, "es_upcast_data") == 0 ?
					ARG_DATA : ARG_METADATA);
}

/*
 * Lets the planner drop calls while no upcaster is defined and no attribute is personal.  The plan
 * is made again with es_events when that changes.
 */
Datum
es_upcast_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestSimplify *simplify;
	Oid			log;
	int			count;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	simplify = (SupportRequestSimplify *) request;
	log = log_relid(simplify->fcall->funcid);
	AcceptInvalidationMessages();
	(void) event_type_upcasters(log, &count);
	if (count > 0 || event_type_has_personal(log))
		PG_RETURN_POINTER(NULL);
	if (simplify->root != NULL)
		simplify->root->glob->relationOids =
			list_append_unique_oid(simplify->root->glob->relationOids, log);
	PG_RETURN_POINTER(returned_argument(simplify->fcall));
}
