/*-------------------------------------------------------------------------
 *
 * rebuild_removed.c
 *		Says that a rebuild does not get all events that there ever were.
 *
 * The read model may become another one then, which depends on the handler: what a
 * removal has left in the log says which events are gone (doc/internals/retention.md), except
 * of those that were truncated.  Types and tags of removed events are not known here, so that
 * all of the projection's categories are counted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"

#include "base/base.h"
#include "log/log.h"
#include "projection/projection.h"
#include "projection/rebuild.h"

/* What may have become of removed events. */
enum
{
	REMOVED_DELETED, REMOVED_TRUNCATED, REMOVED_COMPACTED, REMOVED_ARCHIVED, REMOVED_KINDS
};

static const char *const removed_kinds[REMOVED_KINDS] = {
	"deleted with their streams", "truncated", "compacted", "archived"
};

/* Counts the removed events of the categories after start_position, by what became of them. */
static int64
count_removed(const Projection *projection, int64 *counts)
{
	Oid			types[2] = {TEXTARRAYOID, INT8OID};
	Datum		values[2] = {PointerGetDatum(projection->categories.array),
	Int64GetDatum(projection->start_position)};
	int64		all = 0;
	int			i;

	(void) own_sql_run(projection->log,
					   "SELECT coalesce(sum(removed) FILTER (WHERE action IN ('delete', 'tombstone')), 0)::int8,"
					   " coalesce(sum(removed) FILTER (WHERE action = 'truncate'), 0)::int8,"
					   " coalesce(sum(removed) FILTER (WHERE action = 'compact'), 0)::int8,"
					   " greatest(sum(CASE action WHEN 'archive' THEN removed"
					   " WHEN 'unarchive' THEN - removed END), 0)::int8"
					   " FROM @extschema@.es_removals"
					   " WHERE ($1 IS NULL OR @extschema@.es_category(stream) = ANY ($1))"
					   " AND upper(positions) > $2 + 1",
					   2, types, values, projection->categories.array ? NULL : "n ");
	for (i = 0; i < REMOVED_KINDS; i++)
	{
		counts[i] = i == REMOVED_ARCHIVED && projection->archived ? 0 :
			DatumGetInt64(own_sql_value(i + 1));
		all += counts[i];
	}
	return all;
}

/* Returns a list: "3 truncated, 2 archived". */
static char *
describe_removed_counts(const int64 *counts)
{
	StringInfoData text;
	int			i;

	initStringInfo(&text);
	for (i = 0; i < REMOVED_KINDS; i++)
	{
		if (counts[i] > 0)
			appendStringInfo(&text, "%s" INT64_FORMAT " %s", text.len > 0 ? ", " : "",
							 counts[i], removed_kinds[i]);
	}
	return text.data;
}

void
rebuild_notice_removed(const Projection *projection)
{
	int64		counts[REMOVED_KINDS];
	int64		all = count_removed(projection, counts);

	if (all > 0)
		ereport(NOTICE,
				(errmsg("projection \"%s\" is rebuilt without " INT64_FORMAT " event(s) that were removed from the log",
						projection->name, all),
				 errdetail("Of all events of its categories these are not there any more: %s.",
						   describe_removed_counts(counts)),
				 errhint("It gets es_stream_deleted, es_compacted and es_stream_archived in their place, and nothing for truncated events.%s",
						 counts[REMOVED_ARCHIVED] > 0 ?
						 " Pass archived => true to give it the archived events." : "")));
}
