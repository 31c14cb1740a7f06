/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Which store this is, and in which of its incarnations: es_store_id(),
 *		es_incarnation(), es_position_valid().
 *
 * In one history of the log a position always means the same event.  Copies of a store
 * share their history up to the copy.  Then each has its own, and positions exist twice.
 * An incarnation is the part of the history that belongs to one copy.  Design and proof
 * are in doc/internals/identity.md.
 *
 * Four marks tell a copy from its original: the instance, a UUID that the extension's
 * script makes and no dump has (es_identity); the cluster's system identifier; its
 * timeline; the database's oid.  The table es_incarnation_entries, which is dumped, has
 * the marks of each incarnation.  Where the last ones are not those of this backend, an
 * incarnation is to begin:
 *
 *	1. Take the latest snapshot, look for the last entry.
 *	2. If its marks differ, write an entry of the next number, with the last position
 *	   that the same snapshot sees.
 *	3. Append, or deliver, in the same transaction.
 *
 * Nothing is locked, and no transaction waits.  One that sees no entry writes one, which
 * is committed with the events.  So a snapshot that sees no entry of the incarnation
 * sees no event of it, and the last position that it sees is that of the history before.
 * Transactions that begin it side by side write the same number and position.
 *
 * A backend that has found a committed entry with its marks does not look again: its
 * marks cannot change.  On a standby, where timelines change, nothing is written and
 * nothing is remembered.
 *
 * A logical replica begins no incarnation, and takes no appends, until es_promote() begins
 * one.  So what a backend has found is looked for again when subscriptions change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "log/replica.h"
#include "identity/identity.h"

PG_FUNCTION_INFO_V1(es_store_id);
PG_FUNCTION_INFO_V1(es_incarnation);
PG_FUNCTION_INFO_V1(es_position_valid);
PG_FUNCTION_INFO_V1(es_promote);

#define ENTRIES "es_incarnation_entries"

/* Columns of es_incarnation_entries. */
enum
{
	ENTRY_NUMBER, ENTRY_ENTRY, ENTRY_ID, ENTRY_BEGAN_AT, ENTRY_POSITION, ENTRY_REASON,
	ENTRY_STORE, ENTRY_LAST_TOKEN, ENTRY_INSTANCE, ENTRY_SYSTEM, ENTRY_TIMELINE,
	ENTRY_DATABASE, ENTRY_COLUMNS
};

/* The column of es_identity that is read. */
#define IDENTITY_INSTANCE	2

/* What tells one copy of a store from another. */
typedef struct CopyMarks
{
	pg_uuid_t	instance;
	int64		system;			/* identifier of the cluster */
	int32		timeline;
	Oid			database;
} CopyMarks;

/* An entry of es_incarnation_entries. */
typedef struct Incarnation
{
	int64		number;
	pg_uuid_t	id;
	pg_uuid_t	store;
	int64		position;		/* the last one of the history before */
	int64		last_token;
	CopyMarks	marks;
	bool		is_own;			/* this transaction has written it */
} Incarnation;

Oid			identity_checked_log = InvalidOid;

/* The last token of the history before the present incarnation. */
static int64 void_token = 0;

/* A scan of one of our tables by its primary key. */
typedef struct KeyScan
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} KeyScan;

