/*-------------------------------------------------------------------------
 *
 * static.h
 *		The console's files, which are read at the start.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_STATIC_H
#define GATEWAY_STATIC_H

#include "request.h"

/* Reads the files of console_dir.  A folder that is not there is no fault. */
extern bool static_load(void);
extern void static_free(void);

/* The response for a path without a route (GET and HEAD), with its status, or NULL if no file has it. */
extern struct MHD_Response *static_response(Request *request, const char *path, unsigned *status);

#endif							/* GATEWAY_STATIC_H */
