/*-------------------------------------------------------------------------
 *
 * decide.c
 *		es_decide(): decides a command on the events that match a query, and appends the
 *		events, while no other event that matches can come.
 *
 * The order of steps (doc/internals/condition.md):
 *
 *	1. check the arguments.  Then a round, in a subtransaction:
 *	2. lock all tags of all items exclusively, and the lock of conditions if an item has no
 *	   tags; take the lock of appenders;
 *	3. if the command has an id, and its events are stored: return its first result;
 *	4. where an item has no tags: wait for whoever may own a position that is drawn by now.
 *	   Events up to there are all that come;
 *	5. take a snapshot, fold the events that match;
 *	6. call the decider; an error refuses the command;
 *	7. complete the metadata and ids of its events.  Take the locks of their streams and of
 *	   their further tags without waiting.  If one is taken, roll the round back, which
 *	   releases all locks, and begin again with all of them in their order;
 *	8. where an item has no tags: draw the positions, wait for whoever may own a lower one,
 *	   and look for a match between the end of 4 and the first own position.  If there
 *	   is one, begin again, and fold on from the end of 4.  All locks are kept;
 *	9. append the events (write.c), and fold those of them that match.
 *
 * The subtransaction ends before anything is stored.  It gets no id, unless the reducer or
 * the decider writes.
 *
 * A round that is rolled back adds locks to those that are taken at once.  Rounds are
 * bounded: the last one locks the whole log, which leaves nothing to wait for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/log.h"
#include "log/tags.h"
#include "tag/tag.h"
#include "append/append.h"
#include "aggregate/aggregate.h"
#include "aggregate/command.h"

PG_FUNCTION_INFO_V1(es_decide);

/* Arguments, in their order. */
enum
{
	ARG_QUERY, ARG_DECIDER, ARG_COMMAND, ARG_REDUCER, ARG_METADATA, ARG_INITIAL
};

/* So many rounds, then the whole log is locked. */
#define MAX_ROUNDS	10

/* The decision of a command. */
typedef struct Decision
{
	Oid			log;			/* es_events */
	Oid			decider;
	Condition	condition;		/* after: up to there events are folded */
	Command		command;
	Fold		fold;
	Write		write;			/* of the events that are decided */
	LogLock    *locks;			/* that a round takes first */
	int			lock_count;
	bool		locks_all;		/* does it lock the whole log instead? */
	bool		has_locks;		/* has it got all that the events need, too? */
	bool		has_decided;	/* so that the events can be appended */
	bool		is_stored;		/* was the command executed before? */
	Int8Array	positions;		/* of its events */
} Decision;

/* The tag of a query that asks for no more than that; NULL for another query. */
static text *
only_tag(const EventQuery *query)
{
	const QueryItem *item = &query->items[0];

	return query->count == 1 && item->tags.count == 1 && item->types.array == NULL ?
		DatumGetTextPP(item->tags.values[0]) : NULL;
}

/* Takes the arguments. */
static void
init_decision(Decision *decision, FunctionCallInfo fcinfo)
{
	Datum		metadata = (Datum) 0;

	memset(decision, 0, sizeof(Decision));
	argument_not_null(fcinfo, ARG_QUERY, "query");
	argument_not_null(fcinfo, ARG_DECIDER, "decider");
	argument_not_null(fcinfo, ARG_COMMAND, "command");
	argument_not_null(fcinfo, ARG_REDUCER, "reducer");
	decision->log = log_relid(fcinfo->flinfo->fn_oid);
	query_check_reader(decision->log, "decide by a query");
	decision->condition.log = decision->log;
	decision->condition.query = query_read(PG_GETARG_JSONB_P(ARG_QUERY));
	decision->write.log = decision->log;
	decision->write.is_whole = true;
	if (!PG_ARGISNULL(ARG_METADATA))
		metadata = event_metadata(PG_GETARG_DATUM(ARG_METADATA));
	command_init(&decision->command, NULL, PG_GETARG_DATUM(ARG_COMMAND), metadata);
	decision->decider = decider_find(PG_GETARG_TEXT_PP(ARG_DECIDER));
	fold_begin_query(&decision->fold, decision->log, only_tag(decision->condition.query),
					 PG_GETARG_TEXT_PP(ARG_REDUCER), PG_GETARG_DATUM(ARG_INITIAL),
					 PG_ARGISNULL(ARG_INITIAL));
}

