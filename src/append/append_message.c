/*-------------------------------------------------------------------------
 *
 * append_message.c
 *		write_message() of the extension eventstore_message_db: an append with the
 *		arguments, the checks and the errors of message-db (compat/message-db).
 *
 * message-db counts from 0, so that its version of a stream is one less than ours, and
 * -1 without events.  An id that is stored is an error.  Errors of the append are caught
 * only to be raised again in message-db's form, so that there is no subtransaction.
 *
 * message-db compares the version before it looks at the other arguments.  Here a call
 * whose arguments are as usual is checked as one append.  Any other call compares the
 * version first, in a step of its own.
 *
 * message-db lets the writers of a category wait for each other.  Here they share a lock
 * on the category, which is that of its acquire_lock(): a transaction that has called this
 * function keeps them out, and writers of other streams do not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "common/md5.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "append/append.h"

PG_FUNCTION_INFO_V1(es_append_message);

/* Arguments, in their order. */
enum
{
	ARG_ID, ARG_STREAM, ARG_TYPE, ARG_DATA, ARG_METADATA, ARG_EXPECTED
};

/* The category that was hashed last. */
#define MAX_CATEGORY_KEPT	128
static char kept_category[MAX_CATEGORY_KEPT];
static int	kept_length = -1;
static int64 kept_hash;

/* An expected version that no stream has. */
#define EXPECTED_NEVER		PG_INT64_MAX

