/*-------------------------------------------------------------------------
 *
 * server.c
 *		libmicrohttpd in the loop: requests, bodies, answers.
 *
 * libmicrohttpd's own epoll is a member of ours.  MHD_run is called when it is
 * ready, when its time-out is over, and after a connection was resumed.
 *
 * A request goes through stages:
 *
 *		STAGE_HEAD		the request line is there (begin_request)
 *		STAGE_BODY		the head is good, and the body comes
 *		STAGE_REFUSED	the head is not: the response waits until a small body
 *						was read, since a client that still writes may not see it
 *		STAGE_WORK		suspended, a module has it
 *		STAGE_DONE		the response is libmicrohttpd's
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "address.h"
#include "client.h"
#include "config.h"
#include "follow.h"
#include "framing.h"
#include "head.h"
#include "listen.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "pool.h"
#include "problem.h"
#include "response.h"
#include "server.h"
#include "tls.h"
#include "wait.h"

#define REFUSED_BODY_MAX		65536

static struct MHD_Daemon *daemon_;
static LoopFd *daemon_fd;
static bool draining;
static bool run_again;			/* something was resumed, or a connection closed */
static int	listen_socket = -1;
static LIST_HEAD(, Request) requests;
static int	request_count;
static uint64_t request_number;
static uint32_t id_prefix;

static void
notify_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
				  enum MHD_ConnectionNotificationCode code)
{
	(void) cls;
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		client_open(connection, socket_context);
	else
	{
		client_close(socket_context);
		/* at its limit it listens again only when it is run again */
		run_again = true;
	}
}

/*
 * Suspending, resuming, answering
 */

void
server_suspend(Request *request)
{
	if (request->suspended)
		return;
	request->suspended = true;
	MHD_suspend_connection(request->connection);
	client_suspended(request);
}

void
server_resume(Request *request)
{
	if (!request->suspended)
		return;
	request->suspended = false;
	MHD_resume_connection(request->connection);
	run_again = true;
}

void
server_keep(Request *request, unsigned status, struct MHD_Response *response)
{
	request->answered = true;
	request->status = response ? status : 0;
	request->response = response;
	if (response == NULL)
		return;
	response_common(request, response);
	if (draining)
		MHD_add_response_header(response, "Connection", "close");
}

void
server_answer(Request *request, unsigned status, struct MHD_Response *response)
{
	if (request->answered)
	{
		if (response != NULL)
			MHD_destroy_response(response);
		return;
	}
	server_keep(request, status, response);
	server_resume(request);
}

/* Gives libmicrohttpd the response; without one the connection is closed. */
static enum MHD_Result
queue_response(Request *request)
{
	enum MHD_Result result;

	request->stage = STAGE_DONE;
	client_has_request(request);
	if (request->response == NULL)
		return MHD_NO;
	result = MHD_queue_response(request->connection, request->status, request->response);
	MHD_destroy_response(request->response);
	request->response = NULL;
	return result;
}

/*
 * Dispatch
 */

static void
route_ended(PoolOutcome outcome, PGresult *result, void *arg)
{
	Request    *request = arg;

	request->job = NULL;
	if (outcome == POOL_DONE)
		response_row(request, result);
	else
		pool_answer_failure(request, outcome, result);
}

/* The client of a plain request has left: a read is cancelled, a write goes on. */
static void
route_left(Request *request)
{
	if (request->job != NULL)
		pool_cancel(request->job);
	request->job = NULL;
	server_answer(request, 499, NULL);
}

static void
route_start(Request *request)
{
	request->on_left = route_left;
	request->job = pool_submit_request(request, 0, route_ended, request);
	if (request->job == NULL)
		pool_answer_busy(request);
}

static void
dispatch(Request *request)
{
	char		detail[256];
	RequestFault fault;

	request->stage = STAGE_WORK;
	client_has_request(request);
	if (request->route == NULL)
	{
		size_t		length = strcspn(request->target, "?");
		char		path[256];

		snprintf(path, sizeof(path), "%.*s", (int) length, request->target);
		server_suspend(request);
		metrics_answer(request, path);
		return;
	}
	fault = request_body(request, detail);
	if (fault != REQUEST_OK)
	{
		head_refuse_fault(request, fault, detail, "");
		return;
	}
	server_suspend(request);
	if (request->route->flags & ROUTE_FOLLOW)
		follow_start(request);
	else if (request->route->flags & ROUTE_WAIT)
		wait_start(request);
	else if (request->route->flags & ROUTE_BACKGROUND)
		background_start(request);
	else
		route_start(request);
}

/*
 * What libmicrohttpd calls
 */

