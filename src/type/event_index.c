/*-------------------------------------------------------------------------
 *
 * event_index.c
 *		Indexes on es_events for the events of one type, by their names and definitions;
 *		es_index_type(), which makes one on positions.
 *
 * The wanted index is written as pg_get_indexdef() writes it, so that one text makes the
 * index and tells whether one that is found is the same.
 *
 * A call that finds no index locks es_events against appends, looks again, and makes it, so
 * that of two calls one waits for the other.  Appends of others go on until the lock is there
 * (table_lock.c), which the ShareLock of CREATE INDEX would not let them.  It does not wait
 * for a CREATE INDEX CONCURRENTLY of the same index, which in the end waits for every
 * transaction with a snapshot, and so for this one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_index.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/event_index.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_index_type);

/*
 * The name of an index.
 */
char *
event_index_name(const char *what, bool is_unique, uint64 hash)
{
	char	   *start = psprintf("es_events_%s", what);
	char	   *name = psprintf("%s_idx", start);
	char	   *end;

	if (is_unique && strlen(name) < NAMEDATALEN)
		return name;
	end = psprintf("_%016llx_idx", (unsigned long long) hash);
	return psprintf("%.*s%s",
					pg_mbcliplen(start, strlen(start),
								 NAMEDATALEN - 1 - (int) strlen(end)),
					start, end);
}

/*
 * A string as pg_get_indexdef() writes it.
 */
char *
event_index_quote(const char *string)
{
	StringInfoData quoted;

	initStringInfo(&quoted);
	appendStringInfoChar(&quoted, '\'');
	for (; *string != '\0'; string++)
	{
		if (SQL_STR_DOUBLE(*string, !standard_conforming_strings))
			appendStringInfoChar(&quoted, *string);
		appendStringInfoChar(&quoted, *string);
	}
	appendStringInfoString(&quoted, "'::text");
	return quoted.data;
}

/* The statement that makes the index. */
static char *
make_index_definition(Oid log, const char *name, const char *type, const char *expression)
{
	return psprintf("CREATE INDEX %s ON %s.es_events USING %s WHERE (type = %s)",
					quote_identifier(name),
					quote_identifier(get_namespace_name(get_rel_namespace(log))),
					expression, event_index_quote(type));
}

/* Refuses a relation that has the index's name and is something else. */
static void
refuse_other_relation(const EventIndex *index, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("relation \"%s\" already exists",
					index->name),
			 errdetail("%s; the index would be \"%s\".", what,
					   index->definition),
			 errhint("%s", hint)));
}

/*
 * What pg_get_indexdef() says of an index, with every name outside pg_catalog
 * qualified.
 */
static char *
stored_index_definition(Oid log, Oid relid)
{
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");
	Datum		definition = OidFunctionCall1(F_PG_GET_INDEXDEF_OID, ObjectIdGetDatum(relid));

	run_as_end(saved);
	return TextDatumGetCString(definition);
}

/*
 * Refuses a relation that has the name and is another index, or an index that is
 * not complete.  The caches are asked, since a query might not yet see what
 * another transaction has made.
 */
static void
check_index_found(Oid log, const EventIndex *index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID,
										ObjectIdGetDatum(index->relid));
	bool		valid;
	char	   *definition;

	if (!HeapTupleIsValid(tuple))
		refuse_other_relation(index, "It is not an index", "Rename it.");
	valid = ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	definition = stored_index_definition(log, index->relid);
	if (strcmp(definition, index->definition) != 0)
		refuse_other_relation(index, psprintf("It is \"%s\"", definition),
							  psprintf("Drop it if it is of no use, or rename it; then call %s again.",
									   index->function));
	if (!valid)
		refuse_other_relation(index,
							  "It is not valid, since CREATE INDEX CONCURRENTLY is running, or has failed",
							  "Wait until it is done, or drop the index if it has failed.");
}

/* Looks for the index, and checks it.  Returns false if there is none. */
static bool
find_event_index(Oid log, EventIndex *index)
{
	index->relid = get_relname_relid(index->name, get_rel_namespace(log));
	if (!OidIsValid(index->relid))
		return false;
	check_index_found(log, index);
	return true;
}

/* Makes the index, as the owner of the log. */
static void
make_event_index(Oid log, EventIndex *index)
{
	RunAs		saved = run_as(run_as_owner(log), false, "pg_catalog, pg_temp");
	int			result = SPI_execute(index->definition, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result),
			 index->definition);
	run_as_end(saved);
	index->relid = get_relname_relid(index->name, get_rel_namespace(log));
}

/*
 * Finds the index, or makes it.
 */
void
event_index_find_or_make(EventIndex *index, Oid log, const char *type, const char *expression)
{
	index->definition = make_index_definition(log, index->name, type, expression);
	if (find_event_index(log, index))
		return;
	log_lock_whole(log, psprintf("to make index \"%s\"", index->name), NULL, NULL);
	if (!find_event_index(log, index))
		make_event_index(log, index);
}

/*
 * es_index_type(type): the index on the positions of its events, which is made if there is
 * none.  Names of attributes' indexes have "__" in them.
 */
Datum
es_index_type(PG_FUNCTION_ARGS)
{
	EventIndex	index = {.function = "es_index_type()"};
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	char	   *type;

	PreventCommandIfReadOnly(index.function);
	argument_not_null(fcinfo, 0, "type");
	event_check_type_name(PG_GETARG_TEXT_PP(0));
	type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	index.name = event_index_name(psprintf("type_%s", type), strstr(type, "__") == NULL,
								  hash_bytes_extended((unsigned char *) type, strlen(type), 0));
	SPI_connect();
	event_index_find_or_make(&index, log, type, "btree (\"position\")");
	SPI_finish();
	PG_RETURN_OID(index.relid);
}
