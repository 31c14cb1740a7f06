/*-------------------------------------------------------------------------
 *
 * log_guard.c
 *		Triggers of es_events that refuse or complete rows.
 *
 * The extension's triggers refuse UPDATE, DELETE and TRUNCATE, except for the one
 * UPDATE that es_rewrite() allows itself, the one DELETE of a removal, and the one
 * TRUNCATE of es_reset().  They complete rows that come by INSERT or COPY, for example
 * from a dump.  Row triggers of others BEFORE INSERT and BEFORE
 * UPDATE are refused if they would fire, as they could change what an append and a
 * rewrite rely on.  So are rules ON INSERT and tables that inherit from the log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "replication/logicalworker.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/removed.h"
#include "log/replica.h"
#include "log/slots.h"
#include "log/tags.h"

PG_FUNCTION_INFO_V1(es_events_refuse);
PG_FUNCTION_INFO_V1(es_events_complete);

/* The trigger for rows that come by INSERT or COPY. */
#define COMPLETE_TRIGGER "es_events_complete"

/* A trigger of ours that is for rows; the other ones are for statements. */
#define REFUSE_ROW_TRIGGER "es_events_refuse_row"

/* How deep in triggers one UPDATE is allowed; -1: none is. */
static int	rewrite_depth = -1;

/* How deep one row of this UPDATE is allowed. */
static int	rewritten_row_depth = -1;

/* The same of one DELETE, all rows of which are allowed. */
static int	removal_depth = -1;
static int	removed_row_depth = -1;

/* The same of one TRUNCATE. */
static int	truncate_depth = -1;

/* Logical replication has applied rows in this transaction. */
static bool has_applied = false;

/* Returns true if the trigger fires in this session. */
static bool
is_trigger_enabled(const Trigger *trigger)
{
	switch (trigger->tgenabled)
	{
		case TRIGGER_DISABLED:
			return false;
		case TRIGGER_FIRES_ON_ORIGIN:
			return SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
		case TRIGGER_FIRES_ON_REPLICA:
			return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
		default:
			return true;
	}
}

/*
 * Returns true if the trigger could change or skip a row, and is not ours.  event:
 * TRIGGER_TYPE_INSERT, TRIGGER_TYPE_UPDATE or TRIGGER_TYPE_DELETE.
 */
static bool
is_foreign_row_trigger(const Trigger *trigger, int16 event)
{
	return TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								TRIGGER_TYPE_BEFORE, event) &&
		strcmp(trigger->tgname, COMPLETE_TRIGGER) != 0 &&
		strcmp(trigger->tgname, REFUSE_ROW_TRIGGER) != 0 &&
		is_trigger_enabled(trigger);
}

/*
 * Refuses triggers that could change or skip a row that has its position.  Returns the slots
 * that one of ours names; NULL if there is none.
 */
static const char *
check_insert_triggers(const TriggerDesc *triggers)
{
	const char *slots = NULL;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (!is_foreign_row_trigger(&triggers->triggers[i], TRIGGER_TYPE_INSERT))
			continue;
		slots = slots_of_trigger(&triggers->triggers[i]);
		if (slots == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE INSERT row trigger"),
					 errdetail("Trigger \"%s\" could change or skip an event that has its position.",
							   triggers->triggers[i].tgname),
					 errhint("Use a CHECK constraint or an AFTER trigger, whose error refuses the append.")));
	}
	return slots;
}

/* Returns true if the rule would take part in an INSERT of this session. */
static bool
is_insert_rule(const RewriteRule *rule)
{
	char		other = SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
	RULE_FIRES_ON_ORIGIN : RULE_FIRES_ON_REPLICA;

	return rule->event == CMD_INSERT && rule->enabled != RULE_DISABLED &&
		rule->enabled != other;
}

/* Refuses rules, which would be for a statement that is not there. */
static void
check_insert_rules(Relation log)
{
	int			i;

	for (i = 0; i < log->rd_rules->numLocks; i++)
	{
		if (is_insert_rule(log->rd_rules->rules[i]))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no rule ON INSERT"),
					 errdetail("An append is not a statement that %s could rewrite.",
							   getObjectDescriptionOids(RewriteRelationId,
														log->rd_rules->rules[i]->ruleId)),
					 errhint("Use an AFTER trigger.")));
	}
}

