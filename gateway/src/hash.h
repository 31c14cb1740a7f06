/*-------------------------------------------------------------------------
 *
 * hash.h
 *		FNV-1a, for tables of what the gateway keeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_HASH_H
#define GATEWAY_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START	2166136261u

/* Adds bytes to a hash that began with HASH_START. */
static inline uint32_t
hash_bytes(uint32_t hash, const void *data, size_t length)
{
	for (const unsigned char *byte = data; length > 0; byte++, length--)
		hash = (hash ^ *byte) * 16777619u;
	return hash;
}

#endif							/* GATEWAY_HASH_H */
