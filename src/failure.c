/*-------------------------------------------------------------------------
 *
 * failure.c
 *		es_failures: events that a projection could not handle, and those of
 *		the same streams that wait behind them.
 *
 * A stream is parked for a projection as long as it has a row here.  Of its
 * rows the first is the one that failed; the others have no error, and keep
 * their order by waiting.  Who writes here holds the lock on the projection's
 * row, so that nobody handles an event of the stream in between.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "eventstore.h"

static Datum
text_or_null(const char *string, char *null)
{
	*null = string ? ' ' : 'n';
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

/* What is kept of an error: four values, and which of them are null. */
void
failure_error_values(const ErrorData *error, Datum *values, char *nulls)
{
	values[0] = text_or_null(error ? unpack_sql_state(error->sqlerrcode) : NULL,
							 &nulls[0]);
	values[1] = text_or_null(error ? error->message : NULL, &nulls[1]);
	values[2] = text_or_null(error ? error->detail : NULL, &nulls[2]);
	values[3] = text_or_null(error ? error->context : NULL, &nulls[3]);
}

/*
 * Sets an event aside.  error: why; NULL if it only waits behind another.
 */
void
failure_add(Oid log, const char *projection, TupleTableSlot *event,
			const ErrorData *error, int attempts)
{
	Oid			types[10] = {TEXTOID, UUIDOID, INT8OID, TEXTOID, TEXTOID,
	INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[10];
	char		nulls[10];
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(projection);
	values[1] = slot_getattr(event, Anum_es_events_id, &isnull);
	values[2] = slot_getattr(event, Anum_es_events_position, &isnull);
	values[3] = slot_getattr(event, Anum_es_events_stream, &isnull);
	values[4] = slot_getattr(event, Anum_es_events_type, &isnull);
	values[5] = Int32GetDatum(attempts);
	failure_error_values(error, &values[6], &nulls[6]);
	(void) run_own_sql(log,
					   "INSERT INTO @extschema@.es_failures (projection, event_id,"
					   " position, stream, type, attempts, sqlstate, message,"
					   " detail, context)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
					   10, types, values, nulls);
}

/*
 * Notes that a failed event was tried again, and why it failed.
 */
void
failure_note(Oid log, int64 id, const ErrorData *error)
{
	Oid			types[5] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5] = {Int64GetDatum(id)};
	char		nulls[5] = {' '};

	failure_error_values(error, &values[1], &nulls[1]);
	(void) run_own_sql(log,
					   "UPDATE @extschema@.es_failures SET sqlstate = $2,"
					   " message = $3, detail = $4, context = $5,"
					   " attempts = attempts + 1, last_failed_at = clock_timestamp()"
					   " WHERE id = $1",
					   5, types, values, nulls);
}

/*
 * Forgets a failure; false if there is none with this id.
 */
bool
failure_remove(Oid log, int64 id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	return run_own_sql(log,
					   "DELETE FROM @extschema@.es_failures WHERE id = $1",
					   1, &type, &value, NULL) > 0;
}

/*
 * Forgets all failures of a projection.
 */
void
failure_remove_all(Oid log, const char *projection)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(projection);

	(void) run_own_sql(log,
					   "DELETE FROM @extschema@.es_failures WHERE projection = $1",
					   1, &type, &value, NULL);
}

/*
 * Reads the failure with this id; false if there is none.
 */
bool
failure_find(Oid log, int64 id, Failure *failure)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(id);

	if (run_own_sql(log,
					"SELECT projection, stream FROM @extschema@.es_failures"
					" WHERE id = $1", 1, &type, &value, NULL) == 0)
		return false;
	failure->id = id;
	failure->projection = SPI_getvalue(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1);
	failure->stream = SPI_getvalue(SPI_tuptable->vals[0],
								   SPI_tuptable->tupdesc, 2);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * Reads the first failure of the stream; false if it has none.
 */
bool
failure_first(Oid log, const char *projection, const char *stream,
			  Failure *failure)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(projection),
	CStringGetTextDatum(stream)};
	bool		isnull;

	if (run_own_sql(log,
					"SELECT id, position, message IS NOT NULL"
					" FROM @extschema@.es_failures"
					" WHERE projection = $1 AND stream = $2"
					" ORDER BY position LIMIT 1", 2, types, values, NULL) == 0)
		return false;
	failure->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
	failure->position = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
													SPI_tuptable->tupdesc, 2,
													&isnull));
	failure->failed = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
												 SPI_tuptable->tupdesc, 3,
												 &isnull));
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * The streams that are parked for a projection, as a list of text.
 */
List *
failure_streams(Oid log, const char *projection)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(projection);
	List	   *streams = NIL;
	uint64		count;
	uint64		i;

	count = run_own_sql(log,
						"SELECT DISTINCT stream FROM @extschema@.es_failures"
						" WHERE projection = $1", 1, &type, &value, NULL);
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
