/*
 * Waiting for the whole log outside of its lock queue (src/base/table_lock.c), and
 * deadlocks.
 *
 * Two importers have appended, one of them perhaps to the stream, and want the log for
 * themselves.  An appender takes the stream before or after its first append.  An idle
 * one has appended, and stays for a while, or for as long as nothing tells it from a
 * deadlock: until nothing else moves and there is no circle.
 *
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: who has the log is alone with it; an append does not wait for an importer that
 * waits for the idle one; if nobody can move, either there is no circle, and the idle
 * one is the one that all wait for, or a search finds the circle: the first one if one
 * importer waits, else before each of them has searched as often as there are holders.
 * What a search finds is a circle.  Progress: all come to their end, else the run would
 * stop in an invalid end state.
 */

#define IMPORTERS	2
#define APPENDER	2
#define IDLE		3
#define ALL			4
#define NOBODY		ALL

bit appended[ALL];				/* has RowExclusiveLock on the log */
byte log_owner = NOBODY;		/* has ShareRowExclusiveLock */
byte stream_owner = NOBODY;
bit queued[ALL];				/* stands in the queue for the log */
byte awaits[ALL];				/* outside of it: the end of this transaction */
bit wants_log[ALL];				/* to append */
bit wants_stream[ALL];
byte transaction[ALL];			/* a number, to tell that one has ended */
byte turn;						/* the importer that searches next, if both can */
byte fruitless;					/* searches that found no circle though there is one */
bit told;						/* the idle one has been told from a deadlock */

#define is_held_against(p, q) \
	((q) != (p) && (appended[q] || log_owner == (q)))
#define is_free_for(p) \
	(!is_held_against(p, 0) && !is_held_against(p, 1) && \
	 !is_held_against(p, 2) && !is_held_against(p, 3))

/* What p waits for: as a search sees it, or truly. */
#define wants_whole(p)	((p) < IMPORTERS && (queued[p] || awaits[p] != NOBODY))
#define sees(p, q, who) \
	(q != p && \
	 ((wants_stream[p] && stream_owner == q) || \
	  (wants_log[p] && (log_owner == q || (queued[q] && q < IMPORTERS))) || \
	  (((p) == (who) || queued[p]) && (p) < IMPORTERS && is_held_against(p, q)) || \
	  awaits[p] == q))
#define truly(p, q) \
	(q != p && \
	 ((wants_stream[p] && stream_owner == q) || \
	  (wants_log[p] && log_owner == q) || \
	  (wants_whole(p) && is_held_against(p, q))))

/* Sets found if me waits for itself by way of others; really: by what is so. */
inline find_circle(who, really)
{
	reached = 0; found = false; rounds = 0;
	do
	:: rounds < ALL ->
		p = 0;
		do
		:: p < ALL ->
			if
			:: p == who || (reached & (1 << p)) ->
				q = 0;
				do
				:: q < ALL ->
					if
					:: (really && truly(p, q)) || (!really && sees(p, q, who)) ->
						reached = reached | (1 << q)
					:: else
					fi;
					q++
				:: else -> break
				od
			:: else
			fi;
			p++
		:: else -> break
		od;
		rounds++
	:: else -> break
	od;
	found = (reached & (1 << who)) != 0;
	p = 0; q = 0; reached = 0; rounds = 0
}

inline end_transaction()
{
	atomic {
		appended[me] = 0;
		if
		:: log_owner == me -> log_owner = NOBODY
		:: else
		fi;
		if
		:: stream_owner == me -> stream_owner = NOBODY
		:: else
		fi;
		queued[me] = 0; awaits[me] = NOBODY;
		wants_log[me] = 0; wants_stream[me] = 0;
		transaction[me]++
	}
}

inline take_stream()
{
	wants_stream[me] = 1;
	atomic {
		stream_owner == NOBODY || stream_owner == me ->
		stream_owner = me; wants_stream[me] = 0
	}
}

/* An append: it waits for the owner of the log, and for those in the queue. */
inline append()
{
	wants_log[me] = 1;
	atomic {
		appended[me] || log_owner == me ||
		(log_owner == NOBODY && !queued[0] && !queued[1]) ->
		appended[me] = 1; wants_log[me] = 0
	}
}

/* When nothing moves: the search in the queue, of the importer whose turn it is. */
inline search()
{
	atomic {
		timeout && (turn == me || awaits[1 - me] == NOBODY) ->
		turn = 1 - me;
#ifndef BREAK_NO_SEARCH
#ifdef BREAK_SEARCH_OUTSIDE
		find_circle(NOBODY, false);
		p = awaits[me];
		if
		:: wants_stream[p] && stream_owner == me -> found = true
		:: p < IMPORTERS && awaits[p] == me -> found = true
		:: else -> found = false
		fi;
		p = 0;
#else
		find_circle(me, false);
#endif
#else
		found = false;
#endif
		if
		:: found ->
			find_circle(me, true);
			assert(found);
			fruitless = 0;
			goto victim
		:: else ->
			find_circle(me, true);
			if
			:: found ->
				assert(awaits[1 - me] != NOBODY);
				fruitless++;
				assert(fruitless < IMPORTERS * ALL)
			:: else ->
				find_circle(1 - me, true);
				if
				:: found -> fruitless++; assert(fruitless < IMPORTERS * ALL)
				:: else ->
					assert(!wants_log[APPENDER] || log_owner != NOBODY);
					told = true
				fi
			fi;
			found = false;
#ifndef BREAK_SAME_ORDER
			first++
#endif
		fi
	}
}

proctype Importer(byte me)
{
	byte listed, i, at, p, q, rounds, reached;
	byte first = IDLE;
	byte numbers[ALL];
	bit found;

	if
	:: take_stream()
	:: skip
	fi;
	append();
again:
	atomic {
		if
		:: is_free_for(me) && !queued[1 - me] -> log_owner = me; goto alone
		:: else
		fi;
		listed = 0; i = 0;
		do
		:: i < ALL ->
			if
			:: is_held_against(me, i) -> listed = listed | (1 << i)
			:: else
			fi;
			numbers[i] = transaction[i];
			i++
		:: else -> break
		od;
		i = 0
	}
	do
	:: i < ALL ->
		at = (first + i) % ALL;
		if
		:: listed & (1 << at) ->
#ifdef BREAK_IN_QUEUE
			queued[me] = 1;
#endif
			awaits[me] = at;
			if
			:: transaction[at] != numbers[at] -> awaits[me] = NOBODY
			:: search() -> awaits[me] = NOBODY; goto again
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	atomic { first = first % ALL; i = 0; at = 0; listed = 0 }
#ifdef BREAK_ALONE
	log_owner = me; goto alone;
#endif
	queued[me] = 1;
	if
	:: atomic { is_free_for(me) -> queued[me] = 0; log_owner = me }
	:: atomic { queued[me] = 0; goto again }
	fi;
alone:
	assert(log_owner == me && is_free_for(me));
victim:
	end_transaction()
}

proctype Appender(byte me)
{
	if
	:: take_stream(); append()
	:: append(); take_stream()
	:: append()
	fi;
	end_transaction()
}

proctype Idle(byte me; bit stays)
{
	!stays || told || (transaction[0] && transaction[1] && transaction[APPENDER]);
	end_transaction()
}

init
{
	atomic {
		awaits[0] = NOBODY; awaits[1] = NOBODY; awaits[2] = NOBODY; awaits[3] = NOBODY;
		appended[IDLE] = 1;
		run Importer(0);
		run Importer(1);
		run Appender(APPENDER);
		if
		:: run Idle(IDLE, 0)
		:: run Idle(IDLE, 1)
		fi
	}
}
