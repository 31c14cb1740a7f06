/*-------------------------------------------------------------------------
 *
 * response.c
 *		From a statement's row to a response; ETag, compression.
 *
 * A body that is not compressed is sent from the PGresult itself, which lives
 * until the response is destroyed.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "cors.h"
#include "gzip.h"
#include "problem.h"
#include "response.h"
#include "server.h"

/* Smaller bodies gain nothing; larger ones would keep the loop. */
#define GZIP_MIN	1024
#define GZIP_MAX	(8 * 1024 * 1024)

/* Returns true if a coding of the list "gzip;q=0.5, br" is "name" and its q is not 0. */
static bool
coding_is_allowed(const char *list, const char *name)
{
	while (*list)
	{
		size_t		length = strcspn(list, ",");
		const char *start = list + strspn(list, " \t");
		size_t		token = strcspn(start, " \t;,");

		if (token == strlen(name) && strncasecmp(start, name, token) == 0)
		{
			const char *q = start + token + strspn(start + token, " \t;");

			return strncasecmp(q, "q=", 2) != 0 || strtod(q + 2, NULL) > 0;
		}
		list += length + (list[length] == ',');
	}
	return false;
}

bool
response_may_gzip(const Request *request)
{
	const char *accept = request_header(request, "Accept-Encoding");

	return accept != NULL && coding_is_allowed(accept, "gzip");
}

