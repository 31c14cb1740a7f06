/*-------------------------------------------------------------------------
 *
 * definitions.c
 *		The type es_definitions: what was added to the extension's tables, in dumps.
 *
 * A value is a text in memory, after a byte that says what it is:
 *
 *	- the baseline: what the install script itself has defined.  There is one, in the
 *	  row of that script.  Its output is what the catalogs have beyond it, at that
 *	  moment.  So nothing is kept that a rename could make wrong, and what pg_dump
 *	  copies out is what is true then;
 *	- restored: what the input got, from a dump.  Its output is the same text.
 *
 * The output runs es_definitions() (sql/restore.sql) as the owner of the log, with the
 * extension's schema as search_path, so that the text does not name that schema.
 * That statement uses nothing that another role could have put into the schema.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/role.h"
#include "restore/restore.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_definitions_in);
PG_FUNCTION_INFO_V1(es_definitions_out);
PG_FUNCTION_INFO_V1(es_definitions_baseline);

/* The first byte of a value. */
#define BASELINE	'B'
#define RESTORED	'R'

/* A value with this first byte. */
static Datum
make_value(char mark, const char *content)
{
	return CStringGetTextDatum(psprintf("%c%s", mark, content));
}

Datum
es_definitions_in(PG_FUNCTION_ARGS)
{
	return make_value(RESTORED, PG_GETARG_CSTRING(0));
}

bool
definitions_are_restored(Datum value)
{
	return TextDatumGetCString(value)[0] == RESTORED;
}

/* A column of the row; never null. */
static char *
definition_column(SPITupleTable *rows, uint64 row, int column)
{
	char	   *value = SPI_getvalue(rows->vals[row], rows->tupdesc, column);

	return value == NULL ? pstrdup("") : value;
}

/* The rows of a query with the columns kind, table, name and statement. */
static List *
collect_definitions(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	List	   *items = NIL;
	uint64		i;

	for (i = 0; i < SPI_processed; i++)
	{
		CopiedDefinition *item = palloc(sizeof(CopiedDefinition));

		item->kind = definition_column(SPI_tuptable, i, 1);
		item->table = definition_column(SPI_tuptable, i, 2);
		item->name = definition_column(SPI_tuptable, i, 3);
		item->statement = definition_column(SPI_tuptable, i, 4);
		items = lappend(items, item);
	}
	MemoryContextSwitchTo(oldcontext);
	return items;
}

/*
 * Sets what the server's texts of definitions depend on, so that they are the same in
 * pg_dump and in every session that compares.
 */
static void
fix_settings(void)
{
	static const char *const settings[][2] = {
		{"quote_all_identifiers", "off"}, {"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"}, {"TimeZone", "UTC"}, {"extra_float_digits", "3"}
	};
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * The definitions that the catalogs have now, in the order in which they are to be
 * replayed.
 */
List *
definitions_list(Oid log)
{
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(log)));
	MemoryContext context = CurrentMemoryContext;
	RunAs		saved = run_as(run_as_owner(log), false, schema);
	List	   *items;

	fix_settings();
	SPI_connect();
	if (SPI_execute(psprintf("SELECT d.kind, d.tab, d.name, d.statement FROM %s.es_definitions() d"
							 " ORDER BY d.rank, d.tab, d.name, d.statement", schema),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "definitions cannot be read");
	items = collect_definitions(context);
	SPI_finish();
	run_as_end(saved);
	return items;
}

/*
 * Returns true if the list has the same statement for the table.
 */
bool
definitions_have(List *items, const CopiedDefinition *item)
{
	ListCell   *cell;

	foreach(cell, items)
	{
		const CopiedDefinition *other = lfirst(cell);

		if (strcmp(other->statement, item->statement) == 0 &&
			strcmp(other->table, item->table) == 0)
			return true;
	}
	return false;
}

/* Appends "key": "value" of an object. */
static void
append_pair(StringInfo json, const char *key, const char *value)
{
	appendStringInfo(json, "\"%s\": ", key);
	escape_json(json, value);
}

static void
append_definition(StringInfo json, const CopiedDefinition *item, bool first)
{
	appendStringInfoString(json, first ? "{" : ", {");
	append_pair(json, "kind", item->kind);
	appendStringInfoString(json, ", ");
	append_pair(json, "table", item->table);
	appendStringInfoString(json, ", ");
	append_pair(json, "name", item->name);
	appendStringInfoString(json, ", ");
	append_pair(json, "statement", item->statement);
	appendStringInfoChar(json, '}');
}

/* The tables whose rows a dump has. */
static const char dumped_tables[] =
"SELECT c.relname::text FROM pg_extension x"
" CROSS JOIN unnest(x.extconfig) AS t (oid)"
" JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'r' AND c.relname <> 'es_user_definitions'"
" WHERE x.extname = 'eventstore' ORDER BY c.relname <> 'es_events', c.relname";

/*
 * A number that a query of all rows returns: what a policy hides is dumped as well, or the dump
 * fails.
 */
static int64
select_number(Oid log, const char *sql, bool latest)
{
	(void) own_sql_on_all_rows(log, sql, latest);
	return DatumGetInt64(own_sql_value(1));
}

/* Counts the rows of a table of the extension. */
static int64
count_rows(Oid log, const char *table, bool latest)
{
	return select_number(log, psprintf("SELECT count(*) FROM " SCHEMA_MARK ".%s", quote_identifier(table)),
						 latest);
}