/*
 * Refuses tables that inherit from the log: a query on es_events would show their
 * rows, and readers that go by the indexes would not.
 */
static void
check_no_children(Relation log)
{
	List	   *children = find_inheritance_children(RelationGetRelid(log),
													 NoLock);

	if (children != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("no table must inherit from \"es_events\""),
				 errdetail("Rows of table \"%s\" would be events to some readers and not to others.",
						   get_rel_name(linitial_oid(children))),
				 errhint("ALTER TABLE %s NO INHERIT %s",
						 own_table_quoted_name(linitial_oid(children)),
						 own_table_quoted_name(RelationGetRelid(log)))));
}

/* Refuses a column of another type, which no other object keeps from being altered. */
static void
check_next_xid_column(Relation log)
{
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(log),
											 Anum_es_events_next_xid - 1);

	if (column->atttypid != XID8OID)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"next_xid\" of table \"es_events\" was changed"),
				 errdetail("It was %s.",
						   column->attisdropped ? "dropped" : "given another type"),
				 errhint("The horizon needs it as it was, of type xid8; restore the log from a dump.")));
}

/*
 * Refuses what an append could not honour.  An ordinary table costs a look at some
 * fields.
 */
const char *
log_guard_check_insert(Relation log)
{
	const char *slots = check_insert_triggers(log->trigdesc);


	check_next_xid_column(log);
	if (log->rd_rules != NULL)
		check_insert_rules(log);
	if (log->rd_rel->relhassubclass)
		check_no_children(log);
	if (log->rd_rel->relrowsecurity)
		log_check_open(log);
	return slots;
}

/*
 * Returns true if the trigger is for an UPDATE of the columns that es_rewrite() sets.
 */
static bool
is_for_rewritten_columns(const Trigger *trigger)
{
	int			i;

	for (i = 0; i < trigger->tgnattr; i++)
	{
		if (trigger->tgattr[i] == Anum_es_events_data ||
			trigger->tgattr[i] == Anum_es_events_metadata ||
			trigger->tgattr[i] == Anum_es_events_tags)
			return true;
	}
	return trigger->tgnattr == 0;
}

/*
 * Refuses triggers that could change more of an event than is rewritten.
 */
void
log_guard_check_update(const TriggerDesc *triggers, bool all_columns)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_foreign_row_trigger(&triggers->triggers[i], TRIGGER_TYPE_UPDATE) &&
			(all_columns || is_for_rewritten_columns(&triggers->triggers[i])))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE UPDATE row trigger"),
					 errdetail("Trigger \"%s\" could change more of the event than its data.",
							   triggers->triggers[i].tgname),
					 errhint("Use a CHECK constraint or an AFTER trigger, whose error refuses the change.")));
	}
}

/*
 * Refuses triggers that could keep a row from being deleted.
 */
void
log_guard_check_delete(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_foreign_row_trigger(&triggers->triggers[i], TRIGGER_TYPE_DELETE))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE DELETE row trigger"),
					 errdetail("Trigger \"%s\" could keep an event that is to be removed.",
							   triggers->triggers[i].tgname),
					 errhint("Use an AFTER trigger, whose error refuses the removal.")));
	}
}

#define HINT_TO_APPEND \
	errhint("Append events by es_append() or es_append_batch(), or by INSERT and COPY into the view es_import.")

/*
 * Returns the position or version of a row that comes by INSERT or COPY.  A row without
 * one is not from a dump: it was meant to be appended.
 */
static int64
numbered_column(const TriggerData *trigger, int column)
{
	const char *name = column == Anum_es_events_position ? "position" : "version";
	bool		isnull;
	Datum		value = heap_getattr(trigger->tg_trigtuple, column,
									 RelationGetDescr(trigger->tg_relation),
									 &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("a row for table \"es_events\" has no %s", name),
				 errdetail("INSERT and COPY into the table are for events that come from a log with all of their columns."),
				 HINT_TO_APPEND));
	if (DatumGetInt64(value) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a row for table \"es_events\" has no valid %s", name),
				 errdetail("It is " INT64_FORMAT "; positions and versions begin at 1.",
						   DatumGetInt64(value)),
				 HINT_TO_APPEND));
	return DatumGetInt64(value);
}

