/*-------------------------------------------------------------------------
 *
 * event.c
 *		The columns of a stored event, and checks of a new one by itself: its type's
 *		name, its metadata, its id, its time and its body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "log/tags.h"

/* How many bytes of a name an error shows. */
#define MAX_NAME_SHOWN	100

Datum
stored_event_column(Relation log, HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column, RelationGetDescr(log), &isnull);

	return isnull ? (Datum) 0 : value;
}

/* A type's name must not be empty or long. */
void
event_check_type_name(text *type)
{
	int			length = VARSIZE_ANY_EXHDR(type);

	if (length == 0 || length > ES_MAX_TYPE_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 length == 0 ?
				 errmsg("an event's type must not be empty") :
				 errmsg("an event's type is too long"),
				 errdetail("The type has %d bytes, the limit is %d.",
						   length, ES_MAX_TYPE_LENGTH),
				 errhint("Name what happened, such as 'deposited', and put the rest into data.")));
}

/*
 * Refuses an array that is no list of events' types.
 */
void
event_check_type_names(ArrayType *types)
{
	Datum	   *values;
	int			count = argument_texts("types", types, &values);
	int			i;

	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("types must not be empty"),
				 errdetail("The array has no elements."),
				 errhint("Leave types out to get events of all types.")));
	for (i = 0; i < count; i++)
		event_check_type_name(DatumGetTextPP(values[i]));
}

/*
 * Refuses a name that no category can have, such as that of a stream.
 */
void
event_check_category(text *category)
{
	int			length = VARSIZE_ANY_EXHDR(category);

	if (length > 0)
		stream_check_name(category);
	if (stream_category_length(category) < length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a category has no \"-\""),
				 errdetail("\"%s\" is the name of a stream, whose category is \"%s\".",
						   text_to_cstring(category),
						   pnstrdup(VARDATA_ANY(category),
									stream_category_length(category))),
				 errhint("The category is the part of a stream's name before the first \"-\".")));
}

/*
 * Returns true if the name begins as those do that the store keeps for itself.
 */
bool
event_is_reserved(text *name)
{
	return VARSIZE_ANY_EXHDR(name) >= strlen(ES_RESERVED_PREFIX) &&
		memcmp(VARDATA_ANY(name), ES_RESERVED_PREFIX,
			   strlen(ES_RESERVED_PREFIX)) == 0;
}

/*
 * Refuses such a name.
 */
void
event_check_reserved(text *name, const char *what)
{
	if (!event_is_reserved(name))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not begin with \"" ES_RESERVED_PREFIX "\"", what),
			 errdetail("The name begins with \"%s\".",
					   pnstrdup(VARDATA_ANY(name),
								pg_mbcliplen(VARDATA_ANY(name),
											 VARSIZE_ANY_EXHDR(name),
											 MAX_NAME_SHOWN))),
			 errhint("Such names are reserved; choose another one.")));
}

/*
 * Refuses the two UUIDs that programs have where they have none (RFC 9562): all
 * bits are zero, or one.
 */
void
event_check_id(const pg_uuid_t *id)
{
	int			i;

	for (i = 1; i < UUID_LEN; i++)
	{
		if (id->data[i] != id->data[0])
			return;
	}
	if (id->data[0] == 0 || id->data[0] == 0xff)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an id must not be the %s UUID",
						id->data[0] == 0 ? "nil" : "max"),
				 errdetail("The id is %s, which usually stands for an id that was not set.",
						   uuid_to_cstring(id)),
				 errhint("Give each event an id of its own, or none, and one is made.")));
}

/*
 * Refuses infinity as a time.
 */
static void
check_occurred_at(TimestampTz occurred_at)
{
	if (TIMESTAMP_NOT_FINITE(occurred_at))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("occurred_at must be finite"),
				 errdetail("It is %sinfinity.",
						   TIMESTAMP_IS_NOBEGIN(occurred_at) ? "-" : ""),
				 errhint("Leave it out if the time is not known.")));
}

/* Metadata is an object, so that more can be added to it. */
void
event_check_metadata(Datum metadata)
{
	Jsonb	   *object = DatumGetJsonbP(metadata);

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be an object"),
				 errdetail("The metadata is %s.",
						   JB_ROOT_IS_SCALAR(object) ? "a scalar" : "an array"),
				 errhint("Pass an object, such as '{\"correlation_id\": \"...\"}', or null.")));
}

/*
 * Metadata that may be left out.  A JSON null counts as none, in every form of a call.
 */
Datum
event_metadata(Datum metadata)
{
	Jsonb	   *object = DatumGetJsonbP(metadata);

	if (JB_ROOT_IS_SCALAR(object))
	{
		JsonbValue	value;

		if (JsonbExtractScalar(&object->root, &value) && value.type == jbvNull)
			return (Datum) 0;
	}
	event_check_metadata(metadata);
	return metadata;
}

/*
 * Refuses bytes that could not be read as text, whose digits take twice the room.
 */
static void
check_body(Datum body)
{
	Size		size = toast_raw_datum_size(body) - VARHDRSZ;

	if (size > ES_MAX_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("body of an event is too long"),
				 errdetail("It has %zu bytes, the limit is %d.", size, ES_MAX_BODY),
				 errhint("Store it elsewhere, and put its address and its digest into data.")));
}

/*
 * Refuses an event that is wrong by itself.  Its stream is checked by
 * stream_check_new.
 */
void
event_check_new(NewEvent *event)
{
	event_check_type_name(event->type);
	event_check_reserved(event->type, "an event's type");
	if (event->metadata)
		event->metadata = event_metadata(event->metadata);
	if (event->tags)
		event->tags = tags_check(event->tags);
	if (event->body)
		check_body(event->body);
	if (event->has_id)
		event_check_id(&event->id);
	if (event->has_occurred_at)
		check_occurred_at(event->occurred_at);
}
