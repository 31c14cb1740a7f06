/*-------------------------------------------------------------------------
 *
 * base.h
 *		What the other rooms are built on: PostgreSQL, without events.
 *
 * In the functions below "log" is the oid of es_events, whose schema is that of all
 * relations of the extension.
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
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

/* uuid.c */

/* Makes a UUID of version 7, greater than the one before in this backend. */
extern void uuid_generate_v7(pg_uuid_t *uuid);

/* The UUID of version 5 of a name in the server's encoding. */
extern pg_uuid_t *uuid_generate_v5(const pg_uuid_t *namespace, const char *name,
								   int length);
extern char *uuid_to_cstring(const pg_uuid_t *uuid);
extern const pg_uuid_t uuid_namespace_oid;	/* RFC 9562 */

/* subtransaction.c */

/*
 * Does work in a subtransaction.  The work returns true if what it wrote is to
 * stay.  Returns the error that it ended with, in the current memory context, or
 * NULL.  A cancel or a shutdown is raised again.
 */
extern ErrorData *subtransaction_try(bool (*work) (void *arg), void *arg);

/* async_commit.c */

/* What a transaction had written before something that may be lost. */
typedef struct CommitProgress
{
	bool		has_id;			/* it may have written something */
	XLogRecPtr	upto;
} CommitProgress;

/* What was written between the two may be lost in a crash. */
extern CommitProgress async_commit_begin(void);
extern void async_commit_end(CommitProgress before);
extern void async_commit_init(void);

/* sleep.c */

/* The statement that sleeps, and its transaction's resources. */
typedef struct Sleeper
{
	struct QueryDesc *query;	/* NULL: it keeps its snapshot */
	ResourceOwner owner;
} Sleeper;

/* When waiting ends. */
typedef struct Deadline
{
	instr_time	start;
	int64		milliseconds;	/* from there */
} Deadline;

/* Sleeps for this time or until the latch is set; pg_stat_activity shows the event. */
extern void sleep_until_latch(long milliseconds, const char *event);
extern void sleep_nap(long milliseconds, const char *event);	/* with interrupts */

/* An interval from now, whatever the wall clock does, and what is left of it in ms. */
extern Deadline sleep_deadline(Datum interval);
extern long sleep_left(const Deadline *deadline);

/*
 * Ends the time before the statement's or the transaction's time-out, so that what was
 * done can still be written.
 */
extern void sleep_heed_timeouts(Deadline *deadline);

/* Finds out whether the calling statement can sleep without its snapshot. */
extern Sleeper sleep_prepare(FunctionCallInfo fcinfo);

/* Releases the statement's snapshot, and takes a new one, if it can. */
extern void sleep_release_snapshot(const Sleeper *sleeper);
extern void sleep_restore_snapshot(const Sleeper *sleeper);

/* own_table.c */

/* The extension's relation of this name.  Error: it does not exist. */
extern Oid	own_table_in_schema(Oid schema, const char *name);
extern Oid	own_table_relid(Oid log, const char *table);
extern char *own_table_quoted_name(Oid relid);	/* for a statement */

/* Locks out others like the caller until the transaction ends; false if one is there. */
extern bool own_table_try_lock(Oid log, const char *table);

/* The data of a trigger of this relation of the extension; an error if it is not. */
extern TriggerData *own_trigger_data(FunctionCallInfo fcinfo,
									 const char *relation);

/* own_sql.c */

/* The plan of one of few statements, made once in a session; options as for SPI. */
extern SPIPlanPtr own_sql_cached_plan(const char *sql, int nargs, Oid *types,
									  int options);

/*
 * Runs a statement as the owner of the log, with a new snapshot, or, by
 * own_sql_select, with the active one.  In its text @extschema@ is the extension's
 * schema.  nulls: as for SPI.  SPI must be connected, and has the result.  Returns
 * the number of rows.
 */
