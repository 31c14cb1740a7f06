/*-------------------------------------------------------------------------
 *
 * type.h
 *		Types of events: definitions, checks, composite keys, upcasters.
 *
 * Types are known to a backend from the tables es_event_types and es_upcasters
 * (event_type.c).  New events are identified and checked against them; stored
 * ones are upcast when they are read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_TYPE_H
#define EVENTSTORE_TYPE_H

#include "fmgr.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "eventstore.h"
#include "base/base.h"
#include "base/role.h"
#include "base/setting.h"
#include "log/log.h"

/* composite_key.c */

/*
 * Returns the names of a composite key.  Errors: there is none, one is null, or
 * one is there twice.
 */
extern Datum *composite_key_names(ArrayType *keys, int *count);

/*
 * Returns the id of an event by its type and composite key.  Errors: an attribute
 * of the key is missing, null or no scalar.
 */
extern pg_uuid_t *composite_key_id(text *type, Jsonb *data, ArrayType *keys);

/* type_function.c: functions of a schema, one for each type */

typedef struct TypeFunctions TypeFunctions;

/* The function for one type. */
typedef struct TypeFunction
{
	char		type[ES_MAX_TYPE_LENGTH + 1];
	Oid			function;		/* 0: there is none */
	FmgrInfo	info;
	void	   *extra;			/* the caller's */
} TypeFunction;

/*
 * Prepares for calling the functions whose names are the prefix and a type, for
 * as long as the current memory context lives.  Errors: there is no such schema.
 */
extern TypeFunctions *type_functions_make(const char *schema,
										  const char *prefix,
										  const FunctionSignature *signature);

/*
 * Returns the function for a type; NULL if there is none.  Errors: its signature
 * is another one, or the current user may not execute it.
 */
extern TypeFunction *type_functions_find(TypeFunctions *by_type, text *type);

/* event_type.c: the definitions that the backend has cached */

/* The kind of value that an attribute must have. */
typedef enum AttributeKind
{
	ATTRIBUTE_ANY,
	ATTRIBUTE_STRING,
	ATTRIBUTE_NUMBER,
	ATTRIBUTE_INTEGER,
	ATTRIBUTE_BOOLEAN,
	ATTRIBUTE_OBJECT,
	ATTRIBUTE_ARRAY,
	ATTRIBUTE_SCALAR,			/* whatever a type of the server accepts */
	ATTRIBUTE_UNKNOWN			/* the table was written in another way */
} AttributeKind;

/* An attribute that a type of events says something about. */
typedef struct EventAttribute
{
	char	   *name;
	bool		required;
	bool		key;			/* is it part of the composite key? */
	bool		personal;		/* its value must not be shown */
	AttributeKind kind;
	char	   *word;			/* for the kind; NULL: none */
	FmgrInfo	input;			/* of a scalar */
	Oid			io_param;
} EventAttribute;

/* Attributes that are about one person, as a row of es_personal_attributes has them. */
typedef struct PersonalPart
{
	char	   *subject;		/* attribute that names the person; NULL: the
								 * stream's id does */
	List	   *attributes;		/* of their names; NIL: they were given up */
} PersonalPart;

/* A type of events, as es_event_types has it. */
typedef struct EventType
{
	char	   *type;
	char	   *category;		/* of whose events it is; NULL: of all */
	text	   *key_type;		/* what ids of composite keys begin with */
	List	   *attributes;		/* of EventAttribute */
	ArrayType  *composite_key;	/* NULL: there is none */
	int			schema_version;
	Datum		version_metadata;	/* that says it */
	List	   *personal;		/* of PersonalPart */
} EventType;

/* A row of es_upcasters. */
typedef struct Upcaster
{
	char	   *type;
	char	   *category;		/* NULL: of the type that all others share */
	int			from_version;
	char	   *signature;
	Role		owner;
	char	   *search_path;	/* as it is kept */
	const Settings *settings;	/* with which it runs */
} Upcaster;

extern bool event_type_strict;	/* eventstore.strict_types */

/* Defines the setting. */
extern void event_type_init(void);

/* Returns the kind that a word stands for, and of a scalar its type. */
extern AttributeKind event_type_kind(const char *word, Oid *type);

/* Returns a number that changes with every change of a definition. */
extern uint64 event_type_generation(Oid log);

/*
 * Returns true if new events must be compared with definitions: there is one, or an
 * upcaster, or all types must be defined.
 */
extern bool event_type_is_checked(Oid log);

/* Returns the definition of the stream's category, else of all; NULL: there is none. */
extern const EventType *event_type_find(Oid log, text *stream, text *type);

/* Returns all definitions, by type and category, that of all categories first. */
extern const EventType *event_type_all(Oid log, int *count);

/* Returns true if attributes of any type are personal, or ever were, also in another store. */
extern bool event_type_has_personal(Oid log);

/* Refuses a type of events whose personal attributes are known, but not its definition. */
extern void event_type_check_personal(Oid log, text *type);

/* Makes all sessions find out again whether that is so. */
extern void event_type_note_personal(Oid log);

/* Returns true if the attribute of the type is personal. */
extern bool event_type_is_personal(const EventType *type, const char *attribute);

/* Return true if the type is defined for any category; if it has upcasters for all. */
extern bool event_type_is_defined(Oid log, text *type);
extern bool event_type_has_upcaster(Oid log, text *type);

/* Refuses a list of types that no event can be of. */
extern void event_type_check_filter(Oid log, ArrayType *types);

/* Returns all upcasters, by type, category and from_version. */
extern const Upcaster *event_type_upcasters(Oid log, int *count);

/* schema_version.c */

/* What metadata says if it is no version. */
#define SCHEMA_VERSION_NONE		0
#define SCHEMA_VERSION_BAD		(-1)

/*
 * Returns the schema version that metadata says.  Metadata may be 0; without
 * one, or with a null, it is SCHEMA_VERSION_NONE.
 */
extern int	schema_version_read(Datum metadata);

/* Returns metadata that says a schema version, and nothing else. */
extern Datum schema_version_metadata(int version);

/* Returns metadata, which may be 0, with such metadata added. */
extern Datum schema_version_add(Datum metadata, Datum version_metadata);

/* event_identify.c */

/*
 * Gives new events the schema versions and ids that their types give them.
 * Errors: ES004 if an event has not all of its composite key.
 */
extern void event_identify(Oid log, NewEvent *events, int count);

/* event_check.c */

/*
 * Checks new events against the definitions of their types.  Errors: ES004 with
 * all violations.
 */
extern void event_check(Oid log, const NewEvent *events, int count);

/* Returns the value of an attribute of data, an object; NULL without one. */
static inline JsonbValue *
event_attribute_value(Jsonb *data, const char *name, JsonbValue *buffer)
{
	return getKeyJsonValueFromContainer(&data->root, name, strlen(name),
										buffer);
}

/* Returns the data of a new event as of its type's schema version. */
static inline Jsonb *
event_new_data(const NewEvent *event)
{
	return DatumGetJsonbP(event->upcast != (Datum) 0 ? event->upcast :
						  event->data);
}

#endif							/* EVENTSTORE_TYPE_H */
