/*-------------------------------------------------------------------------
 *
 * failure.c
 *		es_failures: events that a projection, or the consumers of a
 *		subscription, could not handle, and the events of the same streams that
 *		wait behind them.  (Failed messages are there, too; they belong to the
 *		inbox.)
 *
 * A stream is parked for a projection or subscription as long as it has a row
 * here.  The first of its rows is the event that failed.  The others have no
 * message: they only wait, so that their order is preserved.  A transaction that
 * writes here holds the lock on the projection's row, or on the subscription's
 * partition, so that no event of the stream is handled in between.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/base.h"
#include "log/log.h"
#include "failure/failure.h"

/* Pauses between attempts grow from the first to the last, in seconds. */
#define FIRST_PAUSE		0.1
#define LAST_PAUSE		60.0

/* The first pause of a projection, in seconds: after most errors; where the next
 * attempt may well succeed. */
#define FIRST_RETRY_PAUSE		1.0
#define FIRST_CONFLICT_PAUSE	0.1

/*
 * eventstore.max_retry_pause: seconds that a projection pauses at most before it tries
 * again what has failed.  An administrator makes it shorter where nothing may wait
 * for longer once a cause is gone, and longer where attempts cost much.
 */
static double max_retry_pause = 300;

/* Returns a field of an error as text; sets its null flag for SPI. */
static Datum
error_field(const char *string, char *null)
{
	*null = string ? ' ' : 'n';
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

/*
 * Sets the four values that are stored of an error.  A consumer's reason has no
 * code.
 */
void
failure_error_values(const ErrorData *error, Datum *values, char *nulls)
{
	values[0] = error_field(error && error->sqlerrcode ?
							unpack_sql_state(error->sqlerrcode) : NULL,
							&nulls[0]);
	values[1] = error_field(error ? error->message : NULL, &nulls[1]);
	values[2] = error_field(error ? error->detail : NULL, &nulls[2]);
	values[3] = error_field(error ? error->context : NULL, &nulls[3]);
}

/* Returns how long to wait after so many failed attempts, in seconds. */
double
failure_pause(int attempts)
{
	double		pause = FIRST_PAUSE;

	while (--attempts > 0 && pause < LAST_PAUSE)
		pause *= 2;
	return Min(pause, LAST_PAUSE) *
		(0.5 + pg_prng_double(&pg_global_prng_state));
}

/* Returns true if another session caused the error. */
static bool
is_conflict(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_OBJECT_IN_USE;
}

/*
 * Returns true if the cause of the error lies outside of the event.  Of class 42 are
 * a privilege that was revoked, and a name that was changed or dropped.  A cancel is
 * that of a handler that did not end (projection_limit.c), as others end the run.
 */
bool
failure_is_external(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_INVALID_SCHEMA_NAME:
		case ERRCODE_INVALID_CATALOG_NAME:
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		case ERRCODE_OPERATOR_INTERVENTION:
			return error->sqlerrcode != ERRCODE_QUERY_CANCELED;
		default:
			return is_conflict(error);
	}
}

double
failure_bound_pause(double pause)
{
	return Min(pause, max_retry_pause);
}

/* Returns a pause around the given one, within the bounds. */
static double
random_pause(const ErrorData *error, double pause)
{
	double		first = error != NULL && is_conflict(error) ?
	FIRST_CONFLICT_PAUSE : FIRST_RETRY_PAUSE;

	pause = Max(pause, first) * (0.5 + pg_prng_double(&pg_global_prng_state));
	return failure_bound_pause(pause);
}

/* Returns how long a projection waits after so many failed attempts, in seconds. */
double
failure_retry_pause(const ErrorData *error, int attempts)
{
	double		pause = error != NULL && is_conflict(error) ?
	FIRST_CONFLICT_PAUSE : FIRST_RETRY_PAUSE;

	while (--attempts > 0 && pause < max_retry_pause)
		pause *= 2;
	return random_pause(error, pause);
}

/* Returns a pause that is twice as long as that since the last failure. */
double
failure_longer_pause(const ErrorData *error, TimestampTz last_failed_at)
{
	double		last = (GetCurrentTimestamp() - last_failed_at) / 1000000.0;

	return random_pause(error, 2 * last);
}

