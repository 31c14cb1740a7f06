/*-------------------------------------------------------------------------
 *
 * append.c
 *		es_append() and es_append_batch(): SQL arguments in, one stream's new
 *		events out.
 *
 * The order of steps, each of which is there for a reason:
 *
 *	1. check the arguments: what can be refused without looking is refused
 *	   before anything is locked;
 *	2. give those events ids whose types have a composite key (event_check.c):
 *	   users' functions may run here, and not under the locks that follow;
 *	3. lock the stream, open the log (see log.c);
 *	4. if ids are given and their events are stored as one append in this
 *	   stream, it is a retry: return the first result, whatever is expected
 *	   and however the types are defined by now; if some of them are stored in
 *	   any other way: ES002;
 *	5. compare the last version with the expected one: ES001;
 *	6. check the events against the definitions of their types: ES004;
 *	7. number the events and hand them to the log, which draws the positions:
 *	   nothing that the caller can do wrong fails after that;
 *	8. remember whom to wake at commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "notify/notify.h"
#include "type/type.h"
#include "append/append.h"

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_batch_jsonb);
PG_FUNCTION_INFO_V1(es_append_batch_arrays);

/* One call: events for one stream, and its result. */
typedef struct AppendCall
{
	text	   *stream;
	ExpectedVersion expected;
	NewEvent   *events;
	int			count;

	int64		version;		/* of the last event, or of the stream */
	int64		position;		/* of the last event; 0: none */
} AppendCall;

/* Takes the first two arguments, which all three functions have. */
static void
init_append(AppendCall *append, FunctionCallInfo fcinfo)
{
	if (XactReadOnly)
		PreventCommandIfReadOnly(psprintf("%s()",
										  get_func_name(fcinfo->flinfo->fn_oid)));
	argument_not_null(fcinfo, 0, "stream");
	argument_not_null(fcinfo, 1, "expected");
	append->stream = PG_GETARG_TEXT_PP(0);
	append->expected = PG_GETARG_INT64(1);
	stream_check_name(append->stream);
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/*
 * Refuses a batch that names an id twice.
 */
static void
check_ids_differ(const AppendCall *append)
{
	pg_uuid_t  *ids = palloc(sizeof(pg_uuid_t) * append->count);
	int			count = 0;
	int			i;

	for (i = 0; i < append->count; i++)
	{
		if (append->events[i].has_id)
			ids[count++] = append->events[i].id;
	}
	qsort(ids, count, sizeof(pg_uuid_t), compare_ids);
	for (i = 1; i < count; i++)
	{
		if (compare_ids(&ids[i - 1], &ids[i]) == 0)
			log_fail_duplicate(&ids[i], "The id is given twice in one batch.");
	}
	pfree(ids);
}

/*
 * Looks up the ids that are given.  If they are stored as one append in this
 * stream, sets *first to the version of its first event and returns true.  If
 * none is stored returns false.  Anything else is ES002.
 */
static bool
find_stored(Log *log, const AppendCall *append, int64 *first)
{
	StoredEvent found;
	const NewEvent *stored = NULL;
	const NewEvent *missing = NULL;
	int			i;

	for (i = 0; i < append->count; i++)
	{
		const NewEvent *event = &append->events[i];

		if (!event->has_id)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (!log_find_id(log, &event->id, append->stream, &found))
			missing = event;
		else if (!found.same_stream)
			log_fail_duplicate(&event->id, found.place);
		else if (stored == NULL)
		{
			stored = event;
			*first = found.version - i;
		}
		else if (found.version - i != *first)
			log_fail_duplicate(&event->id,
							   psprintf("The id is stored in this stream at version " INT64_FORMAT ", not next to the others of this batch.",
										found.version));
		if (stored && missing)
			log_fail_duplicate(&stored->id,
							   psprintf("The id is stored in this stream, event %s of the same append is not.",
										uuid_to_cstring(&missing->id)));
	}
	return stored != NULL;
}

/*
 * Is the append a retry?  Then its first result is put into it.  last: the
 * stream's last version.
 */
static bool
find_retry(Log *log, AppendCall *append, int64 last)
{
	int64		first;

	if (append->count > 1)
		check_ids_differ(append);
	if (!find_stored(log, append, &first))
		return false;

	/* events without an id of the caller's must have their places, too */
	append->version = first + append->count - 1;
	if (first < 1 || append->version > last)
	{
		const NewEvent *event = append->events;

		while (!event->has_id)
			event++;
		log_fail_duplicate(&event->id,
						   psprintf("The id is stored in this stream, the %d events of this batch are not.",
									append->count));
	}
	append->position = log_position(log, append->stream, append->version);
	return true;
}

/* Numbers the events from the stream's last version on and stores them. */
static void
store(Log *log, AppendCall *append, int64 last)
{
	int			i;

	if (last > PG_INT64_MAX - append->count)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("stream \"%s\" is full",
						text_to_cstring(append->stream)),
				 errdetail("Its version is " INT64_FORMAT ".", last)));
	for (i = 0; i < append->count; i++)
		append->events[i].version = last + 1 + i;
	notify_wake_at_end();
	log_insert(log, append->events, append->count);
	for (i = 0; i < append->count; i++)
		log_insert_count(&append->events[i], i == 0 ? 1 : 0);
	notify_events(append->events, append->count);
	append->version = last + append->count;
	append->position = append->events[append->count - 1].position;
}

