/*
 * A logical replica: the publisher's transactions, its worker that publishes the horizon,
 * the initial copies of two tables and their way to each other, the apply in the order of
 * commits, and a reader of the replica (doc/internals/horizon.md, "Logical replicas").
 *
 *	spin -a replica.pml; cc -DSAFETY -o pan pan.c; ./pan
 *
 *	-DBREAK_...	a mistake that must be found
 *
 * The horizon of the publisher is one step here: horizon.pml is about it.
 *
 * Safety: no event appears on the replica at a position that a reader has passed, and none at
 * a position that an append of the replica has taken.
 */

#define T			2			/* transactions of the publisher, one position each */
#define ROWS		2			/* rows of the horizon that the worker commits */
#define W			5			/* records: T commits, ROWS rows, one in reserve */
#define P			(T + 2)		/* positions, one of them for the replica's own append */

#define EVENTS		0			/* tables */
#define HORIZON		1

/* The publisher. */
byte next_position = 1;
byte drawn[T];					/* 0: none yet */
bool ended[P];					/* the owner of the position has ended */

/* What is in its WAL, in the order of commits: an event, or a row of the horizon. */
byte length = 0;
byte event[W];					/* 0: the record is no event */
byte row[W];					/* 0: it is no row */

/* The replica.  Each table has the records below "has", and so has the apply worker. */
byte has[2];
bool ready[2];
#ifdef BREAK_REPLICA_TWO
byte applied[2];
#define APPLIED(t)	applied[t]
#else
byte applied = 0;
#define APPLIED(t)	applied
#endif
bool subscribed = true;
bool promoted = false;
byte floor = 0;					/* of the promotion */
byte own = 0;					/* position of an append of the replica */
byte passed = 0;				/* by the reader */

/* The last position at and below which every owner has ended. */
inline find_horizon(h)
{
	h = 0;
	do
	:: h + 1 < next_position && ended[h + 1] -> h++
	:: else -> break
	od
}

proctype Publisher(byte t)
{
	atomic { drawn[t] = next_position; next_position++ };
	if
	:: atomic { event[length] = drawn[t]; length++; ended[drawn[t]] = true }
	:: ended[drawn[t]] = true
	fi
}

proctype Worker()
{
	byte n, h, place;

	do
	:: n == ROWS -> break
	:: n < ROWS ->
#ifdef BREAK_REPLICA_EARLY_ROW
		/* committed, and filled with what is found afterwards */
		atomic { place = length; length++ };
		atomic { find_horizon(h); row[place] = h; h = 0; n++ }
#else
		atomic { find_horizon(h); n++ };
		/* a crash of the publisher here loses the row */
		if
		:: atomic { row[length] = h; length++; h = 0 }
		:: h = 0
		fi
#endif
	od
}

/* The table gets its records up to "to": none of its events was passed. */
inline bring(t, to)
{
	do
	:: has[t] < to ->
		if
		:: t == EVENTS && event[has[t]] != 0 ->
			assert(event[has[t]] > passed);
			assert(event[has[t]] != own)
		:: else
		fi;
		has[t]++
	:: else -> break
	od
}

/* The initial copy of a table, and its way to where the apply worker is. */
proctype Sync(byte t)
{
	atomic { subscribed -> bring(t, length) };
	do
	:: atomic { !ready[t] && subscribed && has[t] < APPLIED(t) -> bring(t, APPLIED(t)) }
	:: atomic { !ready[t] && has[t] == APPLIED(t) -> ready[t] = true; break }
	od
}

#ifdef BREAK_REPLICA_TWO
/* Two subscriptions, each with an apply worker. */
proctype Apply(byte t)
{
end:
	do
	:: atomic { subscribed && applied[t] < length -> applied[t]++;
			if
			:: ready[t] -> bring(t, applied[t])
			:: else
			fi
		}
	od
}
#else
/* One transaction: both tables get it, if they are ready.  A restart goes on from there. */
proctype Apply()
{
end:
	do
	:: atomic { subscribed && applied < length -> applied++;
			if
			:: ready[EVENTS] -> bring(EVENTS, applied)
			:: else
			fi;
			if
			:: ready[HORIZON] -> bring(HORIZON, applied)
			:: else
			fi
		}
	od
}
#endif

