/*-------------------------------------------------------------------------
 *
 * restore.c
 *		How a store becomes complete after a restore (doc/internals/copies.md).
 *
 *	1. CREATE EXTENSION in a session that restores closes the store
 *	   (es_definitions_close), and so does a row of es_user_definitions that comes from a
 *	   dump (es_definitions_arrive, a CHECK constraint, which is evaluated where
 *	   triggers are disabled, too);
 *	2. a deferred trigger replays the row, when the transaction ends that has loaded it
 *	   or, if it is later, the events;
 *	3. if every definition is there the row is deleted and the store is opened.  Else
 *	   it stays, and es_finish_restore() goes on.
 *
 * All of it is under ShareRowExclusiveLock on es_events, or a stronger one: a load of the
 * log, a replay and es_finish_restore() come one after the other.  Each definition is a
 * subtransaction.  An error in between, or a crash, leaves the store closed, and what
 * was committed; a definition that is there is found by its statement and not made
 * again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"
#include "restore/restore.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/tags.h"
#include "identity/identity.h"
#include "notify/notify.h"
#include "projection/projection_define.h"

PG_FUNCTION_INFO_V1(es_definitions_arrive);
PG_FUNCTION_INFO_V1(es_definitions_replay);
PG_FUNCTION_INFO_V1(es_definitions_close);
PG_FUNCTION_INFO_V1(es_definitions_altered);
PG_FUNCTION_INFO_V1(es_finish_restore);

#define RESULT_COLUMNS	6

/* A replay. */
typedef struct Restore
{
	Oid			log;
	bool		discard;		/* what fails is left out */
	ReturnSetInfo *result;		/* gets a row for each definition, or NULL */
	List	   *present;		/* definitions that were there before */
	List	   *rows;			/* ctids of rows that were replayed */
	List	   *wanted;			/* of WantedRowSecurity */
	int			failed;
	char	   *first_error;	/* of those that failed */
	bool		too_early;		/* rows are still to be loaded */
} Restore;

/*
 * Waits for another session that loads the log.  A session that has loaded it itself has
 * kept others from replaying meanwhile.
 */
static void
lock_log_to_restore(Oid log)
{
	Relation	rel = table_open(log, AccessShareLock);
	bool		locked = CheckRelationLockedByMe(rel, RowExclusiveLock, true);

	/* a session that waits for the stronger lock must not hold the weaker one */
	table_close(rel, AccessShareLock);
	if (!locked)
		log_lock_whole(log, "to restore", NULL, NULL);
}

/*
 * The CHECK constraint of es_user_definitions: a row that is restored closes the store.
 */
Datum
es_definitions_arrive(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Datum		value = PG_GETARG_DATUM(0);

	if (!definitions_are_restored(value) || IsLogicalWorker())
		PG_RETURN_BOOL(true);
	run_as_check_owner(log, "restore definitions");
	(void) definitions_read(log, value);
	SPI_connect();
	restore_close(log);
	SPI_finish();
	lock_log_to_restore(log);
	log_restore_begin();
	PG_RETURN_BOOL(true);
}

/*
 * Called at the end of the install script: closes the store if a dump has created it.
 */
Datum
es_definitions_close(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	if (!log_restore_has_settings())
		PG_RETURN_BOOL(false);
	run_as_check_owner(log, "close the store");
	SPI_connect();
	restore_close(log);
	SPI_finish();
	log_restore_begin();
	PG_RETURN_BOOL(true);
}

