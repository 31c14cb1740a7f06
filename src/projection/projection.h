/*-------------------------------------------------------------------------
 *
 * projection.h
 *		Projections: read models that are kept up to date from the log.
 *
 * A projection is a row of es_projections: what handles its events, whose
 * rights it has, and its checkpoint.  Its events are applied by a trigger as
 * part of the append (sync), by runners in batches (async), or by a rebuild.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PROJECTION_H
#define EVENTSTORE_PROJECTION_H

#include "executor/spi.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "base/role.h"
#include "base/setting.h"
#include "log/event.h"
#include "read/read.h"
#include "failure/failure.h"

typedef enum ProjectionKind
{
	PROJECTION_HANDLER,			/* a function for each event */
	PROJECTION_SCHEMA,			/* a schema of functions, by type */
	PROJECTION_QUERY,			/* a statement for each batch */
	PROJECTION_REFRESH			/* a materialized view */
} ProjectionKind;

/* A projection, as es_projections has it. */
typedef struct Projection
{
	Oid			log;			/* es_events */
	char	   *name;
	TimestampTz created_at;
	Role		owner;
	char	   *search_path;	/* as it is kept */
	const Settings *settings;	/* with which it runs */
	ProjectionKind kind;
	char	   *target;			/* signature, schema's name, or statement */
	Oid			refresh;		/* the view */
	List	   *tables;			/* of the read model */
	TextSet		categories;		/* of the events that it gets */
	TextSet		types;
	EventQuery *event_query;	/* NULL: any */
	bool		sync;
	bool		running;		/* neither paused nor failed */
	bool		failed;			/* it has used up its attempts */
	char	   *message;		/* the last error's; NULL: none */
	bool		park;			/* on_failure */
	int64		start_position;
	int64		position;		/* the checkpoint */
	int64		history;		/* up to here events are replayed */
	int			batch_size;
	int			max_attempts;
	int			attempts;		/* that failed, since the last success */
	int			attempts_used;	/* those of them that max_attempts limits */
	int			batch_limit;	/* while a bad event is looked for; else 0 */
	int64		suspect_upto;	/* it is looked for up to here */

	int64		failed_event;	/* at an error: how many events of the batch
								 * came before it; -1: any may have failed */
	int64		applied;		/* so many events of the batch, if the time
								 * for it ended there; else 0 */
	bool		rebuilding;		/* its tables are found in pg_temp */
	bool		archived;		/* it gets the events of the archive, too */
	bool		cached;			/* outlives the transaction */
	SPIPlanPtr	plan;			/* of the query, if it is cached */
} Projection;

/* What is set when nothing is wrong with a projection any more. */
#define PROJECTION_NO_ERROR \
	", attempts = 0, attempts_used = 0, next_attempt = NULL," \
	" failing_since = NULL, failed_position = NULL, batch_limit = NULL," \
	" suspect_upto = NULL, sqlstate = NULL, message = NULL," \
	" detail = NULL, context = NULL"

/* The same; it is not failed any more. */
#define PROJECTION_GOES_ON \
	", state = CASE state WHEN 'failed' THEN 'running' ELSE state END" \
	PROJECTION_NO_ERROR

/* What projection_update can set at once. */
#define PROJECTION_MAX_VALUES	12

/* projection.c: the row.  SPI must be connected. */

/*
 * Reads the first projection that fits the rest of the statement, in which
 * $1, $2 ... are the values; returns NULL if there is none.
 */
extern Projection *projection_select(Oid log, const char *rest, int nargs,
									 Oid *types, Datum *values,
									 const char *nulls);

/*
 * Lets statements be planned once, by the indexes of the log alone, in a nest level of
 * settings, which is returned: AtEOXact_GUC ends it.
 */
extern int	projection_begin_lasting_plan(void);

/*
 * Reads the projection of this name; returns NULL if there is none.  locking:
 * what follows in the statement, such as FOR UPDATE.
 */
extern Projection *projection_find(Oid log, const char *name,
								   const char *locking);

/* Reads the projection of this name; 42704 if there is none. */
extern Projection *projection_get(Oid log, const char *name,
								  const char *locking);

/* Reads it as the active snapshot sees it; 42704 if that sees none. */
extern Projection *projection_get_visible(Oid log, const char *name);

