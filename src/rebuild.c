/*-------------------------------------------------------------------------
 *
 * rebuild.c
 *		es_rebuild_projection(): the read model is made anew from the whole log
 *		while it is read and kept up to date.
 *
 *	1. Temporary tables with the names of the projection's tables are made.
 *	2. The log is replayed into them: the handler finds them first, as pg_temp
 *	   is first in its search_path.  The old rows are not touched; the
 *	   projection goes on with them in other sessions.  A handler that writes to
 *	   its tables by other names is found out by the lock that this takes, and
 *	   refused.
 *	3. The projection's row is locked, for a sync one appends, too
 *	   (ShareRowExclusiveLock on es_events), and what came meanwhile is
 *	   replayed.
 *	4. The swap: in the old tables what is not as in the new ones is deleted,
 *	   changed, inserted, children before their parents and after them.
 *	   Readers see the old rows until the commit, then the new ones; the tables
 *	   are the same, and so is all that depends on them.
 *	5. Checkpoint and failures are written, the temporary tables dropped.
 *
 * All of it is one transaction: an error, a cancel or a crash leaves the old
 * rows as they were.  How far it is, other sessions see as locks: of all that a
 * transaction does, only locks show before its commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "eventstore.h"

PG_FUNCTION_INFO_V1(es_rebuild_projection);

/*
 * Classes of advisory locks that users cannot reach; es_projection_status
 * looks for the first two.  The key is the hash of the projection's name, and
 * how far the rebuild is (0: it is one, n + 1: n thousandths are done), or
 * when it began.
 */
#define PROGRESS_LOCK_CLASS	4
#define BEGIN_LOCK_CLASS	5

#define DONE				1000	/* thousandths */

/* So many dead rows, and twice as many as live ones, are too many. */
#define COMPACT_AFTER		1000

/* Where live rows are kept meanwhile. */
#define COMPACT_TABLE		"pg_temp.es_rebuild_rows"
#define NOTICE_STEP			100

/* A rebuild that is going on. */
typedef struct Rebuild
{
	Projection *projection;
	List	   *tables;
	int64		from;			/* positions between which it replays */
	int64		upto;
	int			progress;		/* thousandths */
} Rebuild;

/* A table of the read model. */
typedef struct Table
{
	Oid			relid;
	Oid			new_relid;
	char	   *old;			/* names, as SQL wants them */
	char	   *new;
	char	   *columns;		/* that can be inserted */
	char	   *changes;		/* assignments from s, for UPDATE */
	char	   *same_key;		/* t and s have one primary key; NULL: none */
	bool		referenced;		/* by foreign keys */
	int64		rows;			/* in the new one, when it was compacted last */
} Table;

static void
set_tag(LOCKTAG *tag, const Projection *projection, uint32 number, int class)
{
	uint32		hash = DatumGetUInt32(DirectFunctionCall1Coll(hashtext,
															  C_COLLATION_OID,
															  CStringGetTextDatum(projection->name)));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, hash, number, class);
}

/*
 * Makes the rebuild the only one of the projection, and says when it began.
 */
