/*-------------------------------------------------------------------------
 *
 * eventstore.h
 *		Types and prototypes that the files of eventstore share, grouped by
 *		the file that owns them.
 *
 * A file calls only files that stand above it in this header.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_H
#define EVENTSTORE_H

#include "access/transam.h"
#include "commands/trigger.h"
#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

/* Error class ES is ours; README.md lists the codes. */
#define ERRCODE_ES_WRONG_EXPECTED_VERSION	MAKE_SQLSTATE('E','S','0','0','1')
#define ERRCODE_ES_DUPLICATE_EVENT			MAKE_SQLSTATE('E','S','0','0','2')

/* stream.c */

/*
 * A stream's name is a key of two B-tree indexes, whose entries must fit a
 * third of a page: 2,704 bytes, less headers, the version and the alignment.
 */
#define ES_MAX_STREAM_LENGTH	2048

/* A transaction that has locked so many streams locks the log instead. */
#define ES_MAX_STREAM_LOCKS		1000

extern void stream_check_name(text *stream);
extern void stream_lock(Oid log, text *stream);
extern int	stream_category_length(text *stream);
extern bool stream_equal(text *a, text *b);
extern uint64 stream_hash(text *stream);

/* expected_version.c */

typedef int64 ExpectedVersion;	/* a version, or one of these */

#define EXPECTED_NONE		INT64CONST(0)
#define EXPECTED_ANY		INT64CONST(-1)
#define EXPECTED_EXISTS		INT64CONST(-2)

extern void expected_version_check(text *stream, ExpectedVersion expected,
								   int64 actual);

/* uuid.c */
extern void uuid_generate_v7(pg_uuid_t *uuid);
extern char *uuid_to_cstring(const pg_uuid_t *uuid);

/* shmem.c */

/* How far the events of a log have been announced to who listens. */
typedef struct Announced
{
	Oid			log;
	int64		position;		/* the last event that was announced */
	int64		stored;			/* what es_notified says of it */
	TimestampTz at;				/* when, and when that was stored */
	TimestampTz stored_at;
} Announced;

extern void shmem_init(void);
extern List *shmem_databases(void);
extern void shmem_wake(void);
extern bool shmem_worker_sends(void);
extern bool shmem_join(const char *database);
extern uint64 shmem_ends(void);
extern void shmem_set_sending(bool sending);
extern bool shmem_begin_wait(uint64 ends);
extern void shmem_end_wait(void);
extern bool shmem_get_announced(Oid log, Announced *announced);
extern void shmem_set_announced(const Announced *announced);

/* run_as.c */

/* Who ran before, and what must be put back. */
typedef struct RunAs
{
	Oid			userid;
	int			security;
	int			guc_level;
} RunAs;

extern RunAs run_as(Oid userid, bool restricted, const char *search_path);
extern void run_as_end(RunAs saved);
extern Oid	run_as_owner(Oid relid);
extern uint64 run_own_sql(Oid log, const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);

/* log.c */

/* A type's name is a word, not a text: it becomes part of other names. */
#define ES_MAX_TYPE_LENGTH		255

/* More events in one call go through es_import. */
#define ES_MAX_BATCH			1000000

/* An event on its way into the log. */
typedef struct NewEvent
{
	/* by the caller */
	text	   *stream;
	text	   *type;
	Datum		data;			/* jsonb, as it came: toasted or not */
	Datum		metadata;		/* the same; 0 = NULL */
	bool		has_id;			/* else log_insert makes one */
	bool		has_occurred_at;
	TimestampTz occurred_at;
	pg_uuid_t	id;
	int64		version;

	/* by log_insert */
	int64		position;
} NewEvent;

/* Where an event is stored. */
typedef struct StoredEvent
{
	int64		version;
	int64		position;
	bool		same_stream;	/* as the one that was asked about */
	const char *place;			/* a sentence, where it is another one */
} StoredEvent;

/* es_events, opened for appending or looking up. */
typedef struct Log
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *relinfo;
	Relation	id_index;		/* unique (id) */
	Relation	version_index;	/* unique (stream, version) */
	Snapshot	latest;			/* sees all that is committed now */
	TupleTableSlot *slot;
	Oid			sequence;		/* es_position */
} Log;

/* Columns of es_events. */
enum
{
	Anum_es_events_position = 1,
	Anum_es_events_version,
	Anum_es_events_fence,
	Anum_es_events_recorded_at,
	Anum_es_events_occurred_at,
	Anum_es_events_id,
	Anum_es_events_stream,
	Anum_es_events_type,
	Anum_es_events_data,
	Anum_es_events_metadata,
	Natts_es_events = Anum_es_events_metadata
};

extern Oid	log_relid(Oid funcid);
extern Log *log_open(Oid relid);
extern void log_close(Log *log);
extern int64 log_last_version(Log *log, text *stream, int64 expected);
extern bool log_find_id(Log *log, const pg_uuid_t *id, text *stream,
						StoredEvent *found);
extern int64 log_position(Log *log, text *stream, int64 version);
extern void log_insert(Log *log, NewEvent *events, int count);
extern void log_duplicate_fail(const pg_uuid_t *id, const char *why);
extern Relation log_open_position_index(Relation log);
extern TriggerData *log_check_trigger(FunctionCallInfo fcinfo,
									  const char *relation);
extern void log_check_type(text *type);
extern void log_check_metadata(Datum metadata);

/* horizon.c */
extern int64 horizon_find(Oid log, Snapshot snapshot);

/* notify.c */

/* What came of an attempt to announce events. */
typedef enum NotifyResult
{
	NOTIFY_NOTHING_NEW,
	NOTIFY_LATER,				/* too soon, or somebody else is at it */
	NOTIFY_SENT
} NotifyResult;

extern int	notify_interval;

extern void notify_init(void);
extern void notify_expect(void);
extern void notify_events(const NewEvent *events, int count);
extern bool notify_by_worker(void);
extern NotifyResult notify_send(Oid log);

/* import.c */
extern void import_init(void);

/* worker.c */
extern void worker_init(void);

#endif							/* EVENTSTORE_H */
