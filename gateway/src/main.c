/*-------------------------------------------------------------------------
 *
 * main.c
 *		eventstore-gateway: HTTP for an event store in PostgreSQL.
 *
 * Signals come by a signalfd:
 *
 *		SIGHUP			reads key and token files again
 *		SIGTERM, SIGINT	drain: no more connections, event streams end, requests are
 *						finished within drain_timeout.  A second one ends it at once.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "auth.h"
#include "config.h"
#include "cors.h"
#include "follow.h"
#include "log.h"
#include "login.h"
#include "loop.h"
#include "pool.h"
#include "server.h"
#include "static.h"
#include "tls.h"
#include "token.h"
#include "wait.h"
#include "wake.h"

#define DEFAULT_FILE	"/etc/eventstore-gateway/eventstore-gateway.conf"
#define DRAIN_CHECK_MS	20
#define OWN_FILES		32		/* descriptors beside those of the pool and of clients */

static int	signal_fd = -1;
static LoopFd *signal_watch;
static LoopTimer drain_timer;
static int64_t drain_end;

static void
print_help(void)
{
	printf("eventstore-gateway serves an event store in PostgreSQL over HTTP.\n\n"
		   "Usage: eventstore-gateway [--config=FILE] [--SETTING=VALUE ...]\n"
		   "       eventstore-gateway --hash-token ROLE [COMMENT]    reads a token, prints its line of token_file\n"
		   "       eventstore-gateway --check [...]          checks the settings and the files that they name\n"
		   "       eventstore-gateway --help | --version\n\n"
		   "The file is " DEFAULT_FILE ", if there is one.  It has a line \"setting = value\" for each setting.\n"
		   "SIGHUP reads key and token files again.  SIGTERM finishes what is under way.\n");
	config_help();
}

static void
drain_check(void *arg)
{
	(void) arg;
	if (server_request_count() == 0 || loop_now() >= drain_end)
		loop_stop();
	else
		loop_timer_start(&drain_timer, DRAIN_CHECK_MS, drain_check, NULL);
}

static void
drain(void)
{
	if (server_is_draining())
	{
		loop_stop();
		return;
	}
	log_line(LOG_LEVEL_INFO, "draining", LOG_NUMBER("requests", server_request_count()));
	drain_end = loop_now() + config.drain_timeout * 1000;
	server_quiesce();
	follow_drain();
	wait_drain();
	drain_check(NULL);
}

static void
signal_ready(uint32_t events, void *arg)
{
	struct signalfd_siginfo info;

	(void) events;
	(void) arg;
	while (read(signal_fd, &info, sizeof(info)) == sizeof(info))
	{
		if (info.ssi_signo != SIGHUP)
			drain();
		else if (auth_load())
			server_each_request(auth_recheck);
	}
}

static bool
catch_signals(void)
{
	sigset_t	signals;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
		return false;
	signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signal_fd >= 0)
		signal_watch = loop_add_fd(signal_fd, EPOLLIN, signal_ready, NULL);
	return signal_watch != NULL;
}

/* Every client is a descriptor.  Clients must not take those that connections to the database need. */
static void
raise_file_limit(void)
{
	struct rlimit limit;
	int64_t		own = config.pool_size + config.background_connections + OWN_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= (rlim_t) (config.max_connections + own))
		return;
	log_message(LOG_LEVEL_WARNING, "limits", "max_connections is %lld, but there may be %llu open files (ulimit -n)",
				(long long) config.max_connections, (unsigned long long) limit.rlim_cur);
	config.max_connections = limit.rlim_cur > (rlim_t) own ? (int64_t) limit.rlim_cur - own : 1;
}

static bool
read_log_level(void)
{
	static const char *const levels[] = {"debug", "info", "warning", "error"};

	for (int i = 0; i < 4; i++)
	{
		if (strcmp(config.log_level, levels[i]) == 0)
		{
			log_set_level((LogLevel) i);
			return true;
		}
	}
	log_message(LOG_LEVEL_ERROR, "unusable_setting", "log_level is debug, info, warning or error, and not \"%s\"",
				config.log_level);
	return false;
}

static void
stop(void)
{
	/* requests first: they may have listeners and jobs */
	server_stop();
	login_stop();
	wake_stop();
	pool_stop();
	auth_free();
	cors_free();
	static_free();
	tls_free();
	loop_remove_fd(signal_watch);
	signal_watch = NULL;
	loop_free();
}

static int
run(void)
{
	unsigned	seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = (unsigned) getpid();
	srandom(seed);
	raise_file_limit();
	if (!loop_init() || !catch_signals())
	{
		log_message(LOG_LEVEL_ERROR, "start", "cannot start: %s", strerror(errno));
		return 1;
	}
	if (!static_load() || !pool_start() || !wake_start() || !server_start())
	{
		stop();
		return 1;
	}
	login_inspect();
	loop_run();
	stop();
	log_line(LOG_LEVEL_INFO, "stopped", LOG_NUMBER("pid", getpid()));
	return 0;
}

int
main(int argc, char **argv)
{
	bool		check = argc > 1 && strcmp(argv[1], "--check") == 0;

	if (argc > 1 && strcmp(argv[1], "--version") == 0)
	{
		printf("eventstore-gateway %s\n", GATEWAY_VERSION);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--hash-token") == 0)
		return token_print_line(stdin, argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
	if (!config_init())
		return 2;
	if (argc > 1 && strcmp(argv[1], "--help") == 0)
	{
		print_help();
		return 0;
	}
	if (!config_read(check ? argc - 1 : argc, check ? argv + 1 : argv, DEFAULT_FILE))
		return 2;
	if (!read_log_level() || !auth_load() || !cors_load() || !tls_check())
		return 2;
	return check ? 0 : run();
}
