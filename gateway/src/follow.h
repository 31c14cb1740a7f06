/*-------------------------------------------------------------------------
 *
 * follow.h
 *		Event streams and NDJSON.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_FOLLOW_H
#define GATEWAY_FOLLOW_H

#include "request.h"

/* Takes over a suspended request of a route with the word "follow". */
extern void follow_start(Request *request);

/* At a drain: ends every event stream. */
extern void follow_drain(void);

#endif
