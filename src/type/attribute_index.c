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
 * event_index.c finds the index or makes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "log/log.h"
#include "type/event_index.h"
#include "type/personal_define.h"
#include "type/type.h"

/* An attribute's name is a word, as a type's is. */
#define MAX_ATTRIBUTE_LENGTH	255

/* Of at most 4 bytes each: 2,000 bytes. */
#define TEXT_KEY_LENGTH			500

/* Of a value as jsonb, with its header. */
#define VALUE_KEY_SIZE			2048

PG_FUNCTION_INFO_V1(es_attribute);
PG_FUNCTION_INFO_V1(es_index_attribute);

/* What kind of values an index is on. */
typedef enum IndexKind
{
	INDEX_TEXT,					/* texts */
	INDEX_VALUE,				/* values of any kind */
	INDEX_CONTAINER				/* objects and arrays */
} IndexKind;

/* What an index is on. */
typedef struct AttributeKey
{
	Oid			log;
	const char *type;
	const char *attribute;
} AttributeKey;

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
 * Returns true if no other type and attribute give the name: its first "__" is the one
 * between them.
 */
static bool
is_unique_type(const char *type)
{
	return strstr(type, "__") == NULL && type[strlen(type) - 1] != '_';
}

/*
 * The index's name: es_events_type__attribute_idx.
 */
static char *
attribute_index_name(const AttributeKey *key)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key->attribute,
										   strlen(key->attribute),
										   hash_bytes_extended((const unsigned char *) key->type,
															   strlen(key->type), 0));

	return event_index_name(psprintf("%s__%s", key->type, key->attribute),
							is_unique_type(key->type), hash);
}

bool
attribute_index_exists(Oid log, const char *type, const char *attribute)
{
	AttributeKey key = {log, type, attribute};

	return OidIsValid(get_relname_relid(attribute_index_name(&key), get_rel_namespace(log)));
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
attribute_index_kind(const AttributeKey *key)
{
	IndexKind	kind = INDEX_VALUE;
	bool		found = false;
	int			count;
	const EventType *types = event_type_all(key->log, &count);
	int			i;

	for (i = 0; i < count; i++)
	{
		const EventAttribute *attribute;
		IndexKind	defined;

		if (strcmp(types[i].type, key->type) != 0)
			continue;
		attribute = find_defined_attribute(&types[i], key->attribute);
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

/* The access method of the index, and what it is on. */
static char *
attribute_index_expression(const AttributeKey *key)
{
	char	   *attribute = event_index_quote(key->attribute);

	switch (attribute_index_kind(key))
	{
		case INDEX_TEXT:
			return psprintf("btree (\"left\"((data ->> %s), %d) COLLATE \"C\")",
							attribute, TEXT_KEY_LENGTH);
		case INDEX_CONTAINER:
			return psprintf("gin (((data -> %s)))", attribute);
		default:
			return psprintf("btree (%s.es_attribute(data, %s))",
							quote_identifier(get_namespace_name(get_rel_namespace(key->log))),
							attribute);
	}
}

/* Refuses an attribute that is encrypted, of which an index would have nothing. */
static void
refuse_personal_index(const AttributeKey *key)
{
	int			count;
	const EventType *types;
	int			i;

	AcceptInvalidationMessages();
	types = event_type_all(key->log, &count);
	for (i = 0; i < count; i++)
	{
		if (strcmp(types[i].type, key->type) == 0 &&
			event_type_is_personal(&types[i], key->attribute))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there can be no index on attribute \"%s\"", key->attribute),
					 errdetail("It is personal, and stored encrypted."),
					 errhint("Use a projection, or es_personal_hash() in a tag.")));
	}
}

/*
 * es_index_attribute(type, attribute): the index, which is made if there is none.
 */
Datum
es_index_attribute(PG_FUNCTION_ARGS)
{
	AttributeKey key;
	EventIndex	index = {.function = "es_index_attribute()"};

	PreventCommandIfReadOnly(index.function);
	argument_not_null(fcinfo, 0, "type");
	argument_not_null(fcinfo, 1, "attribute");
	event_check_type_name(PG_GETARG_TEXT_PP(0));
	key.log = log_relid(fcinfo->flinfo->fn_oid);
	key.type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	key.attribute = text_to_cstring(PG_GETARG_TEXT_PP(1));
	check_attribute_name(key.attribute);
	refuse_personal_index(&key);
	index.name = attribute_index_name(&key);
	SPI_connect();
	event_index_find_or_make(&index, key.log, key.type, attribute_index_expression(&key));
	SPI_finish();
	PG_RETURN_OID(index.relid);
}
