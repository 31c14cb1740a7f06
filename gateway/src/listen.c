/*-------------------------------------------------------------------------
 *
 * listen.c
 *		The socket that clients connect to.
 *
 * An address that other machines can reach needs TLS, unless allow_plain_http says
 * that something in front of the gateway has it.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"
#include "listen.h"
#include "log.h"

/* Splits "address:port" or "[address]:port". */
static bool
split_listen(char *text, const char **host, const char **port)
{
	char	   *colon = strrchr(text, ':');

	if (colon == NULL || colon == text)
		return false;
	*colon = '\0';
	*port = colon + 1;
	*host = text;
	if (**port == '\0' || strlen(*port) > 5 || strspn(*port, "0123456789") != strlen(*port) || atoi(*port) > 65535)
		return false;
	if (text[0] == '[' && colon[-1] == ']')
	{
		colon[-1] = '\0';
		*host = text + 1;
	}
	return true;
}

static int
open_listen_address(const struct addrinfo *address)
{
	int			one = 1;
	int			zero = 0;
	int			fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, 1024) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Returns true for an address that other machines can reach. */
static bool
is_public_address(const struct sockaddr *address)
{
	const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *) address;

	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24) != 127;
	return !IN6_IS_ADDR_LOOPBACK(&ipv6->sin6_addr);
}

/* Opens the address of the setting; says why it cannot. */
int
listen_open(void)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *addresses = NULL;
	char		text[256];
	const char *host;
	const char *port;
	int			error;
	int			fd = -1;

	snprintf(text, sizeof(text), "%s", config.listen);
	if (!split_listen(text, &host, &port))
	{
		log_message(LOG_LEVEL_ERROR, "unusable_setting", "listen must be address:port, and is \"%s\"", config.listen);
		return -1;
	}
	if (strcmp(host, "*") == 0)
		host = NULL;
	error = getaddrinfo(host, port, &hints, &addresses);
	for (struct addrinfo *address = addresses; error == 0 && address && fd < 0; address = address->ai_next)
	{
		if (is_public_address(address->ai_addr) && *config.tls_certificate == '\0' && !config.allow_plain_http)
		{
			log_message(LOG_LEVEL_ERROR, "unusable_setting", "%s is no loopback address: set tls_certificate and tls_key, "
						"or allow_plain_http behind a proxy", config.listen);
			freeaddrinfo(addresses);
			return -1;
		}
		fd = open_listen_address(address);
	}
	if (addresses != NULL)
		freeaddrinfo(addresses);
	if (fd < 0)
		log_message(LOG_LEVEL_ERROR, "listen", "cannot listen on %s: %s", config.listen,
					error ? gai_strerror(error) : strerror(errno));
	return fd;
}

void
listen_log(int fd)
{
	struct sockaddr_storage address;
	socklen_t	size = sizeof(address);
	char		host[INET6_ADDRSTRLEN + 2] = "";
	char		port[16] = "";
	char		url[128];
	bool		is_ipv6;

	if (getsockname(fd, (struct sockaddr *) &address, &size) != 0 ||
		getnameinfo((struct sockaddr *) &address, size, host, sizeof(host), port, sizeof(port),
					NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	is_ipv6 = strchr(host, ':') != NULL;
	snprintf(url, sizeof(url), "%s://%s%s%s:%s/", *config.tls_certificate ? "https" : "http",
			 is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", port);
	log_line(LOG_LEVEL_INFO, "listening", LOG_TEXT("url", url));
}
