/*-------------------------------------------------------------------------
 *
 * partition_map.c
 *		Which partition of a subscription each event of a range of the log belongs to.
 *
 * The next events of one partition among many lie far apart.  A walk over the log that
 * looks for them meets those of all other partitions.  So a session remembers what it
 * has met: the positions and the partitions of the events, in position order, after
 * one position and up to another.  The partitions that it reads next find theirs there,
 * and fetch them one by one.  So a session walks over each event once, however many
 * partitions there are.
 *
 * It also remembers where their rows were, which spares the index in most cases.  If the
 * row that is there now has another position, the event is looked up in the index.
 *
 * The protocol:
 *
 *	1. Only what lies up to the horizon of the reading snapshot is remembered.  No
 *	   event can appear there any more, for any snapshot, and none changes its stream,
 *	   its type or its tags, but by a compaction, and by events that come back from the
 *	   archive.  A range in which the reading snapshot sees one is read without the map.
 *	2. An event that was removed is not found when it is looked up, and left out.
 *	   What was rolled back since it was seen is not found either.
 *	3. The log, its file, the subscription's filter and the transaction that wrote the
 *	   subscription last are part of the map's key.  es_seek() writes the subscription,
 *	   too: what was restored below the horizon since is then found.
 *	4. Rights are checked before each read, whatever is remembered.
 *
 * A map that is full forgets the oldest quarter.  A partition that is behind walks over the
 * log up to where the map begins.  If that happens twice in a row, as after a seek, the
 * map begins anew there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/itemptr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "log/log.h"
#include "log/removed.h"
#include "read/read.h"
#include "read/source.h"

/* With fewer partitions a walk is as cheap as looking up each event. */
#define LEAST_PARTITIONS	8

/* Subscriptions of a session that have a map. */
#define MAX_MAPS		4

/* Events of a map: 4 MB. */
#define FIRST_EVENTS	1024
#define MAX_EVENTS		(256 * 1024)

/*
 * A reader that is further ahead of the map does not fill the gap, since without a map it
 * would walk over that much.
 */
#define GAP_OF_PARTITION	100

struct PartitionMap
{
	Oid			log;			/* 0: the map is not in use */
	Oid			file;			/* relfilenode */
	char		name[NAMEDATALEN];	/* of the subscription */
	TransactionId changed_by;
	int			partitions;
	ArrayType  *categories;
	ArrayType  *types;
	Jsonb	   *query;
	uint64		used;			/* when it was, among all */

	int64		from;			/* every event after this position */
	int64		to;				/* and up to this one is there */
	int			count;
	int			allocated;
	int64	   *positions;
	uint16	   *numbers;		/* of the partitions */
	ItemPointerData *places;	/* where the rows were */
	int64	   *last;			/* of each partition: the last position that
								 * was added */
	bool		was_behind;		/* the last reader was */
};

static PartitionMap maps[MAX_MAPS];
static uint64 uses;

/* Returns true if two parts of filters are the same; NULL: any. */
static bool
is_same_filter(const void *one, const void *other)
{
	if (one == NULL || other == NULL)
		return one == other;
	return VARSIZE(one) == VARSIZE(other) && memcmp(one, other, VARSIZE(one)) == 0;
}

/* Returns a copy of it that lives as long as the session. */
static void *
keep_filter(const void *filter)
{
	void	   *copy;

	if (filter == NULL)
		return NULL;
	copy = MemoryContextAlloc(TopMemoryContext, VARSIZE(filter));
	memcpy(copy, filter, VARSIZE(filter));
	return copy;
}

/* Takes a map out of use. */
static void
drop_map(PartitionMap *map)
{
	map->log = InvalidOid;
	if (map->categories != NULL)
		pfree(map->categories);
	if (map->types != NULL)
		pfree(map->types);
	if (map->query != NULL)
		pfree(map->query);
	if (map->positions != NULL)
		pfree(map->positions);
	if (map->numbers != NULL)
		pfree(map->numbers);
	if (map->places != NULL)
		pfree(map->places);
	if (map->last != NULL)
		pfree(map->last);
	memset(map, 0, sizeof(PartitionMap));
}

