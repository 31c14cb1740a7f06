/*-------------------------------------------------------------------------
 *
 * slots.c
 *		es_set_slots() and es_slots(): which streams are of this store.
 *
 * Where a log is spread over several stores, each stream has one of 1,024 slots,
 * es_partition(stream, 1024), and each slot is of one store.  A store that knows its
 * slots refuses to write to any other stream, so that a router with an old map cannot
 * split a stream in two (doc/internals/slots.md).
 *
 * The slots are the argument of a trigger of es_events, es_events_accept.  It is made
 * when they are set for the first time, and disabled when they are not set any more:
 *
 *	- The relation cache has it, so that an append pays nothing where it is not there, and
 *	  one comparison where it is.
 *	- It is transactional, a standby has it, and a dump has it as it has other triggers.
 *	- It fires for rows that come by INSERT, COPY and logical replication.  Appends do not
 *	  fire it; they ask by slots_check() under their lock on the log.
 *	- To change it takes ShareRowExclusiveLock, which waits for every transaction that
 *	  has appended, and is waited for by every one that will.  So no append has looked at
 *	  the slots before and is committed after.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/role.h"
#include "eventstore.h"
#include "log/closed.h"
#include "log/slots.h"

PG_FUNCTION_INFO_V1(es_set_slots);
PG_FUNCTION_INFO_V1(es_slots);
PG_FUNCTION_INFO_V1(es_events_accept);

/* The slots that were looked at last, as text and as bits. */
static char *known_text = NULL;
static uint8 known_bits[ES_SLOTS / 8];

static Datum
slots_from_text(const char *text)
{
	return OidInputFunctionCall(F_MULTIRANGE_IN, unconstify(char *, text),
								INT4MULTIRANGEOID, -1);
}

static char *
slots_to_text(Datum slots)
{
	return OidOutputFunctionCall(F_MULTIRANGE_OUT, slots);
}

/* Refuses a bound that is none of a slot. */
static void
check_bound(const RangeBound *bound, Datum slots)
{
	int32		value = bound->infinite ? 0 : DatumGetInt32(bound->val);

	if (bound->infinite || value < 0 || value > ES_SLOTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slots must be from 0 to %d", ES_SLOTS - 1),
				 errdetail("They are %s.", slots_to_text(slots)),
				 errhint("All of them are '{[0,%d)}'; null lets the store have every stream.",
						 ES_SLOTS)));
}

/*
 * Sets the bits of the slots.  Returns how many.
 */
static int
read_slots(Datum slots, uint8 *bits)
{
	TypeCacheEntry *type = lookup_type_cache(INT4MULTIRANGEOID, TYPECACHE_MULTIRANGE_INFO);
	int32		count;
	RangeType **ranges;
	int			found = 0;
	int			i;

	memset(bits, 0, ES_SLOTS / 8);
	multirange_deserialize(type->rngtype, DatumGetMultirangeTypeP(slots), &count, &ranges);
	for (i = 0; i < count; i++)
	{
		RangeBound	lower;
		RangeBound	upper;
		bool		empty;
		int			slot;

		range_deserialize(type->rngtype, ranges[i], &lower, &upper, &empty);
		check_bound(&lower, slots);
		check_bound(&upper, slots);
		for (slot = DatumGetInt32(lower.val); slot < DatumGetInt32(upper.val); slot++, found++)
			bits[slot / 8] |= 1 << slot % 8;
	}
	return found;
}

/* Makes these slots the known ones. */
static void
know_slots(const char *text)
{
	uint8		bits[ES_SLOTS / 8];
	char	   *copy;

	(void) read_slots(slots_from_text(text), bits);
	copy = MemoryContextStrdup(TopMemoryContext, text);
	if (known_text != NULL)
		pfree(known_text);
	known_text = copy;
	memcpy(known_bits, bits, sizeof(known_bits));
}

const char *
slots_of_trigger(const Trigger *trigger)
{
	return strcmp(trigger->tgname, SLOTS_TRIGGER) == 0 && trigger->tgnargs == 1 ?
		trigger->tgargs[0] : NULL;
}

/*
 * Refuses a stream of another store.
 */
void
slots_check_stream(const char *slots, text *stream)
{
	int			slot = stream_partition(stream, ES_SLOTS);

	if (known_text == NULL || strcmp(known_text, slots) != 0)
		know_slots(slots);
	if (known_bits[slot / 8] & 1 << slot % 8)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ES_WRONG_SHARD),
			 errmsg("stream \"%s\" is not of this store", text_to_cstring(stream)),
			 errdetail("Its slot is %d. The slots of this store are %s.", slot, slots),
			 errhint("Write to the store that has the slot; es_slots() returns those of a store.")));
}