/* Adds a row to the result; null texts are nulls. */
static void
put_result(const Restore *restore, const CopiedDefinition *item, const char *result,
		   const char *message)
{
	const char *texts[RESULT_COLUMNS] = {
		item->kind, item->table, item->name, result, message, item->statement
	};
	Datum		values[RESULT_COLUMNS] = {0};
	bool		nulls[RESULT_COLUMNS];
	int			i;

	if (restore->result == NULL)
		return;
	for (i = 0; i < RESULT_COLUMNS; i++)
	{
		nulls[i] = texts[i] == NULL;
		if (!nulls[i])
			values[i] = CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(restore->result->setResult, restore->result->setDesc,
						 values, nulls);
}

/* The same of something that is not there, or fails. */
static void
put_failure(Restore *restore, const CopiedDefinition *item, const char *result,
			const char *message)
{
	restore->failed++;
	if (restore->first_error == NULL)
		restore->first_error = psprintf("%s \"%s\" of table \"%s\": %s", item->kind,
										item->name, item->table, message);
	put_result(restore, item, restore->discard ? "discarded" : result, message);
}

static bool
try_item(void *arg)
{
	restore_run_item(arg);
	return true;
}

/* Notes how row security of a table is to be. */
static void
want_row_security(Restore *restore, const RestoredItem *run)
{
	WantedRowSecurity *wanted = palloc(sizeof(WantedRowSecurity));

	wanted->relid = run->relid;
	wanted->enable = run->enable;
	restore->wanted = lappend(restore->wanted, wanted);
}

/*
 * Replays one definition, unless it is there.  Row security is not yet, whatever the
 * catalogs say.
 */
static void
replay_definition(Restore *restore, const CopiedDefinitions *from, const CopiedDefinition *item)
{
	RestoredItem run = {.log = restore->log,.from = from,.definition = item};
	ErrorData  *error;

	if (strcmp(item->kind, "row security") != 0 &&
		definitions_have(restore->present, item))
	{
		put_result(restore, item, "present", NULL);
		return;
	}
	error = subtransaction_try(try_item, &run);
	if (error != NULL)
	{
		put_failure(restore, item, "failed", error->message);
		return;
	}
	if (run.is_row_security)
		want_row_security(restore, &run);
	put_result(restore, item, "restored", NULL);
}

/* Returns true if the log is as long as it was; else says so. */
static bool
has_events(Restore *restore, const CopiedDefinitions *from)
{
	CopiedDefinition events = {.kind = "events",.table = "es_events",.name = ""};
	int64		last = definitions_last_position(restore->log, true);

	if (last >= from->position)
		return true;
	put_failure(restore, &events, "missing",
				psprintf("the log ends at position " INT64_FORMAT ", in the dump it does at " INT64_FORMAT,
						 last, from->position));
	return false;
}

/* The number of rows that a table has in the dump; 0 if that does not say. */
static int64
dumped_rows(const CopiedDefinitions *from, const char *table)
{
	ListCell   *cell;

	foreach(cell, from->rows)
	{
		const TableRows *dumped = lfirst(cell);

		if (strcmp(dumped->table, table) == 0)
			return dumped->rows;
	}
	return 0;
}

/* Says that a table has too few rows. */
static void
put_missing_rows(Restore *restore, const TableRows *table, int64 dumped)
{
	CopiedDefinition rows = {.kind = "rows",.table = table->table,.name = ""};

	put_failure(restore, &rows, "missing",
				psprintf("the table has " INT64_FORMAT " rows, in the dump it has " INT64_FORMAT,
						 table->rows, dumped));
}

/* Returns true if it is the archive, and is empty: a dump may have left it out. */
static bool
is_archive_left_out(const TableRows *table)
{
	return table->rows == 0 && strcmp(table->table, "es_archived_events") == 0;
}

/*
 * Returns true if each table has the rows that it has in the dump; else says which has not.
 * A table of a store that was there before may have more.
 */
static bool
has_rows(Restore *restore, const CopiedDefinitions *from)
{
	bool		complete = has_events(restore, from);
	ListCell   *cell;

	/* a load of the log that is not over does not count it again and again */
	if (!complete && restore->result == NULL)
		return false;
	foreach(cell, definitions_count_rows(restore->log, true))
	{
		TableRows  *table = lfirst(cell);
		int64		dumped = dumped_rows(from, table->table);

		if (table->rows >= dumped || is_archive_left_out(table))
			continue;
		put_missing_rows(restore, table, dumped);
		complete = false;
	}
	return complete;
}

/* Replays a restored row. */
static void
replay_row(Restore *restore, Datum value)
{
	CopiedDefinitions *from = definitions_read(restore->log, value);
	ListCell   *cell;

	if (!has_rows(restore, from) && restore->result == NULL)
	{
		restore->too_early = true;
		return;
	}
	foreach(cell, from->items)
		replay_definition(restore, from, lfirst(cell));
}

/* Replays all restored rows. */
static void
replay_rows(Restore *restore)
{
	uint64		count = own_sql_run(restore->log, "SELECT definitions, ctid FROM @extschema@.es_user_definitions",
									0, NULL, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull);

		if (isnull || !definitions_are_restored(value))
			continue;
		if (restore->rows == NIL)
			restore->present = definitions_list(restore->log);
		restore->rows = lappend(restore->rows,
								DatumGetPointer(SPI_getbinval(rows->vals[i], rows->tupdesc,
															  2, &isnull)));
		replay_row(restore, value);
	}
}

/* A closed store without a row: its definitions have not come, or were deleted. */
static void
note_missing_row(Restore *restore)
{
	CopiedDefinition row = {.kind = "definitions",.table = "es_user_definitions",.name = ""};

	put_failure(restore, &row, "missing", "no definitions have come with the restore");
}

