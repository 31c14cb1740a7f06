/*
 * The horizon: appenders, an unrelated transaction and a reader that takes the
 * steps of src/log/horizon.c one by one, while the others go on between any two.
 *
 *	spin -a horizon.pml; cc -DSAFETY -o pan pan.c; ./pan
 *
 *	-DSTANDBY	the reader of the primary is its worker, which publishes what it has
 *				found in a row; another reader works on a standby, which replays
 *				the primary's WAL as late as it likes
 *	-DLOADS		the second appender is a load: its rows come with positions of their own,
 *				the higher one first, and raise the sequence
 *	-DKEEP		the reader searches in either direction, keeps what it has found for later
 *				snapshots, uses an older snapshot again (a cursor), and also reads in
 *				the first appender's transaction, which may then be prepared
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: of what a reader has passed (positions up to the horizon that it got)
 * it has seen everything that will ever be seen.  Checked when it passes them, and
 * at each later commit.
 *
 * Progress: if no appender is at work when the reader takes its snapshot, the
 * horizon is the last event, however long the unrelated transaction has been
 * open, unless it commits just then.  On a standby: if the row is of a moment
 * when all appenders had ended.
 */

#define T			3			/* transactions: 0 and 1 append, 2 does not */
#define UNRELATED	2
#define P			4			/* positions 1 to 3 */
#ifndef APPENDS
#define APPENDS		1			/* of the second appender */
#endif
#define NOBODY		T
#define NO_LIMIT	255

#define BIT(t)		(1 << (t))

/* The cluster. */
byte next_xid = 1;
byte last_completed = 0;
byte next_position = 1;

/* A transaction: what others can find out about it. */
byte xid[T];					/* 0: none yet */
bool lock[T];					/* on es_events */
bool running[T];				/* has an id, in the list of running ones */
bool at_backend[T];				/* the backend shows its id */
bool prepared[T];				/* found by its virtual id among these */
bool committed[T];				/* in the log of commits */
bool ended[T];

/* An event, by position. */
byte owner[P];
byte event_next_xid[P];

byte passed = 0;				/* by the reader, the highest ever */

#ifdef KEEP
#define own_position	(owner[1] == 0 -> 1 : (owner[2] == 0 -> 2 : (owner[3] == 0 -> 3 : 0)))
#endif

/*
 * The reader's snapshot: s_xmax, s_running (of those below), the next id after
 * it, and what is to be expected: no appender was at work (s_quiet), all had
 * ended (s_all_ended).
 */
#define SEES(t)		(xid[t] != 0 && xid[t] < s_xmax && \
					 !(s_running & BIT(t)) && committed[t])

/* May be running as seen by the snapshot. */
#define CANDIDATE(t)	((s_running & BIT(t)) || (xid[t] >= s_xmax && xid[t] < s_next))

/* It has ended since: in doubt until the next snapshot. */
#define JUST_ENDED(t)	(CANDIDATE(t) && !running[t])

#define AT_WORK(t)	((lock[t] || xid[t] != 0) && !ended[t])

#ifdef STANDBY
/* What is in the WAL: an id's first record, an end, or the worker's row. */
mtype = { record, commit, abort, row };
chan wal = [8] of { mtype, byte };
byte standby_passed = 0;
#define COMPLETE	128			/* in the row: all appenders had ended */
#define LOG(what, value)	wal!what, value
#else
#define LOG(what, value)	skip
#endif

/* Nothing that was passed may appear. */
inline check_commit(t)
{
	i = 1;
	do
	:: i > passed -> break
	:: else -> assert(owner[i] != t); i++
	od;
	i = 0;
}

inline leave_running(t)
{
	atomic {
		running[t] = false;
		at_backend[t] = false;
		prepared[t] = false;
		if
		:: xid[t] > last_completed -> last_completed = xid[t]
		:: else
		fi
	}
}

inline finish(t)
{
#ifdef BREAK_LOCK
	lock[t] = false;				/* given back before the end */
#endif
	if
	:: atomic { committed[t] = true; LOG(commit, t); check_commit(t) }
	:: LOG(abort, t)
	fi;
	leave_running(t);
	atomic { lock[t] = false; ended[t] = true }
}

/* PREPARE TRANSACTION; another backend ends it. */
inline prepare(t)
{
	prepared[t] = true;
	at_backend[t] = false
}

inline take_xid(t)
{
	atomic {
		xid[t] = next_xid;
		next_xid++;
		running[t] = true;
		at_backend[t] = true;
	}
}

#ifdef BREAK_LOAD_NO_RAISE
byte drawn = 0;					/* from a sequence that knows nothing of other rows */
#else
#define drawn		(next_position - 1)
#endif

inline take_position(t)
{
	atomic {
		p = drawn + 1;
		owner[p] = t;
#ifdef BREAK_LOAD_NO_RAISE
		drawn++;
#endif
		if
		:: p >= next_position -> next_position = p + 1
		:: else
		fi
	}
}

