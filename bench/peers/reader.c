/*-------------------------------------------------------------------------
 *
 * reader.c
 *		Readers of the log of a store, for what pgbench cannot do.
 *
 *	reader catch-up EVENTS SECONDS
 *		Reads the log from its start in pages until it has EVENTS events or
 *		SECONDS seconds are over, and prints the events a second.
 *	reader follow RULE
 *		Prints "ready", and follows the log from its end while others append,
 *		until its input ends.  Meanwhile it appends events itself, one at a time
 *		with random pauses between them.  For each it prints the microseconds
 *		from the answer to the append until the event was read, or "late" if
 *		that took too long.  At the end it prints the number of events that it
 *		has read, and of those that were stored up to the last one.
 *
 * RULE is its behaviour when there may be nothing to read:
 *		listen CHANNEL	wait for a notification, then read until a page is not
 *						full
 *		eventide		after an empty page wait 100 ms
 *		emmett			after a full page wait 50 ms, after another one twice
 *						the previous time, from 100 ms up to a second
 *
 * The statements are in the environment:
 *		PAGE			the next page after position $1
 *		PAGE_SIZE		how many events a full one has
 *		POSITION		the column of it that has the position
 *		STREAM			the column that has the stream's name
 *		LAST			the last position
 *		APPEND			appends one event to the stream $1
 *		COUNT			how many events are stored after position $1 up to $2
 *
 * Connects as the environment says.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../session.h"

/* The longest pause between two appends, in ms; how long to wait, in us. */
#define LONGEST_PAUSE 20
#define PATIENCE 5e6

/* So many events can be told from each other. */
#define MAX_PROBES 10000
#define MAX_POSITIONS 10000000

/* What the appending and the reading process share. */
typedef struct Shared
{
	_Atomic double read_at[MAX_PROBES]; /* 0: not yet */
	atomic_llong last;			/* position of the last event read */
	int			backend;		/* the process that serves the reading process */
	long long	start;			/* position before the first one */
	char		probes[60];		/* how their streams' names begin */
	bool		seen[MAX_POSITIONS];	/* by position after the start */
} Shared;

static const char *
setting(const char *name)
{
	const char *value = getenv(name);

	if (value == NULL)
	{
		fprintf(stderr, "reader: %s is not set\n", name);
		exit(2);
	}
	return value;
}

/* Reads the page after the position. */
static PGresult *
read_page(PGconn *session, long long position)
{
	char		text[30];
	const char *values[1] = {text};

	snprintf(text, sizeof(text), "%lld", position);
	return execute(session, "page", 1, values);
}

static void
catch_up(long long events, double seconds)
{
	PGconn	   *session = open_session("SELECT 1");
	double		start = now();
	long long	position = 0;
	long long	done = 0;
	int			count;

	prepare(session, "page", setting("PAGE"));
	do
	{
		PGresult   *page = read_page(session, position);

		count = PQntuples(page);
		if (count > 0)
			position = atoll(PQgetvalue(page, count - 1, PQfnumber(page, setting("POSITION"))));
		done += count;
		PQclear(page);
	} while (count > 0 && done < events && now() - start < seconds * 1e6);
	printf("%.0f\n", done / ((now() - start) / 1e6));
	PQfinish(session);
}

/* Notes which events have been read.  Returns how many the page had. */
static int
take_page(PGconn *session, Shared *shared)
{
	PGresult   *page = read_page(session, shared->last);
	double		time = now();
	int			position_column = PQfnumber(page, setting("POSITION"));
	int			stream_column = PQfnumber(page, setting("STREAM"));
	int			count = PQntuples(page);
	size_t		length = strlen(shared->probes);

	for (int i = 0; i < count; i++)
	{
		long long	position = atoll(PQgetvalue(page, i, position_column));
		const char *stream = PQgetvalue(page, i, stream_column);

		if (position > shared->start && position - shared->start < MAX_POSITIONS)
			shared->seen[position - shared->start] = true;
		if (strncmp(stream, shared->probes, length) == 0)
		{
			_Atomic double *read_at = &shared->read_at[atoi(stream + length)];

			if (*read_at == 0)
				*read_at = time;
		}
		shared->last = position;
	}
	PQclear(page);
	return count;
}

/* Waits until something was notified, and takes all that was. */
static void
wait_for_notification(PGconn *session)
{
	struct pollfd poll_for = {PQsocket(session), POLLIN, 0};
	PGnotify   *notify;
	bool		notified = false;

	do
	{
		if (!PQconsumeInput(session))
			fail("the connection is lost", session);
		while ((notify = PQnotifies(session)) != NULL)
		{
			notified = true;
			PQfreemem(notify);
		}
	} while (!notified && poll(&poll_for, 1, -1) > 0);
}

