/*-------------------------------------------------------------------------
 *
 * session.h
 *		Shared code of the clients of the benchmarks: sessions whose errors
 *		end the program, and a clock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SESSION_H
#define SESSION_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

static void
fail(const char *what, PGconn *session)
{
	fprintf(stderr, "client: %s: %s", what, PQerrorMessage(session));
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

/* Microseconds. */
static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static PGresult *
execute(PGconn *session, const char *name, int count, const char *const *values)
{
	PGresult   *result = PQexecPrepared(session, name, count, values, NULL,
										NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail(name, session);
	return result;
}

static void
prepare(PGconn *session, const char *name, const char *sql)
{
	PGresult   *result = PQprepare(session, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(sql, session);
	PQclear(result);
}

#endif
