/*-------------------------------------------------------------------------
 *
 * receive.c
 *		es_receive(): a message from outside is handled once.  es_checksum(),
 *		by which it is known.
 *
 * The order of steps, all in the caller's transaction:
 *
 *	1. check the arguments and the handler;
 *	2. claim the message: insert its row into es_inbox.  Whoever receives it
 *	   at the same moment waits at the unique key until this transaction ends.
 *	   If it is there already: 'duplicate';
 *	3. call the handler, as the caller;
 *	4. acknowledged: append the event, if a stream is named, and complete the
 *	   row; skipped: delete the row;
 *	5. forget an earlier failure of the message.
 *
 * Where a failure is to be kept, 3 to 5 are a subtransaction.  If it fails, the
 * row of step 2 is deleted and the failure recorded.  The claim comes before
 * that subtransaction: a row that is deleted keeps others waiting, too, until
 * this transaction ends, so that none of them misses the failure.
 *
 * A message is always claimed before its row in es_failures is locked, by
 * es_retry, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "stats/stats.h"
#include "log/log.h"
#include "append/append.h"
#include "failure/failure.h"
#include "inbox/inbox.h"

PG_FUNCTION_INFO_V1(es_checksum);
PG_FUNCTION_INFO_V1(es_receive);

/* Topic, group and checksum must fit an entry of the unique index. */
#define MAX_TOPIC_LENGTH	1024

/* Arguments of es_receive, in their order. */
enum
{
	ARG_TOPIC, ARG_GROUP_ID, ARG_PAYLOAD, ARG_HANDLER, ARG_METADATA,
	ARG_MAX_RETRIES, ARG_RETRY_COUNT
};

static const char *const arg_names[] = {
	"topic", "group_id", "payload", "handler", "metadata", "max_retries",
	"retry_count"
};

/* Fields of es_ack_event. */
enum
{
	ACK_ENTITY_ID, ACK_EVENT_TIME, ACK_EVENT_TYPE, ACK_EVENT_VERSION,
	ACK_STREAM, ACK_FIELDS
};

static const Oid ack_types[ACK_FIELDS] = {
	TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID
};

/* What a handler has returned. */
typedef struct Ack
{
	Datum		values[ACK_FIELDS];
	bool		nulls[ACK_FIELDS];
} Ack;

/* A message, and who handles it. */
typedef struct Message
{
	Oid			log;			/* es_events */
	text	   *topic;
	text	   *group_id;
	text	   *payload;
	Datum		metadata;
	text	   *checksum;
	int64		id;				/* in es_inbox */

	Oid			handler;		/* 0: it is found by its signature */
	char	   *signature;
	Oid			receiver;		/* whose rights the handler has; 0: no role */
	char	   *receiver_name;
	char	   *search_path;
	bool		retried;		/* the receiver is not the caller */

	bool		acknowledged;	/* else skipped */
} Message;

/*
 * MD5 of the payload as a JSON string.
 */
static text *
make_checksum(text *payload)
{
	StringInfoData json;
	text	   *string;
	text	   *checksum;

	initStringInfo(&json);
	escape_json(&json, text_to_cstring(payload));
	string = cstring_to_text_with_len(json.data, json.len);
	pfree(json.data);
	checksum = DatumGetTextPP(DirectFunctionCall1(md5_text,
												  PointerGetDatum(string)));
	pfree(string);
	return checksum;
}

/*
 * es_checksum(payload) returns text
 */
Datum
es_checksum(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(make_checksum(PG_GETARG_TEXT_PP(0)));
}

/* Refuses a function that cannot handle messages, or not for this user. */
static void
check_handler(Oid log, Oid function)
{
	FunctionSignature form = {
		.result = get_rel_type_id(get_relname_relid("es_ack_event",
													get_rel_namespace(log))),
		.arguments = {TEXTOID, JSONBOID},
		.count = 2,
		.what = "A handler of messages takes a payload and metadata, and returns one es_ack_event.",
		.declaration = "name(payload text, metadata jsonb) RETURNS es_ack_event",
		.example = "app.on_message(text, jsonb)"
	};

	user_function_check(function, &form);
}

/*
 * Takes the fields of the row that a handler has returned; false if all are
 * null.
 */
static bool
read_ack(Datum row, Ack *ack)
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
		if (i >= desc->natts || TupleDescAttr(desc, i)->atttypid != ack_types[i])
			elog(ERROR, "field %d of es_ack_event is not as eventstore made it",
				 i + 1);
		ack->values[i] = heap_getattr(&tuple, i + 1, desc, &ack->nulls[i]);
		given = given || !ack->nulls[i];
	}
	ReleaseTupleDesc(desc);
	return given;
}

/*
 * Calls the function.  The tables are open meanwhile, so that it cannot drop
 * them.
 */
