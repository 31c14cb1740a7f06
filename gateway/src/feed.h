/*-------------------------------------------------------------------------
 *
 * feed.h
 *		Feeds: what followers of one role, one filter and one form have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_FEED_H
#define GATEWAY_FEED_H

#include <sys/queue.h>

#include "chunk.h"
#include "pool.h"
#include "request.h"

typedef struct Feed Feed;

/* Part of whoever is in a feed. */
typedef struct FeedMember
{
	LIST_ENTRY(FeedMember) link;

	/* There are more events. */
	void		(*moved) (struct FeedMember *member);

	/* The feed has failed, and is gone; the chunk, which the member must hold if it keeps it, says why. */
	void		(*failed) (struct FeedMember *member, Chunk *why);
} FeedMember;

/*
 * The feed that a request's role and parameters belong to, if it has one that still knows what comes after the
 * position.
 */
extern Feed *feed_find(const Request *request, ChunkForm form, int64_t position);

/* The same; if there is no feed, one that begins there.  Returns NULL if the feed is ahead, or memory is out. */
extern Feed *feed_open(const Request *request, ChunkForm form, int64_t position);

/* Neither callback of the member may join or leave.  The last one that leaves ends the feed. */
extern void feed_join(Feed *feed, FeedMember *member);
extern void feed_leave(Feed *feed, FeedMember *member);

/*
 * Finds the chunk, and the place in its text, where the events after the position begin; the chunk is held for
 * the caller. Returns NULL if the feed does not know them any more.
 */
extern Chunk *feed_chunk_after(const Feed *feed, int64_t position, size_t *offset);

/* The text of an error of SQL as a last frame, or NULL. */
extern Chunk *feed_error_chunk(const PGresult *result, int64_t position);

#endif