/* Refuses tags that are not as an append stores them. */
static void
check_tags_column(const TriggerData *trigger)
{
	Datum		tags = stored_event_column(trigger->tg_relation, trigger->tg_trigtuple, Anum_es_events_tags);

	if (tags != (Datum) 0 && !tags_are_stored_form(tags))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a row for table \"es_events\" has tags that are not sorted and distinct"),
				 errdetail("The tags are %s.",
						   OidOutputFunctionCall(F_ARRAY_OUT, tags)),
				 HINT_TO_APPEND));
}

/*
 * Locks the tags of a row that comes otherwise, before the sequence is raised, as an append
 * locks them before it draws a position.  The log is locked already.
 */
static void
lock_tags_of_row(const TriggerData *trigger)
{
	Datum		tags = stored_event_column(trigger->tg_relation, trigger->tg_trigtuple, Anum_es_events_tags);
	LogLock    *locks;

	if (tags == (Datum) 0)
		return;
	locks = palloc(sizeof(LogLock) * tags_count(tags));
	log_lock_all(RelationGetRelid(trigger->tg_relation), locks, tags_add_locks(tags, locks));
	pfree(locks);
}

/*
 * Lets definitions that are to be restored after the events be replayed when the
 * transaction ends, which a deferred trigger does for rows that change.
 */
static void
touch_restored_definitions(Relation log)
{
	if (!log_is_closed(log))
		return;
	SPI_connect();
	(void) own_sql_run(RelationGetRelid(log),
					   "UPDATE @extschema@.es_user_definitions SET definitions = definitions",
					   0, NULL, NULL, NULL);
	SPI_finish();
}

/*
 * Refuses sync projections, whose triggers are for statements: an apply worker, which
 * brings rows alone, does not fire them.
 */
static void
check_no_sync_projection(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgenabled != TRIGGER_DISABLED &&
			strcmp(get_func_name(trigger->tgfoid), "es_projection_sync") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a store with sync projections cannot be a logical replica"),
					 errdetail("The events that a subscription brings do not fire trigger \"%s\".",
							   trigger->tgname),
					 errhint("Make the projection async by es_alter_projection(..., mode => 'async').")));
	}
}

/* The sequence of positions, looked up once in a statement. */
static Oid
sequence_of_trigger(FunctionCallInfo fcinfo, const TriggerData *trigger)
{
	FmgrInfo   *function = fcinfo->flinfo;

	if (function->fn_extra == NULL)
	{
		Oid		   *sequence = MemoryContextAlloc(function->fn_mcxt, sizeof(Oid));

		if (IsLogicalWorker())
		{
			check_no_sync_projection(trigger->tg_relation->trigdesc);
			replica_check_apply(RelationGetRelid(trigger->tg_relation));
		}
		else
			replica_refuse(RelationGetRelid(trigger->tg_relation), "insert events");
		log_restore_begin();
		touch_restored_definitions(trigger->tg_relation);
		*sequence = own_table_relid(RelationGetRelid(trigger->tg_relation),
									"es_position");
		function->fn_extra = sequence;
	}
	return *(Oid *) function->fn_extra;
}

/*
 * BEFORE INSERT of a row, for example from a dump.  Raises the sequence to its position,
 * and replaces its next_xid, which is of another cluster, by one of this cluster.  In this
 * order, and after the transaction got an id, the row is like one whose position was drawn
 * (horizon.c).  A row that logical replication brings is marked (replica.c).
 */
Datum
es_events_complete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	int			column = Anum_es_events_next_xid;
	Datum		next_xid;
	int64		position;
	bool		isnull = false;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called by INSERT",
						COMPLETE_TRIGGER),
				 errdetail("It belongs to the table es_events.")));
	position = numbered_column(trigger, Anum_es_events_position);
	(void) numbered_column(trigger, Anum_es_events_version);
	check_tags_column(trigger);
	lock_tags_of_row(trigger);
	(void) GetCurrentTransactionId();
	has_applied = has_applied || IsLogicalWorker();
	log_sequence_raise(sequence_of_trigger(fcinfo, trigger), position);
	next_xid = FullTransactionIdGetDatum(IsLogicalWorker() ?
										 FullTransactionIdFromU64(NEXT_XID_APPLIED) :
										 ReadNextFullTransactionId());
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 1, &column, &next_xid,
													 &isnull));
}

