/*-------------------------------------------------------------------------
 *
 * head.h
 *		Heads of requests: what is refused before the body comes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_HEAD_H
#define GATEWAY_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "problem.h"
#include "request.h"

/* Checks the head: leaves a response in the request, or its stage is STAGE_BODY. */
extern void head_check(Request *request, const char *method);

/* The length that the head announces; 0 for a chunked body. */
extern uint64_t head_announced_length(const Request *request);
extern bool head_has_body(const Request *request);

/* Leaves a refusal in a request that is not suspended. */
extern void head_refuse(Request *request, const Problem *problem);
extern void head_refuse_fault(Request *request, RequestFault fault, const char *detail, const char *allow);

#endif
