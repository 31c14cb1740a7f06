/*-------------------------------------------------------------------------
 *
 * projection_run.c
 *		Running async projections: es_run_projections, es_work and, through
 *		projection_run_due, the workers.
 *
 * All run batches of what is due (projection_batch.c), and retry parked events that
 * are (projection_retry.c), until nothing is left.
 * es_run_projections does so in the caller's transaction, and tries nothing again that
 * has failed meanwhile: each attempt would have to pass over the row versions that the ones
 * before have left.  es_work and the workers commit after each batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "log/closed.h"
#include "log/log.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"

PG_FUNCTION_INFO_V1(es_run_projections);
PG_FUNCTION_INFO_V1(es_work);

/* How long an idle es_work sleeps, in milliseconds. */
#define IDLE_SLEEP		100

/*
 * Retries the parked events of a stream that are due, or runs one batch of one
 * projection; returns false if nothing was due.
 */
bool
projection_run_due(Oid log)
{
	ProjectionRun run;
	Projection *projection;
	int64		handled = 0;
	bool		busy;

	projection_limit_turn(NULL);
	SPI_connect();
	busy = projection_retry_due(log, NULL, true, GetCurrentTimestamp(), &handled);
	if (!busy)
	{
		projection_run_begin(&run, log, true);
		projection = projection_claim(&run, NULL);
		busy = projection != NULL;
		if (busy)
			(void) projection_run_batch(&run, projection);
		else
			projection_pass_over(&run, NULL);
		projection_run_end(&run);
	}
	SPI_finish();
	return busy;
}

/*
 * Retries the parked events of a stream that are due, or runs one batch; returns
 * false if nothing was due.
 */
static bool
run_due(const ProjectionRun *run, const char *name, int64 *handled)
{
	Projection *projection;

	if (projection_retry_due(run->log, name, false, run->begun, handled))
		return true;
	projection = projection_claim(run, name);
	if (projection != NULL)
		*handled += projection_run_batch(run, projection);
	return projection != NULL;
}

/* Runs at most so many batches of what is due; returns how many events. */
static int64
run_due_batches(const ProjectionRun *run, const char *name, int64 max_batches)
{
	int64		handled = 0;
	bool		busy = true;

	while (busy && max_batches-- > 0)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "eventstore run",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		busy = run_due(run, name, &handled);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextDelete(context);
	}
	return handled;
}

/*
 * es_run_projections(name, max_batches) returns bigint: runs what is due in
 * the caller's transaction; returns how many events were handled.
 */
Datum
es_run_projections(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name = PG_ARGISNULL(0) ? NULL :
	text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		max_batches = PG_ARGISNULL(1) ? PG_INT64_MAX :
	PG_GETARG_INT64(1);
	int64		handled;
	ProjectionRun run;

	PreventCommandIfReadOnly("es_run_projections()");
	argument_range("max_batches", max_batches, 0, PG_INT64_MAX);
	projection_check_outside_handler("es_run_projections()");
	log_restore_wait(log);
	SPI_connect();
	if (name != NULL)
		(void) projection_get(log, name, "");
	projection_run_begin(&run, log, false);
	handled = run_due_batches(&run, name, max_batches);
	projection_pass_over(&run, name);
	projection_run_end(&run);
	SPI_finish();
	PG_RETURN_INT64(handled);
}

/* Refuses a CALL inside a transaction block, where nothing can be committed. */
static void
check_outside_block(FunctionCallInfo fcinfo)
{
	if (fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("es_work cannot run in a transaction block"),
			 errdetail("It commits after each batch."),
			 errhint("CALL it by itself, or use es_run_projections() in a transaction.")));
}

/* Runs what is due, one batch a transaction, until nothing is. */
static void
run_until_idle(Oid log)
{
	bool		busy;

	do
	{
		CHECK_FOR_INTERRUPTS();
		busy = projection_run_due(log);
		SPI_commit();
	} while (busy);
}

/*
 * es_work(stop_when_idle): runs what is due, and commits after each batch.
 */
Datum
es_work(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	bool		stop_when_idle = PG_ARGISNULL(0) || PG_GETARG_BOOL(0);

	check_outside_block(fcinfo);
	PreventCommandIfReadOnly("es_work()");
	log_restore_wait(log);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	run_until_idle(log);
	while (!stop_when_idle)
	{
		sleep_nap(IDLE_SLEEP, "EventstoreWork");
		run_until_idle(log);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
