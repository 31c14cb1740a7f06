/*-------------------------------------------------------------------------
 *
 * archive.h
 *		The archive, to which events of the log are moved.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_ARCHIVE_H
#define EVENTSTORE_ARCHIVE_H

#include "read/read.h"

/* archive_reader.c */

/*
 * Adds to a batch, whose events were read from the log after the position, those of the
 * archive.  They are in position order then, and not more than so many.
 */
extern void archive_merge_batch(const EventSource *source, Snapshot snapshot, int64 after,
								int limit, EventBatch *batch);

#endif							/* EVENTSTORE_ARCHIVE_H */
