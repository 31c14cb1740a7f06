/*-------------------------------------------------------------------------
 *
 * request.c
 *		From a head to a route and its parameters.
 *
 * A target is split at its slashes, its question mark and its ampersands first,
 * and decoded afterwards, so that %2F is part of a name.  All is done in one copy
 * of the target, which the values point into; a decoded text is never longer.
 * Values are UTF-8 without a NUL, since PostgreSQL has no other text.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "request.h"
#include "text.h"

#define DETAIL_SIZE		256
#define ALLOW_SIZE		64
#define MAX_SEGMENTS	16

/* Decodes %XX in place; returns false if the result holds a NUL or is not UTF-8. */
static bool
percent_decode(char *text, bool plus_is_space, size_t *length)
{
	char	   *to = text;

	for (const char *from = text; *from;)
	{
		if (*from == '%')
		{
			int			high = text_hex_digit(from[1]);
			int			low = high < 0 ? -1 : text_hex_digit(from[2]);

			if (low < 0)
				return false;
			*to++ = (char) (high * 16 + low);
			from += 3;
		}
		else
		{
			*to++ = plus_is_space && *from == '+' ? ' ' : *from;
			from++;
		}
	}
	*to = '\0';
	*length = (size_t) (to - text);
	return utf8_is_valid(text, *length);
}

/* The path of the absolute form "http://host/path", or the text itself. */
static char *
target_path(char *target)
{
	char	   *slash;

	if (strncasecmp(target, "http://", 7) != 0 && strncasecmp(target, "https://", 8) != 0)
		return target;
	slash = strchr(strstr(target, "//") + 2, '/');
	return slash ? slash : target;
}

/* Splits the path into decoded segments; returns their number, or -1. */
static int
split_path(char *path, Value *segments)
{
	int			count = 0;
	char	   *next;

	if (*path != '/')
		return -1;
	for (char *at = path + 1; at != NULL; at = next)
	{
		next = strchr(at, '/');
		if (next != NULL)
			*next++ = '\0';
		if (count >= MAX_SEGMENTS || !percent_decode(at, false, &segments[count].length))
			return -1;
		segments[count++].data = at;
	}
	return count;
}

/* Returns true if the segments have the form of the route's path. */
static bool
route_matches(const Route *route, const Value *segments, int count)
{
	const char *at = route->path;

	for (int i = 0; i < count; i++)
	{
		size_t		length;

		if (*at++ != '/')
			return false;
		length = strcspn(at, "/");
		if (*at == '{')
		{
			if (segments[i].length == 0)
				return false;
		}
		else if (length != segments[i].length || memcmp(at, segments[i].data, length) != 0)
			return false;
		at += length;
	}
	return *at == '\0';
}

