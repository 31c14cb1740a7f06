/*
 * Appends with tags, appends with a condition, commands that are decided on the events of
 * a query, and the reads before them.  Each takes its steps while the others go on.
 *
 *	-DUNTAGGED	conditions with an item that has no tags, and a REINDEX CONCURRENTLY
 *	-DSEVERAL	the last transaction writes a second time, after a rollback to a savepoint
 *				perhaps, and perhaps with the whole log locked
 *	-DDECIDE	the first two decide
 *	-DREMOVE	the last transaction removes the event of the second one, and appends a notice
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * An event has tags and a type.  An item of a query asks for some of them, and a query has
 * one item or two.  A write
 *
 *	1. locks the tags of its event exclusively, and one tag of each item of its condition
 *	   shared, in one order for everybody; one that would need too many locks takes the
 *	   whole log instead;
 *	2. takes RowExclusiveLock on the log;
 *	3. takes a snapshot, and fails if it sees an event that matches above the position
 *	   that was read last ("after");
 *	4. takes a transaction id, and draws its position.
 *
 * If an item has no tags, it takes a mutex between 1 and 2, and 4 comes before 3.  Between
 * them it waits for the transactions that hold the lock on the log and have an id, until
 * they end or release it.  The check then goes up to its own position.
 *
 * A reader takes the shared locks, takes a snapshot, and releases them.  If an item has no
 * tags, it reads up to the horizon, which is one step here (horizon.pml has the steps).
 *
 * A removal looks up the tags of the stream's event, locks the stream and these tags as an
 * append does, takes RowExclusiveLock on the log, and looks at the event.  Tags that it did
 * not know of are locked late.  The notice that it appends has all tags and types of the event.
 *
 * Safety: a conditional write that is committed has read all events that match its query
 * and lie below its first position, as the log has them in the end.  So none lies between
 * "after" and the write, and none has appeared below "after", where the check does not
 * look.  An event that was removed, with a notice below the write, counts as read if the notice
 * was.  No write waits for one that waits for the log.  Progress: all come to their end,
 * else the run would stop in an invalid end state.  So there is no deadlock of transactions
 * that write once.  With SEVERAL, a search ends deadlocks, and the transaction that writes
 * twice must be waiting then.
 *
 * Left out: retries, expected versions, streams (they are locked as tags are, and before
 * them), two tags with one hash, the moments for which an import stands in the queue
 * (lock.pml).
 */

#define T			3			/* transactions */
#define REINDEX		3			/* no transaction with an id */
#define ALL			4
#define NOBODY		7
#define P			8			/* positions 1 to 7 */
#define TAGS		2

/* What an event has, and an item asks for. */
#define A			1			/* the tags are bits, too: 0 and 1 */
#define B			2
#define TYPE		4
#define NONE		8			/* of an item: there is none */

#define BIT(n)		(1 << (n))
#define HAS_TAGS(item)		(((item) & (A | B)) != 0)
#define IS_UNTAGGED(item)	((item) != NONE && !HAS_TAGS(item))
#define MATCHES(item, event)	(((item) & (event)) == (item))
#define QUERY_MATCHES(t, event)	(MATCHES(item1[t], event) || MATCHES(item2[t], event))
#define IS_CONDITION(t)	(item1[t] != NONE)
#define WAITS_FOR_ALL(t)	(IS_UNTAGGED(item1[t]) || IS_UNTAGGED(item2[t]))

/* One tag of the item. */
#define LOWEST(item)	((item) == NONE -> 0 : ((item) & A -> A : (item) & B))
#define HIGHEST(item)	((item) == NONE -> 0 : ((item) & B -> B : (item) & A))

byte next_position = 1;
byte owner[P] = NOBODY;			/* of the event, by position; NOBODY: a gap */
byte event[P];

/* Locks. */
byte tag_owner[TAGS] = NOBODY;
byte tag_sharers[TAGS];
byte mutex = NOBODY;
byte whole = NOBODY;			/* ShareRowExclusiveLock on the log */
byte queued = NOBODY;			/* a request for it in the queue */
bit log_lock[ALL];				/* RowExclusiveLock; ShareUpdateExclusiveLock of a REINDEX */