void
failure_init(void)
{
	DefineCustomRealVariable("eventstore.max_retry_pause",
							 "Longest pause before a projection tries again what has failed.",
							 NULL, &max_retry_pause, 300, 0.001, 86400,
							 PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Adds an event.  A row that is there already stays as it is. */
void
failure_add(FailureOwner owner, TupleTableSlot *event,
			const ErrorData *error, int attempts, double pause)
{
	Oid			types[13] = {TEXTOID, UUIDOID, INT8OID, TEXTOID, TEXTOID,
		INT4OID, INT4OID, FLOAT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID};
	Datum		values[13];
	char		nulls[13];
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(owner.name);
	values[1] = slot_getattr(event, Anum_es_events_id, &isnull);
	values[2] = slot_getattr(event, Anum_es_events_position, &isnull);
	values[3] = slot_getattr(event, Anum_es_events_stream, &isnull);
	values[4] = slot_getattr(event, Anum_es_events_type, &isnull);
	values[5] = Int32GetDatum(attempts);
	values[6] = Int32GetDatum(owner.partition);
	values[7] = Float8GetDatum(pause);
	values[8] = slot_getattr(event, Anum_es_events_version, &isnull);
	failure_error_values(error, &values[9], &nulls[9]);
	(void) own_sql_run(owner.log,
					   psprintf("INSERT INTO @extschema@.es_failures (%s, event_id,"
								" position, stream, type, attempts, partition, retry_at,"
								" version, sqlstate, message, detail, context,"
								" first_failed_at, last_failed_at)"
								" SELECT $1, $2, $3, $4, $5, $6, nullif($7, -1),"
								" t.now + make_interval(secs => nullif($8, -1)),"
								" $9, $10, $11, $12, $13, t.now, t.now"
								" FROM clock_timestamp() AS t (now)"
								" ON CONFLICT (%s, position) DO NOTHING",
								owner.column, owner.column),
					   13, types, values, nulls);
}

/* Notes that a failed event was tried again, and why it failed. */
void
failure_record_attempt(Oid log, int64 id, const ErrorData *error, int attempts,
					   double pause)
{
	Oid			types[7] = {INT8OID, INT4OID, FLOAT8OID, TEXTOID, TEXTOID,
	TEXTOID, TEXTOID};
	Datum		values[7] = {Int64GetDatum(id), Int32GetDatum(attempts),
	Float8GetDatum(pause)};
	char		nulls[7] = {' ', ' ', ' '};

	failure_error_values(error, &values[3], &nulls[3]);
	(void) own_sql_run(log,
					   "UPDATE @extschema@.es_failures SET attempts = attempts + $2,"
					   " retry_at = clock_timestamp() + make_interval(secs => nullif($3, -1)),"
					   " sqlstate = $4, message = $5, detail = $6, context = $7,"
					   " last_failed_at = clock_timestamp()"
					   " WHERE id = $1",
					   7, types, values, nulls);
}

/* Removes a failure; returns false if there is none with this id. */
bool
failure_remove(Oid log, int64 id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	return own_sql_run(log,
					   "DELETE FROM @extschema@.es_failures WHERE id = $1",
					   1, &type, &value, NULL) > 0;
}

/* Removes all failures of a projection or subscription after a position. */
void
failure_remove_after(FailureOwner owner, int64 position)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	Int64GetDatum(position)};

	(void) own_sql_run(owner.log,
					   psprintf("DELETE FROM @extschema@.es_failures"
								" WHERE %s = $1 AND position > $2",
								owner.column),
					   2, types, values, NULL);
}

/* Returns the kind of the failure that was read, by its column that is not null. */
static FailureKind
found_failure_kind(void)
{
	if (own_sql_value(1))
		return FAILURE_PROJECTION;
	return own_sql_value(2) ? FAILURE_SUBSCRIPTION : FAILURE_INBOX;
}

/* Reads the failure with this id; returns false if there is none. */
bool
failure_find(Oid log, int64 id, Failure *failure)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	if (own_sql_run(log,
					"SELECT projection, subscription, stream, partition,"
					" position, attempts, message,"
					" version, type, last_failed_at, retry_at IS NULL"
					" FROM @extschema@.es_failures"
					" WHERE id = $1", 1, &type, &value, NULL) == 0)
		return false;
	failure->id = id;
	failure->kind = found_failure_kind();
	failure->name = own_sql_text(failure->kind == FAILURE_PROJECTION ? 1 : 2);
	failure->stream = own_sql_text(3);
	failure->partition = DatumGetInt32(own_sql_value(4));
	failure->position = DatumGetInt64(own_sql_value(5));
	failure->attempts = DatumGetInt32(own_sql_value(6));
	failure->message = own_sql_text(7);
	failure->failed = failure->message != NULL;
	failure->version = DatumGetInt64(own_sql_value(8));
	failure->type = own_sql_text(9);
	failure->last_failed_at = DatumGetTimestampTz(own_sql_value(10));
	failure->parked = DatumGetBool(own_sql_value(11));
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/* Reads the first failure of the stream; returns false if it has none. */
bool
failure_first(FailureOwner owner, const char *stream, Failure *failure)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	CStringGetTextDatum(stream)};
	int64		id;

	if (own_sql_run(owner.log,
					psprintf("SELECT id FROM @extschema@.es_failures"
							 " WHERE %s = $1 AND stream = $2"
							 " ORDER BY position LIMIT 1", owner.column),
					2, types, values, NULL) == 0)
		return false;
	id = DatumGetInt64(own_sql_value(1));
	SPI_freetuptable(SPI_tuptable);
	return failure_find(owner.log, id, failure);
}

