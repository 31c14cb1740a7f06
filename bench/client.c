/*-------------------------------------------------------------------------
 *
 * client.c
 *		Clients for what pgbench cannot do, which is waiting for events, and
 *		reading the log to its end.
 *
 *	client idle COUNT
 *		Opens COUNT sessions that LISTEN to es_events, prints "ready", and
 *		reads notifications until its input ends.  Then prints their number.
 *	client wake COUNT
 *		Appends COUNT events, one at a time with random pauses between them.
 *		Prints for each the microseconds from sending COMMIT until a listening
 *		session was notified of its position.
 *	client project COUNT NAME
 *		The same until es_wait() for the projection returned.
 *	client poll COUNT NAME
 *		The same until a long poll of the subscription returned the event.
 *	client read CLIENTS UPTO SIZE
 *		Reads the log up to the position by SELECT ... LIMIT SIZE, each client
 *		one part of it, and prints the events a second.
 *	client share CLIENTS UPTO SIZE
 *		The same, but the clients divide the streams among them, by the same
 *		function as the partitions of a subscription.
 *	client deliver CLIENTS UPTO SIZE NAME BATCHES
 *		The same by es_poll in batches of this size, with an es_ack after BATCHES
 *		of them.
 *
 * The environment has the connection.  Appends do not wait for the disk, which is
 * not measured here.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "session.h"

#define MAX_SESSIONS 1000

/* The longest pause between two appends, and how long to wait, in ms. */
#define LONGEST_PAUSE 50
#define PATIENCE 10000

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

/* Sends a long poll, before there is anything to be delivered. */
static void
send_poll(PGconn *session, const char *subscription)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT token FROM es_poll('%s', wait => '10s')",
			 subscription);
	if (!PQsendQuery(session, sql))
		fail("es_poll", session);
}

/* Waits for what it brings.  Returns the token, to be freed. */
static char *
wait_for_poll(PGconn *session)
{
	PGresult   *result = PQgetResult(session);
	char	   *token;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		fail("es_poll did not bring one event\n", session);
	token = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	while ((result = PQgetResult(session)) != NULL)
		PQclear(result);
	return token;
}

static void
acknowledge(PGconn *session, const char *subscription, char *token)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT es_ack('%s', %s)", subscription, token);
	run(session, sql);
	free(token);
}

/* What is measured: until when. */
typedef enum Until
{
	UNTIL_NOTIFIED, UNTIL_PROJECTED, UNTIL_DELIVERED
} Until;

static void
measure(int count, Until until, const char *name)
{
	PGconn	   *appender = open_session("SET synchronous_commit = off");
	PGconn	   *other = open_session(until == UNTIL_NOTIFIED ?
									 "LISTEN es_events" : "SELECT 1");

	srandom(time(NULL) ^ getpid());
	if (until == UNTIL_DELIVERED)
	{
		char		sql[200];

		snprintf(sql, sizeof(sql), "SELECT es_seek('%s', NULL)", name);
		run(other, sql);
	}
	while (count-- > 0)
	{
		double		start;
		char	   *position;
		char	   *token = NULL;

		if (until == UNTIL_DELIVERED)
			send_poll(other, name);
		usleep(random() % (LONGEST_PAUSE * 1000));
		run(appender, "BEGIN");
		position = ask(appender, "SELECT position FROM es_append('latency-1', 'any', 'measured')");
		start = now();
		run(appender, "COMMIT");
		if (until == UNTIL_PROJECTED)
			wait_for_projection(appender, name, atoll(position));
		else if (until == UNTIL_DELIVERED)
			token = wait_for_poll(other);
		else
			wait_for_wake_up(other, atoll(position));
		printf("%.0f\n", now() - start);
		if (token != NULL)
			acknowledge(other, name, token);
		(void) take(other, 0);
		free(position);
	}
	PQfinish(appender);
	PQfinish(other);
}

/* One client of several that read the log, and what they have in common. */
typedef struct Reader
{
	PGconn	   *session;
	int			number;
	int			clients;
	long long	upto;
	int			size;			/* of a batch */
	bool		share;
	const char *subscription;	/* NULL: by SELECT */
	int			batches;		/* for one es_ack */
	atomic_llong *left;			/* events that nobody has read so far */
} Reader;

