/*-------------------------------------------------------------------------
 *
 * listen.c
 *		What pgbench cannot do: waiting for notifications.
 *
 *	listen idle COUNT
 *		Opens so many sessions that LISTEN to es_events, says "ready", and
 *		reads what comes until its input ends; then says how many notifications
 *		that were.
 *	listen wake COUNT
 *		Appends so many events, one at a time with random pauses between them,
 *		and says for each how many microseconds it took from sending COMMIT
 *		until a session that listens was told of its position.
 *	listen project COUNT NAME
 *		The same until es_wait() for this projection returned.
 *
 * Connects as the environment says.  Appends do not wait for the disk, which is
 * not what is measured.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_SESSIONS 1000

/* The longest pause between two appends, and how long to wait, in ms. */
#define LONGEST_PAUSE 50
#define PATIENCE 10000

static void
fail(const char *what, PGconn *session)
{
	fprintf(stderr, "listen: %s: %s", what, PQerrorMessage(session));
	exit(1);
}

/* Runs a statement; returns the first value of its answer, to be freed. */
static char *
ask(PGconn *session, const char *sql)
{
	PGresult   *result = PQexec(session, sql);
	ExecStatusType status = PQresultStatus(result);
	char	   *value;

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		fail(sql, session);
	value = strdup(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
	return value;
}

static void
run(PGconn *session, const char *sql)
{
	free(ask(session, sql));
}

static PGconn *
open_session(const char *first)
{
	PGconn	   *session = PQconnectdb("");

	if (PQstatus(session) != CONNECTION_OK)
		fail("cannot connect", session);
	run(session, first);
	return session;
}

/* Takes what has arrived.  How many notifications have a position that is not below? */
static int
take(PGconn *session, long long position)
{
	PGnotify   *notify;
	int			count = 0;

	if (!PQconsumeInput(session))
		fail("the connection is lost", session);
	while ((notify = PQnotifies(session)) != NULL)
	{
		if (atoll(notify->extra) >= position)
			count++;
		PQfreemem(notify);
	}
	return count;
}

static void
stay_idle(int count)
{
	static struct pollfd polls[MAX_SESSIONS + 1];
	static PGconn *sessions[MAX_SESSIONS];
	long		heard = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		sessions[i] = open_session("LISTEN es_events");
		polls[i].fd = PQsocket(sessions[i]);
		polls[i].events = POLLIN;
	}
	polls[count].fd = STDIN_FILENO;
	polls[count].events = POLLIN;
	puts("ready");
	fflush(stdout);
	while (polls[count].revents == 0)
	{
		poll(polls, count + 1, -1);
		for (i = 0; i < count; i++)
		{
			if (polls[i].revents != 0)
				heard += take(sessions[i], 0);
		}
	}
	printf("%ld\n", heard);
	for (i = 0; i < count; i++)
		PQfinish(sessions[i]);
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

/* Waits until the listener is told of the position. */
static void
wait_for_wake_up(PGconn *listener, long long position)
{
	struct pollfd poll_for = {PQsocket(listener), POLLIN, 0};

	while (take(listener, position) == 0)
	{
		if (poll(&poll_for, 1, PATIENCE) == 0)
			fail("nothing was heard\n", listener);
	}
}

static void
wait_for_projection(PGconn *session, const char *name, long long position)
{
	char		sql[200];
	char	   *answer;

	snprintf(sql, sizeof(sql), "SELECT es_wait('%s', %lld)", name, position);
	answer = ask(session, sql);
	if (strcmp(answer, "t") != 0)
		fail("the projection did not come\n", session);
	free(answer);
}

static void
measure(int count, const char *projection)
{
	PGconn	   *appender = open_session("SET synchronous_commit = off");
	PGconn	   *listener = open_session("LISTEN es_events");

	srandom(time(NULL) ^ getpid());
	while (count-- > 0)
	{
		double		start;
		char	   *position;

		usleep(random() % (LONGEST_PAUSE * 1000));
		run(appender, "BEGIN");
		position = ask(appender, "SELECT position FROM es_append('latency-1', 'any', 'measured')");
		start = now();
		run(appender, "COMMIT");
		if (projection != NULL)
			wait_for_projection(appender, projection, atoll(position));
		else
			wait_for_wake_up(listener, atoll(position));
		printf("%.0f\n", now() - start);
		(void) take(listener, 0);
		free(position);
	}
	PQfinish(appender);
	PQfinish(listener);
}

int
main(int argc, char **argv)
{
	int			count = argc > 2 ? atoi(argv[2]) : 0;

	if (argc == 3 && strcmp(argv[1], "idle") == 0 &&
		count > 0 && count <= MAX_SESSIONS)
		stay_idle(count);
	else if (argc == 3 && strcmp(argv[1], "wake") == 0)
		measure(count, NULL);
	else if (argc == 4 && strcmp(argv[1], "project") == 0)
		measure(count, argv[3]);
	else
	{
		fputs("usage: listen idle COUNT | wake COUNT | project COUNT NAME\n", stderr);
		return 2;
	}
	return 0;
}