static void
key_scan_begin(KeyScan *scan, Oid table, Snapshot snapshot)
{
	scan->rel = table_open(table, AccessShareLock);
	scan->index = index_open(compat_primary_key_index(scan->rel), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = compat_index_beginscan(scan->rel, scan->index, snapshot, 0);
	index_rescan(scan->scan, NULL, 0, NULL, 0);
}

static void
key_scan_end(KeyScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
}

/* Reads the entry that the scan is at. */
static void
read_incarnation(KeyScan *scan, Incarnation *entry)
{
	Datum	   *values = scan->slot->tts_values;
	bool		isnull;

	slot_getsomeattrs(scan->slot, ENTRY_COLUMNS);
	memset(entry, 0, sizeof(Incarnation));
	entry->number = DatumGetInt64(values[ENTRY_NUMBER]);
	entry->id = *DatumGetUUIDP(values[ENTRY_ID]);
	entry->store = *DatumGetUUIDP(values[ENTRY_STORE]);
	entry->position = DatumGetInt64(values[ENTRY_POSITION]);
	entry->last_token = DatumGetInt64(values[ENTRY_LAST_TOKEN]);
	entry->marks.instance = *DatumGetUUIDP(values[ENTRY_INSTANCE]);
	entry->marks.system = DatumGetInt64(values[ENTRY_SYSTEM]);
	entry->marks.timeline = DatumGetInt32(values[ENTRY_TIMELINE]);
	entry->marks.database = DatumGetObjectId(values[ENTRY_DATABASE]);
	entry->is_own =
		TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(scan->slot,
																				  MinTransactionIdAttributeNumber,
																				  &isnull)));
}

/* Reads the last entry that the snapshot sees.  Returns false if there is none. */
static bool
read_last_incarnation(Oid log, Snapshot snapshot, Incarnation *entry)
{
	KeyScan		scan;
	bool		found;

	key_scan_begin(&scan, own_table_relid(log, ENTRIES), snapshot);
	found = index_getnext_slot(scan.scan, BackwardScanDirection, scan.slot);
	if (found)
		read_incarnation(&scan, entry);
	key_scan_end(&scan);
	return found;
}

/* The last position that the snapshot sees, 0 without one. */
static int64
last_position(Oid log, Snapshot snapshot)
{
	Relation	rel = table_open(log, AccessShareLock);
	Relation	index = log_index_open_position(rel);
	int64		position = table_row_last_number(rel, index, Anum_es_events_position, snapshot);

	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return position;
}

/* The marks of the copy that this backend works on. */
static CopyMarks
present_marks(Oid log, Snapshot snapshot)
{
	CopyMarks	marks = {.database = MyDatabaseId};
	TimeLineID	timeline;
	KeyScan		scan;
	bool		isnull;

	if (RecoveryInProgress())
		(void) GetXLogReplayRecPtr(&timeline);
	else
		timeline = GetWALInsertionTimeLine();
	marks.timeline = (int32) timeline;
	marks.system = (int64) GetSystemIdentifier();
	key_scan_begin(&scan, own_table_relid(log, "es_identity"), snapshot);
	if (index_getnext_slot(scan.scan, ForwardScanDirection, scan.slot))
		marks.instance = *DatumGetUUIDP(slot_getattr(scan.slot, IDENTITY_INSTANCE,
													 &isnull));
	key_scan_end(&scan);
	return marks;
}

static bool
is_same_uuid(const pg_uuid_t *one, const pg_uuid_t *other)
{
	return memcmp(one, other, sizeof(pg_uuid_t)) == 0;
}

/*
 * Returns why an incarnation is to begin; NULL if the last one has these marks.  last:
 * NULL if there is none.
 */
static const char *
reason_to_begin(const Incarnation *last, const CopyMarks *marks)
{
	if (last == NULL)
		return "created";
	if (!is_same_uuid(&last->marks.instance, &marks->instance))
		return "restored";
	if (last->marks.system != marks->system || last->marks.database != marks->database)
		return "copied";
	return last->marks.timeline != marks->timeline ? "promoted" : NULL;
}

/*
 * The id of a store that nothing was appended to.  Databases that were made from one
 * template have one instance, and are different stores.
 */
static pg_uuid_t
new_store_id(const CopyMarks *marks)
{
	char	   *name = psprintf(INT64_FORMAT "/%u", marks->system, marks->database);

	return *uuid_generate_v5(&marks->instance, name, strlen(name));
}

