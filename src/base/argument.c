/*-------------------------------------------------------------------------
 *
 * argument.c
 *		Refusing arguments of SQL functions that are wrong by themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/base.h"

/*
 * Refuses a null for an argument, numbered from 0.
 */
void
argument_not_null(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errdetail("Argument %d of %s() is null.", argument + 1,
						   get_func_name(fcinfo->flinfo->fn_oid))));
}

/*
 * Refuses a number below the least or above the greatest one.
 */
void
argument_range(const char *name, int64 value, int64 least, int64 greatest)
{
	if (value < least || value > greatest)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", name),
				 errdetail("It is " INT64_FORMAT "; the allowed range is " INT64_FORMAT " to " INT64_FORMAT ".",
						   value, least, greatest)));
}

/*
 * Returns a bigint argument, numbered from 0, that is not null and fits an integer.  SQL
 * functions take bigint where they need an integer, because drivers send whole numbers as
 * bigint, which is not cast to integer by itself.
 */
int32
argument_int32(FunctionCallInfo fcinfo, int argument, const char *name,
			   int32 least, int32 greatest)
{
	int64		value = PG_GETARG_INT64(argument);

	argument_range(name, value, least, greatest);
	return (int32) value;
}

/*
 * Returns a boolean argument; null is false.
 */
bool
argument_is_true(FunctionCallInfo fcinfo, int argument)
{
	return !PG_ARGISNULL(argument) && PG_GETARG_BOOL(argument);
}

/*
 * Refuses a list together with all.
 */
void
argument_list_or_all(FunctionCallInfo fcinfo, int list, const char *list_name, int all,
					 const char *all_name)
{
	if (!PG_ARGISNULL(list) && argument_is_true(fcinfo, all))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s and %s exclude each other", list_name, all_name),
				 errdetail("%s is given, and %s is true.", list_name, all_name)));
}

/*
 * Refuses a value that is neither of two words.
 */
void
argument_word(const char *name, const char *value, const char *one,
			  const char *other)
{
	if (strcmp(value, one) != 0 && strcmp(value, other) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown %s \"%s\"", name, value),
				 errdetail("It must be '%s' or '%s'.", one, other)));
}

/*
 * Refuses a negative interval, and zero if that is not possible.
 */
void
argument_interval(const char *name, const Interval *interval,
				  bool zero_is_possible)
{
	Interval	zero = {0};
	int			sign = DatumGetInt32(DirectFunctionCall2(interval_cmp,
														 IntervalPGetDatum(interval),
														 IntervalPGetDatum(&zero)));

	if (sign < 0 || (sign == 0 && !zero_is_possible))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must %s", name, zero_is_possible ?
						"not be negative" : "be positive"),
				 errdetail("It is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out,
															   IntervalPGetDatum(interval))))));
}

/*
 * Refuses a name that is empty, or has more bytes than the limit.  of: what has the
 * name.
 */
void
argument_name(const char *of, const char *name, int limit)
{
	if (name[0] == '\0' || strlen(name) > (size_t) limit)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s's name must have 1 to %d bytes", of, limit),
				 errdetail("The name has %zu bytes.", strlen(name))));
}

/*
 * Takes an array of texts apart, and returns their number.  Refuses more dimensions
 * than one, and nulls.
 */
int
argument_texts(const char *name, ArrayType *array, Datum **values)
{
	bool	   *nulls;
	int			count;
	int			i;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name),
				 errdetail("The array has %d dimensions.", ARR_NDIM(array))));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, values, &nulls,
					  &count);
	for (i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not have null elements", name),
					 errdetail("Element %d is null.", i + 1)));
	}
	return count;
}

/*
 * Makes an array of text of a JSON array of strings.  Returns NULL if an element is no
 * string, and its number.
 */
ArrayType *
argument_json_texts(JsonbContainer *array, int *wrong)
{
	int			count = JsonContainerSize(array);
	Datum	   *texts = palloc(sizeof(Datum) * Max(count, 1));
	int			i;

	for (i = 0; i < count; i++)
	{
		JsonbValue *string = getIthJsonbValueFromContainer(array, i);

		if (string->type != jbvString)
		{
			*wrong = i + 1;
			return NULL;
		}
		texts[i] = PointerGetDatum(cstring_to_text_with_len(string->val.string.val,
															string->val.string.len));
	}
	return construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Refuses the isolation levels of one snapshot, at which the caller would not see
 * what others have committed since.
 */
void
isolation_check(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s must be called at isolation level READ COMMITTED",
						function),
				 errdetail("The transaction has one snapshot, which does not show what is committed later.")));
}
