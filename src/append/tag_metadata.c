/*-------------------------------------------------------------------------
 *
 * tag_metadata.c
 *		Tags that new events get from their metadata (eventstore.tag_metadata).
 *
 * The setting names keys of metadata.  An event gets a tag "key:value" for each of them
 * that its metadata has, with a string or a number, besides its own tags.  It gets them
 * as part of the first step of a write, when its metadata is complete and before its
 * tags are locked.  They are stored as tags like any other.
 *
 * A retry may have other metadata than the first time, and the setting may have changed
 * since.  So a tag that only one of two events has does not make them differ, if the
 * metadata of this one could have made it.  The setting is not asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

#include "eventstore.h"
#include "base/context.h"
#include "log/log.h"
#include "log/tags.h"
#include "personal/personal.h"
#include "append/append.h"

/* Between the key and the value. */
#define SEPARATOR		':'

/* A tag has at least one byte of a value. */
#define MAX_KEY_LENGTH	(ES_MAX_TAG_LENGTH - 2)

/*
 * eventstore.tag_metadata: the keys of metadata that become tags.  An administrator sets
 * it for a database, so that everything that belongs to one correlation is found by its
 * tag, whatever program appends.
 */
static char *tag_metadata = NULL;

/* The keys as they were read last, and whether the setting has changed since. */
static MemoryContext keys_context = NULL;
static List *keys = NIL;
static bool keys_are_read = false;

/* Returns true if all names can be part of tags, or says why not. */
static bool
check_keys(const List *names)
{
	const ListCell *cell;

	if (list_length(names) > ES_MAX_TAGS)
	{
		GUC_check_errdetail("It names %d keys, the limit is %d.", list_length(names),
							ES_MAX_TAGS);
		return false;
	}
	foreach(cell, names)
	{
		int			length = strlen(lfirst(cell));

		if (length > 0 && length <= MAX_KEY_LENGTH)
			continue;
		GUC_check_errdetail("The name of a key has %d bytes, the least is 1 and the limit is %d.",
							length, MAX_KEY_LENGTH);
		return false;
	}
	return true;
}

static bool
check_tag_metadata(char **value, void **extra, GucSource source)
{
	List	   *names;

	if (SplitGUCList(pstrdup(*value), ',', &names))
		return check_keys(names);
	GUC_check_errdetail("It is not a list of names: \"%s\".", *value);
	GUC_check_errhint("Put commas between the keys, and double quotes around those with special characters.");
	return false;
}

static void
assign_tag_metadata(const char *value, void *extra)
{
	keys_are_read = false;
}

void
tag_metadata_init(void)
{
	DefineCustomStringVariable("eventstore.tag_metadata",
							   "Keys of metadata that become tags of new events.",
							   "A list of names.",
							   &tag_metadata, "", PGC_SUSET, GUC_LIST_INPUT,
							   check_tag_metadata, assign_tag_metadata, NULL);
}

/* Reads the setting, if it has changed. */
static void
read_keys(void)
{
	MemoryContext oldcontext;

	if (keys_are_read)
		return;
	if (keys_context == NULL)
		keys_context = AllocSetContextCreate(TopMemoryContext, "eventstore tag_metadata",
											 ALLOCSET_SMALL_SIZES);
	keys = NIL;
	MemoryContextReset(keys_context);
	oldcontext = MemoryContextSwitchTo(keys_context);
	(void) SplitGUCList(pstrdup(tag_metadata), ',', &keys);
	MemoryContextSwitchTo(oldcontext);
	keys_are_read = true;
}

/*
 * Returns the value of a key as a tag has it; NULL if there is no key of the name, or it has
 * neither a string nor a number.  An empty string is no value.  Metadata that the owner has
 * inserted may be no object.
 */