static Datum
invoke(const Message *message, FunctionCallInfo fcinfo)
{
	Relation	log = table_open(message->log, AccessShareLock);
	Relation	inbox = table_open(get_relname_relid("es_inbox",
													 RelationGetNamespace(log)),
								   RowExclusiveLock);
	Datum		result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = FunctionCallInvoke(fcinfo);
	PopActiveSnapshot();
	table_close(inbox, NoLock);
	table_close(log, NoLock);
	return result;
}

/*
 * Calls the handler as the present user; false if it skips the message.
 */
static bool
call_handler(const Message *message, Ack *ack)
{
	Oid			handler = message->handler;
	FmgrInfo	function;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 2);

	if (!OidIsValid(handler))
	{
		handler = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
													   CStringGetDatum(message->signature)));
		check_handler(message->log, handler);
	}
	fmgr_info(handler, &function);
	InitFunctionCallInfoData(*fcinfo, &function, 2, DEFAULT_COLLATION_OID,
							 NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(message->payload);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = message->metadata;
	fcinfo->args[1].isnull = false;
	result = invoke(message, fcinfo);
	return !fcinfo->isnull && read_ack(result, ack);
}

/*
 * Calls the handler of a message that is retried: as its receiver, with pg_temp
 * last, so that nobody's temporary table takes the place of his.
 */
static bool
call_as_receiver(const Message *message, Ack *ack)
{
	RunAs		saved = run_as(message->receiver, true,
							   psprintf("%s, pg_temp", message->search_path));
	bool		acknowledged = call_handler(message, ack);

	run_as_end(saved);
	return acknowledged;
}

static bool
parse_json(void *arg)
{
	Datum	   *data = arg;

	*data = DirectFunctionCall1(jsonb_in, *data);
	return true;
}

/*
 * The payload as an event's data: what JSON it is, else a JSON string.  What is
 * JSON can still be none for jsonb: "\u0000" is, and 1e1000000.
 */
static Datum
payload_data(text *payload)
{
	char	   *string = text_to_cstring(payload);
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
 * Appends the message to the stream that the handler has named; returns its
 * position.
 */
static int64
append_message(const Message *message, const Ack *ack)
{
	NewEvent	event = {0};

	if (ack->nulls[ACK_EVENT_TYPE])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event_type must not be null where a stream is named"),
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
	return append_event(message->log, &event);
}

/*
 * Claims the message; false if it is in the inbox.  What somebody else does
 * with it is waited for.
 */
static bool
claim(Message *message)
{
	Oid			types[5] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};
	Datum		values[5] = {
		PointerGetDatum(message->topic), PointerGetDatum(message->group_id),
		PointerGetDatum(message->checksum), PointerGetDatum(message->payload),
		message->metadata
	};
	bool		isnull;

	if (own_sql_run(message->log,
					"INSERT INTO @extschema@.es_inbox"
					" (topic, group_id, checksum, payload, metadata)"
					" VALUES ($1, $2, $3, $4, $5)"
					" ON CONFLICT (topic, group_id, checksum) DO NOTHING"
					" RETURNING id", 5, types, values, NULL) == 0)
		return false;
	message->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/* Deletes the row that claimed the message. */
static void
give_up_claim(const Message *message)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(message->id);

	(void) own_sql_run(message->log,
					   "DELETE FROM @extschema@.es_inbox WHERE id = $1",
					   1, &type, &value, NULL);
}

/*
 * Completes the row with what the handler has acknowledged.  position: of the
 * event that was appended; 0: none was.
 */
static void
acknowledge(const Message *message, const Ack *ack, int64 position)
{
	Oid			types[6] = {TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT8OID,
	INT8OID};
	Datum		values[6];
	char		nulls[6];
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
	if (own_sql_run(message->log,
					"UPDATE @extschema@.es_inbox SET entity_id = $1,"
					" event_time = $2, event_type = $3, event_version = $4,"
					" position = $5 WHERE id = $6", 6, types, values,
					nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the message is not in the inbox any more"),
				 errdetail("Its row, which has id " INT64_FORMAT ", was deleted while the handler ran.",
						   message->id),
				 errhint("A handler must leave es_inbox as it is.")));
}

/* Forgets a failure of the message; false if there was none. */
static bool
forget_failure(const Message *message)
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

/*
 * Records that the message failed, or failed again.  attempts: how often it was
 * tried, if nothing is known of it yet.
 */