/* Adds a table to a list in the memory context. */
static List *
add_table_rows(List *list, MemoryContext context, const char *table, int64 rows)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	TableRows  *entry = palloc(sizeof(TableRows));

	entry->table = pstrdup(table);
	entry->rows = rows;
	list = lappend(list, entry);
	MemoryContextSwitchTo(oldcontext);
	return list;
}

/*
 * How many rows the tables have that come with a dump.
 */
List *
definitions_count_rows(Oid log, bool latest)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;
	SPITupleTable *tables;
	uint64		count;
	uint64		i;

	SPI_connect();
	count = own_sql_select(log, dumped_tables, 0, NULL, NULL, NULL);
	tables = SPI_tuptable;
	for (i = 0; i < count; i++)
	{
		char	   *table = SPI_getvalue(tables->vals[i], tables->tupdesc, 1);

		result = add_table_rows(result, context, table, count_rows(log, table, latest));
	}
	SPI_finish();
	return result;
}

/* Appends them as an object. */
static void
append_row_counts(StringInfo json, Oid log)
{
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoString(json, ", \"rows\": {");
	foreach(cell, definitions_count_rows(log, false))
	{
		const TableRows *table = lfirst(cell);

		appendStringInfoString(json, separator);
		escape_json(json, table->table);
		appendStringInfo(json, ": " INT64_FORMAT, table->rows);
		separator = ", ";
	}
	appendStringInfoChar(json, '}');
}

/* The rows of a query with the columns table and number of rows. */
static List *
collect_table_rows(MemoryContext context)
{
	List	   *result = NIL;
	uint64		i;

	for (i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		rows = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull);

		result = add_table_rows(result, context,
								SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1),
								isnull ? 0 : DatumGetInt64(rows));
	}
	return result;
}

/*
 * The last position of the log; 0 if it is empty.
 */
int64
definitions_last_position(Oid log, bool latest)
{
	int64		position;

	SPI_connect();
	position = select_number(log, "SELECT COALESCE(max(position), 0) FROM @extschema@.es_events",
							 latest);
	SPI_finish();
	return position;
}

/* Those of the items that are not in the baseline, as JSON. */
static char *
definitions_as_json(Oid log, List *baseline)
{
	StringInfoData json;
	bool		first = true;
	ListCell   *cell;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	append_pair(&json, "schema", get_namespace_name(get_rel_namespace(log)));
	appendStringInfo(&json, ", \"position\": " INT64_FORMAT, definitions_last_position(log, false));
	append_row_counts(&json, log);
	appendStringInfoString(&json, ", \"definitions\": [");
	foreach(cell, definitions_list(log))
	{
		if (definitions_have(baseline, lfirst(cell)))
			continue;
		append_definition(&json, lfirst(cell), first);
		first = false;
	}
	appendStringInfoString(&json, "]}");
	return json.data;
}

/* Takes JSON of definitions apart. */
static CopiedDefinitions *
read_json(Oid log, const char *json)
{
	MemoryContext context = CurrentMemoryContext;
	CopiedDefinitions *result = palloc0(sizeof(CopiedDefinitions));
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(json);

	SPI_connect();
	(void) own_sql_select(log, "SELECT $1::jsonb ->> 'schema', COALESCE(($1::jsonb ->> 'position')::bigint, 0)",
						  1, &type, &value, NULL);
	result->position = DatumGetInt64(own_sql_value(2));
	if (own_sql_value(1) != (Datum) 0)
		result->schema = MemoryContextStrdup(context, own_sql_text(1));
	(void) own_sql_select(log, "SELECT e.key, e.value::bigint FROM jsonb_each_text($1::jsonb -> 'rows') e",
						  1, &type, &value, NULL);
	result->rows = collect_table_rows(context);
	(void) own_sql_select(log, "SELECT d.item ->> 'kind', d.item ->> 'table', d.item ->> 'name', d.item ->> 'statement'"
						  " FROM jsonb_array_elements($1::jsonb -> 'definitions') WITH ORDINALITY AS d (item, n) ORDER BY d.n",
						  1, &type, &value, NULL);
	result->items = collect_definitions(context);
	SPI_finish();
	return result;
}

/* Says where an error of its JSON is. */
static void
add_definitions_context(void *arg)
{
	errcontext("definitions of a restored row of es_user_definitions");
}

CopiedDefinitions *
definitions_read(Oid log, Datum value)
{
	ErrorContextCallback at = {
		.callback = add_definitions_context,.previous = error_context_stack
	};
	CopiedDefinitions *result;

	error_context_stack = &at;
	result = read_json(log, TextDatumGetCString(value) + 1);
	error_context_stack = at.previous;
	return result;
}

/*
 * The text of a value: of the baseline, what there is beyond it.  A client may ask for
 * it where there is no snapshot.
 */
Datum
es_definitions_out(PG_FUNCTION_ARGS)
{
	Oid			log = log_relid(fcinfo->flinfo->fn_oid);
	Datum		value = PG_GETARG_DATUM(0);
	bool		pushed = !ActiveSnapshotSet();
	char	   *result;

	if (definitions_are_restored(value))
		PG_RETURN_CSTRING(TextDatumGetCString(value) + 1);
	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	result = definitions_as_json(log, definitions_read(log, value)->items);
	if (pushed)
		PopActiveSnapshot();
	PG_RETURN_CSTRING(result);
}

/*
 * es_definitions_baseline(): what there is at the end of the install script.
 */
Datum
es_definitions_baseline(PG_FUNCTION_ARGS)
{
	return make_value(BASELINE, definitions_as_json(log_relid(fcinfo->flinfo->fn_oid), NIL));
}
