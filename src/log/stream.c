/*-------------------------------------------------------------------------
 *
 * stream.c
 *		Streams: what a name may be, its category, its partition, its counters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "eventstore.h"
#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_category);
PG_FUNCTION_INFO_V1(es_partition);

/* The stream of the session's last conflict, until it appends there again. */
static bool has_conflict = false;
static uint64 conflict;			/* a hash of its name */

/*
 * Refuses a name that is empty or too long for the indexes.
 */
void
stream_check_name(text *stream)
{
	int			length = VARSIZE_ANY_EXHDR(stream);

	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream's name must not be empty"),
				 errdetail("The name has 0 bytes, the limit is %d.",
						   ES_MAX_STREAM_LENGTH),
				 errhint("Name a stream by its category and an id, such as 'account-1'.")));
	if (length > ES_MAX_STREAM_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream's name is too long"),
				 errdetail("The name has %d bytes, the limit is %d, so that an index entry fits a third of a page.",
						   length, ES_MAX_STREAM_LENGTH),
				 errhint("Put the long part into the event's data, or a digest of it into the name.")));
}

/*
 * Refuses a name of a stream that no caller may append to, also a reserved one.
 */
void
stream_check_new(text *stream)
{
	stream_check_name(stream);
	event_check_reserved(stream, "a stream's name");
}

/*
 * The bytes of the name before the first '-', all without one.
 */
int
stream_category_length(text *stream)
{
	char	   *name = VARDATA_ANY(stream);
	int			length = VARSIZE_ANY_EXHDR(stream);
	char	   *dash = memchr(name, '-', length);

	return dash ? (int) (dash - name) : length;
}

char *
stream_category(text *stream)
{
	return pnstrdup(VARDATA_ANY(stream), stream_category_length(stream));
}

/*
 * The part of a stream's name before the first '-'.  The database's encoding
 * is never one in which '-' is the second half of a character.
 */
Datum
es_category(PG_FUNCTION_ARGS)
{
	text	   *stream = PG_GETARG_TEXT_PP(0);

	PG_RETURN_TEXT_P(cstring_to_text_with_len(VARDATA_ANY(stream),
											  stream_category_length(stream)));
}

/*
 * Returns true if these are the names of one stream.  Names are compared as bytes.
 */
bool
stream_equal(text *a, text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* A hash of a stream's name. */
uint64
stream_hash(text *stream)
{
	return hash_bytes_extended((unsigned char *) VARDATA_ANY(stream),
							   VARSIZE_ANY_EXHDR(stream), 0);
}

/*
 * The partition of a stream, from 0.  It must never change, since subscriptions
 * depend on it.
 */
int
stream_partition(text *stream, int partitions)
{
	return (int) (stream_hash(stream) % (uint64) partitions);
}

/*
 * es_partition(stream, partitions) returns int.
 */
Datum
es_partition(PG_FUNCTION_ARGS)
{
	text	   *stream = PG_GETARG_TEXT_PP(0);
	int			partitions = argument_int32(fcinfo, 1, "partitions", 1,
											PG_INT32_MAX);

	PG_RETURN_INT32(stream_partition(stream, partitions));
}

/* The counters of the stream's category. */
StatsEntry *
stream_stats(text *stream)
{
	return stats_find(STATS_CATEGORY, VARDATA_ANY(stream),
					  stream_category_length(stream), "", 0);
}

/*
 * Counts that a stream is at another version than was expected, and remembers the
 * stream to count the retry.
 */
void
stream_count_conflict(text *stream)
{
	stats_count(stream_stats(stream), STATS_CONFLICTS, 1);
	has_conflict = true;
	conflict = stream_hash(stream);
}

/*
 * Counts an append to the stream of the session's last conflict.
 */
void
stream_count_retry(text *stream)
{
	if (!has_conflict || stream_hash(stream) != conflict)
		return;
	stats_count(stream_stats(stream), STATS_RETRIES, 1);
	has_conflict = false;
}