/*
 * Steps 2 to 8 of the header.
 */
static void
append_events(AppendCall *append, Oid relid)
{
	Log		   *log;
	int64		last;

	event_identify(relid, append->events, append->count);
	stream_lock(relid, append->stream);
	log = log_open(relid);
	last = log_last_version(log, append->stream, append->expected);
	if (find_retry(log, append, last))
		stats_count(stream_stats(append->stream), STATS_DUPLICATES, 1);
	else
	{
		expected_version_check(append->stream, append->expected, last);
		event_check(relid, append->events, append->count);
		if (append->count > 0)
			store(log, append, last);
		else
			append->version = last;
	}
	log_close(log);
}

/*
 * Appends events that were made and checked to a stream, at the expected
 * version, without asking for the caller's right to do so.  Returns the
 * version and the position of the last one.  Errors: ES001, ES002.
 */
int64
append_to_stream(Oid relid, text *stream, int64 expected, NewEvent *events,
				 int count, int64 *position)
{
	AppendCall	append = {
		.stream = stream,
		.expected = expected,
		.events = events,
		.count = count
	};

	append_events(&append, relid);
	*position = append.position;
	return append.version;
}

/*
 * Appends one event, whatever the version of its stream is, without asking
 * for the caller's right to do so; returns its position.  The event's
 * metadata is an object.
 */
int64
append_event(Oid relid, NewEvent *event)
{
	int64		position;

	stream_check_name(event->stream);
	event_check_type_name(event->type);
	(void) append_to_stream(relid, event->stream, EXPECTED_ANY, event, 1,
							&position);
	return position;
}

/*
 * The type of the result, (version bigint, position bigint), made once in a
 * backend.
 */
static TupleDesc
result_desc(void)
{
	static TupleDesc desc = NULL;
	MemoryContext oldcontext;
	TupleDesc	made;

	if (desc != NULL)
		return desc;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	made = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(made, 1, "version", INT8OID, -1, 0);
	TupleDescInitEntry(made, 2, "position", INT8OID, -1, 0);
	desc = BlessTupleDesc(made);
	MemoryContextSwitchTo(oldcontext);
	return desc;
}

/* Appends the events and returns the result as a row. */
static Datum
append_and_return(FunctionCallInfo fcinfo, AppendCall *append)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};

	append_events(append, log_relid(fcinfo->flinfo->fn_oid));
	values[0] = Int64GetDatum(append->version);
	values[1] = Int64GetDatum(append->position);
	nulls[1] = append->position == 0;
	return HeapTupleGetDatum(heap_form_tuple(result_desc(), values, nulls));
}

/*
 * es_append(stream, expected, type, data, metadata, id, occurred_at)
 */