/* Returns the parked streams, as a list of text. */
List *
failure_streams(FailureOwner owner, ArrayType *among)
{
	Oid			types[2] = {TEXTOID, TEXTARRAYOID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	PointerGetDatum(among)};
	const char *sql = among == NULL ?
	"SELECT DISTINCT stream FROM @extschema@.es_failures WHERE %s = $1" :
	"SELECT s FROM unnest($2) AS s WHERE (SELECT true"
	" FROM @extschema@.es_failures WHERE %s = $1 AND stream = s LIMIT 1)";
	List	   *streams = NIL;
	uint64		count;
	uint64		i;

	count = own_sql_run(owner.log, psprintf(sql, owner.column), 2, types,
						values, among ? NULL : " n");
	for (i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		stream = SPI_getbinval(SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc, 1, &isnull);

		streams = lappend(streams, DatumGetTextPCopy(stream));
	}
	SPI_freetuptable(SPI_tuptable);
	return streams;
}

/*
 * Makes the first event of a parked stream due if it only waited behind another,
 * which is gone.
 */
void
failure_release(FailureOwner owner, const char *stream)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	CStringGetTextDatum(stream)};

	(void) own_sql_run(owner.log,
					   psprintf("UPDATE @extschema@.es_failures SET retry_at = clock_timestamp()"
								" WHERE message IS NULL AND retry_at IS NULL"
								" AND id = (SELECT id FROM @extschema@.es_failures"
								" WHERE %s = $1 AND stream = $2"
								" ORDER BY position LIMIT 1)", owner.column),
					   2, types, values, NULL);
}

/* Returns a stream of a projection whose first event is due. */
char *
failure_due_stream(FailureOwner owner, TimestampTz begun)
{
	Oid			types[2] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	TimestampTzGetDatum(begun)};

	return own_sql_run(owner.log,
					   "SELECT stream FROM @extschema@.es_failures"
					   " WHERE projection = $1 AND " FAILURE_IS_DUE("", "$2")
					   " ORDER BY retry_at, position LIMIT 1",
					   2, types, values, NULL) == 0 ? NULL : own_sql_text(1);
}

/* Makes all failures due that are tried again by themselves. */
void
failure_hasten(FailureOwner owner)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(owner.name);

	(void) own_sql_run(owner.log,
					   psprintf("UPDATE @extschema@.es_failures SET retry_at = clock_timestamp()"
								" WHERE %s = $1 AND retry_at > clock_timestamp()",
								owner.column),
					   1, &type, &value, NULL);
}

/* Makes the failed events of a parked stream due. */
int64
failure_make_due(FailureOwner owner, const char *stream)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	CStringGetTextDatum(stream)};

	(void) own_sql_run(owner.log,
					   "UPDATE @extschema@.es_failures SET retry_at = clock_timestamp()"
					   " WHERE subscription = $1 AND stream = $2"
					   " AND message IS NOT NULL",
					   2, types, values, NULL);
	(void) own_sql_run(owner.log,
					   "SELECT count(*) FROM @extschema@.es_failures"
					   " WHERE subscription = $1 AND stream = $2",
					   2, types, values, NULL);
	return DatumGetInt64(own_sql_value(1));
}

/* Removes a stream's failures up to a position; the next one becomes due. */
void
failure_remove_stream(FailureOwner owner, const char *stream, int64 upto)
{
	Oid			types[3] = {TEXTOID, TEXTOID, INT8OID};
	Datum		values[3] = {CStringGetTextDatum(owner.name),
	CStringGetTextDatum(stream), Int64GetDatum(upto)};

	(void) own_sql_run(owner.log,
					   "DELETE FROM @extschema@.es_failures"
					   " WHERE subscription = $1 AND stream = $2 AND position <= $3",
					   3, types, values, NULL);
	failure_release(owner, stream);
}

/* Reads the failure at a position; returns false if there is none. */
bool
failure_at(FailureOwner owner, int64 position, Failure *failure)
{
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {CStringGetTextDatum(owner.name),
	Int64GetDatum(position)};

	if (own_sql_run(owner.log,
					psprintf("SELECT id FROM @extschema@.es_failures"
							 " WHERE %s = $1 AND position = $2",
							 owner.column),
					2, types, values, NULL) == 0)
		return false;
	return failure_find(owner.log, DatumGetInt64(own_sql_value(1)), failure);
}
