/*-------------------------------------------------------------------------
 *
 * head.c
 *		Heads of requests: what is refused before the body comes.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "address.h"
#include "auth.h"
#include "config.h"
#include "cors.h"
#include "head.h"
#include "metrics.h"
#include "response.h"
#include "server.h"
#include "static.h"

void
head_refuse(Request *request, const Problem *problem)
{
	server_keep(request, problem->status, problem_response(request, problem));
}

void
head_refuse_fault(Request *request, RequestFault fault, const char *detail, const char *allow)
{
	static const unsigned statuses[] = {
		[REQUEST_BAD_TARGET] = 400,[REQUEST_NOT_FOUND] = 404,[REQUEST_BAD_METHOD] = 405,
		[REQUEST_UNKNOWN_PARAM] = 400,[REQUEST_BAD_PARAM] = 400,[REQUEST_NO_MEMORY] = 503
	};
	Problem		problem = {.status = statuses[fault], .detail = *detail ? detail : NULL};

	if (fault == REQUEST_BAD_METHOD)
	{
		problem.header = "Allow";
		problem.header_value = allow;
	}
	head_refuse(request, &problem);
}

uint64_t
head_announced_length(const Request *request)
{
	const char *length = request_header(request, "Content-Length");

	return length ? strtoull(length, NULL, 10) : 0;
}

bool
head_has_body(const Request *request)
{
	return head_announced_length(request) > 0 || request_header(request, "Transfer-Encoding") != NULL;
}

const char *
request_header(const Request *request, const char *name)
{
	if (request->connection == NULL)
		return NULL;
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* Returns true if Content-Type is JSON, or "something+json". */
static bool
is_json_type(const char *type)
{
	size_t		length = type ? strcspn(type, "; \t") : 0;

	if (length == 16 && strncasecmp(type, "application/json", length) == 0)
		return true;
	return length > 5 && strncasecmp(type + length - 5, "+json", 5) == 0;
}

/* A body of JSON must say so; a body of text or bytes may be anything. */
static bool
media_type_fits(const Request *request)
{
	const Route *route = request->route;

	for (int p = 0; head_has_body(request) && p < route->param_count; p++)
		if (route->params[p].place == PARAM_BODY && strncmp(route->params[p].type, "json", 4) == 0)
			return is_json_type(request_header(request, "Content-Type"));
	return true;
}

/* OPTIONS has no route: it answers what the path allows. */
static void
answer_options(Request *request, const char *allow)
{
	struct MHD_Response *response = response_text(request, JSON_TYPE, "", 0);

	if (*allow == '\0')
		allow = "GET, HEAD, OPTIONS";
	if (response != NULL)
	{
		MHD_add_response_header(response, "Allow", allow);
		cors_preflight(request, allow, response);
	}
	server_keep(request, 204, response);
}

/* The description of the interface, which no role is needed for. */
static struct MHD_Response *
openapi_response(Request *request, const char *path)
{
	struct MHD_Response *response;

	if (strcmp(path, "/openapi.json") != 0)
		return NULL;
	response = response_text(request, JSON_TYPE, openapi_text, strlen(openapi_text));
	if (response != NULL)
		MHD_add_response_header(response, "Cache-Control", "no-cache");
	return response;
}

/* Paths of the gateway itself, and the console's files. */
static bool
answer_own_path(Request *request)
{
	size_t		length = strcspn(request->target, "?");
	char		path[256];
	unsigned	status = 200;
	struct MHD_Response *response;

	if (length >= sizeof(path) || strcmp(request->method, "OPTIONS") == 0)
		return false;
	memcpy(path, request->target, length);
	path[length] = '\0';
	response = openapi_response(request, path);
	if (response == NULL)
		response = static_response(request, path, &status);
	if (response == NULL && !metrics_has_path(path))
		return false;
	if (strcmp(request->method, "GET") != 0)
	{
		if (response != NULL)
			MHD_destroy_response(response);
		head_refuse_fault(request, REQUEST_BAD_METHOD, "", "GET, HEAD, OPTIONS");
	}
	else if (response != NULL)
		server_keep(request, status, response);
	else
		request->stage = STAGE_BODY;
	return true;
}

static bool
authorize(Request *request)
{
	AuthRefusal refusal = {0};

	if (request->route->flags & ROUTE_PUBLIC)
		snprintf(request->identity.role, ROLE_SIZE, "%s", config.anonymous_role);
	else if (!auth_authorize(request, &request->identity, &refusal))
	{
		head_refuse(request, &(Problem) {.status = refusal.status, .detail = refusal.detail,
			.header = "WWW-Authenticate", .header_value = refusal.challenge});
		return false;
	}
	else if (request->route->flags & ROUTE_WRITE && request_header(request, "Authorization") == NULL &&
			 cors_is_foreign(request))
	{
		head_refuse(request, &(Problem) {.status = 403,
			.detail = "A page of a site that cors_origins does not list may not change anything without a token."});
		return false;
	}
	return true;
}

void
head_check(Request *request, const char *method)
{
	char		detail[256];
	char		allow[64];
	RequestFault fault;

	request->is_head = strcmp(method, "HEAD") == 0;
	request->method = request->is_head ? "GET" : method;
	if (strlen(request->target) > (size_t) config.max_target)
	{
		head_refuse(request, &(Problem) {.status = 414, .detail = "The target is longer than max_target."});
		return;
	}
	if (!address_enter(request, &request->address_use))
	{
		head_refuse(request, &(Problem) {.status = 429, .detail = "Too many requests of this address are under way.",
			.header = "Retry-After", .header_value = "1"});
		return;
	}
	fault = request_route(request, request->method, request_header(request, "Accept"), detail, allow);
	if (fault == REQUEST_OK)
		fault = request_headers(request, detail);
	if (fault == REQUEST_NOT_FOUND && answer_own_path(request))
		return;
	if (strcmp(method, "OPTIONS") == 0 && (fault == REQUEST_BAD_METHOD || fault == REQUEST_NOT_FOUND))
		answer_options(request, allow);
	else if (fault != REQUEST_OK)
		head_refuse_fault(request, fault, detail, allow);
	else if (head_announced_length(request) > (uint64_t) config.max_body)
		head_refuse(request, &(Problem) {.status = 413, .detail = "The body is larger than max_body."});
	else if (!media_type_fits(request))
		head_refuse(request, &(Problem) {.status = 415,
			.detail = "The body must be application/json, and Content-Type must say so."});
	else if (authorize(request))
		request->stage = STAGE_BODY;
}