Datum
es_append(PG_FUNCTION_ARGS)
{
	AppendCall	append = {0};
	NewEvent   *event;

	init_append(&append, fcinfo);
	argument_not_null(fcinfo, 2, "type");
	argument_not_null(fcinfo, 3, "data");
	append.count = 1;
	append.events = event_array_make(append.stream, 1);
	event = append.events;
	event->type = PG_GETARG_TEXT_PP(2);
	event->data = PG_GETARG_DATUM(3);
	if (!PG_ARGISNULL(4))
	{
		event->metadata = PG_GETARG_DATUM(4);
		event_check_metadata(event->metadata);
	}
	event->has_id = !PG_ARGISNULL(5);
	if (event->has_id)
		event->id = *PG_GETARG_UUID_P(5);
	event->has_occurred_at = !PG_ARGISNULL(6);
	if (event->has_occurred_at)
		event->occurred_at = PG_GETARG_TIMESTAMPTZ(6);
	event_check_type_name(event->type);
	return append_and_return(fcinfo, &append);
}

/*
 * es_append_batch(stream, expected, events jsonb)
 */
Datum
es_append_batch_jsonb(PG_FUNCTION_ARGS)
{
	AppendCall	append = {0};

	init_append(&append, fcinfo);
	argument_not_null(fcinfo, 2, "events");
	append.events = event_array_read(append.stream, PG_GETARG_JSONB_P(2),
									 &append.count);
	return append_and_return(fcinfo, &append);
}

/* An argument that is an array, taken apart. */
typedef struct Elements
{
	Datum	   *values;			/* NULL: no array was given */
	bool	   *nulls;
	int			count;
} Elements;

/*
 * Takes an array of one dimension apart.  nullable: may elements be null?
 */
static Elements
read_array(FunctionCallInfo fcinfo, int argument, const char *name,
		   bool nullable)
{
	Elements	elements = {0};
	ArrayType  *array;
	TypeCacheEntry *type;
	int			i;

	if (PG_ARGISNULL(argument))
		return elements;
	array = PG_GETARG_ARRAYTYPE_P(argument);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name),
				 errdetail("The array has %d dimensions.", ARR_NDIM(array))));
	type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	deconstruct_array(array, ARR_ELEMTYPE(array), type->typlen,
					  type->typbyval, type->typalign, &elements.values,
					  &elements.nulls, &elements.count);
	for (i = 0; !nullable && i < elements.count; i++)
	{
		if (elements.nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not have null elements", name),
					 errdetail("Element %d is null.", i + 1)));
	}
	return elements;
}

/* Refuses an array that has not one element for each event. */
static void
check_length(const Elements *elements, const char *name, int count)
{
	if (elements->values != NULL && elements->count != count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("types and %s must be of one length", name),
				 errdetail("There are %d types and %d elements of %s.",
						   count, elements->count, name)));
}

/*
 * es_append_batch(stream, expected, types, data, metadata, ids)
 */
Datum
es_append_batch_arrays(PG_FUNCTION_ARGS)
{
	AppendCall	append = {0};
	Elements	types,
				data,
				metadata,
				ids;
	int			i;

	init_append(&append, fcinfo);
	argument_not_null(fcinfo, 2, "types");
	argument_not_null(fcinfo, 3, "data");
	types = read_array(fcinfo, 2, "types", false);
	data = read_array(fcinfo, 3, "data", false);
	metadata = read_array(fcinfo, 4, "metadata", true);
	ids = read_array(fcinfo, 5, "ids", false);
	check_length(&data, "data", types.count);
	check_length(&metadata, "metadata", types.count);
	check_length(&ids, "ids", types.count);

	append.count = types.count;
	append.events = event_array_make(append.stream, types.count);
	for (i = 0; i < types.count; i++)
	{
		NewEvent   *event = &append.events[i];

		event->type = DatumGetTextPP(types.values[i]);
		event_check_type_name(event->type);
		event->data = data.values[i];
		if (metadata.values != NULL && !metadata.nulls[i])
		{
			event->metadata = metadata.values[i];
			event_check_metadata(event->metadata);
		}
		event->has_id = ids.values != NULL;
		if (event->has_id)
			event->id = *DatumGetUUIDP(ids.values[i]);
	}
	return append_and_return(fcinfo, &append);
}
