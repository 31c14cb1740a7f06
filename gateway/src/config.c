/*-------------------------------------------------------------------------
 *
 * config.c
 *		Settings: the table, the file, the command line.
 *
 * Arguments are read twice: for --config first, and again after the file, so that
 * they win.  Texts that are set live as long as the program.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "text.h"

#define MESSAGE_SIZE	256

Config		config;

#define TEXT(name_, fallback_, sentence_) \
	{.name = #name_, .type = SETTING_TEXT, .offset = offsetof(Config, name_), .fallback = fallback_, \
	.sentence = sentence_}
#define NUMBER(name_, fallback_, min_, max_, unit_, sentence_) \
	{.name = #name_, .type = SETTING_NUMBER, .offset = offsetof(Config, name_), .fallback = fallback_, \
	.min = min_, .max = max_, .unit = unit_, .sentence = sentence_}
#define BOOL(name_, fallback_, sentence_) \
	{.name = #name_, .type = SETTING_BOOL, .offset = offsetof(Config, name_), .fallback = fallback_, \
	.sentence = sentence_}
#define GROUP(group_)	{.group = group_}

const Setting settings[] = {
	GROUP("Where it listens"),
	TEXT(listen, "127.0.0.1:8080", "The address and port to listen on; \"*\" is every address, port 0 any free one."),
	TEXT(tls_certificate, "", "A file with the certificate chain (PEM); with tls_key it turns TLS on."),
	TEXT(tls_key, "", "A file with the certificate's private key (PEM)."),
	BOOL(allow_plain_http, "off", "Allows an address that is not loopback without TLS, as behind a proxy."),
	BOOL(trust_proxy, "off", "Takes the client's address from X-Forwarded-For, for the log and for limits."),

	GROUP("The database"),
	TEXT(database, "dbname=postgres", "How to connect: a connection string of libpq."),
	NUMBER(pool_size, "8", 1, 1000, NULL, "Connections for requests."),
	NUMBER(background_connections, "2", 0, 100, NULL, "Connections at most for statements in the background."),
	NUMBER(queue_limit, "256", 1, 100000, NULL, "Requests that may wait for a connection; more are answered 503."),
	NUMBER(queue_timeout, "5000", 1, 600000, "ms", "How long a request waits for a connection before it is answered 503."),
	NUMBER(statement_timeout, "30000", 0, 3600000, "ms", "How long a statement may take; 0 is without limit."),
	NUMBER(connect_timeout, "5", 1, 600, "s", "How long opening a connection may take."),

	GROUP("Who may do what"),
	TEXT(anonymous_role, "", "The role of requests without a token; empty: they are answered 401."),
	TEXT(token_file, "", "A file of tokens: lines \"sha256-of-the-token role\"."),
	TEXT(jwt_keys, "", "A file that lists the keys of JSON web tokens."),
	TEXT(jwt_issuer, "", "The issuer (iss) that a JSON web token must have; empty: any."),
	TEXT(jwt_audience, "", "The audience (aud) that a JSON web token must have; empty: any."),
	TEXT(role_claim, "role", "The claim of a JSON web token that names the role."),
	TEXT(roles, "", "What role_claim may say: \"role, value=role\"; empty: any role that the gateway may set."),
	BOOL(jwt_require_exp, "on", "Refuses a JSON web token that does not expire."),
	NUMBER(jwt_leeway, "30", 0, 3600, "s", "By how much clocks may differ."),
	TEXT(metrics_role, "", "The role whose token may read /metrics; empty: anybody."),
	TEXT(cors_origins, "", "Origins of other sites whose pages may use the gateway, separated by commas."),

	GROUP("Limits"),
	NUMBER(max_connections, "20000", 1, 1000000, NULL, "Connections of clients."),
	NUMBER(max_connections_per_address, "0", 0, 1000000, NULL, "Connections of one address; 0 is without limit."),
	NUMBER(max_requests_per_address, "0", 0, 1000000, NULL,
		"Requests of one address at once; more are answered 429; 0 is without limit."),
	NUMBER(connection_memory, "16384", 4096, 1048576, "bytes",
		"Memory for a connection's heads and buffers; a larger head is answered 431."),
	NUMBER(max_body, "16777216", 0, 1073741823, "bytes", "The largest body of a request; a larger one is answered 413."),
	NUMBER(max_target, "8192", 64, 65536, "bytes", "The longest target of a request; a longer one is answered 414."),
	NUMBER(request_timeout, "30", 1, 3600, "s", "How long a client may take to send a request."),
	NUMBER(idle_timeout, "60", 1, 3600, "s", "How long a connection may be without a request, or a client not read."),
	NUMBER(drain_timeout, "30", 0, 3600, "s", "How long SIGTERM waits for requests to end."),

	GROUP("Event streams and long polls"),
	NUMBER(max_followers, "20000", 0, 1000000, NULL, "Event streams at once; more are answered 503."),
	NUMBER(follow_batch, "500", 1, 10000, NULL, "Events that an event stream reads at once."),
	NUMBER(follow_queue, "262144", 1024, 67108864, "bytes", "What may wait for a client that reads slowly."),
	NUMBER(poll_interval, "1000", 10, 60000, "ms", "How often to look for events without a notification."),
	NUMBER(heartbeat, "15", 1, 3600, "s", "How often an event stream without events gets a comment."),
	NUMBER(max_wait, "60", 0, 3600, "s", "The longest wait of a long poll."),

	GROUP("The rest"),
	TEXT(console_dir, CONSOLE_DIR, "The folder of the console's files; empty: no console."),
	TEXT(log_level, "info", "The least level of lines in the log: debug, info, warning or error."),
	BOOL(log_requests, "on", "Writes a line for each request."),
	{0}
};

static const Setting *
setting_find(const char *name)
{
	for (const Setting *setting = settings; setting->name || setting->group; setting++)
		if (setting->name && strcmp(setting->name, name) == 0)
			return setting;
	return NULL;
}

static bool
setting_parse_number(const Setting *setting, const char *value, char *message)
{
	char	   *end;
	long long	number;

	errno = 0;
	number = strtoll(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0)
	{
		snprintf(message, MESSAGE_SIZE, "%s must be a number, and is \"%.60s\"", setting->name, value);
		return false;
	}
	if (number < setting->min || number > setting->max)
	{
		snprintf(message, MESSAGE_SIZE, "%s must be from %lld to %lld, and is %lld", setting->name,
				 (long long) setting->min, (long long) setting->max, number);
		return false;
	}
	*(int64_t *) ((char *) &config + setting->offset) = number;
	return true;
}

static bool
setting_parse_bool(const Setting *setting, const char *value, char *message)
{
	bool		on = strcmp(value, "on") == 0 || strcmp(value, "true") == 0;

	if (!on && strcmp(value, "off") != 0 && strcmp(value, "false") != 0)
	{
		snprintf(message, MESSAGE_SIZE, "%s must be on or off, and is \"%.60s\"", setting->name, value);
		return false;
	}
	*(bool *) ((char *) &config + setting->offset) = on;
	return true;
}

/* Sets one by its name; returns false with a message. */
static bool
config_set(const char *name, const char *value, char *message)
{
	const Setting *setting = setting_find(name);
	char	   *copy;
	char	  **place;

	if (setting == NULL)
	{
		snprintf(message, MESSAGE_SIZE, "there is no setting \"%.60s\"", name);
		return false;
	}
	if (setting->type == SETTING_NUMBER)
		return setting_parse_number(setting, value, message);
	if (setting->type == SETTING_BOOL)
		return setting_parse_bool(setting, value, message);
	copy = strdup(value);
	if (copy == NULL)
	{
		snprintf(message, MESSAGE_SIZE, "out of memory");
		return false;
	}
	place = (char **) ((char *) &config + setting->offset);
	free(*place);
	*place = copy;
	return true;
}

