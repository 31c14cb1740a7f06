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
 *	-DREMOVE	a transaction removes events, its own among them perhaps; another one has an
 *				old id, and may append late
 *	-DREMOVE=2	both remove events, one at REPEATABLE READ, and reads then
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: of what a reader has passed (positions up to the horizon that it got)
 * it has seen everything that will ever be seen.  Checked when it passes them, and
 * at each later commit.
 *
 * With REMOVE also: the horizon of a snapshot is not below what an earlier one has read.
 *
 * Progress: if no appender is at work when the reader takes its snapshot, the
 * horizon is the last event, however long the unrelated transaction has been
 * open, unless it commits just then.  On a standby: if the row is of a moment
 * when all appenders had ended.
 */

#ifdef REMOVE
#define T			4			/* transactions: 0 and 1 append, 3 removes */
#define P			5			/* positions 1 to 4 */
#define IDLE		2			/* has an old id, or removes as well */
#else
#define T			3			/* transactions: 0 and 1 append, 2 does not */
#define P			4			/* positions 1 to 3 */
#endif
#define UNRELATED	2
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

#ifdef REMOVE
byte removed_by[P] = NOBODY;	/* the row, by a transaction */
byte floor[T];					/* that its removal leaves to the horizon */
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

#ifdef REMOVE
/* In fewer steps, as the other variants look at each of them. */
inline begin(t)
{
	d_step { lock[t] = true; take_xid(t) }
}

inline append(t)
{
	d_step { take_position(t); event_next_xid[p] = next_xid; p = 0 }
}

inline complete(t)
{
	atomic {
		if
		:: committed[t] = true; check_commit(t)
		:: true
		fi;
		leave_running(t);
		lock[t] = false;
		ended[t] = true
	}
}

proctype Appender(byte t; byte appends)
{
	byte p, i;

	/* they are alike */
	(t == 0 || xid[0] != 0);
	begin(t);
	take_position(t);
	d_step { event_next_xid[p] = next_xid; p = 0 };
	complete(t)
}
#else
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
#endif

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
#ifdef REMOVE
	s_running = s_running | ((running[3] && xid[3] < s_xmax) << 3);
	s_quiet = s_quiet && !AT_WORK(2) && !AT_WORK(3);
#endif
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
	atomic {
		locks = lock[0] | (lock[1] << 1);
#ifdef REMOVE
		locks = locks | (lock[2] << 2) | (lock[3] << 3)
#endif
	};
	look_up(0);
	look_up(1);
#ifdef REMOVE
	look_up(2);
	look_up(3)
#endif
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
	ask(2);
#ifdef REMOVE
	ask(3)
#endif
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
	lower_limit(2);
#ifdef REMOVE
	lower_limit(3)
#endif
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
#elif defined(REMOVE)
/* Whoever reads in a transaction sees what that has done. */
#define SEES_OWN(t)	((t) == me || SEES(t))

/* The row is there. */
#define IS_ROW(p)	(SEES_OWN(owner[p]) && (removed_by[p] == NOBODY || !SEES_OWN(removed_by[p])))

/* The removal is seen: so is what was committed when it found the floor. */
#if defined(BREAK_REMOVE_NO_FLOOR)
#define IS_FLOOR(t)	false
#elif defined(BREAK_REMOVE_LATER_FLOOR)
#define IS_FLOOR(t)	committed[t]
#elif defined(BREAK_REMOVE_EARLY_FLOOR)
#define IS_FLOOR(t)	true
#elif defined(BREAK_REMOVE_OWN_FLOOR)
#define IS_FLOOR(t)	SEES_OWN(t)
#else
#define IS_FLOOR(t)	SEES(t)
#endif

/* Of several floors the greatest. */
#ifdef BREAK_REMOVE_LAST_FLOOR
#define IS_FLOOR_ABOVE(t, f)	(floor[t] != 0)
#else
#define IS_FLOOR_ABOVE(t, f)	(floor[t] > f)
#endif

inline find_floor()
{
	f = 0;
	if
	:: IS_FLOOR(IDLE) && IS_FLOOR_ABOVE(IDLE, f) -> f = floor[IDLE]
	:: else
	fi;
	if
	:: IS_FLOOR(3) && IS_FLOOR_ABOVE(3, f) -> f = floor[3]
	:: else
	fi
}

/* No gap: a row, or what is stable. */
#ifdef BREAK_REMOVE_GAP
#define IS_FILLED(p)	IS_ROW(p)
#else
#define IS_FILLED(p)	(IS_ROW(p) || (p) <= f)
#endif

