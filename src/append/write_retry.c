/*-------------------------------------------------------------------------
 *
 * write_retry.c
 *		Retries: events of a write whose ids are stored already.
 *
 * Events for one stream are a batch, and are recognized as a whole: if the ids that
 * the caller gives are stored in the stream, in this order and with the places of
 * the others between them, and if each event of the batch, with or without an id, is
 * the event that is stored at its place, the batch is a retry.  If none of the ids
 * is stored, it is new.  Anything else is ES002.
 *
 * Events that name their own streams, rows of es_import, are recognized each by
 * itself.  A row whose event is stored in its stream, or came before in the same
 * write, is left out.  An id that is stored in another stream is ES002, and so is one
 * that another event has.
 *
 * It is the same event if its type, data, tags and body are the same, where jsonb
 * compares data.  Metadata and times may differ, since a program may make them anew, and
 * so may the tags that are made of metadata (tag_metadata.c).  There are two exceptions.  Where a composite key made the id, the key decides.  Where the stored
 * event was rewritten, which the table es_rewrites knows, the id and the place decide.
 * That table is asked only if the data differ.  Personal attributes are opened to be compared;
 * of a person who was erased, the id and the place decide, too.  They decide as well where the event was
 * removed: its id stays in es_removed_ids for some time (log/removed.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/context.h"
#include "base/role.h"
#include "stats/stats.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/tags.h"
#include "personal/personal.h"
#include "type/type.h"
#include "append/append.h"

/* The first row with an id. */
typedef struct RowOfId
{
	pg_uuid_t	id;
	NewEvent	event;
} RowOfId;

/* How many keys are named in which data differ. */
#define MAX_KEYS_NAMED	5

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
 * sets *first to the version of its first event and returns an event that is stored.
 * Returns NULL if none is stored.  Anything else is ES002.
 */
static const NewEvent *
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
		if (!log_find_id(log, &event->id, write->stream, &found) &&
			!removed_find_id(log, &event->id, write->stream, &found))
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
	return stored;
}

/* Returns true if two values of jsonb are equal. */
static bool
same_json(Datum one, Datum other)
{
	return DatumGetBool(DirectFunctionCall2(jsonb_eq, one, other));
}

/* Returns true if two values of bytea are equal; 0: none. */
static bool
same_bytes(Datum one, Datum other)
{
	return one == (Datum) 0 || other == (Datum) 0 ? one == other :
		DatumGetBool(DirectFunctionCall2(byteaeq, one, other));
}

/* Returns true if both objects have the key, with the same value. */
static bool
has_same_value(Jsonb *one, Jsonb *other, const JsonbValue *key)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&one->root,
													 key->val.string.val,
													 key->val.string.len, NULL);
	JsonbValue *match = getKeyJsonValueFromContainer(&other->root,
													 key->val.string.val,
													 key->val.string.len, NULL);

	return value != NULL && match != NULL &&
		same_json(JsonbPGetDatum(JsonbValueToJsonb(value)),
				  JsonbPGetDatum(JsonbValueToJsonb(match)));
}

/* Adds the names of keys of the one object whose values differ in the other. */
static void
add_different_keys(StringInfo names, int *count, Jsonb *one, Jsonb *other,
				   bool only_missing)
{
	JsonbIterator *iterator = JsonbIteratorInit(&one->root);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (only_missing ?
			getKeyJsonValueFromContainer(&other->root, key.val.string.val,
										 key.val.string.len, NULL) != NULL :
			has_same_value(one, other, &key))
			continue;
		if (++(*count) <= MAX_KEYS_NAMED)
			appendStringInfo(names, "%s\"%.*s\"", *count > 1 ? ", " : "",
							 pg_mbcliplen(key.val.string.val,
										  key.val.string.len, NAMEDATALEN),
							 key.val.string.val);
	}
}

/*
 * Says in which keys the data differ; "" if they are not both objects.  The values
 * stay out of the server's log.
 */
static const char *
different_keys(Datum given, Datum stored)
{
	Jsonb	   *one = DatumGetJsonbP(given);
	Jsonb	   *other = DatumGetJsonbP(stored);
	StringInfoData names;
	int			count = 0;

	if (!JB_ROOT_IS_OBJECT(one) || !JB_ROOT_IS_OBJECT(other))
		return "";
	initStringInfo(&names);
	appendStringInfoString(&names, " in ");
	add_different_keys(&names, &count, one, other, false);
	add_different_keys(&names, &count, other, one, true);
	if (count > MAX_KEYS_NAMED)
		appendStringInfo(&names, " and %d more", count - MAX_KEYS_NAMED);
	return names.data;
}

/*
 * Returns true if the caller may know what the stored event says.  The names of attributes that differ
 * would tell which guess of a personal one is right.
 */