/* The last token that the snapshot sees in any partition. */
static int64
last_token(Oid log, Snapshot snapshot)
{
	int64		token;

	PushActiveSnapshot(snapshot);
	(void) own_sql_select(log, "SELECT coalesce(max(token), 0) FROM @extschema@.es_partitions",
						  0, NULL, NULL, NULL);
	token = DatumGetInt64(own_sql_value(1));
	PopActiveSnapshot();
	return token;
}

/* Writes the entry. */
static void
write_entry(Oid log, Incarnation *entry, const char *reason)
{
	Oid			types[] = {
		INT8OID, UUIDOID, UUIDOID, INT8OID, TEXTOID, UUIDOID, INT8OID, UUIDOID, INT8OID,
		INT4OID, OIDOID
	};
	pg_uuid_t	key;
	Datum		values[lengthof(types)];

	uuid_generate_v7(&key);
	if (entry->number > 1)
		entry->id = key;
	values[0] = Int64GetDatum(entry->number);
	values[1] = UUIDPGetDatum(&key);
	values[2] = UUIDPGetDatum(&entry->id);
	values[3] = Int64GetDatum(entry->position);
	values[4] = CStringGetTextDatum(reason);
	values[5] = UUIDPGetDatum(&entry->store);
	values[6] = Int64GetDatum(entry->last_token);
	values[7] = UUIDPGetDatum(&entry->marks.instance);
	values[8] = Int64GetDatum(entry->marks.system);
	values[9] = Int32GetDatum(entry->marks.timeline);
	values[10] = ObjectIdGetDatum(entry->marks.database);
	(void) own_sql_run(log, "INSERT INTO @extschema@." ENTRIES
					   " VALUES ($1, $2, $3, pg_catalog.clock_timestamp(), $4, $5, $6, $7, $8, $9, $10, $11)",
					   lengthof(types), types, values, NULL);
}

/* Begins the incarnation that follows the last one; NULL: the first.  Returns its id. */
static pg_uuid_t
begin_next(Oid log, Snapshot snapshot, const Incarnation *last, const CopyMarks *marks,
		   const char *reason)
{
	Incarnation next = {.marks = *marks};

	next.number = last != NULL ? last->number + 1 : 1;
	next.id = next.store = last != NULL ? last->store : new_store_id(marks);
	next.position = last_position(log, snapshot);
	SPI_connect();
	next.last_token = last_token(log, snapshot);
	write_entry(log, &next, reason);
	SPI_finish();
	CommandCounterIncrement();
	void_token = next.last_token;
	return next.id;
}

static void
forget_checked_log(Datum arg, int cache, uint32 hash)
{
	identity_checked_log = InvalidOid;
}

/* Remembers that the present incarnation is begun. */
static void
remember_begun(Oid log)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, forget_checked_log, (Datum) 0);
	registered = true;
	identity_checked_log = log;
}

/*
 * Returns true if the log ends with events of a subscription, and this instance has begun no
 * incarnation since.  last: NULL if there is none.
 */
static bool
is_unpromoted(Oid log, Snapshot snapshot, const Incarnation *last, const CopyMarks *marks)
{
	return replica_ends_applied(log, snapshot) &&
		!(last != NULL && is_same_uuid(&last->marks.instance, &marks->instance) &&
		  last->position >= last_position(log, snapshot));
}

/*
 * Begins a new incarnation if this is not the one that was begun last, and remembers
 * one that is committed.
 */
void
identity_begin(Oid log, Snapshot snapshot)
{
	Incarnation last;
	bool		found = read_last_incarnation(log, snapshot, &last);
	CopyMarks	marks = present_marks(log, snapshot);
	const char *reason = reason_to_begin(found ? &last : NULL, &marks);

	replica_refuse(log, "append events");
	if (is_unpromoted(log, snapshot, found ? &last : NULL, &marks))
		replica_fail_not_promoted("append events");
	if (reason != NULL)
	{
		(void) begin_next(log, snapshot, found ? &last : NULL, &marks, reason);
		return;
	}
	void_token = last.last_token;
	if (!last.is_own)
		remember_begun(log);
}