/* Transactions: what others can find out about them. */
bit at_backend[ALL];			/* its id, by the backend */
bit prepared[ALL];				/* its id, by the prepared ones */
bit committed[ALL];				/* visible to snapshots from now on */
bit over[ALL];					/* nobody waits for it any more */
byte ended;
bit earlier;					/* the one that writes twice has written */

#ifdef REMOVE
#define REMOVER		2
byte gone;						/* the position of the event that it removes */
byte notice;					/* that of the notice */
#define IS_REMOVED(q)	((q) == gone && (snapshot & BIT(REMOVER)))
#else
#define IS_REMOVED(q)	false
#endif

/* The condition of a transaction. */
byte item1[T] = NONE;
byte item2[T] = NONE;
byte seen[T];					/* the positions that it has read: bits */
byte after[T];					/* the last one of them */
byte first[T];					/* its own first position */

/* A search for deadlocks, where there may be some. */
#ifdef SEVERAL
#define OR_VICTIM	:: atomic { timeout -> assert(earlier && !over[T - 1]); goto abort }
#else
#define OR_VICTIM
#endif

/*
 * Locks
 */

inline lock_tag(n)
{
	if
	:: exclusive & BIT(n) ->
		if
		:: atomic {
			(tag_owner[n] == NOBODY || tag_owner[n] == me) && !(tag_sharers[n] & ~BIT(me)) ->
			tag_owner[n] = me
		   }
		OR_VICTIM
		fi
	:: !(exclusive & BIT(n)) && (shared & BIT(n)) ->
		if
		:: atomic {
			tag_owner[n] == NOBODY || tag_owner[n] == me ->
			tag_sharers[n] = tag_sharers[n] | BIT(me)
		   }
		OR_VICTIM
		fi
	:: else
	fi
}

/* In one order for everybody. */
inline lock_tags()
{
	lock_tag(0);
	lock_tag(1);
	atomic { exclusive = 0; shared = 0 }
}

inline unlock_tag(n)
{
	tag_owner[n] = (tag_owner[n] == me -> NOBODY : tag_owner[n]);
	tag_sharers[n] = tag_sharers[n] & ~BIT(me)
}

/* One step: the next owner of any of them sees all that was committed before. */
inline unlock_all()
{
	atomic {
		unlock_tag(0);
		unlock_tag(1);
		mutex = (mutex == me -> NOBODY : mutex);
		whole = (whole == me -> NOBODY : whole);
		queued = (queued == me -> NOBODY : queued);
		log_lock[me] = 0
	}
}

inline lock_log()
{
	assert(queued == NOBODY);
	if
	:: atomic {
		whole == me || log_lock[me] || (whole == NOBODY && queued == NOBODY) ->
		log_lock[me] = 1
	   }
	OR_VICTIM
	fi
}

#define IS_FREE_FOR(t) \
	(whole == NOBODY && (t == 0 || !log_lock[0]) && (t == 1 || !log_lock[1]) && \
	 (t == 2 || !log_lock[2]) && !log_lock[REINDEX])

inline lock_whole()
{
	if
	:: atomic { IS_FREE_FOR(me) -> whole = me }
	OR_VICTIM
	fi
}

inline lock_mutex()
{
#ifndef BREAK_WAIT_NO_MUTEX
	if
	:: atomic { mutex == NOBODY || mutex == me -> mutex = me }
	OR_VICTIM
	fi
#else
	skip
#endif
}

/* Looks up the id of a transaction in the list. */
inline look_up(t)
{
	if
	:: listed & BIT(t) ->
#ifdef BREAK_WAIT_PREPARED_FIRST
		atomic { awaited = awaited | (prepared[t] << t) };
		atomic { awaited = awaited | (at_backend[t] << t) }
#else
		atomic { awaited = awaited | (at_backend[t] << t) };
#ifndef BREAK_WAIT_NO_PREPARED
		atomic { awaited = awaited | (prepared[t] << t) }
#endif
#endif
	:: else
	fi
}

/*
 * A transaction that has released the lock has rolled back what it had drawn under it.  It
 * may wait for a tag by now.
 */
#ifdef BREAK_DECIDE_WAIT_TO_END
#define IS_GONE(t)	over[t]
#else
#define IS_GONE(t)	(over[t] || !log_lock[t])
#endif

