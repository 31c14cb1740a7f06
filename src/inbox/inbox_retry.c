/*-------------------------------------------------------------------------
 *
 * inbox_retry.c
 *		es_retry() and es_discard() of a message that failed.
 *
 * A retry takes the steps of receive.c, as the role that received the message.
 * It claims the message before it locks the row in es_failures, as es_receive
 * does.  So both wait for each other at the same place and cannot deadlock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "base/wait.h"
#include "failure/failure.h"
#include "inbox/inbox.h"

static void
refuse_missing_failure(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no failure with id " INT64_FORMAT, id),
			 errdetail("It was retried or discarded, or has never existed."),
			 errhint("es_failures lists the failures.")));
}

/* A column of the result; NULL for null. */
static text *
nullable_text(int column)
{
	Datum		value = own_sql_value(column);

	return value == (Datum) 0 ? NULL : DatumGetTextPP(value);
}

/*
 * Reads the message that failed; an error if there is none with this id.
 */
static void
load_failed_message(Oid log, int64 id, Message *message)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	if (own_sql_run(log,
					"SELECT topic, group_id, payload, metadata, checksum,"
					" handler, receiver, search_path, message_id"
					" FROM @extschema@.es_failures"
					" WHERE id = $1 AND topic IS NOT NULL",
					1, &type, &value, NULL) == 0)
		refuse_missing_failure(id);
	message->log = log;
	message->topic = DatumGetTextPP(own_sql_value(1));
	message->group_id = DatumGetTextPP(own_sql_value(2));
	message->payload = nullable_text(3);
	message->metadata = own_sql_value(4);
	message->checksum = DatumGetTextPP(own_sql_value(5));
	message->signature = own_sql_text(6);
	message->receiver_role = *(Role *) DatumGetPointer(own_sql_value(7));
	message->receiver = role_find(&message->receiver_role);
	message->search_path = own_sql_text(8);
	message->message_id = nullable_text(9);
	message->retried = true;
}

/* Locks the failure; an error if it has been removed meanwhile. */
static void
lock_failed_message(Oid log, int64 id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);
	WaitContext context;
	uint64		found;

	wait_context_begin(&context, "failure", psprintf(INT64_FORMAT, id), -1);
	found = own_sql_run(log,
						"SELECT FROM @extschema@.es_failures WHERE id = $1 FOR UPDATE",
						1, &type, &value, NULL);
	wait_context_end(&context);
	if (found == 0)
		refuse_missing_failure(id);
}

/* Refuses a caller that neither has the receiver's rights nor is an operator. */
static void
check_receiver(const Message *message, int64 id)
{
	if (!operator_may_act(message->log, message->receiver))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be the receiver of the message that failed"),
				 errdetail("The message of failure " INT64_FORMAT " was received by \"%s\".",
						   id, role_name(&message->receiver_role)),
				 errhint("Ask that role, or become a member of it.")));
}

/* Refuses a message whose receiver does not exist any more. */
static void
check_receiver_exists(const Message *message)
{
	if (!OidIsValid(message->receiver))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the receiver of the message does not exist"),
				 errdetail("%s", role_missing_detail(&message->receiver_role)),
				 errhint("%s", role_missing_hint(&message->receiver_role,
												 "receive the message again, or call es_discard() for the failure"))));
}

/*
 * Refuses to append for a receiver that may not receive messages any more, if an
 * operator asks for it that has not got the receiver's rights.
 */
static void
check_receiver_may_receive(const Message *message)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {
		ObjectIdGetDatum(message->receiver),
		ObjectIdGetDatum(get_rel_namespace(message->log))
	};

	if (has_privs_of_role(GetUserId(), message->receiver) ||
		own_sql_run(message->log,
					"SELECT FROM pg_proc WHERE pronamespace = $2 AND proname = 'es_receive'"
					" AND has_function_privilege($1, oid, 'EXECUTE')",
					2, types, values, NULL) > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the receiver of the message may not receive messages any more"),
			 errdetail("Role \"%s\" has no privilege to execute es_receive.",
					   role_name(&message->receiver_role)),
			 errhint("Make it a writer again by es_grant(), or call es_discard() for the failure.")));
}

/* Says why the message failed again. */
static void
warn_failed_again(const Message *message, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("message of topic \"%s\" failed again: %s",
					text_to_cstring(message->topic), error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("es_failures lists it; es_discard() removes it.")));
}

int64
inbox_retry(Oid log, int64 failure_id)
{
	Message		message = {0};
	ErrorData  *error;

	load_failed_message(log, failure_id, &message);
	check_receiver(&message, failure_id);
	check_receiver_exists(&message);
	check_receiver_may_receive(&message);
	if (!inbox_claim(&message))
	{
		if (!inbox_remove_failure(&message))
			refuse_missing_failure(failure_id);
		return 0;
	}
	lock_failed_message(log, failure_id);
	error = subtransaction_try(inbox_handle, &message);
	if (error == NULL)
	{
		inbox_count_handled(&message);
		return 1;
	}
	inbox_unclaim(&message);
	inbox_record_failure(&message, error, 1);
	warn_failed_again(&message, error);
	return 0;
}

void
inbox_discard(Oid log, int64 failure_id)
{
	Message		message = {0};

	load_failed_message(log, failure_id, &message);
	check_receiver(&message, failure_id);
	if (!failure_remove(log, failure_id))
		refuse_missing_failure(failure_id);
}
