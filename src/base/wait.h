/*-------------------------------------------------------------------------
 *
 * wait.h
 *		Waiting for locks: saying for what, and without stopping others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_WAIT_H
#define EVENTSTORE_WAIT_H

#include "nodes/pg_list.h"
#include "storage/lock.h"
#include "utils/elog.h"

/* wait_context.c */

/* What is locked, as an error's context says it. */
typedef struct WaitContext
{
	ErrorContextCallback callback;
	const char *what;			/* such as "stream" */
	const char *name;
	int			partition;		/* -1: none */
} WaitContext;

/*
 * Until the end of the context, errors of waits and the log's lines on them say "while
 * locking WHAT NAME".  partition: a number, or -1.
 */
extern void wait_context_begin(WaitContext *context, const char *what,
							   const char *name, int partition);
extern void wait_context_end(const WaitContext *context);

/* For an error context callback: the error may be that of a wait. */
extern bool wait_context_applies(void);

/* table_lock.c */

/* A lock on tables that is stronger than that of their writers. */
typedef struct PatientLock
{
	List	   *relids;			/* all of them, or none */
	LOCKMODE	mode;
	const char *purpose;		/* "to ...", for an error's context */
	void		(*catch_up) (void *arg);	/* what to do after a wait; or
											 * NULL */
	void	   *arg;

	/*
	 * Refuses a holder of a conflicting lock on a table, after so many
	 * milliseconds, by an error; or NULL.  It is called from time to time.
	 */
	void		(*check_holder) (VirtualTransactionId holder, Oid relid, long waited);
} PatientLock;

/*
 * Takes the lock to the end of the transaction, on all tables at once, and waits for
 * it without making others wait, at most for lock_timeout.  Error: 55P03.
 */
extern void table_lock_patiently(const PatientLock *lock);

/*
 * Waits, without the lock, until the transactions that now hold a conflicting one, and for
 * which the function returns true, have ended or released it.  Errors: 55P03, 40P01.
 */
extern void table_lock_await_holders(const PatientLock *lock,
									 bool (*matters) (VirtualTransactionId vxid));

#endif							/* EVENTSTORE_WAIT_H */