inline wait_for(t)
{
	if
	:: awaited & BIT(t) ->
		if
		:: IS_GONE(t)
		OR_VICTIM
		fi
	:: else
	fi
}

/*
 * Waits for the transactions that may own a lower position.  One without an id has none
 * yet, and will draw above.
 */
inline wait_for_appenders()
{
#if defined(BREAK_WAIT_IN_QUEUE)
	queued = me;
	(IS_FREE_FOR(me) || whole == me);
	queued = NOBODY;
#elif !defined(BREAK_WAIT_NONE)
	atomic {
		listed = log_lock[0] | (log_lock[1] << 1) | (log_lock[2] << 2) | (log_lock[3] << 3);
		listed = listed & ~BIT(me)
	};
#ifdef BREAK_WAIT_FOR_EACH
	awaited = listed;
#else
	look_up(0);
	look_up(1);
	look_up(2);
#endif
	listed = 0;
	wait_for(0);
	wait_for(1);
	wait_for(2);
	wait_for(3);
	awaited = 0;
#else
	skip
#endif
}

/*
 * Snapshots and positions
 */

inline take_snapshot()
{
	snapshot = committed[0] | (committed[1] << 1) | (committed[2] << 2) | BIT(me)
}

#define SEES(q)		(owner[q] != NOBODY && (snapshot & BIT(owner[q])) && !IS_REMOVED(q))

/* An event that may still appear, or is the transaction's own. */
#define IN_FLIGHT(q)	(owner[q] != NOBODY && !over[owner[q]])

/* Reads what matches, up to a position. */
inline read_upto(upto)
{
	q = 1;
	seen[me] = 0;
	after[me] = 0;
	do
	:: q > upto -> break
	:: else ->
		if
		:: SEES(q) && QUERY_MATCHES(me, event[q]) ->
			seen[me] = seen[me] | BIT(q);
			after[me] = q
		:: else
		fi;
		q++
	od;
	q = 0;
	snapshot = 0
}

inline find_horizon()
{
	horizon = 0;
	do
	:: horizon + 1 == next_position || IN_FLIGHT(horizon + 1) -> break
	:: else -> horizon++
	od
}

/* Sets found if something matches that lies above a position, and below another. */
inline check(from, to)
{
	q = from + 1;
	found = false;
	do
	:: q >= to -> break
	:: else ->
		if
		:: SEES(q) && QUERY_MATCHES(me, event[q]) -> found = true
		:: else
		fi;
		q++
	od;
	q = 0;
	snapshot = 0
}

inline take_xid()
{
	at_backend[me] = 1
}

inline draw()
{
	atomic {
		position = next_position;
		next_position++;
		assert(position < P);
		owner[position] = me;
		event[position] = has
	}
}

/* A transaction id, then the position. */
inline append()
{
#ifdef BREAK_WAIT_LATE_XID
	draw();
	take_xid();
#else
	take_xid();
	draw();
#endif
	skip
}

/*
 * The parts of transactions
 */

/* A reader: es_query, in a transaction before. */
inline read()
{
	if
	:: for_all ->
		d_step {
			take_snapshot();
#ifdef BREAK_WAIT_NO_HORIZON
			horizon = next_position - 1;
#else
			find_horizon();
#endif
			read_upto(horizon);
			horizon = 0
		}
	:: else ->
#ifdef BREAK_READ_SNAPSHOT_FIRST
		d_step { take_snapshot() };
#endif
#ifndef BREAK_NO_BARRIER
		shared = HIGHEST(item1[me]);
#ifndef BREAK_READ_ONE_TOO_FEW
		shared = shared | HIGHEST(item2[me]);
#endif
		lock_tags();
#endif
		d_step {
#ifndef BREAK_READ_SNAPSHOT_FIRST
			take_snapshot();
#endif
			read_upto(next_position - 1)
		};
		d_step { unlock_tag(0); unlock_tag(1) }
	fi
}