/*
 * The same for a consumer.  Into an empty log a restore may be about to bring the entries
 * of another store.  A logical replica begins none.
 */
void
identity_check_consumer(Oid log)
{
	Snapshot	snapshot;

	if (identity_checked_log == log)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	void_token = 0;
	if (last_position(log, snapshot) > 0 && !replica_is_subscribed(log) &&
		!replica_ends_applied(log, snapshot))
		identity_begin(log, snapshot);
	UnregisterSnapshot(snapshot);
}

/*
 * Sessions that have found the last incarnation begun need not look again, as this one has
 * its marks.
 */
void
identity_reset(Oid log)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Incarnation last;

	if (read_last_incarnation(log, snapshot, &last))
	{
		Incarnation next = {
			.number = last.number + 1,
			.store = last.store,
			.marks = present_marks(log, snapshot),
			.last_token = last_token(log, snapshot)
		};

		(void) own_sql_on_all_rows(log, "DELETE FROM @extschema@." ENTRIES, true);
		write_entry(log, &next, "reset");
		void_token = next.last_token;
	}
	UnregisterSnapshot(snapshot);
}

int64
identity_void_token(void)
{
	return void_token;
}

/*
 * es_store_id() returns uuid: the id of the store, which its copies have, too.
 */
Datum
es_store_id(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Snapshot	snapshot = GetActiveSnapshot();
	pg_uuid_t  *store = palloc(sizeof(pg_uuid_t));
	Incarnation last;

	if (read_last_incarnation(log, snapshot, &last))
		*store = last.store;
	else
	{
		CopyMarks	marks = present_marks(log, snapshot);

		*store = new_store_id(&marks);
	}
	PG_RETURN_UUID_P(store);
}

/*
 * es_incarnation() returns uuid: the incarnation in which the calling statement reads.
 * While one is to begin, nothing was appended in it, and what there is to read is of
 * the one before.  The first one has the store's id.
 */
Datum
es_incarnation(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
	Incarnation last;

	if (!read_last_incarnation(log, GetActiveSnapshot(), &last))
		return es_store_id(fcinfo);
	*id = last.id;
	PG_RETURN_UUID_P(id);
}

/* What is known of an incarnation and of those that followed. */
typedef struct Lineage
{
	bool		found;			/* the incarnation is one of this store's */
	int64		number;			/* its number */
	int64		limit;			/* up to here those that followed have its
								 * events */
	bool		has_last;
	Incarnation last;
} Lineage;

/* Looks for an incarnation among those that were begun. */
static Lineage
read_lineage(Oid log, Snapshot snapshot, const pg_uuid_t *id)
{
	Lineage		lineage = {.limit = PG_INT64_MAX};
	Incarnation *entry = &lineage.last;
	KeyScan		scan;

	key_scan_begin(&scan, own_table_relid(log, ENTRIES), snapshot);
	while (index_getnext_slot(scan.scan, ForwardScanDirection, scan.slot))
	{
		read_incarnation(&scan, entry);
		lineage.has_last = true;
		if (is_same_uuid(&entry->id, id))
		{
			lineage.found = true;
			lineage.number = entry->number;
		}
		else if (lineage.found && entry->number > lineage.number)
			lineage.limit = Min(lineage.limit, entry->position);
	}
	key_scan_end(&scan);
	return lineage;
}

/*
 * Returns true if everything up to the position, as it was read in the incarnation, is
 * what the snapshot has.  A standby may be behind its reader; a primary is not, nor is a
 * copy in which nothing was appended yet.
 */
static bool
is_position_valid(Oid log, Snapshot snapshot, const pg_uuid_t *id, int64 position)
{
	Lineage		lineage = read_lineage(log, snapshot, id);
	CopyMarks	marks = present_marks(log, snapshot);

	if (!lineage.has_last)
	{
		pg_uuid_t	store = new_store_id(&marks);

		lineage.found = is_same_uuid(&store, id);
	}
	if (!lineage.found || position > lineage.limit)
		return false;
	if (RecoveryInProgress() && lineage.has_last &&
		reason_to_begin(&lineage.last, &marks) == NULL)
		return true;
	return position <= last_position(log, snapshot);
}