static void
lock_rebuild(const Projection *projection)
{
	pg_time_t	now = timestamptz_to_time_t(GetCurrentTimestamp());
	LOCKTAG		tag;

	set_tag(&tag, projection, 0, PROGRESS_LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("projection \"%s\" is being rebuilt", projection->name),
				 errdetail("Another transaction rebuilds it."),
				 errhint("es_projection_status shows how far it is.")));
	set_tag(&tag, projection, 1, PROGRESS_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	set_tag(&tag, projection, (uint32) now, BEGIN_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Shows how far the rebuild is. */
static void
show_progress(Rebuild *rebuild, int progress)
{
	const Projection *projection = rebuild->projection;
	LOCKTAG		tag;

	if (progress == rebuild->progress)
		return;
	set_tag(&tag, projection, progress + 1, PROGRESS_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	set_tag(&tag, projection, rebuild->progress + 1, PROGRESS_LOCK_CLASS);
	(void) LockRelease(&tag, ExclusiveLock, false);
	if (progress / NOTICE_STEP != rebuild->progress / NOTICE_STEP)
		ereport(NOTICE,
				(errmsg("rebuilding projection \"%s\": %d %%",
						projection->name, progress / 10)));
	rebuild->progress = progress;
}

/*
 * Refuses to go on when this transaction has written to one of the tables.
 */
static void
check_untouched(const Projection *projection, const char *detail,
				const char *hint)
{
	ListCell   *cell;

	foreach(cell, projection->tables)
	{
		Relation	table = table_open(lfirst_oid(cell), AccessShareLock);

		if (CheckRelationLockedByMe(table, RowExclusiveLock, true))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("projection \"%s\" cannot be rebuilt",
							projection->name),
					 errdetail(detail, RelationGetRelationName(table)),
					 errhint("%s", hint)));
		table_close(table, AccessShareLock);
	}
}

/*
 * Runs a statement as the projection's owner, under whose tables' policies it
 * fails rather than leaves rows out.
 */
static uint64
run_sql(const Projection *projection, const char *sql)
{
	RunAs		saved = run_as(projection->owner, false, "pg_catalog, pg_temp");
	MemoryContext context = CurrentMemoryContext;
	int			result;

	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	MemoryContextSwitchTo(context);
	run_as_end(saved);
	return SPI_processed;
}

/* A text that a statement of run_sql returns; NULL for null. */
static char *
run_text(const Projection *projection, const char *sql)
{
	(void) run_sql(projection, sql);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Looks up what the statements on a table need.
 */
static Table *
describe_table(const Projection *projection, Oid relid)
{
	Table	   *table = palloc0(sizeof(Table));

	table->relid = relid;
	table->old = projection_relation_name(relid);
	table->new = psprintf("pg_temp.%s", quote_identifier(get_rel_name(relid)));
	table->columns =
		run_text(projection,
				 psprintf("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)"
						  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
						  " AND NOT attisdropped AND attgenerated = ''", relid));
	table->changes =
		run_text(projection,
				 psprintf("SELECT string_agg(format('%%1$I = s.%%1$I', attname), ', ')"
						  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
						  " AND NOT attisdropped AND attgenerated = ''"
						  " AND attidentity <> 'a'", relid));
	table->same_key =
		run_text(projection,
				 psprintf("SELECT string_agg(format('t.%%1$I = s.%%1$I', a.attname), ' AND ')"
						  " FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
						  " AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])"
						  " WHERE i.indrelid = %u AND i.indisprimary", relid));
	table->referenced =
		run_sql(projection,
				psprintf("SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = %u",
						 relid)) > 0;
	return table;
}

/* Does the first table refer to the second by a foreign key? */
static bool
refers_to(const Projection *projection, const Table *child,
		  const Table *parent)
{
	return child != parent &&
		run_sql(projection,
				psprintf("SELECT FROM pg_constraint WHERE contype = 'f'"
						 " AND conrelid = %u AND confrelid = %u",
						 child->relid, parent->relid)) > 0;
}

/* The first of the tables that refers to no other of them; else the first. */
static Table *
next_parent(const Projection *projection, List *tables)
{
	ListCell   *child;
	ListCell   *parent;

	foreach(child, tables)
	{
		bool		refers = false;

		foreach(parent, tables)
			refers = refers ||
			refers_to(projection, lfirst(child), lfirst(parent));
		if (!refers)
			return lfirst(child);
	}
	return linitial(tables);
}

/*
 * The projection's tables, parents before their children.
 */
static List *
describe_tables(const Projection *projection)
{
	List	   *tables = NIL;
	List	   *ordered = NIL;
	ListCell   *cell;

	foreach(cell, projection->tables)
		tables = lappend(tables, describe_table(projection, lfirst_oid(cell)));
	while (tables != NIL)
	{
		Table	   *next = next_parent(projection, tables);

		tables = list_delete_ptr(tables, next);
		ordered = lappend(ordered, next);
	}
	return ordered;
}

/*
 * Makes the tables that will be filled.  Plans that know the old ones are made
 * again, as no temporary table of the same name was there when they were made.
 */
static void
make_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		(void) run_sql(projection,
					   psprintf("CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING ALL)",
								table->new, table->old));
		table->new_relid =
			get_relname_relid(get_rel_name(table->relid),
							  LookupExplicitNamespace("pg_temp", false));
	}
	ResetPlanCache();
}

