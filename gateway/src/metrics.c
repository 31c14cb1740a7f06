/*-------------------------------------------------------------------------
 *
 * metrics.c
 *		Counters, and /metrics, /healthz and /readyz.
 *
 * Requests are counted by route, method and status.  A route is a path with its
 * parameters unfilled, and statuses that are not in the list are counted as one, so that
 * no client can make the number of series grow.  Event streams and long polls last as
 * long as they wait, and are left out of the histogram.
 *
 * Figures of the store itself are not here: postgres_exporter has them, by the queries
 * in monitoring/.
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "address.h"
#include "auth.h"
#include "config.h"
#include "loop.h"
#include "metrics.h"
#include "pool.h"
#include "problem.h"
#include "response.h"
#include "server.h"

#define READY_MS 900

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static const unsigned statuses[] = {
	200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 414, 415, 422, 429, 431,
	500, 502, 503, 504
};

#define STATUS_COUNT	((int) (sizeof(statuses) / sizeof(statuses[0])))
#define OTHER_STATUS	STATUS_COUNT

static const double bounds_ms[] = {1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000};

#define BOUND_COUNT ((int) (sizeof(bounds_ms) / sizeof(bounds_ms[0])))

typedef struct RouteMetrics
{
	uint64_t	requests[2][STATUS_COUNT + 1];	/* GET or another method; HEAD */
	uint64_t	bounds[BOUND_COUNT];	/* not cumulative */
	uint64_t	timed;
	double		ms;
} RouteMetrics;

Metrics		metrics;

/* One for each route, and a last one for paths without a route. */
static RouteMetrics *route_metrics;

static int
status_index(unsigned status)
{
	int			i = 0;

	while (i < STATUS_COUNT && statuses[i] != status)
		i++;
	return i;
}

/* An event stream is counted with the pages of the same path, as it has the same labels. */
static int
route_series(const Route *route)
{
	int			index = ROUTE_INDEX(route);

	while (index > 0 && strcmp(routes[index - 1].path, route->path) == 0 &&
		   strcmp(routes[index - 1].method, route->method) == 0)
		index--;
	return index;
}

void
metrics_request(const Request *request, double ms)
{
	RouteMetrics *of;
	int			bound = 0;

	if (route_metrics == NULL)
		route_metrics = calloc((size_t) route_count + 1, sizeof(RouteMetrics));
	if (route_metrics == NULL)
		return;
	of = &route_metrics[request->route ? route_series(request->route) : route_count];
	metrics.bytes_sent += request->is_head ? 0 : request->bytes;
	of->requests[request->is_head][status_index(request->status)]++;
	if (request->route != NULL && request->route->flags & (ROUTE_FOLLOW | ROUTE_WAIT))
		return;
	of->timed++;
	of->ms += ms;
	while (bound < BOUND_COUNT && ms > bounds_ms[bound])
		bound++;
	if (bound < BOUND_COUNT)
		of->bounds[bound]++;
}

