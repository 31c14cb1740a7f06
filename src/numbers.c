/*-------------------------------------------------------------------------
 *
 * numbers.c
 *		Short lists of numbers that are kept in columns of type bigint[].
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "eventstore.h"

/*
 * The numbers of an array, which has no nulls.
 */
Numbers
numbers_of(Datum array)
{
	Numbers		numbers;
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
numbers_array(Numbers numbers)
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
numbers_last(Numbers numbers)
{
	return numbers.count == 0 ? 0 : numbers.values[numbers.count - 1];
}

/* Adds one at the end. */
void
numbers_append(Numbers *numbers, int64 value)
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

/* Takes away those that are not greater. */
void
numbers_prune(Numbers *numbers, int64 upto)
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

/* Is it one of them? */
bool
numbers_have(const Numbers *numbers, int64 value)
{
	int			i;

	for (i = 0; i < numbers->count; i++)
	{
		if (numbers->values[i] == value)
			return true;
	}
	return false;
}

/* Takes the first ones away. */
void
numbers_skip(Numbers *numbers, int count)
{
	numbers->values += count;
	numbers->count -= count;
	numbers->room -= count;
}