/* Says what is repaired beside the definitions. */
static void
put_repairs(const Restore *restore, int guards, int triggers)
{
	CopiedDefinition guard = {.kind = "guard",.table = "es_events",.name = "ENABLE ALWAYS"};
	CopiedDefinition sync = {.kind = "projections",.table = "es_events",.name = "sync"};

	if (guards > 0)
		put_result(restore, &guard, "restored",
				   psprintf("%d triggers fired in some sessions only", guards));
	if (triggers > 0)
		put_result(restore, &sync, "restored",
				   psprintf("%d sync projections had no trigger", triggers));
}

/* Deletes the rows that were replayed. */
static void
delete_restored_rows(const Restore *restore)
{
	Oid			type = TIDOID;
	ListCell   *cell;

	foreach(cell, restore->rows)
	{
		Datum		row = PointerGetDatum(lfirst(cell));

		(void) own_sql_run(restore->log, "DELETE FROM @extschema@.es_user_definitions WHERE ctid = $1",
						   1, &type, &row, NULL);
	}
}

/*
 * Replays what there is.  Opens the store if nothing fails, or if what fails is
 * discarded.  SPI must be connected.
 */
static void
replay_all(Restore *restore)
{
	int			guards;

	replay_rows(restore);
	if (restore->too_early || (restore->rows == NIL && restore->result == NULL))
		return;
	if (restore->rows == NIL && log_relid_is_closed(restore->log))
		note_missing_row(restore);
	guards = restore_guards(restore->log);
	put_repairs(restore, guards, projection_restore_triggers(restore->log));
	if (restore->failed > 0 && !restore->discard)
		return;
	delete_restored_rows(restore);
	restore_open(restore->log, restore->wanted);
}

/* The warning of a restore that is not finished by itself. */
static void
warn_of_failures(const Restore *restore)
{
	if (restore->failed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the event store is closed: %d of the definitions that were added to its tables could not be restored",
						restore->failed),
				 errdetail("The first one is %s.", restore->first_error),
				 errhint("When the restore is over, run SELECT * FROM es_finish_restore().")));
}

/*
 * The deferred trigger: replays the rows at the end of the transaction.
 */
Datum
es_definitions_replay(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_user_definitions");
	Restore		restore = {.log = log_relid(fcinfo->flinfo->fn_oid)};

	if (TRIGGER_FIRED_BEFORE(trigger->tg_event) || IsLogicalWorker() ||
		!log_relid_is_closed(restore.log))
		return PointerGetDatum(NULL);
	run_as_check_owner(restore.log, "restore definitions");
	SPI_connect();
	replay_all(&restore);
	SPI_finish();
	if (!restore.too_early)
		warn_of_failures(&restore);
	return PointerGetDatum(NULL);
}

/* Replays what a restore has left, if this session restores. */
static void
go_on_restoring(Oid log)
{
	Restore		restore = {.log = log};

	if (!log_restore_has_settings() || !log_relid_is_closed(log) ||
		!has_privs_of_role(GetUserId(), run_as_owner(log)))
		return;
	SPI_connect();
	lock_log_to_restore(log);
	replay_all(&restore);
	SPI_finish();
}

/* Returns true if the statement enables triggers of a table in some sessions only. */
static bool
enables_triggers(const AlterTableStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->cmds)
	{
		switch (lfirst_node(AlterTableCmd, cell)->subtype)
		{
			case AT_EnableTrig:
			case AT_EnableTrigAll:
			case AT_EnableTrigUser:
				return true;
			default:
				break;
		}
	}
	return false;
}

/* Lets triggers of ours fire always, if the statement may have changed one. */
static void
keep_guards(Oid log, AlterTableStmt *statement)
{
	Oid			table = RangeVarGetRelid(statement->relation, NoLock, true);

	if (!OidIsValid(table) || getExtensionOfObject(RelationRelationId, table) !=
		getExtensionOfObject(RelationRelationId, log))
		return;
	SPI_connect();
	(void) restore_guards(log);
	SPI_finish();
}

/*
 * Takes a table of ours out of the publication, if it is in it.  The publication is
 * locked first, as the statement that follows does: a replay in another session is over.
 */
static void
take_out(Oid log, const char *publication, const RangeVar *name)
{
	Oid			table = RangeVarGetRelid(name, NoLock, true);
	Oid			from = get_publication_oid(publication, true);

	if (!OidIsValid(table) || !OidIsValid(from) ||
		getExtensionOfObject(RelationRelationId, table) !=
		getExtensionOfObject(RelationRelationId, log))
		return;
	LockDatabaseObject(PublicationRelationId, from, 0, AccessExclusiveLock);
	if (!SearchSysCacheExists2(PUBLICATIONRELMAP, ObjectIdGetDatum(table),
							   ObjectIdGetDatum(from)))
		return;
	SPI_connect();
	(void) SPI_execute(psprintf("ALTER PUBLICATION %s DROP TABLE ONLY %s", quote_identifier(publication),
								quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
														   get_rel_name(table))),
					   false, 0);
	SPI_finish();
}

