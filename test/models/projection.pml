/*
 * Runners of one projection: each claims its row by FOR UPDATE SKIP LOCKED,
 * reads the checkpoint under the lock, and commits what the batch has done with
 * the new checkpoint (src/projection/projection_batch.c).  A runner may die at any moment.
 *
 * The handler fails at one event until somebody mends what is broken.  A batch that fails
 * is made smaller until the event is alone; then the projection waits at it, or parks it
 * and each later event of its stream (projection_failure.c).  Runners retry the first
 * parked event of a stream, under the same lock (projection_retry.c).  When something is
 * due is not modelled: a runner may try at any moment.
 *
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: every event takes effect once, those of a stream in order, and all of them in
 * order if none may be parked; the checkpoint never goes back.  Progress: however many
 * runners have died, every event takes effect when what was broken is mended, else the
 * run would stop in an invalid end state.
 */

#define RUNNERS	2
#define EVENTS	4
#define NOBODY	RUNNERS
#define BAD		1

/* Odd events are of one stream, even ones of the other.  Is that of the event parked? */
#define WAITS(event)	(parked[2 - (event) % 2] || parked[4 - (event) % 2])

/* Is it taken out of a batch, to wait behind those? */
#ifdef BREAK_PASS_PARKED
#define TAKEN_OUT(event)	false
#else
#define TAKEN_OUT(event)	WAITS(event)
#endif

/* The first parked event of all; 0: none. */
#define FIRST_PARKED	(parked[1] -> 1 : (parked[2] -> 2 : (parked[3] -> 3 : (parked[4] -> 4 : 0))))

#define ALL_DONE	(checkpoint == EVENTS && FIRST_PARKED == 0)

byte checkpoint;
byte row_lock = NOBODY;
bool done[EVENTS + 1];			/* the event has taken effect */
bool parked[EVENTS + 1];		/* it is in es_failures */
byte batch_limit = EVENTS;
bool broken = true;
bool park;						/* on_failure */
byte crashes = 2;

/* Takes effect at the commit. */
inline take_effect(event)
{
	assert(!done[event]);
	assert(event <= 2 || done[event - 2]);
	assert(park || event == 1 || done[event - 1]);
	done[event] = true
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
		from = 0; upto = 0; retried = 0
	}
}

/* Finds the event of the batch at which the handler fails; 0: none. */
inline find_bad()
{
	bad = 0;
	if
	:: broken && from < BAD && BAD <= upto && !TAKEN_OUT(BAD) -> bad = BAD
	:: else
	fi
}

/* Lets all events of the batch take effect, but for those that wait behind parked ones. */
inline apply_batch()
{
	event = from + 1;
	do
	:: event > upto -> break
	:: event <= upto ->
		if
		:: TAKEN_OUT(event) -> parked[event] = true
		:: else -> take_effect(event)
		fi;
		event++
	od;
	event = 0
}

/* Notes a batch that has failed. */
inline note_failure()
{
	if
	:: bad > from + 1 -> batch_limit = bad - from - 1
	:: bad == from + 1 && park ->
		parked[bad] = true;
		assert(bad > checkpoint);
		checkpoint = bad;
		batch_limit = EVENTS
	:: bad == from + 1 && !park -> batch_limit = 1
	fi
}

proctype Runner(byte me)
{
	byte from, upto, retried, event, bad;

claim:
#ifdef BREAK_READ_FIRST
	from = checkpoint;
#endif
	if
	:: atomic { ALL_DONE -> from = 0; goto end }
#ifdef BREAK_NO_LOCK
	:: atomic { checkpoint < EVENTS }
#else
	:: atomic { row_lock == NOBODY && checkpoint < EVENTS -> row_lock = me }
#endif
#ifdef BREAK_RETRY_NO_LOCK
	:: atomic { FIRST_PARKED > 0 -> goto retry }
#else
	:: atomic { row_lock == NOBODY && FIRST_PARKED > 0 -> row_lock = me; goto retry }
#endif
	fi;
#ifndef BREAK_READ_FIRST
	from = checkpoint;
#endif
	if
	:: die() -> goto claim
	:: upto = from + 1
	:: from + 2 <= EVENTS && batch_limit >= 2 -> upto = from + 2
	fi;
	if
	:: die() -> goto claim
	:: atomic {
		find_bad();
		if
		:: bad > 0 ->
			note_failure();
			unlock();
			from = 0; upto = 0; bad = 0;
			goto claim
		:: else
		fi;
		apply_batch();
#ifdef BREAK_APART
	   };
	   if
	   :: die() -> goto claim
	   :: skip
	   fi;
	   atomic {
#endif
		assert(upto > checkpoint);
		checkpoint = upto;
		batch_limit = EVENTS;
		unlock();
		from = 0; upto = 0;
		goto claim
	   }
	fi;

retry:
#ifdef BREAK_RETRY_LATER
	retried = (parked[3] -> 3 : FIRST_PARKED);
#else
	retried = FIRST_PARKED;
#endif
	if
	:: die() -> goto claim
	:: skip
	fi;
#ifdef BREAK_RETRY_APART
	parked[retried] = false;
	if
	:: die() -> goto claim
	:: skip
	fi;
#endif
	atomic {
		if
		:: retried == 0
		:: retried == BAD && broken -> parked[retried] = true
		:: else ->
			take_effect(retried);
			parked[retried] = false
		fi;
		unlock();
		retried = 0;
		goto claim
	};
end:
	assert(ALL_DONE)
}

/* Somebody mends the handler. */
proctype Mender()
{
	broken = false
}

init
{
	atomic {
		if
		:: park = true
		:: park = false
		fi;
		run Runner(0);
		run Runner(1);
		run Mender()
	}
}
