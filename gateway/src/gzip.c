/*-------------------------------------------------------------------------
 *
 * gzip.c
 *		Compressing bodies.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <zlib.h>

#include "gzip.h"

#define GZIP_WINDOW	(15 + 16)	/* the largest, with the head of gzip */

void *
gzip_make(const void *data, size_t length, int level, size_t *compressed)
{
	z_stream	stream = {0};
	void	   *out;
	void	   *smaller;
	int			result;

	if (deflateInit2(&stream, level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return NULL;
	out = malloc(length + 1);
	stream.next_in = (Bytef *) data;
	stream.avail_in = (uInt) length;
	stream.next_out = out;
	stream.avail_out = out ? (uInt) length : 0;
	result = deflate(&stream, Z_FINISH);
	*compressed = stream.total_out;
	deflateEnd(&stream);
	if (result != Z_STREAM_END)
	{
		free(out);
		return NULL;
	}
	smaller = realloc(out, *compressed);
	return smaller ? smaller : out;
}
