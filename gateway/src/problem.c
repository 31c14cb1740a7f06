/*-------------------------------------------------------------------------
 *
 * problem.c
 *		Errors: application/problem+json (RFC 9457).
 *
 * A problem has the members "type", "title", "status" and "detail"; and "error"
 * (true) and "message", the form that clients of older HTTP interfaces of event
 * stores read.  One of SQL has "sqlstate" and "hint", and ES001 both versions.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"
#include "response.h"
#include "server.h"

typedef struct StatusOfState
{
	const char *prefix;			/* of the SQLSTATE */
	unsigned	status;
} StatusOfState;

/* The first that fits counts. */
static const StatusOfState status_of_state[] = {
	{"ES001", 412}, {"ES007", 412}, {"ES002", 409}, {"ES003", 410}, {"ES004", 422}, {"ES005", 503}, {"ES006", 409},
	{"ES008", 410}, {"ES009", 421},
	{"23514", 422}, {"22", 422}, {"42501", 403}, {"42704", 404}, {"42883", 404}, {"42P01", 404},
	{"3F000", 404}, {"42710", 409}, {"426", 422}, {"42809", 422}, {"42P13", 422}, {"P0001", 422},
	{"0A000", 409}, {"55P03", 503}, {"55", 409}, {"40001", 503}, {"40P01", 503}, {"25006", 503},
	{"57014", 504}, {"53", 503}, {"57P", 503}, {"08", 503}, {"54", 422},
	{"", 500}
};

typedef struct TitleOfStatus
{
	unsigned	status;
	const char *title;
} TitleOfStatus;

static const TitleOfStatus titles[] = {
	{400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"},
	{405, "Method Not Allowed"}, {406, "Not Acceptable"}, {408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"},
	{412, "Precondition Failed"}, {413, "Content Too Large"}, {414, "URI Too Long"},
	{415, "Unsupported Media Type"}, {417, "Expectation Failed"}, {421, "Misdirected Request"},
	{422, "Unprocessable Content"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
	{501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"}, {504, "Gateway Timeout"},
	{0, "Error"}
};

/* "Not Found" */
static const char *
problem_title(unsigned status)
{
	const TitleOfStatus *title = titles;

	while (title->status != 0 && title->status != status)
		title++;
	return title->title;
}

static void
append_member(Buffer *buffer, const char *name, const char *text)
{
	if (text == NULL || *text == '\0')
		return;
	buffer_printf(buffer, ",\"%s\":", name);
	buffer_json(buffer, text, strlen(text));
}

static void
append_problem(Buffer *buffer, const Problem *problem)
{
	const char *title = problem_title(problem->status);
	const char *detail = problem->detail ? problem->detail : problem->message ? problem->message : title;

	buffer_text(buffer, "{\"type\":\"about:blank\"");
	append_member(buffer, "title", title);
	buffer_printf(buffer, ",\"status\":%u", problem->status);
	append_member(buffer, "detail", detail);
	append_member(buffer, "sqlstate", problem->sqlstate);
	append_member(buffer, "hint", problem->hint);
	if (problem->members != NULL)
		buffer_printf(buffer, ",%s", problem->members);
	buffer_text(buffer, ",\"error\":true");
	append_member(buffer, "message", problem->message ? problem->message : detail);
	buffer_text(buffer, "}");
}

/* Makes the response of the JSON, which it frees. */
static struct MHD_Response *
response_of_problem(Request *request, unsigned status, Buffer *buffer)
{
	struct MHD_Response *response = NULL;

	if (!buffer->failed)
		response = response_text(request, "application/problem+json", buffer->data, buffer->length);
	buffer_free(buffer);
	if (response == NULL)
		return NULL;
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (status == 503)
		MHD_add_response_header(response, "Retry-After", "1");
	return response;
}

struct MHD_Response *
problem_response(Request *request, const Problem *problem)
{
	Buffer		buffer = {0};
	struct MHD_Response *response;

	append_problem(&buffer, problem);
	response = response_of_problem(request, problem->status, &buffer);
	if (response == NULL)
		return NULL;
	if (problem->header != NULL)
		MHD_add_response_header(response, problem->header, problem->header_value);
	return response;
}

void
problem_answer(Request *request, const Problem *problem)
{
	server_answer(request, problem->status, problem_response(request, problem));
}

/*
 * Errors of SQL
 */

/* Returns true if the error is about the text of a parameter; the server says so in the context. */
static bool
is_of_parameter(const PGresult *result)
{
	const char *context = PQresultErrorField(result, PG_DIAG_CONTEXT);

	return context != NULL && strstr(context, "portal parameter $") != NULL;
}

/*
 * Returns true if the gateway's own statement names what does not exist.  A test
 * prepares each of them, so that the role cannot see the extension's schema.
 */
static bool
is_of_hidden_schema(const PGresult *result)
{
	static const char *const states[] = {"42883", "42P01", "42704", "42703"};
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION) == NULL)
		return false;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (strcmp(sqlstate, states[i]) == 0)
			return true;
	return false;
}

/*
 * Returns true if there is no such role as the token's, or none that may be set.
 * Messages may be in any language.  A function of a user would be the context.
 */
static bool
is_of_role(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

	return strcmp(sqlstate, "22023") == 0 && function != NULL && strcmp(function, "call_string_check_hook") == 0
		&& PQresultErrorField(result, PG_DIAG_CONTEXT) == NULL;
}

static unsigned
problem_status(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const StatusOfState *entry = status_of_state;

	if (sqlstate == NULL)
		return 500;
	if (is_of_hidden_schema(result) || is_of_role(result))
		return 403;
	if (is_of_parameter(result) && strncmp(sqlstate, "22", 2) == 0)
		return 400;
	while (strncmp(sqlstate, entry->prefix, strlen(entry->prefix)) != 0)
		entry++;
	return entry->status;
}

/* The last place of a text in another, or NULL. */
static const char *
last_place(const char *text, const char *wanted)
{
	const char *found = NULL;

	for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted))
		found = at;
	return found;
}

