/*-------------------------------------------------------------------------
 *
 * base64url.h
 *		Base64 for URLs, without padding (RFC 4648, 5; RFC 7515, 2).
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_BASE64URL_H
#define GATEWAY_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that a text of this length stands for, at most. */
#define BASE64URL_BYTES(length) ((length) / 4 * 3 + 3)

/*
 * Decodes a text into bytes, and adds a zero byte.  bytes has room for
 * BASE64URL_BYTES.  Returns true if the text is one that an encoder makes.
 */
extern bool base64url_decode(const char *text, size_t length, unsigned char *bytes, size_t *bytes_length);

#endif							/* GATEWAY_BASE64URL_H */
