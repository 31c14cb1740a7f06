/*-------------------------------------------------------------------------
 *
 * event_type.c
 *		The cache of the types of events: the rows of es_event_types,
 *		es_upcasters and es_personal_attributes (design: doc/internals/event_type.md).
 *
 * All rows of these tables are cached from their first use until one of them
 * changes:
 *
 *	- a trigger of each table, es_event_types_changed, makes its statement send
 *	  an invalidation of the table, so that direct SQL and a restore work, too;
 *	- a callback counts the changes, and does nothing else;
 *	- the next use finds that the count has changed, and reads the rows again,
 *	  with a snapshot of its own, as the server reads its catalogs.
 *
 * So a pointer into the cache may be void as soon as code of users has run, or
 * as something else is looked up.
 *
 * The invalidation goes out for es_events, too: plans that read it depend on
 * whether there are upcasters or personal attributes (read/present.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "log/log.h"
#include "type/type.h"

#define TYPES_TABLE		"es_event_types"
#define UPCASTERS_TABLE	"es_upcasters"
#define PERSONAL_TABLE	"es_personal_attributes"
#define KEYS_TABLE		"es_subject_keys"

/* Columns of es_event_types. */
enum
{
	Anum_types_type = 1,
	Anum_types_required,
	Anum_types_composite_key,
	Anum_types_attributes,
	Anum_types_schema_version,
	Anum_types_description,
	Anum_types_category,
	Anum_types_defined_at,
	Natts_types = Anum_types_defined_at
};

/* Columns of es_upcasters. */
enum
{
	Anum_upcasters_type = 1,
	Anum_upcasters_from_version,
	Anum_upcasters_upcaster,
	Anum_upcasters_owner,
	Anum_upcasters_search_path,
	Anum_upcasters_settings,
	Anum_upcasters_category,
	Anum_upcasters_defined_at,
	Natts_upcasters = Anum_upcasters_defined_at
};

/* Columns of es_personal_attributes. */
enum
{
	Anum_personal_type = 1,
	Anum_personal_category,
	Anum_personal_subject,
	Anum_personal_attributes
};

PG_FUNCTION_INFO_V1(es_event_types_changed);

/* A row of es_personal_attributes. */
typedef struct PersonalRow
{
	char	   *type;
	char	   *category;		/* NULL: of all */
	PersonalPart part;
} PersonalRow;

/* All that is defined. */
typedef struct Definitions
{
	MemoryContext context;		/* of all of it */
	Oid			log;
	uint64		generation;		/* of changes, before it was read */
	EventType  *types;			/* by type, then category */
	int			type_count;
	bool		by_category;	/* some are of one category */
	Upcaster   *upcasters;		/* by type, category, from_version */
	int			upcaster_count;
	int			type_room;
	int			upcaster_room;
	List	   *personal;		/* of PersonalRow */
	List	   *lost;			/* of PersonalRow, whose types are not defined */
	bool		has_keys;		/* es_subject_keys is not empty */
} Definitions;

/* The words for attributes that do not stand for a type of the server. */
static const struct
{
	const char *word;
	AttributeKind kind;
}			words[] = {
	{"any", ATTRIBUTE_ANY},
	{"s", ATTRIBUTE_STRING},
	{"string", ATTRIBUTE_STRING},
	{"n", ATTRIBUTE_NUMBER},
	{"number", ATTRIBUTE_NUMBER},
	{"integer", ATTRIBUTE_INTEGER},
	{"b", ATTRIBUTE_BOOLEAN},
	{"boolean", ATTRIBUTE_BOOLEAN},
	{"object", ATTRIBUTE_OBJECT},
	{"array", ATTRIBUTE_ARRAY}
};

/*
 * eventstore.strict_types: whether every event must be of a defined type.  An
 * administrator sets it if all types are known and an unknown one is a mistake.
 * Only a superuser can change it.
 */
bool		event_type_strict = false;

static Definitions *definitions = NULL;

/* How often something has changed, or may have; and the tables it is about. */
static uint64 changes = 1;
static Oid	types_relid = InvalidOid;
static Oid	upcasters_relid = InvalidOid;
static Oid	personal_relid = InvalidOid;