/*
 * Reads the caller's projection and locks its row until the transaction ends,
 * so that no runner has it; 42501 if the caller does not own it.
 */
extern Projection *projection_lock_own(Oid log, const char *name);

extern Projection *projection_lock_operated(Oid log, const char *name); /* or operates */

/* Returns true if the caller has the rights of the owner. */
extern bool projection_is_own(const Projection *projection);

/* Refuses (42501) a projection that the caller neither owns nor operates. */
extern void projection_check_operator(const Projection *projection);

/* Returns the owner's role; 42704 if it does not exist any more. */
extern Oid	projection_owner_role(const Projection *projection);

/* Becomes the projection's owner, as run_as does, with the projection's settings. */
extern RunAs projection_run_as(const Projection *projection, bool restricted,
							   const char *search_path);

extern FailureOwner projection_failures(const Projection *projection);	/* for failure.c */

/*
 * Changes columns of the projection's row.  set: the SET list, in which
 * $2, $3 ... are the values, at most PROJECTION_MAX_VALUES.
 */
extern void projection_update(const Projection *projection, const char *set,
							  int nargs, const Oid *types,
							  const Datum *values, const char *nulls);

/*
 * Returns the name of a relation of a projection with its schema, quoted;
 * 42P01 if it was dropped.
 */
extern char *projection_relation_name(Oid relid);

extern int64 projection_last_position(Oid log); /* of the last event; 0: none */

/* projection_apply.c: what handles the events. */

/*
 * Applies a batch as the owner.  events: rows of es_events in position order,
 * all of which the projection wants; NULL to refresh a view.  history: what
 * es_replaying() returns meanwhile.  An error of the handler is raised.
 */
extern void projection_apply(Projection *projection, Tuplestorestate *events,
							 bool history);

/* Finds the handler of this name; refuses one that the user may not execute. */
extern Oid	projection_find_handler(Oid log, const char *name);

/*
 * Refuses a projection that cannot work: its handler's signature is wrong, its
 * query cannot be planned, its owner may not read the log.
 */
extern void projection_check_definition(Projection *projection);

/* Refuses (55006) to go on inside a handler.  function: for the message. */
extern void projection_check_outside_handler(const char *function);

/* projection_batch.c: one batch of an async projection. */

/* A look at the log, under which batches are run. */
typedef struct ProjectionRun
{
	Oid			log;
	Snapshot	snapshot;
	int64		horizon;
	bool		own_transaction;	/* nothing else is done in it */
	TimestampTz begun;
} ProjectionRun;

/* Takes a snapshot and its horizon. */
extern void projection_run_begin(ProjectionRun *run, Oid log,
								 bool own_transaction);
extern void projection_run_end(ProjectionRun *run);

/*
 * Claims a projection that is due and has events to handle; returns NULL if
 * there is none.  name: only this one; NULL: any.
 */
extern Projection *projection_claim(const ProjectionRun *run,
									const char *name);

/*
 * Moves the checkpoints of projections that want none of the new events, as
 * far as no runner has claimed them.  name: as in projection_claim.
 */
extern void projection_pass_over(const ProjectionRun *run, const char *name);

/*
 * Runs one batch of a claimed projection; returns how many events were
 * handled.  A failure is noted in its row.
 */
extern int64 projection_run_batch(const ProjectionRun *run,
								  Projection *projection);

/*
 * Reads the next events that the projection wants and does not skip: after its checkpoint,
 * not beyond upto, at most limit, into batch->events, which the caller made.
 * batch->upto is the checkpoint when these are handled.  A batch is either of
 * the projection's history or not.
 */
extern void projection_read_batch(const Projection *projection,
								  Snapshot snapshot, int64 upto, int limit,
								  EventBatch *batch);

/* Returns how many events the next batch may have. */
extern int	projection_batch_limit(const Projection *projection);

/* projection_run.c: runs what is due. */

/*
 * Runs one batch of one projection that is due, in the present transaction,
 * in which nothing else is done; returns false if nothing was due.
 */
extern bool projection_run_due(Oid log);

/* Returns true if a runner may find something due now or later, up to the horizon. */
extern bool projection_may_fall_due(Oid log, int64 horizon);

/* projection_sync.c: the trigger of a sync projection. */

/* Registers the cache's callback. */
extern void projection_sync_init(void);

#endif							/* EVENTSTORE_PROJECTION_H */