/* The locks of a write. */
inline lock()
{
#ifndef BREAK_NO_LOCK
	shared = LOWEST(item1[me]);
#ifndef BREAK_ONE_TOO_FEW
	shared = shared | LOWEST(item2[me]);
#endif
#endif
#ifdef BREAK_ONE_TAG
	exclusive = LOWEST(has);
#else
	exclusive = has & (A | B);
#endif
#ifdef BREAK_SEVERAL_KNOWN
	/* it goes by what it has locked, and not by the lock table */
	exclusive = exclusive & ~known;
	known = known | exclusive;
#endif
	lock_tags()
}

/* The mutex, and the lock that every append holds. */
inline open()
{
	if
	:: for_all && !is_large -> lock_mutex()
	:: else
	fi;
	lock_log()
}

/* The check of a condition, above what has been read. */
inline check_condition(to)
{
	d_step {
#if defined(BREAK_WAIT_SNAPSHOT_FIRST)
		if
		:: !for_all -> take_snapshot()
		:: else
		fi;
#elif !defined(BREAK_SNAPSHOT_FIRST)
		take_snapshot();
#endif
		check(after[me], to)
	};
#ifdef BREAK_LATE_LOG
	open();
#endif
	if
	:: found -> goto abort
	:: else
	fi
}

/* es_append, or es_append_if if there is a condition. */
inline write()
{
#ifdef BREAK_SNAPSHOT_FIRST
	d_step { take_snapshot() };
#endif
#ifdef BREAK_DRAW_FIRST
	if
	:: !is_condition && !is_large -> lock_log(); append()
	:: else
	fi;
#endif
	if
	:: is_large -> lock_whole()
	:: else -> lock()
	fi;
#ifndef BREAK_LATE_LOG
	open();
#endif
	if
	:: for_all ->
#ifdef BREAK_WAIT_FIRST
		wait_for_appenders();
		append();
#else
		append();
#ifdef BREAK_WAIT_SNAPSHOT_FIRST
		d_step { take_snapshot() };
#endif
		wait_for_appenders();
#endif
		check_condition(position);
	:: is_condition && !for_all ->
		check_condition(next_position);
		append()
	:: !is_condition ->
#ifdef BREAK_LATE_LOG
		open();
#endif
#ifdef BREAK_DRAW_FIRST
		if
		:: is_large -> append()
		:: else
		fi
#else
		append()
#endif
	fi;
	first[me] = (is_condition -> position : 0)
}

/* Locks a further tag of what was decided, if it is free. */
inline try_tag(n)
{
	if
	:: has & BIT(n) ->
		atomic {
			if
			:: tag_owner[n] == me
			:: tag_owner[n] == NOBODY && !(tag_sharers[n] & ~BIT(me)) -> tag_owner[n] = me
			:: else -> goto taken
			fi
		}
	:: else
	fi
}

/* All tags of all items, exclusively. */
#define TAGS_OF(item)	((item) == NONE -> 0 : (item) & (A | B))

/*
 * es_decide.  Further tags of what was decided are locked if they are free; else the call
 * begins again with them.  With an item that has no tags it folds what is stable, and goes
 * on if something matches that lies between that and its position.
 */
inline decide()
{
	skip;
again:
	exclusive = (has & (A | B)) | TAGS_OF(item1[me]) | TAGS_OF(item2[me]);
	lock_tags();
#ifndef BREAK_DECIDE_LATE_LOG
	open();
#endif
	if
	:: for_all -> take_xid()
	:: else
	fi;
fold:
	if
	:: for_all ->
		upto = next_position - 1;
#ifndef BREAK_DECIDE_NO_WAIT
		wait_for_appenders();
#endif
		d_step { take_snapshot(); read_upto(upto) }
#ifdef BREAK_DECIDE_OLD_STATE
	:: !for_all && has
#endif
	:: else -> d_step { take_snapshot(); read_upto(next_position - 1) }
	fi;
	/* the decider may write to some table; called again, it decides the same */
	if
	:: take_xid()
	:: true
	fi;
	if
	:: has
	:: !has -> has = A
	:: !has -> has = B
	:: !has -> has = B | TYPE
	:: !has -> has = TYPE
	fi;
#ifdef BREAK_DECIDE_WAITS
	exclusive = has & (A | B);
	lock_tags();
#else
	try_tag(0);
	try_tag(1);
#endif
#ifdef BREAK_DECIDE_LATE_LOG
	open();
#endif
	append();
	if
	:: for_all ->
#ifndef BREAK_DECIDE_NO_SECOND_WAIT
		wait_for_appenders();
#endif
		d_step { take_snapshot(); check(upto, position) };
		if
		:: found -> atomic { found = false; owner[position] = NOBODY; goto fold }
		:: else
		fi
	:: else
	fi;
	first[me] = position;
	upto = 0;
	goto finish;
taken:
	atomic {
		unlock_tag(0);
		unlock_tag(1);
		mutex = (mutex == me -> NOBODY : mutex);
#ifndef BREAK_DECIDE_KEEPS_LOG
		log_lock[me] = 0
#endif
	};
	goto again
}