static void
allow_add(char *allow, const char *method)
{
	size_t		used = strlen(allow);

	if (strstr(allow, method) == NULL)
		snprintf(allow + used, ALLOW_SIZE - used, "%s%s%s", used ? ", " : "", method,
				 strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

/* An event stream is what Accept asks for, or the only form that there is. */
static const Route *
find_route(const Value *segments, int count, const char *method, bool wants_stream, char *allow)
{
	const Route *found = NULL;

	for (int i = 0; i < route_count; i++)
	{
		const Route *route = &routes[i];

		if (!route_matches(route, segments, count))
			continue;
		allow_add(allow, route->method);
		if (strcmp(route->method, method) != 0)
			continue;
		if (found == NULL ||
			(wants_stream && (route->flags & ROUTE_FOLLOW) && strcmp(found->path, route->path) == 0))
			found = route;
	}
	if (*allow)
		allow_add(allow, "OPTIONS");
	return found;
}

static void
fill_path(Request *request, const Value *segments, int count)
{
	const char *at = request->route->path;

	for (int i = 0; i < count; i++)
	{
		size_t		length = strcspn(++at, "/");

		for (int p = 0; at[0] == '{' && p < request->route->param_count; p++)
		{
			const RouteParam *param = &request->route->params[p];

			if (param->place == PARAM_PATH && strlen(param->key) == length - 2 &&
				memcmp(param->key, at + 1, length - 2) == 0)
				request->values[p] = segments[i];
		}
		at += length;
	}
}

/* Appends an element to the text of an array. */
static bool
array_add(char **array, const Value *element)
{
	size_t		used = *array ? strlen(*array) - 1 : 0;
	char	   *grown = realloc(*array, used + element->length * 2 + 5);
	char	   *to;

	if (grown == NULL)
		return false;
	*array = grown;
	to = grown + used;
	*to++ = used ? ',' : '{';
	*to++ = '"';
	for (const char *from = element->data; *from; from++)
	{
		if (*from == '"' || *from == '\\')
			*to++ = '\\';
		*to++ = *from;
	}
	memcpy(to, "\"}", 3);
	return true;
}

static RequestFault
fill_query_param(Request *request, const char *name, const Value *value, char *detail)
{
	for (int p = 0; p < request->route->param_count; p++)
	{
		const RouteParam *param = &request->route->params[p];

		if (param->place != PARAM_QUERY || strcmp(param->name, name) != 0)
			continue;
		if (param->is_array)
		{
			if (!array_add(&request->array_text[p], value))
				return REQUEST_NO_MEMORY;
			request->values[p] = (Value) {request->array_text[p], strlen(request->array_text[p])};
			return REQUEST_OK;
		}
		if (request->values[p].data != NULL)
		{
			snprintf(detail, DETAIL_SIZE, "The query parameter %.60s is given twice.", name);
			return REQUEST_BAD_PARAM;
		}
		request->values[p] = *value;
		return REQUEST_OK;
	}
	snprintf(detail, DETAIL_SIZE, "There is no query parameter %.60s here.", name);
	return REQUEST_UNKNOWN_PARAM;
}

static RequestFault
fill_query(Request *request, char *query, char *detail)
{
	char	   *next;

	for (char *at = query; at != NULL; at = next)
	{
		char	   *value;
		size_t		name_length;
		Value		decoded = {"", 0};
		RequestFault fault;

		next = strchr(at, '&');
		if (next != NULL)
			*next++ = '\0';
		if (*at == '\0')
			continue;
		value = strchr(at, '=');
		if (value != NULL)
		{
			*value++ = '\0';
			decoded.data = value;
		}
		if (!percent_decode(at, true, &name_length) ||
			(value != NULL && !percent_decode(value, true, &decoded.length)))
		{
			snprintf(detail, DETAIL_SIZE, "The query is not percent-encoded UTF-8, or holds a NUL.");
			return REQUEST_BAD_TARGET;
		}
		fault = fill_query_param(request, at, &decoded, detail);
		if (fault != REQUEST_OK)
			return fault;
	}
	return REQUEST_OK;
}

RequestFault
request_route(Request *request, const char *method, const char *accept, char *detail, char *allow)
{
	Value		segments[MAX_SEGMENTS];
	char	   *path;
	char	   *query;
	int			count;
	bool		wants_stream = accept != NULL &&
		(strcasestr(accept, "text/event-stream") != NULL || strcasestr(accept, "application/x-ndjson") != NULL);

	*detail = *allow = '\0';
	free(request->path);
	request->path = strdup(request->target);
	if (request->path == NULL)
		return REQUEST_NO_MEMORY;
	query = strchr(request->path, '?');
	if (query != NULL)
		*query++ = '\0';
	path = target_path(request->path);
	for (const char *c = request->target; *c; c++)
		if ((unsigned char) *c <= ' ' || *c == 0x7F)
			path = NULL;
	count = path ? split_path(path, segments) : -1;
	if (count < 0)
	{
		snprintf(detail, DETAIL_SIZE, "The path is not percent-encoded UTF-8, holds a NUL, or is too deep.");
		return REQUEST_BAD_TARGET;
	}
	request->route = find_route(segments, count, method, wants_stream && !request->is_head, allow);
	if (request->route == NULL)
		return *allow ? REQUEST_BAD_METHOD : REQUEST_NOT_FOUND;
	fill_path(request, segments, count);
	return fill_query(request, query, detail);
}

RequestFault
request_headers(Request *request, char *detail)
{
	static char batch[24];

	snprintf(batch, sizeof(batch), "%lld", (long long) config.follow_batch);
	for (int p = 0; p < request->route->param_count; p++)
	{
		const RouteParam *param = &request->route->params[p];
		const char *value = NULL;

		if (param->place == PARAM_BATCH)
			value = batch;
		else if (param->place == PARAM_HEADER)
			value = request_header(request, param->name);
		if (value == NULL)
			continue;
		request->values[p] = (Value) {value, strlen(value)};
		if (!utf8_is_valid(value, request->values[p].length))
		{
			snprintf(detail, DETAIL_SIZE, "The header %.60s is not UTF-8.", param->name);
			return REQUEST_BAD_PARAM;
		}
	}
	return REQUEST_OK;
}

RequestFault
request_body(Request *request, char *detail)
{
	for (int p = 0; p < request->route->param_count; p++)
	{
		const RouteParam *param = &request->route->params[p];

		if (param->place != PARAM_BODY || request->body.length == 0)
			continue;
		if (!param->is_binary && !utf8_is_valid(request->body.data, request->body.length))
		{
			snprintf(detail, DETAIL_SIZE, "The body is not UTF-8, or holds a NUL.");
			return REQUEST_BAD_PARAM;
		}
		request->values[p] = (Value) {request->body.data, request->body.length};
	}
	return REQUEST_OK;
}

int
route_param(const Route *route, const char *key)
{
	for (int p = 0; p < route->param_count; p++)
		if (strcmp(route->params[p].key, key) == 0)
			return p;
	return -1;
}

void
request_append_encoded(Buffer *buffer, const Value *value)
{
	for (size_t i = 0; i < value->length; i++)
	{
		unsigned char c = (unsigned char) value->data[i];

		if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c) != NULL)
			buffer_append(buffer, &value->data[i], 1);
		else
			buffer_printf(buffer, "%%%02X", c);
	}
}

void
request_expand(const Request *request, const char *template, Buffer *buffer)
{
	while (*template)
	{
		size_t		plain = strcspn(template, "{");
		size_t		length;
		char		key[64];
		int			param;

		buffer_append(buffer, template, plain);
		template += plain;
		if (*template == '\0')
			return;
		length = strcspn(++template, "}");
		snprintf(key, sizeof(key), "%.*s", (int) length, template);
		template += length + (template[length] == '}');
		param = route_param(request->route, key);
		if (param >= 0)
			request_append_encoded(buffer, &request->values[param]);
	}
}

void
request_free(Request *request)
{
	for (int p = 0; p < ROUTE_MAX_PARAMS; p++)
		free(request->array_text[p]);
	buffer_free(&request->body);
	free(request->path);
	free(request->target);
}
