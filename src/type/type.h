/*-------------------------------------------------------------------------
 *
 * type.h
 *		Types of events: definitions, checks, composite keys, upcasters.
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
#include "log/log.h"

/* composite_key.c */
extern Datum *composite_key_names(ArrayType *keys, int *count);
extern pg_uuid_t *composite_key_id(text *type, Jsonb *data, ArrayType *keys);

/* type_function.c */

typedef struct TypeFunctions TypeFunctions;

/* The function for one type. */
typedef struct TypeFunction
{
	char		type[ES_MAX_TYPE_LENGTH + 1];
	Oid			function;		/* 0: there is none */
	FmgrInfo	info;
	void	   *extra;			/* of the one who calls it */
} TypeFunction;

extern TypeFunctions *type_functions_make(const char *schema, const char *prefix,
										  const FunctionSignature *form);
extern TypeFunction *type_functions_find(TypeFunctions *by_type, text *type);

/* event_type.c */

/* What kind of value an attribute must have. */
typedef enum AttributeKind
{
	ATTRIBUTE_ANY,
	ATTRIBUTE_STRING,
	ATTRIBUTE_NUMBER,
	ATTRIBUTE_INTEGER,
	ATTRIBUTE_BOOLEAN,
	ATTRIBUTE_OBJECT,
	ATTRIBUTE_ARRAY,
	ATTRIBUTE_SCALAR,			/* what a type of the server accepts */
	ATTRIBUTE_UNKNOWN			/* the table was written to without us */
} AttributeKind;

/* An attribute that a type of events says something about. */
typedef struct EventAttribute
{
	char	   *name;
	bool		required;
	bool		key;			/* is it part of the composite key? */
	AttributeKind kind;
	char	   *word;			/* that stands for the kind; NULL: none */
	FmgrInfo	input;			/* of a scalar */
	Oid			io_param;
} EventAttribute;

/* A type of events, as es_event_types has it. */
typedef struct EventType
{
	char	   *type;
	List	   *attributes;		/* of EventAttribute */
	ArrayType  *composite_key;	/* NULL: there is none */
	int			schema_version;
	Datum		stamp;			/* metadata that says it; 0: it is 1 */
} EventType;

/* A row of es_upcasters. */
typedef struct Upcaster
{
	char	   *type;
	int			from_version;
	char	   *signature;
	char	   *owner;
	char	   *search_path;
} Upcaster;

/* What metadata says about the schema version, if it is no version. */
#define SCHEMA_VERSION_NONE		0
#define SCHEMA_VERSION_BAD		(-1)

extern bool event_type_strict;

extern void event_type_init(void);
extern AttributeKind event_type_kind(const char *word, Oid *type);
extern int	event_type_version(Datum metadata);
extern uint64 event_type_generation(Oid log);
extern bool event_type_any(Oid log);
extern const EventType *event_type_find(Oid log, text *type);
extern const Upcaster *event_type_upcasters(Oid log, int *count);

/* upcast.c */

typedef struct Upcasting Upcasting;

extern List *upcast_functions(Oid log);
extern Oid	upcast_find_function(const char *name);
extern Upcasting *upcast_begin(Oid log);
extern Upcasting *upcast_make(Oid log, MemoryContext parent);
extern bool upcast_is_due(const Upcasting *upcasting, text *type,
						  Datum metadata);
extern Datum upcast_data(Upcasting *upcasting, int64 position, text *type,
						 Datum data, Datum metadata, int version);
extern Datum upcast_metadata(Upcasting *upcasting, text *type,
							 Datum metadata);
extern void upcast_end(Upcasting *upcasting);

/* event_check.c */
extern void event_identify(Oid log, NewEvent *events, int count);
extern void event_check(Oid log, const NewEvent *events, int count);

#endif							/* EVENTSTORE_TYPE_H */