static void
record_failure(const Message *message, const ErrorData *error,
			   int64 attempts)
{
	Oid			types[13] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID,
		TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID};
	Datum		values[13] = {
		PointerGetDatum(message->topic), PointerGetDatum(message->group_id),
		PointerGetDatum(message->checksum), PointerGetDatum(message->payload),
		message->metadata, CStringGetTextDatum(message->signature),
		CStringGetTextDatum(message->receiver_name),
		CStringGetTextDatum(message->search_path), Int64GetDatum(attempts)
	};
	char		nulls[13];

	memset(nulls, ' ', sizeof(nulls));
	failure_error_values(error, &values[9], &nulls[9]);
	(void) own_sql_run(message->log,
					   "INSERT INTO @extschema@.es_failures AS f (topic,"
					   " group_id, checksum, payload, metadata, handler,"
					   " receiver, search_path, attempts, sqlstate, message,"
					   " detail, context, first_failed_at, last_failed_at)"
					   " SELECT $1, $2, $3, $4, $5, $6,"
					   " $7::name, $8, least($9, 2147483647)::int, $10, $11,"
					   " $12, $13, t.now, t.now FROM clock_timestamp() AS t (now)"
					   " ON CONFLICT (topic, group_id, checksum) DO UPDATE SET"
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
					   13, types, values, nulls);
}

/*
 * Steps 3 to 5 of the header.
 */
static bool
handle(void *arg)
{
	Message    *message = arg;
	Ack			ack;

	message->acknowledged = message->retried ?
		call_as_receiver(message, &ack) : call_handler(message, &ack);
	if (message->acknowledged)
		acknowledge(message, &ack, ack.nulls[ACK_STREAM] ? 0 :
					append_message(message, &ack));
	else
		give_up_claim(message);
	(void) forget_failure(message);
	return true;
}

/* Refuses a topic or a group that would not fit the unique index. */
static void
check_length(text *name, const char *what)
{
	int			length = VARSIZE_ANY_EXHDR(name);

	if (length > MAX_TOPIC_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", length,
						   MAX_TOPIC_LENGTH)));
}

/*
 * Refuses arguments that are wrong by themselves.
 */
static void
check_arguments(FunctionCallInfo fcinfo)
{
	int			arg;

	for (arg = ARG_TOPIC; arg <= ARG_RETRY_COUNT; arg++)
	{
		if (arg != ARG_MAX_RETRIES)
			argument_not_null(fcinfo, arg, arg_names[arg]);
	}
	if (!PG_ARGISNULL(ARG_MAX_RETRIES))
		argument_range("max_retries", PG_GETARG_INT32(ARG_MAX_RETRIES), 0,
					   PG_INT32_MAX);
	argument_range("retry_count", PG_GETARG_INT32(ARG_RETRY_COUNT), 0,
				   PG_INT32_MAX);
	check_length(PG_GETARG_TEXT_PP(ARG_TOPIC), arg_names[ARG_TOPIC]);
	check_length(PG_GETARG_TEXT_PP(ARG_GROUP_ID), arg_names[ARG_GROUP_ID]);
	event_check_metadata(PG_GETARG_DATUM(ARG_METADATA));
}

/* Takes the message from the arguments of es_receive. */
static void
init_message(Message *message, FunctionCallInfo fcinfo, Oid log)
{
	message->log = log;
	message->topic = PG_GETARG_TEXT_PP(ARG_TOPIC);
	message->group_id = PG_GETARG_TEXT_PP(ARG_GROUP_ID);
	message->payload = PG_GETARG_TEXT_PP(ARG_PAYLOAD);
	message->metadata = PG_GETARG_DATUM(ARG_METADATA);
	message->checksum = make_checksum(message->payload);
	message->handler = PG_GETARG_OID(ARG_HANDLER);
}

/*
 * Handles the message that is claimed; what fails is recorded.  false if it
 * failed.
 */
static bool
handle_or_record(Message *message, int32 retry_count)
{
	ErrorData  *error;

	message->receiver_name = GetUserNameFromId(GetUserId(), false);
	message->search_path = run_as_session_path();
	message->signature = format_procedure_qualified(message->handler);
	error = subtransaction_try(handle, message);
	if (error == NULL)
		return true;
	give_up_claim(message);
	record_failure(message, error, (int64) retry_count + 1);
	return false;
}

/* The counters of the message's topic and group. */
static StatsEntry *
message_stats(const Message *message)
{
	return stats_find(STATS_INBOX, VARDATA_ANY(message->topic),
					  VARSIZE_ANY_EXHDR(message->topic),
					  VARDATA_ANY(message->group_id),
					  VARSIZE_ANY_EXHDR(message->group_id));
}

/* Counts that the message was handled. */
static void
count_handled(const Message *message)
{
	stats_count_at_commit(message_stats(message), message->acknowledged ?
						  STATS_INBOX_ACKNOWLEDGED : STATS_INBOX_SKIPPED, 1);
}

