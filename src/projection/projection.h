/*-------------------------------------------------------------------------
 *
 * projection.h
 *		Projections.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PROJECTION_H
#define EVENTSTORE_PROJECTION_H

#include "executor/spi.h"
#include "storage/lock.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "read/read.h"
#include "failure/failure.h"

/* projection.c */

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
	Oid			owner;			/* 0: there is no role of this name */
	char	   *owner_name;
	char	   *search_path;
	ProjectionKind kind;
	char	   *target;			/* signature, schema's name, or statement */
	Oid			refresh;		/* the view */
	List	   *tables;			/* of the read model */
	text	   *category;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	Datum	   *type_names;		/* of types */
	int			type_count;
	bool		sync;
	bool		running;		/* neither paused nor failed */
	bool		failed;
	char	   *message;		/* the last error's; NULL: none */
	bool		park;			/* on_failure */
	int64		start_position;
	int64		position;		/* the checkpoint */
	int64		history;		/* up to here events are replayed */
	int			batch_size;
	int			max_attempts;
	int			attempts;		/* that failed, since the last success */
	int			batch_limit;	/* while a bad event is looked for; else 0 */
	int64		suspect_upto;	/* it is looked for up to here */

	bool		rebuilding;		/* its tables are found in pg_temp */
	bool		cached;			/* outlives the transaction */
	SPIPlanPtr	plan;			/* of the query, if it is cached */
} Projection;

/*
 * Classes of advisory locks of a rebuild, which users cannot reach; the view
 * es_projection_status looks for them.  The key is a hash of the projection's
 * name, and how far the rebuild is (0: there is one, n + 1: n thousandths are
 * done), or when it began.
 */
#define REBUILD_LOCK_CLASS			4
#define REBUILD_BEGIN_LOCK_CLASS	5

/* What is set when nothing is wrong with a projection any more. */
#define PROJECTION_NO_ERROR \
	", attempts = 0, next_attempt = NULL, batch_limit = NULL," \
	" suspect_upto = NULL, sqlstate = NULL, message = NULL," \
	" detail = NULL, context = NULL"

/* What projection_update can set at once. */
#define PROJECTION_MAX_VALUES	12

extern Projection *projection_select(Oid log, const char *rest, int nargs,
									 Oid *types, Datum *values,
									 const char *nulls);
extern Projection *projection_find(Oid log, const char *name,
								   const char *locking);
extern Projection *projection_get(Oid log, const char *name,
								  const char *locking);
extern void projection_rebuild_tag(LOCKTAG *tag, const char *name,
								   uint32 number, int class);
extern bool projection_lock_rebuild(const char *name, bool wait);
extern Projection *projection_peek(Oid log, const char *name);
extern FailureOwner projection_failures(const Projection *projection);
extern RunAs projection_run_as(const Projection *projection, bool restricted,
							   const char *search_path);
extern void projection_check_owner(const Projection *projection);
extern Projection *projection_own(Oid log, const char *name);
extern void projection_update(const Projection *projection, const char *set,
							  int nargs, const Oid *types,
							  const Datum *values, const char *nulls);
extern bool projection_wants(const Projection *projection, text *stream,
							 text *type);
extern int64 projection_last_position(Oid log);
extern char *projection_relation_name(Oid relid);
extern void projection_read(const Projection *projection, Snapshot snapshot,
							int64 upto, int limit, EventBatch *batch);

/* projection_apply.c */
extern void projection_apply(Projection *projection, Tuplestorestate *events,
							 bool history);
extern void projection_check(Projection *projection);
extern void projection_check_outside(const char *function);

/* projection_run.c */

/* Handling the past of a projection again, or for the first time. */
typedef struct Replay
{
	bool		park;			/* set bad events aside; else raise the error */
	void		(*progress) (const Projection *projection,
							 const struct Replay *replay);
	void	   *progress_data;
	int64		handled;
	List	   *parked;			/* for projection_save_parked */
	List	   *streams;		/* that are parked */
} Replay;

extern bool projection_run_due(Oid log);
extern ErrorData *projection_try(Projection *projection, const EventBatch *batch,
								 bool own_transaction);
extern void replay_projection(Projection *projection, Snapshot snapshot,
							  int64 upto, Replay *replay);
extern void projection_save_parked(const Projection *projection, List *parked);

/* projection_sync.c */
extern void projection_sync_init(void);
extern void projection_check_sync(const Projection *projection);
extern void projection_attach(Projection *projection);
extern void projection_detach(Projection *projection);
extern void projection_drop_trigger(Projection *projection);
extern void projection_finish(Projection *projection, Replay *replay);

/* rebuild_tables.c */
extern void rebuild_tables_init(void);
extern List *rebuild_make_tables(const Projection *projection);
extern void rebuild_compact_tables(const Projection *projection, List *tables);
extern void rebuild_swap_tables(const Projection *projection, List *tables);
extern void rebuild_drop_tables(const Projection *projection, List *tables);

#endif							/* EVENTSTORE_PROJECTION_H */
