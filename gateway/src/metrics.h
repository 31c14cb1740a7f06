/*-------------------------------------------------------------------------
 *
 * metrics.h
 *		Counters, and /metrics, /healthz and /readyz.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include <stdint.h>

#include "request.h"

/* What modules count themselves. */
typedef struct Metrics
{
	uint64_t	client_connections; /* open now */
	uint64_t	client_connections_total;
	uint64_t	followers;		/* open now */
	uint64_t	feeds;
	uint64_t	waiting;		/* long polls */
	uint64_t	wakeups;
	uint64_t	events_sent;
	uint64_t	bytes_received;
	uint64_t	bytes_sent;
} Metrics;

extern Metrics metrics;

/* Counts a request that has ended. */
extern void metrics_request(const Request *request, double ms);

/* Returns true for /metrics, /healthz and /readyz. */
extern bool metrics_has_path(const char *path);

/* Answers /metrics, /healthz or /readyz, which the request is suspended for; returns false for another path. */
extern bool metrics_answer(Request *request, const char *path);

#endif
