/*-------------------------------------------------------------------------
 *
 * rule.h
 *		Rules of retention: which events of a category are removed, and by whom.
 *
 * A rule is a row of es_retention.  It is run in steps, which go on where the last one
 * ended: by workers, a step a transaction, or by es_run_retention().
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_RULE_H
#define EVENTSTORE_RULE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "portability/instr_time.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

/* retention_rule.c: the row */

/* A rule, as es_retention has it. */
typedef struct RetentionRule
{
	Oid			log;			/* es_events */
	text	   *category;		/* NULL, for hold_find alone: any */
	Interval   *max_age;		/* NULL: no limit */
	int64		max_count;		/* 0: no limit */
	Interval   *max_lag;		/* NULL: no limit */
	Datum		metadata;		/* for es_removals */
	int64		aged_position;
	int64		seen_position;
	List	   *left_streams;	/* of texts, as the next two */
	List	   *tagged_streams;
	List	   *left_behind;
	text	   *held_by;		/* NULL: nothing */
	int64		held_position;
	TimestampTz held_since;
	int			pause;			/* seconds */
	TimestampTz now;			/* when it was read */
} RetentionRule;

/* What a run leaves in the row. */
typedef struct RetentionNote
{
	int64		events;			/* that were removed */
	int64		removals;
	TimestampTz next_run;
	TimestampTz paced_until;
} RetentionNote;

/*
 * Reads the first rule that fits the rest of the statement, in which $1 is the value, a
 * text; returns NULL if there is none.  SPI must be connected, as for the next ones.
 */
extern RetentionRule *rule_select(Oid log, const char *rest, text *value);

/* Writes what has changed. */
extern void rule_write(const RetentionRule *rule, const RetentionNote *note);

/* Writes that a run has failed, and logs it if that is new. */
extern void rule_write_error(const RetentionRule *rule, const ErrorData *error);

/* Returns the time so long before the rule was read; 0 for NULL. */
extern TimestampTz rule_time_before(const RetentionRule *rule, const Interval *interval);

/* retention_hold.c: what holds a rule */

typedef struct RetentionHold
{
	int64		position;		/* nothing above it is removed */
	char	   *held_by;		/* that holds it there; the horizon, too */
	bool		forced;
} RetentionHold;

/*
 * Finds the least position that a consumer of the category has read up to.  force: the
 * horizon alone.  Notes in the rule which consumers are left behind.
 */
extern void hold_find(RetentionRule *rule, bool force, RetentionHold *hold);

/* Notes in the rule what holds it, if there is something that it would remove. */
extern void hold_note(RetentionRule *rule, const RetentionHold *hold);

/* retention_step.c */

/* One step, and what it did. */
typedef struct RetentionStep
{
	RetentionRule *rule;
	RetentionHold hold;
	bool		own_transaction;	/* nothing else is done in it */
	int64		max_events;		/* to be removed */
	int			max_streams;
	long		max_time;		/* in milliseconds; 0: no limit */
	instr_time	began;
	int64		events;			/* that it has removed */
	int64		streams;		/* from so many */
	int64		looked;			/* at so many events */
	int			locked;			/* streams */
	bool		waited;			/* for a stream's lock, and did not get it */
	bool		more;			/* there is more to do at once */
	TimestampTz due_at;			/* when the next event is too old; 0: unknown */
} RetentionStep;

/* Removes events by the rule, up to the limits.  It can be called again, to go on. */
extern void step_run(RetentionStep *step);

/* retention_find.c: what may be removed */

/* The streams of the next events of the category that a walk looks at. */
typedef struct RetentionBatch
{
	List	   *streams;		/* of BatchStream, in the order of "at" */
	int64		upto;			/* the walk is there when they are done */
	int			looked;			/* at so many events */
	bool		ended;			/* there are no more of them now */
	TimestampTz young_at;		/* when the first event was recorded that is
								 * not too old; 0: there is none */
} RetentionBatch;

typedef struct BatchStream
{
	text	   *name;
	int64		at;				/* position of its first event in the batch */
} BatchStream;

/* The oldest events of a stream that are to be removed now. */
typedef struct RetentionTarget
{
	int			count;
	int64		before;			/* they are those before this version */
	bool		tagged;			/* one of them has a tag that is no subject's */
	Datum		tags;			/* those of subjects, unless it is; 0: none */
	bool		parked;			/* the stream has a parked event, which is
								 * kept */
} RetentionTarget;

/* Finds events that are too old, or new ones; up to a position. */
extern void batch_find_aged(const RetentionRule *rule, int64 upto, RetentionBatch *batch);
extern void batch_find_new(const RetentionRule *rule, int64 upto, RetentionBatch *batch);

/* Finds the first so many events of the stream that are to be removed. */
extern void target_find(const RetentionRule *rule, const RetentionHold *hold, text *stream,
						int64 aged_position, int64 limit, RetentionTarget *target);

/* Counts all streams and events that would be removed now. */
extern void target_count_all(const RetentionRule *rule, const RetentionHold *hold,
							 int64 *streams, int64 *events);

/* retention_run.c */

/*
 * eventstore.retention_rate: how many events workers remove in a second, in a database.  An
 * administrator increases it if more are appended, and sets 0 to stop them.
 */
extern int	retention_rate;

/* Defines eventstore.retention_rate and eventstore.retry_window. */
extern void retention_init(void);

/*
 * Does one step of one rule that is due, or purges what was kept for long enough, in the
 * present transaction, in which nothing else is done.  Returns how many milliseconds to
 * wait before it is called again.
 */
extern long retention_run_due(Oid log);

/* retention_lock.c: steps, and what must not happen beside one */

/* Makes the transaction the only one that runs rules; returns false if another does. */
extern bool retention_try_lock(void);

/* The same; waits. */
extern void retention_lock(void);

/*
 * Keeps rules from being run until the transaction ends.  Whoever makes a consumer, or
 * moves its checkpoint back, calls it: a step that does not see that yet has ended then.
 */
extern void retention_keep_out(void);

/* Waits for a step that has begun; the next one sees the locks that the caller holds. */
extern void retention_await_step(void);

/*
 * Classes of advisory locks of a projection's rebuild, which users cannot reach; the view
 * es_projection_status looks for them.  The key is a hash of the projection's
 * name, and how far the rebuild is (0: there is one, n + 1: n thousandths are
 * done), or when it began.
 */
#define REBUILD_LOCK_CLASS			4
#define REBUILD_BEGIN_LOCK_CLASS	5

/* Sets the tag of one of these locks. */
extern void rebuild_lock_tag(LOCKTAG *tag, const char *name, uint32 number, int class);

/* Returns true if another transaction rebuilds the projection. */
extern bool rebuild_is_going_on(const char *name);

#endif							/* EVENTSTORE_RULE_H */
