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

#include "access/genam.h"
#include "access/transam.h"
#include "commands/trigger.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/execnodes.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

/* Error class ES is ours; README.md lists the codes. */
#define ERRCODE_ES_WRONG_EXPECTED_VERSION	MAKE_SQLSTATE('E','S','0','0','1')
#define ERRCODE_ES_DUPLICATE_EVENT			MAKE_SQLSTATE('E','S','0','0','2')
#define ERRCODE_ES_INVALID_EVENT			MAKE_SQLSTATE('E','S','0','0','4')
#define ERRCODE_ES_PROJECTION_FAILED		MAKE_SQLSTATE('E','S','0','0','5')
#define ERRCODE_ES_NOT_CLAIMED				MAKE_SQLSTATE('E','S','0','0','6')

/* stats_memory.c */

/* What is counted apart. */
typedef enum StatsKind
{
	STATS_CATEGORY,				/* by its name */
	STATS_INBOX					/* by topic and group */
} StatsKind;

/* What is counted, in the order of the views' columns. */
typedef enum StatsCounter
{
	/* of a category */
	STATS_APPENDS = 0,
	STATS_EVENTS,
	STATS_BYTES,
	STATS_CONFLICTS,
	STATS_RETRIES,
	STATS_DUPLICATES,
	STATS_LOCK_WAITS,
	STATS_LOCK_WAIT_TIME,		/* microseconds */

	/* of the inbox */
	STATS_INBOX_ACKNOWLEDGED = 0,
	STATS_INBOX_SKIPPED,
	STATS_INBOX_FAILED,
	STATS_INBOX_DUPLICATES,
	STATS_INBOX_ERRORS
} StatsCounter;

/* How many there are, and how many of the first ones count at commit. */
#define STATS_COUNTERS			8
#define STATS_INBOX_COUNTERS	5
#define STATS_AT_COMMIT			3

/* A category has one name; topic and group are two. */
#define STATS_NAMES				2

/* Bytes of a name, with the zero at its end. */
#define STATS_NAME_SIZE			128

/* What an entry is of, as memory and file have it. */
typedef struct StatsKey
{
	uint64		hash;			/* of the names; 0 for what found no place */
	Oid			database;
	StatsKind	kind;
	char		names[STATS_NAMES][STATS_NAME_SIZE];	/* cut if they are long */
	bool		other;			/* did it find no place? */
} StatsKey;

typedef struct StatsEntry
{
	StatsKey	key;
	pg_atomic_uint64 since;		/* it counts since then */
	pg_atomic_uint64 counters[STATS_COUNTERS];
} StatsEntry;

extern void stats_memory_init(void);
extern int	stats_max_entries(void);
extern int	stats_entry_count(void);
extern StatsEntry *stats_entry_at(int number);
extern int	stats_entry_number(const StatsEntry *entry);
extern StatsEntry *stats_entry(StatsKind kind, uint64 hash, const char *name,
							   int length, const char *second,
							   int second_length);

/* stats.c */
extern void stats_init(void);
extern StatsEntry *stats_find(StatsKind kind, const char *name, int length,
							  const char *second, int second_length);
extern void stats_count(StatsEntry *entry, StatsCounter counter,
						uint64 number);
extern void stats_count_at_commit(StatsEntry *entry, StatsCounter counter,
								  uint64 number);

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
extern StatsEntry *stream_stats(text *stream);
extern void stream_conflict(text *stream);
extern int	stream_category_length(text *stream);
extern bool stream_equal(text *a, text *b);
extern uint64 stream_hash(text *stream);
extern int	stream_partition(text *stream, int partitions);

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

/* digest.c */
extern pg_uuid_t *digest_uuid5(const pg_uuid_t *namespace, const char *name,
							   int length);
extern Datum *digest_key_names(ArrayType *keys, int *count);
extern pg_uuid_t *digest_id(text *type, Jsonb *data, ArrayType *keys);

