/*-------------------------------------------------------------------------
 *
 * log.c
 *		Opening the table es_events, and the look-ups of an append.
 *
 * A transaction that appends to a stream keeps this order (design and proof:
 * doc/internals/append.md):
 *
 *	1. lock the stream (stream.c), to the end of the transaction;
 *	2. log_open: RowExclusiveLock on es_events, to the end of the transaction;
 *	   what is looked up sees all that is committed then (log_snapshot);
 *	3. look up ids (log_find_id) and the last version (log_last_version), and
 *	   raise whatever the caller did wrong;
 *	4. log_insert (log_insert.c): a transaction id, then the positions, then the
 *	   next_xid, then the rows; AFTER triggers fire;
 *	5. log_close.
 *
 * The horizon (horizon.c) relies on 2 and 4: a transaction that owns a position
 * held the lock and had a transaction id before it drew the position, and an
 * event's next_xid is the next transaction id at a moment after its position was
 * drawn.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "eventstore.h"
#include "base/base.h"
#include "base/role.h"
#include "log/log.h"

/* Streams whose last version a backend remembers: 16 kB. */
#define VERSION_GUESSES		1024

/* The function for which es_events was looked up last; InvalidOid: none. */
static Oid	known_function = InvalidOid;
static Oid	known_relid = InvalidOid;

/* es_events; InvalidOid: not known. */
static Oid	known_log = InvalidOid;

static void
forget_known_function(Datum arg, int cache, uint32 hash)
{
	known_function = InvalidOid;
	known_log = InvalidOid;
}

/* Sees to it that what is known is forgotten when it may have changed. */
static void
register_forgetting(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_known_function, (Datum) 0);
		CacheRegisterSyscacheCallback(RELNAMENSP, forget_known_function, (Datum) 0);
	}
	registered = true;
}

/*
 * Finds es_events in the schema of one of the extension's functions.  The answer holds
 * until a function or a relation's name changes, as that of the server's caches does,
 * which it comes from.
 */
Oid
log_relid(Oid funcid)
{
	Oid			relid;

	if (known_function == funcid)
		return known_relid;
	register_forgetting();
	relid = own_table_in_schema(get_func_namespace(funcid), "es_events");
	known_function = funcid;
	known_relid = relid;
	return relid;
}

/*
 * Returns the schema of the extension; 0 if there is no extension.  version: gets its
 * version, or is NULL.
 */
