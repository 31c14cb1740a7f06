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
 * Definitions are looked up once and kept until any function or schema of the
 * database changes, which a callback tells, or an upcaster is defined.
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
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "eventstore.h"

/* What is known of a reducer. */
typedef struct Fingerprint
{
	Oid			function;
	Oid			owner;
	char	   *signature;
	uint64		value;
} Fingerprint;

static HTAB *fingerprints = NULL;
static MemoryContext fingerprints_context = NULL;
static bool fingerprints_valid = false;

/* What upcasters were defined when the cache was made, and their hash. */
static uint64 upcasters_generation = 0;
static uint64 upcasters_hash = 0;

/* A function or a schema has changed. */
static void
forget(Datum arg, int cache, uint32 hash)
{
	fingerprints_valid = false;
}

/* Adds a function's definition, with all names written out, to the hash. */
static uint64
hash_definition(Oid function, uint64 hash)
{
	RunAs		saved = run_as(GetUserId(), false, "pg_catalog");
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
 * Makes an empty cache, if what is there may be out of date.
 */
static void
prepare_cache(Oid log)
{
	uint64		generation = event_type_generation(log);
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(Fingerprint)
	};

	if (fingerprints_valid && upcasters_generation == generation)
		return;
	if (fingerprints_context == NULL)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget, (Datum) 0);
		fingerprints_context = AllocSetContextCreate(TopMemoryContext,
													 "eventstore fingerprints",
													 ALLOCSET_SMALL_SIZES);
	}
	MemoryContextReset(fingerprints_context);
	control.hcxt = fingerprints_context;
	fingerprints = hash_create("eventstore fingerprints", 16, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	fingerprints_valid = true;
	upcasters_generation = generation;
	upcasters_hash = hash_upcasters(log);
}

/* Is it the reducer of a schema? */
static bool
is_of_schema(Form_pg_proc proc, HeapTuple tuple)
{
	bool		isnull;
	Datum		source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc,
										 &isnull);

	return proc->prolang == ClanguageId && !isnull &&
		strcmp(TextDatumGetCString(source), ES_SCHEMA_REDUCER) == 0;
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
	(void) run_own_sql(log,
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

/* Looks the function up and enters it into the cache. */
static Fingerprint *
enter(Oid log, Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	Fingerprint made;
	Fingerprint *entry;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	made.function = function;
	made.owner = proc->proowner;
	made.value = hash_definition(function, 0);
	if (is_of_schema(proc, tuple))
		made.value = hash_schema(log, proc->pronamespace, made.value);
	ReleaseSysCache(tuple);
	made.signature = format_procedure_qualified(function);

	/* what was read may have made the cache invalid, and is new */
	prepare_cache(log);
	entry = hash_search(fingerprints, &function, HASH_ENTER, NULL);
	*entry = made;
	entry->signature = MemoryContextStrdup(fingerprints_context,
										   made.signature);
	return entry;
}

/*
 * Describes a reducer that is there.
 */
Reducer
fingerprint_reducer(Oid log, Oid function)
{
	Fingerprint *entry;
	Reducer		reducer;

	prepare_cache(log);
	entry = hash_search(fingerprints, &function, HASH_FIND, NULL);
	if (entry == NULL)
		entry = enter(log, function);
	reducer.function = function;
	reducer.owner = entry->owner;
	reducer.signature = pstrdup(entry->signature);
	reducer.fingerprint = hash_combine64(entry->value, upcasters_hash);
	return reducer;
}