/* shmem.c */

/* How far the events of a log have been announced to who listens. */
typedef struct Announced
{
	Oid			log;
	int64		position;		/* the last event that was announced */
	int64		stored;			/* what es_notified says of it */
	TimestampTz at;				/* when, and when that was stored */
	TimestampTz stored_at;
	double		pause;			/* ms that must follow, at least */
} Announced;

extern void shmem_init(void);
extern List *shmem_databases(void);
extern void shmem_wake(void);
extern bool shmem_worker_sends(void);
extern bool shmem_join(const char *database);
extern uint64 shmem_ends(void);
extern void shmem_set_sending(bool sending);
extern void shmem_set_working(bool working);
extern bool shmem_wakes(void);
extern bool shmem_begin_wait(uint64 ends);
extern void shmem_end_wait(void);
extern bool shmem_get_announced(Oid log, Announced *announced);
extern void shmem_set_announced(const Announced *announced);
extern void shmem_set_pause(double pause);

/* attempt.c */
extern ErrorData *attempt(bool (*work) (void *arg), void *arg);

/* lazy_commit.c */

/* What a transaction had written before something that may be lost. */
typedef struct Written
{
	bool		has_id;			/* it may have written something */
	XLogRecPtr	upto;
} Written;

extern void lazy_commit_init(void);
extern Written lazy_commit_begin(void);
extern void lazy_commit_end(Written before);

/* sleep.c */

/* The statement that sleeps, and its transaction's resources. */
typedef struct Sleeper
{
	struct QueryDesc *query;	/* NULL: it keeps its snapshot */
	ResourceOwner owner;
} Sleeper;

/* When to give up waiting. */
typedef struct Deadline
{
	instr_time	start;
	int64		milliseconds;	/* from there */
} Deadline;

extern void sleep_nap(long milliseconds, const char *event);
extern Deadline sleep_deadline(Datum interval);
extern long sleep_left(const Deadline *deadline);
extern Sleeper sleep_prepare(FunctionCallInfo fcinfo);
extern void sleep_release_snapshot(const Sleeper *sleeper);
extern void sleep_restore_snapshot(const Sleeper *sleeper);

/* run_as.c */

/* Who ran before, and what must be put back. */
typedef struct RunAs
{
	Oid			userid;
	int			security;
	int			guc_level;
} RunAs;

extern void run_as_init(void);
extern RunAs run_as(Oid userid, bool restricted, const char *search_path);
extern void run_as_end(RunAs saved);
extern Oid	run_as_owner(Oid relid);
extern char *run_as_session_path(void);
extern SPIPlanPtr run_as_plan(const char *sql, int nargs, Oid *types,
							  int options);
extern uint64 run_own_sql(Oid log, const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);
extern uint64 run_own_query(Oid log, const char *sql, int nargs, Oid *types,
							Datum *values, const char *nulls);
extern Datum run_own_value(int column);
extern char *run_own_text(int column);

/* row.c */

/* A row of a table of ours, and its table. */
typedef struct Row
{
	Relation	rel;
	Relation	index;			/* of the primary key */
	Snapshot	snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} Row;

extern Oid	row_table(Oid log, const char *table);
extern bool row_alone(Oid log, const char *table);
extern void row_open(Row *row, Oid log, const char *table, LOCKMODE lock);
extern void row_close(Row *row);
extern void row_key(ScanKey key, Relation index, int column, int strategy,
					RegProcedure compare, Datum value);
extern void row_find(Row *row, const char *name, const int *number);
extern bool row_next(Row *row);
extern bool row_lock(Row *row, bool wait);
extern void row_update(Row *row, HeapTuple old, const Datum *values,
					   const bool *nulls, int count);

/* numbers.c */

/* Numbers of a column of type bigint[]. */
typedef struct Numbers
{
	int64	   *values;
	int			count;
	int			room;			/* for so many */
} Numbers;

