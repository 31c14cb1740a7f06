/*-------------------------------------------------------------------------
 *
 * rewrite.c
 *		es_rewrite(): changing the data and metadata of one event on purpose.
 *
 * It is the only way past the trigger that refuses an UPDATE of es_events:
 *
 *	1. look up the event's stream;
 *	2. lock out who saves a state of the stream (log/snapshot_lock.c), then lock the stream
 *	   and the tags as an append does, before the row, so that no command is decided on the
 *	   old data while it changes;
 *	3. find out of which schema version the new data are, and say it in the metadata:
 *	   data that a reader got upcast must not be stored as data of the old version;
 *	4. encrypt what is personal in the new data (personal/seal.c).  The tags of the event stay, and it
 *	   gets those of further persons, as one has that was stored before its type was defined
 *	   so.  No condition asks for these.  Nulls that the caller got for what is encrypted are
 *	   not stored in its place;
 *	5. run one UPDATE by the event's id, as the owner of the log.  It alone is
 *	   allowed (log_guard.c): the trigger that lets it pass ends the permission before
 *	   a row changes, and an UPDATE that another trigger runs is not allowed by it.  If
 *	   anything else used the permission first, this UPDATE would be refused and all
 *	   be undone;
 *	6. record it in es_rewrites, by which a retry of the old append is known: its
 *	   data are not those that are stored any more (append/write_retry.c);
 *	7. delete the snapshots of the stream and of the tags, which were folded from the old
 *	   data.
 *
 * BEFORE UPDATE row triggers of others are refused, since they could change what must
 * stay.  AFTER triggers, constraints and generated columns are honoured.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/base.h"
#include "eventstore.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/replica.h"
#include "log/slots.h"
#include "log/snapshot_lock.h"
#include "log/tags.h"
#include "type/type.h"
#include "type/upcast.h"
#include "personal/envelope.h"
#include "append/append.h"

PG_FUNCTION_INFO_V1(es_rewrite);

/* Raises that there is no such event. */
static void
fail_missing_event(pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event %s does not exist", uuid_to_cstring(id)),
			 errdetail("The transaction sees no event with this id.")));
}

/* Refuses triggers that could change or skip the row. */
static void
check_update_triggers(Oid log)
{
	Relation	rel = table_open(log, AccessShareLock);

	log_guard_check_update(rel->trigdesc, false);
	table_close(rel, NoLock);
}

/* An event that is rewritten. */
typedef struct Rewrite
{
	Oid			log;
	Datum		id;
	text	   *stream;
	Datum		tags;			/* 0: none */
	text	   *type;
	Datum		stored;			/* metadata; 0: none */
	Datum		data;			/* that is new */
	Datum		metadata;		/* the same; 0: none is given */
	bool		retagged;		/* tags has more than the event */
} Rewrite;

/* Reads columns of the event; an error if there is none. */
static void
read_event_columns(const Rewrite *rewrite, const char *sql)
{
	Oid			types[1] = {UUIDOID};
	Datum		values[1] = {rewrite->id};

	if (own_sql_run(rewrite->log, sql, 1, types, values, NULL) == 0)
		fail_missing_event(DatumGetUUIDP(rewrite->id));
}

/* Locks the stream and the tags, so that nobody folds the event and saves a snapshot. */
static void
lock_folds(const Rewrite *rewrite)
{
	LogLock    *locks = palloc(sizeof(LogLock) * (ES_MAX_TAGS + 1));
	int			count = 0;

	snapshot_lock_to_change(rewrite->stream);
	locks[count++] = log_lock_of_stream(rewrite->stream);
	if (rewrite->tags)
		count += tags_add_locks(rewrite->tags, locks + count);
	log_lock_all(rewrite->log, locks, count);
	pfree(locks);
}

/* Refuses an event that says what was removed, and what folds rely on. */
static void
check_no_notice(const Rewrite *rewrite, text *type)
{
	if (notice_kind(type) != NOTICE_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot rewrite an event of type \"%s\"", text_to_cstring(type)),
				 errdetail("Event %s stands for events that were removed from stream \"%s\".",
						   uuid_to_cstring(DatumGetUUIDP(rewrite->id)),
						   text_to_cstring(rewrite->stream))));
}

