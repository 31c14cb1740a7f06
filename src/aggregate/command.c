/*-------------------------------------------------------------------------
 *
 * command.c
 *		A command, the metadata and ids that it gives to its events, and how it
 *		is recognized when it is repeated.
 *
 * A command has an id if its metadata has a "command_id".  Its events then get
 * ids that are made of it and of their number: es_uuid5(command_id,
 * 'stream:1') and so on.  The first event always has such an id, so that one
 * look-up finds out whether the command was executed before.  The events after
 * it may have ids of their own; their metadata has the command_id.
 *
 * The events of a command on a query lie in several streams, so that nothing but their ids
 * finds them: es_uuid5(command_id, ':1') and so on.  None may have an id of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "append/append.h"
#include "aggregate/aggregate.h"
#include "aggregate/command.h"

/* The key of metadata that has the command's id. */
#define COMMAND_ID		"command_id"

/* Keys of the command that its events' metadata takes over. */
static const char *const inherited_keys[] = {"correlation_id", "causation_id"};

/* The value of a key of an object; NULL without one. */
static JsonbValue *
find_key(Datum object, const char *key)
{
	Jsonb	   *jsonb = DatumGetJsonbP(object);

	if (!JB_ROOT_IS_OBJECT(jsonb))
		return NULL;
	return getKeyJsonValueFromContainer(&jsonb->root, key, strlen(key), NULL);
}

/* The command's id; NULL if its metadata has none. */
static pg_uuid_t *
read_command_id(Datum metadata)
{
	JsonbValue *value = metadata ? find_key(metadata, COMMAND_ID) : NULL;
	pg_uuid_t  *id;

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"" COMMAND_ID "\" of metadata must be a UUID"),
				 errdetail("Its value is not a string.")));
	id = DatumGetUUIDP(DirectFunctionCall1(uuid_in,
										   CStringGetDatum(pnstrdup(value->val.string.val,
																	value->val.string.len))));
	event_check_id(id);
	return id;
}

/* One object with the keys of both; the second one's values win. */
static Datum
merge_objects(Datum first, Datum second)
{
	if (first == (Datum) 0 || second == (Datum) 0)
		return first ? first : second;
	return DirectFunctionCall2(jsonb_concat, first, second);
}

/* What the command itself passes on to its events' metadata; 0: nothing. */
static Datum
inherited_metadata(Datum command)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;
	int			i;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (i = 0; i < (int) lengthof(inherited_keys); i++)
	{
		JsonbValue *value = find_key(command, inherited_keys[i]);
		JsonbValue	key;

		if (value == NULL || value->type == jbvNull)
			continue;
		key.type = jbvString;
		key.val.string.val = unconstify(char *, inherited_keys[i]);
		key.val.string.len = strlen(inherited_keys[i]);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, value);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return object->val.object.nPairs == 0 ? (Datum) 0 :
		JsonbPGetDatum(JsonbValueToJsonb(object));
}

/* Metadata with the command's id; 0 without one. */
static Datum
id_metadata(const pg_uuid_t *id)
{
	if (id == NULL)
		return (Datum) 0;
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(psprintf("{\"" COMMAND_ID "\": \"%s\"}",
														uuid_to_cstring(id))));
}

/*
 * Reads the command's id from its metadata, and puts together what all its
 * events get.
 */
void
command_init(Command *command, text *stream, Datum value, Datum metadata)
{
	command->stream = stream;
	command->value = value;
	command->id = read_command_id(metadata);
	command->id_metadata = id_metadata(command->id);
	command->metadata = merge_objects(inherited_metadata(value), metadata);
}

/* The id of an event of the command, numbered from 1. */
static pg_uuid_t
command_event_id(const Command *command, int number)
{
	char	   *name = psprintf("%s:%d", command->stream == NULL ? "" :
								text_to_cstring(command->stream), number);

	return *uuid_generate_v5(command->id, name, strlen(name));
}

/*
 * Refuses an id of its own for an event by which the command is recognized when it is
 * repeated: the first one, and each one of a command on a query.
 */
static void
check_own_id(const Command *command, const NewEvent *event)
{
	if (event->has_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a command with a " COMMAND_ID " must not have an id of its own",
						command->stream == NULL ? "an event" : "the first event"),
				 errdetail("Its id is %s, given by the decider or by the composite key of type \"%s\".",
						   uuid_to_cstring(&event->id),
						   text_to_cstring(event->type)),
				 errhint("A command is recognized by that id when it is repeated. Leave out the id, or the " COMMAND_ID " if the events' own ids are enough.")));
}