void
event_type_init(void)
{
	DefineCustomBoolVariable("eventstore.strict_types",
							 "Refuses events of types that are not defined.",
							 "Types are defined by es_define_event_type().",
							 &event_type_strict, false, PGC_SUSET, 0, NULL,
							 NULL, NULL);
}

/*
 * The type of the server that a word names; InvalidOid if there is none, or if
 * its values are not scalars.
 */
static Oid
scalar_type_of_word(const char *word)
{
	HeapTuple	tuple = NULL;
	Form_pg_type form;
	Oid			type = InvalidOid;

	if (strlen(word) < NAMEDATALEN)
		tuple = SearchSysCache2(TYPENAMENSP, PointerGetDatum(word),
								ObjectIdGetDatum(PG_CATALOG_NAMESPACE));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	form = (Form_pg_type) GETSTRUCT(tuple);
	if (form->typtype == TYPTYPE_BASE && form->typisdefined &&
		form->typcategory != TYPCATEGORY_ARRAY &&
		form->typcategory != TYPCATEGORY_INTERNAL &&
		form->oid != JSONOID && form->oid != JSONBOID)
		type = form->oid;
	ReleaseSysCache(tuple);
	return type;
}

AttributeKind
event_type_kind(const char *word, Oid *type)
{
	int			i;

	for (i = 0; i < (int) lengthof(words); i++)
	{
		if (strcmp(word, words[i].word) == 0)
			return words[i].kind;
	}
	*type = scalar_type_of_word(word);
	return OidIsValid(*type) ? ATTRIBUTE_SCALAR : ATTRIBUTE_UNKNOWN;
}

/* Returns the attribute of this name, which is added if there is none. */
static EventAttribute *
get_event_attribute(EventType *type, const char *name)
{
	EventAttribute *attribute;
	ListCell   *cell;

	foreach(cell, type->attributes)
	{
		attribute = lfirst(cell);
		if (strcmp(attribute->name, name) == 0)
			return attribute;
	}
	attribute = palloc0(sizeof(EventAttribute));
	attribute->name = pstrdup(name);
	attribute->kind = ATTRIBUTE_ANY;
	type->attributes = lappend(type->attributes, attribute);
	return attribute;
}

/* Marks the attributes in the array as required, and as part of the key. */
static void
mark_required(EventType *type, ArrayType *array, bool key)
{
	Datum	   *names;
	bool	   *nulls;
	int			count;
	int			i;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
					  &count);
	for (i = 0; i < count; i++)
	{
		EventAttribute *attribute;

		if (nulls[i])
			continue;
		attribute = get_event_attribute(type, TextDatumGetCString(names[i]));
		attribute->required = true;
		if (key)
			attribute->key = true;
	}
}

/* Reads the kind that an attribute must have. */
static void
read_attribute_kind(EventAttribute *attribute, const JsonbValue *word)
{
	Oid			type;
	Oid			input;

	attribute->kind = ATTRIBUTE_UNKNOWN;
	attribute->word = "";
	if (word->type != jbvString)
		return;
	attribute->word = pnstrdup(word->val.string.val, word->val.string.len);
	attribute->kind = event_type_kind(attribute->word, &type);
	if (attribute->kind != ATTRIBUTE_SCALAR)
		return;
	getTypeInputInfo(type, &input, &attribute->io_param);
	fmgr_info_cxt(input, &attribute->input, CurrentMemoryContext);
}

/* Reads the kinds of all attributes that have one. */
static void
read_attribute_kinds(EventType *type, Jsonb *kinds)
{
	JsonbIterator *iterator;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(kinds))
		return;
	iterator = JsonbIteratorInit(&kinds->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(value.val.string.val,
									value.val.string.len);

		(void) JsonbIteratorNext(&iterator, &value, true);
		read_attribute_kind(get_event_attribute(type, name), &value);
	}
}

/* Returns the text of a column; NULL for null. */
static char *
text_or_null(const Datum *values, const bool *nulls, int column)
{
	return nulls[column - 1] ? NULL : TextDatumGetCString(values[column - 1]);
}

/*
 * Returns what the ids of composite keys begin with.  Two categories with a type of
 * one name must not give their events the same ids.
 */
static text *
make_key_type(const EventType *type)
{
	return cstring_to_text(type->category == NULL ? type->type :
						   psprintf("%s-%s", type->category, type->type));
}

