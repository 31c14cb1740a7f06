/*-------------------------------------------------------------------------
 *
 * expected_version.c
 *		The type es_expected_version: what an append expects of its stream.
 *
 * An int8 inside: a version from 1, EXPECTED_NONE = 0 for a stream without
 * events, EXPECTED_ANY = -1, EXPECTED_EXISTS = -2.  The negative values are
 * only written as words or come in binary form: a number that is cast must
 * not be negative, since -1 means "no stream" to users of other stores.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"

#include "eventstore.h"
#include "log/log.h"
#include "append/append.h"

PG_FUNCTION_INFO_V1(es_expected_version_in);
PG_FUNCTION_INFO_V1(es_expected_version_out);
PG_FUNCTION_INFO_V1(es_expected_version_recv);
PG_FUNCTION_INFO_V1(es_expected_version_send);
PG_FUNCTION_INFO_V1(es_expected_version_from_int2);
PG_FUNCTION_INFO_V1(es_expected_version_from_int4);
PG_FUNCTION_INFO_V1(es_expected_version_from_int8);
PG_FUNCTION_INFO_V1(es_expected_version_from_bpchar);

#define EXPECTED_HINT \
	"Expected is 'any', 'none' for a stream without events, 'exists', or the stream's version."

static char *
expected_to_cstring(ExpectedVersion expected)
{
	if (expected == EXPECTED_ANY)
		return pstrdup("any");
	if (expected == EXPECTED_EXISTS)
		return pstrdup("exists");
	if (expected == EXPECTED_NONE)
		return pstrdup("none");
	return psprintf(INT64_FORMAT, expected);
}

/*
 * Compares the actual version with the expected one, and counts a conflict.
 */
void
expected_version_check(text *stream, ExpectedVersion expected, int64 actual)
{
	char	   *name;

	if (expected == EXPECTED_ANY || expected == actual ||
		(expected == EXPECTED_EXISTS && actual > 0))
		return;
	stream_count_conflict(stream);
	name = text_to_cstring(stream);
	ereport(ERROR,
			(errcode(ERRCODE_ES_WRONG_EXPECTED_VERSION),
			 errmsg("wrong expected version of stream \"%s\"", name),
			 errdetail("The expected version of stream \"%s\" is %s, its actual version is " INT64_FORMAT ".",
					   name, expected_to_cstring(expected), actual),
			 errhint("Load the stream again and decide on its current events; to retry an append, repeat it with the ids of the first try.")));
}

static int64
checked_version(int64 version)
{
	if (version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("an expected version must not be negative"),
				 errdetail("The expected version is " INT64_FORMAT ".", version),
				 errhint(EXPECTED_HINT)));
	return version;
}

/*
 * Returns the expected version that a word or a number stands for.
 */
ExpectedVersion
expected_version_of(const char *string)
{
	char	   *end;
	int64		version;

	if (strcmp(string, "any") == 0)
		return EXPECTED_ANY;
	if (strcmp(string, "none") == 0)
		return EXPECTED_NONE;
	if (strcmp(string, "exists") == 0)
		return EXPECTED_EXISTS;

	errno = 0;
	version = strtoi64(string, &end, 10);
	if (end == string || *end != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type %s: \"%s\"",
						"es_expected_version", string),
				 errdetail("\"%s\" is neither a version nor one of the words.",
						   string),
				 errhint(EXPECTED_HINT)));
	if (errno == ERANGE)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("an expected version is out of range"),
				 errdetail("\"%s\" does not fit the type bigint.", string),
				 errhint(EXPECTED_HINT)));
	return checked_version(version);
}

Datum
es_expected_version_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(expected_version_of(PG_GETARG_CSTRING(0)));
}

Datum
es_expected_version_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(expected_to_cstring(PG_GETARG_INT64(0)));
}

Datum
es_expected_version_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buffer = (StringInfo) PG_GETARG_POINTER(0);
	int64		version = pq_getmsgint64(buffer);

	if (version < EXPECTED_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid binary form of type %s",
						"es_expected_version"),
				 errdetail("The value is " INT64_FORMAT ".", version),
				 errhint("The binary form is an int8: a version, 0 for 'none', -1 for 'any', -2 for 'exists'.")));
	PG_RETURN_INT64(version);
}

Datum
es_expected_version_send(PG_FUNCTION_ARGS)
{
	StringInfoData buffer;

	pq_begintypsend(&buffer);
	pq_sendint64(&buffer, PG_GETARG_INT64(0));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buffer));
}

Datum
es_expected_version_from_int2(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(checked_version(PG_GETARG_INT16(0)));
}

Datum
es_expected_version_from_int4(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(checked_version(PG_GETARG_INT32(0)));
}

Datum
es_expected_version_from_int8(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(checked_version(PG_GETARG_INT64(0)));
}

/*
 * Trailing blanks are no part of the value of a char(n).
 */
Datum
es_expected_version_from_bpchar(PG_FUNCTION_ARGS)
{
	Datum		string = DirectFunctionCall1(rtrim1, PG_GETARG_DATUM(0));

	PG_RETURN_INT64(expected_version_of(TextDatumGetCString(string)));
}
