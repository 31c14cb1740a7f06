/*-------------------------------------------------------------------------
 *
 * inbox.h
 *		The inbox: messages that are handled once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_INBOX_H
#define EVENTSTORE_INBOX_H

#include "base/role.h"

/* A message, and the role that handles it. */
typedef struct Message
{
	Oid			log;			/* es_events */
	text	   *topic;
	text	   *group_id;
	text	   *payload;		/* NULL: it has none */
	Datum		metadata;
	text	   *message_id;		/* NULL: it has none */
	text	   *checksum;		/* by which it is known */
	int64		id;				/* in es_inbox */
	bool		bare;			/* its row was made without the payload */
	bool		sealed;			/* its event is encrypted */

	Oid			handler;		/* 0: it is found by its signature */
	char	   *signature;
	Oid			receiver;		/* whose rights the handler has; 0: no role */
	Role		receiver_role;	/* of a message that is retried */
	char	   *search_path;	/* as it is kept */
	bool		retried;		/* the receiver is not the caller */

	bool		acknowledged;	/* else skipped */
} Message;

/* inbox_handler.c */

/* Fields of es_ack_event. */
enum
{
	ACK_ENTITY_ID, ACK_EVENT_TIME, ACK_EVENT_TYPE, ACK_EVENT_VERSION,
	ACK_STREAM, ACK_EXPECTED, ACK_TAGS, ACK_FIELDS
};

/* What a handler has returned. */
typedef struct AckEvent
{
	Datum		values[ACK_FIELDS];
	bool		nulls[ACK_FIELDS];
} AckEvent;

/*
 * Finds the handler that an es_function or a stored signature names.  Errors: it
 * names none that the user may execute.
 */
extern Oid	inbox_handler_find(Oid log, const char *name);

/* Calls the handler of the message; returns false if it skips the message. */
extern bool inbox_handler_call(const Message *message, AckEvent *ack);

/* receive.c; SPI is connected */

/*
 * Claims the message; returns false if it is in the inbox.  Waits for another
 * transaction that has claimed it.
 */
extern bool inbox_claim(Message *message);

/* Deletes the row that claimed the message. */
extern void inbox_unclaim(const Message *message);

/*
 * Handles a message that is claimed, given as a Message; returns true.  For
 * subtransaction_try().
 */
extern bool inbox_handle(void *arg);

/* Counts a message that was handled. */
extern void inbox_count_handled(const Message *message);

/* Removes the failure of a message; returns false if there was none. */
extern bool inbox_remove_failure(const Message *message);

/*
 * Records that the message failed, or failed again.  attempts: how often it was
 * tried, for the first record of it.
 */
extern void inbox_record_failure(const Message *message, const ErrorData *error,
								 int64 attempts);

/* inbox_retry.c; SPI is connected */

/*
 * Gives a message that failed to its handler again, with the receiver's rights.
 * Returns 1; 0 if it failed again, or has been handled meanwhile.
 */
extern int64 inbox_retry(Oid log, int64 failure_id);

/* Discards a message that failed. */
extern void inbox_discard(Oid log, int64 failure_id);

#endif							/* EVENTSTORE_INBOX_H */