proctype Appender(byte t; byte appends)
{
	byte p;
	byte i;
	byte n;

#ifdef BREAK_LATE_LOCK
	take_xid(t);
	take_position(t);
	lock[t] = true;
	event_next_xid[p] = next_xid;
#else
	lock[t] = true;
#ifdef BREAK_LATE_XID
	take_position(t);
	take_xid(t);
	event_next_xid[p] = next_xid;
#else
	take_xid(t);
#endif
#endif
	do
	:: n < appends ->
#if defined(BREAK_LATE_XID) || defined(BREAK_LATE_LOCK)
		LOG(record, t);
		n++
#elif defined(BREAK_EARLY_NEXT_XID)
		i = next_xid;
		take_position(t);
		atomic { event_next_xid[p] = i; LOG(record, t); i = 0; p = 0; n++ }
#else
		take_position(t);
		atomic { event_next_xid[p] = next_xid; LOG(record, t); p = 0; n++ }
#endif
	:: atomic { n == appends -> n = 0; p = 0; break }
	od;
	if
	:: t == 0 -> prepare(t)
	:: true
	fi;
	finish(t)
}

/*
 * A row comes at the position after the next one.  What the sequence is raised over is
 * the load's.
 */
inline raise_over(t)
{
	atomic {
		p = next_position + 1;
		owner[p] = t;
#ifndef BREAK_LOAD_NO_RAISE
		owner[p - 1] = t;
#endif
		next_position = p + 1
	}
}

/* Two rows of one transaction, of which the first raises. */
proctype Loader(byte t)
{
	byte p;
	byte i;

	lock[t] = true;
	take_xid(t);
#ifdef BREAK_LOAD_LATE_RAISE
	i = next_xid;
	raise_over(t);
	atomic { event_next_xid[p] = i; LOG(record, t); i = 0 }
#else
	raise_over(t);
	atomic { event_next_xid[p] = next_xid; LOG(record, t) }
#endif
#ifdef BREAK_LOAD_NO_RAISE
	p = 0;
#else
	atomic { event_next_xid[p - 1] = next_xid; LOG(record, t); p = 0 }
#endif
	finish(t)
}

/* Holds no lock on es_events, and may stay open for ever. */
proctype Unrelated()
{
	atomic { take_xid(UNRELATED); LOG(record, UNRELATED) };
	/* A process need not take a step. */
	atomic { committed[UNRELATED] = true; LOG(commit, UNRELATED) };
	leave_running(UNRELATED)
}

inline take_snapshot()
{
	s_xmax = last_completed + 1;
	s_running = (running[0] && xid[0] < s_xmax) |
		((running[1] && xid[1] < s_xmax) << 1) |
		((running[2] && xid[2] < s_xmax) << 2);
	s_quiet = !AT_WORK(0) && !AT_WORK(1);
	s_all_ended = ended[0] && ended[1]
}

/* A look at one thing that others change, and nothing else. */
inline note(mask, found, t)
{
	atomic { mask = mask | (found << t) }
}

inline look_up(t)
{
	if
	:: locks & BIT(t) ->
#if defined(BREAK_PREPARED_FIRST)
		note(holders, prepared[t], t);
		note(holders, at_backend[t], t);
#else
		note(holders, at_backend[t], t);
#ifndef BREAK_NO_PREPARED
		note(holders, prepared[t], t);
#endif
#endif
		locks = locks & ~BIT(t)
	:: else
	fi
}

inline list_holders()
{
	atomic { locks = lock[0] | (lock[1] << 1) };
	look_up(0);
	look_up(1)
}

inline ask(t)
{
	if
	:: CANDIDATE(t) ->
		note(open, running[t], t)
	:: else
	fi
}

/*
 * Which candidates are still in progress: "open". The log of commits, asked
 * later, does not change for those that are not.
 */
inline ask_in_progress()
{
	ask(0);
	ask(1);
	ask(2)
}

/* The log of commits; it does not change once a transaction is not running. */
#if defined(BREAK_ALL_RUNNING)
#define MAY_OWN(t)	true
#elif defined(BREAK_ENDED)
#define MAY_OWN(t)	(holders & BIT(t))
#else
#define MAY_OWN(t)	((holders & BIT(t)) || (!(open & BIT(t)) && committed[t]))
#endif

inline lower_limit(t)
{
	if
	:: CANDIDATE(t) && MAY_OWN(t) && xid[t] < w -> w = xid[t]
	:: else
	fi
}

/* Others go on between its steps; on a standby's primary it is one step. */
inline find_oldest_in_doubt()
{
#ifndef BREAK_NEXT_FIRST
	s_next = next_xid;
#endif
#ifdef BREAK_PROGRESS_FIRST
	ask_in_progress();
	list_holders()
#else
	list_holders();
	ask_in_progress()
#endif
}

