/*-------------------------------------------------------------------------
 *
 * categories.c
 *		The type es_categories: one category or several, as an argument.
 *
 * Inside it is an array of text.  Its input takes the text of such an array, which
 * begins with a brace, or the name of one category; texts are cast through it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "base/base.h"
#include "log/log.h"

PG_FUNCTION_INFO_V1(es_categories_in);
PG_FUNCTION_INFO_V1(es_categories_out);
PG_FUNCTION_INFO_V1(es_categories_recv);
PG_FUNCTION_INFO_V1(es_categories_send);
PG_FUNCTION_INFO_V1(es_categories_from_texts);
PG_FUNCTION_INFO_V1(es_categories_from_bpchar);

/* A scan for events of several categories has an index scan for each. */
#define MAX_CATEGORIES	64

/* So many elements are looked at one by one, which is faster than a search. */
#define MAX_SCANNED		8

/* Returns the categories of a text. */
static Datum
categories_of_text(char *string)
{
	Datum		name;

	if (string[0] == '{')
		return OidInputFunctionCall(F_ARRAY_IN, string, TEXTOID, -1);
	name = CStringGetTextDatum(string);
	return PointerGetDatum(construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
es_categories_in(PG_FUNCTION_ARGS)
{
	return categories_of_text(PG_GETARG_CSTRING(0));
}

/* Casts from character, whose padding is no part of a name. */
Datum
es_categories_from_bpchar(PG_FUNCTION_ARGS)
{
	return categories_of_text(TextDatumGetCString(DirectFunctionCall1(rtrim1,
																	  PG_GETARG_DATUM(0))));
}

Datum
es_categories_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(0)));
}

Datum
es_categories_recv(PG_FUNCTION_ARGS)
{
	return OidReceiveFunctionCall(F_ARRAY_RECV, (StringInfo) PG_GETARG_POINTER(0),
								  TEXTOID, -1);
}

Datum
es_categories_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(OidSendFunctionCall(F_ARRAY_SEND, PG_GETARG_DATUM(0)));
}

/*
 * Casts from text[] and to it, which are the same inside.  The server has no cast of an
 * array without a function.
 */
Datum
es_categories_from_texts(PG_FUNCTION_ARGS)
{
	return PG_GETARG_DATUM(0);
}

/* Refuses a category that one before it is, too. */
static void
check_category_is_new(const Datum *values, int number)
{
	int			i;

	for (i = 0; i < number; i++)
	{
		if (stream_equal(DatumGetTextPP(values[i]), DatumGetTextPP(values[number])))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("category \"%s\" is given twice",
							TextDatumGetCString(values[number])),
					 errdetail("Elements %d and %d are the same.", i + 1,
							   number + 1)));
	}
}

void
categories_check(ArrayType *categories)
{
	Datum	   *values;
	int			count = argument_texts("category", categories, &values);
	int			i;

	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("category must not be empty"),
				 errdetail("The array has no elements."),
				 errhint("Leave category out to get events of all categories.")));
	if (count > MAX_CATEGORIES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many categories"),
				 errdetail("%d are given; the limit is %d.", count, MAX_CATEGORIES),
				 errhint("Leave category out to get events of all categories.")));
	for (i = 0; i < count; i++)
	{
		event_check_category(DatumGetTextPP(values[i]));
		check_category_is_new(values, i);
	}
}

TextSet
text_set_make(ArrayType *array)
{
	TextSet		set = {.array = array};

	if (array != NULL)
		deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &set.values, NULL,
						  &set.count);
	return set;
}

int
text_set_compare(const void *a, const void *b)
{
	text	   *one = (text *) DatumGetPointer(*(const Datum *) a);
	text	   *other = (text *) DatumGetPointer(*(const Datum *) b);
	int			length = VARSIZE_ANY_EXHDR(one);
	int			other_length = VARSIZE_ANY_EXHDR(other);
	int			result = memcmp(VARDATA_ANY(one), VARDATA_ANY(other),
								Min(length, other_length));

	return result != 0 ? result : length - other_length;
}

void
text_set_sort(TextSet *set)
{
	int			kept = 0;
	int			i;

	qsort(set->values, set->count, sizeof(Datum), text_set_compare);
	for (i = 0; i < set->count; i++)
	{
		if (i == 0 || text_set_compare(&set->values[i], &set->values[kept - 1]) != 0)
			set->values[kept++] = set->values[i];
	}
	set->count = kept;
	set->sorted = true;
}

bool
text_set_has_category(const TextSet *categories, text *stream)
{
	int			length;
	int			i;

	if (categories->array == NULL)
		return true;
	length = stream_category_length(stream);
	for (i = 0; i < categories->count; i++)
	{
		text	   *category = DatumGetTextPP(categories->values[i]);

		if (length == (int) VARSIZE_ANY_EXHDR(category) &&
			memcmp(VARDATA_ANY(category), VARDATA_ANY(stream), length) == 0)
			return true;
	}
	return false;
}

bool
text_set_has_type(const TextSet *types, text *type)
{
	Datum		wanted = PointerGetDatum(type);
	int			i;

	if (types->array == NULL)
		return true;
	if (types->sorted && types->count > MAX_SCANNED)
		return bsearch(&wanted, types->values, types->count, sizeof(Datum),
					   text_set_compare) != NULL;
	for (i = 0; i < types->count; i++)
	{
		if (stream_equal(DatumGetTextPP(types->values[i]), type))
			return true;
	}
	return false;
}
