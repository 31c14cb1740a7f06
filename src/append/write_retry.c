/*-------------------------------------------------------------------------
 *
 * write_retry.c
 *		Retries: events of a write whose ids are stored already.
 *
 * Events for one stream are a batch, and are recognized as a whole: if the ids that
 * the caller gives are stored in the stream, in this order and with the places of
 * the others between them, the batch is a retry.  If none of them is stored, it is
 * new.  Anything else is ES002.
 *
 * Events that name their own streams, rows of es_import, are recognized each by
 * itself.  A row whose id is stored in its stream, or came before in the same
 * write, is left out.  An id that is stored in another stream is ES002.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "append/append.h"

/* The id of a row. */
typedef struct RowId
{
	pg_uuid_t	id;
	text	   *stream;
} RowId;

static int
compare_event_ids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/* Refuses a batch that names an id twice. */
static void
check_ids_are_unique(const Write *write)
{
	pg_uuid_t  *ids = palloc(sizeof(pg_uuid_t) * write->count);
	int			count = 0;
	int			i;

	for (i = 0; i < write->count; i++)
	{
		if (write->events[i].has_id)
			ids[count++] = write->events[i].id;
	}
	qsort(ids, count, sizeof(pg_uuid_t), compare_event_ids);
	for (i = 1; i < count; i++)
	{
		if (compare_event_ids(&ids[i - 1], &ids[i]) == 0)
			log_fail_duplicate(&ids[i], "The id is given twice in one batch.");
	}
	pfree(ids);
}

/*
 * Looks up the ids of a batch.  If they are stored as one append in the stream,
 * sets *first to the version of its first event and returns true.  Returns false
 * if none is stored.  Anything else is ES002.
 */
static bool
find_stored_batch(Log *log, const Write *write, int64 *first)
{
	StoredEvent found;
	const NewEvent *stored = NULL;
	const NewEvent *missing = NULL;
	int			i;

	for (i = 0; i < write->count; i++)
	{
		const NewEvent *event = &write->events[i];

		if (!event->has_id)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (!log_find_id(log, &event->id, write->stream, &found))
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

/* Raises that the events without ids have no places next to the others. */
static void
fail_incomplete_batch(const Write *write)
{
	const NewEvent *event = write->events;

	while (!event->has_id)
		event++;
	log_fail_duplicate(&event->id,
					   psprintf("The id is stored in this stream, the %d events of this batch are not.",
								write->count));
}

/*
 * Returns true if the batch is a retry, with its first result in the write.
 */
static bool
batch_is_retry(Log *log, Write *write)
{
	int64		first;
	int64		last;

	if (write->count > 1)
		check_ids_are_unique(write);
	if (!find_stored_batch(log, write, &first))
		return false;
	last = first + write->count - 1;
	if (first < 1 || last > write->version)
		fail_incomplete_batch(write);
	write->version = last;
	write->position = log_position(log, write->stream, last);
	stats_count(stream_stats(write->stream), STATS_DUPLICATES, 1);
	return true;
}

/*
 * Returns true if the row's event is stored, or was given before in the write.
 */
static bool
row_is_retry(Log *log, HTAB *ids, const NewEvent *row)
{
	StoredEvent stored;
	RowId	   *given;
	bool		found;

	if (!row->has_id)
		return false;
	given = hash_search(ids, &row->id, HASH_ENTER, &found);
	if (!found)
		given->stream = row->stream;
	else if (!stream_equal(given->stream, row->stream))
		log_fail_duplicate(&row->id,
						   psprintf("The id is given for stream \"%s\" and again for stream \"%s\".",
									text_to_cstring(given->stream),
									text_to_cstring(row->stream)));
	if (found)
		return true;
	if (!log_find_id(log, &row->id, row->stream, &stored))
		return false;
	if (!stored.same_stream)
		log_fail_duplicate(&row->id, stored.place);
	return true;
}

/* Leaves out rows that are retries. */
static void
leave_out_stored_rows(Log *log, Write *write)
{
	HASHCTL		control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(RowId),
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *ids = hash_create("eventstore row ids", write->count, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	int			kept = 0;
	int			i;

	for (i = 0; i < write->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (row_is_retry(log, ids, &write->events[i]))
			stats_count(stream_stats(write->events[i].stream),
						STATS_DUPLICATES, 1);
		else
			write->events[kept++] = write->events[i];
	}
	write->count = kept;
	hash_destroy(ids);
}

/*
 * Step 4 of a write: returns true if the whole of it is a retry, with its first
 * result in the write.  Rows that are retries are left out.
 */
bool
write_retry_find(Write *write, Log *log)
{
	if (write->stream != NULL)
		return batch_is_retry(log, write);
	leave_out_stored_rows(log, write);
	return false;
}