extern Numbers numbers_of(Datum array);
extern ArrayType *numbers_array(Numbers numbers);
extern int64 numbers_last(Numbers numbers);
extern void numbers_append(Numbers *numbers, int64 value);
extern void numbers_prune(Numbers *numbers, int64 upto);
extern void numbers_skip(Numbers *numbers, int count);
extern bool numbers_have(const Numbers *numbers, int64 value);

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

	/* by event_check_identify */
	Datum		present;		/* data as of the type's schema version; 0:
								 * data is */

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
extern void log_count(const NewEvent *event, int appends);
extern bool log_is_appending(void);
extern void log_allow_rewrite(bool allow);
extern void log_duplicate_fail(const pg_uuid_t *id, const char *why);
extern Relation log_open_version_index(Relation log);
extern Relation log_open_position_index(Relation log);
extern Relation log_open_category_index(Relation log);
extern TriggerData *log_check_trigger(FunctionCallInfo fcinfo,
									  const char *relation);
extern void log_check_type(text *type);
extern void log_check_metadata(Datum metadata);

/* event_array.c */
extern Datum event_array_no_data(void);
extern NewEvent *event_array_make(text *stream, int count);
extern NewEvent *event_array_read(text *stream, Jsonb *array, int *count);

/* argument.c */
extern void argument_not_null(FunctionCallInfo fcinfo, int argument,
							  const char *name);
extern void argument_range(const char *name, int64 value, int64 least,
						   int64 greatest);
extern void argument_word(const char *name, const char *value,
						  const char *one, const char *other);
extern void argument_interval(const char *name, const Interval *interval,
							  bool zero_is_possible);
extern void argument_name(const char *of, const char *name, int limit);
extern int	argument_texts(const char *name, ArrayType *array,
						   Datum **values);
extern void argument_types(ArrayType *types);

/* handler_form.c */

/* What a function of a user must be like that is called from here. */
typedef struct HandlerForm
{
	Oid			result;
	Oid			arguments[2];
	int			count;			/* of them */
	const char *noun;			/* what it is called; NULL: a handler */
	const char *what;			/* a sentence */
	const char *declaration;
	const char *example;
} HandlerForm;

extern void handler_check_function(Oid function, const HandlerForm *form);

/* by_type.c */
typedef struct ByType ByType;

/* The function for one type. */
typedef struct TypeFunction
{
	char		type[ES_MAX_TYPE_LENGTH + 1];
	Oid			function;		/* 0: there is none */
	FmgrInfo	info;
	void	   *extra;			/* of the one who calls it */
} TypeFunction;

extern ByType *by_type_make(const char *schema, const char *prefix,
							const HandlerForm *form);
extern TypeFunction *by_type_function(ByType *by_type, text *type);

/* state_call.c */
typedef struct StateCall StateCall;

extern StateCall *state_call_make(Oid function, Oid other);
extern Datum state_call(StateCall *call, NullableDatum state, Datum other,
						bool *isnull);

/* event_type.c */

/* What kind of value an attribute must have. */
typedef enum AttributeKind
{
	ATTRIBUTE_ANY,
	ATTRIBUTE_STRING,
	ATTRIBUTE_NUMBER,
	ATTRIBUTE_INTEGER,
	ATTRIBUTE_BOOLEAN,
	ATTRIBUTE_OBJECT,
	ATTRIBUTE_ARRAY,
	ATTRIBUTE_SCALAR,			/* what a type of the server accepts */
	ATTRIBUTE_UNKNOWN			/* the table was written to without us */
} AttributeKind;

/* An attribute that a type of events says something about. */
typedef struct EventAttribute
{
	char	   *name;
	bool		required;
	bool		key;			/* is it part of the composite key? */
	AttributeKind kind;
	char	   *word;			/* that stands for the kind; NULL: none */
	FmgrInfo	input;			/* of a scalar */
	Oid			io_param;
} EventAttribute;