inline find_limit()
{
	w = NO_LIMIT;
	lower_limit(0);
	lower_limit(1);
	lower_limit(2)
}

/* Walks the events of seen(p) backward: the horizon. */
#ifdef BREAK_GAP
#define IN_DOUBT(p)	false
#else
#define IN_DOUBT(p)	(upper == 0 || p != upper - 1)
#endif

inline search(seen)
{
	h = 0;
	upper = 0;
	stop = false;
	p = next_position - 1;
	do
	:: p == 0 || stop -> break
	:: else ->
		if
		:: seen ->
			if
			:: upper == 0 || IN_DOUBT(p) -> h = p
			:: else
			fi;
			stop = (event_next_xid[p] <= w);
			upper = p
		:: else
		fi;
		p--
	od;
	if
	:: !stop && upper > 1 -> h = 0
	:: else
	fi
}

/* What is there up to h must have been seen. */
inline check_seen(h, seen)
{
	p = 1;
	do
	:: p > h -> break
	:: else ->
		assert(owner[p] != NOBODY);
		assert(seen || !committed[owner[p]]);
		p++
	od
}

/* Passes everything up to h. */
inline pass(h, by, seen)
{
	check_seen(h, seen);
	if
	:: h > by -> by = h
	:: else
	fi
}

/* The last event that is seen. */
inline find_last(seen)
{
	p = next_position - 1;
	do
	:: p == 0 || seen -> break
	:: else -> p--
	od
}

inline forget()
{
	s_xmax = 0; s_next = 0; s_running = 0; s_quiet = 0; s_all_ended = 0;
	locks = 0; holders = 0; open = 0;
	w = 0; h = 0; p = 0; upper = 0; stop = 0
}

inline look()
{
	find_limit();
	search(SEES(owner[p]));
	pass(h, passed, SEES(owner[p]));
	find_last(SEES(owner[p]));
	assert(!s_quiet || JUST_ENDED(UNRELATED) || h == p)
}

#ifdef STANDBY
/*
 * The worker of the primary: its row says what it has found under a snapshot,
 * and is committed later.  The steps of a look are those of the other variant.
 */
proctype Worker()
{
	byte s_xmax, s_next, s_running;
	bool s_quiet, s_all_ended, stop;
	byte locks, holders, open, w, h, p, upper, found;

	atomic {
		take_snapshot();
		find_oldest_in_doubt();
		look();
		found = h | (s_all_ended << 7);
		forget()
	};
	atomic { LOG(row, found); found = 0 }
}
#elif defined(KEEP)
#define COUNT(set)	(((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))

/* The snapshot is that of the kept position, or a later one. */
#if defined(BREAK_KEEP_OLDER)
#define LATER		true
#elif defined(BREAK_KEEP_COUNT)
#define LATER		(s_xmax >= k_xmax)
#else
#define LATER		(s_xmax > k_xmax || (s_xmax == k_xmax && COUNT(s_running) <= k_running))
#endif

/* Everything below such an event is stable. */
#ifdef BREAK_FORWARD_START
#define PROVES(p)	true
#else
#define PROVES(p)	(event_next_xid[p] <= w)
#endif

/*
 * Walks forward from the kept position, or from an event that proves more, to the first
 * gap in doubt: the horizon.
 */
inline search_forward(seen)
{
	h = 0;
	if
	:: LATER -> h = k
	:: else
	fi;
	p = h + 1;
	do
	:: p < next_position && seen && PROVES(p) -> h = p; p++
	:: p < next_position -> p++
	:: break
	od;
	p = h + 1;
	do
	:: p == next_position -> break
	:: else ->
		if
#ifdef BREAK_FORWARD_GAP
		:: seen -> h = p
#else
		:: seen && (p == h + 1 || event_next_xid[p] <= w) -> h = p
		:: seen && p != h + 1 && event_next_xid[p] > w -> break
#endif
		:: else
		fi;
		p++
	od
}

/* Either direction may be the first to decide. */
inline search_both(seen)
{
	find_limit();
	if
	:: search(seen)
	:: search_forward(seen)
	fi
}

inline keep()
{
	if
	:: LATER -> k = h; k_xmax = s_xmax; k_running = COUNT(s_running)
	:: else
	fi
}

#define SEES_OWN(t)	((t) == 0 || SEES(t))