inline search_above_floor()
{
	find_floor();
	search(IS_FILLED(p));
	if
	:: f > h -> h = f
	:: else
	fi
}

inline find_own_horizon()
{
	find_oldest_in_doubt();
	holders = holders & ~BIT(me);
	open = open | BIT(me);
	find_limit();
	search_above_floor();
	check_seen(h, SEES_OWN(owner[p]))
}

/* Any of the rows that it sees and that nobody else removes. */
inline remove_rows()
{
	p = 1;
	do
	:: p == next_position -> break
	:: p < next_position -> p++
	:: p < next_position && IS_ROW(p) && removed_by[p] == NOBODY ->
		removed_by[p] = me;
		last = p;
		p++
	od;
	p = 0
}

#define AWAITED(t)	((holders & BIT(t)) && !ended[t])

/* Waits for the others that may own a position by now. */
inline await_appenders()
{
	d_step {
		list_holders();
		holders = holders & ~BIT(me)
	};
	d_step {
		!AWAITED(0) && !AWAITED(1) && !AWAITED(2) && !AWAITED(3);
		holders = 0
	}
}

inline forget_own()
{
	s_xmax = 0; s_next = 0; s_running = 0; s_quiet = 0; s_all_ended = 0;
	locks = 0; holders = 0; open = 0; w = 0; h = 0; p = 0; upper = 0; stop = 0; f = 0
}

/*
 * The one with the old id may append as late as it likes, or removes.
 */
proctype Remover(byte me)
{
	byte s_xmax, s_next, s_running;
	bool s_quiet, s_all_ended, stop;
	byte locks, holders, open, w, h, p, upper, f, i;
	byte last, o_xmax, o_running;

	if
	:: me == IDLE && REMOVE == 2
	:: me == IDLE && REMOVE != 2 -> append(me); goto finished
	:: me == IDLE && REMOVE != 2 -> goto finished
	:: me == 3 -> begin(me); append(me)
	:: me == 3 && REMOVE != 2 -> lock[me] = true
	:: me == 3 && REMOVE == 2 ->
		d_step {
			take_snapshot();
			o_xmax = s_xmax;
			o_running = s_running;
			lock[me] = true;
			forget_own()
		}
	fi;
#ifdef BREAK_REMOVE_WAIT_FIRST
	await_appenders();
#endif
	atomic {
		d_step { take_snapshot(); s_quiet = 0; s_all_ended = 0 };
#ifdef BREAK_REMOVE_LATE_FLOOR
		remove_rows();
#endif
		d_step { find_own_horizon(); floor[me] = h };
#ifndef BREAK_REMOVE_LATE_FLOOR
		remove_rows();
#endif
		forget_own()
	};
#ifndef BREAK_REMOVE_LATE_FLOOR
	if
	:: floor[me] < last ->
#if !defined(BREAK_REMOVE_NO_WAIT) && !defined(BREAK_REMOVE_WAIT_FIRST)
		await_appenders();
#endif
#if !defined(BREAK_REMOVE_FLOOR_BELOW)
		floor[me] = last
#endif
	:: else
	fi;
#endif
	last = 0;
	if
	:: xid[me] == 0 -> take_xid(me)
	:: else
	fi;
	if
	:: o_xmax != 0 ->
		d_step {
			s_xmax = o_xmax;
			s_running = o_running;
			find_own_horizon();
			forget_own();
			o_xmax = 0;
			o_running = 0
		}
	:: else
	fi;
finished:
	complete(me)
}

proctype Reader()
{
	byte s_xmax, s_next, s_running;
	bool s_quiet, s_all_ended, stop;
	byte locks, holders, open, w, h, p, upper, f;
	byte me = NOBODY;

end:
	do
	:: d_step { take_snapshot(); s_all_ended = 0 };
		d_step {
			find_oldest_in_doubt();
			find_limit();
			search_above_floor();
			assert(h >= passed);
			pass(h, passed, SEES(owner[p]));
			find_last(IS_ROW(p));
			assert(!s_quiet || h >= p);
			f = 0;
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
#ifdef REMOVE
		begin(IDLE);
		run Remover(2);
		run Remover(3);
#else
		run Unrelated();
#endif
#ifdef STANDBY
		run Worker();
		run Replay();
		run StandbyReader();
#else
		run Reader();
#endif
	}
}