/* A type of events, as es_event_types has it. */
typedef struct EventType
{
	char	   *type;
	List	   *attributes;		/* of EventAttribute */
	ArrayType  *composite_key;	/* NULL: there is none */
	int			schema_version;
	Datum		stamp;			/* metadata that says it; 0: it is 1 */
} EventType;

/* A row of es_upcasters. */
typedef struct Upcaster
{
	char	   *type;
	int			from_version;
	char	   *signature;
	char	   *owner;
	char	   *search_path;
} Upcaster;

/* What metadata says about the schema version, if it is no version. */
#define SCHEMA_VERSION_NONE		0
#define SCHEMA_VERSION_BAD		(-1)

extern bool event_type_strict;

extern void event_type_init(void);
extern AttributeKind event_type_kind(const char *word, Oid *type);
extern int	event_type_version(Datum metadata);
extern uint64 event_type_generation(Oid log);
extern bool event_type_any(Oid log);
extern const EventType *event_type_find(Oid log, text *type);
extern const Upcaster *event_type_upcasters(Oid log, int *count);

/* upcast.c */
typedef struct Upcasting Upcasting;

extern List *upcast_functions(Oid log);
extern void upcast_check_function(Oid function);
extern Upcasting *upcast_begin(Oid log);
extern Datum upcast_data(Upcasting *upcasting, text *type, Datum data,
						 Datum metadata, int version);
extern TupleTableSlot *upcast_event(Upcasting *upcasting,
									TupleTableSlot *event);
extern void upcast_end(Upcasting *upcasting);

/* event_check.c */
extern void event_check_identify(Oid log, NewEvent *events, int count);
extern void event_check(Oid log, const NewEvent *events, int count);

/* decided.c */
extern int64 decided_read(Oid log, Snapshot snapshot);
extern bool decided_write(Oid log, int64 position);

/* horizon.c */
extern int64 horizon_find(Oid log, Snapshot snapshot);
extern int64 horizon_now(Oid log);
extern bool horizon_tell_standbys(Oid log);

/* events.c */

/* Which events somebody gets, and with whose rights they are read. */
typedef struct EventSource
{
	Oid			log;			/* es_events */
	Oid			reader;			/* a role */
	text	   *category;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	int			partitions;		/* 0 or 1: they are not divided */
	int			partition;
	Numbers		except;			/* positions that are left out */
	Numbers		only;			/* the only ones that are not; none: all */
} EventSource;

/* Events that are handled together. */
typedef struct Batch
{
	Tuplestorestate *events;	/* rows of es_events in position order */
	int64		count;
	int64		upto;			/* the checkpoint when they are handled */
	bool		history;		/* are they of a projection's past? */
} Batch;

extern Tuplestorestate *events_make_batch(void);
extern TupleTableSlot *events_make_slot(Relation log);
extern Datum events_record(Oid event_type, TupleTableSlot *event);
extern int64 events_last_position(Oid log, Tuplestorestate *events);
extern char *events_sql(Relation log, const char *condition);
extern void events_read_sql(Oid reader, Snapshot snapshot, const char *sql,
							int count, Oid *types, const Datum *values,
							const bool *nulls, Tuplestorestate *store);
extern bool events_may_read_all(Oid log, Oid reader);
extern void events_read(const EventSource *source, Snapshot snapshot,
						int64 after, int64 upto, int limit, Batch *batch);

/* stream_scan.c */
typedef struct StreamScan StreamScan;

extern StreamScan *stream_scan_open(Oid log, text *stream, int64 after,
									int64 upto, Snapshot snapshot);
extern StreamScan *stream_scan_open_occurred(Oid log, text *stream,
											 int64 upto, TimestampTz until,
											 Snapshot snapshot);
extern TupleTableSlot *stream_scan_next(StreamScan *scan);
extern void stream_scan_close(StreamScan *scan);

