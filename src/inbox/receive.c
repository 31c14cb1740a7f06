/*-------------------------------------------------------------------------
 *
 * receive.c
 *		es_receive(), which handles a message from outside once, and
 *		es_checksum(), by which a message is known.
 *
 * The order of steps, all in the caller's transaction:
 *
 *	1. check the arguments and the handler; a message is known by its message_id,
 *	   else by its payload, else, if it has neither, by its metadata;
 *	2. claim the message: insert its row into es_inbox.  Another transaction
 *	   that receives it at the same moment waits at the unique key until this
 *	   one ends.  If the row is there already: 'duplicate';
 *	3. call the handler, as the caller;
 *	4. acknowledged: append the event, if a stream is named, and complete the
 *	   row; skipped: delete the row;
 *	5. remove an earlier failure of the message.
 *
 * Where a failure is to be recorded, steps 3 to 5 are a subtransaction.  If it
 * fails, the row of step 2 is deleted and the failure recorded.  The claim comes
 * before that subtransaction: a row that is deleted also makes others wait until
 * this transaction ends, so that none of them misses the failure.
 *
 * Where an event may be encrypted (personal/seal.c), the row of step 2 has no payload.  Step 4
 * stores it unless the event is, now or by an earlier message.  So the inbox never has what the
 * log does not show.
 *
 * A message is always claimed before its row in es_failures is locked, also by
 * es_retry (inbox_retry.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "base/wait.h"
#include "stats/stats.h"
#include "log/log.h"
#include "append/append.h"
#include "failure/failure.h"
#include "inbox/inbox.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_checksum);
PG_FUNCTION_INFO_V1(es_receive);

/* Topic, group and checksum must fit an entry of the unique index. */
#define MAX_TOPIC_LENGTH	1024

/* Arguments of es_receive, in their order. */
enum
{
	ARG_TOPIC, ARG_GROUP_ID, ARG_PAYLOAD, ARG_HANDLER, ARG_METADATA,
	ARG_MAX_RETRIES, ARG_RETRY_COUNT, ARG_MESSAGE_ID
};

static const char *const arg_names[] = {
	"topic", "group_id", "payload", "handler", "metadata", "max_retries",
	"retry_count", "message_id"
};

/* Returns the MD5 of what the string has, and frees it. */
static text *
checksum_of_json(StringInfo json)
{
	text	   *string = cstring_to_text_with_len(json->data, json->len);
	text	   *checksum;

	pfree(json->data);
	checksum = DatumGetTextPP(DirectFunctionCall1(md5_text,
												  PointerGetDatum(string)));
	pfree(string);
	return checksum;
}

/* Returns the MD5 of the payload as a JSON string. */
static text *
payload_checksum(text *payload)
{
	StringInfoData json;

	initStringInfo(&json);
	escape_json(&json, text_to_cstring(payload));
	return checksum_of_json(&json);
}

/*
 * Returns the MD5 of a JSON array, which no payload has: [message_id], or the metadata
 * of a message that has no payload: [null, metadata].
 */
static text *
other_checksum(text *message_id, Datum metadata)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	if (message_id != NULL)
		escape_json(&json, text_to_cstring(message_id));
	else
	{
		Jsonb	   *object = DatumGetJsonbP(metadata);

		appendStringInfoString(&json, "null, ");
		(void) JsonbToCString(&json, &object->root, VARSIZE(object));
	}
	appendStringInfoChar(&json, ']');
	return checksum_of_json(&json);
}

/*
 * es_checksum(payload) returns text
 */
Datum
es_checksum(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(payload_checksum(PG_GETARG_TEXT_PP(0)));
}

static bool
parse_json(void *arg)
{
	Datum	   *data = arg;

	*data = DirectFunctionCall1(jsonb_in, *data);
	return true;
}

/*
 * Returns the payload as an event's data.  It is the payload's JSON, null if there is no
 * payload, or a JSON string.  jsonb refuses some JSON, such as "\u0000" and 1e1000000.
 */