/* A compressed response, or NULL. */
static struct MHD_Response *
response_gzip(Request *request, const char *text, size_t length)
{
	size_t		compressed;
	char	   *out;
	struct MHD_Response *response;

	if (length < GZIP_MIN || length > GZIP_MAX || !response_may_gzip(request))
		return NULL;
	out = gzip_make(text, length, Z_BEST_SPEED, &compressed);
	if (out == NULL)
		return NULL;
	response = MHD_create_response_from_buffer(compressed, out, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
		free(out);
	else
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	request->bytes = compressed;
	return response;
}

static struct MHD_Response *
response_with_type(struct MHD_Response *response, const char *type, size_t length)
{
	if (response == NULL)
		return NULL;
	if (length > 0)
		MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Vary", "Accept-Encoding");
	return response;
}

struct MHD_Response *
response_text(Request *request, const char *type, const char *text, size_t length)
{
	struct MHD_Response *response = response_gzip(request, text, length);

	if (response == NULL)
	{
		request->bytes = length;
		response = MHD_create_response_from_buffer(length, (void *) text, MHD_RESPMEM_MUST_COPY);
	}
	return response_with_type(response, type, length);
}

/*
 * Rows
 */

static void
free_result(void *result)
{
	PQclear(result);
}

/* A response of a column of the first row; the result belongs to it, or is cleared. */
static struct MHD_Response *
response_of_column(Request *request, PGresult *result, int column)
{
	const char *text = column < 0 ? "" : PQgetvalue(result, 0, column);
	size_t		length = column < 0 ? 0 : (size_t) PQgetlength(result, 0, column);
	struct MHD_Response *response = response_gzip(request, text, length);

	if (response == NULL)
	{
		request->bytes = length;
		response = MHD_create_response_from_buffer_with_free_callback_cls(length, (void *) text, free_result, result);
		if (response == NULL)
			PQclear(result);
	}
	else
		PQclear(result);
	return response_with_type(response, JSON_TYPE, length);
}

/* Returns true if a list of If-None-Match has the tag, in the weak comparison. */
static bool
tag_is_in_list(const char *tag, const char *list)
{
	size_t		length;

	if (strcmp(list, "*") == 0)
		return true;
	if (strncmp(tag, "W/", 2) == 0)
		tag += 2;
	length = strlen(tag);
	while (*list)
	{
		list += strspn(list, " \t,");
		if (strncmp(list, "W/", 2) == 0)
			list += 2;
		if (strncmp(list, tag, length) == 0 && strchr(" \t,", list[length]) != NULL)
			return true;
		if (*list == '"')
			list += 1 + strcspn(list + 1, "\"");
		list += strcspn(list, ",");
	}
	return false;
}

bool
response_is_known(const Request *request, const char *tag)
{
	const char *list = request_header(request, "If-None-Match");

	return list != NULL && tag_is_in_list(tag, list);
}

/* Returns true if the column is part of a link, "next:NAME" or "prev:NAME". */
static bool
is_link_column(const char *name)
{
	return strncmp(name, "next:", 5) == 0 || strncmp(name, "prev:", 5) == 0;
}

/* Returns true if a column of this row sets the parameter of the link. */
static bool
link_sets(const PGresult *result, const char *relation, const char *param, size_t length)
{
	for (int column = 0; column < PQnfields(result); column++)
	{
		const char *name = PQfname(result, column);

		if (strncmp(name, relation, 5) == 0 && strlen(name + 5) == length && memcmp(name + 5, param, length) == 0 &&
			!PQgetisnull(result, 0, column))
			return true;
	}
	return false;
}

/* Appends "?..." of the request without the parameters that the link sets. */
static void
append_link_query(Buffer *link, const PGresult *result, const char *relation, const char *query)
{
	char		separator = '?';

	while (query != NULL && *query)
	{
		size_t		length = strcspn(query, "&");

		if (length > 0 && !link_sets(result, relation, query, strcspn(query, "=&")))
		{
			buffer_append(link, &separator, 1);
			/* the delimiters of the header do not stand in a query unencoded */
			for (size_t i = 0; i < length; i++)
				if (query[i] == '>' || query[i] == '<' || query[i] == '"')
					buffer_printf(link, "%%%02X", (unsigned char) query[i]);
				else
					buffer_append(link, &query[i], 1);
			separator = '&';
		}
		query += length + (query[length] == '&');
	}
	for (int column = 0; column < PQnfields(result); column++)
	{
		const Value value = {PQgetvalue(result, 0, column), (size_t) PQgetlength(result, 0, column)};

		if (strncmp(PQfname(result, column), relation, 5) != 0 || PQgetisnull(result, 0, column))
			continue;
		buffer_printf(link, "%c%s=", separator, PQfname(result, column) + 5);
		request_append_encoded(link, &value);
		separator = '&';
	}
}

/* Appends <target>; rel="next" if a column of the row asks for it. */
static void
append_link(Buffer *links, const Request *request, const PGresult *result, const char *relation)
{
	const char *query = strchr(request->target, '?');
	bool		wanted = false;

	for (int column = 0; column < PQnfields(result) && !wanted; column++)
		wanted = strncmp(PQfname(result, column), relation, 5) == 0 && !PQgetisnull(result, 0, column);
	if (!wanted)
		return;
	buffer_text(links, links->length ? ", <" : "<");
	append_link_query(links, result, relation, query ? query + 1 : NULL);
	buffer_printf(links, ">; rel=\"%.4s\"", relation);
}

/*
 * The body and the status are columns of their own; every other is a header.  They are copied before the result
 * may go.
 */
static void
collect_headers(const Request *request, const PGresult *result, Buffer *headers)
{
	Buffer		links = {0};

	for (int column = 0; column < PQnfields(result); column++)
	{
		const char *name = PQfname(result, column);

		if (strcmp(name, "status") == 0 || strcmp(name, "body") == 0 || is_link_column(name) ||
			PQgetisnull(result, 0, column))
			continue;
		buffer_append(headers, name, strlen(name) + 1);
		buffer_append(headers, PQgetvalue(result, 0, column), (size_t) PQgetlength(result, 0, column) + 1);
	}
	append_link(&links, request, result, "next:");
	append_link(&links, request, result, "prev:");
	if (links.length > 0 && !links.failed)
	{
		buffer_append(headers, "Link", sizeof("Link"));
		buffer_append(headers, links.data, links.length + 1);
	}
	buffer_free(&links);
}

/* A header that libmicrohttpd refuses (a line break, an empty value) is left out. */
static void
add_headers(struct MHD_Response *response, const Buffer *headers)
{
	const char *at = headers->data;

	while (at != NULL && at < headers->data + headers->length)
	{
		const char *value = at + strlen(at) + 1;

		if (strcasecmp(at, "Content-Type") == 0)
			MHD_del_response_header(response, "Content-Type", MHD_get_response_header(response, "Content-Type"));
		MHD_add_response_header(response, at, value);
		at = value + strlen(value) + 1;
	}
}

static unsigned
status_of_row(const PGresult *result)
{
	int			column = PQfnumber(result, "status");
	long		status = 200;

	if (column >= 0 && !PQgetisnull(result, 0, column))
		status = strtol(PQgetvalue(result, 0, column), NULL, 10);
	return status >= 200 && status <= 599 ? (unsigned) status : 500;
}

/* Returns true if no cache may have the response, which may have what is erased a moment later. */
static bool
is_not_to_be_stored(const PGresult *result)
{
	int			column = PQfnumber(result, "\"Cache-Control\"");

	return column >= 0 && strstr(PQgetvalue(result, 0, column), "no-store") != NULL;
}

static bool
is_not_modified(const Request *request, const PGresult *result, unsigned status)
{
	int			column = PQfnumber(result, "\"ETag\"");

	return status == 200 && strcmp(request->method, "GET") == 0 && column >= 0 &&
		!PQgetisnull(result, 0, column) && !is_not_to_be_stored(result) &&
		response_is_known(request, PQgetvalue(result, 0, column));
}

void
response_row(Request *request, PGresult *result)
{
	struct MHD_Response *response;
	Buffer		headers = {0};
	unsigned	status;
	int			body;

	if (PQntuples(result) == 0)
	{
		PQclear(result);
		problem_answer(request, &(Problem) {.status = 404});
		return;
	}
	status = status_of_row(result);
	body = PQfnumber(result, "body");
	if (body >= 0 && PQgetisnull(result, 0, body))
		body = -1;
	collect_headers(request, result, &headers);
	if (is_not_modified(request, result, status))
	{
		status = 304;
		body = -1;
	}
	response = response_of_column(request, result, body);
	if (response != NULL)
		add_headers(response, &headers);
	buffer_free(&headers);
	server_answer(request, status, response);
}

void
response_common(const Request *request, struct MHD_Response *response)
{
	MHD_add_response_header(response, "X-Request-Id", request->id);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	cors_headers(request, response);
}