/* fingerprint.c */

/* The reducer of a schema is this function of the library, and calls these. */
#define ES_SCHEMA_REDUCER	"es_reduce"
#define ES_APPLY_PREFIX		"apply_"

/* A reducer, and what it is made of. */
typedef struct Reducer
{
	Oid			function;
	Oid			owner;
	char	   *signature;
	uint64		fingerprint;
	uint64		changes;		/* of functions, when it was read */
	uint64		generation;		/* of upcasters */
} Reducer;

extern bool fingerprint_is_of_schema(Oid function);
extern Reducer fingerprint_reducer(Oid log, Oid function);
extern bool fingerprint_is_current(Oid log, const Reducer *reducer);

/* snapshot.c */

/* A state of a stream. */
typedef struct KeptState
{
	int64		version;		/* of the last event in it; 0: none */
	TimestampTz recorded_at;	/* of the latest of its events */
	NullableDatum state;		/* jsonb */
} KeptState;

/* What states are of. */
typedef struct Folded
{
	Oid			log;			/* es_events */
	text	   *stream;
	Reducer		reducer;
	uint64		initial;		/* a hash of the state before the first event */
} Folded;

extern bool snapshot_find(const Folded *of, int64 upto, TimestampTz until,
						  Snapshot snapshot, KeptState *kept);
extern bool snapshot_keep(const Folded *of, const KeptState *kept);
extern bool snapshot_may_keep(void);

/* failure.c */

/* Stands for the pause until another attempt, if there will be none. */
#define FAILURE_PARKED	(-1.0)

/* Whose failures: a projection's or a subscription's. */
typedef struct FailureOwner
{
	Oid			log;
	const char *column;			/* "projection" or "subscription" */
	const char *name;
	int			partition;		/* -1: there are none */
} FailureOwner;

typedef enum FailureKind
{
	FAILURE_PROJECTION,
	FAILURE_SUBSCRIPTION,
	FAILURE_INBOX
} FailureKind;

/* A row of es_failures. */
typedef struct Failure
{
	int64		id;
	FailureKind kind;
	char	   *name;			/* of the projection or subscription */
	int			partition;
	char	   *stream;
	int64		position;
	int			attempts;
	bool		failed;			/* else it waits behind another */
} Failure;

extern void failure_error_values(const ErrorData *error, Datum *values,
								 char *nulls);
extern double failure_pause(int attempts);
extern void failure_add(FailureOwner owner, TupleTableSlot *event,
						const ErrorData *error, int attempts, double pause);
extern void failure_again(Oid log, int64 id, const ErrorData *error,
						  int attempts, double pause);
extern bool failure_remove(Oid log, int64 id);
extern void failure_remove_after(FailureOwner owner, int64 position);
extern bool failure_find(Oid log, int64 id, Failure *failure);
extern bool failure_first(FailureOwner owner, const char *stream,
						  Failure *failure);
extern List *failure_streams(FailureOwner owner, ArrayType *among);
extern void failure_release(FailureOwner owner, const char *stream);
extern int64 failure_make_due(FailureOwner owner, const char *stream);
extern void failure_remove_stream(FailureOwner owner, const char *stream,
								  int64 upto);
extern bool failure_at(FailureOwner owner, int64 position, Failure *failure);

/* aside.c */

/* An event that is set aside. */
typedef struct Aside
{
	MinimalTuple event;
	int64		position;
	ErrorData  *error;			/* NULL: it waits behind another */
	int			attempts;		/* how often it was tried */
} Aside;

extern List *aside_streams(FailureOwner owner, Batch *batch);
extern List *aside_take(Oid log, Batch *batch, const List *streams,
						List *aside);
extern List *aside_first(Oid log, const Batch *batch, ErrorData *error,
						 int attempts, List *aside, text **stream);
