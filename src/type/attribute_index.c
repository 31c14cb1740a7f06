/*-------------------------------------------------------------------------
 *
 * attribute_index.c
 *		es_index_attribute(): an index on es_events for the events of one type
 *		by one attribute of their data; es_attribute(), which it may be on.
 *
 * An index must never make an append fail, whatever is appended, and a B-tree
 * refuses entries of more than 2,704 bytes.  So no index is on the value itself,
 * which may have any length:
 *
 *	- texts: B-tree on the first TEXT_KEY_LENGTH characters;
 *	- values of any kind: B-tree on es_attribute(), which is null for a value of
 *	  more than VALUE_KEY_SIZE bytes;
 *	- objects and arrays: GIN on the value, which keeps hashes of what is long.
 *	  (SP-GiST, which takes texts of any length, needs 1.4 s for 1 MB, and more
 *	  memory than there is for 10 MB.)
 *
 * The wanted index is written as pg_get_indexdef() writes it, so that one text
 * makes the index and tells whether one that is found is the same.
 *
 * A call that finds no index locks es_events against appends, looks again, and
 * makes it, so that of two calls one waits for the other.  Appends of others go on
 * until the lock is there (table_lock.c), which the ShareLock of CREATE INDEX would
 * not let them.  It does not wait for a CREATE INDEX CONCURRENTLY of the same index,
 * which in the end waits for every transaction with a snapshot, and so for this one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/role.h"
#include "log/log.h"
#include "type/type.h"

/* An attribute's name is a word, as a type's is. */
#define MAX_ATTRIBUTE_LENGTH	255

/* Of at most 4 bytes each: 2,000 bytes. */
#define TEXT_KEY_LENGTH			500

/* Of a value as jsonb, with its header. */
#define VALUE_KEY_SIZE			2048

PG_FUNCTION_INFO_V1(es_attribute);
PG_FUNCTION_INFO_V1(es_index_attribute);

/* What an index is on. */
typedef enum IndexKind
{
	INDEX_TEXT,					/* texts */
	INDEX_VALUE,				/* values of any kind */
	INDEX_CONTAINER				/* objects and arrays */
} IndexKind;

/* The index that is wanted. */
typedef struct AttributeIndex
{
	Oid			log;
	Oid			relid;			/* 0: there is none yet */
	char	   *type;
	char	   *attribute;
	char	   *name;
	char	   *definition;		/* the statement that makes it */
} AttributeIndex;

/*
 * es_attribute(data, attribute): the attribute's value, null if there is none,
 * or if it is too long for an index.
 */
Datum
es_attribute(PG_FUNCTION_ARGS)
{
	Jsonb	   *data = PG_GETARG_JSONB_P(0);
	text	   *attribute = PG_GETARG_TEXT_PP(1);
	JsonbValue *value = NULL;
	Jsonb	   *result;

	if (JB_ROOT_IS_OBJECT(data))
		value = getKeyJsonValueFromContainer(&data->root,
											 VARDATA_ANY(attribute),
											 VARSIZE_ANY_EXHDR(attribute),
											 NULL);
	if (value == NULL)
		PG_RETURN_NULL();
	result = JsonbValueToJsonb(value);
	if (VARSIZE(result) > VALUE_KEY_SIZE)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* Refuses a name of an attribute that is empty or too long. */
static void
check_attribute_name(const char *attribute)
{
	size_t		length = strlen(attribute);

	if (length == 0 || length > MAX_ATTRIBUTE_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attribute must have 1 to %d bytes",
						MAX_ATTRIBUTE_LENGTH),
				 errdetail("It has %zu bytes.", length),
				 errhint("Name one attribute of data, such as 'amount'.")));
}

/*
 * Returns true if no other type and attribute give this name: its first "__" is
 * the one between them.
 */
static bool
is_unique_index_name(const AttributeIndex *index, const char *name)
{
	size_t		length = strlen(index->type);

	return strlen(name) < NAMEDATALEN &&
		strstr(index->type, "__") == NULL && index->type[length - 1] != '_';
}

/*
 * The index's name: es_events_type__attribute_idx.  Where that is too long, or
 * could be another index's, a hash of both tells them apart.
 */
static char *
attribute_index_name(const AttributeIndex *index)
{
	char	   *both = psprintf("es_events_%s__%s", index->type,
								index->attribute);
	char	   *name = psprintf("%s_idx", both);
	char	   *end;
	uint64		hash;

	if (is_unique_index_name(index, name))
		return name;
	hash = hash_bytes_extended((unsigned char *) index->attribute,
							   strlen(index->attribute),
							   hash_bytes_extended((unsigned char *) index->type,
												   strlen(index->type), 0));
	end = psprintf("_%016llx_idx", (unsigned long long) hash);
	return psprintf("%.*s%s",
					pg_mbcliplen(both, strlen(both),
								 NAMEDATALEN - 1 - (int) strlen(end)),
					both, end);
}

/* A string as pg_get_indexdef() writes it. */
static char *
quote_as_server(const char *string)
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

/* The kind of an index on values of a type of the server. */
static IndexKind
scalar_index_kind(const char *word)
{
	Oid			type = InvalidOid;
	char		category;
	bool		preferred;

	(void) event_type_kind(word, &type);
	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_NUMERIC || category == TYPCATEGORY_BOOLEAN ?
		INDEX_VALUE : INDEX_TEXT;
}

