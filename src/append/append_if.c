/*-------------------------------------------------------------------------
 *
 * append_if.c
 *		es_append_if(): appends events if no event beyond a position matches a query.
 *
 * The events go to one or several streams, all of them or none.  Each names its stream, or
 * goes to that of its first tag, and may expect a version of it.  The sequence is that of
 * every write (write.c), the condition is one step of it (condition.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "append/append.h"
#include "personal/personal.h"
#include "tag/tag.h"

PG_FUNCTION_INFO_V1(es_append_if);

/* Arguments, in their order. */
enum
{
	ARG_EVENTS, ARG_QUERY, ARG_AFTER
};

/* Refuses an empty array of events. */
static void
check_some(int count)
{
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no event to append"),
				 errdetail("The array of events is empty."),
				 errhint("Pass at least one event.")));
}

/* Refuses a condition whose evidence a rule of retention may remove without a notice. */
static void
check_no_subject(const EventQuery *query)
{
	int			i;
	int			j;

	for (i = 0; i < query->count; i++)
	{
		const TextSet *tags = &query->items[i].tags;

		for (j = 0; j < tags->count; j++)
		{
			text	   *tag = DatumGetTextPP(tags->values[j]);

			if (subject_is_tag(tag))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("a condition must not have the tag \"%s\"", text_to_cstring(tag)),
						 errdetail("Events that have no tags but those of subjects can be truncated, and leave no trace for a condition."),
						 errhint("Give the events a tag of your own.")));
		}
	}
}

/* The row (first_position, position). */
static Datum
appended_range(FunctionCallInfo fcinfo, const Write *write)
{
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(write->first_position), Int64GetDatum(write->position)};
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function returns no row");
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * es_append_if(events, query, after_position)
 */
Datum
es_append_if(PG_FUNCTION_ARGS)
{
	Condition	condition;
	Write		write = {.is_whole = true};

	PreventCommandIfReadOnly("es_append_if()");
	argument_not_null(fcinfo, ARG_EVENTS, "events");
	argument_not_null(fcinfo, ARG_QUERY, "query");
	argument_not_null(fcinfo, ARG_AFTER, "after_position");
	condition.log = write.log = log_relid(fcinfo->flinfo->fn_oid);
	query_check_reader(write.log, "append by a condition");
	condition.query = query_read(PG_GETARG_JSONB_P(ARG_QUERY));
	check_no_subject(condition.query);
	condition.after = PG_GETARG_INT64(ARG_AFTER);
	log_sequence_check(write.log, "after_position", condition.after);
	write.condition = &condition;
	write.events = event_array_read(NULL, PG_GETARG_JSONB_P(ARG_EVENTS), &write.count);
	check_some(write.count);
	write_events(&write);
	return appended_range(fcinfo, &write);
}
