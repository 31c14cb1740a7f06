/*-------------------------------------------------------------------------
 *
 * int8_array.c
 *		Short lists of numbers that are stored in columns of type bigint[].
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "base/base.h"

/*
 * The numbers of an array, which has no nulls.
 */
Int8Array
int8_array_read(Datum array)
{
	Int8Array	numbers;
	Datum	   *values;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID,
					  sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values,
					  NULL, &numbers.count);
	numbers.room = numbers.count;
	numbers.values = palloc(sizeof(int64) * numbers.room);
	for (i = 0; i < numbers.count; i++)
		numbers.values[i] = DatumGetInt64(values[i]);
	return numbers;
}

/* The same as an array. */
ArrayType *
int8_array_make(Int8Array numbers)
{
	Datum	   *values = palloc(sizeof(Datum) * numbers.count);
	int			i;

	for (i = 0; i < numbers.count; i++)
		values[i] = Int64GetDatum(numbers.values[i]);
	return construct_array(values, numbers.count, INT8OID, sizeof(int64),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/* The last one; 0 if there is none. */
int64
int8_array_last(Int8Array numbers)
{
	return numbers.count == 0 ? 0 : numbers.values[numbers.count - 1];
}

/* Adds one at the end. */
void
int8_array_append(Int8Array *numbers, int64 value)
{
	if (numbers->count == numbers->room)
	{
		int64	   *values = numbers->values;

		numbers->room = Max(numbers->room * 2, 8);
		numbers->values = palloc(sizeof(int64) * numbers->room);
		if (numbers->count > 0)
			memcpy(numbers->values, values, sizeof(int64) * numbers->count);
	}
	numbers->values[numbers->count++] = value;
}

/* Removes those that are not greater. */
void
int8_array_remove_upto(Int8Array *numbers, int64 upto)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < numbers->count; i++)
	{
		if (numbers->values[i] > upto)
			numbers->values[kept++] = numbers->values[i];
	}
	numbers->count = kept;
}

/* Returns true if it is one of them. */
bool
int8_array_has(const Int8Array *numbers, int64 value)
{
	int			i;

	for (i = 0; i < numbers->count; i++)
	{
		if (numbers->values[i] == value)
			return true;
	}
	return false;
}

/* Removes the first ones. */
void
int8_array_remove_first(Int8Array *numbers, int count)
{
	numbers->values += count;
	numbers->count -= count;
	numbers->room -= count;
}
