/*-------------------------------------------------------------------------
 *
 * composite_key.c
 *		Ids that are computed from what they name.
 *
 * es_digest_string(data, keys) joins the attributes of the composite key, in
 * the order of keys: name=value, with ':' between two of them.  A value is
 * the attribute's text (as ->> gives it); ':', '=' and '\' in names and
 * values are written with a '\' before them, so that two different keys never
 * give one string.
 *
 * es_digest(type, data, keys) is the UUID of version 5 (RFC 9562) in the OID
 * namespace 6ba7b812-9dad-11d1-80b4-00c04fd430c8 of the type, escaped in the
 * same way, ':' and that string: SHA-1 over the namespace's 16 bytes and the
 * UTF-8 bytes of the name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "type/type.h"

PG_FUNCTION_INFO_V1(es_digest_string);
PG_FUNCTION_INFO_V1(es_digest);

/* Appends text with a '\' before each ':', '=' and '\'. */
static void
append_escaped(StringInfo string, const char *bytes, int length)
{
	int			i;

	for (i = 0; i < length; i++)
	{
		if (bytes[i] == ':' || bytes[i] == '=' || bytes[i] == '\\')
			appendStringInfoChar(string, '\\');
		appendStringInfoChar(string, bytes[i]);
	}
}

/*
 * Appends the value of the attribute "key", which must be there and a scalar.
 */
static void
append_key_value(StringInfo string, JsonbValue *value, const char *key)
{
	char	   *number;

	if (value == NULL || value->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("attribute \"%s\" of the composite key is missing",
						key),
				 errdetail("The data has %s \"%s\".",
						   value ? "a null for" : "no attribute", key),
				 errhint("Every attribute of a composite key needs a value.")));
	switch (value->type)
	{
		case jbvString:
			append_escaped(string, value->val.string.val,
						   value->val.string.len);
			break;
		case jbvBool:
			appendStringInfoString(string,
								   value->val.boolean ? "true" : "false");
			break;
		case jbvNumeric:
			number = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(value->val.numeric)));
			appendStringInfoString(string, number);
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("attribute \"%s\" of the composite key is not a scalar",
							key),
					 errdetail("The value of \"%s\" is an object or an array.",
							   key),
					 errhint("Name attributes that are strings, numbers or booleans.")));
	}
}

Datum *
composite_key_names(ArrayType *keys, int *count)
{
	Datum	   *names;
	bool	   *nulls;
	int			i,
				j;

	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
					  count);
	if (*count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a composite key needs an attribute"),
				 errdetail("The array of keys has 0 elements."),
				 errhint("Name the attributes that tell one event from another.")));
	for (i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a composite key must not contain null"),
					 errdetail("Element %d of the keys is null.", i + 1)));
		for (j = 0; j < i; j++)
		{
			if (DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
													 names[i], names[j])))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("a composite key names an attribute twice"),
						 errdetail("Elements %d and %d of the keys are both \"%s\".",
								   j + 1, i + 1,
								   TextDatumGetCString(names[i]))));
		}
	}
	return names;
}

/* Appends name=value:name=value for the keys. */
static void
append_composite_key(StringInfo string, Jsonb *data, ArrayType *keys)
{
	Datum	   *names;
	int			count;
	int			i;

	if (!JB_ROOT_IS_OBJECT(data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the data of a composite key must be an object"),
				 errdetail("The data is %s.",
						   JB_ROOT_IS_SCALAR(data) ? "a scalar" : "an array")));
	names = composite_key_names(keys, &count);
	for (i = 0; i < count; i++)
	{
		char	   *name = VARDATA_ANY(DatumGetPointer(names[i]));
		int			length = VARSIZE_ANY_EXHDR(DatumGetPointer(names[i]));
		JsonbValue	buffer;

		if (i > 0)
			appendStringInfoChar(string, ':');
		append_escaped(string, name, length);
		appendStringInfoChar(string, '=');
		append_key_value(string,
						 getKeyJsonValueFromContainer(&data->root, name, length,
													  &buffer),
						 TextDatumGetCString(names[i]));
	}
}

Datum
es_digest_string(PG_FUNCTION_ARGS)
{
	StringInfoData string;

	initStringInfo(&string);
	append_composite_key(&string, PG_GETARG_JSONB_P(0), PG_GETARG_ARRAYTYPE_P(1));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(string.data, string.len));
}

pg_uuid_t *
composite_key_id(text *type, Jsonb *data, ArrayType *keys)
{
	StringInfoData string;
	pg_uuid_t  *id;

	initStringInfo(&string);
	append_escaped(&string, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
	appendStringInfoChar(&string, ':');
	append_composite_key(&string, data, keys);
	id = uuid_generate_v5(&uuid_namespace_oid, string.data, string.len);
	pfree(string.data);
	return id;
}

Datum
es_digest(PG_FUNCTION_ARGS)
{
	PG_RETURN_UUID_P(composite_key_id(PG_GETARG_TEXT_PP(0), PG_GETARG_JSONB_P(1),
									  PG_GETARG_ARRAYTYPE_P(2)));
}
