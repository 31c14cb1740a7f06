/*-------------------------------------------------------------------------
 *
 * decider.c
 *		Clients that decide, or append, for some seconds, each as fast as it
 *		can.
 *
 *	decider DECISION CLIENTS SECONDS STATEMENT VALUE... [-- STATEMENT VALUE...]
 *
 * DECISION is one of
 *	none	There is one statement.  If it returns null, the server has refused.
 *	enrol	The first statement reads the events of a course and of a student:
 *			position, type, data and tags.  The client decides if there is a
 *			seat, and the second statement appends.
 *	number	The first statement reads the last invoice: position and number.
 *			The second one appends the next.
 *
 * A value is a parameter's text.  In it <course> and <student> are numbers that
 * are drawn for each decision, <after> is the position of the last event that
 * was read, 0 if none was, and <number> is the next one.
 *
 * A statement that fails since others were faster (ES007, 40001, 40P01) begins
 * the decision again, at once.  Any other error ends the program.
 *
 * The environment has the connection, and
 *	COURSES, STUDENTS	"FIRST COUNT": the numbers are so many, every second one
 *						from the first on
 *	SHARED				of 100 decisions, so many are about course 0
 *
 * Prints the decisions a second, how many were made, how often one began again,
 * how many were refused, and the microseconds that 99 of 100 took at most, and
 * the longest one.
 *
 *-------------------------------------------------------------------------
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../session.h"

#define MAX_CLIENTS 100
#define MAX_VALUES 8
#define MAX_VALUE 1000
#define MAX_DECISIONS 1000000

#define MOST_COURSES 100		/* of a student */

typedef struct Statement
{
	const char *name;
	const char *sql;
	int			count;
	char	  **values;
} Statement;

/* What a decision is about. */
typedef struct Subject
{
	long long	course;
	long long	student;
	long long	after;
	long long	number;
} Subject;

typedef struct Range
{
	long long	first;
	long long	count;
} Range;

typedef enum Outcome
{
	APPENDED, REFUSED, AGAIN
} Outcome;

/* What a client leaves to its parent. */
typedef struct Report
{
	int			decisions;
	int			repeated;
	int			refused;
	double		end;
	float		microseconds[MAX_DECISIONS];
} Report;

static struct
{
	const char *decision;
	Statement	statements[2];
	int			seconds;
	Range		courses;
	Range		students;
	int			shared;
} work;

static struct Shared
{
	atomic_int	ready;
	_Atomic double start;		/* 0: not yet */
	Report		reports[MAX_CLIENTS];
}		   *shared;

static uint64_t random_state;