/*
 * es_position_valid(incarnation, position) returns boolean.  Nothing was read up to
 * position 0, in whatever incarnation.
 */
Datum
es_position_valid(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	int64		position;

	argument_not_null(fcinfo, 1, "position");
	position = PG_GETARG_INT64(1);
	argument_range("position", position, 0, PG_INT64_MAX);
	if (position == 0)
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(is_position_valid(log, GetActiveSnapshot(), PG_GETARG_UUID_P(0),
									 position));
}

/* Refuses a store that still has a subscription, or that is none's replica. */
static void
check_promotable(Oid log, Snapshot snapshot, const Incarnation *last, const CopyMarks *marks)
{
	if (replica_is_subscribed(log))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a logical replica with a subscription cannot be promoted"),
				 errdetail("More events may come by the subscription."),
				 errhint("Drop the subscription when it has brought everything.")));
	if (!is_unpromoted(log, snapshot, last, marks) && reason_to_begin(last, marks) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the event store is not a logical replica"),
				 errdetail("Its last event was appended here, or it was promoted already."),
				 errhint("es_promote() is for a store whose events have come by a subscription.")));
}

/*
 * Removals that came have the publisher's numbers.  The next one gets a number above.
 */
static void
raise_removals(Oid log, Snapshot snapshot)
{
	Relation	removals = table_open(own_table_relid(log, "es_removals"), AccessShareLock);
	Relation	index = index_open(compat_primary_key_index(removals), AccessShareLock);
	int64		last = table_row_last_number(removals, index, 1, snapshot);

	index_close(index, AccessShareLock);
	table_close(removals, AccessShareLock);
	if (last > 0)
		log_sequence_raise(own_table_relid(log, "es_removals_id_seq"), last);
}

/* Warns where what is about persons would be stored in plaintext: definitions do not travel. */
static void
warn_of_plaintext(Oid log)
{
	SPI_connect();
	if (own_sql_run(log,
					"SELECT FROM @extschema@.es_subject_keys k WHERE k.key IS NOT NULL"
					" AND NOT EXISTS (SELECT FROM @extschema@.es_personal_attributes) LIMIT 1",
					0, NULL, NULL, NULL) > 0)
		ereport(WARNING,
				(errmsg("no attributes are defined as personal"),
				 errdetail("The replica has keys of persons. What is about them is stored in plaintext from now on."),
				 errhint("Define the types of events, as on the publisher.")));
	SPI_finish();
}

/*
 * es_promote(OUT incarnation uuid, OUT "position" bigint): lets a logical replica go on by
 * itself.  All that it has is stable from now on.
 */
Datum
es_promote(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	CopyMarks	marks;
	Incarnation last;
	Snapshot	snapshot;
	bool		found;
	int64		position;
	pg_uuid_t	id;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	PreventCommandIfReadOnly("es_promote()");
	run_as_check_owner(log, "promote a logical replica");
	LockRelationOid(log, ShareRowExclusiveLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = read_last_incarnation(log, snapshot, &last);
	marks = present_marks(log, snapshot);
	check_promotable(log, snapshot, found ? &last : NULL, &marks);
	position = last_position(log, snapshot);
	if (position > 0)
		log_sequence_raise(own_table_relid(log, "es_position"), position);
	raise_removals(log, snapshot);
	id = begin_next(log, snapshot, found ? &last : NULL, &marks, "promoted");
	UnregisterSnapshot(snapshot);
	published_horizon_raise(log, position);
	warn_of_plaintext(log);
	values[0] = UUIDPGetDatum(&id);
	values[1] = Int64GetDatum(position);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "function es_promote must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
