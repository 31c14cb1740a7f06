/*-------------------------------------------------------------------------
 *
 * async_commit.c
 *		Transactions that do not wait for the disk, as what they have written
 *		may be lost: a delivery (poll.c), a snapshot (snapshot.c).
 *
 * Who writes such a thing says what the transaction had written before it
 * (async_commit_begin) and that nothing else came with it (async_commit_end).  If
 * at commit the transaction has written nothing more, the commit is as with
 * synchronous_commit = off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"

#include "base/base.h"

/* Up to here, all that the transaction has written may be lost. */
static XLogRecPtr lazy_upto = InvalidXLogRecPtr;
static int	saved_synchronous_commit = -1;

/* At the end of the transaction. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		if (lazy_upto == InvalidXLogRecPtr || lazy_upto != XactLastRecEnd)
			return;
		saved_synchronous_commit = synchronous_commit;
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	}
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
			 event == XACT_EVENT_PREPARE)
	{
		if (saved_synchronous_commit >= 0)
			synchronous_commit = saved_synchronous_commit;
		saved_synchronous_commit = -1;
		lazy_upto = InvalidXLogRecPtr;
	}
}

/*
 * What the transaction has written so far.
 */
CommitProgress
async_commit_begin(void)
{
	CommitProgress before = {
		.has_id = TransactionIdIsValid(GetTopTransactionIdIfAny()),
		.upto = XactLastRecEnd
	};

	return before;
}

/*
 * What was written since then may be lost.
 */
void
async_commit_end(CommitProgress before)
{
	if (!before.has_id || before.upto == lazy_upto)
		lazy_upto = XactLastRecEnd;
}

/*
 * Asks to be told of the ends of transactions.
 */
void
async_commit_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}