/* The first eight bytes of the MD5 of the category, as hash_64() has it. */
static int64
category_hash(text *stream)
{
	int			length = stream_category_length(stream);
	const char *problem = NULL;
	uint8		digest[16];
	uint64		first;

	if (length == kept_length && memcmp(VARDATA_ANY(stream), kept_category, length) == 0)
		return kept_hash;
	if (!pg_md5_binary(VARDATA_ANY(stream), length, digest, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute MD5 hash: %s", problem)));
	memcpy(&first, digest, sizeof(first));
	if (length <= MAX_CATEGORY_KEPT)
	{
		memcpy(kept_category, VARDATA_ANY(stream), length);
		kept_length = length;
		kept_hash = (int64) pg_ntoh64(first);
	}
	return (int64) pg_ntoh64(first);
}

/* Returns true if a setting of message-db is on, which only programs that use it have. */
static bool
is_on(const char *setting)
{
	const char *value = GetConfigOption(setting, true, false);

	return value != NULL && strcmp(value, "on") == 0;
}

static bool
debugs_writes(void)
{
	return is_on("message_store.debug_write") || is_on("message_store.debug");
}

static void
notice_line(const char *line)
{
	ereport(NOTICE, (errmsg_internal("%s", line)));
}

/* A heading, with a character that the database's encoding must have. */
static void
notice_heading(const char *function)
{
	char	   *mark = pg_any_to_server("\302\273", 2, PG_UTF8);

	notice_line(psprintf("%s %s", mark, function));
}

/* An argument of any of the three types that there are, for a notice. */
static char *
argument_shown(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return "<NULL>";
	if (argument == ARG_DATA || argument == ARG_METADATA)
		return JsonbToCString(NULL, &PG_GETARG_JSONB_P(argument)->root, 0);
	if (argument == ARG_EXPECTED)
		return psprintf(INT64_FORMAT, PG_GETARG_INT64(argument));
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

static void
notice_lock(text *stream, int64 hash)
{
	notice_heading("acquire_lock");
	notice_line(psprintf("stream_name: %s", text_to_cstring(stream)));
	notice_line(psprintf("_category: %s", stream_category(stream)));
	notice_line(psprintf("_category_name_hash: " INT64_FORMAT, hash));
}

static void
notice_write(FunctionCallInfo fcinfo, int64 position)
{
	static const char *const names[] = {"id", "stream_name", "type", "data", "metadata", "expected_version"};
	int			i;

	notice_heading("write_message");
	for (i = 0; i < (int) lengthof(names); i++)
		notice_line(psprintf("%s ($%d): %s", names[i], i + 1, argument_shown(fcinfo, i)));
	notice_line(psprintf("_stream_version: " INT64_FORMAT, position - 1));
	notice_line(psprintf("_next_position: " INT64_FORMAT, position));
}

/* Locks the category, for this call and others like it, to the end of the transaction. */
static void
lock_category(text *stream, bool debug)
{
	int64		hash = category_hash(stream);

	(void) DirectFunctionCall1(pg_advisory_xact_lock_shared_int8, Int64GetDatum(hash));
	if (debug)
		notice_lock(stream, hash);
}

/* version: as we count; 0: there are no events. */
static void
fail_version(FunctionCallInfo fcinfo, int64 version)
{
	ereport(ERROR,
			(errcode(ERRCODE_RAISE_EXCEPTION),
			 errmsg("Wrong expected version: " INT64_FORMAT " (Stream: %s, Stream Version: " INT64_FORMAT ")",
					PG_GETARG_INT64(ARG_EXPECTED), argument_shown(fcinfo, ARG_STREAM), version - 1)));
}

/* Names table and constraint as message-db has them. */
static int
errconstraint_of_messages(const char *constraint)
{
	err_generic_string(PG_DIAG_SCHEMA_NAME, "message_store");
	err_generic_string(PG_DIAG_TABLE_NAME, "messages");
	if (constraint != NULL)
		err_generic_string(PG_DIAG_CONSTRAINT_NAME, constraint);
	return 0;
}

static void
refuse_null(FunctionCallInfo fcinfo, int argument, const char *column)
{
	if (!PG_ARGISNULL(argument))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("null value in column \"%s\" of relation \"messages\" violates not-null constraint",
					column),
			 errdetail("The argument %s of write_message() is null.", column),
			 errhint("Only data, metadata and expected_version may be null."),
			 errconstraint_of_messages(NULL),
			 err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

/* What is expected of the stream, as we count. */
static ExpectedVersion
expected_of_argument(FunctionCallInfo fcinfo)
{
	int64		expected;

	if (PG_ARGISNULL(ARG_EXPECTED))
		return EXPECTED_ANY;
	expected = PG_GETARG_INT64(ARG_EXPECTED);
	return expected < -1 || expected == PG_INT64_MAX ? EXPECTED_NEVER : expected + 1;
}

/* Returns true if it has the digits and hyphens of a UUID, in the form that uuid_out() gives. */
static bool
is_usual_uuid(text *id)
{
	const char *form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	const char *string = VARDATA_ANY(id);
	int			i;

	if (VARSIZE_ANY_EXHDR(id) != strlen(form))
		return false;
	for (i = 0; form[i] != '\0'; i++)
	{
		if (form[i] == '-' ? string[i] != '-' : !isxdigit((unsigned char) string[i]))
			return false;
	}
	return true;
}

/*
 * Returns true if nothing but the version, the id and what the store itself refuses can
 * be wrong with the call.
 */
static bool
is_usual_call(FunctionCallInfo fcinfo)
{
	return !XactReadOnly && !PG_ARGISNULL(ARG_ID) && !PG_ARGISNULL(ARG_STREAM) &&
		!PG_ARGISNULL(ARG_TYPE) && is_usual_uuid(PG_GETARG_TEXT_PP(ARG_ID));
}

/* Raises an error of the append again, in message-db's form if it has one. */
static void
rethrow_as_message_db(FunctionCallInfo fcinfo, const Write *write, ErrorData *error)
{
	const NewEvent *event = write->count > 0 ? &write->events[0] : NULL;
	bool		numbered = event != NULL && event->version != 0;

	if (error->sqlerrcode == ERRCODE_ES_WRONG_EXPECTED_VERSION && !numbered)
		fail_version(fcinfo, write->version);
	if (error->sqlerrcode == ERRCODE_ES_WRONG_EXPECTED_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("duplicate key value violates unique constraint \"%s\"", "messages_stream"),
				 errdetail("Key (stream_name, \"position\")=(%s, " INT64_FORMAT ") already exists.",
						   text_to_cstring(write->stream), event->version - 1),
				 errhint("Another transaction wrote to es_events directly; try again."),
				 errconstraint_of_messages("messages_stream")));
	if (error->sqlerrcode == ERRCODE_ES_DUPLICATE_EVENT)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("duplicate key value violates unique constraint \"%s\"", "messages_id"),
				 errdetail("Key (id)=(%s) already exists.", uuid_to_cstring(&event->id)),
				 errhint("The message may be stored already: a retry of a write is refused, too."),
				 errconstraint_of_messages("messages_id")));
	ReThrowError(error);
}

/* Appends the event, if there is one, under message-db's errors. */
static void
append_as_message_db(FunctionCallInfo fcinfo, Write *write)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		write_events(write);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		rethrow_as_message_db(fcinfo, write, error);
	}
	PG_END_TRY();
}