/* The slots of es_events as text; NULL if they are not set. */
static const char *
slots_of_log(Relation log)
{
	const TriggerDesc *triggers = log->trigdesc;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW, TRIGGER_TYPE_BEFORE,
								 TRIGGER_TYPE_INSERT) &&
			trigger->tgenabled != TRIGGER_DISABLED && slots_of_trigger(trigger) != NULL)
			return slots_of_trigger(trigger);
	}
	return NULL;
}

void
slots_check_relid(Oid log, text *stream)
{
	Relation	rel = table_open(log, NoLock);
	const char *slots = slots_of_log(rel);

	if (slots != NULL)
		slots_check_stream(slots, stream);
	table_close(rel, NoLock);
}

/*
 * BEFORE INSERT of a row that is not appended: refuses one of another store.  A row without
 * a stream is left to the table's constraint.
 */
Datum
es_events_accept(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	Datum		stream;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || slots_of_trigger(trigger->tg_trigger) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" is not one that es_set_slots() makes",
						trigger->tg_trigger->tgname),
				 errdetail("It must be named \"%s\", be for INSERT, and have one argument.",
						   SLOTS_TRIGGER)));
	stream = stored_event_column(trigger->tg_relation, trigger->tg_trigtuple, Anum_es_events_stream);
	if (stream != (Datum) 0)
		slots_check_stream(slots_of_trigger(trigger->tg_trigger), DatumGetTextPP(stream));
	return PointerGetDatum(trigger->tg_trigtuple);
}

/* Runs DDL as the owner of the log. */
static void
change_log(Oid log, const char *sql)
{
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), sql);
	run_as_end(saved);
}

/* Returns true if the slots are set. */
static bool
has_slots(Oid log)
{
	Relation	rel = table_open(log, NoLock);
	bool		result = slots_of_log(rel) != NULL;

	table_close(rel, NoLock);
	return result;
}

/* Makes the trigger, or another one of it. */
static void
make_trigger(Oid log, const char *slots)
{
	char	   *table = own_table_quoted_name(log);

	change_log(log, psprintf("CREATE OR REPLACE TRIGGER " SLOTS_TRIGGER " BEFORE INSERT ON %s"
							 " FOR EACH ROW EXECUTE FUNCTION %s.es_events_accept(%s)",
							 table,
							 quote_identifier(get_namespace_name(get_rel_namespace(log))),
							 quote_literal_cstr(slots)));
	change_log(log, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " SLOTS_TRIGGER, table));
}

/* A removed stream that would be of this store again; $1: the slots, null: all. */
static const char *const find_removed =
"SELECT r.stream, @extschema@.es_partition(r.stream, 1024) FROM @extschema@.es_removals r"
" WHERE r.action = 'foreign' AND ($1 IS NULL OR @extschema@.es_partition(r.stream, 1024) <@ $1)"
" ORDER BY r.id LIMIT 1";

/*
 * Refuses slots some of whose streams were removed as those of another store: their versions
 * would begin anew.
 */
static void
check_none_removed(Oid log, Datum slots)
{
	Oid			type = INT4MULTIRANGEOID;
	uint64		found;

	PushActiveSnapshot(GetLatestSnapshot());
	found = own_sql_run_on_all_rows(log, find_removed, 1, &type, &slots,
									slots == (Datum) 0 ? "n" : NULL, false);
	PopActiveSnapshot();
	if (found > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the store cannot have slots whose streams were removed from it"),
				 errdetail("Stream \"%s\" of slot %d was removed by es_remove_foreign_streams(). Its versions would begin anew.",
						   text_to_cstring(DatumGetTextPP(own_sql_value(1))),
						   DatumGetInt32(own_sql_value(2))),
				 errhint("Leave the slot to the store that has the events.")));
}

/*
 * es_set_slots(slots) returns int: how many slots the store has from now on.
 */
Datum
es_set_slots(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	uint8		bits[ES_SLOTS / 8];
	int			count = ES_SLOTS;

	PreventCommandIfReadOnly("es_set_slots()");
	if (!PG_ARGISNULL(0))
		count = read_slots(PG_GETARG_DATUM(0), bits);
	log_check_relid_open(log);
	log_lock_whole(log, "to set the slots of the store", NULL, NULL);
	SPI_connect();
	check_none_removed(log, PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0));
	if (!PG_ARGISNULL(0))
		make_trigger(log, slots_to_text(PG_GETARG_DATUM(0)));
	else if (has_slots(log))
		change_log(log, psprintf("ALTER TABLE %s DISABLE TRIGGER " SLOTS_TRIGGER,
								 own_table_quoted_name(log)));
	SPI_finish();
	PG_RETURN_INT32(count);
}

/*
 * es_slots() returns int4multirange; null if they are not set.
 */
Datum
es_slots(PG_FUNCTION_ARGS)
{
	Relation	log = table_open(log_relid(fcinfo->flinfo->fn_oid), AccessShareLock);
	const char *slots = slots_of_log(log);
	char	   *copy = slots == NULL ? NULL : pstrdup(slots);

	table_close(log, AccessShareLock);
	if (copy == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(slots_from_text(copy));
}