/*
 * ES001's detail ends with "is EXPECTED, its actual version is ACTUAL.", of which
 * the first is a number or a word.  A stream's name may hold the same words, but
 * not behind them.
 */
static void
append_versions(Buffer *buffer, const PGresult *result)
{
	static const char between[] = ", its actual version is ";
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *actual = detail ? last_place(detail, between) : NULL;
	const char *expected = actual;
	size_t		length;

	if (actual == NULL)
		return;
	while (expected > detail && expected[-1] != ' ')
		expected--;
	length = (size_t) (actual - expected);
	buffer_text(buffer, "\"expected_version\":");
	if (length > 0 && strspn(expected, "0123456789") == length)
		buffer_append(buffer, expected, length);
	else
		buffer_json(buffer, expected, length);
	buffer_printf(buffer, ",\"actual_version\":%lld", strtoll(actual + sizeof(between) - 1, NULL, 10));
}

void
problem_append_sql(Buffer *buffer, const PGresult *result)
{
	Buffer		members = {0};
	Problem		problem = {
		.status = problem_status(result),
		.message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
		.detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL),
		.hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT),
		.sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE)
	};

	if (problem.sqlstate != NULL && is_of_hidden_schema(result))
	{
		problem.message = "permission denied for the schema of the event store";
		problem.detail = problem.hint = NULL;
		problem.sqlstate = "42501";
	}
	else if (problem.sqlstate != NULL && is_of_role(result))
	{
		problem.message = "the role of the token cannot be used";
		problem.detail = problem.hint = NULL;
		problem.sqlstate = "42501";
	}
	if (problem.sqlstate != NULL && strcmp(problem.sqlstate, "ES001") == 0)
		append_versions(&members, result);
	if (!members.failed)
		problem.members = members.data;
	append_problem(buffer, &problem);
	buffer_free(&members);
}

void
problem_answer_sql(Request *request, const PGresult *result)
{
	Buffer		buffer = {0};
	unsigned	status = problem_status(result);

	problem_append_sql(&buffer, result);
	server_answer(request, status, response_of_problem(request, status, &buffer));
}
