/*
 * Runners of one projection: each claims its row by FOR UPDATE SKIP LOCKED,
 * reads the checkpoint under the lock, and commits what the batch has done with
 * the new checkpoint (src/projection/projection_batch.c).  A runner may die at any moment.
 *
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: every event takes effect once, in order; the checkpoint never goes
 * back.  Progress: however many runners have died, the last event is reached,
 * else the run would stop in an invalid end state.
 */

#define RUNNERS	2
#define EVENTS	3
#define NOBODY	RUNNERS

byte checkpoint;
byte row_lock = NOBODY;
byte done;						/* events that have taken effect: 1 to done */
byte crashes = 3;

/* Takes effect at the commit, event after event. */
inline apply(from, upto)
{
	assert(from == done);
	assert(upto > done);
	done = upto
}

inline unlock()
{
	if
	:: row_lock == me -> row_lock = NOBODY
	:: else
	fi
}

inline die()
{
	atomic {
		crashes > 0 -> crashes--;
#ifndef BREAK_LOCK_STAYS
		unlock();
#endif
		from = 0; upto = 0
	}
}

proctype Runner(byte me)
{
	byte from, upto;

claim:
#ifdef BREAK_READ_FIRST
	from = checkpoint;
#endif
	if
	:: atomic { checkpoint == EVENTS -> from = 0; goto end }
#ifdef BREAK_NO_LOCK
	:: atomic { checkpoint < EVENTS }
#else
	:: atomic { row_lock == NOBODY && checkpoint < EVENTS -> row_lock = me }
#endif
	fi;
#ifndef BREAK_READ_FIRST
	from = checkpoint;
#endif
	if
	:: die() -> goto claim
	:: upto = from + 1
	:: from + 2 <= EVENTS -> upto = from + 2
	fi;
	if
	:: die() -> goto claim
#ifdef BREAK_APART
	:: atomic { apply(from, upto) };
	   if
	   :: die() -> goto claim
	   :: atomic { checkpoint = upto; unlock(); from = 0; upto = 0; goto claim }
	   fi
#else
	:: atomic {
		apply(from, upto);
		assert(upto > checkpoint);
		checkpoint = upto;
		unlock();
		from = 0; upto = 0;
		goto claim
	   }
#endif
	fi;
end:
	assert(checkpoint == EVENTS)
}

init
{
	atomic {
		run Runner(0);
		run Runner(1)
	}
}