/* Reads a row of es_event_types. */
static void
read_type_row(Definitions *all, const Datum *values, const bool *nulls)
{
	EventType  *type;

	if (all->type_count == all->type_room)
	{
		all->type_room = Max(all->type_room * 2, 16);
		all->types = all->types == NULL ?
			palloc(sizeof(EventType) * all->type_room) :
			repalloc(all->types, sizeof(EventType) * all->type_room);
	}
	type = &all->types[all->type_count++];
	memset(type, 0, sizeof(EventType));
	type->type = TextDatumGetCString(values[Anum_types_type - 1]);
	type->category = text_or_null(values, nulls, Anum_types_category);
	type->key_type = make_key_type(type);
	all->by_category = all->by_category || type->category != NULL;
	mark_required(type, DatumGetArrayTypeP(values[Anum_types_required - 1]),
				  false);
	if (!nulls[Anum_types_composite_key - 1])
	{
		type->composite_key =
			DatumGetArrayTypePCopy(values[Anum_types_composite_key - 1]);
		mark_required(type, type->composite_key, true);
	}
	if (!nulls[Anum_types_attributes - 1])
		read_attribute_kinds(type, DatumGetJsonbP(values[Anum_types_attributes - 1]));
	type->schema_version = DatumGetInt32(values[Anum_types_schema_version - 1]);
	type->version_metadata = schema_version_metadata(type->schema_version);
}

/* Reads a row of es_upcasters. */
static void
read_upcaster_row(Definitions *all, const Datum *values, const bool *nulls)
{
	Upcaster   *upcaster;

	if (all->upcaster_count == all->upcaster_room)
	{
		all->upcaster_room = Max(all->upcaster_room * 2, 16);
		all->upcasters = all->upcasters == NULL ?
			palloc(sizeof(Upcaster) * all->upcaster_room) :
			repalloc(all->upcasters, sizeof(Upcaster) * all->upcaster_room);
	}
	upcaster = &all->upcasters[all->upcaster_count++];
	upcaster->type = TextDatumGetCString(values[Anum_upcasters_type - 1]);
	upcaster->from_version =
		DatumGetInt32(values[Anum_upcasters_from_version - 1]);
	upcaster->signature =
		TextDatumGetCString(values[Anum_upcasters_upcaster - 1]);
	upcaster->owner =
		*(Role *) DatumGetPointer(values[Anum_upcasters_owner - 1]);
	upcaster->search_path =
		TextDatumGetCString(values[Anum_upcasters_search_path - 1]);
	upcaster->settings = settings_read(values[Anum_upcasters_settings - 1]);
	upcaster->category = text_or_null(values, nulls, Anum_upcasters_category);
}

/* Reads a row of es_personal_attributes. */
static void
read_personal_row(Definitions *all, const Datum *values, const bool *nulls)
{
	PersonalRow *row = palloc0(sizeof(PersonalRow));
	Datum	   *names;
	int			count;
	int			i;

	row->type = TextDatumGetCString(values[Anum_personal_type - 1]);
	row->category = text_or_null(values, nulls, Anum_personal_category);
	row->part.subject = text_or_null(values, nulls, Anum_personal_subject);
	deconstruct_array(DatumGetArrayTypeP(values[Anum_personal_attributes - 1]), TEXTOID, -1,
					  false, TYPALIGN_INT, &names, NULL, &count);
	for (i = 0; i < count; i++)
		row->part.attributes = lappend(row->part.attributes, TextDatumGetCString(names[i]));
	all->personal = lappend(all->personal, row);
}

/* Reads all rows of a table, with a snapshot of its own. */
static void
read_definition_rows(Relation rel, Definitions *all,
					 void (*read_row) (Definitions *, const Datum *, const bool *))
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		heap_deform_tuple(tuple, desc, values, nulls);
		read_row(all, values, nulls);
	}
	systable_endscan(scan);
}

/* Compares two categories; that of none comes first. */
static int
compare_categories(const char *one, const char *other)
{
	if (one == NULL || other == NULL)
		return (one != NULL) - (other != NULL);
	return strcmp(one, other);
}

static int
compare_types(const void *a, const void *b)
{
	const EventType *one = a;
	const EventType *other = b;
	int			result = strcmp(one->type, other->type);

	return result != 0 ? result :
		compare_categories(one->category, other->category);
}