/* Adds to the locks that a round takes first. */
static void
add_locks(Decision *decision, const LogLock *locks, int count)
{
	int			room = Max(decision->lock_count + count, 1);

	decision->locks = decision->locks == NULL ? palloc(sizeof(LogLock) * room) :
		repalloc(decision->locks, sizeof(LogLock) * room);
	memcpy(decision->locks + decision->lock_count, locks, sizeof(LogLock) * count);
	decision->lock_count += count;
}

/* Adds what the query needs. */
static void
add_query_locks(Decision *decision)
{
	const EventQuery *query = decision->condition.query;
	int			i;
	int			j;

	for (i = 0; i < query->count; i++)
	{
		for (j = 0; j < query->items[i].tags.count; j++)
		{
			LogLock		lock = log_lock_of_tag(DatumGetTextPP(query->items[i].tags.values[j]),
											   ExclusiveLock);

			add_locks(decision, &lock, 1);
		}
	}
	if (query->has_untagged)
	{
		LogLock		lock = log_lock_of_conditions(decision->log);

		add_locks(decision, &lock, 1);
	}
}

/* Step 2. */
static void
take_locks(Decision *decision)
{
	if (decision->locks_all)
		log_lock_whole(decision->log, "to decide on what others append to, too", NULL, NULL);
	else
		log_lock_all(decision->log, decision->locks, decision->lock_count);
	log_lock_to_append(decision->log);
}

/* Step 4: the position up to which all events are there. */
static int64
settled_position(const Decision *decision)
{
	int64		upto;

	if (!condition_needs_position(&decision->condition))
		return PG_INT64_MAX;
	upto = log_sequence_last(decision->log);
	log_lock_await_appenders(decision->log, "to decide on events without tags");
	return upto;
}

static TupleTableSlot *
next_row(void *rows)
{
	return match_rows_next(rows);
}

/* Folds the events that match, from where the fold is up to a position. */
static void
fold_upto(Decision *decision, int64 upto)
{
	Fold	   *fold = &decision->fold;
	Condition  *condition = &decision->condition;
	MatchRange	range;
	MatchRows  *rows;

	if (fold_renew(fold))
		condition->after = 0;
	if (condition->after == 0)
		fold_from_snapshot(fold, GetActiveSnapshot(), upto, DT_NOEND);
	range = (MatchRange)
	{
		.after = Max(condition->after, fold->state.version),
			.upto = upto
	};
	rows = match_rows_begin(decision->log, condition->query, &range, GetActiveSnapshot());
	fold_events(fold, next_row, rows, DT_NOEND);
	match_rows_end(rows);
	condition->after = upto == PG_INT64_MAX ? fold->state.version : upto;
}

/* Forgets what was folded. */
static void
restart_fold(Decision *decision)
{
	fold_restart(&decision->fold);
	decision->condition.after = 0;
}

/* Takes the locks of the decided events.  Returns false if one is taken. */
static bool
try_event_locks(Decision *decision)
{
	int			count;
	LogLock    *locks = write_locks(&decision->write, &count);

	decision->has_locks = log_lock_try_all(decision->log, locks, count);
	if (!decision->has_locks)
		add_locks(decision, locks, count);
	pfree(locks);
	return decision->has_locks;
}

/* Step 8.  Returns false if events that match have come since those that are folded. */
static bool
draw_positions(Decision *decision)
{
	Write	   *write = &decision->write;
	Log		   *log = log_open(decision->log);

	log_draw(log, write->events, write->count);
	log_close(log);
	log_lock_await_appenders(decision->log, "to decide on events without tags");
	return condition_holds(&decision->condition, write->events[0].position);
}