void
log_guard_note_applied(void)
{
	has_applied = true;
}

/*
 * Returns true if logical replication has applied rows since the last call.
 */
bool
log_guard_take_applied(void)
{
	bool		result = has_applied;

	has_applied = false;
	return result;
}

/* How many triggers deep the present call is. */
static int
trigger_depth(void)
{
	return DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH));
}

/*
 * Allows the next UPDATE of es_events at this depth of triggers, or no more.  An
 * UPDATE that a trigger runs meanwhile is deeper, and is not allowed.
 */
void
log_guard_allow_rewrite(bool allow)
{
	rewrite_depth = allow ? trigger_depth() : -1;
	rewritten_row_depth = -1;
}

/*
 * Returns true if this UPDATE is the one that is allowed, and allows one row of it, and
 * no other UPDATE.
 */
static bool
use_allowed_rewrite(void)
{
	if (rewrite_depth < 0 || trigger_depth() != rewrite_depth + 1)
		return false;
	rewrite_depth = -1;
	rewritten_row_depth = trigger_depth();
	return true;
}

/* Returns true if this row is the one that is allowed, and allows no other. */
static bool
use_allowed_row(void)
{
	if (rewritten_row_depth < 0 || trigger_depth() != rewritten_row_depth)
		return false;
	rewritten_row_depth = -1;
	return true;
}

/*
 * Allows the next DELETE of es_events at this depth of triggers, with all its rows, or no
 * more.
 */
void
log_guard_allow_removal(bool allow)
{
	removal_depth = allow ? trigger_depth() : -1;
	removed_row_depth = -1;
}

/* Returns true if this DELETE is the one that is allowed, and allows no other. */
static bool
use_allowed_removal(void)
{
	if (removal_depth < 0 || trigger_depth() != removal_depth + 1)
		return false;
	removal_depth = -1;
	removed_row_depth = trigger_depth();
	return true;
}

/*
 * Allows the next TRUNCATE of es_events at this depth of triggers, or no more.
 */
void
log_guard_allow_truncate(bool allow)
{
	truncate_depth = allow ? trigger_depth() : -1;
}

/* Returns true if this TRUNCATE is the one that is allowed, and allows no other. */
static bool
use_allowed_truncate(void)
{
	if (truncate_depth < 0 || trigger_depth() != truncate_depth + 1)
		return false;
	truncate_depth = -1;
	return true;
}

/* Returns true if the change of the row is one that is allowed. */
static bool
is_row_allowed(const TriggerData *trigger)
{
	if (IsLogicalWorker())
		return true;
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? use_allowed_row() :
		removed_row_depth >= 0 && trigger_depth() == removed_row_depth;
}

/* Returns true if the change of the row or table is the one that is allowed. */
static bool
is_allowed(const TriggerData *trigger)
{
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return is_row_allowed(trigger);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return use_allowed_rewrite();
	return TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? use_allowed_removal() :
		use_allowed_truncate();
}

/*
 * BEFORE UPDATE OR DELETE OR TRUNCATE of es_events: refuses all but the one UPDATE
 * of es_rewrite(), the one DELETE of a removal and the one TRUNCATE of es_reset().  It is
 * called for each statement, which is refused before anything is done, and for each row.  A statement on a table that es_events inherits from, or is
 * a partition of, has rows of es_events alone.  So has logical replication, which brings
 * what was rewritten on the publisher.
 */
Datum
es_events_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);

	if (!is_allowed(trigger))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events cannot be changed or removed"),
				 errdetail("%s of \"%s\" was refused.",
						   is_update ? "UPDATE" :
						   TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE" :
						   "TRUNCATE",
						   RelationGetRelationName(trigger->tg_relation)),
				 errhint("Append an event that corrects the earlier one, or remove a stream's events by es_delete_stream() or es_truncate_stream().")));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return PointerGetDatum(NULL);
	if (IsLogicalWorker())
		replica_apply_change(trigger->tg_relation, trigger->tg_trigtuple,
							 is_update ? trigger->tg_newtuple : NULL);
	return PointerGetDatum(is_update ? trigger->tg_newtuple : trigger->tg_trigtuple);
}
