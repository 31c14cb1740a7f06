/*-------------------------------------------------------------------------
 *
 * base.h
 *		What the rest stands on: PostgreSQL, and no word of events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_BASE_H
#define EVENTSTORE_BASE_H

#include "access/genam.h"
#include "access/tupdesc.h"
#include "commands/trigger.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "portability/instr_time.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

/* uuid.c */
extern void uuid_generate_v7(pg_uuid_t *uuid);
extern pg_uuid_t *uuid_generate_v5(const pg_uuid_t *namespace, const char *name,
								   int length);
extern char *uuid_to_cstring(const pg_uuid_t *uuid);

/* subtransaction.c */
extern ErrorData *subtransaction_try(bool (*work) (void *arg), void *arg);

/* async_commit.c */

/* What a transaction had written before something that may be lost. */
typedef struct CommitProgress
{
	bool		has_id;			/* it may have written something */
	XLogRecPtr	upto;
} CommitProgress;

extern void async_commit_init(void);
extern CommitProgress async_commit_begin(void);
extern void async_commit_end(CommitProgress before);

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

extern void sleep_until_latch(long milliseconds, const char *event);
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

extern RunAs run_as(Oid userid, bool restricted, const char *search_path);
extern void run_as_end(RunAs saved);
extern Oid	run_as_owner(Oid relid);
extern char *run_as_session_path(void);

/* own_table.c */
extern Oid	own_table_in_schema(Oid schema, const char *name);
extern Oid	own_table_relid(Oid log, const char *table);
extern bool own_table_try_lock(Oid log, const char *table);
extern TriggerData *own_trigger_data(FunctionCallInfo fcinfo,
									 const char *relation);

/* own_sql.c */
extern SPIPlanPtr own_sql_cached_plan(const char *sql, int nargs, Oid *types,
									  int options);
extern uint64 own_sql_run(Oid log, const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);
extern uint64 own_sql_select(Oid log, const char *sql, int nargs, Oid *types,
							 Datum *values, const char *nulls);
extern Datum own_sql_value(int column);
extern char *own_sql_text(int column);

/* table_row.c */

/* A row of a table of ours, and its table. */
typedef struct TableRow
{
	Relation	rel;
	Relation	index;			/* of the primary key */
	Snapshot	snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} TableRow;

extern void table_row_open(TableRow *row, Oid log, const char *table, LOCKMODE lock);
extern void table_row_close(TableRow *row);
extern void table_row_key(ScanKey key, Relation index, int column, int strategy,
						  RegProcedure compare, Datum value);
extern void table_row_find(TableRow *row, const char *name, const int *number);
extern bool table_row_next(TableRow *row);
extern bool table_row_lock(TableRow *row, bool wait);
extern void table_row_update(TableRow *row, HeapTuple old, const Datum *values,
							 const bool *nulls, int count);

/* int8_array.c */

/* Numbers of a column of type bigint[]. */
typedef struct Int8Array
{
	int64	   *values;
	int			count;
	int			room;			/* for so many */
} Int8Array;

extern Int8Array int8_array_read(Datum array);
extern ArrayType *int8_array_make(Int8Array numbers);
extern int64 int8_array_last(Int8Array numbers);
extern void int8_array_append(Int8Array *numbers, int64 value);
extern void int8_array_remove_upto(Int8Array *numbers, int64 upto);
extern void int8_array_remove_first(Int8Array *numbers, int count);
extern bool int8_array_has(const Int8Array *numbers, int64 value);

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
extern void isolation_check(const char *function);

/* user_function.c */

/* What a user's function that is called from here must be like. */
typedef struct FunctionSignature
{
	Oid			result;
	Oid			arguments[2];
	int			count;			/* of them */
	const char *noun;			/* what it is called; NULL: a handler */
	const char *what;			/* a sentence */
	const char *declaration;
	const char *example;
} FunctionSignature;

/*
 * Refuses a function that has another signature, or that the current user may
 * not execute.
 */
extern void user_function_check(Oid function,
								const FunctionSignature *signature);

/*
 * Finds the function that an es_function or a stored signature names, and checks
 * it.  Errors: those of user_function_check, and there is no such function.
 */
extern Oid	user_function_find(const char *name,
							   const FunctionSignature *signature);

#endif							/* EVENTSTORE_BASE_H */