/* Begins a map of what comes after the position. */
static void
begin_map(PartitionMap *map, int64 position)
{
	map->from = map->to = position;
	map->count = 0;
	map->was_behind = false;
	memset(map->last, 0, sizeof(int64) * map->partitions);
}

/* Returns true if the map is of the source's subscription, as it is now. */
static bool
is_map_of(const PartitionMap *map, const EventSource *source, Oid file)
{
	return map->log == source->log && map->file == file &&
		map->changed_by == source->changed_by && map->partitions == source->partitions &&
		strcmp(map->name, source->subscription) == 0 &&
		is_same_filter(map->categories, source->categories) &&
		is_same_filter(map->types, source->types) &&
		is_same_filter(map->query, source->query ? source->query->json : NULL);
}

/* Makes a map in the place of the one that was not used for longest. */
static PartitionMap *
make_map(const EventSource *source, Oid file)
{
	PartitionMap *map = &maps[0];
	int			i;

	for (i = 1; i < MAX_MAPS; i++)
	{
		if (maps[i].used < map->used)
			map = &maps[i];
	}
	drop_map(map);
	map->categories = keep_filter(source->categories);
	map->types = keep_filter(source->types);
	map->query = keep_filter(source->query ? source->query->json : NULL);
	map->file = file;
	strlcpy(map->name, source->subscription, NAMEDATALEN);
	map->changed_by = source->changed_by;
	map->partitions = source->partitions;
	map->last = MemoryContextAlloc(TopMemoryContext, sizeof(int64) * map->partitions);
	begin_map(map, PG_INT64_MAX);
	map->log = source->log;
	return map;
}

PartitionMap *
partition_map_find(const EventSource *source, Relation log)
{
	Oid			file = log->rd_rel->relfilenode;
	PartitionMap *map = NULL;
	int			i;

	if (source->subscription == NULL || source->partitions < LEAST_PARTITIONS)
		return NULL;
	for (i = 0; i < MAX_MAPS && map == NULL; i++)
	{
		if (is_map_of(&maps[i], source, file))
			map = &maps[i];
	}
	if (map == NULL)
		map = make_map(source, file);
	map->used = ++uses;
	return map;
}

void
partition_map_forget(void)
{
	int			i;

	for (i = 0; i < MAX_MAPS; i++)
		drop_map(&maps[i]);
}

bool
partition_map_open(PartitionMap *map, int64 after, int64 upto)
{
	if (map->count == 0 && (after < map->from || after > map->to))
		begin_map(map, after);
	else if (after > map->to && after - map->to > GAP_OF_PARTITION * map->partitions)
		begin_map(map, after);
	else if (after < map->from)
	{
		if (upto <= map->from)
			return false;		/* of what is in flight */
		if (!map->was_behind)
		{
			map->was_behind = true;
			return false;
		}
		begin_map(map, after);
	}
	map->was_behind = false;
	return true;
}

int64
partition_map_end(const PartitionMap *map)
{
	return map->to;
}

bool
partition_map_has_none(const PartitionMap *map, int partition, int64 after, int64 upto)
{
	return after >= map->from && upto <= map->to && map->last[partition] <= after;
}

/*
 * Returns true if the snapshot may see events in what the map knows, after one position and
 * up to another, that were others when it was made.
 */
