/*-------------------------------------------------------------------------
 *
 * merge.c
 *		Folds many events by es_merge or es_last at once.  The result is that of
 *		calling the function for each event, without the states in between.
 *
 * Events with the same keys replace each other, so that only the last one of
 * each set of keys is needed.  The state is those few, merged in the order in
 * which they came.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "aggregate/aggregate.h"

/* More sets of keys are merged into one. */
#define MAX_LASTS	32

/* The last object with a set of keys. */
typedef struct LastObject
{
	Jsonb	   *object;
	Size		room;			/* allocated bytes */
	int64		number;			/* among all that were added, from 1 */
} LastObject;

struct Merge
{
	MemoryContext context;
	bool		only_last;		/* es_last: each replaces the one before */
	NullableDatum initial;		/* becomes null when it has been added */
	LastObject	lasts[MAX_LASTS];
	int			count;
	int			recent;			/* where the last one was found */
	LastObject	added;			/* the one that is being added */
	int64		number;			/* of the last one added */
};

/*
 * Refuses what has no attributes to merge.
 */
void
merge_check_object(Datum value)
{
	Jsonb	   *object = DatumGetJsonbP(value);

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("es_merge() needs objects"),
				 errdetail("The state or the event's data is %s.",
						   JB_ROOT_IS_SCALAR(object) ? "a scalar" : "an array"),
				 errhint("Use a reducer of your own, or es_last.")));
}

/*
 * Begins with a state, which is added with the first event.
 */
Merge *
merge_begin(NullableDatum state, bool only_last)
{
	Merge	   *merge = palloc0(sizeof(Merge));

	merge->context = CurrentMemoryContext;
	merge->only_last = only_last;
	merge->initial = state;
	return merge;
}

/* Makes room for this number of bytes. */
static void
make_room(Merge *merge, LastObject *last, Size size)
{
	if (size <= last->room)
		return;
	if (last->object != NULL)
		pfree(last->object);
	last->room = Max(size, last->room * 2);
	last->object = MemoryContextAllocHuge(merge->context, last->room);
}

/* Copies a jsonb value into merge->added, where it is aligned. */
static void
copy_to_added(Merge *merge, Datum value)
{
	struct varlena *given = (struct varlena *) DatumGetPointer(value);
	struct varlena *plain = VARATT_IS_EXTERNAL(given) || VARATT_IS_COMPRESSED(given) ?
	detoast_attr(given) : given;
	Size		size = VARSIZE_ANY_EXHDR(plain) + VARHDRSZ;

	make_room(merge, &merge->added, size);
	memcpy(VARDATA(merge->added.object), VARDATA_ANY(plain), size - VARHDRSZ);
	SET_VARSIZE(merge->added.object, size);
	if (plain != given)
		pfree(plain);
}

/*
 * Returns true if two objects have the same keys.  In an object the sorted
 * entries of the keys come first, and their bytes before those of the values.
 */
static bool
same_keys(const Jsonb *a, const Jsonb *b)
{
	uint32		count = JsonContainerSize(&a->root);
	uint32		bytes;

	if (a->root.header != b->root.header ||
		memcmp(a->root.children, b->root.children, count * sizeof(JEntry)) != 0)
		return false;
	bytes = count == 0 ? 0 : getJsonbOffset(&a->root, count);
	return memcmp(&a->root.children[2 * count], &b->root.children[2 * count],
				  bytes) == 0;
}

/* The place of the object that is being added; -1: its keys are new. */
static int
find_last_object(const Merge *merge)
{
	int			i;

	if (merge->count == 0)
		return -1;
	if (merge->only_last ||
		same_keys(merge->lasts[merge->recent].object, merge->added.object))
		return merge->recent;
	for (i = 0; i < merge->count; i++)
	{
		if (same_keys(merge->lasts[i].object, merge->added.object))
			return i;
	}
	return -1;
}

/* For qsort: in the order in which they were added. */
static int
compare_numbers(const void *a, const void *b)
{
	int64		first = ((const LastObject *) a)->number;
	int64		second = ((const LastObject *) b)->number;

	return first < second ? -1 : first > second;
}

/* Merges the objects from one on, in their order. */
static Datum
concat_from(const Merge *merge, int from)
{
	Datum		result = JsonbPGetDatum(merge->lasts[from].object);
	int			i;

	for (i = from + 1; i < merge->count; i++)
		result = DirectFunctionCall2(jsonb_concat, result,
									 JsonbPGetDatum(merge->lasts[i].object));
	return result;
}

/*
 * Merges what was added.  The first object may be a large state, so that it is
 * merged once, with all the others together.
 */
Datum
merge_state(Merge *merge, bool *isnull)
{
	MemoryContext context;
	MemoryContext oldcontext;
	Datum		state;

	*isnull = merge->initial.isnull && merge->count == 0;
	if (merge->count == 0)
		return merge->initial.value;
	merge->recent = 0;
	qsort(merge->lasts, merge->count, sizeof(LastObject), compare_numbers);
	context = AllocSetContextCreate(CurrentMemoryContext, "eventstore merge",
									ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	state = JsonbPGetDatum(merge->lasts[0].object);
	if (merge->count > 1)
		state = DirectFunctionCall2(jsonb_concat, state,
									concat_from(merge, 1));
	MemoryContextSwitchTo(oldcontext);
	state = datumCopy(state, false, -1);
	MemoryContextDelete(context);
	return state;
}

/* Merges all into the first, to make a place for another one. */
static void
merge_all(Merge *merge)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(merge->context);
	bool		isnull;
	Jsonb	   *state = DatumGetJsonbP(merge_state(merge, &isnull));

	MemoryContextSwitchTo(oldcontext);
	pfree(merge->lasts[0].object);
	merge->lasts[0].object = state;
	merge->lasts[0].room = VARSIZE(state);
	merge->lasts[0].number = merge->number;
	for (merge->count--; merge->count > 0; merge->count--)
	{
		pfree(merge->lasts[merge->count].object);
		memset(&merge->lasts[merge->count], 0, sizeof(LastObject));
	}
	merge->count = 1;
}

/* Adds an object. */
static void
add_object(Merge *merge, Datum object)
{
	LastObject	replaced;
	int			place;

	copy_to_added(merge, object);
	if (!merge->only_last)
		merge_check_object(JsonbPGetDatum(merge->added.object));
	place = find_last_object(merge);
	if (place < 0)
	{
		if (merge->count == MAX_LASTS)
			merge_all(merge);
		place = merge->count++;
	}
	merge->recent = place;
	merge->added.number = ++merge->number;
	replaced = merge->lasts[place];
	merge->lasts[place] = merge->added;
	merge->added = replaced;
}

/*
 * Adds the data of the next event, and before the first one the state.
 */
void
merge_add(Merge *merge, Datum data)
{
	if (!merge->initial.isnull)
		add_object(merge, merge->initial.value);
	merge->initial.isnull = true;
	add_object(merge, data);
}