proctype Reader()
{
	byte s_xmax, s_next, s_running;
	bool s_quiet, s_all_ended, stop;
	byte locks, holders, open, w, h, p, upper;
	byte k, k_xmax, k_running;	/* what is kept, and for which snapshot */
	byte o_xmax, o_running;		/* a snapshot of before */

end:
	do
	:: atomic { take_snapshot(); s_all_ended = 0 };
		if
		:: atomic { o_xmax = s_xmax; o_running = s_running }
		:: atomic { o_xmax != 0 -> s_xmax = o_xmax; s_running = o_running; s_quiet = 0 }
		:: true
		fi;
		find_oldest_in_doubt();
		atomic {
			search_both(SEES(owner[p]));
			pass(h, passed, SEES(owner[p]));
			find_last(SEES(owner[p]));
			assert(!s_quiet || JUST_ENDED(UNRELATED) || h == p);
			keep();
			forget()
		}
	:: atomic {
			/* In a statement of the first appender. */
			at_backend[0] && running[0] && event_next_xid[own_position] != 0 ->
			take_snapshot();
			s_quiet = 0; s_all_ended = 0;
			s_running = s_running & ~BIT(0);
			find_oldest_in_doubt();
			holders = holders & ~BIT(0);
			open = open | BIT(0);
			search_both(SEES_OWN(owner[p]));
			check_seen(h, SEES_OWN(owner[p]));
#ifdef BREAK_KEEP_OWN
			keep();
#endif
			forget()
		}
	od
}
#else
proctype Reader()
{
	byte s_xmax, s_next, s_running;
	bool s_quiet, s_all_ended, stop;
	byte locks, holders, open, w, h, p, upper;

end:
	do
	::
#ifdef BREAK_NEXT_FIRST
		s_next = next_xid;
#endif
		atomic { take_snapshot() };
		find_oldest_in_doubt();
		atomic { look(); forget() }
	od
}
#endif

#ifdef STANDBY
/* Of an id it knows what the WAL says; ids in between are running, too. */
byte known = 0;					/* the highest id that it has heard of */
byte replayed_last = 0;			/* the highest that has ended */
byte replayed_ended = 0;		/* transactions */
byte replayed_committed = 0;
byte replayed_row = 0;

inline hear_of(t)
{
	if
	:: xid[t] > known -> known = xid[t]
	:: else
	fi
}

inline replay_end(t)
{
	hear_of(t);
	replayed_ended = replayed_ended | BIT(t);
	if
	:: xid[t] > replayed_last -> replayed_last = xid[t]
	:: else
	fi
}

proctype Replay()
{
	byte t, i;

end:
	do
	:: atomic {
		wal?record, t -> hear_of(t); t = 0
	}
	:: atomic {
		wal?abort, t -> replay_end(t); t = 0
	}
	:: atomic {
		wal?commit, t -> replay_end(t);
		replayed_committed = replayed_committed | BIT(t);
		/* Nothing that was passed here may appear here. */
		i = 1;
		do
		:: i > standby_passed -> break
		:: else -> assert(owner[i] != t); i++
		od;
		i = 0;
		t = 0
	}
	:: atomic {
		wal?row, t -> replayed_row = t; t = 0
	}
	od
}

#define STANDBY_SEES(t)	((r_committed & BIT(t)) != 0)

proctype StandbyReader()
{
	byte t, w, h, p, upper;
	byte r_committed;
	byte r_row;
	bool stop;

end:
	do
	:: atomic {
		/* The smallest id that is running, or the one after the last ended. */
		w = replayed_last + 1;
		t = 0;
		do
		:: t == T -> break
		:: else ->
			if
			:: xid[t] != 0 && xid[t] <= known && !(replayed_ended & BIT(t)) &&
			   xid[t] < w -> w = xid[t]
			:: else
			fi;
			t++
		od;
		t = 0;
#ifdef BREAK_STANDBY_LIMIT
		w = known + 1;
#endif
		r_committed = replayed_committed;
		r_row = replayed_row;
#ifdef BREAK_ROW_IN_PLACE
	   };
	   atomic {
		r_row = replayed_row;
#endif
		search(STANDBY_SEES(owner[p]));
#ifndef BREAK_NO_ROW
		if
		:: (r_row & ~COMPLETE) > h -> h = r_row & ~COMPLETE
		:: else
		fi;
#endif
		/* The worker has looked after the last end, as the WAL shows. */
		find_last(STANDBY_SEES(owner[p]));
		assert(!(r_row & COMPLETE) || h == p);
		pass(h, standby_passed, STANDBY_SEES(owner[p]) || !(replayed_committed & BIT(owner[p])));
		t = 0; w = 0; h = 0; p = 0; upper = 0; stop = 0;
		r_committed = 0; r_row = 0
	   }
	od
}
#endif

init
{
	byte i;

	atomic {
		do
		:: i == P -> break
		:: else -> owner[i] = NOBODY; i++
		od;
		i = 0;
		run Appender(0, 1);
#ifdef LOADS
		run Loader(1);
#else
		run Appender(1, APPENDS);
#endif
		run Unrelated();
#ifdef STANDBY
		run Worker();
		run Replay();
		run StandbyReader();
#else
		run Reader();
#endif
	}
}