static Datum
payload_data(text *payload)
{
	char	   *string = payload == NULL ? "null" : text_to_cstring(payload);
	Datum		data = CStringGetDatum(string);
	ErrorData  *error = subtransaction_try(parse_json, &data);
	JsonbValue	value = {.type = jbvString};

	if (error == NULL)
		return data;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		ReThrowError(error);
	FreeErrorData(error);
	value.val.string.val = string;
	value.val.string.len = strlen(string);
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/*
 * Writes the event of a message.  If it is retried, its receiver is the appender, as
 * it would have been before: a trigger on es_events may depend on that.
 */
static void
write_as_receiver(const Message *message, Write *write)
{
	RunAs		saved;

	if (!message->retried)
	{
		write_events(write);
		return;
	}
	saved = run_as(message->receiver, true,
				   psprintf("%s, pg_temp",
							run_as_kept_path(message->log, message->search_path)));
	write_events(write);
	run_as_end(saved);
}

/*
 * Appends the message to the stream that the handler has named; returns the
 * position of the event.
 */
static int64
append_message(Message *message, const AckEvent *ack)
{
	NewEvent	event = {0};
	Write		write = {
		.log = message->log,
		.expected = ack->nulls[ACK_EXPECTED] ? EXPECTED_ANY :
		DatumGetInt64(ack->values[ACK_EXPECTED]),
		.events = &event,
		.count = 1
	};

	if (ack->nulls[ACK_EVENT_TYPE])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event_type must not be null if a stream is named"),
				 errdetail("The handler returned stream \"%s\" without an event_type.",
						   TextDatumGetCString(ack->values[ACK_STREAM])),
				 errhint("Return the type of the event that is to be appended, or no stream.")));
	event.stream = DatumGetTextPP(ack->values[ACK_STREAM]);
	event.type = DatumGetTextPP(ack->values[ACK_EVENT_TYPE]);
	event.data = payload_data(message->payload);
	event.metadata = message->metadata;
	event.has_occurred_at = !ack->nulls[ACK_EVENT_TIME];
	if (event.has_occurred_at)
		event.occurred_at = DatumGetTimestampTz(ack->values[ACK_EVENT_TIME]);
	if (!ack->nulls[ACK_TAGS])
		event.tags = ack->values[ACK_TAGS];
	stream_check_new(event.stream);
	event_check_new(&event);
	write.stream = event.stream;
	write_as_receiver(message, &write);
	message->sealed = event.is_personal;
	return write.position;
}

/* For SPI: whether a text is null. */
static char
null_flag(const text *value)
{
	return value == NULL ? 'n' : ' ';
}

bool
inbox_claim(Message *message)
{
	Oid			types[6] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID};
	Datum		values[6] = {
		PointerGetDatum(message->topic), PointerGetDatum(message->group_id),
		PointerGetDatum(message->checksum), PointerGetDatum(message->payload),
		message->metadata, PointerGetDatum(message->message_id)
	};
	char		nulls[6] = {' ', ' ', ' ', null_flag(message->payload), ' ',
	null_flag(message->message_id)};
	bool		isnull;
	WaitContext context;
	uint64		stored;

	message->bare = event_type_has_personal(message->log);
	if (message->bare)
		nulls[3] = 'n';
	wait_context_begin(&context, "a message of topic",
					   text_to_cstring(message->topic), -1);
	stored = own_sql_run(message->log,
						 "INSERT INTO @extschema@.es_inbox"
						 " (topic, group_id, checksum, payload, metadata,"
						 " message_id) VALUES ($1, $2, $3, $4, $5, $6)"
						 " ON CONFLICT (topic, group_id, checksum) DO NOTHING"
						 " RETURNING id", 6, types, values, nulls);
	wait_context_end(&context);
	if (stored == 0)
		return false;
	message->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
	SPI_freetuptable(SPI_tuptable);
	return true;
}