/* splitmix64 */
static uint64_t
draw(void)
{
	uint64_t	z = (random_state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static long long
draw_of(Range range)
{
	return range.first + 2 * (long long) (draw() % (uint64_t) range.count);
}

static void
draw_subject(Subject *subject)
{
	memset(subject, 0, sizeof(*subject));
	if ((int) (draw() % 100) >= work.shared)
		subject->course = draw_of(work.courses);
	subject->student = draw_of(work.students);
}

/* Puts the numbers of the subject into a value. */
static void
fill_in(char *to, const char *from, const Subject *subject)
{
	const struct
	{
		const char *word;
		long long	number;
	}			words[] = {
		{"<course>", subject->course}, {"<student>", subject->student},
		{"<after>", subject->after}, {"<number>", subject->number}
	};
	char	   *end = to + MAX_VALUE - 30;

	while (*from != '\0' && to < end)
	{
		int			i = 0;

		while (i < 4 && strncmp(from, words[i].word, strlen(words[i].word)) != 0)
			i++;
		if (i < 4)
		{
			to += sprintf(to, "%lld", words[i].number);
			from += strlen(words[i].word);
		}
		else
			*to++ = *from++;
	}
	*to = '\0';
	if (*from != '\0')
	{
		fputs("decider: a value is too long\n", stderr);
		exit(1);
	}
}

/* Returns true if the decision may be made again after this error. */
static bool
others_were_faster(const PGresult *result)
{
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return code != NULL && (strcmp(code, "ES007") == 0 ||
							strcmp(code, "40001") == 0 || strcmp(code, "40P01") == 0);
}

/* The answer to a statement; NULL: others were faster. */
static PGresult *
call(PGconn *session, const Statement *statement, const Subject *subject)
{
	static char texts[MAX_VALUES][MAX_VALUE];
	const char *values[MAX_VALUES];
	PGresult   *result;
	int			i;

	for (i = 0; i < statement->count; i++)
	{
		fill_in(texts[i], statement->values[i], subject);
		values[i] = texts[i];
	}
	result = PQexecPrepared(session, statement->name, statement->count, values,
							NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		if (!others_were_faster(result))
			fail(statement->sql, session);
		PQclear(result);
		return NULL;
	}
	return result;
}

/* Is this one of the tags of an event, which need no quotes? */
static bool
has_tag(const char *tags, const char *kind, long long number)
{
	char		tag[60];
	int			length = snprintf(tag, sizeof(tag), "%s:%lld", kind, number);
	const char *at = tags;

	while ((at = strstr(at, tag)) != NULL)
	{
		if (at[length] == ',' || at[length] == '}')
			return true;
		at++;
	}
	return false;
}

/* Is there a seat for the student, by the events of both? */
static bool
may_enrol(const PGresult *events, const Subject *subject)
{
	long long	seats = 0;
	long long	students = 0;
	int			courses = 0;
	int			row;

	for (row = 0; row < PQntuples(events); row++)
	{
		const char *tags = PQgetvalue(events, row, 3);

		if (strcmp(PQgetvalue(events, row, 1), "offered") == 0)
		{
			const char *data = PQgetvalue(events, row, 2);
			const char *key = strstr(data, "\"seats\": ");

			seats = key == NULL ? 0 : atoll(key + strlen("\"seats\": "));
			continue;
		}
		if (has_tag(tags, "course", subject->course))
			students++;
		if (has_tag(tags, "student", subject->student))
			courses++;
	}
	return students < seats && courses < MOST_COURSES;
}

static Outcome
decide(PGconn *session, Subject *subject)
{
	PGresult   *result = call(session, &work.statements[0], subject);
	Outcome		outcome = APPENDED;
	int			last;

	if (result == NULL)
		return AGAIN;
	last = PQntuples(result) - 1;
	if (strcmp(work.decision, "none") == 0)
	{
		if (last >= 0 && PQgetisnull(result, last, 0))
			outcome = REFUSED;
		PQclear(result);
		return outcome;
	}
	subject->after = last < 0 ? 0 : atoll(PQgetvalue(result, last, 0));
	if (strcmp(work.decision, "number") == 0)
		subject->number = last < 0 ? 1 : atoll(PQgetvalue(result, last, 1)) + 1;
	else if (!may_enrol(result, subject))
		outcome = REFUSED;
	PQclear(result);
	if (outcome == REFUSED)
		return outcome;
	result = call(session, &work.statements[1], subject);
	if (result == NULL)
		return AGAIN;
	PQclear(result);
	return APPENDED;
}

/*
 * Decides until the time is over.  The first decision fills the session's
 * caches, and does not count.
 */
static void
work_as_client(Report *report)
{
	PGconn	   *session = open_session("SELECT 1");
	Subject		subject;
	double		before;
	int			i;

	random_state = ((uint64_t) getpid() << 32) ^ (uint64_t) now();
	for (i = 0; i < 2; i++)
	{
		if (work.statements[i].sql != NULL)
			prepare(session, work.statements[i].name, work.statements[i].sql);
	}
	do
		draw_subject(&subject);
	while (decide(session, &subject) == AGAIN);
	atomic_fetch_add(&shared->ready, 1);
	while (atomic_load(&shared->start) == 0)
		usleep(100);
	before = now();
	while (before < atomic_load(&shared->start) + work.seconds * 1e6)
	{
		Outcome		outcome;

		draw_subject(&subject);
		while ((outcome = decide(session, &subject)) == AGAIN)
			report->repeated++;
		if (outcome == REFUSED)
			report->refused++;
		report->end = now();
		if (report->decisions == MAX_DECISIONS)
			fail("there are more decisions than fit\n", session);
		report->microseconds[report->decisions++] = report->end - before;
		before = report->end;
	}
	PQfinish(session);
}

static int
compare_floats(const void *a, const void *b)
{
	float		x = *(const float *) a;
	float		y = *(const float *) b;

	return (x > y) - (x < y);
}

/* Adds the clients' reports to each other. */
static void
report_all(int clients)
{
	float	   *all;
	double		end = 0;
	long		repeated = 0;
	long		refused = 0;
	int			count = 0;
	int			i;

	for (i = 0; i < clients; i++)
		count += shared->reports[i].decisions;
	all = malloc(sizeof(float) * (count + 1));
	if (all == NULL || count == 0)
	{
		fputs("decider: nothing was decided\n", stderr);
		exit(1);
	}
	count = 0;
	for (i = 0; i < clients; i++)
	{
		Report	   *report = &shared->reports[i];

		memcpy(all + count, report->microseconds, sizeof(float) * report->decisions);
		count += report->decisions;
		repeated += report->repeated;
		refused += report->refused;
		if (report->end > end)
			end = report->end;
	}
	qsort(all, count, sizeof(float), compare_floats);
	printf("%.1f %d %ld %ld %.0f %.0f\n", count / ((end - atomic_load(&shared->start)) / 1e6),
		   count, repeated, refused, all[(count - 1) / 100 * 99], all[count - 1]);
	free(all);
}

static void
run_clients(int clients)
{
	int			status;
	bool		failed = false;
	int			i;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shared == MAP_FAILED)
		exit(1);
	for (i = 0; i < clients; i++)
	{
		if (fork() == 0)
		{
			work_as_client(&shared->reports[i]);
			exit(0);
		}
	}
	while (atomic_load(&shared->ready) < clients)
	{
		/* One that has failed will never be ready; the others shall end, too. */
		if (waitpid(-1, &status, WNOHANG) > 0)
		{
			atomic_store(&shared->start, 1);
			exit(1);
		}
		usleep(100);
	}
	atomic_store(&shared->start, now());
	while (wait(&status) > 0)
		failed = failed || status != 0;
	if (failed)
		exit(1);
	report_all(clients);
}

static Range
range_of(const char *name)
{
	const char *text = getenv(name);
	Range		range;

	if (text == NULL || sscanf(text, "%lld %lld", &range.first, &range.count) != 2 ||
		range.count < 1)
	{
		fprintf(stderr, "decider: %s must be the first number, and how many there are\n", name);
		exit(2);
	}
	return range;
}

int
main(int argc, char **argv)
{
	int			clients = argc > 4 ? atoi(argv[2]) : 0;
	int			which = 0;
	int			i;

	if (clients < 1 || clients > MAX_CLIENTS || (work.seconds = atoi(argv[3])) < 1)
	{
		fputs("usage: decider DECISION CLIENTS SECONDS STATEMENT VALUE..., see decider.c\n", stderr);
		return 2;
	}
	work.decision = argv[1];
	work.courses = range_of("COURSES");
	work.students = range_of("STUDENTS");
	work.shared = getenv("SHARED") == NULL ? 0 : atoi(getenv("SHARED"));
	work.statements[0] = (Statement) {"first", argv[4], 0, argv + 5};
	for (i = 5; i < argc; i++)
	{
		if (strcmp(argv[i], "--") == 0 && which == 0 && i + 1 < argc)
		{
			work.statements[++which] = (Statement) {"second", argv[i + 1], 0, argv + i + 2};
			i++;
		}
		else if (++work.statements[which].count > MAX_VALUES)
			return 2;
	}
	if ((which == 0) != (strcmp(work.decision, "none") == 0))
		return 2;
	run_clients(clients);
	return 0;
}