/* Locks what the event is in, then reads what is needed of it. */
static void
lock_event(Rewrite *rewrite)
{
	Datum		metadata;

	read_event_columns(rewrite,
					   "SELECT stream, tags, type FROM @extschema@.es_events WHERE id = $1");
	rewrite->stream = DatumGetTextPP(own_sql_value(1));
	rewrite->tags = own_sql_value(2);
	check_no_notice(rewrite, DatumGetTextPP(own_sql_value(3)));
	lock_folds(rewrite);
	log_lock_to_append(rewrite->log);
	slots_check_relid(rewrite->log, rewrite->stream);
	read_event_columns(rewrite,
					   "SELECT type, metadata FROM @extschema@.es_events WHERE id = $1");
	rewrite->type = DatumGetTextPCopy(own_sql_value(1));
	check_no_notice(rewrite, rewrite->type);
	metadata = own_sql_value(2);
	if (rewrite->tags)
		rewrite->tags = PointerGetDatum(DatumGetArrayTypePCopy(rewrite->tags));
	rewrite->stored = metadata == (Datum) 0 ? metadata :
		PointerGetDatum(DatumGetJsonbPCopy(metadata));
}

/* Returns the version to which readers get the event upcast; 0: they do not. */
static int
upcast_stored_version(const Rewrite *rewrite)
{
	Upcasting  *upcasting = upcast_begin(rewrite->log);
	int			version = upcast_version(upcasting, rewrite->stream, rewrite->type,
										 rewrite->stored);

	upcast_end(upcasting);
	return version;
}

/* Refuses a schema version that the type cannot have. */
static void
check_rewritten_version(const Rewrite *rewrite, int64 version, int said)
{
	const EventType *type = event_type_find(rewrite->log, rewrite->stream,
											rewrite->type);

	if (said > 0 && said != version)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema_version and metadata contradict each other"),
				 errdetail("schema_version is " INT64_FORMAT ", metadata says %d.",
						   version, said),
				 errhint("Pass only one of them.")));
	if (type != NULL && version > type->schema_version &&
		version > upcast_stored_version(rewrite))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema_version is above that of type \"%s\"", type->type),
				 errdetail("It is " INT64_FORMAT ", the type is defined as of version %d.",
						   version, type->schema_version)));
}

/* Refuses metadata with an invalid schema_version where versions matter. */
static void
check_said_version(const Rewrite *rewrite, int said)
{
	if (said == SCHEMA_VERSION_BAD &&
		(event_type_has_upcaster(rewrite->log, rewrite->type) ||
		 event_type_find(rewrite->log, rewrite->stream, rewrite->type) != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema_version in metadata is not a positive integer"),
				 errdetail("It must be the schema version of type \"%s\" that the data has.",
						   text_to_cstring(rewrite->type)),
				 errhint("Pass the argument schema_version.")));
}

/*
 * Refuses data that may be either as they were stored or as readers get them.
 */
static void
check_version_known(const Rewrite *rewrite)
{
	int			stored = Max(schema_version_read(rewrite->stored), 1);
	int			current = upcast_stored_version(rewrite);

	if (current > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the schema version of the new data must be given"),
				 errdetail("The event, of type \"%s\", is stored as of schema version %d. Readers get it upcast to version %d.",
						   text_to_cstring(rewrite->type), stored, current),
				 errhint("Pass schema_version => %d for data as a reader gets it, or schema_version => %d for data as it is stored.",
						 current, stored)));
}

/* The stored metadata without what is encrypted, which is that of the old data. */
static Datum
own_metadata(const Rewrite *rewrite)
{
	return event_type_has_personal(rewrite->log) ? open_strip_metadata(rewrite->stored) :
		rewrite->stored;
}

/*
 * Sets the schema version of the new data in the metadata.  It is that of the argument,
 * that of the new metadata, or that of the stored data if readers get these as they are.
 * given: 0 for none.
 */
static void
set_rewritten_version(Rewrite *rewrite, int64 given)
{
	bool		replaced = rewrite->metadata != (Datum) 0;
	int			said = schema_version_read(rewrite->metadata);
	int			stored = schema_version_read(rewrite->stored);

	check_said_version(rewrite, given > 0 ? SCHEMA_VERSION_NONE : said);
	if (given > 0)
	{
		check_rewritten_version(rewrite, given, said);
		rewrite->metadata = schema_version_add(replaced ? rewrite->metadata :
											   own_metadata(rewrite),
											   schema_version_metadata((int) given));
	}
	else if (said == SCHEMA_VERSION_NONE)
	{
		check_version_known(rewrite);
		if (replaced && stored > 0)
			rewrite->metadata = schema_version_add(rewrite->metadata,
												   schema_version_metadata(stored));
	}
}

