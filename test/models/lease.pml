/*
 * A partition of a subscription: two consumers claim it, may die at any moment,
 * may be too slow for their lease, and acknowledge with a token, in one
 * transaction or in two phases (src/subscription/delivery.c, src/subscription/ack.c).
 *
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: an acknowledgement takes effect only if its consumer is the last that
 * has claimed the partition; each event's takes effect once, in order; the
 * checkpoint never moves back.
 *
 * Progress: consumers die so often, leases expire too early so often, then no
 * more.  Every run ends with all events acknowledged: one that stopped before
 * would be an invalid end state.
 */

#define CONSUMERS	2
#define EVENTS		3
#define BATCH		2
#define NONE		CONSUMERS
#define PREPARED	(CONSUMERS + 1)

/* The row in es_partitions, as it is committed. */
byte checkpoint;
byte reached;					/* what was delivered ends here */
byte token;						/* the last one */
bool in_flight;
bool expired;					/* the lease is over */
byte acked_token;
byte row_lock = NONE;

/* The transaction that is prepared. */
bool waits;
byte p_upto, p_token, p_owner;

byte crashes = 2;
byte delays = 1;				/* a lease expires while its consumer lives */

/* What no process of the program knows. */
byte last_owner = NONE;
byte effects[EVENTS + 1];
bool alive[CONSUMERS];			/* has not died with events in flight */

#define DONE	(checkpoint == EVENTS)

#ifdef BREAK_NO_LEASE
#define FREE	!in_flight
#else
#define FREE	(!in_flight || expired)
#endif

/* The acknowledgement is committed: everything up to a position. */
inline take_effect(consumer, upto, by)
{
	assert(consumer == last_owner);
	assert(upto > checkpoint);
	e = checkpoint + 1;
	do
	:: e > upto -> break
	:: else -> effects[e]++; assert(effects[e] == 1); e++
	od;
	e = 0;
	checkpoint = upto;
	if
	:: upto == reached -> in_flight = false; acked_token = by
	:: else
	fi;
	expired = false				/* the rest has another lease */
}

inline die()
{
	atomic {
		crashes > 0 -> crashes--;
		alive[me] = false;
		if
		:: row_lock == me -> row_lock = NONE
		:: else
		fi;
		mine = 0; upto = 0; e = 0
	}
}

proctype Consumer(byte me)
{
	byte mine;					/* the token that was got */
	byte upto;
	byte e;

poll:
	if
	:: atomic { DONE -> goto end }
	:: atomic {
#ifdef BREAK_POLL_NO_LOCK
		FREE && !DONE
#else
		row_lock == NONE && FREE && !DONE -> row_lock = me
#endif
	   }
	fi;
	/* Under the lock, and not to be seen before the commit. */
	upto = (checkpoint + BATCH > EVENTS -> EVENTS : checkpoint + BATCH);
	if
	:: atomic {
#ifdef BREAK_TOKEN
		token = (token == 0 -> 1 : token);
#else
		token++;
#endif
		assert(token < 12);
		mine = token;
		reached = upto;
		in_flight = true;
		expired = false;
		last_owner = me;
		alive[me] = true;
		if
		:: row_lock == me -> row_lock = NONE
		:: else
		fi
	   }
	:: die() -> goto poll
	fi;

	/* Events are handled; each alone, or all at once, is acknowledged. */
	if
	:: die() -> goto poll
	:: skip
	:: atomic { upto == checkpoint + BATCH -> upto = upto - 1 }
	fi;

ack:
#ifdef BREAK_ACK_NO_LOCK
	skip;
#else
	atomic { row_lock == NONE -> row_lock = me };
#endif
	if
#ifdef BREAK_NO_TOKEN
	:: in_flight
#else
	:: in_flight && token == mine
#endif
	:: else ->
		/* ES006, or the call is repeated: its events belong to another. */
		atomic {
			if
			:: row_lock == me -> row_lock = NONE
			:: else
			fi;
			mine = 0; upto = 0;
			goto poll
		}
	fi;
	if
	:: die() -> goto poll
	:: atomic {
		take_effect(me, upto, mine);
		if
		:: row_lock == me -> row_lock = NONE
		:: else
		fi
	   }
	   if
	   :: atomic { in_flight && token == mine && upto < reached -> upto = reached; goto ack }
	   :: atomic { else -> mine = 0; upto = 0; goto poll }
	   /* It has not heard of the commit, and repeats the call. */
	   :: atomic { delays > 0 && acked_token == mine -> goto ack }
	   fi
	/* It is prepared; it holds its locks until it ends. */
	:: atomic {
		!waits -> waits = true;
		p_upto = upto;
		p_token = mine;
		p_owner = me;
#ifdef BREAK_PREPARED_LOCK
		row_lock = NONE;
#else
		row_lock = PREPARED;
#endif
		alive[me] = false;
		mine = 0;
		upto = 0;
		goto poll
	   }
	fi;
end:
	skip
}

/* Ends what is prepared, whenever it likes. */
proctype Manager()
{
	byte e;

end:
	do
	:: atomic {
		waits ->
		if
		:: take_effect(p_owner, p_upto, p_token)
		:: crashes > 0 -> crashes--
		fi;
		waits = false;
		p_upto = 0; p_token = 0; p_owner = 0;
		if
		:: row_lock == PREPARED -> row_lock = NONE
		:: else
		fi
	   }
	od
}

/* A lease expires if its consumer is dead, and sometimes if it is not. */
proctype Clock()
{
end:
	do
	:: atomic { in_flight && !expired && !alive[last_owner] -> expired = true }
	:: atomic { in_flight && !expired && delays > 0 -> delays--; expired = true }
	od
}

init
{
	atomic {
		run Consumer(0);
		run Consumer(1);
		run Manager();
		run Clock()
	}
}
