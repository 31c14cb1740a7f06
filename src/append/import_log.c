/*-------------------------------------------------------------------------
 *
 * import_log.c
 *		Rows of the view es_import_log: events of another store, with the positions,
 *		versions and times that they have there.  import.c reads them and calls this
 *		a chunk at a time.
 *
 * What a reader has been promised must stay true, so that rows come in the order of their
 * positions, above all that is stored and above all that a horizon may have said, and
 * each version follows on the last one of its stream:
 *
 *	1. lock the whole log to the end of the transaction.  So no position that is drawn is
 *	   still to be stored, and none is drawn meanwhile;
 *	2. check each row against the one before it and its stream.  Errors: 22023 (position or
 *	   version), ES002 (its id is stored), ES003 (its stream was deleted for good), ES009 (it is
 *	   of another store);
 *	   Then encrypt personal attributes (personal/seal.c);
 *	3. raise the sequence to the last position, in a transaction that has an id, as for a row
 *	   that comes by INSERT (log_sequence.c);
 *	4. insert, as an append does: triggers fire, listeners are notified.
 *
 * Definitions of types are not looked at but for those, nor do they give an id: the events have been.
 * An error or a crash leaves nothing but gaps below the sequence.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/context.h"
#include "log/horizon.h"
#include "log/slots.h"
#include "identity/identity.h"
#include "notify/notify.h"
#include "personal/personal.h"
#include "append/append.h"

/* Names the row in an error's context. */
static void
add_row_context(void *arg)
{
	const NewEvent *event = arg;

	errcontext("row " INT64_FORMAT " of the import", event->row);
}

/*
 * The position above which events can be imported.  What was rolled back does not count, so that
 * an import that was interrupted can be repeated.
 */
static int64
last_said_position(Log *log)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		horizon = horizon_find(RelationGetRelid(log->rel), snapshot);

	UnregisterSnapshot(snapshot);
	return Max(horizon, log_last_stored_position(log));
}

static void
check_position(const NewEvent *event, int64 last)
{
	if (event->position > last)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the position of an event is not above the last one"),
			 errdetail("It is " INT64_FORMAT ", the last one is " INT64_FORMAT ".",
					   event->position, last),
			 errhint("Import events in the order of their positions, above all that is stored.")));
}

static void
check_version(const NewEvent *event, int64 last)
{
	if (event->version == last + 1)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the version of an event does not follow on that of the event before it"),
			 errdetail("It is " INT64_FORMAT ", the last one of stream \"%s\" is " INT64_FORMAT ".",
					   event->version, text_to_cstring(event->stream), last),
			 errhint("Versions of a stream begin at 1 and have no gaps.")));
}

/* The last version of the row's stream, in the rows before it or in the log. */
static int64
last_version_before(Log *log, const NewEvent *events, int number)
{
	int64		version;
	int			i;

	for (i = number - 1; i >= 0; i--)
	{
		if (stream_equal(events[i].stream, events[number].stream))
			return events[i].version;
	}
	version = log_last_version(log, events[number].stream, events[number].version - 1);
	deleted_stream_refuse(log, events[number].stream, version);
	return version;
}

/* Step 2. */
static void
check_rows(Log *log, NewEvent *events, int count)
{
	int64		last = last_said_position(log);
	ErrorContextCallback context;
	StoredEvent found;
	int			i;

	for (i = 0; i < count; i++)
	{
		context_push(&context, add_row_context, &events[i]);
		slots_check(log, events[i].stream);
		check_position(&events[i], last);
		check_version(&events[i], last_version_before(log, events, i));
		if (events[i].has_id && log_find_id(log, &events[i].id, NULL, &found))
			log_fail_duplicate(&events[i].id, "An event with this id is stored already.");
		context_pop(&context);
		last = events[i].position;
	}
}

void
import_log_store(Oid relid, NewEvent *events, int count)
{
	Log		   *log;
	int			i;

	seal_identify(relid, events, count);
	log_lock_whole(relid, "to import a log", NULL, NULL);
	log = log_open(relid);
	identity_check(log);
	check_rows(log, events, count);
	seal_events(relid, events, count);
	(void) GetTopTransactionId();
	log_sequence_raise(own_table_relid(relid, "es_position"), events[count - 1].position);
	notify_wake_at_end();
	log_insert(log, events, count);
	for (i = 0; i < count; i++)
		log_insert_count(&events[i], 1);
	notify_events(events, count);
	log_close(log);
}