/* Refuses data of a schema version whose attributes may have other names than the personal ones. */
static void
check_version_of_personal(const Rewrite *rewrite, Datum metadata)
{
	const EventType *type = event_type_find(rewrite->log, rewrite->stream, rewrite->type);
	int			version = schema_version_read(metadata);

	if (type == NULL || type->personal == NIL || Max(version, 1) == type->schema_version)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the new data must be of the current schema version"),
			 errdetail("Type \"%s\" has personal attributes, whose names are those of version %d.",
					   type->type, type->schema_version),
			 errhint("Pass schema_version => %d, and data as a reader gets it.",
					 type->schema_version)));
}

/* Opens what is stored, as the caller got it. */
static OpenedState
open_rewritten(const Rewrite *rewrite, Datum *metadata)
{
	SealedEvent sealed = {
		.id = DatumGetUUIDP(rewrite->id),
		.stream = rewrite->stream,
		.type = rewrite->type,
		.metadata = rewrite->stored
	};
	OpenedState state;

	if (rewrite->stored == (Datum) 0 || !open_is_sealed(rewrite->stored))
		return OPENED_NOTHING;
	read_event_columns(rewrite, "SELECT data FROM @extschema@.es_events WHERE id = $1");
	sealed.data = own_sql_value(1);
	state = open_event(rewrite->log, &sealed, open_may_see(rewrite->log, GetUserId()));
	*metadata = sealed.metadata;
	return state;
}

/* What is encrypted, or why it was not opened, by subject; NULL: nothing. */
static JsonbContainer *
envelope_of(Datum metadata, JsonbValue *buffer)
{
	JsonbValue *value = metadata == (Datum) 0 ? NULL :
	event_attribute_value(DatumGetJsonbP(metadata), ENVELOPE_KEY, buffer);

	return value == NULL || value->type != jbvBinary ? NULL : value->val.binary.data;
}

/* Returns true if it says that the person was erased. */
static bool
is_erased(const JsonbValue *word)
{
	static const char erased[] = "erased";

	return word->type == jbvString && word->val.string.len == (int) strlen(erased) &&
		memcmp(word->val.string.val, erased, strlen(erased)) == 0;
}

/*
 * Refuses to lose what no key opens now, and perhaps does again later: the caller got nulls.  It is
 * replaced only by new values of the same person.  opened: metadata as the caller got it.
 */
static void
check_nothing_is_lost(Datum opened, Datum replaced)
{
	JsonbValue	buffer;
	JsonbContainer *words = envelope_of(opened, &buffer);
	JsonbContainer *sealed = envelope_of(replaced, &buffer);
	JsonbIterator *iterator = JsonbIteratorInit(words);
	JsonbValue	subject;
	JsonbValue	word;

	(void) JsonbIteratorNext(&iterator, &subject, true);
	while (JsonbIteratorNext(&iterator, &subject, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &word, true);
		if (is_erased(&word) ||
			(sealed != NULL && getKeyJsonValueFromContainer(sealed, subject.val.string.val,
															subject.val.string.len, NULL) != NULL))
			continue;
		open_refuse(OPENED_LOCKED, "rewrite the event");
	}
}

/* Step 4. */
static void
seal_rewritten(Rewrite *rewrite)
{
	NewEvent	event = {
		.stream = rewrite->stream,
		.type = rewrite->type,
		.data = rewrite->data,
		.metadata = rewrite->metadata ? rewrite->metadata : open_strip_metadata(rewrite->stored),
		.tags = rewrite->tags,
		.id = *DatumGetUUIDP(rewrite->id),
		.has_id = true
	};
	OpenedState state;
	Datum		opened;

	if (!event_type_has_personal(rewrite->log))
		return;
	state = open_rewritten(rewrite, &opened);
	if (state == OPENED_HIDDEN)
		open_refuse(state, "rewrite the event");
	check_version_of_personal(rewrite, event.metadata);
	seal_identify(rewrite->log, &event, 1);
	if (!tags_equal(event.tags, rewrite->tags))
	{
		tags_lock_missing(rewrite->log, event.tags, rewrite->tags);
		rewrite->tags = event.tags;
		rewrite->retagged = true;
	}
	seal_events(rewrite->log, &event, 1);
	if (state == OPENED_LOCKED)
		check_nothing_is_lost(opened, event.metadata);
	rewrite->data = event.data;
	if (event.metadata != (Datum) 0 || rewrite->stored == (Datum) 0)
		rewrite->metadata = event.metadata;
	else
		rewrite->metadata = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}