#ifdef REMOVE
/* The event of the second transaction, if it sees that. */
inline find_event()
{
	q = 1;
	do
	:: q == P || (owner[q] == 1 && committed[1]) -> break
	:: else -> q++
	od
}

inline remove()
{
	d_step {
		find_event();
		known = (q < P -> event[q] & (A | B) : 0);
		exclusive = known;
		q = 0
	};
	/* the lock of the stream comes first */
	over[1];
#ifndef BREAK_REMOVE_NO_LOCK
	lock_tags();
#endif
	lock_log();
	atomic {
		find_event();
		if
		:: q == P -> q = 0; goto abort
		:: else
		fi;
		has = event[q];
		exclusive = has & (A | B) & ~known;
	};
#if !defined(BREAK_REMOVE_NO_LOCK) && !defined(BREAK_REMOVE_KNOWN_TAGS)
	lock_tags();
#endif
#ifdef BREAK_REMOVE_NO_TAG
	has = has & TYPE;
#endif
#ifdef BREAK_REMOVE_NO_TYPE
	has = has & ~TYPE;
#endif
	append();
	d_step { notice = position; gone = q; q = 0 }
}
#endif

/* The choice of a query, and of what the event has. */
#define QUERY(one, other)	item1[me] = one; item2[me] = other

inline choose_tagged()
{
	if
	:: QUERY(A, NONE); has = A
	:: QUERY(A, NONE); has = B
	:: QUERY(B, NONE); has = A
	:: QUERY(A, B); has = A
	:: QUERY(A, B); has = 0
	:: QUERY(A | B, NONE); has = A | B
	fi
}

inline choose_untagged()
{
	if
	:: QUERY(TYPE, NONE); has = TYPE
	:: QUERY(TYPE, A); has = A
	:: QUERY(0, NONE); has = 0
	fi
}

inline choose_plain()
{
	if
	:: has = A
	:: has = B
	:: has = A | B
	fi
}

