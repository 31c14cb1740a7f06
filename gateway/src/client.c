/*-------------------------------------------------------------------------
 *
 * client.c
 *		Connections of clients: which have left, and which are late.
 *
 * libmicrohttpd does not look at a suspended connection, so each socket is in our
 * epoll as well, for EPOLLRDHUP alone.  A client that has closed its side may still
 * read (a half-close), so it counts as gone only after a grace; a reset is at once.
 *
 * A client has request_timeout for a head and its body, from the connection's begin
 * on, or idle_timeout more after a request.  libmicrohttpd's own time-out begins
 * again with each byte.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "client.h"
#include "config.h"
#include "loop.h"
#include "metrics.h"
#include "server.h"

#define HALF_CLOSE_GRACE_MS		1000

struct Client
{
	MHD_socket	socket;
	LoopFd	   *watch;
	LoopTimer	grace;
	LoopTimer	deadline;		/* for the next head and body */
	bool		hung;			/* has closed its side */
	Request    *request;
};

/*
 * Tells the module, which then ends the request; without one it is ended here.  A
 * head or body that is not whole by now will never be.
 */
static void
client_leave(void *arg)
{
	struct Client *client = arg;
	Request    *request = client->request;

	loop_timer_stop(&client->grace);
	if (request == NULL || request->stage < STAGE_WORK)
	{
		shutdown(client->socket, SHUT_RDWR);
		return;
	}
	if (request->client_left || !request->suspended)
		return;
	request->client_left = true;
	if (request->on_left != NULL)
		request->on_left(request);
	else
		server_resume(request);
}

static void
client_event(uint32_t events, void *arg)
{
	struct Client *client = arg;

	client->hung = true;
	if (events & (EPOLLHUP | EPOLLERR))
	{
		loop_remove_fd(client->watch);
		client->watch = NULL;
		client_leave(client);
	}
	else if (client->grace.place == 0)
		loop_timer_start(&client->grace, HALF_CLOSE_GRACE_MS, client_leave, client);
}

/* A client that sends its request drop by drop. */
static void
client_is_late(void *arg)
{
	struct Client *client = arg;

	shutdown(client->socket, SHUT_RDWR);
}

void
client_open(struct MHD_Connection *connection, void **socket_context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct Client *client = calloc(1, sizeof(struct Client));

	*socket_context = client;
	metrics.client_connections++;
	metrics.client_connections_total++;
	if (client == NULL || info == NULL)
		return;
	client->socket = info->connect_fd;
	client->watch = loop_add_fd(client->socket, EPOLLRDHUP | EPOLLET, client_event, client);
	loop_timer_start(&client->deadline, config.request_timeout * 1000, client_is_late, client);
}

void
client_close(void **socket_context)
{
	struct Client *client = *socket_context;

	metrics.client_connections--;
	if (client == NULL)
		return;
	loop_timer_stop(&client->grace);
	loop_timer_stop(&client->deadline);
	loop_remove_fd(client->watch);
	free(client);
	*socket_context = NULL;
}


void
client_begin_request(Request *request)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->connection,
																   MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	request->client = info ? info->socket_context : NULL;
	if (request->client != NULL)
		request->client->request = request;
}

void
client_has_request(Request *request)
{
	if (request->client != NULL)
		loop_timer_stop(&request->client->deadline);
}

void
client_suspended(Request *request)
{
	struct Client *client = request->client;

	if (client != NULL && client->hung && client->grace.place == 0)
		loop_timer_start(&client->grace, HALF_CLOSE_GRACE_MS, client_leave, client);
}

void
client_end_request(Request *request)
{
	struct Client *client = request->client;

	if (client == NULL || client->request != request)
		return;
	client->request = NULL;
	loop_timer_start(&client->deadline, (config.idle_timeout + config.request_timeout) * 1000, client_is_late, client);
	if (client->hung && client->grace.place == 0)
		loop_timer_start(&client->grace, HALF_CLOSE_GRACE_MS, client_leave, client);
}
