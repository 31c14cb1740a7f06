/*-------------------------------------------------------------------------
 *
 * stream_removal.c
 *		es_delete_stream() and es_truncate_stream().
 *
 * A deleted stream keeps one event, es_stream_deleted, so that its versions go on and readers
 * can clean up.  A call that is repeated finds that event and returns its first result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/tags.h"
#include "personal/personal.h"
#include "read/read.h"
#include "retention/retention.h"

PG_FUNCTION_INFO_V1(es_delete_stream);
PG_FUNCTION_INFO_V1(es_truncate_stream);

/* Arguments of es_delete_stream, in their order. */
enum
{
	DELETE_STREAM, DELETE_EXPECTED, DELETE_TOMBSTONE, DELETE_METADATA
};

/*
 * Returns true if there is nothing to do: the stream was deleted before, or has no events and
 * gets no tombstone.
 */
static bool
is_deleted_already(const Removal *removal, bool tombstone)
{
	if (removal->last == 0)
		return !tombstone;
	return removal->last_kind == NOTICE_DELETED &&
		(!tombstone || notice_is_tombstone(removal->last_event.data));
}

/*
 * Refuses to take a tombstone back, and compares the expected version.  A call that is
 * repeated expects the version before the deletion.
 */
static void
check_deletion(const Removal *removal, ExpectedVersion expected, bool tombstone)
{
	bool		deleted = removal->last_kind == NOTICE_DELETED;
	Log		   *log = log_open(removal->log);

	if (!tombstone)
		deleted_stream_refuse(log, removal->stream, removal->last);
	if (!deleted || expected != removal->last - 1)
		deleted_stream_check_expected(log, removal->stream, expected, removal->last);
	log_close(log);
}

/* Deletes the stream. */
static void
delete_stream(Removal *removal, bool tombstone)
{
	Datum		extra = DirectFunctionCall1(jsonb_in,
											CStringGetDatum(tombstone ?
															"{\"tombstone\": true}" :
															"{\"tombstone\": false}"));

	removal_describe(removal, PG_INT64_MAX);
	removal_append_notice(removal, ES_STREAM_DELETED, extra);
	removal_delete(removal, 0);
}

/*
 * es_delete_stream(stream, expected, tombstone, metadata)
 */
Datum
es_delete_stream(PG_FUNCTION_ARGS)
{
	Removal		removal = {.log = log_relid(fcinfo->flinfo->fn_oid),.with_archive = true};
	bool		tombstone;

	PreventCommandIfReadOnly("es_delete_stream()");
	argument_not_null(fcinfo, DELETE_STREAM, "stream");
	argument_not_null(fcinfo, DELETE_EXPECTED, "expected");
	tombstone = argument_is_true(fcinfo, DELETE_TOMBSTONE);
	removal.stream = PG_GETARG_TEXT_PP(DELETE_STREAM);
	removal.action = tombstone ? "tombstone" : "delete";
	if (!PG_ARGISNULL(DELETE_METADATA))
		removal.metadata = event_metadata(PG_GETARG_DATUM(DELETE_METADATA));
	SPI_connect();
	removal_begin(&removal);
	check_deletion(&removal, PG_GETARG_INT64(DELETE_EXPECTED), tombstone);
	if (is_deleted_already(&removal, tombstone))
	{
		removal.version = removal.last;
		removal.position = removal.last == 0 ? 0 : removal.last_event.position;
		removal.count = removal.last == 0 ? 0 : notice_removed(removal.last_event.data);
	}
	else
		delete_stream(&removal, tombstone);
	SPI_finish();
	return removal_row(fcinfo, &removal);
}

/* Counts tags that are not those of subjects. */
static int
count_other_tags(Datum tags)
{
	Datum	   *values;
	int			count = tags_values(tags, &values);
	int			others = 0;
	int			i;

	for (i = 0; i < count; i++)
		others += subject_is_tag(DatumGetTextPP(values[i])) ? 0 : 1;
	return others;
}

/*
 * Refuses to remove events that no notice would speak for.  A condition cannot ask for the
 * tags of subjects.
 */
static void
check_untagged(const Removal *removal)
{
	int			count = removal->tags == (Datum) 0 ? 0 : count_other_tags(removal->tags);

	if (count == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot truncate stream \"%s\", whose events have tags",
					text_to_cstring(removal->stream)),
			 errdetail("Its events from version " INT64_FORMAT " to " INT64_FORMAT " have %d tags. A condition on one of them would hold because its evidence is gone.",
					   removal->first_version, removal->last_version, count),
			 errhint("Use es_compact_stream(), es_archive_stream() or es_delete_stream(), which leave an event with these tags.")));
}

/* The last version that a truncation removes, as far as max_events go. */
static int64
truncated_upto(int64 before_version, int64 first, int64 max_events)
{
	int64		upto = before_version - 1;

	return upto - first >= max_events ? first - 1 + max_events : upto;
}

/*
 * Truncates a stream, as far as max_events go.
 */
int64
removal_truncate(Oid log, text *stream, int64 before_version, Datum metadata,
				 int64 max_events, bool of_any_store)
{
	Removal		removal = {
		.log = log,.stream = stream,.action = "truncate",.metadata = metadata,
		.of_any_store = of_any_store
	};
	int64		upto;
	int64		first;

	SPI_connect();
	removal.upto = truncated_upto(before_version, kept_first_version_now(log, stream), max_events);
	removal_begin(&removal);
	first = kept_first_version_now(log, stream);
	upto = truncated_upto(Min(before_version, removal.last), first, max_events);
	if (removal.last > 0 && upto >= first)
	{
		removal_describe(&removal, upto);
		check_untagged(&removal);
		removal_delete(&removal, 0);
	}
	SPI_finish();
	return removal.count;
}

/*
 * es_truncate_stream(stream, before_version, metadata) returns bigint.
 */
Datum
es_truncate_stream(PG_FUNCTION_ARGS)
{
	Datum		metadata = (Datum) 0;

	PreventCommandIfReadOnly("es_truncate_stream()");
	argument_not_null(fcinfo, 0, "stream");
	argument_not_null(fcinfo, 1, "before_version");
	argument_range("before_version", PG_GETARG_INT64(1), 1, PG_INT64_MAX);
	if (!PG_ARGISNULL(2))
		metadata = event_metadata(PG_GETARG_DATUM(2));
	PG_RETURN_INT64(removal_truncate(log_relid(fcinfo->flinfo->fn_oid), PG_GETARG_TEXT_PP(0),
									 PG_GETARG_INT64(1), metadata, PG_INT64_MAX, false));
}