/* Returns true if the events can be appended. */
static bool
may_append(Decision *decision)
{
	if (!try_event_locks(decision))
		return false;
	if (decision->write.count > 0 && condition_needs_position(&decision->condition))
		return draw_positions(decision);

	/* the decider may have appended such events itself */
	if (TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
		condition_check(&decision->condition, 0);
	return true;
}

/* Steps 6 to 8.  Returns false if they do not succeed. */
static bool
decide(void *arg)
{
	Decision   *decision = arg;
	Write	   *write = &decision->write;

	write->events = decider_decide(decision->decider, NULL, decision->fold.state.state,
								   decision->command.value, &write->count, NULL);
	command_complete_events(&decision->command, write);
	decision->has_decided = may_append(decision);
	return decision->has_decided;
}

/*
 * Does a part of the work in a subtransaction, which is rolled back if it returns false.
 */
static bool
try_part(bool (*part) (void *arg), Decision *decision)
{
	int			taken = log_lock_count();
	ErrorData  *error = subtransaction_try(part, decision);

	if (error != NULL)
		ReThrowError(error);
	if (!decision->has_decided)
		log_lock_forget(taken);
	return decision->has_decided;
}

/*
 * Steps 6 to 8.  Where events can come in between, what the decider writes is taken back if
 * it has to decide again.
 */
static bool
try_to_decide(Decision *decision)
{
	return condition_needs_position(&decision->condition) ?
		try_part(decide, decision) : decide(decision);
}

/* A round: steps 2 to 8.  Returns false if it is to be rolled back. */
static bool
decide_round(void *arg)
{
	Decision   *decision = arg;
	int			i;

	take_locks(decision);
	decision->has_locks = true;
	decision->is_stored = command_find_decided(&decision->command, decision->log,
											   &decision->positions);
	decision->has_decided = decision->is_stored;
	for (i = 0; i < MAX_ROUNDS && !decision->has_decided && decision->has_locks; i++)
	{
		int64		upto = settled_position(decision);

		PushActiveSnapshot(GetLatestSnapshot());
		fold_upto(decision, upto);
		fold_check_whole(&decision->fold, "decide on the events");
		(void) try_to_decide(decision);
		PopActiveSnapshot();
	}
	return decision->has_decided;
}

/* Steps 2 to 8, in rounds. */
static void
run_rounds(Decision *decision)
{
	int			round;

	add_query_locks(decision);
	for (round = 1; !try_part(decide_round, decision); round++)
	{
		CHECK_FOR_INTERRUPTS();
		restart_fold(decision);

		/* it has the locks, and yet something always came in between */
		decision->locks_all = round + 1 >= MAX_ROUNDS || decision->has_locks;
	}
}

/* Folds the command's own events, as far as they match. */
static void
fold_own(Decision *decision)
{
	MatchRows  *rows = match_rows_at(decision->log, decision->condition.query,
									 &decision->positions, GetActiveSnapshot());

	fold_events(&decision->fold, next_row, rows, DT_NOEND);
	match_rows_end(rows);
}

/* Step 9, the first part.  Returns false if the events were stored before. */
static bool
append_decided(Decision *decision)
{
	Write	   *write = &decision->write;
	int			i;

	write_lock(write);
	write_locked(write);
	for (i = 0; i < write->count; i++)
		int8_array_append(&decision->positions, write->events[i].position);
	return write->first_position == write->events[0].position;
}

/* The result of a command whose events were found by its id. */
static void
take_first_result(Decision *decision)
{
	Write	   *write = &decision->write;

	write->count = decision->positions.count;
	write->first_position = decision->positions.values[0];
	write->position = int8_array_last(decision->positions);
	PushActiveSnapshot(GetLatestSnapshot());
	fold_upto(decision, write->first_position - 1);
	fold_own(decision);
	PopActiveSnapshot();
}

/*
 * Appends, and folds on.  Events with ids of their own may be stored already: the state is
 * then that after them.
 */
static void
append_and_fold(Decision *decision)
{
	bool		is_new = append_decided(decision) && !fold_renew(&decision->fold);

	PushActiveSnapshot(GetLatestSnapshot());
	if (is_new)
		fold_own(decision);
	else
	{
		restart_fold(decision);
		fold_upto(decision, decision->write.position);
	}
	fold_save(&decision->fold);
	PopActiveSnapshot();
}

/* The row (first_position, position, state, events). */
static Datum
decision_row(FunctionCallInfo fcinfo, const Decision *decision)
{
	const Write *write = &decision->write;
	const NullableDatum *state = &decision->fold.state.state;
	Datum		values[4] = {
		Int64GetDatum(write->first_position), Int64GetDatum(write->position),
		state->value, Int32GetDatum(write->count)
	};
	bool		nulls[4] = {write->count == 0, write->count == 0, state->isnull, false};

	return fold_row(fcinfo, values, nulls);
}

/*
 * es_decide(query, decider, command, reducer, metadata, initial)
 */
Datum
es_decide(PG_FUNCTION_ARGS)
{
	Decision	decision;

	PreventCommandIfReadOnly("es_decide()");
	init_decision(&decision, fcinfo);
	run_rounds(&decision);
	if (decision.is_stored)
		take_first_result(&decision);
	else if (decision.write.count > 0)
		append_and_fold(&decision);
	fold_end(&decision.fold);
	return decision_row(fcinfo, &decision);
}
