/*-------------------------------------------------------------------------
 *
 * present_call.c
 *		Presenting events in SQL, as present.c does in C.
 *
 * The read functions are plain SQL: they list the columns themselves, and call es_upcast_data
 * and es_upcast_metadata for every row.  While no upcaster is defined, and no attribute is
 * personal, the planner puts their argument in their place (es_upcast_support), so that plans
 * are what they would be without.  They are made again when that changes, see event_type.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "base/compat.h"
#include "type/type.h"
#include "read/presentation.h"

PG_FUNCTION_INFO_V1(es_recorded_event);
PG_FUNCTION_INFO_V1(es_upcast);
PG_FUNCTION_INFO_V1(es_upcast_data);
PG_FUNCTION_INFO_V1(es_upcast_metadata);
PG_FUNCTION_INFO_V1(es_upcast_support);

/* Arguments of es_upcast_data and es_upcast_metadata, in their order. */
enum
{
	ARG_POSITION, ARG_ID, ARG_STREAM, ARG_TYPE, ARG_DATA, ARG_METADATA
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
	if (presentation_is_plain(how) || PG_ARGISNULL(ARG_TYPE))
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

	if (!presentation_is_plain(how) && !PG_ARGISNULL(ARG_TYPE) && !PG_ARGISNULL(ARG_DATA))
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
	HeapTuple	presented = presentation_is_plain(how) ? NULL : present_row(how, PG_GETARG_HEAPTUPLEHEADER(0));

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
		values[i] = GetAttributeByNum(row, present_stored_columns[i], &nulls[i]);
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