/* The same for all events of the command that it is recognized by. */
static void
check_own_ids(const Command *command, const Write *write)
{
	int			count = command->stream == NULL ? write->count : Min(write->count, 1);
	int			i;

	for (i = 0; command->id != NULL && i < count; i++)
		check_own_id(command, &write->events[i]);
}

/*
 * Completes the metadata of the command's events, and the ids of those that
 * have none of their own or of their types' composite keys.
 */
void
command_complete_events(const Command *command, Write *write)
{
	NewEvent   *events = write->events;
	int			i;

	for (i = 0; i < write->count; i++)
		events[i].metadata = merge_objects(merge_objects(command->metadata,
														 events[i].metadata),
										   command->id_metadata);
	write_identify(write);
	check_own_ids(command, write);
	for (i = 0; command->id != NULL && i < write->count; i++)
	{
		if (events[i].has_id)
			continue;
		events[i].id = command_event_id(command, i + 1);
		events[i].has_id = true;
	}
}

/*
 * Finds all events of the command by their ids.
 */
bool
command_find_decided(const Command *command, Oid relid, Int8Array *found)
{
	StoredEvent event;
	Log		   *log;
	int			number;

	memset(found, 0, sizeof(Int8Array));
	if (command->id == NULL)
		return false;
	log = log_open(relid);
	for (number = 1; number <= ES_MAX_CONDITIONAL; number++)
	{
		pg_uuid_t	id = command_event_id(command, number);

		CHECK_FOR_INTERRUPTS();
		if (!log_find_id(log, &id, NULL, &event) && !removed_find_id(log, &id, NULL, &event))
			break;
		int8_array_append(found, event.position);
	}
	log_close(log);
	return found->count > 0;
}

/* Looks for the command's first event by its id. */
static bool
find_first_event(const Command *command, Oid relid, StoredEvent *found)
{
	Log		   *log = log_open(relid);
	pg_uuid_t	id = command_event_id(command, 1);
	bool		result = (log_find_id(log, &id, command->stream, found) ||
						  removed_find_id(log, &id, command->stream, found)) &&
	found->same_stream;

	log_close(log);
	return result;
}

/*
 * Returns true if the event has the id that the command's event of this number
 * gets.
 */
static bool
has_command_event_id(const Command *command, TupleTableSlot *event, int number)
{
	pg_uuid_t	id = command_event_id(command, number);
	bool		isnull;

	return memcmp(DatumGetUUIDP(slot_getattr(event, Anum_es_events_id,
											 &isnull)),
				  &id, UUID_LEN) == 0;
}

/* Returns true if the event's metadata has the command's id. */
static bool
has_command_id(const Command *command, TupleTableSlot *event)
{
	bool		isnull;
	Datum		metadata = slot_getattr(event, Anum_es_events_metadata, &isnull);
	JsonbValue *value = isnull ? NULL : find_key(metadata, COMMAND_ID);
	char	   *id = uuid_to_cstring(command->id);

	return value != NULL && value->type == jbvString &&
		value->val.string.len == (int) strlen(id) &&
		memcmp(value->val.string.val, id, strlen(id)) == 0;
}

/*
 * Counts the command's events from the first one on.  Their ids or their
 * metadata tell: a program that decides outside the database may have given
 * them the ids only.
 */
bool
command_find_executed(const Command *command, Oid log, CommandResult *found)
{
	StoredEvent first;
	StreamScan *scan;
	TupleTableSlot *event;
	bool		isnull;

	if (command->id == NULL || !find_first_event(command, log, &first))
		return false;
	found->version = first.version;
	found->position = first.position;
	found->count = 1;
	scan = stream_scan_open(log, command->stream, first.version, PG_INT64_MAX,
							GetActiveSnapshot());
	while ((event = stream_scan_next(scan)) != NULL &&
		   (has_command_event_id(command, event, found->count + 1) ||
			has_command_id(command, event)))
	{
		CHECK_FOR_INTERRUPTS();
		found->version = DatumGetInt64(slot_getattr(event,
													Anum_es_events_version,
													&isnull));
		found->position = DatumGetInt64(slot_getattr(event,
													 Anum_es_events_position,
													 &isnull));
		found->count++;
	}
	stream_scan_close(scan);
	return true;
}
