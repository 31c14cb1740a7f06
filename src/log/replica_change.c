/*-------------------------------------------------------------------------
 *
 * replica_change.c
 *		What goes along when logical replication changes or removes an event.
 *
 * On the publisher a rewrite, a removal or a compaction has also changed the entries of
 * tags, and deleted snapshots that were folded from the event.  Neither table travels, as
 * each store makes its own.  So the trigger of es_events does both for each row that an
 * apply worker updates or deletes:
 *
 *	1. lock out who saves a state of the stream (snapshot_lock.c);
 *	2. delete the entries of the old row's tags, and store those of the new one;
 *	3. delete the snapshots of the stream and of the tags.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/rel.h"

#include "log/log.h"
#include "log/replica.h"
#include "log/snapshot_lock.h"
#include "log/tags.h"

void
replica_apply_change(Relation log, HeapTuple old_row, HeapTuple new_row)
{
	text	   *stream = DatumGetTextPP(stored_event_column(log, old_row, Anum_es_events_stream));

	snapshot_lock_to_change(stream);
	SPI_connect();
	tag_entry_replace(log, old_row, new_row);
	snapshot_lock_forget(RelationGetRelid(log), stream,
						 stored_event_column(log, old_row, Anum_es_events_tags));
	SPI_finish();
}
