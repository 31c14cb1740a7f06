/*
 * Workers that come with an append and leave when they are idle
 * (src/notify/autostart.c, src/worker/leave.c), where there is no shared memory and one
 * such worker is allowed in the cluster.
 *
 * An appender holds its lock on the log, looks whether a worker promises to notify, and
 * starts one before it commits if none does.  A creator makes something due without a lock
 * on the log, and looks after its commit.  A worker does what is committed, and leaves when
 * there is nothing.
 *
 *	-DBREAK_...	a mistake that must be found; "run" lists them
 *
 * Safety: one worker serves; one process at a time is on its way; who saw a promise leaves
 * to the worker what it appends, and who saw none has notified by itself.  Progress: when
 * all have come to their end, all that was committed is done.
 */

#define APPENDERS	2
#define CREATOR		2
#define ALL			3
#define STARTS		4			/* processes, at most */
#define NOBODY		255

bit has_log[ALL];				/* RowExclusiveLock on the log */
bit committed[ALL];
bit done[ALL];					/* handled by a worker */
bit notified[ALL];
byte promise = NOBODY;			/* the worker that promises to notify */
byte server = NOBODY;			/* the worker that serves the database */
byte slot = NOBODY;				/* the worker that has the only place in the cluster */
bit token;						/* an appender is starting a worker; ends by the clock */
byte started;
byte on_their_way;
byte gone;						/* appenders and creators that have come to their end */

inline start_worker(of_appender)
{
	started++;
	on_their_way = on_their_way + of_appender;
	assert(started <= STARTS && on_their_way <= 1);
	run Worker(started, of_appender)
}

/* Looks, and starts a worker if there is none, room for one, and nobody else at it. */
inline start_if_unserved()
{
	if
	:: server != NOBODY
	:: else ->
		if
		:: slot != NOBODY
		:: else ->
#ifdef BREAK_NO_TOKEN
			atomic { start_worker(1) }
#else
			atomic {
				if
				:: token
				:: else -> token = 1; start_worker(1)
				fi
			}
#endif
		fi
	fi
}

proctype Appender(byte me)
{
	bit leaves;					/* the notification to a worker */

#ifdef BREAK_LOOK_UNLOCKED
	leaves = (promise != NOBODY);
	has_log[me] = 1;
#else
	has_log[me] = 1;
	leaves = (promise != NOBODY);
#endif
	if
	:: !leaves ->
		leaves = (promise != NOBODY);
		if
		:: !leaves -> start_if_unserved()
		:: else
		fi
	:: else
	fi;
#ifdef BREAK_UNLOCK_FIRST
	has_log[me] = 0;
#endif
	atomic { committed[me] = 1; notified[me] = !leaves };
	has_log[me] = 0;
	gone++
}

/* It starts a worker whatever others do: nobody is sure to see what it did. */
proctype Creator(byte me)
{
	notified[me] = 1;
#ifdef BREAK_CREATOR_LOOKS_FIRST
	if
	:: server == NOBODY && slot == NOBODY -> atomic { committed[me] = 1; start_worker(0) }
	:: else -> committed[me] = 1
	fi;
#else
	committed[me] = 1;
	if
	:: server == NOBODY && slot == NOBODY -> atomic { start_worker(0) }
	:: else
	fi;
#endif
	gone++
}

/* It ends by the clock; a worker of a creator knows nothing of it. */
inline end_token()
{
	token = token && !of_appender
}

inline look_for_holders()
{
	stays = has_log[0] || has_log[1]
}

inline look_for_work()
{
	i = 0;
	atomic {
		do
		:: i < ALL -> stays = stays || (committed[i] && !done[i]); i++
		:: else -> break
		od;
		i = 0
	}
}

/* All that another one goes by. */
inline release()
{
	promise = (promise == me -> NOBODY : promise);
	server = (server == me -> NOBODY : server);
#ifndef BREAK_SLOT_STAYS
	slot = (slot == me -> NOBODY : slot)
#endif
}

inline look()
{
	stays = false;
#ifdef BREAK_HOLDERS_LAST
	look_for_work();
	if
	:: !stays -> look_for_holders()
	:: else
	fi
#else
#ifndef BREAK_NO_HOLDERS
	look_for_holders();
#endif
	if
	:: !stays -> look_for_work()
	:: else
	fi
#endif
}

/* A round in one transaction: what its snapshot sees is done by its commit. */
inline do_round()
{
	atomic {
		i = 0;
		do
		:: i < ALL -> seen[i] = committed[i]; i++
		:: else -> break
		od;
		i = 0
	};
	atomic {
		do
		:: i < ALL ->
			if
			:: seen[i] -> done[i] = 1; notified[i] = 1
			:: else
			fi;
			seen[i] = 0;
			i++
		:: else -> break
		od;
		i = 0
	}
}

proctype Worker(byte me; bit of_appender)
{
	bit stays;
	bit seen[ALL];
	byte i;

	atomic {
		on_their_way = on_their_way - of_appender;
		if
		:: server != NOBODY -> end_token(); goto end
#ifndef BREAK_BOTH_SERVE
		:: else -> server = me
#else
		:: else
#endif
		fi
	};
#ifdef BREAK_BOTH_SERVE
	server = me;
#endif
	if
	:: atomic { slot == NOBODY -> slot = me }
	:: atomic { slot != NOBODY -> server = NOBODY; end_token(); goto end }
	fi;
again:
	assert(server == me);
	do_round();
	promise = me;
#ifndef BREAK_TOKEN_STAYS
	/* it is idle for longer than a token lasts */
	end_token();
	!token;
#endif
	if
	:: goto again
	:: skip
	fi;
#ifdef BREAK_LOOK_FIRST
	look();
	if
	:: stays -> goto again
	:: else -> release()
	fi;
#else
	release();
	look();
	if
	:: stays ->
		atomic {
			if
			:: server == NOBODY -> server = me; slot = (slot == NOBODY -> me : slot); goto again
			:: else
			fi
		}
	:: else
	fi;
#endif
	slot = (slot == me -> NOBODY : slot);
	end_token();
end:
	skip
}

init
{
	byte i;

	atomic {
		run Appender(0);
		run Appender(1);
		run Creator(CREATOR)
	};
	/* all have ended, workers, too */
	(gone == ALL && _nr_pr == 1);
	do
	:: i < ALL -> assert(done[i] && notified[i]); i++
	:: else -> break
	od
}