bool
config_init(void)
{
	char		message[MESSAGE_SIZE];

	for (const Setting *setting = settings; setting->name || setting->group; setting++)
		if (setting->name && !config_set(setting->name, setting->fallback, message))
		{
			fprintf(stderr, "eventstore-gateway: %s\n", message);
			return false;
		}
	return true;
}

/* Sets what a line says; returns false with a message. */
static bool
config_line(char *line, char *message)
{
	char	   *name = text_trim(line);
	char	   *value = strchr(name, '=');

	if (*name == '\0' || *name == '#')
		return true;
	if (value == NULL)
	{
		snprintf(message, MESSAGE_SIZE, "this is not \"name = value\"");
		return false;
	}
	*value = '\0';
	return config_set(text_trim(name), text_trim(value + 1), message);
}

static bool
config_read_file(const char *path)
{
	FILE	   *file = fopen(path, "re");
	char		message[MESSAGE_SIZE];
	char	   *line = NULL;
	size_t		size = 0;
	int			number = 0;
	bool		good = file != NULL;

	if (!good)
		fprintf(stderr, "eventstore-gateway: cannot read %s: %s\n", path, strerror(errno));
	while (good && getline(&line, &size, file) >= 0)
	{
		number++;
		good = config_line(line, message);
		if (!good)
			fprintf(stderr, "eventstore-gateway: %s, line %d: %s\n", path, number, message);
	}
	if (good && ferror(file))
	{
		good = false;
		fprintf(stderr, "eventstore-gateway: cannot read %s\n", path);
	}
	free(line);
	if (file != NULL)
		fclose(file);
	return good;
}

