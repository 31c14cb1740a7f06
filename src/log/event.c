/*-------------------------------------------------------------------------
 *
 * event.c
 *		What is checked of an event by itself: its type's name, its metadata.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/base.h"
#include "eventstore.h"
#include "log/log.h"

/* A type's name must not be empty or long. */
void
event_check_type_name(text *type)
{
	int			length = VARSIZE_ANY_EXHDR(type);

	if (length == 0 || length > ES_MAX_TYPE_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 length == 0 ?
				 errmsg("an event's type must not be empty") :
				 errmsg("an event's type is too long"),
				 errdetail("The type has %d bytes, the limit is %d: a type is a name, not a text.",
						   length, ES_MAX_TYPE_LENGTH),
				 errhint("Name what happened, such as 'deposited', and put the rest into data.")));
}

/*
 * Refuses an array that is no list of events' types.
 */
void
event_check_type_names(ArrayType *types)
{
	Datum	   *values;
	int			count = argument_texts("types", types, &values);
	int			i;

	for (i = 0; i < count; i++)
		event_check_type_name(DatumGetTextPP(values[i]));
}

/* Metadata is an object, so that more can be added to it. */
void
event_check_metadata(Datum metadata)
{
	Jsonb	   *object = DatumGetJsonbP(metadata);

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be an object"),
				 errdetail("The metadata is %s.",
						   JB_ROOT_IS_SCALAR(object) ? "a scalar" : "an array"),
				 errhint("Give an object, such as '{\"correlation_id\": \"...\"}', or null.")));
}