proctype Transaction(byte me)
{
	byte has;					/* the event */
	byte exclusive, shared;		/* tags to be locked */
	byte listed, awaited;		/* transactions */
	byte snapshot, position, q, horizon, upto;
	byte known;					/* tags that it has locked, as it thinks */
	bit found, is_large;
	bit is_condition, for_all;	/* with an item that has no tags */

	/* the choices are made before all begin */
	atomic {
		if
#ifdef DECIDE
		:: me == 0 -> QUERY(A, NONE)
		:: me == 1 -> QUERY(B, NONE)
		:: me <= 1 -> QUERY(TYPE, NONE)
		:: me == 2 -> has = A
		:: me == 2 -> has = TYPE
		:: me == 2 -> QUERY(TYPE, NONE); has = A
		:: me == 2 -> is_large = 1; has = A | TYPE
#elif defined(REMOVE)
		:: me == 0 -> choose_tagged()
		:: me == 0 -> QUERY(TYPE, NONE); has = A
		:: me == 0 -> QUERY(A | TYPE, NONE); has = A
		:: me == 1 -> has = A
		:: me == 1 -> has = A | B
		:: me == 1 -> has = A | TYPE
		:: me == 1 -> QUERY(A, NONE); has = A
		:: me == REMOVER
#elif defined(UNTAGGED)
		:: me == 0 -> choose_untagged()
		:: me == 1 -> QUERY(TYPE, NONE); has = A
		:: me == 1 -> QUERY(A, NONE); has = TYPE
		:: me == 1 -> has = A | TYPE
		:: me == 2 -> has = TYPE
		:: me == 2 -> has = A
		:: me == 2 -> is_large = 1; has = TYPE
		:: me == 2 -> QUERY(TYPE, NONE); has = TYPE; is_large = 1
#elif defined(SEVERAL)
		:: me == 0 -> choose_tagged()
		:: me == 0 -> QUERY(TYPE, NONE); has = A
		:: me == 1 -> has = B
		:: me == 1 -> QUERY(A, NONE); has = B
		:: me == 2 -> has = A
		:: me == 2 -> has = TYPE
#else
		:: me == 0 -> choose_tagged()
		:: me == 1 -> choose_tagged()
		:: me == 1 -> choose_plain()
		:: me == 2 -> choose_plain()
		:: me == 2 -> is_large = 1; has = A
		:: me == 2 -> QUERY(A, NONE); has = A; is_large = 1
#endif
		fi;
		is_condition = IS_CONDITION(me);
		for_all = WAITS_FOR_ALL(me)
	};
#ifdef DECIDE
	if
	:: me <= 1 -> decide()
	:: else
	fi;
#endif
#ifdef REMOVE
	if
	:: me == REMOVER -> remove(); goto finish
	:: else
	fi;
#endif
	if
	:: is_condition -> read()
	:: else
	fi;
	write();
#ifdef SEVERAL
	if
	:: me == T - 1 ->
		earlier = true;
		/* ROLLBACK TO SAVEPOINT */
		if
		:: owner[position] = NOBODY; unlock_all()
		:: true
		fi;
		if
		:: has = B; write()
		:: has = A | B; write()
		:: has = B | TYPE; is_large = 1; write()
		:: true
		fi
	:: else
	fi;
#endif
finish:
	if
	:: me == T - 1 ->
		if
		:: prepared[me] = 1; at_backend[me] = 0
		:: true
		:: goto abort
		fi
	:: else
	fi;
	atomic { at_backend[me] = 0; prepared[me] = 0; over[me] = 1; committed[me] = 1; goto release };
abort:
	atomic {
		at_backend[me] = 0; prepared[me] = 0; over[me] = 1;
#ifdef REMOVE
		gone = (me == REMOVER -> 0 : gone);
#endif
		item1[me] = NONE; item2[me] = NONE; seen[me] = 0; after[me] = 0; first[me] = 0
	};
release:
	atomic {
		has = 0; found = 0; position = 0; upto = 0; snapshot = 0;
		exclusive = 0; shared = 0; listed = 0; awaited = 0;
		known = 0; is_large = 0; is_condition = 0; for_all = 0;
		unlock_all();
		ended++
	}
}

#ifdef UNTAGGED
/* It has no id while it waits for all that hold a lock on the log. */
proctype Reindex()
{
	atomic { whole == NOBODY -> log_lock[REINDEX] = 1 };
	(!log_lock[0] || over[0]);
	(!log_lock[1] || over[1]);
	(!log_lock[2] || over[2]);
	atomic { log_lock[REINDEX] = 0; over[REINDEX] = 1 }
}
#endif

/* Judges one position against what a transaction has read. */
inline judge(t, q)
{
	if
	:: q < first[t] && owner[q] != NOBODY && owner[q] != t && committed[owner[q]] &&
	   QUERY_MATCHES(t, event[q]) ->
#ifdef REMOVE
		if
		:: q == gone && committed[REMOVER] && notice < first[t] ->
			assert(seen[t] & (BIT(q) | BIT(notice)))
		:: else ->
			assert(q <= after[t]);
			assert(seen[t] & BIT(q))
		fi
#else
		assert(q <= after[t]);
		assert(seen[t] & BIT(q))
#endif
	:: else
	fi
}

init
{
	byte t, q;

	atomic {
		run Transaction(0);
		run Transaction(1);
		run Transaction(2)
#ifdef UNTAGGED
		;
		run Reindex()
#endif
	};
	(ended == T);
	d_step {
		do
		:: t == T -> break
		:: else ->
			q = 1;
			do
			:: committed[t] && q < first[t] -> judge(t, q); q++
			:: else -> break
			od;
			t++
		od
	}
}
