/*-------------------------------------------------------------------------
 *
 * tags.c
 *		The tags of an event: names of what it is about, besides its stream.
 *
 * They are stored sorted by their bytes, each once, so that two events with the same tags
 * have equal arrays, and that the tag after another one is found by one comparison.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "eventstore.h"
#include "base/base.h"
#include "log/log.h"
#include "log/tags.h"

/* Refuses a tag that is empty or long. */
static void
check_tag(text *tag, int number)
{
	int			length = VARSIZE_ANY_EXHDR(tag);

	if (length == 0 || length > ES_MAX_TAG_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 length == 0 ? errmsg("a tag must not be empty") :
				 errmsg("a tag is too long"),
				 errdetail("Tag %d has %d bytes, the limit is %d.", number, length,
						   ES_MAX_TAG_LENGTH),
				 errhint("A tag names what an event is about, such as 'course:c1'.")));
}

/*
 * Takes the array apart.  Returns how many elements it has.
 */
int
tags_values(Datum tags, Datum **values)
{
	return argument_texts("tags", DatumGetArrayTypeP(tags), values);
}

/* Returns tags as an array, sorted and distinct; 0 if there are none. */
static Datum
make_tags(Datum *values, int count, int limit)
{
	TextSet		set = {.values = values,.count = count};

	text_set_sort(&set);
	if (set.count > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many tags"),
				 errdetail("There are %d, the limit is %d.", set.count, ES_MAX_TAGS),
				 errhint("Tag an event with what decisions are about, and put the rest into data.")));
	return set.count == 0 ? (Datum) 0 :
		PointerGetDatum(construct_array(values, set.count, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * Refuses what are no tags.  Returns them sorted and distinct; 0 if there are none.
 */
Datum
tags_check(Datum tags)
{
	Datum	   *values;
	int			count = tags_values(tags, &values);
	int			i;

	for (i = 0; i < count; i++)
		check_tag(DatumGetTextPP(values[i]), i + 1);
	return make_tags(values, count, ES_MAX_TAGS);
}

/*
 * Returns true if tags are sorted and distinct.  Those of a notice, which has the tags of
 * all events that it stands for, may be any number.
 */
bool
tags_are_stored_form(Datum tags)
{
	Datum	   *values;
	int			count = tags_values(tags, &values);
	int			i;

	for (i = 0; i < count; i++)
		check_tag(DatumGetTextPP(values[i]), i + 1);
	return tags_equal(make_tags(values, count, PG_INT32_MAX), tags);
}

/* Takes a checked array apart; 0: none. */
static int
checked_values(Datum tags, Datum **values)
{
	*values = NULL;
	return tags == (Datum) 0 ? 0 : tags_values(tags, values);
}

/*
 * Adds tags to a checked array.
 */
Datum
tags_add(Datum tags, const Datum *added, int count)
{
	Datum	   *values;
	int			own = checked_values(tags, &values);
	Datum	   *all = palloc(sizeof(Datum) * (own + count));

	if (own > 0)
		memcpy(all, values, sizeof(Datum) * own);
	memcpy(all + own, added, sizeof(Datum) * count);
	return make_tags(all, own + count, ES_MAX_TAGS);
}

/*
 * Finds those tags of a checked array that another one has not.
 */
int
tags_missing(Datum tags, Datum others, Datum **missing)
{
	Datum	   *other_values;
	int			count = checked_values(tags, missing);
	int			other_count = checked_values(others, &other_values);
	int			found = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		if (other_count == 0 || bsearch(&(*missing)[i], other_values, other_count, sizeof(Datum),
										text_set_compare) == NULL)
			(*missing)[found++] = (*missing)[i];
	}
	return found;
}

/*
 * Returns true if both have the same tags, sorted and distinct; 0: none.
 */
bool
tags_equal(Datum one, Datum other)
{
	ArrayType  *a;
	ArrayType  *b;

	if (one == (Datum) 0 || other == (Datum) 0)
		return one == other;
	a = DatumGetArrayTypeP(one);
	b = DatumGetArrayTypeP(other);
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

/*
 * Counts the tags of a checked array.
 */
int
tags_count(Datum tags)
{
	ArrayType  *array = DatumGetArrayTypeP(tags);

	return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
}

/*
 * Adds the locks of a checked array's tags, by an event that has them.  Returns how many.
 */
int
tags_add_locks(Datum tags, LogLock *locks)
{
	Datum	   *values;
	int			count = tags_values(tags, &values);
	int			i;

	for (i = 0; i < count; i++)
		locks[i] = log_lock_of_tag(DatumGetTextPP(values[i]), ExclusiveLock);
	return count;
}

void
tags_lock_missing(Oid log, Datum tags, Datum locked)
{
	Datum	   *missing;
	int			count = tags_missing(tags, locked, &missing);
	LogLock    *locks = palloc(sizeof(LogLock) * Max(count, 1));
	int			i;

	for (i = 0; i < count; i++)
		locks[i] = log_lock_of_tag(DatumGetTextPP(missing[i]), ExclusiveLock);
	if (count > 0)
		log_lock_all(log, locks, count);
	pfree(locks);
}