/* Reads "--name=value" or "--name value"; returns the arguments that it takes, or 0 with a message. */
static int
config_argument(char **argv, bool config_alone, const char **file)
{
	char		name[64];
	char		message[MESSAGE_SIZE];
	const char *value = strchr(argv[0], '=');
	size_t		length = value ? (size_t) (value - argv[0]) : strlen(argv[0]);
	int			used = value ? 1 : 2;

	value = value ? value + 1 : argv[1];
	if (strncmp(argv[0], "--", 2) != 0 || length < 3 || length - 2 >= sizeof(name))
		snprintf(message, MESSAGE_SIZE, "\"%.60s\" is not an argument", argv[0]);
	else if (value == NULL)
		snprintf(message, MESSAGE_SIZE, "%.60s needs a value", argv[0]);
	else
	{
		memcpy(name, argv[0] + 2, length - 2);
		name[length - 2] = '\0';
		for (char *c = name; *c; c++)
			if (*c == '-')
				*c = '_';
		if (strcmp(name, "config") == 0)
		{
			*file = value;
			return used;
		}
		if (config_alone || config_set(name, value, message))
			return used;
	}
	fprintf(stderr, "eventstore-gateway: %s; --help lists the settings\n", message);
	return 0;
}

bool
config_read(int argc, char **argv, const char *default_file)
{
	const char *file = NULL;

	for (int round = 0; round < 2; round++)
	{
		for (int i = 1; i < argc;)
		{
			int			used = config_argument(argv + i, round == 0, &file);

			if (used == 0)
				return false;
			i += used;
		}
		if (round == 0 && file == NULL && access(default_file, F_OK) == 0)
			file = default_file;
		if (round == 0 && file != NULL && *file != '\0' && !config_read_file(file))
			return false;
	}
	return true;
}

void
config_help(void)
{
	for (const Setting *setting = settings; setting->name || setting->group; setting++)
	{
		if (setting->group)
		{
			printf("\n%s\n", setting->group);
			continue;
		}
		printf("  %s = %s%s%s\n      %s\n", setting->name, setting->fallback,
			   setting->unit ? " " : "", setting->unit ? setting->unit : "", setting->sentence);
	}
}
