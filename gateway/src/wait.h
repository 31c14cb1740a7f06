/*-------------------------------------------------------------------------
 *
 * wait.h
 *		Long polls, and statements in the background.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_WAIT_H
#define GATEWAY_WAIT_H

#include "request.h"

/* Takes over a suspended request of a route with the word "wait", or "background". */
extern void wait_start(Request *request);
extern void background_start(Request *request);

/* At a drain: long polls are answered at once. */
extern void wait_drain(void);

#endif
