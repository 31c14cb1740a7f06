/*-------------------------------------------------------------------------
 *
 * deleted_stream.c
 *		Appends to streams that were deleted.
 *
 * The last event of a deleted stream is es_stream_deleted, and versions go on after it.  A
 * stream that is expected not to exist, or to exist, is compared as if it had no event.  After
 * a tombstone nothing is appended any more.
 *
 * Nothing is looked up while no event was removed from the store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "eventstore.h"
#include "log/log.h"
#include "log/removed.h"
#include "append/append.h"

/* Reads the stream's last event.  Returns true if it says that the stream was deleted. */
static bool
read_deletion(Log *log, text *stream, int64 version, StoredContent *content)
{
	return version > 0 && removed_any(log->rel) &&
		log_read_event(log, stream, version, content) &&
		notice_kind(content->type) == NOTICE_DELETED;
}

/*
 * Refuses an append after a tombstone.
 */
void
deleted_stream_refuse(Log *log, text *stream, int64 version)
{
	StoredContent content;

	if (read_deletion(log, stream, version, &content) && notice_is_tombstone(content.data))
		ereport(ERROR,
				(errcode(ERRCODE_ES_STREAM_CLOSED),
				 errmsg("stream \"%s\" is closed", text_to_cstring(stream)),
				 errdetail("It was deleted for good, with a tombstone at version " INT64_FORMAT ".",
						   version),
				 errhint("Append to a stream of another name.")));
}

/*
 * The version that the expected one is compared with.
 */
static int64
version_to_compare(Log *log, text *stream, ExpectedVersion expected, int64 version)
{
	StoredContent content;

	return (expected == EXPECTED_NONE || expected == EXPECTED_EXISTS) &&
		read_deletion(log, stream, version, &content) ? 0 : version;
}

/*
 * Compares the stream's version with the expected one.
 */
void
deleted_stream_check_expected(Log *log, text *stream, ExpectedVersion expected,
							  int64 version)
{
	if (expected != EXPECTED_ANY && expected != version)
		expected_version_check(stream, expected,
							   version_to_compare(log, stream, expected, version));
}
