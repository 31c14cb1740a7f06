/*-------------------------------------------------------------------------
 *
 * buffer.c
 *		A text that grows, JSON strings, and UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

/* Makes place for so many bytes and a NUL. */
static bool
buffer_reserve(Buffer *buffer, size_t more)
{
	size_t		needed = buffer->length + more + 1;
	size_t		capacity = buffer->capacity ? buffer->capacity : 256;
	char	   *data;

	if (buffer->failed || needed < more)
		return false;
	if (needed <= buffer->capacity)
		return true;
	while (capacity < needed)
		capacity *= 2;
	data = realloc(buffer->data, capacity);
	if (data == NULL)
	{
		buffer->failed = true;
		return false;
	}
	buffer->data = data;
	buffer->capacity = capacity;
	return true;
}

void
buffer_append(Buffer *buffer, const void *data, size_t length)
{
	if (!buffer_reserve(buffer, length))
		return;
	if (length > 0)
		memcpy(buffer->data + buffer->length, data, length);
	buffer->length += length;
	buffer->data[buffer->length] = '\0';
}

void
buffer_text(Buffer *buffer, const char *text)
{
	buffer_append(buffer, text, strlen(text));
}

void
buffer_printf(Buffer *buffer, const char *format,...)
{
	va_list		args;
	int			length;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0 || !buffer_reserve(buffer, (size_t) length))
		return;
	va_start(args, format);
	vsnprintf(buffer->data + buffer->length, (size_t) length + 1, format, args);
	va_end(args);
	buffer->length += (size_t) length;
}

/*
 * The length of the character at the text's start, or 0 if it is none: a byte
 * out of place, a form that is too long, a surrogate, or beyond U+10FFFF.
 */
static size_t
utf8_char_length(const unsigned char *text, size_t length)
{
	static const unsigned char first[] = {0xC2, 0xE0, 0xF0, 0xF5};
	unsigned char low = 0x80;
	unsigned char high = 0xBF;
	size_t		needed = 2;

	if (text[0] < 0x80)
		return 1;
	if (text[0] < first[0] || text[0] >= first[3])
		return 0;
	if (text[0] >= first[1])
		needed = text[0] >= first[2] ? 4 : 3;
	if (length < needed)
		return 0;
	if (text[0] == 0xE0)
		low = 0xA0;
	else if (text[0] == 0xED)
		high = 0x9F;
	else if (text[0] == 0xF0)
		low = 0x90;
	else if (text[0] == 0xF4)
		high = 0x8F;
	if (text[1] < low || text[1] > high)
		return 0;
	for (size_t i = 2; i < needed; i++)
		if (text[i] < 0x80 || text[i] > 0xBF)
			return 0;
	return needed;
}

bool
utf8_is_valid(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *) text;

	while (length > 0)
	{
		size_t		step = *at == 0 ? 0 : utf8_char_length(at, length);

		if (step == 0)
			return false;
		at += step;
		length -= step;
	}
	return true;
}

static void
buffer_json_char(Buffer *buffer, unsigned char c)
{
	static const char letters[] = "btn\0fr";	/* of 8, 9, 10, 12, 13 */

	if (c == '"' || c == '\\')
		buffer_printf(buffer, "\\%c", c);
	else if (c >= 8 && c <= 13 && c != 11)
		buffer_printf(buffer, "\\%c", letters[c - 8]);
	else
		buffer_printf(buffer, "\\u%04x", c);
}

void
buffer_json(Buffer *buffer, const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *) text;

	buffer_append(buffer, "\"", 1);
	while (length > 0)
	{
		size_t		step = utf8_char_length(at, length);

		if (step == 0)
		{
			buffer_text(buffer, "\xEF\xBF\xBD");
			step = 1;
		}
		else if (step == 1 && (*at < 0x20 || *at == '"' || *at == '\\' || *at == 0x7F))
			buffer_json_char(buffer, *at);
		else
			buffer_append(buffer, at, step);
		at += step;
		length -= step;
	}
	buffer_append(buffer, "\"", 1);
}

void
buffer_reset(Buffer *buffer)
{
	buffer->length = 0;
	buffer->failed = false;
	if (buffer->data != NULL)
		buffer->data[0] = '\0';
}

void
buffer_free(Buffer *buffer)
{
	free(buffer->data);
	*buffer = (Buffer) {0};
}
