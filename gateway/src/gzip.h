/*-------------------------------------------------------------------------
 *
 * gzip.h
 *		Compressing bodies.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_GZIP_H
#define GATEWAY_GZIP_H

#include <stddef.h>

/* Compresses at a level of zlib into memory of malloc; NULL if it cannot, or if the result is not smaller. */
extern void *gzip_make(const void *data, size_t length, int level, size_t *compressed);

#endif							/* GATEWAY_GZIP_H */