/* Handles the message that is claimed; counts an error that is raised. */
static void
handle_or_raise(Message *message)
{
	PG_TRY();
	{
		(void) handle(message);
	}
	PG_CATCH();
	{
		stats_count(message_stats(message), STATS_INBOX_ERRORS, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Steps 2 to 5 of the header.  record: is a failure to be recorded, or else
 * raised?  Returns the answer of es_receive.
 */
static const char *
receive(Message *message, bool record, int32 retry_count)
{
	if (!claim(message))
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
	count_handled(message);
	return message->acknowledged ? "acknowledged" : "skipped";
}

/*
 * es_receive(topic, group_id, payload, handler, metadata, max_retries,
 * retry_count) returns text
 */
Datum
es_receive(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Message		message = {0};
	const char *answer;
	int32		retry_count;

	PreventCommandIfReadOnly("es_receive()");
	check_arguments(fcinfo);
	check_handler(log, PG_GETARG_OID(ARG_HANDLER));
	retry_count = PG_GETARG_INT32(ARG_RETRY_COUNT);
	SPI_connect();
	init_message(&message, fcinfo, log);
	answer = receive(&message,
					 !PG_ARGISNULL(ARG_MAX_RETRIES) &&
					 retry_count >= PG_GETARG_INT32(ARG_MAX_RETRIES),
					 retry_count);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(answer));
}

static void
refuse_missing(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no failure with id " INT64_FORMAT, id),
			 errdetail("It was retried or discarded, or has never existed."),
			 errhint("es_failures lists the failures.")));
}

/*
 * Reads the message that failed; an error if there is none with this id.
 */
static void
load_failure(Oid log, int64 id, Message *message)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	if (own_sql_run(log,
					"SELECT topic, group_id, payload, metadata, checksum,"
					" handler, receiver::text, search_path"
					" FROM @extschema@.es_failures"
					" WHERE id = $1 AND topic IS NOT NULL",
					1, &type, &value, NULL) == 0)
		refuse_missing(id);
	message->log = log;
	message->topic = DatumGetTextPP(own_sql_value(1));
	message->group_id = DatumGetTextPP(own_sql_value(2));
	message->payload = DatumGetTextPP(own_sql_value(3));
	message->metadata = own_sql_value(4);
	message->checksum = DatumGetTextPP(own_sql_value(5));
	message->signature = own_sql_text(6);
	message->receiver_name = own_sql_text(7);
	message->receiver = get_role_oid(message->receiver_name, true);
	message->search_path = own_sql_text(8);
	message->retried = true;
}

/* Locks the failure, and refuses one that is gone meanwhile. */
static void
lock_failure(Oid log, int64 id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	if (own_sql_run(log,
					"SELECT FROM @extschema@.es_failures WHERE id = $1 FOR UPDATE",
					1, &type, &value, NULL) == 0)
		refuse_missing(id);
}

/*
 * Refuses one who has not the receiver's rights.
 */
static void
check_receiver(const Message *message, int64 id)
{
	if (!superuser() &&
		(!OidIsValid(message->receiver) ||
		 !has_privs_of_role(GetUserId(), message->receiver)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be the receiver of the message that failed"),
				 errdetail("Failure " INT64_FORMAT " is of a message that \"%s\" received.",
						   id, message->receiver_name),
				 errhint("Ask that role, or become a member of it.")));
}

/* Refuses a message whose receiver is gone. */
static void
check_receiver_exists(const Message *message)
{
	if (!OidIsValid(message->receiver))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the receiver of the message does not exist"),
				 errdetail("There is no role \"%s\".", message->receiver_name),
				 errhint("Create the role, receive the message again, or es_discard() the failure.")));
}

/*
 * Says why the message failed again.
 */
static void
warn_failed_again(const Message *message, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("message of topic \"%s\" failed again: %s",
					text_to_cstring(message->topic), error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("es_failures lists it; es_discard() gives it up.")));
}

/*
 * es_retry of a message that failed: hands it to its handler again, with the
 * receiver's rights.  Returns 1; 0 if it failed again, or was handled
 * meanwhile.  SPI is connected.
 */
int64
receive_retry(Oid log, int64 failure_id)
{
	Message		message = {0};
	ErrorData  *error;

	load_failure(log, failure_id, &message);
	check_receiver(&message, failure_id);
	check_receiver_exists(&message);
	if (!claim(&message))
	{
		if (!forget_failure(&message))
			refuse_missing(failure_id);
		return 0;
	}
	lock_failure(log, failure_id);
	error = subtransaction_try(handle, &message);
	if (error == NULL)
	{
		count_handled(&message);
		return 1;
	}
	give_up_claim(&message);
	record_failure(&message, error, 1);
	warn_failed_again(&message, error);
	return 0;
}

/*
 * es_discard of a message that failed: gives it up.  SPI is connected.
 */
void
receive_discard(Oid log, int64 failure_id)
{
	Message		message = {0};

	load_failure(log, failure_id, &message);
	check_receiver(&message, failure_id);
	if (!failure_remove(log, failure_id))
		refuse_missing(failure_id);
}