/*
 * Compares the version by itself, by an append of no event.  A server in recovery, where
 * nothing can be locked, says that it only reads.
 */
static void
check_version_first(FunctionCallInfo fcinfo, Write *write)
{
	if (write->expected == EXPECTED_ANY || RecoveryInProgress())
		return;
	if (write->stream != NULL)
		append_as_message_db(fcinfo, write);
	else if (write->expected != EXPECTED_NONE)
		fail_version(fcinfo, 0);
}

/* Refuses a call in message-db's order, unless it is right after all. */
static void
check_unusual_call(FunctionCallInfo fcinfo, Write *write)
{
	check_version_first(fcinfo, write);
	if (!PG_ARGISNULL(ARG_ID))
		(void) DirectFunctionCall1(uuid_in, CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(ARG_ID))));
	PreventCommandIfReadOnly("INSERT");
	refuse_null(fcinfo, ARG_STREAM, "stream_name");
	refuse_null(fcinfo, ARG_TYPE, "type");
	refuse_null(fcinfo, ARG_ID, "id");
}

/* The event of the arguments, which are not null where they must not be. */
static NewEvent *
event_of_arguments(FunctionCallInfo fcinfo, text *stream)
{
	NewEvent   *event = event_array_make(stream, 1);
	Datum		id = DirectFunctionCall1(uuid_in,
										 CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(ARG_ID))));

	event->type = PG_GETARG_TEXT_PP(ARG_TYPE);
	event->data = PG_ARGISNULL(ARG_DATA) ?
		DirectFunctionCall1(jsonb_in, CStringGetDatum("null")) : PG_GETARG_DATUM(ARG_DATA);
	if (!PG_ARGISNULL(ARG_METADATA))
		event->metadata = PG_GETARG_DATUM(ARG_METADATA);
	event->has_id = true;
	event->id = *DatumGetUUIDP(id);
	event_check_new(event);
	return event;
}

/*
 * write_message(id, stream_name, type, data, metadata, expected_version)
 */
Datum
es_append_message(PG_FUNCTION_ARGS)
{
	Write	   *write = palloc0(sizeof(Write));
	bool		debug = debugs_writes();

	write->log = log_relid_of_extension();
	write->expected = expected_of_argument(fcinfo);
	write->no_retry = true;
	if (!PG_ARGISNULL(ARG_STREAM))
	{
		write->stream = PG_GETARG_TEXT_PP(ARG_STREAM);
		stream_check_new(write->stream);
		lock_category(write->stream, debug);
	}
	if (!is_usual_call(fcinfo))
		check_unusual_call(fcinfo, write);
	write->count = 1;
	write->events = event_of_arguments(fcinfo, write->stream);
	append_as_message_db(fcinfo, write);
	if (debug)
		notice_write(fcinfo, write->version - 1);
	PG_RETURN_INT64(write->version - 1);
}
