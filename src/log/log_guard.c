/*-------------------------------------------------------------------------
 *
 * log_guard.c
 *		Triggers of es_events that refuse or complete rows.
 *
 * Ours refuse UPDATE, DELETE and TRUNCATE, except for the one UPDATE that
 * es_rewrite() allows itself, and complete rows that come by INSERT or COPY, from
 * a dump say.  Row triggers of others BEFORE INSERT and BEFORE UPDATE are refused,
 * as they could change what an append and a rewrite rely on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "base/base.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_events_refuse);
PG_FUNCTION_INFO_V1(es_events_complete);

/* The trigger for rows that come by INSERT or COPY. */
#define COMPLETE_TRIGGER "es_events_complete"

/* How deep in triggers one UPDATE is allowed; -1: none is. */
static int	rewrite_depth = -1;

/*
 * Returns true if the trigger could change or skip a row, and is not ours.  event:
 * TRIGGER_TYPE_INSERT or TRIGGER_TYPE_UPDATE.
 */
static bool
is_foreign_row_trigger(const Trigger *trigger, int16 event)
{
	return TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								TRIGGER_TYPE_BEFORE, event) &&
		strcmp(trigger->tgname, COMPLETE_TRIGGER) != 0;
}

/*
 * Refuses triggers that could change or skip a row that has its position.
 */
void
log_guard_check_insert(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_foreign_row_trigger(&triggers->triggers[i], TRIGGER_TYPE_INSERT))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE INSERT row trigger"),
					 errdetail("Trigger \"%s\" could change or skip an event that has its position.",
							   triggers->triggers[i].tgname),
					 errhint("Use a CHECK constraint or an AFTER trigger, whose error refuses the append.")));
	}
}

/*
 * Refuses triggers that could change more of an event than is rewritten.
 */
void
log_guard_check_update(const TriggerDesc *triggers)
{
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (is_foreign_row_trigger(&triggers->triggers[i], TRIGGER_TYPE_UPDATE))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"es_events\" must have no BEFORE UPDATE row trigger"),
					 errdetail("Trigger \"%s\" could change more of the event than its data.",
							   triggers->triggers[i].tgname),
					 errhint("Use a CHECK constraint or an AFTER trigger, whose error refuses the change.")));
	}
}

/*
 * BEFORE INSERT of a row that comes from a dump, say: replaces its next_xid, which
 * is of another cluster, by one of this cluster.
 */
Datum
es_events_complete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");
	int			column = Anum_es_events_next_xid;
	Datum		next_xid;
	bool		isnull = false;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called by INSERT",
						COMPLETE_TRIGGER),
				 errdetail("It belongs to the table es_events.")));
	(void) GetCurrentTransactionId();
	next_xid = FullTransactionIdGetDatum(ReadNextFullTransactionId());
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 1, &column, &next_xid,
													 &isnull));
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
}

/*
 * Returns true if this UPDATE is the one that is allowed, and allows no other.
 */
static bool
use_allowed_rewrite(void)
{
	if (rewrite_depth < 0 || trigger_depth() != rewrite_depth + 1)
		return false;
	rewrite_depth = -1;
	return true;
}

/*
 * BEFORE UPDATE OR DELETE OR TRUNCATE of es_events: refuses all but the one UPDATE
 * of es_rewrite().
 */
Datum
es_events_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = own_trigger_data(fcinfo, "es_events");

	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && use_allowed_rewrite())
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events cannot be changed or removed"),
			 errdetail("%s of \"%s\" was refused.",
					   TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE" :
					   TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE" :
					   "TRUNCATE",
					   RelationGetRelationName(trigger->tg_relation)),
			 errhint("Append an event that corrects the earlier one.")));
	return PointerGetDatum(NULL);
}