/* The kind of an index on what one definition says that an attribute has. */
static IndexKind
defined_index_kind(const EventAttribute *attribute)
{
	switch (attribute->kind)
	{
		case ATTRIBUTE_STRING:
			return INDEX_TEXT;
		case ATTRIBUTE_OBJECT:
		case ATTRIBUTE_ARRAY:
			return INDEX_CONTAINER;
		case ATTRIBUTE_SCALAR:
			return scalar_index_kind(attribute->word);
		default:
			return INDEX_VALUE;
	}
}

/* Returns what a definition says of an attribute; NULL: nothing. */
static const EventAttribute *
find_defined_attribute(const EventType *type, const char *name)
{
	ListCell   *cell;

	foreach(cell, type->attributes)
	{
		const EventAttribute *attribute = lfirst(cell);

		if (strcmp(attribute->name, name) == 0)
			return attribute;
	}
	return NULL;
}

/*
 * The kind of the index, by what the attribute is defined to have.  One index has the
 * events of all categories: where their definitions differ it is one for values of any
 * kind.
 */
static IndexKind
attribute_index_kind(const AttributeIndex *index)
{
	IndexKind	kind = INDEX_VALUE;
	bool		found = false;
	int			count;
	const EventType *types = event_type_all(index->log, &count);
	int			i;

	for (i = 0; i < count; i++)
	{
		const EventAttribute *attribute;
		IndexKind	defined;

		if (strcmp(types[i].type, index->type) != 0)
			continue;
		attribute = find_defined_attribute(&types[i], index->attribute);
		if (attribute == NULL)
			continue;
		defined = defined_index_kind(attribute);
		if (found && defined != kind)
			return INDEX_VALUE;
		kind = defined;
		found = true;
	}
	return kind;
}

/* The statement that makes the index. */
static char *
attribute_index_definition(const AttributeIndex *index)
{
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(index->log)));
	char	   *attribute = quote_as_server(index->attribute);
	char	   *key;

	switch (attribute_index_kind(index))
	{
		case INDEX_TEXT:
			key = psprintf("btree (\"left\"((data ->> %s), %d) COLLATE \"C\")",
						   attribute, TEXT_KEY_LENGTH);
			break;
		case INDEX_CONTAINER:
			key = psprintf("gin (((data -> %s)))", attribute);
			break;
		default:
			key = psprintf("btree (%s.es_attribute(data, %s))", schema,
						   attribute);
	}
	return psprintf("CREATE INDEX %s ON %s.es_events USING %s WHERE (type = %s)",
					quote_identifier(index->name), schema, key,
					quote_as_server(index->type));
}

/* Refuses a relation that has the index's name and is something else. */
static void
refuse_other_relation(const AttributeIndex *index, const char *what, const char *hint)
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
stored_index_definition(const AttributeIndex *index)
{
	RunAs		saved = run_as(run_as_owner(index->log), false,
							   "pg_catalog, pg_temp");
	Datum		definition = OidFunctionCall1(F_PG_GET_INDEXDEF_OID,
											  ObjectIdGetDatum(index->relid));

	run_as_end(saved);
	return TextDatumGetCString(definition);
}

/*
 * Refuses a relation that has the name and is another index, or an index that is
 * not complete.  The caches are asked, since a query might not yet see what
 * another transaction has made.
 */
static void
check_index_found(const AttributeIndex *index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID,
										ObjectIdGetDatum(index->relid));
	bool		valid;
	char	   *definition;

	if (!HeapTupleIsValid(tuple))
		refuse_other_relation(index, "It is not an index", "Rename it.");
	valid = ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	definition = stored_index_definition(index);
	if (strcmp(definition, index->definition) != 0)
		refuse_other_relation(index, psprintf("It is \"%s\"", definition),
							  "Drop it if it is of no use, or rename it; then call es_index_attribute() again.");
	if (!valid)
		refuse_other_relation(index,
							  "It is not valid, since CREATE INDEX CONCURRENTLY is running, or has failed",
							  "Wait until it is done, or drop the index if it has failed.");
}

/* Looks for the index, and checks it.  Returns false if there is none. */
static bool
find_attribute_index(AttributeIndex *index)
{
	index->relid = get_relname_relid(index->name,
									 get_rel_namespace(index->log));
	if (!OidIsValid(index->relid))
		return false;
	check_index_found(index);
	return true;
}

/* Makes the index, as the owner of the log. */
static void
make_attribute_index(AttributeIndex *index)
{
	RunAs		saved = run_as(run_as_owner(index->log), false,
							   "pg_catalog, pg_temp");
	int			result = SPI_execute(index->definition, false, 0);

	if (result < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(result),
			 index->definition);
	run_as_end(saved);
	index->relid = get_relname_relid(index->name,
									 get_rel_namespace(index->log));
}

/*
 * es_index_attribute(type, attribute): the index, which is made if there is none.
 */
Datum
es_index_attribute(PG_FUNCTION_ARGS)
{
	AttributeIndex index = {0};

	PreventCommandIfReadOnly("es_index_attribute()");
	argument_not_null(fcinfo, 0, "type");
	argument_not_null(fcinfo, 1, "attribute");
	event_check_type_name(PG_GETARG_TEXT_PP(0));
	index.log = log_relid(fcinfo->flinfo->fn_oid);
	index.type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	index.attribute = text_to_cstring(PG_GETARG_TEXT_PP(1));
	check_attribute_name(index.attribute);
	index.name = attribute_index_name(&index);
	SPI_connect();
	index.definition = attribute_index_definition(&index);
	if (!find_attribute_index(&index))
	{
		log_lock_whole(index.log, psprintf("to make index \"%s\"", index.name),
					   NULL, NULL);
		if (!find_attribute_index(&index))
			make_attribute_index(&index);
	}
	SPI_finish();
	PG_RETURN_OID(index.relid);
}
