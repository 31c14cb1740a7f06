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
	EventQuery *query;			/* NULL: any */
	int			partitions;
	Interval	lease;
	int			max_attempts;
	int			max_in_flight;
	TransactionId changed_by;	/* wrote the row */
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

/* Reads it again by its name; returns false if there is none. */
extern bool subscription_reread(Subscription *subscription);

/*
 * Reads the subscription by one of the functions above, and locks its partitions, in
 * the order of their numbers.
 */
extern void subscription_lock(Oid log, const char *name,
							  void (*read) (Oid log, const char *name,
											Subscription *subscription),
							  Subscription *subscription);

/* Arguments that es_create_subscription and es_alter_subscription have; null: not given. */
typedef struct SubscriptionArguments
{
	NullableDatum categories;
	NullableDatum types;
	NullableDatum query;
	NullableDatum lease;
	NullableDatum max_attempts;
	NullableDatum max_in_flight;
} SubscriptionArguments;

/* Refuses those that are wrong by themselves. */
extern void subscription_check_arguments(Oid log,
										 const SubscriptionArguments *given);

/* Refuses a name that another subscription has (42710). */
extern void subscription_check_name_is_free(Oid log, const char *name);

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
	int64		earlier_upto;	/* events up to here have the filter before: */
	ArrayType  *earlier_categories; /* NULL: any */
	ArrayType  *earlier_types;
	EventQuery *earlier_query;
} Partition;

/* What a consumer gets a partition by. */
typedef struct PartitionChoice
{
	int			number;
	int64		reached;
	TimestampTz delivered_at;
	TimestampTz leased_until;
	TimestampTz due_at;
	bool		mine;			/* the consumer has it in flight */
	bool		tried;
} PartitionChoice;

/* The choices of a consumer among all partitions of a subscription. */
typedef struct PartitionChoices
{
	PartitionChoice *values;
	int			count;
} PartitionChoices;

/* Returns all partitions as they are at this moment.  consumer: NULL if it has no name. */
extern PartitionChoices partition_choices(const Subscription *subscription,
										  const char *consumer);

/* Returns the same of one partition. */
extern PartitionChoice partition_choice(const Partition *partition, const char *consumer);

/* Reads a partition without a lock; NULL if it is not there any more. */
extern Partition *partition_peek(const Subscription *subscription, int number);

/*
 * Locks a partition and reads it.  Returns NULL if there is none of this
 * number, if another transaction has it locked and wait is false, or if the
 * subscription was changed since it was read.
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
 * Returns the session's map of the subscription's partitions; NULL if they are few, or
 * if the owner may not read all events.
 */
extern const struct PartitionMap *partition_find_map(const Subscription *subscription);

/*
 * Returns which events the partition gets; an error if the role that reads them
 * does not exist any more.
 */
extern EventSource partition_source(const Partition *partition);

/*
 * Adds the next events that the partition gets, after one position and up to another,
 * as far as the limit goes, to batch->events.
 */
extern void partition_read(const Partition *partition, Snapshot snapshot,
						   int64 after, int64 upto, const ReadLimit *limit,
						   EventBatch *batch);

#endif							/* EVENTSTORE_SUBSCRIPTION_H */
