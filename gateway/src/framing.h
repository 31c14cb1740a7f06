/*-------------------------------------------------------------------------
 *
 * framing.h
 *		Heads that could be read in two ways.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_FRAMING_H
#define GATEWAY_FRAMING_H

#include "request.h"

/*
 * Returns NULL if everybody reads the same bounds of the request, or else what is
 * wrong, and its status; then the connection must be closed after the response.
 */
extern const char *framing_fault(const Request *request, const char *version, unsigned *status);

#endif							/* GATEWAY_FRAMING_H */