static bool
may_know_stored(Log *log, const StoredContent *stored)
{
	Oid			relid = RelationGetRelid(log->rel);

	return role_may_read_all(relid, GetUserId()) &&
		(stored->metadata == (Datum) 0 || !open_is_sealed(stored->metadata) ||
		 open_may_see(relid, GetUserId()));
}

/*
 * Says how an event differs from another one; NULL if it is the same, or if its
 * composite key decides.  knows: the caller may know what the other one says.
 */
static const char *
event_difference(const NewEvent *event, const StoredContent *other, bool knows)
{
	if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
											  PointerGetDatum(event->type),
											  PointerGetDatum(other->type))))
		return knows ?
			psprintf("is of type \"%s\", not \"%s\"", text_to_cstring(other->type),
					 text_to_cstring(event->type)) :
			"is of another type";
	if (event->id_is_key)
		return NULL;
	if (!same_json(event->data, other->data) &&
		(event->upcast == (Datum) 0 || !same_json(event->upcast, other->data)))
		return psprintf("has other data%s", knows ?
						different_keys(event->data, other->data) : "");
	if (!tag_metadata_same_tags(event, other))
		return "has other tags";
	return same_bytes(event->body, other->body) ? NULL : "has another body";
}

/* Opens what is stored, to compare it.  Returns false if the subject of any of it was erased. */
static bool
open_stored(Log *log, const NewEvent *event, StoredContent *stored)
{
	SealedEvent sealed = {
		.id = &stored->id,
		.stream = event->stream,
		.type = stored->type,
		.data = stored->data,
		.metadata = stored->metadata
	};

	if (stored->metadata == (Datum) 0 || !event_type_has_personal(RelationGetRelid(log->rel)))
		return true;
	open_refuse(open_event(RelationGetRelid(log->rel), &sealed, true),
				"compare the event with the one that is stored");
	stored->data = sealed.data;
	stored->metadata = sealed.metadata;
	return stored->metadata == (Datum) 0 || !open_is_sealed(stored->metadata);
}

/*
 * Refuses an event that is not the one that is stored in its stream at the version.  Of one
 * that was removed, or compacted with others, nothing is left to compare.
 * id: that tells the append.  Returns the position; 0 if it is not known any more.
 */
static int64
check_same_event(Log *log, const NewEvent *event, int64 version,
				 const pg_uuid_t *id)
{
	StoredContent stored;
	const char *difference;
	bool		knows;

	if (!log_read_event(log, event->stream, version, &stored))
		return removed_position(log, event->stream, version);
	if (notice_kind(stored.type) == NOTICE_COMPACTED)
		return stored.position;
	knows = may_know_stored(log, &stored);
	if (!open_stored(log, event, &stored))
		return stored.position;
	difference = event_difference(event, &stored, knows);
	if (difference != NULL && !rewrite_is_recorded(log, stored.position))
		log_fail_duplicate(id,
						   psprintf("The event that is stored in this stream at version " INT64_FORMAT " %s.",
									version, difference));
	return stored.position;
}

/*
 * Returns true if the batch is a retry, with its first result in the write.
 */
static bool
batch_is_retry(Log *log, Write *write)
{
	const NewEvent *stored;
	int64		first;
	int64		last;
	int			i;

	if (write->count > 1)
		check_ids_are_unique(write);
	stored = find_stored_batch(log, write, &first);
	if (stored == NULL)
		return false;
	last = first + write->count - 1;
	if (first < 1 || last > write->version)
		log_fail_duplicate(&stored->id,
						   psprintf("The id is stored in this stream, the %d events of this batch are not.",
									write->count));
	for (i = 0; i < write->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		write->position = check_same_event(log, &write->events[i], first + i,
										   &stored->id);
		if (i == 0)
			write->first_position = write->position;
	}
	write->version = last;
	stats_count(stream_stats(write->stream), STATS_DUPLICATES, 1);
	return true;
}

/* Returns the events of a whole write that go to the stream of one of them. */
static Write
part_of_write(Log *log, const Write *write, const NewEvent *event)
{
	Write		part = {
		.log = write->log,
		.stream = event->stream,
		.events = palloc(sizeof(NewEvent) * write->count)
	};
	int			i;

	for (i = 0; i < write->count; i++)
	{
		if (stream_equal(write->events[i].stream, event->stream))
			part.events[part.count++] = write->events[i];
	}
	part.version = log_last_version(log, part.stream, 0);
	return part;
}

/* Returns true if an event before this one goes to its stream. */
static bool
is_later_of_stream(const Write *write, int event)
{
	int			i;

	for (i = 0; i < event; i++)
	{
		if (stream_equal(write->events[i].stream, write->events[event].stream))
			return true;
	}
	return false;
}