static char *
metadata_value(Jsonb *metadata, const char *key, int length)
{
	JsonbValue *value = JB_ROOT_IS_OBJECT(metadata) ?
	getKeyJsonValueFromContainer(&metadata->root, key, length, NULL) : NULL;

	if (value == NULL)
		return NULL;
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	return value->type == jbvString && value->val.string.len > 0 ?
		pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

/* The tag of a key and its value. */
static Datum
make_tag(const char *key, const char *value)
{
	char	   *tag = psprintf("%s%c%s", key, SEPARATOR, value);
	int			length = strlen(tag);

	if (length > ES_MAX_TAG_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a tag is too long"),
				 errdetail("The tag that key \"%s\" of the metadata makes has %d bytes, the limit is %d.",
						   key, length, ES_MAX_TAG_LENGTH),
				 errhint("Shorten the value, or take the key out of eventstore.tag_metadata.")));
	return CStringGetTextDatum(tag);
}

/* Adds the tags of an event's metadata. */
static void
tag_event(NewEvent *event)
{
	Jsonb	   *metadata = DatumGetJsonbP(event->metadata);
	Datum		added[ES_MAX_TAGS];
	int			count = 0;
	ListCell   *cell;

	foreach(cell, keys)
	{
		const char *key = lfirst(cell);
		char	   *value = metadata_value(metadata, key, strlen(key));

		if (value != NULL)
			added[count++] = make_tag(key, value);
	}
	if (count > 0)
		event->tags = tags_add(event->tags, added, count);
}

/* The event that is tagged, of so many. */
typedef struct TagContext
{
	const NewEvent *event;
	int			number;
	int			count;
} TagContext;

static void
tag_context(void *arg)
{
	const TagContext *tagged = arg;

	errcontext("while making tags of metadata, by eventstore.tag_metadata");
	if (tagged->event->row > 0)
		errcontext("row " INT64_FORMAT " of the import", tagged->event->row);
	else if (tagged->count > 1)
		errcontext("event %d of the batch", tagged->number);
}

/* Adds the tags of the metadata of events. */
static void
tag_events(NewEvent *events, int count)
{
	ErrorContextCallback context;
	TagContext	tagged = {.count = count};
	int			i;

	read_keys();
	context_push(&context, tag_context, &tagged);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		tagged.event = &events[i];
		tagged.number = i + 1;
		if (events[i].metadata)
			tag_event(&events[i]);
	}
	context_pop(&context);
}

/*
 * Gives new events the tags of their metadata, if the setting names any.
 */
void
tag_metadata_add(NewEvent *events, int count)
{
	if (tag_metadata[0] != '\0')
		tag_events(events, count);
}

/* Returns true if a key of the metadata and its value are the tag. */
static bool
metadata_makes(Jsonb *metadata, const char *tag)
{
	const char *colon = tag;

	while ((colon = strchr(colon, SEPARATOR)) != NULL)
	{
		char	   *value = metadata_value(metadata, tag, colon - tag);

		colon++;
		if (value != NULL && strcmp(value, colon) == 0)
			return true;
	}
	return false;
}

/*
 * Returns true if the metadata makes all tags that the others do not have, but for those that the
 * definitions of types make.
 */
static bool
makes_missing(Datum metadata, Datum tags, Datum others)
{
	Datum	   *missing;
	int			count = tags_missing(tags, others, &missing);
	int			i;

	for (i = 0; i < count; i++)
	{
		if (subject_is_tag(DatumGetTextPP(missing[i])))
			continue;
		if (metadata == (Datum) 0 ||
			!metadata_makes(DatumGetJsonbP(metadata), TextDatumGetCString(missing[i])))
			return false;
	}
	return true;
}

/*
 * Returns true if the event has the tags of the other one, but for those that the metadata
 * of either makes.
 */
bool
tag_metadata_same_tags(const NewEvent *event, const StoredContent *other)
{
	return tags_equal(event->tags, other->tags) ||
		(makes_missing(event->metadata, event->tags, other->tags) &&
		 makes_missing(other->metadata, other->tags, event->tags));
}