/*
 * Rewrites a new table.  What the transaction itself has updated or deleted
 * cannot be removed before its end, and each look at a row that is updated
 * often would pass all that it was before.
 */
static void
compact_table(const Projection *projection, Table *table)
{
	(void) run_sql(projection,
				   psprintf("CREATE TEMPORARY TABLE %s AS SELECT %s FROM %s",
							COMPACT_TABLE, table->columns, table->new));
	(void) run_sql(projection, psprintf("TRUNCATE %s", table->new));
	table->rows =
		run_sql(projection,
				psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
						 " SELECT %s FROM %s", table->new, table->columns,
						 table->columns, COMPACT_TABLE));
	(void) run_sql(projection, "DROP TABLE " COMPACT_TABLE);
}

/* Rows of the table that this transaction has made dead. */
static int64
count_dead(const Table *table)
{
	Datum		relid = ObjectIdGetDatum(table->new_relid);

	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, relid)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, relid));
}

static void
compact_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		if (count_dead(table) > COMPACT_AFTER + 2 * table->rows)
			compact_table(projection, table);
	}
}

static void
drop_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
		(void) run_sql(projection,
					   psprintf("DROP TABLE %s", ((Table *) lfirst(cell))->new));
}

/*
 * Deletes what is not in the new table.  A changed row is deleted, too, and
 * inserted again, unless others refer to it.
 */
static void
delete_rows(const Projection *projection, const Table *table)
{
	if (table->same_key == NULL)
		(void) run_sql(projection, psprintf("DELETE FROM %s", table->old));
	else
		(void) run_sql(projection,
					   psprintf("DELETE FROM %s AS t WHERE NOT EXISTS"
								" (SELECT FROM %s AS s WHERE %s%s)",
								table->old, table->new, table->same_key,
								table->referenced ? "" : " AND t.* *= s.*"));
}

static void
update_rows(const Projection *projection, const Table *table)
{
	if (table->same_key != NULL && table->referenced && table->changes != NULL)
		(void) run_sql(projection,
					   psprintf("UPDATE %s AS t SET %s FROM %s AS s"
								" WHERE %s AND NOT t.* *= s.*",
								table->old, table->changes, table->new,
								table->same_key));
}

static void
insert_rows(const Projection *projection, const Table *table)
{
	char	   *missing = table->same_key == NULL ? "" :
	psprintf(" WHERE NOT EXISTS (SELECT FROM %s AS t WHERE %s)",
			 table->old, table->same_key);

	(void) run_sql(projection,
				   psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
							" SELECT %s FROM %s AS s%s",
							table->old, table->columns, table->columns,
							table->new, missing));
}

/*
 * The new table has numbered its rows by sequences of its own: those of the
 * old one go on after them.
 */
static void
move_sequences(const Projection *projection, const Table *table)
{
	char	   *sql =
	run_text(projection,
			 psprintf("SELECT string_agg(format("
					  "'SELECT setval(%%1$L, max(%%2$I)) FROM %%3$s"
					  " HAVING max(%%2$I) > (SELECT last_value FROM %%1$s)',"
					  " pg_get_serial_sequence(%s, attname), attname, %s), '; ')"
					  " FROM pg_attribute WHERE attrelid = %u AND attnum > 0"
					  " AND NOT attisdropped AND attidentity <> ''",
					  quote_literal_cstr(table->old),
					  quote_literal_cstr(table->old), table->relid));

	if (sql != NULL)
		(void) run_sql(projection, sql);
}

/*
 * Makes the old tables as the new ones are.
 */
static void
swap_tables(const Projection *projection, List *tables)
{
	ListCell   *cell;
	int			i;

	foreach(cell, tables)
	{
		Table	   *table = lfirst(cell);

		(void) run_sql(projection,
					   psprintf("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
								table->old));
		(void) run_sql(projection, psprintf("ANALYZE %s", table->new));
	}
	for (i = list_length(tables) - 1; i >= 0; i--)
		delete_rows(projection, list_nth(tables, i));
	foreach(cell, tables)
		update_rows(projection, lfirst(cell));
	foreach(cell, tables)
	{
		insert_rows(projection, lfirst(cell));
		move_sequences(projection, lfirst(cell));
	}
}

