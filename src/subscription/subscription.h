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
#include "read/read.h"
#include "failure/failure.h"

/* subscription.c */

/* A subscription, as es_subscriptions has it. */
typedef struct Subscription
{
	Oid			log;			/* es_events */
	char	   *name;
	Oid			owner;			/* 0: there is no role of this name */
	char	   *owner_name;
	text	   *category;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	int			partitions;
	Interval	lease;
	int			max_attempts;
	int			max_in_flight;
} Subscription;

extern void subscription_own(Oid log, const char *name,
							 Subscription *subscription);
extern FailureOwner subscription_failures(Oid log, const char *name,
										  int partition);

/* partition.c */

/* A partition of a subscription, as es_partitions has it. */
typedef struct Partition
{
	Subscription subscription;
	HeapTuple	row;			/* as it is stored */
	int			number;
	TimestampTz served_at;		/* 0: never */
	int64		position;		/* the checkpoint */
	int64		reached;		/* up to here there is nothing else to deliver */
	char	   *consumer;		/* who has it in hand; NULL: unknown */
	TimestampTz leased_until;	/* 0: nothing is in hand */
	int64		token;			/* the last one */
	int64		acked_token;
	Int8Array	tokens;			/* of the deliveries in hand */
	Int8Array	uptos;			/* the last position of each */
	Int8Array	counts;			/* how many events of each are in hand */
	char	   *stream;			/* of es_failures that is in hand; else NULL */
	Int8Array	settled;		/* by es_nack, after the checkpoint */
	Int8Array	expired_upto;	/* events up to here, from the checkpoint on, */
	Int8Array	expired_times;	/* were delivered so often and lost */
	bool		has_failures;	/* may it have any? */
	TimestampTz due_at;			/* a parked stream may be due; 0: none is */
} Partition;

extern List *partition_list(const Subscription *subscription);
extern Partition *partition_lock(const Subscription *subscription, int number,
								 bool wait);
extern Partition *partition_own(Oid log, const char *name, int number);
extern void partition_write(Partition *partition, bool served);
extern FailureOwner partition_failures(const Partition *partition);
extern bool partition_is_in_flight(const Partition *partition);
extern void partition_find_due(Partition *partition);
extern void partition_move(Partition *partition, int64 position);
extern void partition_free(Partition *partition);
extern void partition_extend_lease(Partition *partition);
extern int	partition_find_token(const Partition *partition, int64 token);
extern void partition_refuse_token(const Partition *partition, int64 token);
extern int	partition_number(int64 token);
extern Partition *partition_of_token(Oid log, const char *name, int64 token);
extern EventSource partition_source(const Partition *partition);

/* delivery.c */

/* Where a partition was found to have nothing to be delivered. */
typedef struct Scanned
{
	int64		from;			/* after this */
	int64		to;				/* up to this */
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

	Partition  *partition;		/* what is delivered is of */
	EventBatch	batch;			/* the events */
	Int8Array	positions;		/* of a parked stream: those of the events */
	Int8Array	attempts;		/* and which attempt it is at each */

	int64		horizon;
	int64		expired_upto;	/* end of the delivery that was just lost */
	bool		checkpoint_moved;	/* it must not go back any more */
} Delivery;

extern int	delivery_expired(const Partition *partition, int64 position);
extern int	delivery_attempt(const Delivery *delivery, int64 position,
							 int *number);
extern bool delivery_peek(Delivery *delivery);
extern bool delivery_make(Delivery *delivery, bool final);
extern TimestampTz delivery_next_time(const Delivery *delivery);

#endif							/* EVENTSTORE_SUBSCRIPTION_H */