/* loop_now() is the time of the round, which is too coarse for what takes less than one. */
static int64_t
server_microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The request line is there.  Without memory the access handler closes the connection. */
static void *
begin_request(void *cls, const char *target, struct MHD_Connection *connection)
{
	Request    *request = calloc(1, sizeof(Request));

	(void) cls;
	if (request == NULL)
		return NULL;
	request->target = strdup(target);
	if (request->target == NULL)
	{
		free(request);
		return NULL;
	}
	request->connection = connection;
	client_begin_request(request);
	request->method = "";
	request->start = server_microseconds();
	snprintf(request->id, sizeof(request->id), "%08x-%llx", id_prefix, (unsigned long long) ++request_number);
	LIST_INSERT_HEAD(&requests, request, link);
	request_count++;
	return request;
}

/* A piece of the body. */
static void
take_body(Request *request, const char *data, size_t size)
{
	metrics.bytes_received += size;
	if (request->stage != STAGE_BODY || request->route == NULL)
		return;
	if (request->body.length + size > (size_t) config.max_body)
	{
		request->stage = STAGE_REFUSED;
		buffer_free(&request->body);
		head_refuse(request, &(Problem) {.status = 413, .detail = "The body is larger than max_body."});
		return;
	}
	buffer_append(&request->body, data, size);
	if (request->body.failed)
	{
		request->stage = STAGE_REFUSED;
		head_refuse(request, &(Problem) {.status = 503, .detail = "There is no memory for the body."});
	}
}

/* The head is there.  A refusal waits for its body, if that is small and surely comes. */
static enum MHD_Result
take_head(Request *request, const char *method, const char *version)
{
	unsigned	status;
	const char *fault = framing_fault(request, version, &status);

	if (fault != NULL)
	{
		request->stage = STAGE_REFUSED;
		head_refuse(request, &(Problem) {.status = status, .detail = fault, .header = "Connection", .header_value = "close"});
		return queue_response(request);
	}
	head_check(request, method);
	if (request->stage == STAGE_BODY)
		return MHD_YES;
	request->stage = STAGE_REFUSED;
	if (head_has_body(request) && (request_header(request, "Expect") != NULL ||
							  request_header(request, "Transfer-Encoding") != NULL ||
							  head_announced_length(request) > REFUSED_BODY_MAX))
		return queue_response(request); /* which closes the connection */
	return MHD_YES;
}

static enum MHD_Result
access_handler(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
			   const char *version, const char *upload_data, size_t *upload_data_size, void **con_cls)
{
	Request    *request = *con_cls;

	(void) cls;
	(void) connection;
	(void) url;
	if (request == NULL)
		return MHD_NO;
	if (request->stage == STAGE_HEAD)
		return take_head(request, method, version);
	if (*upload_data_size > 0)
	{
		take_body(request, upload_data, *upload_data_size);
		*upload_data_size = 0;
		return MHD_YES;
	}
	if (request->stage == STAGE_BODY)
		dispatch(request);
	if (request->answered)
		return queue_response(request);
	return request->client_left ? MHD_NO : MHD_YES;
}

static void
log_request(const Request *request, double ms)
{
	const char *path = request->route ? request->route->path : NULL;
	char		address[ADDRESS_SIZE];

	if (!config.log_requests)
		return;
	address_text(request, address);
	log_line(LOG_LEVEL_INFO, "request", LOG_TEXT("id", request->id),
			 LOG_TEXT("method", request->is_head ? "HEAD" : request->method), LOG_TEXT("route", path),
			 LOG_NUMBER("status", request->client_left && request->status == 0 ? 499 : request->status),
			 LOG_MS("ms", ms), LOG_NUMBER("bytes", request->bytes),
			 LOG_TEXT("role", request->identity.role[0] ? request->identity.role : NULL),
			 LOG_TEXT("address", address));
}

static void
end_request(void *cls, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode code)
{
	Request    *request = *con_cls;
	double		ms;

	(void) cls;
	(void) connection;
	(void) code;
	if (request == NULL)
		return;
	*con_cls = NULL;
	ms = (double) (server_microseconds() - request->start) / 1000;
	if (request->job != NULL)
		pool_cancel(request->job);
	if (request->on_end != NULL)
		request->on_end(request);
	if (request->response != NULL)
		MHD_destroy_response(request->response);
	metrics_request(request, ms);
	log_request(request, ms);
	address_leave(request->address_use);
	client_end_request(request);
	LIST_REMOVE(request, link);
	request_free(request);
	free(request);
	request_count--;
}

/* Targets are decoded by request.c. */
static size_t
unescape_nothing(void *cls, struct MHD_Connection *connection, char *text)
{
	(void) cls;
	(void) connection;
	return strlen(text);
}

static void
log_daemon(void *cls, const char *format, va_list args)
{
	char		text[512];
	size_t		length;

	(void) cls;
	vsnprintf(text, sizeof(text), format, args);
	length = strlen(text);
	while (length > 0 && text[length - 1] == '\n')
		text[--length] = '\0';
	log_line(LOG_LEVEL_DEBUG, "http", LOG_TEXT("message", text));
}

/*
 * The loop
 */