static int
compare_upcasters(const void *a, const void *b)
{
	const Upcaster *one = a;
	const Upcaster *other = b;
	int			result = strcmp(one->type, other->type);

	if (result == 0)
		result = compare_categories(one->category, other->category);
	if (result == 0)
		result = (one->from_version > other->from_version) -
			(one->from_version < other->from_version);
	return result;
}

/* Adds personal attributes to a type. */
static void
add_personal(EventType *type, PersonalPart *part)
{
	ListCell   *cell;

	type->personal = lappend(type->personal, part);
	foreach(cell, part->attributes)
		get_event_attribute(type, lfirst(cell))->personal = true;
}

/* Gives types the attributes that are personal in them. */
static void
assign_personal(Definitions *all)
{
	ListCell   *cell;
	int			i;

	foreach(cell, all->personal)
	{
		PersonalRow *row = lfirst(cell);
		bool		assigned = row->part.attributes == NIL;

		for (i = 0; i < all->type_count; i++)
		{
			if (strcmp(all->types[i].type, row->type) == 0 &&
				compare_categories(all->types[i].category, row->category) == 0)
			{
				add_personal(&all->types[i], &row->part);
				assigned = true;
			}
		}
		if (!assigned)
			all->lost = lappend(all->lost, row);
	}
}

/* Reads the tables. */
static void
read_definitions(Definitions *all)
{
	Relation	types = table_open(own_table_relid(all->log, TYPES_TABLE),
								   AccessShareLock);
	Relation	upcasters = table_open(own_table_relid(all->log, UPCASTERS_TABLE),
									   AccessShareLock);
	Relation	personal = table_open(own_table_relid(all->log, PERSONAL_TABLE),
									  AccessShareLock);
	Relation	keys = table_open(own_table_relid(all->log, KEYS_TABLE), AccessShareLock);

	/* from here on every change counts, also while they are read */
	types_relid = RelationGetRelid(types);
	upcasters_relid = RelationGetRelid(upcasters);
	personal_relid = RelationGetRelid(personal);
	all->generation = changes;
	read_definition_rows(types, all, read_type_row);
	read_definition_rows(upcasters, all, read_upcaster_row);
	read_definition_rows(personal, all, read_personal_row);
	all->has_keys = RelationGetNumberOfBlocks(keys) > 0;
	table_close(keys, AccessShareLock);
	table_close(types, AccessShareLock);
	table_close(upcasters, AccessShareLock);
	table_close(personal, AccessShareLock);
	assign_personal(all);
	if (all->type_count > 1)
		qsort(all->types, all->type_count, sizeof(EventType), compare_types);
	if (all->upcaster_count > 1)
		qsort(all->upcasters, all->upcaster_count, sizeof(Upcaster),
			  compare_upcasters);
}

/* Invalidation callback: counts a change of one of the tables. */
static void
count_definition_change(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == types_relid ||
		relid == upcasters_relid || relid == personal_relid)
		changes++;
}

/* Reads the tables again, and replaces the cache when that has worked. */
static void
load_definitions(Oid log)
{
	static bool registered = false;
	MemoryContext context;
	MemoryContext oldcontext;
	Definitions *all;

	if (!registered)
		CacheRegisterRelcacheCallback(count_definition_change, (Datum) 0);
	registered = true;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"eventstore event types",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	all = palloc0(sizeof(Definitions));
	all->context = context;
	all->log = log;
	read_definitions(all);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextSetParent(context, TopMemoryContext);
	if (definitions != NULL)
		MemoryContextDelete(definitions->context);
	definitions = all;
}

/* Returns the current definitions. */
static inline const Definitions *
get_definitions(Oid log)
{
	if (definitions == NULL || definitions->generation != changes ||
		definitions->log != log)
		load_definitions(log);
	return definitions;
}

uint64
event_type_generation(Oid log)
{
	return get_definitions(log)->generation;
}

bool
event_type_is_checked(Oid log)
{
	AcceptInvalidationMessages();
	return event_type_strict || get_definitions(log)->type_count > 0 ||
		definitions->upcaster_count > 0;
}

/* Returns the definition of exactly this type and category; NULL if there is none. */
static const EventType *
find_type(const Definitions *all, char *type, char *category)
{
	EventType	key = {.type = type,.category = category};

	return bsearch(&key, all->types, all->type_count, sizeof(EventType),
				   compare_types);
}