void
inbox_unclaim(const Message *message)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(message->id);

	(void) own_sql_run(message->log,
					   "DELETE FROM @extschema@.es_inbox WHERE id = $1",
					   1, &type, &value, NULL);
}

/*
 * $1 to $4: what the handler has returned, $5: the event's position, $6: the row, $7: the payload,
 * if the row has another one.
 */
#define COMPLETE_ROW \
	"UPDATE @extschema@.es_inbox SET entity_id = $1, event_time = $2, event_type = $3," \
	" event_version = $4, position = $5"

static const char *const complete_row = COMPLETE_ROW " WHERE id = $6";
static const char *const complete_row_with_payload = COMPLETE_ROW ", payload = $7 WHERE id = $6";

/*
 * Completes the row with what the handler has returned.  position: of the event
 * that was appended; 0: none was.
 */
static void
acknowledge_message(const Message *message, const AckEvent *ack, int64 position)
{
	Oid			types[7] = {TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT8OID,
	INT8OID, TEXTOID};
	Datum		values[7];
	char		nulls[7];
	const char *sql;
	int			i;

	for (i = 0; i < ACK_STREAM; i++)
	{
		values[i] = ack->values[i];
		nulls[i] = ack->nulls[i] ? 'n' : ' ';
	}
	values[4] = Int64GetDatum(position);
	nulls[4] = position == 0 ? 'n' : ' ';
	values[5] = Int64GetDatum(message->id);
	nulls[5] = ' ';
	values[6] = PointerGetDatum(message->payload);
	nulls[6] = message->sealed ? 'n' : null_flag(message->payload);
	sql = message->bare == message->sealed ? complete_row : complete_row_with_payload;
	if (own_sql_run(message->log, sql, sql == complete_row ? 6 : 7, types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the message is not in the inbox any more"),
				 errdetail("Its row, which has id " INT64_FORMAT ", was deleted while the handler ran.",
						   message->id),
				 errhint("A handler must leave es_inbox as it is.")));
}

bool
inbox_remove_failure(const Message *message)
{
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3] = {
		PointerGetDatum(message->topic), PointerGetDatum(message->group_id),
		PointerGetDatum(message->checksum)
	};

	return own_sql_run(message->log,
					   "DELETE FROM @extschema@.es_failures"
					   " WHERE topic = $1 AND group_id = $2 AND checksum = $3",
					   3, types, values, NULL) > 0;
}

void
inbox_record_failure(const Message *message, const ErrorData *error,
					 int64 attempts)
{
	Oid			types[14] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID,
		TEXTOID, OIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, TEXTOID};
	Datum		values[14] = {
		PointerGetDatum(message->topic), PointerGetDatum(message->group_id),
		PointerGetDatum(message->checksum), PointerGetDatum(message->payload),
		message->metadata, CStringGetTextDatum(message->signature),
		ObjectIdGetDatum(message->receiver),
		CStringGetTextDatum(message->search_path), Int64GetDatum(attempts)
	};
	char		nulls[14];

	memset(nulls, ' ', sizeof(nulls));
	nulls[3] = null_flag(message->payload);
	values[13] = PointerGetDatum(message->message_id);
	nulls[13] = null_flag(message->message_id);
	failure_error_values(error, &values[9], &nulls[9]);
	(void) own_sql_run(message->log,
					   "INSERT INTO @extschema@.es_failures AS f (topic,"
					   " group_id, checksum, payload, metadata, handler,"
					   " receiver, search_path, attempts, sqlstate, message,"
					   " detail, context, message_id, first_failed_at,"
					   " last_failed_at)"
					   " SELECT $1, $2, $3, $4, $5, $6,"
					   " $7, $8, least($9, 2147483647)::int, $10, $11,"
					   " $12, $13, $14, t.now, t.now FROM clock_timestamp() AS t (now)"
					   " ON CONFLICT (topic, group_id, checksum) DO UPDATE SET"
					   " payload = excluded.payload,"
					   " metadata = excluded.metadata,"
					   " handler = excluded.handler,"
					   " receiver = excluded.receiver,"
					   " search_path = excluded.search_path,"
					   " attempts = least(f.attempts, 2147483646) + 1,"
					   " sqlstate = excluded.sqlstate,"
					   " message = excluded.message,"
					   " detail = excluded.detail,"
					   " context = excluded.context,"
					   " last_failed_at = excluded.last_failed_at",
					   14, types, values, nulls);
}

