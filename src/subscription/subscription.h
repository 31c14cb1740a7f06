/*-------------------------------------------------------------------------
 *
 * subscription.h
 *		Subscriptions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_SUBSCRIPTION_H
#define EVENTSTORE_SUBSCRIPTION_H

#include "access/htup.h"
#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "base/role.h"
#include "read/read.h"
#include "failure/failure.h"

/* subscription.c */

/* A subscription, as es_subscriptions has it. */
typedef struct Subscription
{
	Oid			log;			/* es_events */
	char	   *name;
	Oid			owner;			/* 0: there is no such role */
	Role		owner_role;
	ArrayType  *categories;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	int			partitions;
	Interval	lease;
	int			max_attempts;
	int			max_in_flight;
} Subscription;

/*
 * Reads the caller's subscription; an error if it does not exist, or belongs to
 * another role.
 */
extern void subscription_own(Oid log, const char *name,
							 Subscription *subscription);

/* The same of one that the caller owns or operates. */
extern void subscription_operated(Oid log, const char *name,
								  Subscription *subscription);

/* Returns the owner of a partition's failures. */
extern FailureOwner subscription_failures(Oid log, const char *name,
										  int partition);

/* partition.c */

/*
 * A partition of a subscription, as es_partitions has it.  Its deliveries in
 * flight are in tokens, uptos and counts, in order.
 */
typedef struct Partition
{
	Subscription subscription;
	HeapTuple	row;			/* as it is stored */
	int			number;
	TimestampTz delivered_at;	/* 0: never */
	int64		position;		/* the checkpoint */
	int64		reached;		/* up to here there is nothing else to deliver */
	char	   *consumer;		/* that has it in flight; NULL: unknown */
	TimestampTz leased_until;	/* 0: nothing is in flight */
	int64		token;			/* the last one */
	int64		acked_token;
	Int8Array	tokens;
	Int8Array	uptos;			/* the last position of each delivery */
	Int8Array	counts;			/* how many events of each are in flight */
	char	   *stream;			/* of es_failures that is in flight; else NULL */
	Int8Array	settled;		/* positions after the checkpoint */
	Int8Array	expired_upto;	/* up to these, from the checkpoint on, events */
	Int8Array	expired_times;	/* had so many expired leases */
	bool		has_failures;	/* it may have some */
	TimestampTz due_at;			/* a parked stream may be due; 0: none is */
} Partition;

/* Returns all partitions of the subscription, as they are at this moment. */
extern List *partition_list(const Subscription *subscription);

/*
 * Locks a partition and reads it.  Returns NULL if there is none of this
 * number, or if another transaction has it locked and wait is false.
 */
extern Partition *partition_lock(const Subscription *subscription, int number,
								 bool wait);

/*
 * Locks a partition of the caller's subscription; NULL if it has none of this
 * number.
 */
extern Partition *partition_own(Oid log, const char *name, int number);

/* The same of a subscription that the caller owns or operates. */
extern Partition *partition_operated(Oid log, const char *name, int number);

/*
 * Writes the row, which is locked.  delivered: it has just been delivered from.
 */
extern void partition_write(Partition *partition, bool delivered);

/* Returns the owner of the partition's failures. */
extern FailureOwner partition_failures(const Partition *partition);

/* Returns true if any event of the partition is in flight. */
extern bool partition_is_in_flight(const Partition *partition);

/*
 * Finds when a parked stream is to be delivered, the first of those below the
 * checkpoint, and whether the partition has failures at all.
 */
extern void partition_find_due(Partition *partition);

/* Moves the checkpoint of a partition of which nothing is in flight. */
extern void partition_move_checkpoint(Partition *partition, int64 position);

/* Ends all deliveries that are in flight. */
extern void partition_release(Partition *partition);

/* Begins the lease of what is in flight anew. */
extern void partition_extend_lease(Partition *partition);

/* Returns the place of a token among those in flight; -1 if it is not there. */
extern int	partition_find_token(const Partition *partition, int64 token);

/* Refuses a token with which nothing is in flight (ES006). */
extern void partition_refuse_token(const Partition *partition, int64 token);

/* Returns the number of the partition that the token belongs to. */
extern int	partition_number_of_token(int64 token);

/*
 * Locks the partition of the caller's subscription that the token belongs to;
 * ES006 if there is none.
 */
extern Partition *partition_of_token(Oid log, const char *name, int64 token);

/*
 * Returns which events the partition gets; an error if the role that reads them
 * does not exist any more.
 */
extern EventSource partition_source(const Partition *partition);

/* redelivery.c */

/* The events after one position, up to another, which need not be read. */
typedef struct Scanned
{
	int64		from;
	int64		to;
} Scanned;

/* What a consumer asks for, and gets. */
typedef struct Delivery
{
	Oid			log;
	const char *name;			/* of the subscription */
	const char *consumer;		/* NULL: it has no name */
	int			max_count;
	int64		after_token;	/* 0: none */
	Scanned    *scanned;		/* by partition; NULL: not remembered */

	Partition  *partition;		/* the one that is delivered from */
	EventBatch	batch;			/* the events */
	Int8Array	positions;		/* of a parked stream: those of the events */
	Int8Array	attempts;		/* and which attempt it is at each */

	int64		horizon;
	int64		expired_upto;	/* end of the delivery that has just expired */
	bool		must_last;		/* it must not be lost in a crash */
} Delivery;

/*
 * Returns how many leases expired while the event at the position, which lies
 * after the checkpoint, was in flight.
 */
extern int	redelivery_expired_times(const Partition *partition, int64 position);

/*
 * Returns which attempt the delivery is at its event at the position.  number:
 * for a parked stream, where the search for it starts; 0 for the first event.
 */
extern int	redelivery_attempt(const Delivery *delivery, int64 position,
							   int *number);

/* Counts one more expired lease for the events from after to upto. */
extern void redelivery_add_expiry(Partition *partition, int64 after,
								  int64 upto);

/* Ends what is in flight as if its lease had expired. */
extern void redelivery_expire(Delivery *delivery, Partition *partition);

/*
 * Returns the parked stream that is to be delivered next, below the checkpoint;
 * NULL if there is none.
 */
extern char *redelivery_find_stream(const Partition *partition);

/*
 * Reads the next events of the parked stream that is due.  Returns false if
 * there is none.
 */
extern bool redelivery_read_stream(Delivery *delivery, Partition *partition,
								   Snapshot snapshot);

/*
 * Parks the only event of the batch if it was the only one of the delivery that
 * has just expired, and was delivered often enough.  Returns true if so.
 */
extern bool redelivery_park_expired(Delivery *delivery, Partition *partition);

/* Parks the events of the batch that must wait behind others of their streams. */
extern void redelivery_park_waiting(Delivery *delivery, Partition *partition);

/* delivery.c */

/*
 * Returns true if there may be something to deliver.  Locks no row, so that it
 * takes no transaction id.
 */
extern bool delivery_peek(Delivery *delivery);

/*
 * Delivers events to the consumer; returns false if there are none.  final:
 * then it writes how far it has looked.
 */
extern bool delivery_make(Delivery *delivery, bool final);

/*
 * Returns when a lease of the subscription expires, or a parked stream is due,
 * so that there may be something to deliver; 0 if there is no such time.
 */
extern TimestampTz delivery_next_time(const Delivery *delivery);

#endif							/* EVENTSTORE_SUBSCRIPTION_H */