/* After each batch of the replay. */
static void
note_progress(const Projection *projection, const Replay *replay)
{
	Rebuild    *rebuild = replay->progress_data;
	double		done = projection->position - rebuild->from;
	double		all = Max(rebuild->upto - rebuild->from, 1);

	check_untouched(projection,
					"The handler has written to table \"%s\" itself: it is filled under its name without a schema.",
					"Let the handler name its tables without their schemas, and not be of LANGUAGE sql with BEGIN ATOMIC.");
	compact_tables(projection, rebuild->tables);
	show_progress(rebuild, Min(DONE * done / all, DONE));
}

/* Replays what is decided now. */
static void
replay_decided(Rebuild *rebuild, Replay *replay, int64 at_least)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	rebuild->upto = Max(horizon_find(rebuild->projection->log, snapshot),
						at_least);
	projection_replay(rebuild->projection, snapshot, rebuild->upto, replay);
	UnregisterSnapshot(snapshot);
}

/*
 * Step 3 of the header.
 */
static void
replay_rest(Rebuild *rebuild, Replay *replay)
{
	Projection *current = projection_own(rebuild->projection->log,
										 rebuild->projection->name);

	if (current->created_at != rebuild->projection->created_at)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is another one now", current->name),
				 errdetail("It was dropped and created again while it was rebuilt."),
				 errhint("Rebuild it again.")));
	if (current->sync && current->running)
	{
		LockRelationOid(current->log, ShareRowExclusiveLock);
		projection_finish(rebuild->projection, replay);
	}
	else
		replay_decided(rebuild, replay, current->position);
}

/* Writes checkpoint and failures; what had stopped the projection is past. */
static void
write_row(const Projection *projection, const Replay *replay)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(projection->position);

	failure_remove_all(projection->log, projection->name);
	projection_keep_parked(projection, replay->parked);
	projection_update(projection,
					  "position = $2, state = CASE state WHEN 'failed' THEN"
					  " 'running' ELSE state END" PROJECTION_NO_ERROR,
					  1, &type, &value, NULL);
}

/* Refreshes a view, whatever its min_interval. */
static void
rebuild_view(Projection *projection)
{
	handler_apply(projection, NULL, true);
	projection_update(projection, "refreshed_at = clock_timestamp()",
					  0, NULL, NULL, NULL);
}

/*
 * Steps 1 to 5 of the header; returns the number of events.
 */
static int64
rebuild_tables(Projection *projection)
{
	Rebuild		rebuild = {.projection = projection};
	Replay		replay = {.progress = note_progress,.progress_data = &rebuild,
	.park = projection->park && !projection->sync};

	check_untouched(projection,
					"The transaction has written to table \"%s\" before.",
					"Call es_rebuild_projection() in a transaction of its own.");
	lock_rebuild(projection);
	rebuild.tables = describe_tables(projection);
	make_tables(projection, rebuild.tables);
	projection->rebuilding = true;
	projection->batch_limit = 0;
	projection->position = rebuild.from = projection->start_position;
	replay_decided(&rebuild, &replay, 0);
	replay_rest(&rebuild, &replay);
	show_progress(&rebuild, DONE);
	swap_tables(projection, rebuild.tables);
	write_row(projection, &replay);
	drop_tables(projection, rebuild.tables);
	return replay.handled;
}

/* A rebuild needs to know what to refill. */
static void
check_tables(const Projection *projection)
{
	if (projection->tables == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" has no tables to rebuild",
						projection->name),
				 errdetail("It was created without the argument \"tables\"."),
				 errhint("Drop it and create it again with the tables of its read model; drop leaves them.")));
}

/*
 * es_rebuild_projection(name) returns bigint: makes the read model anew;
 * returns how many events were handled.
 */
Datum
es_rebuild_projection(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Projection *projection;
	int64		handled = 0;

	PreventCommandIfReadOnly("es_rebuild_projection()");
	projection_check_isolation("es_rebuild_projection()");
	SPI_connect();
	projection = projection_get(log, text_to_cstring(PG_GETARG_TEXT_PP(0)), "");
	projection_check_owner(projection);
	if (projection->kind == PROJECTION_REFRESH)
		rebuild_view(projection_own(log, projection->name));
	else
	{
		check_tables(projection);
		handled = rebuild_tables(projection);
	}
	SPI_finish();
	PG_RETURN_INT64(handled);
}
