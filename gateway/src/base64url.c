/*-------------------------------------------------------------------------
 *
 * base64url.c
 *		Base64 for URLs, without padding (RFC 4648, 5; RFC 7515, 2).
 *
 * The decoder is strict: bits that no encoder sets must not be set, and nothing
 * is skipped.  So there is one text of each signature, and a token that was
 * verified once has no twins.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>

#include "base64url.h"

static int
base64url_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool
base64url_decode(const char *text, size_t length, unsigned char *bytes, size_t *bytes_length)
{
	uint32_t	pending = 0;
	int			bits = 0;
	size_t		count = 0;

	if (length % 4 == 1)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		int			digit = base64url_digit(text[i]);

		if (digit < 0)
			return false;
		pending = (pending << 6 | (uint32_t) digit) & 0xFFFF;
		bits += 6;
		if (bits >= 8)
		{
			bits -= 8;
			bytes[count++] = (unsigned char) (pending >> bits);
		}
	}
	bytes[count] = 0;
	*bytes_length = count;
	return (pending & ((1U << bits) - 1)) == 0;
}
