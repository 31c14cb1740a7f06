/*-------------------------------------------------------------------------
 *
 * notice.c
 *		Notices: events of the store's own that say what a removal did
 *		(doc/internals/retention.md).
 *
 * A notice stands for the events that were removed.  Its data has their types, so that it
 * passes the filters that one of them would have passed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "log/log.h"
#include "log/removed.h"

static const char *const notice_types[] = {
	[NOTICE_DELETED] = ES_STREAM_DELETED,
	[NOTICE_COMPACTED] = ES_COMPACTED,
	[NOTICE_ARCHIVED] = ES_STREAM_ARCHIVED
};

/*
 * Says which kind of notice events of the type are.  All their types begin alike.
 */
NoticeKind
notice_kind(text *type)
{
	const char *name = VARDATA_ANY(type);
	int			length = VARSIZE_ANY_EXHDR(type);
	int			i;

	if (length < 3 || memcmp(name, "es_", 3) != 0)
		return NOTICE_NONE;
	for (i = NOTICE_DELETED; i <= NOTICE_ARCHIVED; i++)
	{
		if (length == (int) strlen(notice_types[i]) &&
			memcmp(name, notice_types[i], length) == 0)
			return (NoticeKind) i;
	}
	return NOTICE_NONE;
}

/*
 * Finds a value in the data of a notice.
 */
JsonbValue *
notice_value(Datum data, const char *key)
{
	Jsonb	   *object = DatumGetJsonbP(data);

	return JB_ROOT_IS_OBJECT(object) ?
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL) : NULL;
}

/*
 * Says how many events a notice stands for.
 */
int64
notice_removed(Datum data)
{
	JsonbValue *value = notice_value(data, "removed");

	return value == NULL || value->type != jbvNumeric ? 0 :
		DatumGetInt64(DirectFunctionCall1(numeric_int8,
										  NumericGetDatum(value->val.numeric)));
}

/*
 * Returns true if the notice stands for an event of one of the types.  One that does not
 * say stands for any.
 */
bool
notice_has_type(Datum data, const TextSet *types)
{
	JsonbValue *own = notice_value(data, "types");
	int			i;

	if (types->array == NULL || own == NULL || own->type != jbvBinary ||
		!JsonContainerIsArray(own->val.binary.data))
		return true;
	for (i = 0; i < types->count; i++)
	{
		text	   *type = DatumGetTextPP(types->values[i]);
		JsonbValue	value = {
			.type = jbvString,
			.val.string = {.val = VARDATA_ANY(type),.len = VARSIZE_ANY_EXHDR(type)}
		};

		if (findJsonbValueFromContainer(own->val.binary.data, JB_FARRAY, &value) != NULL)
			return true;
	}
	return false;
}

/*
 * Returns true if the event is of one of the types, or stands for one.  Only a notice's
 * data are looked at.
 */
bool
notice_or_event_has_type(TupleTableSlot *event, const TextSet *types)
{
	bool		isnull;
	text	   *type;

	if (types->array == NULL)
		return true;
	type = DatumGetTextPP(slot_getattr(event, Anum_es_events_type, &isnull));
	if (text_set_has_type(types, type))
		return true;
	return notice_kind(type) != NOTICE_NONE &&
		notice_has_type(slot_getattr(event, Anum_es_events_data, &isnull), types);
}

/*
 * Returns true if the data are those of a tombstone.
 */
bool
notice_is_tombstone(Datum data)
{
	JsonbValue *value = notice_value(data, "tombstone");

	return value != NULL && value->type == jbvBool && value->val.boolean;
}
