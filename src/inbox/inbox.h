/*-------------------------------------------------------------------------
 *
 * inbox.h
 *		The inbox: messages that are handled once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_INBOX_H
#define EVENTSTORE_INBOX_H

/* receive.c */
extern int64 receive_retry(Oid log, int64 failure_id);
extern void receive_discard(Oid log, int64 failure_id);

#endif							/* EVENTSTORE_INBOX_H */