/* The greatest position among the first records. */
inline last_seen(p, seen)
{
	p = 0;
	i = 0;
	do
	:: i < seen ->
		if
		:: event[i] > p -> p = event[i]
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/*
 * The subscription ends, and may come again, where it was; or the replica is promoted.  One
 * that ends before its tables are ready cannot go on.
 */
proctype Operator()
{
	byte p, i;

	atomic { ready[EVENTS] && ready[HORIZON] -> subscribed = false };
	if
	:: subscribed = true
	:: atomic {
			last_seen(p, has[EVENTS]);
			floor = p;
			promoted = true;
			p = 0
		}
	fi
}

inline published(d, seen)
{
	d = 0;
	i = 0;
	do
	:: i < seen ->
		if
		:: row[i] > d -> d = row[i]
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* The replica appends, above what it has. */
proctype Append()
{
	byte p, i;

#ifdef BREAK_REPLICA_APPEND
	atomic { ready[EVENTS] ->
#else
	atomic { promoted ->
#endif
		last_seen(p, has[EVENTS]);
		own = p + 1;
		p = 0
	}
}

/* Everything from d on, where no position is missing. */
inline contiguous(d, seen)
{
	do
	:: i = 0; p = 0;
		do
		:: i < seen && event[i] != d + 1 -> i++
		:: i < seen && event[i] == d + 1 -> p = 1; break
		:: else -> break
		od;
		if
		:: p == 1 -> d++
		:: else -> break
		fi
	od;
	i = 0; p = 0
}

/* Nothing has come meanwhile below the horizon of the snapshot. */
inline check_snapshot()
{
	i = s_events;
	do
	:: i < has[EVENTS] -> assert(event[i] == 0 || event[i] > h); i++
	:: else -> break
	od;
	i = 0
}

proctype Reader()
{
	byte s_events, s_horizon;	/* what the snapshot sees */
	bool s_ready, s_subscribed, s_promoted;
	byte h, i, p;

end:
	do
	:: atomic {
			s_events = has[EVENTS]; s_horizon = has[HORIZON];
			s_ready = ready[EVENTS] && ready[HORIZON];
			s_subscribed = subscribed; s_promoted = promoted
		};
#ifdef BREAK_REPLICA_LATER_STATE
		s_ready = ready[EVENTS] && ready[HORIZON];
#endif
		atomic {
			if
#ifdef BREAK_REPLICA_OWN_HORIZON
			:: true -> last_seen(h, s_events)
#else
			:: s_promoted -> h = floor
#ifdef BREAK_REPLICA_NOT_READY
			:: s_subscribed -> published(h, s_horizon)
#else
			:: s_subscribed && s_ready -> published(h, s_horizon)
			:: s_subscribed && !s_ready -> h = 0
#endif
#ifdef BREAK_REPLICA_PROVE
			:: !s_subscribed && !s_promoted -> last_seen(h, s_events)
#else
			:: !s_subscribed && !s_promoted ->
				published(h, s_horizon);
				contiguous(h, s_events)
#endif
#endif
			fi;
			check_snapshot();
			if
			:: h > passed -> passed = h
			:: else
			fi;
			s_events = 0; s_horizon = 0; s_ready = 0; s_subscribed = 0; s_promoted = 0; h = 0
		}
	od
}

init {
	atomic {
		run Publisher(0);
		run Publisher(1);
		run Worker();
		run Sync(EVENTS);
		run Sync(HORIZON);
#ifdef BREAK_REPLICA_TWO
		run Apply(EVENTS);
		run Apply(HORIZON);
#else
		run Apply();
#endif
		run Operator();
		run Append();
		run Reader()
	}
}