/* Refuses an expected version of no stream. */
static void
check_ack_event(const AckEvent *ack)
{
	if (ack->nulls[ACK_STREAM] && !ack->nulls[ACK_EXPECTED])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("stream must not be null if a version is expected"),
				 errdetail("The handler returned an expected version, and no stream."),
				 errhint("Name the stream to which the message is appended.")));
}

/* Steps 3 to 5 of the header. */
bool
inbox_handle(void *arg)
{
	Message    *message = arg;
	AckEvent	ack;

	message->acknowledged = inbox_handler_call(message, &ack);
	if (message->acknowledged)
	{
		check_ack_event(&ack);
		acknowledge_message(message, &ack, ack.nulls[ACK_STREAM] ? 0 :
							append_message(message, &ack));
	}
	else
		inbox_unclaim(message);
	(void) inbox_remove_failure(message);
	return true;
}

/* Refuses a topic or a group that would not fit the unique index. */
static void
check_topic_length(text *name, const char *what)
{
	int			length = VARSIZE_ANY_EXHDR(name);

	if (length > MAX_TOPIC_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", length,
						   MAX_TOPIC_LENGTH)));
}

/* Refuses an id that is empty, as a program has where no id was set, or too long. */
static void
check_message_id(text *message_id)
{
	if (VARSIZE_ANY_EXHDR(message_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message_id must not be empty"),
				 errdetail("It has 0 bytes, the limit is %d.", MAX_TOPIC_LENGTH),
				 errhint("Leave it out if the message has no id. The payload then identifies it.")));
	check_topic_length(message_id, arg_names[ARG_MESSAGE_ID]);
}

/*
 * Refuses arguments that are wrong by themselves.
 */
static void
check_receive_arguments(FunctionCallInfo fcinfo)
{
	int			arg;

	for (arg = ARG_TOPIC; arg <= ARG_RETRY_COUNT; arg++)
	{
		if (arg != ARG_MAX_RETRIES && arg != ARG_PAYLOAD)
			argument_not_null(fcinfo, arg, arg_names[arg]);
	}
	if (!PG_ARGISNULL(ARG_MAX_RETRIES))
		argument_range("max_retries", PG_GETARG_INT64(ARG_MAX_RETRIES), 0,
					   PG_INT32_MAX);
	argument_range("retry_count", PG_GETARG_INT64(ARG_RETRY_COUNT), 0,
				   PG_INT32_MAX);
	check_topic_length(PG_GETARG_TEXT_PP(ARG_TOPIC), arg_names[ARG_TOPIC]);
	check_topic_length(PG_GETARG_TEXT_PP(ARG_GROUP_ID), arg_names[ARG_GROUP_ID]);
	if (!PG_ARGISNULL(ARG_MESSAGE_ID))
		check_message_id(PG_GETARG_TEXT_PP(ARG_MESSAGE_ID));
	event_check_metadata(PG_GETARG_DATUM(ARG_METADATA));
}

/* An argument that is a text; NULL for null. */
static text *
text_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_TEXT_PP(argument);
}

/*
 * Refuses a message that nothing tells from another one.
 */
static void
check_is_known(const Message *message)
{
	if (message->message_id == NULL && message->payload == NULL &&
		JB_ROOT_COUNT(DatumGetJsonbP(message->metadata)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a message without payload needs a message_id or metadata"),
				 errdetail("Nothing distinguishes it from another message of topic \"%s\".",
						   text_to_cstring(message->topic)),
				 errhint("Pass the id that its sender gave it, or its partition and offset as metadata.")));
}

