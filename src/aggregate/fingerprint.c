/*-------------------------------------------------------------------------
 *
 * fingerprint.c
 *		What a reducer is made of, as a number: another number means another
 *		reducer, whose states cannot be taken for those of this one.
 *
 * It is a hash of the function's definition; for a reducer of a schema (see
 * reducer.c) of the functions that it calls, too; and of all upcasters, as they
 * say what a reducer is given.  Oids do not go into it, as they are others
 * after pg_upgrade.
 *
 * Definitions are looked up once, and again when any function or schema of the
 * database has changed, which a callback counts, or an upcaster.  The count is
 * taken before they are read: a change that comes meanwhile makes them old.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "type/type.h"
#include "aggregate/aggregate.h"

/* Three names, quoted, and the type jsonb. */
#define ES_MAX_SIGNATURE	(3 * (2 * NAMEDATALEN + 4) + 32)

/* When something was read. */
typedef struct Reading
{
	uint64		changes;		/* of functions and schemas, so far */
	uint64		generation;		/* of event types and upcasters */
} Reading;

/* What is known of a reducer. */
typedef struct Fingerprint
{
	Oid			function;
	Oid			owner;
	char		signature[ES_MAX_SIGNATURE];
	uint64		value;
	Reading		reading;
} Fingerprint;

/* Changes of functions and schemas that this backend was told of. */
static uint64 changes = 1;

static HTAB *fingerprints = NULL;

/* The hash of all upcasters, and when they were read. */
static uint64 upcasters_hash = 0;
static Reading upcasters_reading = {0, 0};

/* A function or a schema has changed. */
static void
count_change(Datum arg, int cache, uint32 hash)
{
	changes++;
}

/* Makes an empty cache. */
static void
make_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(Fingerprint)
	};

	CacheRegisterSyscacheCallback(PROCOID, count_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, count_change, (Datum) 0);
	fingerprints = hash_create("eventstore fingerprints", 16, &control,
							   HASH_ELEM | HASH_BLOBS);
}

/* What is known to have changed by now. */
static Reading
read_now(Oid log)
{
	Reading		reading = {
		.generation = event_type_generation(log),
		.changes = changes
	};

	return reading;
}

static bool
same_reading(const Reading *a, const Reading *b)
{
	return a->changes == b->changes && a->generation == b->generation;
}

static void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Writes definitions in one way, whatever the session has set. */
static RunAs
begin_writing(void)
{
	RunAs		saved = run_as(GetUserId(), false, "pg_catalog");

	set_option("quote_all_identifiers", "off");
	set_option("datestyle", "ISO");
	set_option("intervalstyle", "postgres");
	set_option("timezone", "UTC");
	set_option("bytea_output", "hex");
	set_option("extra_float_digits", "1");
	return saved;
}

/* Adds a function's definition, with all names written out, to the hash. */
static uint64
hash_definition(Oid function, uint64 hash)
{
	RunAs		saved = begin_writing();
	char	   *definition = TextDatumGetCString(OidFunctionCall1(F_PG_GET_FUNCTIONDEF,
																  ObjectIdGetDatum(function)));

	run_as_end(saved);
	return hash_bytes_extended((unsigned char *) definition,
							   strlen(definition), hash);
}

/* The function with the signature; InvalidOid if there is none. */
static Oid
find_function(const char *signature)
{
	Datum		function;

	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	function = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(function);
}

/* A hash of all upcasters. */
static uint64
hash_upcasters(Oid log)
{
	uint64		hash = 0;
	ListCell   *cell;

	foreach(cell, upcast_functions(log))
	{
		Upcaster   *upcaster = lfirst(cell);
		Oid			function = find_function(upcaster->signature);
		char	   *words = psprintf("%s %d %s %s %s", upcaster->type,
									 upcaster->from_version,
									 upcaster->signature, upcaster->owner,
									 upcaster->search_path);

		hash = hash_bytes_extended((unsigned char *) words, strlen(words),
								   hash);
		if (OidIsValid(function))
			hash = hash_definition(function, hash);
	}
	return hash;
}

/*
 * Is the function the reducer of a schema, as es_reducer makes it?
 */
bool
fingerprint_is_of_schema(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Datum		source;
	bool		isnull;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		!isnull && strcmp(TextDatumGetCString(source), ES_SCHEMA_REDUCER) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/* Adds the functions that the reducer of a schema may call. */
static uint64
hash_schema(Oid log, Oid schema, uint64 hash)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(schema);
	SPITupleTable *found;
	uint64		i;

	SPI_connect();
	(void) own_sql_run(log,
					   "SELECT oid FROM pg_proc WHERE pronamespace = $1"
					   " AND starts_with(proname::text, '" ES_APPLY_PREFIX "')"
					   " AND prokind = 'f' AND pronargs = 2"
					   " AND proargtypes[0] = 'jsonb'::regtype"
					   " AND proargtypes[1] = 'jsonb'::regtype"
					   " ORDER BY proname",
					   1, &type, &value, NULL);
	found = SPI_tuptable;
	for (i = 0; i < found->numvals; i++)
	{
		bool		isnull;

		hash = hash_definition(DatumGetObjectId(SPI_getbinval(found->vals[i],
															  found->tupdesc,
															  1, &isnull)),
							   hash);
	}
	SPI_finish();
	return hash;
}

/* Reads what the reducer is made of. */
static Fingerprint
read_function(Oid log, Oid function, Reading reading)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	Fingerprint result;
	RunAs		saved;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	result.function = function;
	result.owner = proc->proowner;
	result.value = hash_definition(function, 0);
	if (fingerprint_is_of_schema(function))
		result.value = hash_schema(log, proc->pronamespace, result.value);
	ReleaseSysCache(tuple);
	saved = begin_writing();
	strlcpy(result.signature, format_procedure_qualified(function),
			ES_MAX_SIGNATURE);
	run_as_end(saved);
	result.reading = reading;
	return result;
}

/* Finds the reducer in the cache, or reads it. */
static Fingerprint
get_fingerprint(Oid log, Oid function, Reading reading)
{
	Fingerprint *entry = hash_search(fingerprints, &function, HASH_FIND, NULL);
	Fingerprint result;

	if (entry != NULL && same_reading(&entry->reading, &reading))
		return *entry;
	result = read_function(log, function, reading);
	entry = hash_search(fingerprints, &function, HASH_ENTER, NULL);
	*entry = result;
	return result;
}

/*
 * Describes a reducer that is there.
 */
Reducer
fingerprint_reducer(Oid log, Oid function)
{
	Reading		reading = read_now(log);
	Fingerprint fingerprint;
	Reducer		reducer;

	if (fingerprints == NULL)
		make_cache();
	fingerprint = get_fingerprint(log, function, reading);
	if (!same_reading(&upcasters_reading, &reading))
	{
		upcasters_hash = hash_upcasters(log);
		upcasters_reading = reading;
	}
	reducer.function = function;
	reducer.owner = fingerprint.owner;
	reducer.signature = pstrdup(fingerprint.signature);
	reducer.fingerprint = hash_combine64(fingerprint.value, upcasters_hash);
	reducer.changes = reading.changes;
	reducer.generation = reading.generation;
	return reducer;
}

/*
 * Is it certain that nothing has changed of what the reducer is made of since
 * it was described?
 */
bool
fingerprint_is_current(Oid log, const Reducer *reducer)
{
	Reading		reading;
	Reading		then = {reducer->changes, reducer->generation};

	AcceptInvalidationMessages();
	reading = read_now(log);
	return same_reading(&reading, &then);
}
