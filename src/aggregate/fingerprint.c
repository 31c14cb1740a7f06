/*-------------------------------------------------------------------------
 *
 * fingerprint.c
 *		A number for what a reducer is made of.  Another number means another
 *		reducer, whose states must not be taken for those of this one.
 *
 * It is a hash of the function's definition, of the functions that a schema's
 * reducer (see reducer.c) calls, and of all upcasters, since a reducer gets what
 * they return; of the fixed settings with which it runs (setting.c); and of the
 * caller's search_path, along which it finds what it does not qualify.  Oids do
 * not go into it, since pg_upgrade changes them.
 *
 * Definitions are looked up once, and again when any function or schema of the
 * database, which a callback counts, or an upcaster has changed.  The count is
 * taken before they are read, so that a change in between makes them stale.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
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
#include "base/role.h"
#include "type/type.h"
#include "type/upcast.h"
#include "aggregate/aggregate.h"

/* Three names, quoted, and the type jsonb. */
#define ES_MAX_SIGNATURE	(3 * (2 * NAMEDATALEN + 4) + 32)

/* How many changes had come when something was read. */
typedef struct Reading
{
	uint64		changes;		/* of functions and schemas */
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

/* Changes of functions and schemas that this backend has been notified of. */
static uint64 function_changes = 1;

static HTAB *fingerprints = NULL;

/* The hash of all upcasters, and the changes before they were read. */
static uint64 upcasters_hash = 0;
static Reading upcasters_reading = {0, 0};

/* Counts a change of a function or a schema. */
static void
count_function_change(Datum arg, int cache, uint32 hash)
{
	function_changes++;
}

/* Makes an empty cache. */
static void
make_fingerprint_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(Fingerprint)
	};

	CacheRegisterSyscacheCallback(PROCOID, count_function_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, count_function_change, (Datum) 0);
	fingerprints = hash_create("eventstore fingerprints", 16, &control,
							   HASH_ELEM | HASH_BLOBS);
}

/* The changes so far. */
static Reading
reading_now(Oid log)
{
	Reading		reading = {
		.generation = event_type_generation(log),
		.changes = function_changes
	};

	return reading;
}

static bool
same_reading(const Reading *a, const Reading *b)
{
	return a->changes == b->changes && a->generation == b->generation;
}

/* Sets an option until the end of begin_writing's run_as. */
static void
set_local_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Makes definitions read the same, whatever the session has set. */
static RunAs
begin_writing(void)
{
	RunAs		saved = run_as(GetUserId(), false, "pg_catalog");

	set_local_option("quote_all_identifiers", "off");
	set_local_option("datestyle", "ISO");
	set_local_option("intervalstyle", "postgres");
	set_local_option("timezone", "UTC");
	set_local_option("bytea_output", "hex");
	set_local_option("extra_float_digits", "1");
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

/*
 * The function with the signature; InvalidOid if there is none.  It is looked up
 * as the owner of the log, since the user may have no right on its schema.
 */
static Oid
find_upcaster_function(Oid log, const char *signature)
{
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");
	Datum		function;

	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	function = to_regprocedure(fcinfo);
	run_as_end(saved);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(function);
}

/* Adds which types are defined for one category: there, others' upcasters do not count. */
static uint64
hash_scopes(Oid log, uint64 hash)
{
	int			count;
	const EventType *types = event_type_all(log, &count);
	int			i;

	for (i = 0; i < count; i++)
	{
		char	   *words;

		if (types[i].category == NULL)
			continue;
		words = psprintf("%s %s", types[i].type, types[i].category);
		hash = hash_bytes_extended((unsigned char *) words, strlen(words), hash);
	}
	return hash;
}

/* A hash of all upcasters; 0 while there is none. */
static uint64
hash_upcasters(Oid log)
{
	List	   *upcasters = upcast_functions(log);
	uint64		hash = upcasters == NIL ? 0 : hash_scopes(log, 0);
	ListCell   *cell;

	foreach(cell, upcasters)
	{
		Upcaster   *upcaster = lfirst(cell);
		Oid			function = find_upcaster_function(log, upcaster->signature);
		char	   *words = psprintf("%s %s %d %s %u %s", upcaster->type,
									 upcaster->category ? upcaster->category : "",
									 upcaster->from_version,
									 upcaster->signature,
									 role_find(&upcaster->owner),
									 upcaster->search_path);

		hash = hash_bytes_extended((unsigned char *) words, strlen(words),
								   hash);
		hash = settings_hash(upcaster->settings, hash);
		if (OidIsValid(function))
			hash = hash_definition(function, hash);
	}
	return hash;
}

/*
 * Looks at the language and the C symbol, which only es_reducer() combines.
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

/* Adds the functions that a schema's reducer may call. */
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
read_fingerprint(Oid log, Oid function, Reading reading)
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

/* A hash of the schemas of the search_path that are there, by their names. */
static uint64
hash_search_path(void)
{
	List	   *schemas = fetch_search_path(false);
	uint64		hash = 0;
	ListCell   *cell;

	foreach(cell, schemas)
	{
		const char *name = isAnyTempNamespace(lfirst_oid(cell)) ? "pg_temp" :
		get_namespace_name(lfirst_oid(cell));

		if (name != NULL)
			hash = hash_bytes_extended((const unsigned char *) name,
									   strlen(name), hash);
	}
	list_free(schemas);
	return hash;
}

/* A hash of what reducers run with, besides the reducer's own. */
static uint64
hash_environment(void)
{
	static uint64 fixed = 0;

	if (fixed == 0)
		fixed = settings_hash(settings_fixed(), 0);
	return hash_combine64(fixed, hash_search_path());
}

/* Finds the reducer in the cache, or reads it. */
static Fingerprint
get_fingerprint(Oid log, Oid function, Reading reading)
{
	Fingerprint *entry = hash_search(fingerprints, &function, HASH_FIND, NULL);
	Fingerprint result;

	if (entry != NULL && same_reading(&entry->reading, &reading))
		return *entry;
	result = read_fingerprint(log, function, reading);
	entry = hash_search(fingerprints, &function, HASH_ENTER, NULL);
	*entry = result;
	return result;
}

/*
 * Reads what has changed since the last call, and combines the hashes.
 */
Reducer
fingerprint_reducer(Oid log, Oid function)
{
	Reading		reading = reading_now(log);
	Fingerprint fingerprint;
	Reducer		reducer;

	if (fingerprints == NULL)
		make_fingerprint_cache();
	fingerprint = get_fingerprint(log, function, reading);
	if (!same_reading(&upcasters_reading, &reading))
	{
		upcasters_hash = hash_upcasters(log);
		upcasters_reading = reading;
	}
	reducer.function = function;
	reducer.owner = fingerprint.owner;
	reducer.signature = pstrdup(fingerprint.signature);
	reducer.fingerprint = hash_combine64(hash_combine64(fingerprint.value,
														upcasters_hash),
										 hash_environment());
	reducer.definition = fingerprint.value;
	reducer.changes = reading.changes;
	reducer.generation = reading.generation;
	return reducer;
}

/*
 * Takes in the latest changes and compares.
 */
bool
fingerprint_is_current(Oid log, const Reducer *reducer)
{
	Reading		reading;
	Reading		then = {reducer->changes, reducer->generation};

	AcceptInvalidationMessages();
	reading = reading_now(log);
	return same_reading(&reading, &then);
}
