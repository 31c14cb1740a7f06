/*-------------------------------------------------------------------------
 *
 * problem.h
 *		Errors: application/problem+json (RFC 9457).
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_PROBLEM_H
#define GATEWAY_PROBLEM_H

#include <libpq-fe.h>

#include "request.h"

typedef struct Problem
{
	unsigned	status;
	const char *message;		/* what is wrong; NULL: the detail */
	const char *detail;			/* the same at length; NULL: the message, or the title of the status */
	const char *hint;
	const char *sqlstate;
	const char *members;		/* more members as JSON, `"outcome":"unknown"`, or NULL */
	const char *header;			/* one more header, or NULL */
	const char *header_value;
} Problem;

/* Makes the response. */
extern struct MHD_Response *problem_response(Request *request, const Problem *problem);

/* Makes it and answers a suspended request with it. */
extern void problem_answer(Request *request, const Problem *problem);

/* Answers a suspended request with an error of SQL. */
extern void problem_answer_sql(Request *request, const PGresult *result);

/* The JSON object of an error of SQL alone, for a frame of an event stream. */
extern void problem_append_sql(Buffer *buffer, const PGresult *result);

#endif