static void
daemon_ready(uint32_t events, void *arg)
{
	(void) events;
	(void) arg;
	run_again = true;
}

/* Runs libmicrohttpd as long as it has work, and says how long it can wait. */
static int64_t
daemon_idle(void)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (daemon_ == NULL)
		return -1;
	if (run_again || (MHD_get_timeout(daemon_, &ms) == MHD_YES && ms == 0))
	{
		run_again = false;
		MHD_run(daemon_);
	}
	if (run_again)
		return 0;
	return MHD_get_timeout(daemon_, &ms) == MHD_YES ? (int64_t) ms : -1;
}

int
server_request_count(void)
{
	return request_count;
}

void
server_each_request(void (*callback) (Request *request))
{
	Request    *request;

	LIST_FOREACH(request, &requests, link)
		callback(request);
}

bool
server_is_draining(void)
{
	return draining;
}

/*
 * Start and end
 */

#define MAX_OPTIONS	24

static int	option_count;
static struct MHD_OptionItem options[MAX_OPTIONS];

static void
add_option(enum MHD_OPTION option, intptr_t value, void *pointer)
{
	if (option_count < MAX_OPTIONS - 1)
		options[option_count++] = (struct MHD_OptionItem) {option, value, pointer};
	options[option_count] = (struct MHD_OptionItem) {MHD_OPTION_END, 0, NULL};
}

static bool
add_tls_options(void)
{
	if (!tls_load())
		return false;
	add_option(MHD_OPTION_HTTPS_MEM_CERT, 0, (void *) tls_certificate());
	add_option(MHD_OPTION_HTTPS_MEM_KEY, 0, (void *) tls_key());
	add_option(MHD_OPTION_HTTPS_PRIORITIES, 0, TLS_PRIORITIES);
	return true;
}

static void
add_options(void)
{
	add_option(MHD_OPTION_EXTERNAL_LOGGER, (intptr_t) log_daemon, NULL);
	add_option(MHD_OPTION_LISTEN_SOCKET, listen_socket, NULL);
	add_option(MHD_OPTION_CONNECTION_LIMIT, config.max_connections, NULL);
	add_option(MHD_OPTION_PER_IP_CONNECTION_LIMIT, config.max_connections_per_address, NULL);
	add_option(MHD_OPTION_CONNECTION_MEMORY_LIMIT, config.connection_memory, NULL);
	add_option(MHD_OPTION_CONNECTION_TIMEOUT, config.idle_timeout, NULL);
	add_option(MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL);
	add_option(MHD_OPTION_URI_LOG_CALLBACK, (intptr_t) begin_request, NULL);
	add_option(MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t) unescape_nothing, NULL);
	add_option(MHD_OPTION_NOTIFY_COMPLETED, (intptr_t) end_request, NULL);
	add_option(MHD_OPTION_NOTIFY_CONNECTION, (intptr_t) notify_connection, NULL);
}

bool
server_start(void)
{
	bool		tls = *config.tls_certificate != '\0';
	unsigned	flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (tls ? MHD_USE_TLS : 0);
	const union MHD_DaemonInfo *info;

	if (getrandom(&id_prefix, sizeof(id_prefix), 0) != sizeof(id_prefix))
		id_prefix = (uint32_t) getpid();
	listen_socket = listen_open();
	if (listen_socket < 0)
		return false;
	add_options();
	if (tls && !add_tls_options())
		return false;
	daemon_ = MHD_start_daemon(flags, 0, NULL, NULL, access_handler, NULL, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	info = daemon_ ? MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (info != NULL)
		daemon_fd = loop_add_fd(info->epoll_fd, EPOLLIN, daemon_ready, NULL);
	if (daemon_fd == NULL)
	{
		log_message(LOG_LEVEL_ERROR, "http", "libmicrohttpd does not start");
		return false;
	}
	loop_set_idle(daemon_idle);
	listen_log(listen_socket);
	return true;
}

void
server_quiesce(void)
{
	draining = true;
	if (daemon_ != NULL && listen_socket >= 0)
	{
		MHD_quiesce_daemon(daemon_);
		close(listen_socket);
		listen_socket = -1;
	}
}

/* A suspended connection cannot be ended by libmicrohttpd. */
static void
stop_requests(void)
{
	Request    *request;

	LIST_FOREACH(request, &requests, link)
	{
		if (!request->suspended)
			continue;
		if (request->stage == STAGE_WORK && !request->answered)
			problem_answer(request, &(Problem) {.status = 503, .detail = "The gateway stops."});
		else
			server_resume(request);
	}
}

void
server_stop(void)
{
	loop_set_idle(NULL);
	if (daemon_ != NULL)
	{
		stop_requests();
		MHD_run(daemon_);
		stop_requests();
		loop_remove_fd(daemon_fd);
		MHD_stop_daemon(daemon_);
		daemon_ = NULL;
	}
	if (listen_socket >= 0)
		close(listen_socket);
	listen_socket = -1;
}
