/*-------------------------------------------------------------------------
 *
 * inbox_handler.c
 *		Handlers of messages: what function can be one, and its call.
 *
 * A handler takes the payload and the metadata of a message and returns an
 * es_ack_event.  It acknowledges the message by any field that is not null, beside
 * the expected version, and skips it else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "base/context.h"
#include "base/role.h"
#include "base/setting.h"
#include "inbox/inbox.h"

/* The types of the fields; expected is of a type of the extension. */
static const Oid ack_types[ACK_FIELDS] = {
	TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, InvalidOid, TEXTARRAYOID
};

Oid
inbox_handler_find(Oid log, const char *name)
{
	FunctionSignature signature = {
		.result = get_rel_type_id(get_relname_relid("es_ack_event",
													get_rel_namespace(log))),
		.arguments = {TEXTOID, JSONBOID},
		.count = 2,
		.what = "A handler of messages takes a payload and metadata, and returns one es_ack_event.",
		.declaration = "name(payload text, metadata jsonb) RETURNS es_ack_event",
		.example = "app.on_message"
	};

	return user_function_find(name, &signature);
}

/*
 * Reads the fields of the row that a handler has returned; returns false if all
 * are null.
 */
static bool
read_ack_event(Datum row, AckEvent *ack)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header
	};
	bool		given = false;
	int			i;

	for (i = 0; i < ACK_FIELDS; i++)
	{
		if (i >= desc->natts ||
			(i != ACK_EXPECTED && TupleDescAttr(desc, i)->atttypid != ack_types[i]))
			elog(ERROR, "field %d of es_ack_event is not as eventstore made it",
				 i + 1);
		ack->values[i] = heap_getattr(&tuple, i + 1, desc, &ack->nulls[i]);
		given = given || (!ack->nulls[i] && i != ACK_EXPECTED && i != ACK_TAGS);
	}
	ReleaseTupleDesc(desc);
	return given;
}

/*
 * Calls the function.  The tables are open meanwhile, so that it cannot drop
 * them.  The settings are fixed, since another session may retry the message.
 */
static Datum
invoke_message_handler(const Message *message, FunctionCallInfo fcinfo)
{
	Relation	log = table_open(message->log, AccessShareLock);
	Relation	inbox = table_open(get_relname_relid("es_inbox",
													 RelationGetNamespace(log)),
								   RowExclusiveLock);
	int			level = settings_begin(settings_fixed());
	Datum		result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = FunctionCallInvoke(fcinfo);
	PopActiveSnapshot();
	settings_end(level);
	table_close(inbox, NoLock);
	table_close(log, NoLock);
	return result;
}

/*
 * Calls the handler as the current user; returns false if it skips the message.
 */
static bool
call_message_handler(const Message *message, AckEvent *ack)
{
	Oid			handler = message->handler;
	FmgrInfo	function;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 2);

	if (!OidIsValid(handler))
		handler = inbox_handler_find(message->log, message->signature);
	fmgr_info(handler, &function);
	if (function.fn_strict && message->payload == NULL)
		return false;			/* null, as an SQL call would have it */
	InitFunctionCallInfoData(*fcinfo, &function, 2, DEFAULT_COLLATION_OID,
							 NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(message->payload);
	fcinfo->args[0].isnull = message->payload == NULL;
	fcinfo->args[1].value = message->metadata;
	fcinfo->args[1].isnull = false;
	result = invoke_message_handler(message, fcinfo);
	return !fcinfo->isnull && read_ack_event(result, ack);
}

/* Names a schema that is missing in the search_path of a message. */
static void
add_message_context(void *arg)
{
	const Message *message = arg;

	run_as_path_context(message->log, message->search_path);
}

/*
 * Calls the handler of a message that is retried, as its receiver.  pg_temp
 * comes last, so that no temporary table of the caller hides a table of the
 * receiver.
 */
static bool
call_as_receiver(const Message *message, AckEvent *ack)
{
	RunAs		saved = run_as(message->receiver, true,
							   psprintf("%s, pg_temp",
										run_as_kept_path(message->log, message->search_path)));
	ErrorContextCallback context;
	bool		acknowledged;

	context_push(&context, add_message_context, unconstify(Message *, message));
	acknowledged = call_message_handler(message, ack);
	context_pop(&context);
	run_as_end(saved);
	return acknowledged;
}

bool
inbox_handler_call(const Message *message, AckEvent *ack)
{
	return message->retried ? call_as_receiver(message, ack) :
		call_message_handler(message, ack);
}