/* What the message is known by. */
static text *
message_checksum(const Message *message)
{
	if (message->message_id == NULL && message->payload != NULL)
		return payload_checksum(message->payload);
	return other_checksum(message->message_id, message->metadata);
}

/* Takes the message from the arguments of es_receive. */
static void
init_message(Message *message, FunctionCallInfo fcinfo, Oid log)
{
	message->log = log;
	message->topic = PG_GETARG_TEXT_PP(ARG_TOPIC);
	message->group_id = PG_GETARG_TEXT_PP(ARG_GROUP_ID);
	message->payload = text_argument(fcinfo, ARG_PAYLOAD);
	message->metadata = PG_GETARG_DATUM(ARG_METADATA);
	message->message_id = text_argument(fcinfo, ARG_MESSAGE_ID);
	check_is_known(message);
	message->checksum = message_checksum(message);
	message->handler = inbox_handler_find(log, text_to_cstring(PG_GETARG_TEXT_PP(ARG_HANDLER)));
}

/*
 * Handles a message that is claimed, and records a failure.  Returns false if it
 * failed.
 */
static bool
handle_or_record(Message *message, int64 retry_count)
{
	ErrorData  *error;

	message->receiver = GetUserId();
	message->search_path = run_as_session_path(message->log);
	message->signature = format_procedure_qualified(message->handler);
	error = subtransaction_try(inbox_handle, message);
	if (error == NULL)
		return true;
	inbox_unclaim(message);
	inbox_record_failure(message, error, retry_count + 1);
	return false;
}

/* Returns the counters of the message's topic and group. */
static StatsEntry *
message_stats(const Message *message)
{
	return stats_find(STATS_INBOX, VARDATA_ANY(message->topic),
					  VARSIZE_ANY_EXHDR(message->topic),
					  VARDATA_ANY(message->group_id),
					  VARSIZE_ANY_EXHDR(message->group_id));
}

void
inbox_count_handled(const Message *message)
{
	stats_count_at_commit(message_stats(message), message->acknowledged ?
						  STATS_INBOX_ACKNOWLEDGED : STATS_INBOX_SKIPPED, 1);
}

/* Handles a message that is claimed, and counts an error that it raises. */
static void
handle_or_raise(Message *message)
{
	PG_TRY();
	{
		(void) inbox_handle(message);
	}
	PG_CATCH();
	{
		stats_count(message_stats(message), STATS_INBOX_ERRORS, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Steps 2 to 5 of the header.  Records a failure, or else raises it.  Returns
 * the answer of es_receive.
 */
static const char *
receive_message(Message *message, bool record, int64 retry_count)
{
	if (!inbox_claim(message))
	{
		stats_count(message_stats(message), STATS_INBOX_DUPLICATES, 1);
		return "duplicate";
	}
	if (!record)
		handle_or_raise(message);
	else if (!handle_or_record(message, retry_count))
	{
		stats_count_at_commit(message_stats(message), STATS_INBOX_FAILED, 1);
		return "failed";
	}
	inbox_count_handled(message);
	return message->acknowledged ? "acknowledged" : "skipped";
}

/*
 * es_receive(topic, group_id, payload, handler, metadata, max_retries,
 * retry_count, message_id) returns text
 */
Datum
es_receive(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Message		message = {0};
	const char *answer;
	int64		retry_count;

	PreventCommandIfReadOnly("es_receive()");
	check_receive_arguments(fcinfo);
	retry_count = PG_GETARG_INT64(ARG_RETRY_COUNT);
	SPI_connect();
	init_message(&message, fcinfo, log);
	answer = receive_message(&message,
							 !PG_ARGISNULL(ARG_MAX_RETRIES) &&
							 retry_count >= PG_GETARG_INT64(ARG_MAX_RETRIES),
							 retry_count);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(answer));
}