/* Follows the log, until it is killed. */
static void
follow(PGconn *session, Shared *shared, const char *rule)
{
	int			page_size = atoi(setting("PAGE_SIZE"));
	int			pause = 100;

	for (;;)
	{
		int			count = take_page(session, shared);

		if (strcmp(rule, "listen") == 0)
		{
			if (count < page_size)
				wait_for_notification(session);
		}
		else if (strcmp(rule, "eventide") == 0)
		{
			if (count == 0)
				usleep(pause * 1000);
		}
		else
		{
			/* The pause is that of the page before. */
			usleep(pause * 1000);
			pause = count == page_size ? 50 : pause * 2 > 1000 ? 1000 : pause * 2;
		}
	}
}

/* Appends until the input ends.  Returns how many, and notes when each was done. */
static int
append_probes(Shared *shared, double *sent_at)
{
	PGconn	   *session = open_session("SELECT 1");
	struct pollfd input = {STDIN_FILENO, POLLIN, 0};
	char		stream[100];
	const char *values[1] = {stream};
	int			count = 0;

	prepare(session, "append", setting("APPEND"));
	while (count < MAX_PROBES && poll(&input, 1, random() % LONGEST_PAUSE) == 0)
	{
		snprintf(stream, sizeof(stream), "%s%d", shared->probes, count);
		PQclear(execute(session, "append", 1, values));
		sent_at[count++] = now();
	}
	PQfinish(session);
	return count;
}

static bool
all_read(Shared *shared, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (shared->read_at[i] == 0)
			return false;
	}
	return true;
}

/* Ends the reading process, and the work of the server for it. */
static void
end_follower(PGconn *session, Shared *shared, pid_t follower)
{
	char		sql[150];

	kill(follower, SIGTERM);
	waitpid(follower, NULL, 0);
	snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(pid, 10000)"
			 " FROM pg_stat_activity WHERE pid = %d", shared->backend);
	run(session, sql);
}

/* Says how much was read of what is stored up to there. */
static void
say_read(PGconn *session, Shared *shared)
{
	char		start[30];
	char		last[30];
	const char *values[2] = {start, last};
	long long	count = 0;
	PGresult   *stored;

	for (int i = 0; i < MAX_POSITIONS; i++)
		count += shared->seen[i];
	snprintf(start, sizeof(start), "%lld", shared->start);
	snprintf(last, sizeof(last), "%lld", (long long) shared->last);
	prepare(session, "count", setting("COUNT"));
	stored = execute(session, "count", 2, values);
	printf("%lld of %s\n", count, PQgetvalue(stored, 0, 0));
	PQclear(stored);
}

static void
follow_and_append(const char *rule, const char *channel)
{
	static double sent_at[MAX_PROBES];
	Shared	   *shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	PGconn	   *session;
	char	   *last;
	char		listen[100] = "SELECT 1";
	pid_t		follower;
	int			count;
	double		end;

	if (shared == MAP_FAILED)
		exit(1);
	if (channel != NULL)
		snprintf(listen, sizeof(listen), "LISTEN \"%s\"", channel);
	srandom(getpid());
	snprintf(shared->probes, sizeof(shared->probes), "account-probe%.0f.", now());
	session = open_session("SELECT 1");
	last = ask(session, setting("LAST"));
	shared->start = atoll(last);
	shared->last = shared->start;
	free(last);
	follower = fork();
	if (follower == 0)
	{
		PGconn	   *own = open_session(listen);

		shared->backend = PQbackendPID(own);
		prepare(own, "page", setting("PAGE"));
		puts("ready");
		fflush(stdout);
		follow(own, shared, rule);
	}
	count = append_probes(shared, sent_at);
	end = now();
	while (!all_read(shared, count) && now() - end < PATIENCE &&
		   waitpid(follower, NULL, WNOHANG) == 0)
		usleep(1000);
	if (waitpid(follower, NULL, WNOHANG) != 0)
	{
		fputs("reader: the follower has ended\n", stderr);
		exit(1);
	}
	end_follower(session, shared, follower);
	for (int i = 0; i < count; i++)
	{
		double		read_at = shared->read_at[i];

		if (read_at == 0)
			puts("late");
		else
			printf("%.0f\n", read_at > sent_at[i] ? read_at - sent_at[i] : 0);
	}
	say_read(session, shared);
	PQfinish(session);
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "catch-up") == 0)
		catch_up(atoll(argv[2]), atof(argv[3]));
	else if (argc == 3 && strcmp(argv[1], "follow") == 0)
		follow_and_append(argv[2], NULL);
	else if (argc == 4 && strcmp(argv[1], "follow") == 0)
		follow_and_append(argv[2], argv[3]);
	else
	{
		fputs("usage: reader MODE ARGUMENTS; the modes are in reader.c\n", stderr);
		return 2;
	}
	return 0;
}