/*
 * Returns true if the whole write is a retry: that of each stream is one.  Positions are
 * those of the first and the last event.
 */
static bool
whole_is_retry(Log *log, Write *write)
{
	const NewEvent *stored = NULL;
	const NewEvent *missing = NULL;
	int			i;

	check_ids_are_unique(write);
	for (i = 0; i < write->count; i++)
	{
		Write		part;

		CHECK_FOR_INTERRUPTS();
		if (is_later_of_stream(write, i))
			continue;
		part = part_of_write(log, write, &write->events[i]);
		if (!batch_is_retry(log, &part))
		{
			missing = &write->events[i];
			continue;
		}
		if (stored == NULL || part.first_position < write->first_position)
			write->first_position = part.first_position;
		write->position = Max(write->position, part.position);
		stored = &part.events[0];
	}
	if (stored != NULL && missing != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_DUPLICATE_EVENT),
				 errmsg("duplicate events for stream \"%s\"", text_to_cstring(stored->stream)),
				 errdetail("They are stored, and those of the same append for stream \"%s\" are not.",
						   text_to_cstring(missing->stream)),
				 errhint("A retry repeats the whole append. To be recognized, it needs ids of events in each stream.")));
	return stored != NULL;
}

/* Refuses a row whose id came before in the same write, for another event. */
static void
check_same_row(const NewEvent *row, const NewEvent *first)
{
	StoredContent content = {0};
	const char *difference;

	if (!stream_equal(first->stream, row->stream))
		log_fail_duplicate(&row->id,
						   psprintf("The id is given for stream \"%s\" and again for stream \"%s\".",
									text_to_cstring(first->stream),
									text_to_cstring(row->stream)));
	content.type = first->type;
	content.data = first->data;
	content.metadata = first->metadata;
	content.tags = first->tags;
	content.body = first->body;
	difference = event_difference(row, &content, true);
	if (difference != NULL)
		log_fail_duplicate(&row->id,
						   psprintf("The event that row " INT64_FORMAT " gives this id %s.",
									first->row, difference));
}

/*
 * Returns true if the row's event is stored, or was given before in the write.
 */
static bool
row_is_retry(Log *log, HTAB *ids, const NewEvent *row)
{
	StoredEvent stored;
	RowOfId    *given;
	bool		found;

	if (!row->has_id)
		return false;
	given = hash_search(ids, &row->id, HASH_ENTER, &found);
	if (!found)
		given->event = *row;
	else
	{
		check_same_row(row, &given->event);
		return true;
	}
	if (!log_find_id(log, &row->id, row->stream, &stored) &&
		!removed_find_id(log, &row->id, row->stream, &stored))
		return false;
	if (!stored.same_stream)
		log_fail_duplicate(&row->id, stored.place);
	(void) check_same_event(log, row, stored.version, &row->id);
	return true;
}

/* Names the row of an import in an error's context. */
static void
row_context(void *arg)
{
	const NewEvent *const *row = arg;

	if (*row != NULL)
		errcontext("row " INT64_FORMAT " of the import", (*row)->row);
}

/* Keeps the rows that are no retries, and counts the others. */
static void
keep_new_rows(Log *log, Write *write, HTAB *ids, const NewEvent **row)
{
	int			count = write->count;
	int			i;

	write->count = 0;
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		*row = &write->events[i];
		if (!row_is_retry(log, ids, *row))
			write->events[write->count++] = **row;
		else
		{
			stats_count(stream_stats((*row)->stream), STATS_DUPLICATES, 1);
			if (write->left_out++ == 0)
				write->first_left_out = (*row)->row;
		}
	}
}

/* Leaves out rows that are retries. */
static void
leave_out_stored_rows(Log *log, Write *write)
{
	HASHCTL		control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(RowOfId),
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *ids = hash_create("eventstore row ids", write->count, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	const NewEvent *row = NULL;
	ErrorContextCallback context;

	context_push(&context, row_context, &row);
	keep_new_rows(log, write, ids, &row);
	context_pop(&context);
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
	if (write->is_whole)
		return whole_is_retry(log, write);
	leave_out_stored_rows(log, write);
	return false;
}

/*
 * Refuses ids of events that were removed, which no index of es_events has.
 */
void
write_retry_refuse_removed(const Write *write, Log *log)
{
	StoredEvent found;
	int			i;

	for (i = 0; i < write->count; i++)
	{
		const NewEvent *event = &write->events[i];

		if (event->has_id && removed_find_id(log, &event->id, write->stream, &found))
			log_fail_duplicate(&event->id, "The event with this id was removed.");
	}
}
