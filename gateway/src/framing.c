/*-------------------------------------------------------------------------
 *
 * framing.c
 *		Heads that could be read in two ways.
 *
 * A proxy and the gateway must agree where a request ends.  If one of them takes
 * Content-Length and the other Transfer-Encoding, or the first of two lengths and
 * the other the second, then what is a body for the proxy is another request for
 * the gateway, which nobody has checked (RFC 9112, 6.3 and 11.2).  libmicrohttpd
 * takes one of them in silence, so that such heads are refused here.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "framing.h"

/* More digits would be no length of anything. */
#define MAX_DIGITS	18

typedef struct Framing
{
	int			hosts;
	int			lengths;
	int			encodings;
	bool		odd;
} Framing;

static bool
is_token(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char) text[i]) && (text[i] == '\0' || strchr("!#$%&'*+-.^_`|~", text[i]) == NULL))
			return false;
	return length > 0;
}

static bool
has_control_character(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (((unsigned char) text[i] < ' ' && text[i] != '\t') || text[i] == 0x7F)
			return true;
	return false;
}

static bool
is_length(const char *value)
{
	size_t		digits = strspn(value, "0123456789");

	return digits > 0 && digits <= MAX_DIGITS && value[digits] == '\0';
}

static enum MHD_Result
framing_seen(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_size,
			 const char *value, size_t value_size)
{
	Framing    *framing = arg;

	(void) kind;
	if (!is_token(name, name_size) || value == NULL || has_control_character(value, value_size))
		framing->odd = true;
	framing->hosts += strcasecmp(name, "Host") == 0;
	framing->lengths += strcasecmp(name, "Content-Length") == 0;
	framing->encodings += strcasecmp(name, "Transfer-Encoding") == 0;
	return MHD_YES;
}

const char *
framing_fault(const Request *request, const char *version, unsigned *status)
{
	Framing		framing = {0};
	const char *length = request_header(request, "Content-Length");
	const char *encoding = request_header(request, "Transfer-Encoding");
	bool		is_old = strcmp(version, "HTTP/1.0") == 0;

	MHD_get_connection_values_n(request->connection, MHD_HEADER_KIND, framing_seen, &framing);
	*status = 400;
	if (!is_old && strcmp(version, "HTTP/1.1") != 0)
	{
		*status = 505;
		return "The version must be HTTP/1.1.";
	}
	if (framing.odd)
		return "A header is malformed.";
	if (framing.hosts > 1 || (framing.hosts == 0 && !is_old))
		return "There must be one header Host.";
	if (framing.lengths + framing.encodings > 1)
		return "The head says in more than one way where its body ends.";
	if (length != NULL && !is_length(length))
		return "Content-Length is no number of bytes.";
	if (encoding != NULL && is_old)
		return "HTTP/1.0 has no Transfer-Encoding.";
	if (encoding != NULL && strcasecmp(encoding, "chunked") != 0)
	{
		*status = 501;
		return "The only Transfer-Encoding is chunked.";
	}
	return NULL;
}
