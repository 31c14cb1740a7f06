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
 * after the other.  What SQL calls is in present_call.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/expandedrecord.h"
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
#include "read/presentation.h"
#include "read/read.h"

#define RECORDED_EVENT "es_recorded_event"

const AttrNumber present_stored_columns[Natts_es_recorded_event] = {
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

struct Presenter
{
	Oid			type;			/* es_recorded_event */
	Presentation how;
	MemoryContext context;		/* of this */
	ExpandedRecordHeader *record;	/* an empty one; NULL: not needed so far */
};

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

Presentation
presentation_begin(Oid log)
{
	Presentation how = {.log = log};

	how.upcasting = upcast_begin(log);
	how.opens = event_type_has_personal(log);
	how.sees = how.opens && open_may_see(log, GetUserId());
	return how;
}

bool
presentation_is_plain(const Presentation *how)
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
	return presentation_is_plain(&presenter->how);
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

bool
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
	if (!presentation_is_plain(&presenter->how))
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

	if (row != NULL && !HeapTupleHasExternal(row) && presentation_is_plain(&presenter->how))
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

	if (presentation_is_plain(&presenter->how))
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
		visible[present_stored_columns[i] - 1] = true;
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
		row_values[present_stored_columns[i] - 1] = values[i];
		row_nulls[present_stored_columns[i] - 1] = nulls[i];
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
	if (!presentation_is_plain(&presenter->how))
		events = present_into_store(presenter, log, *desc, events);
	present_end(presenter);
	table_close(log, NoLock);
	return events;
}