extern uint64 own_sql_run(Oid log, const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);
extern uint64 own_sql_select(Oid log, const char *sql, int nargs, Oid *types,
							 Datum *values, const char *nulls);

/* Counts changes of schemas that this session has noticed, since its first such statement. */
extern uint64 own_sql_schema_changes(void);

/* A column of the result's first row; 0 or NULL for null. */
extern Datum own_sql_value(int column);
extern char *own_sql_text(int column);

/* table_row.c */

/* A row of one of the extension's tables, and its table. */
typedef struct TableRow
{
	Relation	rel;
	Relation	index;			/* of the primary key */
	Snapshot	snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} TableRow;

/* Opens a table to look up its rows; locks stay to the transaction's end. */
extern void table_row_open(TableRow *row, Oid log, const char *table, LOCKMODE lock);
extern void table_row_close(TableRow *row);

/* Makes a scan key: the index's column, from 1, must compare so with the value. */
extern void table_row_key(ScanKey key, Relation index, int column, int strategy,
						  RegProcedure compare, Datum value);

/* Looks for rows by the first columns of the primary key; number: NULL for any. */
extern void table_row_find(TableRow *row, const char *name, const int *number);

/* Takes the next row into row->slot; returns false if there is none. */
extern bool table_row_next(TableRow *row);

/* A number of the row that the index has last, as the snapshot sees it; 0 without one. */
extern int64 table_row_last_number(Relation rel, Relation index, int column, Snapshot snapshot);

/* Locks the last version of the row; false if it is gone, or is not waited for. */
extern bool table_row_lock(TableRow *row, bool wait);

/* Writes the first columns of a row that was locked and copied. */
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
extern int64 int8_array_last(Int8Array numbers);	/* 0 without one */
extern void int8_array_append(Int8Array *numbers, int64 value);
extern void int8_array_remove_upto(Int8Array *numbers, int64 upto);
extern void int8_array_remove_first(Int8Array *numbers, int count);
extern bool int8_array_has(const Int8Array *numbers, int64 value);

/* argument.c: each refuses an argument of an SQL function that is wrong by itself */

/* argument: its number, from 0. */
extern void argument_not_null(FunctionCallInfo fcinfo, int argument,
							  const char *name);
extern void argument_range(const char *name, int64 value, int64 least,
						   int64 greatest);

/* Returns a bigint argument that fits an integer within bounds; not null. */
extern int32 argument_int32(FunctionCallInfo fcinfo, int argument,
							const char *name, int32 least, int32 greatest);

/* Refuses both a list and all: the argument all is true. */
extern void argument_list_or_all(FunctionCallInfo fcinfo, int list, const char *list_name,
								 int all, const char *all_name);

/* Returns a boolean argument; null is false. */
extern bool argument_is_true(FunctionCallInfo fcinfo, int argument);
extern void argument_word(const char *name, const char *value,
						  const char *one, const char *other);
extern void argument_interval(const char *name, const Interval *interval,
							  bool zero_is_possible);

/* The name must have 1 to limit bytes.  of: what has it, with its article. */
extern void argument_name(const char *of, const char *name, int limit);

/* Takes an array without nulls apart, and returns the number of its texts. */
extern int	argument_texts(const char *name, ArrayType *array,
						   Datum **values);

/* Makes an array of text of JSON strings; NULL, and a number, if an element is none. */
extern ArrayType *argument_json_texts(JsonbContainer *array, int *wrong);
extern void isolation_check(const char *function);	/* READ COMMITTED it must
													 * be */

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

/* Refuses a function with another signature, or that the user may not execute. */
extern void user_function_check(Oid function,
								const FunctionSignature *signature);

/* Finds the function that an es_function or a stored signature names; checks it, too. */
extern Oid	user_function_find(const char *name, const FunctionSignature *signature);
extern char *user_function_name(Oid function);	/* to be stored */

#endif							/* EVENTSTORE_BASE_H */
