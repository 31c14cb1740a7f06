/*-------------------------------------------------------------------------
 *
 * projection_wait.c
 *		es_wait(): waits until a projection has handled an event, so that a
 *		client reads its own writes.
 *
 * An event at exactly the position that is parked has had no effect: it is waited for
 * while it is to be tried again by itself, and is an error when it is not.
 *
 * It looks at the projection's row again and again, each time with a new
 * snapshot, and runs no projection itself, but starts a worker where none serves the
 * database.  The event must be committed: the
 * transaction that appended it would wait until the time is over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "notify/notify.h"
#include "projection/projection.h"

PG_FUNCTION_INFO_V1(es_wait);

/* Sleeps grow from the first to the last, in milliseconds. */
#define FIRST_SLEEP		1
#define LAST_SLEEP		5

/*
 * Returns true if the caller may see why the projection has failed: a handler's
 * message may contain data of events that the caller cannot read.
 */
static bool
may_know_error(const Projection *projection)
{
	Oid			owner = role_find(&projection->owner);

	return (OidIsValid(owner) && has_privs_of_role(GetUserId(), owner)) ||
		pg_class_aclcheck(own_table_relid(projection->log, "es_projections"),
						  GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/* Raises ES005 for a projection that has failed. */
static void
fail_stopped(const Projection *projection)
{
	bool		known = projection->message != NULL &&
	may_know_error(projection);

	ereport(ERROR,
			(errcode(ERRCODE_ES_PROJECTION_FAILED),
			 errmsg("projection \"%s\" has failed", projection->name),
			 errdetail("It stopped at position " INT64_FORMAT "%s%s",
					   projection->position, known ? ": " : ".",
					   known ? projection->message : ""),
			 errhint("Fix the cause. It tries again by itself; es_resume_projection() lets it try at once.")));
}

/* Raises ES005 for an event that is parked for good, or waits behind such a one. */
static void
fail_parked(const Projection *projection, const Failure *failure,
			const Failure *first)
{
	bool		known = may_know_error(projection);

	ereport(ERROR,
			(errcode(ERRCODE_ES_PROJECTION_FAILED),
			 errmsg("projection \"%s\" has parked the event at position " INT64_FORMAT,
					projection->name, failure->position),
			 failure->id == first->id ?
			 errdetail("Failure " INT64_FORMAT "%s%s", first->id,
					   known ? ": " : ".", known ? first->message : "") :
			 errdetail("It waits behind an earlier event of its stream, failure " INT64_FORMAT "%s%s",
					   first->id, known ? ": " : ".",
					   known ? first->message : ""),
			 errhint("Fix the cause, then call es_retry(" INT64_FORMAT ").",
					 first->id)));
}

/*
 * Returns true if the event at exactly this position, which the checkpoint has
 * passed, was parked and is to be tried again; an error if it will not.
 */
static bool
awaits_retry(const Projection *projection, int64 position)
{
	FailureOwner owner = projection_failures(projection);
	Failure		failure;
	Failure		first;

	if (!failure_at(owner, position, &failure) ||
		!failure_first(owner, failure.stream, &first))
		return false;
	if (first.parked && first.failed)
		fail_parked(projection, &failure, &first);
	return true;
}

/*
 * Returns true if the projection has handled the event, as a sync one does in
 * the append; an error if it has failed before it, or has parked it.
 */
static bool
has_handled(Oid log, const char *name, int64 position)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore wait",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Projection *projection = projection_get(log, name, "");
	bool		handled = projection->position >= position ?
	!awaits_retry(projection, position) :
	projection->sync && projection->running &&
	projection_last_position(log) >= position;

	if (projection->position < position && !handled && projection->failed)
		fail_stopped(projection);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return handled;
}

/*
 * es_wait(projection, position, timeout) returns boolean: true as soon as the
 * projection has handled everything up to the position, false if the time is
 * over before that.  Other events may be parked; the one at the position has taken
 * effect, if the projection wants it.
 */
Datum
es_wait(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *name;
	int64		position;
	Deadline	deadline;
	long		pause = FIRST_SLEEP;
	bool		handled;

	argument_not_null(fcinfo, 0, "projection");
	argument_not_null(fcinfo, 1, "position");
	argument_not_null(fcinfo, 2, "timeout");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	position = PG_GETARG_INT64(1);
	deadline = sleep_deadline(PG_GETARG_DATUM(2));
	isolation_check("es_wait()");
	log_sequence_check(log, "position", position);
	SPI_connect();
	while (!(handled = has_handled(log, name, position)))
	{
		long		left = sleep_left(&deadline);

		if (left == 0)
			break;
		autostart_now();
		sleep_nap(Min(pause, left), "EventstoreWait");
		pause = Min(pause * 2, LAST_SLEEP);
	}
	SPI_finish();
	PG_RETURN_BOOL(handled);
}