extern void aside_keep(FailureOwner owner, const List *aside,
					   double pause);

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
extern void notify_took(double milliseconds);

/* append.c */
extern int64 append_event(Oid relid, NewEvent *event);
extern int64 append_to_stream(Oid relid, text *stream, int64 expected,
							  NewEvent *events, int count, int64 *position);

/* import.c */
extern void import_init(void);

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
extern void projection_check_isolation(const char *function);
extern int64 projection_last_position(Oid log);
extern char *projection_relation_name(Oid relid);
extern void projection_read(const Projection *projection, Snapshot snapshot,
							int64 upto, int limit, Batch *batch);

/* handler.c */

extern void handler_apply(Projection *projection, Tuplestorestate *events,
						  bool history);
extern void handler_check(Projection *projection);
extern void handler_check_outside(const char *function);

/* merge.c */
typedef struct Merge Merge;

extern void merge_check_object(Datum value);
extern Merge *merge_begin(NullableDatum state, bool only_last);
extern void merge_add(Merge *merge, Datum data);
extern Datum merge_state(Merge *merge, bool *isnull);

/* reducer.c */
extern bool reducer_is_merge(const FmgrInfo *function, bool *only_last);
extern bool reducer_is_of_schema(const FmgrInfo *function);
extern Datum reducer_apply(FmgrInfo *reducer, NullableDatum state, text *type,
						   Datum data, bool *isnull);

/* fold.c */

/* The fold of a stream. */
typedef struct Fold
{
	Folded		of;
	FmgrInfo	function;		/* the reducer's */
	StateCall  *call;			/* of it; NULL: not needed so far */
	NullableDatum initial;		/* the state before the first event */
	Oid			event_type;		/* of its second argument */
	Upcasting  *upcasting;
	bool		reads_all;		/* may the caller read all events? */
	int64		at;				/* version of the event that is being folded */
	bool		dense;			/* must each version follow the last one? */
	KeptState	state;			/* so far */
	int64		folded;			/* so many events, since a state was kept */
	void		(*each) (struct Fold *fold, TupleTableSlot *event);
	void	   *each_data;		/* called after each event; NULL: not */

	MemoryContext context;		/* of the state */
	MemoryContext next;			/* of the next one */
} Fold;

extern void fold_init(void);
extern void fold_begin(Fold *fold, Oid log, text *stream, Oid reducer,
					   Datum initial, bool isnull);
extern void fold_from_snapshot(Fold *fold, Snapshot snapshot, int64 upto,
							   TimestampTz until);
extern void fold_events(Fold *fold, StreamScan *scan, TimestampTz until);
extern void fold_stream(Fold *fold, Snapshot snapshot, int64 upto,
						TimestampTz until);
