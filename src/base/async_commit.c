/*-------------------------------------------------------------------------
 *
 * async_commit.c
 *		Commits that do not wait for the disk, since all that the transaction has
 *		written may be lost: a delivery (poll.c), a snapshot (snapshot.c).
 *
 * The code that writes such a thing calls async_commit_begin before it and
 * async_commit_end after it.  If the transaction has written nothing else when it
 * commits, the commit is as with synchronous_commit = off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"

#include "base/base.h"

/* Up to here, all that the transaction has written may be lost. */
static XLogRecPtr losable_upto = InvalidXLogRecPtr;
static int	saved_synchronous_commit = -1;

/* Switches synchronous_commit off for such a commit, and back on after it. */
static void
async_commit_at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		if (losable_upto == InvalidXLogRecPtr || losable_upto != XactLastRecEnd)
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
		losable_upto = InvalidXLogRecPtr;
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
 * What was written since then may be lost, and so may all of the transaction, if
 * nothing was written before it or that may be lost, too.
 */
void
async_commit_end(CommitProgress before)
{
	if (!before.has_id || before.upto == losable_upto)
		losable_upto = XactLastRecEnd;
}

/*
 * Registers for the ends of transactions.
 */
void
async_commit_init(void)
{
	RegisterXactCallback(async_commit_at_transaction_end, NULL);
}
