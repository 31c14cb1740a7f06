/*-------------------------------------------------------------------------
 *
 * fuzz_request.c
 *		Targets, headers and bodies, from bytes of libFuzzer, through request.c and
 *		the routes that the gateway has.
 *
 * The bytes are a request: its method, Accept, the value of every other header, its
 * target, and a body, each on a line.  What must hold: a value is UTF-8 without a
 * NUL, an array is one that PostgreSQL reads, and the path that is made of the
 * values is found again as the same route with the same values.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "request.h"

#define FIELDS 5

Config		config;

/* What request.c takes from server.c. */
static char *fuzz_header;

const char *
request_header(const Request *request, const char *name)
{
	(void) request;
	(void) name;
	return fuzz_header;
}

static void
must(bool condition, const char *what)
{
	if (!condition)
	{
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

/* An array's text is {"...","..."}, with quotes and backslashes escaped. */
static bool
array_is_sound(const Value *value)
{
	const char *at = value->data;
	const char *end = at + value->length;

	if (*at++ != '{')
		return false;
	do
	{
		if (*at++ != '"')
			return false;
		for (; *at != '"'; at++)
		{
			if (*at == '\\')
				at++;
			if (at >= end)
				return false;
		}
		at++;
	} while (*at++ == ',');
	return at[-1] == '}' && at == end;
}

static void
check_values(const Request *request)
{
	for (int p = 0; p < request->route->param_count; p++)
	{
		const Value *value = &request->values[p];
		const RouteParam *param = &request->route->params[p];

		if (value->data == NULL || param->is_binary)
			continue;
		must(strlen(value->data) == value->length && utf8_is_valid(value->data, value->length), "a value is UTF-8");
		if (param->is_array && param->place == PARAM_QUERY)
			must(array_is_sound(value), "an array is sound");
		if (param->place == PARAM_PATH)
			must(value->length > 0, "a part of a path is not empty");
	}
}

/* The path of the route with the values, and the route and values of that path. */
static void
check_round_trip(Request *request, const char *method, const char *accept)
{
	Buffer		path = {0};
	Request		again = {0};
	char		detail[256];
	char		allow[64];
	RequestFault fault;

	request_expand(request, request->route->path, &path);
	must(!path.failed && path.data != NULL, "there is a path");
	again.method = method;
	again.is_head = request->is_head;
	again.target = strdup(path.data);
	fault = request_route(&again, method, accept, detail, allow);
	must(fault == REQUEST_OK || fault == REQUEST_BAD_PARAM, "the path is found again");
	must(again.route == request->route, "as the same route");
	for (int p = 0; p < request->route->param_count; p++)
	{
		if (request->route->params[p].place == PARAM_PATH)
			must(again.values[p].length == request->values[p].length &&
				 strcmp(again.values[p].data, request->values[p].data) == 0, "with the same values");
	}
	request_free(&again);
	buffer_free(&path);
}

static void
fuzz_request(char *fields[FIELDS], size_t body_length)
{
	static const char *const methods[] = {"GET", "POST", "DELETE", "PUT"};
	Request		request = {0};
	char		detail[256];
	char		allow[64];
	const char *method = fields[0];
	RequestFault fault;

	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
		if (fields[0][0] == '0' + (int) i)
			method = methods[i];
	request.method = method;
	request.is_head = fields[0][0] == 'H';
	request.target = strdup(fields[3]);
	fuzz_header = fields[2];
	fault = request_route(&request, method, fields[1], detail, allow);
	must(strlen(detail) < sizeof(detail) && strlen(allow) < sizeof(allow), "texts end");
	if (fault == REQUEST_OK)
	{
		check_values(&request);
		check_round_trip(&request, method, fields[1]);
		buffer_append(&request.body, fields[4], body_length);
		if (request_headers(&request, detail) == REQUEST_OK && request_body(&request, detail) == REQUEST_OK)
			check_values(&request);
	}
	else if (request.route == NULL)
		must(fault != REQUEST_BAD_METHOD || allow[0] != '\0', "another method is told");
	request_free(&request);
}

/* Text of any bytes as a JSON string. */
static void
fuzz_json(const char *text, size_t length)
{
	Buffer		buffer = {0};

	buffer_json(&buffer, text, length);
	must(!buffer.failed && buffer.length >= 2 && buffer.data[0] == '"' && buffer.data[buffer.length - 1] == '"', "a string");
	must(utf8_is_valid(buffer.data, buffer.length), "a string of JSON is UTF-8");
	for (size_t i = 1; i < buffer.length - 1; i++)
	{
		must((unsigned char) buffer.data[i] >= ' ' && buffer.data[i] != '"', "no quote and no control character");
		if (buffer.data[i] == '\\')
			i++;
	}
	buffer_free(&buffer);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);
	char	   *fields[FIELDS];
	char	   *next = text;

	if (text == NULL)
		return 0;
	config.follow_batch = 100;
	memcpy(text, data, size);
	text[size] = '\0';
	fuzz_json(text, size);
	for (int i = 0; i < FIELDS; i++)
	{
		char	   *newline = i < FIELDS - 1 ? strchr(next, '\n') : NULL;

		fields[i] = next;
		if (newline != NULL)
			*newline = '\0';
		next = newline ? newline + 1 : next + (i < FIELDS - 1 ? strlen(next) : 0);
	}
	fuzz_request(fields, size - (size_t) (fields[FIELDS - 1] - text));
	free(text);
	return 0;
}