/* Reads its part of the log by SELECT. */
static void
read_log(Reader *reader)
{
	char		sql[300];
	char		position[30];
	char		end[30];
	const char *values[2] = {position, end};
	long long	part = reader->upto / reader->clients;
	long long	first = reader->share ? 0 : part * reader->number;
	int			count;

	snprintf(sql, sizeof(sql),
			 "SELECT * FROM es_events WHERE position > $1 AND position <= $2"
			 " AND (%d = 1 OR es_partition(stream, %d) = %d) ORDER BY position LIMIT %d",
			 reader->share ? reader->clients : 1, reader->clients, reader->number,
			 reader->size);
	prepare(reader->session, "read", sql);
	snprintf(position, sizeof(position), "%lld", first);
	snprintf(end, sizeof(end), "%lld", reader->share ||
			 reader->number == reader->clients - 1 ? reader->upto : first + part);
	do
	{
		PGresult   *result = execute(reader->session, "read", 2, values);

		count = PQntuples(result);
		if (count > 0)
			snprintf(position, sizeof(position), "%s",
					 PQgetvalue(result, count - 1, 0));
		atomic_fetch_sub(reader->left, count);
		PQclear(result);
	} while (count > 0);
}

/* Reads by es_poll, until nothing is left. */
static void
read_deliveries(Reader *reader)
{
	char		consumer[30];
	char		size[30];
	char		token[30] = "";
	const char *poll_values[4] = {reader->subscription, consumer, NULL, size};
	const char *ack_values[2] = {reader->subscription, token};
	int			batches = 0;

	snprintf(consumer, sizeof(consumer), "%d", reader->number);
	snprintf(size, sizeof(size), "%d", reader->size);
	prepare(reader->session, "poll",
			"SELECT * FROM es_poll($1, $2, $4::bigint, after_token => $3::bigint)");
	prepare(reader->session, "ack", "SELECT es_ack($1, $2::bigint)");
	while (atomic_load(reader->left) > 0 || batches > 0)
	{
		PGresult   *result = execute(reader->session, "poll", 4, poll_values);
		int			count = PQntuples(result);

		if (count > 0)
		{
			snprintf(token, sizeof(token), "%s", PQgetvalue(result, 0, 0));
			batches++;
			atomic_fetch_sub(reader->left, count);
		}
		PQclear(result);
		poll_values[2] = batches > 0 ? token : NULL;
		if (batches > 0 && (batches == reader->batches || count < reader->size))
		{
			PQclear(execute(reader->session, "ack", 2, ack_values));
			poll_values[2] = NULL;
			batches = 0;
		}
	}
}

/* Lets several clients read at once, and says how fast they were. */
static void
read_all(Reader reader)
{
	double		start;
	int			status;
	bool		failed = false;

	reader.left = mmap(NULL, sizeof(*reader.left), PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (reader.left == MAP_FAILED)
		exit(1);
	atomic_init(reader.left, reader.upto);
	start = now();
	for (reader.number = 0; reader.number < reader.clients; reader.number++)
	{
		if (fork() == 0)
		{
			reader.session = open_session("SELECT 1");
			if (reader.subscription != NULL)
				read_deliveries(&reader);
			else
				read_log(&reader);
			PQfinish(reader.session);
			exit(0);
		}
	}
	while (wait(&status) > 0)
		failed = failed || status != 0;
	if (failed || atomic_load(reader.left) != 0)
	{
		fprintf(stderr, "client: %lld events are left\n",
				(long long) atomic_load(reader.left));
		exit(1);
	}
	printf("%.0f\n", reader.upto / ((now() - start) / 1e6));
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	int			count = argc > 2 ? atoi(argv[2]) : 0;

	if (argc == 3 && strcmp(mode, "idle") == 0 && count > 0 && count <= MAX_SESSIONS)
		stay_idle(count);
	else if (argc == 3 && strcmp(mode, "wake") == 0)
		measure(count, UNTIL_NOTIFIED, NULL);
	else if (argc == 4 && strcmp(mode, "project") == 0)
		measure(count, UNTIL_PROJECTED, argv[3]);
	else if (argc == 4 && strcmp(mode, "poll") == 0)
		measure(count, UNTIL_DELIVERED, argv[3]);
	else if (argc == 5 && (strcmp(mode, "read") == 0 || strcmp(mode, "share") == 0))
		read_all((Reader) {.clients = count,.upto = atoll(argv[3]),.size = atoi(argv[4]),
				 .share = mode[0] == 's'});
	else if (argc == 7 && strcmp(mode, "deliver") == 0)
		read_all((Reader) {.clients = count,.upto = atoll(argv[3]),.size = atoi(argv[4]),
				 .subscription = argv[5],.batches = atoi(argv[6])});
	else
	{
		fputs("usage: client MODE COUNT [ARGUMENTS]; the modes are in client.c\n", stderr);
		return 2;
	}
	return 0;
}
