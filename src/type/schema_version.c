/*-------------------------------------------------------------------------
 *
 * schema_version.c
 *		The schema version of an event, which its metadata says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "type/type.h"

/* A number as a version; SCHEMA_VERSION_BAD if it is no positive integer. */
static int
version_of_number(Numeric number)
{
	Datum		value = NumericGetDatum(number);
	Datum		whole = DirectFunctionCall2(numeric_trunc, value,
											Int32GetDatum(0));
	bool		error = false;
	int			version;

	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, value, whole)))
		return SCHEMA_VERSION_BAD;
	version = numeric_int4_opt_error(number, &error);
	return error || version <= 0 ? SCHEMA_VERSION_BAD : version;
}

/*
 * The same of a text.  Programs that keep metadata as texts, as headers of messages
 * are, mean the number by its digits.
 */
static int
version_of_digits(const char *digits, int length)
{
	int64		version = 0;
	int			i;

	if (length > 10 || length == 0 || digits[0] == '0')
		return SCHEMA_VERSION_BAD;
	for (i = 0; i < length; i++)
	{
		if (digits[i] < '0' || digits[i] > '9')
			return SCHEMA_VERSION_BAD;
		version = version * 10 + (digits[i] - '0');
	}
	return version > PG_INT32_MAX ? SCHEMA_VERSION_BAD : (int) version;
}

int
schema_version_read(Datum metadata)
{
	Jsonb	   *object;
	JsonbValue	buffer;
	JsonbValue *value;

	if (metadata == (Datum) 0)
		return SCHEMA_VERSION_NONE;
	object = DatumGetJsonbP(metadata);
	if (!JB_ROOT_IS_OBJECT(object))
		return SCHEMA_VERSION_BAD;
	value = event_attribute_value(object, "schema_version", &buffer);
	if (value == NULL || value->type == jbvNull)
		return SCHEMA_VERSION_NONE;
	if (value->type == jbvString)
		return version_of_digits(value->val.string.val, value->val.string.len);
	return value->type == jbvNumeric ? version_of_number(value->val.numeric) :
		SCHEMA_VERSION_BAD;
}

Datum
schema_version_metadata(int version)
{
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(psprintf("{\"schema_version\": %d}",
														version)));
}

Datum
schema_version_add(Datum metadata, Datum version_metadata)
{
	return metadata == (Datum) 0 ?
		datumCopy(version_metadata, false, -1) :
		DirectFunctionCall2(jsonb_concat, metadata, version_metadata);
}