Oid
log_find_extension(char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;
	bool		isnull;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("eventstore"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	if (OidIsValid(schema) && version != NULL)
		*version = TextDatumGetCString(heap_getattr(tuple,
													Anum_pg_extension_extversion,
													RelationGetDescr(rel),
													&isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/*
 * Finds es_events for a function of another extension, in the schema of ours.  No cache of
 * the server's has that, so that it is kept beside the other one.
 */
Oid
log_relid_of_extension(void)
{
	Oid			relid = known_log;
	Oid			schema;

	if (OidIsValid(relid))
		return relid;
	register_forgetting();
	schema = log_find_extension(NULL);
	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"eventstore\" does not exist"),
				 errdetail("A function of another extension needs it."),
				 errhint("Create the extension.")));
	relid = own_table_in_schema(schema, "es_events");
	known_log = relid;
	return relid;
}

/* Opens es_events as the executor would. */
static void
open_for_executor(Log *log)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	/* The server makes the ResultRelInfo: its size varies in minor releases */
	log->relinfo = ExecGetTriggerResultRel(estate, RelationGetRelid(log->rel), NULL);
	estate->es_trig_target_relations = NIL;
	estate->es_opened_result_relations = list_make1(log->relinfo);
	table_close(log->rel, NoLock);	/* it was opened again */
	ExecOpenIndices(log->relinfo, false);
	log->estate = estate;
	log->indexes = log->relinfo->ri_IndexRelationDescs;
	log->index_count = log->relinfo->ri_NumIndices;
	log_index_find_all(log);
	if (RelationGetNumberOfAttributes(log->rel) > Natts_es_events)
		log_column_prepare(log);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Opens es_events.  The streams must be locked before, so that their last events are
 * seen.
 */
Log *
log_open(Oid relid)
{
	Log		   *log = palloc0(sizeof(Log));

	log_lock_to_append(relid);
	log->rel = table_open(relid, NoLock);
	log->own_slots = log_guard_check_insert(log->rel);
	if (!log_direct_open(log))
		open_for_executor(log);
	log->slot = table_slot_create(log->rel, &log->slots);
	return log;
}

/*
 * The snapshot that sees all that was committed when the log was opened.  It is taken
 * when it is first needed, and may see some more.
 */
Snapshot
log_snapshot(Log *log)
{
	if (log->latest == InvalidSnapshot)
		log->latest = RegisterSnapshot(GetLatestSnapshot());
	return log->latest;
}

/*
 * Closes what log_open opened; the lock stays to the end of the transaction.
 */
void
log_close(Log *log)
{
	if (log->latest != InvalidSnapshot)
		UnregisterSnapshot(log->latest);
	ExecResetTupleTable(log->slots, true);
	if (log->estate == NULL)
		log_direct_close(log);
	else
	{
		ExecResetTupleTable(log->estate->es_tupleTable, false); /* of triggers */
		ExecCloseResultRelations(log->estate);
		FreeExecutorState(log->estate);
	}
	table_close(log->rel, NoLock);
	pfree(log);
}

/*
 * Fetches the last row that an index has for the keys into log->slot.
 */
static bool
fetch_last(Log *log, Relation index, ScanKey keys, int nkeys)
{
	IndexScanDesc scan;
	bool		found;

	scan = compat_index_beginscan(log->rel, index, log_snapshot(log), nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, log->slot);
	index_endscan(scan);		/* the slot has a pin of its own */
	return found;
}

static Datum
fetched_column(Log *log, AttrNumber column)
{
	bool		isnull;

	return slot_getattr(log->slot, column, &isnull);
}

/* The same of a column that may be null: 0. */
static Datum
fetched_column_or_zero(Log *log, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(log->slot, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

/* The version of a stream that a backend has last seen, which is only a guess. */
typedef struct VersionGuess
{
	uint64		hash;			/* of the stream's name */
	int64		version;
} VersionGuess;

/*
 * The guess for a stream; version 0 if none was remembered.
 */
static VersionGuess *
version_guess(text *stream)
{
	static VersionGuess guesses[VERSION_GUESSES];
	uint64		hash = stream_hash(stream);
	VersionGuess *guess = &guesses[hash % VERSION_GUESSES];

	if (guess->hash != hash)
	{
		guess->hash = hash;
		guess->version = 0;
	}
	return guess;
}

/*
 * Remembers the last version of a stream, for log_last_version.
 */
void
log_remember_version(text *stream, int64 version)
{
	version_guess(stream)->version = version;
}

/*
 * Fetches the last event of a stream into log->slot, among those whose version
 * compares with the given one as the strategy says.
 */
static bool
fetch_version(Log *log, text *stream, StrategyNumber strategy,
			  RegProcedure compare, int64 version)
{
	ScanKeyData keys[2];

	table_row_key(&keys[0], log->version_index, 1, BTEqualStrategyNumber,
				  F_TEXTEQ, PointerGetDatum(stream));
	table_row_key(&keys[1], log->version_index, 2, strategy, compare,
				  Int64GetDatum(version));
	return fetch_last(log, log->version_index, keys, 2);
}

/* The stream's last version, 0 if it is below at_least. */
static int64
last_version_from(Log *log, text *stream, int64 at_least)
{
	if (!fetch_version(log, stream, BTGreaterEqualStrategyNumber, F_INT8GE,
					   at_least))
		return 0;
	return DatumGetInt64(fetched_column(log, Anum_es_events_version));
}

/*
 * Looks up the last version of a stream.  Where the search for it does not know, the
 * index is scanned.  That reads all entries of a page that match its keys.  A long
 * stream has a hundred there, four times the work of finding the page.  So the scan
 * begins at a guess: the expected version, or the last one that this backend has seen.
 */
int64
log_last_version(Log *log, text *stream, int64 expected)
{
	int64		guess;
	int64		last = 0;

	if (log_version_find(log, stream, &last))
		return last;
	last = 0;
	guess = expected > 0 ? expected : version_guess(stream)->version;
	if (guess > 0)
		last = last_version_from(log, stream, guess);
	if (last == 0)
		last = last_version_from(log, stream, 0);
	return last;
}

/*
 * Reads what an event says that is stored.
 */
bool
log_read_event(Log *log, text *stream, int64 version, StoredContent *content)
{
	if (!fetch_version(log, stream, BTEqualStrategyNumber, F_INT8EQ, version))
		return false;
	content->position = DatumGetInt64(fetched_column(log, Anum_es_events_position));
	content->id = *DatumGetUUIDP(fetched_column(log, Anum_es_events_id));
	content->type = DatumGetTextPP(fetched_column(log, Anum_es_events_type));
	content->data = fetched_column(log, Anum_es_events_data);
	content->metadata = fetched_column_or_zero(log, Anum_es_events_metadata);
	content->tags = fetched_column_or_zero(log, Anum_es_events_tags);
	content->body = fetched_column_or_zero(log, Anum_es_events_body);
	return true;
}

/*
 * The position of the last row that is stored, 0 if there is none.  Unlike log_last_position() it
 * passes over rows that were rolled back, which matters to a caller that brings their positions.
 */
int64
log_last_stored_position(Log *log)
{
	return fetch_last(log, log->position_index, NULL, 0) ?
		DatumGetInt64(fetched_column(log, Anum_es_events_position)) : 0;
}

/*
 * The greatest position in the table, also of a row that is not committed.
 */
int64
log_last_position(Log *log)
{
	int64		position;

	if (log_index_last_position(log->position_index, &position))
		return position;
	return log_last_stored_position(log);
}

/*
 * Looks up an id, and says where its event is, as far as the caller may know.
 */
bool
log_find_id(Log *log, const pg_uuid_t *id, text *stream, StoredEvent *found)
{
	ScanKeyData key;
	text	   *its_stream;

	table_row_key(&key, log->id_index, 1, BTEqualStrategyNumber, F_UUID_EQ,
				  UUIDPGetDatum(id));
	if (!fetch_last(log, log->id_index, &key, 1))
		return false;

	found->version = DatumGetInt64(fetched_column(log, Anum_es_events_version));
	found->position = DatumGetInt64(fetched_column(log, Anum_es_events_position));
	its_stream = DatumGetTextPP(fetched_column(log, Anum_es_events_stream));
	found->same_stream = stream == NULL || stream_equal(its_stream, stream);
	if (!found->same_stream)
		found->place = role_may_read_all(RelationGetRelid(log->rel), GetUserId()) ?
			psprintf("The id is stored in stream \"%s\" at version " INT64_FORMAT ".",
					 text_to_cstring(its_stream), found->version) :
			"The id is stored in another stream.";
	return true;
}

/*
 * Raises that the id belongs to another event.
 */
void
log_fail_duplicate(const pg_uuid_t *id, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_DUPLICATE_EVENT),
			 errmsg("duplicate event %s", uuid_to_cstring(id)),
			 errdetail("%s", why),
			 errhint("Give every event an id of its own; a retry repeats the whole append with the same ids, types and data in the same stream.")));
}
