/*-------------------------------------------------------------------------
 *
 * event_identify.c
 *		Gives new events what their types give them: ids and schema versions
 *		(design: doc/internals/event_type.md).
 *
 * It runs before anything is locked, since upcasters are code of users.  An event
 * of an earlier schema version is upcast, in memory only: its id is made of the
 * data as of the type's version, and that is checked (event_check.c).  An event
 * that says no version gets its type's.  An event without an id gets that of its
 * composite key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "log/log.h"
#include "type/type.h"
#include "type/upcast.h"

/* Returns true if the data has all attributes that an id is made of. */
static bool
has_composite_key(const EventType *type, Jsonb *data)
{
	ListCell   *cell;

	if (!JB_ROOT_IS_OBJECT(data))
		return false;
	foreach(cell, type->attributes)
	{
		EventAttribute *attribute = lfirst(cell);
		JsonbValue	buffer;
		JsonbValue *value;

		if (!attribute->key)
			continue;
		value = event_attribute_value(data, attribute->name, &buffer);
		if (value == NULL || value->type == jbvNull ||
			value->type == jbvBinary)
			return false;
	}
	return true;
}

/*
 * Gives the event the id of its composite key.  Returns false if it has not all
 * of the key.
 */
static bool
set_composite_id(NewEvent *event, const EventType *type)
{
	Jsonb	   *data;

	if (event->has_id || type->composite_key == NULL)
		return true;
	data = event_new_data(event);
	if (!has_composite_key(type, data))
		return false;
	event->id = *composite_key_id(type->key_type, data, type->composite_key);
	event->has_id = true;
	event->id_is_key = true;
	return true;
}

/* Says in the metadata that the event is of its type's schema version. */
static void
set_schema_version(NewEvent *event, const EventType *type)
{
	if (type->schema_version > 1)
		event->metadata = schema_version_add(event->metadata,
											 type->version_metadata);
}

/*
 * Returns true if upcasters lead the event as far as is needed: personal attributes have the names
 * of the type's version.
 */
static bool
leads_far_enough(const Upcasting *upcasting, const NewEvent *event, const EventType *type)
{
	return type->personal == NIL ||
		upcast_version(upcasting, event->stream, event->type, event->metadata) >= type->schema_version;
}

/*
 * Upcasts data to the type's schema version, in the memory context; 0 if that
 * changes nothing.
 */
static Datum
upcast_new_data(Upcasting *upcasting, const NewEvent *event, const EventType *type,
				MemoryContext context)
{
	Datum		data = upcast_data(upcasting, 0, event->stream, event->type,
								   event->data, event->metadata,
								   type->schema_version);
	MemoryContext oldcontext;

	if (data == event->data)
		return (Datum) 0;
	oldcontext = MemoryContextSwitchTo(context);
	data = PointerGetDatum(PG_DETOAST_DATUM_COPY(data));
	MemoryContextSwitchTo(oldcontext);
	return data;
}

/*
 * Gives one event what its type gives it, in the memory context.  Returns false
 * if it has no id and none can be made.
 */
static bool
identify_event(Oid log, Upcasting *upcasting, NewEvent *event,
			   MemoryContext context)
{
	const EventType *type = event_type_find(log, event->stream, event->type);
	MemoryContext oldcontext;
	int			version;

	if (type == NULL)
		return true;
	version = schema_version_read(event->metadata);
	if (version == SCHEMA_VERSION_NONE)
	{
		oldcontext = MemoryContextSwitchTo(context);
		set_schema_version(event, type);
		MemoryContextSwitchTo(oldcontext);
	}
	else if (version != SCHEMA_VERSION_BAD && version < type->schema_version &&
			 leads_far_enough(upcasting, event, type))
	{
		event->upcast = upcast_new_data(upcasting, event, type, context);
		/* users' code has run */
		type = event_type_find(log, event->stream, event->type);
	}
	return type == NULL || set_composite_id(event, type);
}

/* Does it for all events.  Returns false if an id cannot be made. */
static bool
identify_events(Oid log, NewEvent *events, int count)
{
	Upcasting  *upcasting = upcast_begin(log);
	MemoryContext result = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(result, "eventstore event",
												  ALLOCSET_DEFAULT_SIZES);
	bool		done = true;
	int			i;

	MemoryContextSwitchTo(scratch);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!identify_event(log, upcasting, &events[i], result))
			done = false;
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(result);
	MemoryContextDelete(scratch);
	upcast_end(upcasting);
	return done;
}

void
event_identify(Oid log, NewEvent *events, int count)
{
	if (event_type_is_checked(log) && !identify_events(log, events, count))
		event_check(log, events, count);	/* raises what is missing */
}
