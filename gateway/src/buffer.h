/*-------------------------------------------------------------------------
 *
 * buffer.h
 *		A text that grows.
 *
 * Out of memory is remembered and not reported at once: a chain of appends is
 * checked once, at its end, by "failed".  A failed buffer ignores what follows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_BUFFER_H
#define GATEWAY_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Buffer
{
	char	   *data;			/* ends with a NUL that is not counted; NULL if empty */
	size_t		length;
	size_t		capacity;
	bool		failed;
} Buffer;

/* Appends bytes, a C string, or printf's result. */
extern void buffer_append(Buffer *buffer, const void *data, size_t length);
extern void buffer_text(Buffer *buffer, const char *text);
extern void buffer_printf(Buffer *buffer, const char *format,...) __attribute__((format(printf, 2, 3)));

/* Appends a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
extern void buffer_json(Buffer *buffer, const char *text, size_t length);

/* Forgets the contents and keeps the memory; frees the memory. */
extern void buffer_reset(Buffer *buffer);
extern void buffer_free(Buffer *buffer);

/* Returns true if the bytes are UTF-8 without a NUL. */
extern bool utf8_is_valid(const char *text, size_t length);

#endif
