/*-------------------------------------------------------------------------
 *
 * key_health.c
 *		What es_health asks of key files: es_health_key_file(), es_health_other_key_files(),
 *		es_health_has_key().
 *
 * They tell why a file cannot be used, as the error of an append does, and by which fingerprint
 * its key is known.  They never tell a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "personal/personal.h"

PG_FUNCTION_INFO_V1(es_health_key_file);
PG_FUNCTION_INFO_V1(es_health_other_key_files);
PG_FUNCTION_INFO_V1(es_health_has_key);

#define KEY_FILE_COLUMNS	2

/* Looks for the key that wraps. */
static bool
find_first_key(void *arg)
{
	const FileKey **found = arg;

	*found = key_file_first();
	return true;
}

/*
 * es_health_key_file(): the fingerprint of the key that wraps, or why there is none.
 */
Datum
es_health_key_file(PG_FUNCTION_ARGS)
{
	const FileKey *first = NULL;
	ErrorData  *error = subtransaction_try(find_first_key, &first);
	TupleDesc	desc;
	Datum		values[KEY_FILE_COLUMNS] = {0};
	bool		nulls[KEY_FILE_COLUMNS] = {error != NULL, error == NULL};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "es_health_key_file must return a row");
	if (error == NULL)
		values[0] = CStringGetTextDatum(first->fingerprint);
	else
		values[1] = CStringGetTextDatum(psprintf("%s. %s", error->message,
												 error->detail ? error->detail : ""));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * es_health_other_key_files(): the path of each file behind the first one that cannot be used, and why.
 */
Datum
es_health_other_key_files(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *path;
	int			number = 1;

	InitMaterializedSRF(fcinfo, 0);
	for (;;)
	{
		const char *problem = key_file_problem(number++, &path);
		Datum		values[KEY_FILE_COLUMNS];
		bool		nulls[KEY_FILE_COLUMNS] = {false, false};

		if (path == NULL)
			break;
		if (problem == NULL)
			continue;
		values[0] = CStringGetTextDatum(path);
		values[1] = CStringGetTextDatum(problem);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}

/*
 * es_health_has_key(fingerprint) returns true if a file that can be used has this key.
 */
Datum
es_health_has_key(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(key_file_find(text_to_cstring(PG_GETARG_TEXT_PP(0))) != NULL);
}
