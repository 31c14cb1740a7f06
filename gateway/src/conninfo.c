/*-------------------------------------------------------------------------
 *
 * conninfo.c
 *		How connections to the database are opened.
 *
 * The connection string is parsed once.  Names of hosts are resolved then, since
 * libpq would do it again for each connection and block the loop meanwhile; a host
 * with several addresses becomes several hosts.  "host" stays what certificates are
 * compared with.
 *
 * Sessions have the same settings, whatever the role or the database sets: times
 * and bytes are written in one way, and a session whose client has gone ends.
 *
 *-------------------------------------------------------------------------
 */
#include <libpq-fe.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "buffer.h"
#include "config.h"
#include "conninfo.h"
#include "log.h"
#include "pool.h"

#define MAX_KEYWORDS	64

static const char *keywords[MAX_KEYWORDS];
static const char *values[MAX_KEYWORDS];
static const char *background_values[MAX_KEYWORDS];
static int	keyword_count;
static PQconninfoOption *parsed;	/* which values point into */

const char *const *
pool_keywords(void)
{
	return keywords;
}

const char *const *
pool_values(void)
{
	return values;
}

const char *const *
conninfo_background_values(void)
{
	return background_values;
}

static void
add_keyword(const char *keyword, const char *value)
{
	if (value == NULL || keyword_count >= MAX_KEYWORDS - 4)
		return;
	keywords[keyword_count] = keyword;
	values[keyword_count++] = value;
}

/* The element of a list separated by commas, or of a list of one, in memory of malloc. */
static char *
list_element(const char *list, int wanted)
{
	if (list == NULL)
		return strdup("");
	if (strchr(list, ',') == NULL)
		return strdup(list);
	for (int i = 0; i < wanted && list != NULL; i++)
	{
		list = strchr(list, ',');
		if (list != NULL)
			list++;
	}
	return list ? strndup(list, strcspn(list, ",")) : strdup("");
}

typedef struct HostList
{
	Buffer		hosts;
	Buffer		addresses;
	Buffer		ports;
	int			count;
} HostList;

static void
host_list_add(HostList *list, const char *host, const char *address, const char *port)
{
	const char *comma = list->count++ ? "," : "";

	buffer_printf(&list->hosts, "%s%s", comma, host);
	buffer_printf(&list->addresses, "%s%s", comma, address);
	buffer_printf(&list->ports, "%s%s", comma, port);
}

/* A name that cannot be resolved is left to libpq, which says what is wrong each time. */
static void
host_list_resolve(HostList *list, const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char		address[NI_MAXHOST];

	if (*host == '/' || *host == '@' || *host == '\0' || getaddrinfo(host, NULL, &hints, &found) != 0)
	{
		host_list_add(list, host, "", port);
		return;
	}
	for (struct addrinfo *at = found; at != NULL; at = at->ai_next)
		if (getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST) == 0)
			host_list_add(list, host, address, port);
	freeaddrinfo(found);
}

static bool
resolve_hosts(const char *hosts, const char *ports)
{
	HostList	list = {0};
	const char *at = hosts;

	for (int i = 0; at != NULL; i++)
	{
		char	   *host = strndup(at, strcspn(at, ","));
		char	   *port = list_element(ports, i);

		if (host != NULL && port != NULL)
			host_list_resolve(&list, host, port);
		else
			list.hosts.failed = true;
		free(host);
		free(port);
		at = strchr(at, ',');
		if (at != NULL)
			at++;
	}
	if (list.hosts.failed || list.addresses.failed || list.ports.failed)
		return false;
	add_keyword("host", list.hosts.data);
	add_keyword("hostaddr", list.addresses.data);
	add_keyword("port", list.ports.data);
	return true;
}

/* The settings of a session, after those that the connection string has. */
static char *
session_options(const char *given, long long statement_timeout)
{
	Buffer		buffer = {0};

	buffer_printf(&buffer, "%s -c statement_timeout=%lld -c client_connection_check_interval=1000"
				  " -c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c bytea_output=hex -c extra_float_digits=1"
				  " -c standard_conforming_strings=on -c default_transaction_read_only=off",
				  given ? given : "", statement_timeout);
	if (buffer.failed)
		buffer_free(&buffer);
	return buffer.data;
}

/* The value of an option of the connection string, or of libpq's environment. */
static const char *
option_value(const PQconninfoOption *options, const char *keyword)
{
	for (const PQconninfoOption *option = options; option->keyword; option++)
	{
		if (strcmp(option->keyword, keyword) != 0)
			continue;
		if (option->val != NULL)
			return option->val;
		return option->envvar ? getenv(option->envvar) : NULL;
	}
	return NULL;
}

/* Returns true for the options that are set here in another way. */
static bool
is_own_keyword(const char *keyword)
{
	static const char *const own[] = {"options", "client_encoding", "host", "hostaddr", "port"};

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strcmp(keyword, own[i]) == 0)
			return true;
	return false;
}

/* A connection that a firewall has forgotten is noticed, unless the connection string says otherwise. */
static void
add_keepalives(const PQconninfoOption *options)
{
	static const char *const defaults[][2] = {
		{"keepalives_idle", "30"}, {"keepalives_interval", "10"}, {"keepalives_count", "3"}, {"tcp_user_timeout", "30000"}
	};

	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		if (option_value(options, defaults[i][0]) == NULL)
			add_keyword(defaults[i][0], defaults[i][1]);
}

/* libpq would print them between the lines of the log, and functions of users write them. */
void
conninfo_ignore_notice(void *arg, const PGresult *notice)
{
	(void) arg;
	(void) notice;
}

bool
conninfo_read(void)
{
	PQconninfoOption *options;
	char	   *message = NULL;
	const char *host;

	options = PQconninfoParse(config.database, &message);
	if (options == NULL)
	{
		log_line(LOG_LEVEL_ERROR, "unusable_setting", LOG_TEXT("setting", "database"), LOG_TEXT("message", message));
		PQfreemem(message);
		return false;
	}
	parsed = options;
	for (const PQconninfoOption *option = options; option->keyword; option++)
		if (!is_own_keyword(option->keyword))
			add_keyword(option->keyword, option->val);
	host = option_value(options, "host");
	if (option_value(options, "hostaddr") != NULL || host == NULL)
	{
		add_keyword("host", host);
		add_keyword("hostaddr", option_value(options, "hostaddr"));
		add_keyword("port", option_value(options, "port"));
	}
	else if (!resolve_hosts(host, option_value(options, "port")))
		return false;
	add_keepalives(options);
	add_keyword("client_encoding", "UTF8");
	add_keyword("fallback_application_name", "eventstore-gateway");
	keywords[keyword_count] = "options";
	memcpy(background_values, values, sizeof(values));
	values[keyword_count] = session_options(option_value(options, "options"), config.statement_timeout);
	background_values[keyword_count] = session_options(option_value(options, "options"), 0);
	return values[keyword_count] != NULL && background_values[keyword_count] != NULL;
}

void
conninfo_free(void)
{
	PQconninfoFree(parsed);
	parsed = NULL;
	keyword_count = 0;
}