const EventType *
event_type_find(Oid log, text *stream, text *type)
{
	const Definitions *all = get_definitions(log);
	const EventType *found = NULL;
	char	   *name;

	if (all->type_count == 0)
		return NULL;
	name = text_to_cstring(type);
	if (all->by_category)
		found = find_type(all, name, stream_category(stream));
	return found != NULL ? found : find_type(all, name, NULL);
}

const EventType *
event_type_all(Oid log, int *count)
{
	const Definitions *all = get_definitions(log);

	*count = all->type_count;
	return all->types;
}

bool
event_type_has_personal(Oid log)
{
	const Definitions *all = get_definitions(log);

	return all->personal != NIL || all->has_keys;
}

void
event_type_check_personal(Oid log, text *type)
{
	const Definitions *all = get_definitions(log);
	ListCell   *cell;

	foreach(cell, all->lost)
	{
		char	   *name = ((PersonalRow *) lfirst(cell))->type;

		if (strcmp(name, text_to_cstring(type)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("type \"%s\" has personal attributes, and no definition", name),
					 errdetail("They would be stored in plaintext."),
					 errhint("Define the type by es_define_event_type(), with personal and subject.")));
	}
}

void
event_type_note_personal(Oid log)
{
	CacheInvalidateRelcacheByRelid(own_table_relid(log, PERSONAL_TABLE));
	CacheInvalidateRelcacheByRelid(log);
}

bool
event_type_is_personal(const EventType *type, const char *attribute)
{
	ListCell   *part;
	ListCell   *cell;

	foreach(part, type->personal)
	{
		foreach(cell, ((PersonalPart *) lfirst(part))->attributes)
		{
			if (strcmp(lfirst(cell), attribute) == 0)
				return true;
		}
	}
	return false;
}

bool
event_type_is_defined(Oid log, text *type)
{
	const Definitions *all = get_definitions(log);
	char	   *name = text_to_cstring(type);
	int			i;

	for (i = 0; i < all->type_count; i++)
	{
		if (strcmp(all->types[i].type, name) == 0)
			return true;
	}
	return false;
}

bool
event_type_has_upcaster(Oid log, text *type)
{
	const Definitions *all = get_definitions(log);
	char	   *name = text_to_cstring(type);
	int			i;

	for (i = 0; i < all->upcaster_count; i++)
	{
		if (all->upcasters[i].category == NULL &&
			strcmp(all->upcasters[i].type, name) == 0)
			return true;
	}
	return false;
}

void
event_type_check_filter(Oid log, ArrayType *types)
{
	Datum	   *values;
	int			count;
	int			i;

	event_check_type_names(types);
	if (!event_type_strict)
		return;
	count = argument_texts("types", types, &values);
	AcceptInvalidationMessages();
	for (i = 0; i < count; i++)
	{
		text	   *type = DatumGetTextPP(values[i]);

		if (!event_is_reserved(type) && !event_type_is_defined(log, type))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("type \"%s\" is not defined", text_to_cstring(type)),
					 errdetail("No event can have this type, since eventstore.strict_types is on."),
					 errhint("Define the type by es_define_event_type() first.")));
	}
}

const Upcaster *
event_type_upcasters(Oid log, int *count)
{
	const Definitions *all = get_definitions(log);

	*count = all->upcaster_count;
	return all->upcasters;
}

/*
 * es_event_types_changed(): AFTER any change of es_event_types, es_upcasters or
 * es_personal_attributes, sends the invalidation to all backends.
 */
Datum
es_event_types_changed(PG_FUNCTION_ARGS)
{
	const char *table = CALLED_AS_TRIGGER(fcinfo) ?
	RelationGetRelationName(((TriggerData *) fcinfo->context)->tg_relation) : "";
	bool		changes_plans = strcmp(table, UPCASTERS_TABLE) == 0 ||
	strcmp(table, PERSONAL_TABLE) == 0;
	TriggerData *trigger = own_trigger_data(fcinfo, changes_plans ? table : TYPES_TABLE);

	CacheInvalidateRelcache(trigger->tg_relation);
	if (changes_plans)
		CacheInvalidateRelcacheByRelid(log_relid(fcinfo->flinfo->fn_oid));
	return PointerGetDatum(NULL);
}
