/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		One delivery of a subscription, and what is delivered again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_DELIVERY_H
#define EVENTSTORE_DELIVERY_H

#include "subscription/subscription.h"

/* redelivery.c */

/* The events after one position, up to another, which need not be read. */
typedef struct Scanned
{
	int64		from;
	int64		to;
	TransactionId changed_by;	/* that of the subscription then */
} Scanned;

/* What a consumer asks for, and gets. */
typedef struct Delivery
{
	Oid			log;
	const char *name;			/* of the subscription */
	const char *consumer;		/* NULL: it has no name */
	int			max_count;
	int64		max_bytes;		/* of data and metadata; one event may have
								 * more */
	const Deadline *deadline;	/* of reading over what does not match; NULL:
								 * none */
	int64		after_token;	/* 0: none */
	Scanned    *scanned;		/* by partition; NULL: not remembered */
	void		(*take) (void *taker, TupleTableSlot *event);
	void	   *taker;			/* takes events as they are read, if possible */

	const struct PartitionMap *map; /* of the session; NULL: none */
	Partition  *partition;		/* the one that is delivered from */
	EventBatch	batch;			/* the events, but for those that were taken */
	Int8Array	positions;		/* of a parked stream: those of the events */
	Int8Array	attempts;		/* and which attempt it is at each */

	int64		horizon;
	int64		expired_upto;	/* end of the delivery that has just expired */
	bool		must_last;		/* it must not be lost in a crash */
	bool		time_over;		/* there may be more than was looked at */
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

#endif							/* EVENTSTORE_DELIVERY_H */