/* Changes the event; returns its position. */
static int64
rewrite_event(const Rewrite *rewrite)
{
	Oid			types[4] = {UUIDOID, JSONBOID, JSONBOID, TEXTARRAYOID};
	Datum		values[4] = {rewrite->id, rewrite->data, rewrite->metadata, rewrite->tags};
	char		nulls[] = {' ', ' ', rewrite->metadata ? ' ' : 'n', rewrite->retagged ? ' ' : 'n', '\0'};

	log_guard_allow_rewrite(true);
	PG_TRY();
	{
		(void) own_sql_run(rewrite->log,
						   "UPDATE @extschema@.es_events"
						   " SET data = $2, metadata = coalesce($3, metadata), tags = coalesce($4, tags)"
						   " WHERE id = $1 RETURNING position",
						   4, types, values, nulls);
	}
	PG_FINALLY();
	{
		log_guard_allow_rewrite(false);
	}
	PG_END_TRY();
	if (SPI_processed != 1)
		fail_missing_event(DatumGetUUIDP(rewrite->id));
	return DatumGetInt64(own_sql_value(1));
}

/* Lets the event be found by tags that it has got. */
static void
store_added_tags(const Rewrite *rewrite, int64 position)
{
	Oid			types[3] = {TEXTARRAYOID, INT8OID, TEXTOID};
	Datum		values[3] = {rewrite->tags, Int64GetDatum(position), PointerGetDatum(rewrite->type)};

	if (rewrite->retagged)
		(void) own_sql_run(rewrite->log,
						   "INSERT INTO @extschema@.es_tags (tag, position, type)"
						   " SELECT t.tag, $2, $3 FROM pg_catalog.unnest($1) t (tag)"
						   " ON CONFLICT (tag, position) DO NOTHING",
						   3, types, values, NULL);
}

/* Records that the event was rewritten, by whom and when last. */
static void
record_rewrite(Oid log, int64 position)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];

	values[0] = Int64GetDatum(position);
	values[1] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	(void) own_sql_run(log,
					   "INSERT INTO @extschema@.es_rewrites AS r"
					   " (position, rewritten_at, rewritten_by)"
					   " SELECT $1, clock_timestamp(), $2::name"
					   " ON CONFLICT (position) DO UPDATE SET"
					   " (rewritten_at, rewritten_by) ="
					   " (excluded.rewritten_at, excluded.rewritten_by)",
					   2, types, values, NULL);
}

/*
 * Looks it up with the snapshot of the log, which has seen the event.
 */
bool
rewrite_is_recorded(Log *log, int64 position)
{
	Relation	rel = table_open(own_table_relid(RelationGetRelid(log->rel),
												 "es_rewrites"),
								 AccessShareLock);
	Relation	index = index_open(compat_primary_key_index(rel),
								   AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = compat_index_beginscan(rel, index, log_snapshot(log), 1);
	ScanKeyData key;
	bool		found;

	table_row_key(&key, index, 1, BTEqualStrategyNumber, F_INT8EQ,
				  Int64GetDatum(position));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * es_rewrite(id, data, metadata, schema_version) returns bigint.
 */
Datum
es_rewrite(PG_FUNCTION_ARGS)
{
	Rewrite		rewrite = {.log = log_relid(fcinfo->flinfo->fn_oid)};
	int64		version = 0;
	int64		position;

	PreventCommandIfReadOnly("es_rewrite()");
	replica_refuse(rewrite.log, "rewrite events");
	argument_not_null(fcinfo, 0, "id");
	argument_not_null(fcinfo, 1, "data");
	rewrite.id = PG_GETARG_DATUM(0);
	rewrite.data = PG_GETARG_DATUM(1);
	if (!PG_ARGISNULL(2))
	{
		rewrite.metadata = PG_GETARG_DATUM(2);
		event_check_metadata(rewrite.metadata);
	}
	if (!PG_ARGISNULL(3))
		version = argument_int32(fcinfo, 3, "schema_version", 1, PG_INT32_MAX);
	SPI_connect();
	check_update_triggers(rewrite.log);
	lock_event(&rewrite);
	set_rewritten_version(&rewrite, version);
	seal_rewritten(&rewrite);
	position = rewrite_event(&rewrite);
	store_added_tags(&rewrite, position);
	record_rewrite(rewrite.log, position);
	snapshot_lock_forget(rewrite.log, rewrite.stream, rewrite.tags);
	SPI_finish();
	PG_RETURN_INT64(position);
}