extern bool fold_keep_now(Fold *fold);
extern void fold_keep(Fold *fold);
extern void fold_restart(Fold *fold);
extern void fold_end(Fold *fold);
extern Datum fold_result(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

/* projection_run.c */

/* Handling the past of a projection again, or for the first time. */
typedef struct Replay
{
	bool		park;			/* set bad events aside; else raise the error */
	void		(*progress) (const Projection *projection,
							 const struct Replay *replay);
	void	   *progress_data;
	int64		handled;
	List	   *parked;			/* for projection_keep_parked */
	List	   *streams;		/* that are parked */
} Replay;

extern bool projection_run_due(Oid log);
extern ErrorData *projection_try(Projection *projection, const Batch *batch,
								 bool own_transaction);
extern void projection_replay(Projection *projection, Snapshot snapshot,
							  int64 upto, Replay *replay);
extern void projection_keep_parked(const Projection *projection, List *parked);

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

/* subscription.c */

/* The last bits of a token are the number of its partition. */
#define ES_MAX_PARTITIONS		1024

/* A subscription, as es_subscriptions has it. */
typedef struct Subscription
{
	Oid			log;			/* es_events */
	char	   *name;
	Oid			owner;			/* 0: there is no role of this name */
	char	   *owner_name;
	text	   *category;		/* NULL: any */
	ArrayType  *types;			/* NULL: any */
	int			partitions;
	Interval	lease;
	int			max_attempts;
	int			max_in_flight;
} Subscription;

extern void subscription_own(Oid log, const char *name,
							 Subscription *subscription);
extern FailureOwner subscription_failures(Oid log, const char *name,
										  int partition);

/* partition.c */

/* A partition of a subscription, as es_partitions has it. */
typedef struct Partition
{
	Subscription subscription;
	HeapTuple	row;			/* as it is stored */
	int			number;
	TimestampTz served_at;		/* 0: never */
	int64		position;		/* the checkpoint */
	int64		reached;		/* up to here there is nothing else to deliver */
	char	   *consumer;		/* who has it in hand; NULL: unknown */
	TimestampTz leased_until;	/* 0: nothing is in hand */
	int64		token;			/* the last one */
	int64		acked_token;
	Numbers		tokens;			/* of the deliveries in hand */
	Numbers		uptos;			/* the last position of each */
	Numbers		counts;			/* how many events of each are in hand */
	char	   *stream;			/* of es_failures that is in hand; else NULL */
	Numbers		settled;		/* by es_nack, after the checkpoint */
	Numbers		lost_upto;		/* events up to here, from the checkpoint on, */
	Numbers		lost_times;		/* were delivered so often and lost */
	bool		has_failures;	/* may it have any? */
	TimestampTz due_at;			/* a parked stream may be due; 0: none is */
} Partition;

extern List *partition_list(const Subscription *subscription);
extern Partition *partition_lock(const Subscription *subscription, int number,
								 bool wait);
extern Partition *partition_own(Oid log, const char *name, int number);
extern void partition_write(Partition *partition, bool served);
extern FailureOwner partition_failures(const Partition *partition);
extern bool partition_in_hand(const Partition *partition);
extern void partition_look_for_due(Partition *partition);
extern void partition_move(Partition *partition, int64 position);
extern void partition_free(Partition *partition);
extern void partition_extend_lease(Partition *partition);
extern int	partition_find_token(const Partition *partition, int64 token);
extern void partition_refuse_token(const Partition *partition, int64 token);
extern int	partition_number(int64 token);
extern Partition *partition_of_token(Oid log, const char *name, int64 token);
extern EventSource partition_source(const Partition *partition);

/* delivery.c */

/* Where a partition was found to have nothing to be delivered. */
typedef struct Scanned
{
	int64		from;			/* after this */
	int64		to;				/* up to this */
} Scanned;

/* What a consumer asks for, and gets. */
typedef struct Delivery
{
	Oid			log;
	const char *name;			/* of the subscription */
	const char *consumer;		/* NULL: it has no name */
	int			max_count;
	int64		after_token;	/* 0: none */
	Scanned    *scanned;		/* by partition; NULL: not remembered */

	Partition  *partition;		/* what is delivered is of */
	Batch		batch;			/* the events */
	Numbers		positions;		/* of a parked stream: those of the events */
	Numbers		attempts;		/* and which attempt it is at each */

	int64		horizon;
	int64		lost_upto;		/* end of the delivery that was just lost */
	bool		checkpoint_moved;	/* it must not go back any more */
} Delivery;

extern int	delivery_lost(const Partition *partition, int64 position);
extern int	delivery_attempt(const Delivery *delivery, int64 position,
							 int *number);
extern bool delivery_peek(Delivery *delivery);
extern bool delivery_make(Delivery *delivery, bool final);
extern TimestampTz delivery_next_time(const Delivery *delivery);

/* inbox.c */
extern int64 inbox_retry(Oid log, int64 failure_id);
extern void inbox_discard(Oid log, int64 failure_id);

/* worker.c */
extern void worker_init(void);

#endif							/* EVENTSTORE_H */
