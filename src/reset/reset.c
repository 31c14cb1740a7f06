/*-------------------------------------------------------------------------
 *
 * reset.c
 *		es_reset(): empties the store between tests.
 *
 * The log is emptied, and all that was made from it.  What was defined stays: event types,
 * upcasters, projections, subscriptions, rules of retention, rights.  Design, with what
 * becomes of each table, is in doc/internals/reset.md.  The sequence:
 *
 *	1. Refuse what is not a database for tests (reset_check.c).
 *	2. Lock all tables, with those of read models, in one step or not at all
 *	   (reset_lock.c).  From then on this transaction is alone with the store.
 *	3. Begin an incarnation, so that positions and tokens that anybody remembers are void.
 *	4. TRUNCATE, as the tables' owners; let positions begin at 1 again.
 *	5. Set the checkpoints of projections, subscriptions and rules back.
 *	6. Refresh materialized views of projections, which now have no rows.
 *
 * It is one transaction, and a rollback or a crash undoes all of it.  What sessions and
 * shared memory remember of the log is remembered of its file, which is another one
 * afterwards: stable positions, guesses of index pages, partitions of events, how far
 * listeners were notified.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "base/base.h"
#include "identity/identity.h"
#include "log/log.h"
#include "log/removed.h"
#include "projection/projection.h"
#include "reset/reset.h"

PG_FUNCTION_INFO_V1(es_reset);

/* Returns true if the lists have the same tables. */
static bool
is_same_list(const List *one, const List *other)
{
	return list_difference_oid(one, other) == NIL && list_difference_oid(other, one) == NIL;
}

/*
 * Step 2.  Which tables read models have can change until es_projections is locked.
 */
static void
lock_store(Oid log)
{
	List	   *models = reset_read_models(log);

	reset_lock(list_concat(reset_own_tables(log), models));
	if (!is_same_list(models, reset_read_models(log)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to the projections"),
				 errdetail("Another session has changed the tables of a projection at this moment."),
				 errhint("The transaction might succeed if retried.")));
}

/* Step 4. */
static void
empty_store(Oid log)
{
	reset_empty_read_models(log);
	log_guard_allow_truncate(true);
	PG_TRY();
	{
		reset_empty_tables(log);
	}
	PG_FINALLY();
	{
		log_guard_allow_truncate(false);
	}
	PG_END_TRY();
}

/*
 * es_reset(): empties the store, and keeps what is defined.
 */
Datum
es_reset(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);

	PreventCommandIfReadOnly("es_reset()");
	isolation_check("es_reset()");
	projection_check_outside_handler("es_reset()");
	SPI_connect();
	reset_check(log);
	lock_store(log);
	identity_reset(log);
	empty_store(log);
	reset_definitions(log);
	reset_refresh_views(log);
	SPI_finish();
	PG_RETURN_VOID();
}

void
reset_init(void)
{
	reset_define_setting();
}