/*
 * Makes room for the statement of a dump that adds tables of ours to a publication, as
 * pg_dump does from PostgreSQL 18 on: they may be there already, by a replay.
 */
static void
make_room_for_members(Oid log, const AlterPublicationStmt *statement)
{
	ListCell   *cell;

	if (statement->action != AP_AddObjects || !log_restore_has_settings())
		return;
	foreach(cell, statement->pubobjects)
	{
		const PublicationObjSpec *object = lfirst(cell);

		if (object->pubobjtype == PUBLICATIONOBJ_TABLE)
			take_out(log, statement->pubname, object->pubtable->relation);
	}
}

/*
 * ON ddl_command_end of ALTER TABLE and CREATE PUBLICATION, and on ddl_command_start of
 * ALTER PUBLICATION, in every role of replication.
 */
Datum
es_definitions_altered(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	Oid			funcid = fcinfo->flinfo->fn_oid;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s() must be called as an event trigger",
						get_func_name(funcid)),
				 errdetail("It was called in another way.")));

	/*
	 * the log is looked up where it is needed, as its name may be what is
	 * altered
	 */
	if (IsA(event->parsetree, CreatePublicationStmt) ||
		IsA(event->parsetree, AlterPublicationStmt))
		autostart_want_after_commit();	/* to publish the horizon */
	if (IsA(event->parsetree, CreatePublicationStmt))
		go_on_restoring(log_relid(funcid));
	else if (IsA(event->parsetree, AlterPublicationStmt))
		make_room_for_members(log_relid(funcid), (AlterPublicationStmt *) event->parsetree);
	else if (IsA(event->parsetree, AlterTableStmt) &&
			 enables_triggers((AlterTableStmt *) event->parsetree))
		keep_guards(log_relid(funcid), (AlterTableStmt *) event->parsetree);
	PG_RETURN_NULL();
}

/* Stores entries of tags that are missing, of rows that came without the trigger, say. */
static void
repair_tags(const Restore *restore)
{
	CopiedDefinition tags = {.kind = "tags",.table = "es_tags",.name = "entries"};
	int64		added;
	int64		removed;

	tag_entry_reindex(restore->log, &added, &removed);
	if (added + removed > 0)
		put_result(restore, &tags, "restored",
				   psprintf(INT64_FORMAT " entries were missing, " INT64_FORMAT " had no event",
							added, removed));
}

/* When the last person was erased that this store knows of. */
static char *
last_erasure(Oid log)
{
	(void) own_sql_run_on_all_rows(log,
								   "SELECT coalesce(max(erased_at)::text, 'none') FROM @extschema@.es_erasures",
								   0, NULL, NULL, NULL, true);
	return own_sql_text(1);
}

/* Asks for erasures that are younger than what was restored, where any person has a key. */
static void
ask_for_erasures(const Restore *restore)
{
	CopiedDefinition erasures = {
		.kind = "erasures",.table = "es_erasures",.name = "since the backup",
		.statement = "SELECT es_replay_erasure(subject, erased_at, reason) FROM the newest es_erasures"
	};

	if (own_sql_run_on_all_rows(restore->log,
								"SELECT FROM @extschema@.es_subject_keys WHERE key IS NOT NULL LIMIT 1",
								0, NULL, NULL, NULL, true) > 0)
		put_result(restore, &erasures, "to do",
				   psprintf("The last erasure here is of %s. Replay those that came later.",
							last_erasure(restore->log)));
}

/*
 * es_finish_restore(discard): replays what is left, and opens the store.
 */
Datum
es_finish_restore(PG_FUNCTION_ARGS)
{
	Restore		restore = {
		.log = log_relid(fcinfo->flinfo->fn_oid),
		.discard = argument_is_true(fcinfo, 0),
		.result = (ReturnSetInfo *) fcinfo->resultinfo
	};

	PreventCommandIfReadOnly("es_finish_restore()");
	run_as_check_owner(restore.log, "finish a restore");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	lock_log_to_restore(restore.log);
	replay_all(&restore);
	repair_tags(&restore);
	ask_for_erasures(&restore);
	SPI_finish();
	if (!log_relid_is_closed(restore.log))
	{
		log_restore_end();
		identity_check_consumer(restore.log);
	}
	return (Datum) 0;
}