static bool
range_has_changed(const PartitionMap *map, Relation log, Snapshot snapshot, int64 after, int64 upto)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(after), Int64GetDatum(Min(upto, map->to))};
	bool		found;

	if (!removed_any(log))
		return false;
	PushActiveSnapshot(snapshot);
	SPI_connect();
	found = own_sql_select(map->log,
						   "SELECT FROM (SELECT) x WHERE EXISTS"
						   " (SELECT FROM @extschema@.es_removals WHERE action = 'compact'"
						   " AND position > $1 AND position <= $2)"
						   " OR EXISTS (SELECT FROM @extschema@.es_removals"
						   " WHERE action = 'unarchive' AND positions && int8range($1, $2, '(]'))",
						   2, types, values, NULL) > 0;
	SPI_finish();
	PopActiveSnapshot();
	return found;
}

bool
partition_map_is_true(const PartitionMap *map, Relation log, Snapshot snapshot, int64 after,
					  int64 upto)
{
	return after >= map->to || !range_has_changed(map, log, snapshot, after, upto);
}

/* Returns how many of the positions are not greater than one. */
static int
count_upto(const PartitionMap *map, int64 position)
{
	int			low = 0;
	int			high = map->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (map->positions[middle] <= position)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * Returns the place of the next event of a partition, from one on; the count if there is
 * none.  Four numbers are compared at once: in their difference to the one that is
 * wanted, a number is zero if what is borrowed by subtracting one gets to its highest bit.
 */
static int
find_number(const PartitionMap *map, int partition, int from)
{
	const uint64 ones = UINT64CONST(0x0001000100010001);
	const uint64 highest = ones << 15;
	const uint64 wanted = ones * (uint16) partition;
	int			i = from;

	for (; i + 4 <= map->count; i += 4)
	{
		uint64		four;

		memcpy(&four, &map->numbers[i], sizeof(four));
		four ^= wanted;
		if (((four - ones) & ~four & highest) != 0)
			break;
	}
	while (i < map->count && map->numbers[i] != partition)
		i++;
	return i;
}

int64
partition_map_next(const PartitionMap *map, int partition, int64 after, int *next,
				   ItemPointer place)
{
	int			i = find_number(map, partition,
								*next < 0 ? count_upto(map, after) : *next);

	*next = i + 1;
	if (i >= map->count)
		return PG_INT64_MAX;
	*place = map->places[i];
	return map->positions[i];
}

bool
partition_map_is_full(const PartitionMap *map)
{
	return map->count == MAX_EVENTS;
}

/* Forgets the oldest quarter of the events. */
static void
forget_oldest(PartitionMap *map)
{
	int			old = map->count / 4;

	map->from = map->positions[old - 1];
	map->count -= old;
	memmove(map->positions, map->positions + old, sizeof(int64) * map->count);
	memmove(map->numbers, map->numbers + old, sizeof(uint16) * map->count);
	memmove(map->places, map->places + old, sizeof(ItemPointerData) * map->count);
}

/* Makes an array larger, or makes it. */
static void *
enlarge_array(void *array, size_t size)
{
	return array == NULL ? MemoryContextAlloc(TopMemoryContext, size) : repalloc(array, size);
}

/* Makes room for one more event. */
static void
make_map_room(PartitionMap *map)
{
	int			room = map->allocated == 0 ? FIRST_EVENTS :
	Min(map->allocated * 2, MAX_EVENTS);

	if (map->count < map->allocated)
		return;
	if (partition_map_is_full(map))
	{
		forget_oldest(map);
		return;
	}
	map->positions = enlarge_array(map->positions, sizeof(int64) * room);
	map->numbers = enlarge_array(map->numbers, sizeof(uint16) * room);
	map->places = enlarge_array(map->places, sizeof(ItemPointerData) * room);
	map->allocated = room;
}

void
partition_map_add(PartitionMap *map, int64 position, int partition, ItemPointer place)
{
	make_map_room(map);
	map->last[partition] = position;
	map->positions[map->count] = position;
	map->numbers[map->count] = (uint16) partition;
	map->places[map->count] = *place;
	map->count++;
	map->to = position;
}

void
partition_map_extend(PartitionMap *map, int64 position)
{
	map->to = position;
}