static void
metric_head(Buffer *text, const char *name, const char *type, const char *help)
{
	buffer_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
metric(Buffer *text, const char *name, const char *type, const char *help, double value)
{
	metric_head(text, name, type, help);
	buffer_printf(text, "%s %.15g\n", name, value);
}

/* The labels of a route.  Paths and methods of routes have no characters to escape. */
static void
route_labels(Buffer *text, int index, bool head)
{
	if (index == route_count)
		buffer_printf(text, "route=\"other\",method=\"%s\"", head ? "HEAD" : "other");
	else
		buffer_printf(text, "route=\"%s\",method=\"%s\"", routes[index].path, head ? "HEAD" : routes[index].method);
}

static void
metrics_of_requests(Buffer *text)
{
	metric_head(text, "eventstore_gateway_requests_total", "counter", "Requests that have ended.");
	for (int index = 0; index <= route_count; index++)
	{
		for (int series = 0; series < 2 * (STATUS_COUNT + 1); series++)
		{
			bool		head = series > STATUS_COUNT;
			int			status = series % (STATUS_COUNT + 1);
			uint64_t	count = route_metrics[index].requests[head][status];

			if (count == 0)
				continue;
			buffer_text(text, "eventstore_gateway_requests_total{");
			route_labels(text, index, head);
			if (status == OTHER_STATUS)
				buffer_text(text, ",code=\"other\"");
			else
				buffer_printf(text, ",code=\"%u\"", statuses[status]);
			buffer_printf(text, "} %llu\n", (unsigned long long) count);
		}
	}
}

static void
histogram_line(Buffer *text, int index, const char *part, const char *bound, double value)
{
	buffer_printf(text, "eventstore_gateway_request_duration_seconds_%s{", part);
	route_labels(text, index, false);
	if (bound != NULL)
		buffer_printf(text, ",le=\"%s\"", bound);
	buffer_printf(text, "} %.15g\n", value);
}

static void
metrics_of_durations(Buffer *text)
{
	metric_head(text, "eventstore_gateway_request_duration_seconds", "histogram",
				"Time from the head of a request to the end of its response, without event streams and long polls.");
	for (int index = 0; index <= route_count; index++)
	{
		const RouteMetrics *of = &route_metrics[index];
		uint64_t	count = 0;
		char		bound[32];

		if (of->timed == 0)
			continue;
		for (int i = 0; i < BOUND_COUNT; i++)
		{
			count += of->bounds[i];
			snprintf(bound, sizeof(bound), "%g", bounds_ms[i] / 1000);
			histogram_line(text, index, "bucket", bound, (double) count);
		}
		histogram_line(text, index, "bucket", "+Inf", (double) of->timed);
		histogram_line(text, index, "sum", NULL, of->ms / 1000);
		histogram_line(text, index, "count", NULL, (double) of->timed);
	}
}

static void
metrics_of_pool(Buffer *text)
{
	PoolCounts	pool = pool_counts();

	metric(text, "eventstore_gateway_database_up", "gauge", "1 if a connection to the database works.", pool_is_up());
	metric_head(text, "eventstore_gateway_pool_connections", "gauge", "Connections to the database.");
	buffer_printf(text, "eventstore_gateway_pool_connections{state=\"idle\"} %d\n", pool.connections - pool.busy);
	buffer_printf(text, "eventstore_gateway_pool_connections{state=\"busy\"} %d\n", pool.busy);
	buffer_printf(text, "eventstore_gateway_pool_connections{state=\"background\"} %d\n", pool.background);
	metric(text, "eventstore_gateway_pool_queued", "gauge", "Requests that wait for a connection.", pool.queued);
	metric(text, "eventstore_gateway_pool_opened_total", "counter", "Connections that were opened.",
		   (double) pool.opened);
	metric(text, "eventstore_gateway_pool_lost_total", "counter", "Connections that were lost.", (double) pool.lost);
	metric(text, "eventstore_gateway_pool_cancelled_total", "counter", "Statements whose client has left.",
		   (double) pool.cancelled);
	metric(text, "eventstore_gateway_pool_refused_total", "counter", "Requests for which the queue was full.",
		   (double) pool.refused);
}

static void
metrics_of_clients(Buffer *text)
{
	metric(text, "eventstore_gateway_connections", "gauge", "Connections of clients.",
		   (double) metrics.client_connections);
	metric(text, "eventstore_gateway_connections_total", "counter", "Connections of clients that were opened.",
		   (double) metrics.client_connections_total);
	metric(text, "eventstore_gateway_addresses", "gauge",
		   "Addresses of clients with requests under way, if max_requests_per_address is set.", address_count());
	metric(text, "eventstore_gateway_requests_running", "gauge", "Requests without a complete response.",
		   server_request_count());
	metric(text, "eventstore_gateway_followers", "gauge", "Event streams.", (double) metrics.followers);
	metric(text, "eventstore_gateway_feeds", "gauge", "Statements that event streams share.", (double) metrics.feeds);
	metric(text, "eventstore_gateway_waiting", "gauge", "Long polls.", (double) metrics.waiting);
	metric(text, "eventstore_gateway_wakeups_total", "counter", "Notifications of new events.",
		   (double) metrics.wakeups);
	metric(text, "eventstore_gateway_events_sent_total", "counter", "Events sent to event streams.",
		   (double) metrics.events_sent);
	metric(text, "eventstore_gateway_received_bytes_total", "counter", "Bytes of the bodies of requests.",
		   (double) metrics.bytes_received);
	metric(text, "eventstore_gateway_sent_bytes_total", "counter", "Bytes of the bodies of responses.",
		   (double) metrics.bytes_sent);
}

static int
open_descriptors(void)
{
	DIR		   *folder = opendir("/proc/self/fd");
	int			count = -3;		/* two points, and the folder itself */

	if (folder == NULL)
		return 0;
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

static double
resident_bytes(void)
{
	FILE	   *file = fopen("/proc/self/statm", "r");
	long		pages = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%*d %ld", &pages) != 1)
		pages = 0;
	fclose(file);
	return (double) pages * (double) sysconf(_SC_PAGESIZE);
}

/* The names are those that every client library of Prometheus uses. */
static void
metrics_of_process(Buffer *text)
{
	struct rusage usage;
	struct rlimit limit = {0, 0};

	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &limit);
	metric(text, "process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds.",
		   (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
		   + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	metric(text, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident_bytes());
	metric(text, "process_open_fds", "gauge", "Number of open file descriptors.", open_descriptors());
	metric(text, "process_max_fds", "gauge", "Maximum number of open file descriptors.", (double) limit.rlim_cur);
}

static void
metrics_send(Request *request)
{
	Buffer		text = {0};
	struct MHD_Response *response = NULL;

	if (route_metrics == NULL)
		route_metrics = calloc((size_t) route_count + 1, sizeof(RouteMetrics));
	if (route_metrics != NULL)
	{
		metrics_of_requests(&text);
		metrics_of_durations(&text);
	}
	metrics_of_pool(&text);
	metrics_of_clients(&text);
	metrics_of_process(&text);
	if (!text.failed)
		response = response_text(request, METRICS_TYPE, text.data, text.length);
	if (response != NULL)
		MHD_add_response_header(response, "Cache-Control", "no-store");
	buffer_free(&text);
	server_answer(request, 200, response);
}

/* The figures say what is asked for and how often, so there may be a role for them. */
static void
metrics_guarded(Request *request)
{
	AuthRefusal refusal;
	Problem		problem = {.status = 403, .detail = "The role of the token may not read the metrics."};

	if (config.metrics_role == NULL || *config.metrics_role == '\0')
		metrics_send(request);
	else if (!auth_authorize(request, &request->identity, &refusal))
	{
		problem = (Problem) {
			.status = refusal.status,.detail = refusal.detail,.header = "WWW-Authenticate",
				.header_value = refusal.challenge
		};
		problem_answer(request, &problem);
	}
	else if (strcmp(request->identity.role, config.metrics_role) != 0)
		problem_answer(request, &problem);
	else
		metrics_send(request);
}

/* Answers a probe: {"status":"ready"}, or 503 and why not. */
static void
probe_answer(Request *request, unsigned status, const char *word)
{
	Buffer		text = {0};
	struct MHD_Response *response = NULL;

	buffer_printf(&text, "{\"status\":\"%s\"}\n", word);
	if (!text.failed)
		response = response_text(request, JSON_TYPE, text.data, text.length);
	if (response != NULL)
		MHD_add_response_header(response, "Cache-Control", "no-store");
	buffer_free(&text);
	server_answer(request, status, response);
}

/* A request for /readyz that waits for the database. */
typedef struct Probe
{
	Request    *request;
	LoopTimer	timer;
} Probe;

/* Stops waiting, and answers. */
static void
ready_end(Probe *probe, unsigned status, const char *word)
{
	Request    *request = probe->request;

	loop_timer_stop(&probe->timer);
	if (request->job != NULL)
		pool_cancel(request->job);
	request->job = NULL;
	request->owner = NULL;
	request->on_left = NULL;
	free(probe);
	probe_answer(request, status, word);
}

static void
ready_asked(PoolOutcome outcome, PGresult *result, void *arg)
{
	Probe	   *probe = arg;
	bool		found = outcome == POOL_DONE && PQntuples(result) == 1;

	PQclear(result);
	probe->request->job = NULL;
	if (outcome != POOL_DONE)
		ready_end(probe, 503, "database does not answer");
	else
		ready_end(probe, found ? 200 : 503, found ? "ready" : "extension is missing");
}

static void
ready_left(Request *request)
{
	ready_end(request->owner, 503, "client has left");
}

static void
ready_is_late(void *arg)
{
	ready_end(arg, 503, "database does not answer in time");
}

/* A probe must have its answer before the one that asks has lost patience. */
static void
ready_ask(Request *request)
{
	static const PoolStatement statement = {
		"ready", "SELECT FROM pg_catalog.pg_extension WHERE extname = 'eventstore'"
	};
	Probe	   *probe;

	if (server_is_draining() || !pool_is_up())
	{
		probe_answer(request, 503, server_is_draining() ? "draining" : "database does not answer");
		return;
	}
	probe = calloc(1, sizeof(Probe));
	if (probe == NULL)
	{
		probe_answer(request, 503, "no memory");
		return;
	}
	probe->request = request;
	request->owner = probe;
	request->on_left = ready_left;
	request->job = pool_submit(&statement, NULL, NULL, 0, NULL, POOL_READ_ONLY, ready_asked, probe);
	if (request->job == NULL)
		ready_end(probe, 503, "busy");
	else
		loop_timer_start(&probe->timer, READY_MS, ready_is_late, probe);
}

bool
metrics_has_path(const char *path)
{
	return strcmp(path, "/metrics") == 0 || strcmp(path, "/healthz") == 0 || strcmp(path, "/readyz") == 0;
}

bool
metrics_answer(Request *request, const char *path)
{
	if (strcmp(path, "/metrics") == 0)
		metrics_guarded(request);
	else if (strcmp(path, "/healthz") == 0)
		probe_answer(request, 200, "alive");
	else if (strcmp(path, "/readyz") == 0)
		ready_ask(request);
	else
		return false;
	return true;
}
