/*-------------------------------------------------------------------------
 *
 * pool_connection.c
 *		One connection of the pool: opening it, and running pipelines.
 *
 * A pipeline is a row of steps, sent at once, whose results come in their order:
 *
 *		b	BEGIN, read only or not
 *		s	the role, for this transaction
 *		p	prepares the statement, if the connection does not have it yet
 *		x	the statement
 *		c	COMMIT
 *		r	RESET ALL, UNLISTEN *, CLOSE ALL
 *		k	asks what else is left of the job, and sets what RESET ALL has reset
 *		.	Sync
 *
 * The statement is prepared in the transaction, so that the role is the one whose
 * privileges on schemas count.  The search path is the session's.  So is the setting by which
 * a read has one plan for all values: it has a branch for each kind of filter, and planning it
 * anew takes longer than running it.  A write calls functions of users, whose plans are their
 * own.  An error skips all that follows to Sync; then a ROLLBACK is sent before the next job.
 *
 * The next job has another role, so a function of a user must leave nothing in the
 * session.  The steps r and k follow a job that may have called one: a write, or a
 * read that names one as a parameter.  If they find prepared statements that are not
 * ours, temporary tables or a role, the connection is closed.  These steps and COMMIT
 * are parsed anew each time, since a function may replace any prepared statement.  Any other
 * read calls functions of the log's owner alone (upcasters, policies), who is trusted.
 *
 * When the connection is lost, the step that was awaited tells what is known: an
 * answered COMMIT is done, a pipeline that was not written whole or whose error
 * came before COMMIT has done nothing, and of anything else nobody knows.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "config.h"
#include "conninfo.h"
#include "log.h"
#include "pool_connection.h"

#define FIRST_BACKOFF_MS	100
#define LONGEST_BACKOFF_MS	5000
#define ANSWER_PATIENCE_MS	5000	/* beyond the time-outs of a pipeline's statements */

typedef struct OwnStatement
{
	const char *name;
	const char *sql;
} OwnStatement;

/*
 * No role has the empty name, which a superuser's and the login role's own are replaced by.  Nobody
 * can be granted a parameter that there is none of, so a role that may set it is a superuser: this
 * takes a tenth of the time of a look into pg_roles.
 */
#define BECOME \
	"SELECT pg_catalog.set_config('role', CASE WHEN $1::text <> 'none' AND ($1::text = session_user" \
	" OR pg_catalog.has_parameter_privilege(pg_catalog.to_regrole(pg_catalog.quote_ident($1::text))::oid," \
	" 'superuser', 'SET')) THEN '' ELSE $1::text END, true)"

static const OwnStatement own_statements[] = {
	{"begin_read", "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"},
	{"begin_write", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
	{"become_reader", BECOME},
	{"become_writer", BECOME ", pg_catalog.set_config('plan_cache_mode', 'auto', true)"},
};

#define OWN_STATEMENT_COUNT ((int) (sizeof(own_statements) / sizeof(own_statements[0])))

/* Settings of the session. */
#define SETTLE(path) \
	"pg_catalog.set_config('search_path', " path ", false)," \
	" pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false)"

static const char find_schema[] =
	"SELECT " SETTLE("pg_catalog.format('pg_catalog, %I, pg_temp', n.nspname)")
	" FROM pg_catalog.pg_extension e "
	"JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'eventstore'";

/* It has no operators, which a schema of the role could have, too. */
static const char find_leftovers[] =
	"SELECT pg_catalog.current_setting('role'), pg_catalog.pg_my_temp_schema(), pg_catalog.pg_advisory_unlock_all(),"
	" pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE from_sql), " SETTLE("$1")
	" FROM pg_catalog.pg_prepared_statement()";

static void connection_ready(uint32_t events, void *arg);

/*
 * Opening and closing
 */

static void
connection_forget(PoolConnection *connection)
{
	loop_timer_stop(&connection->timer);
	loop_timer_stop(&connection->cancel_timer);
	loop_remove_fd(connection->fd);
	connection->fd = NULL;
	PQfinish(connection->pg);
	connection->pg = NULL;
	PQclear(connection->result);
	connection->result = NULL;
	connection->prepared_count = 0;
	connection->state = CONNECTION_CLOSED;
}

void
connection_close(PoolConnection *connection)
{
	connection_forget(connection);
	free(connection->prepared);
	connection->prepared = NULL;
	connection->prepared_capacity = 0;
}

static int64_t
connection_backoff(const PoolConnection *connection)
{
	int64_t		ms = FIRST_BACKOFF_MS;

	for (int i = 1; i < connection->failures && ms < LONGEST_BACKOFF_MS; i++)
		ms *= 2;
	if (ms > LONGEST_BACKOFF_MS)
		ms = LONGEST_BACKOFF_MS;
	return ms / 2 + random() % (ms / 2);
}

/* What a lost connection means for its job. */
static PoolOutcome
connection_lost_outcome(const PoolConnection *connection)
{
	const char *severity = connection->failed ?
		PQresultErrorField(connection->result, PG_DIAG_SEVERITY_NONLOCALIZED) : NULL;

	if (connection->committed)
		return POOL_DONE;
	if (severity != NULL && strcmp(severity, "ERROR") == 0)
		return POOL_SQL_ERROR;
	if ((connection->failed && connection->failed_step != 'c') || !connection->flushed ||
		(connection->job->flags & POOL_READ_ONLY))
		return POOL_LOST;
	return POOL_UNKNOWN;
}

/* Ends the job of a connection that does not work any more. */
static void
connection_abandon_job(PoolConnection *connection)
{
	PoolJob    *job = connection->job;
	PGresult   *result = connection->result;
	PoolOutcome outcome;

	if (job == NULL)
		return;
	outcome = connection_lost_outcome(connection);
	connection->job = NULL;
	if (outcome == POOL_DONE || outcome == POOL_SQL_ERROR)
	{
		connection->result = NULL;
		pool_job_end(job, outcome, result);
	}
	else if (outcome == POOL_LOST && job->tries < 2)
		pool_job_retry(job);
	else
		pool_job_end(job, outcome, NULL);
}

/* Closes a connection that failed, and opens it again after a while. */
static void
connection_fail(PoolConnection *connection, const char *why)
{
	bool		was_open = connection->state >= CONNECTION_IDLE;

	if (was_open)
	{
		pool_totals.lost++;
		connection->failures = 0;
	}
	else
		connection->failures++;
	if (connection->failures <= 1)
		log_line(LOG_LEVEL_WARNING, was_open ? "connection_lost" : "connection_failed",
				 LOG_TEXT("pool", connection->lane->name), LOG_TEXT("message", why));
	connection_abandon_job(connection);
	connection_forget(connection);
	if (!connection->lane->on_demand || connection->lane->queued > 0)
		connection_open(connection, connection_backoff(connection));
}

static void
connection_timed_out(void *arg)
{
	connection_fail(arg, "it takes too long to connect");
}

static void
connection_broken(void *arg)
{
	PoolConnection *connection = arg;

	connection_fail(connection, PQerrorMessage(connection->pg));
}

/* The server's own time-out has not worked: it hangs, or nothing reaches it. */
static void
connection_silent(void *arg)
{
	connection_fail(arg, "the server does not answer");
}

/* Fails from the loop, since callbacks must not be called from where this is. */
static void
connection_fail_soon(PoolConnection *connection)
{
	loop_timer_start(&connection->timer, 0, connection_broken, connection);
}

/* Asks epoll for these events; libpq may have another socket than before. */
static void
connection_watch(PoolConnection *connection, uint32_t events)
{
	if (connection->fd != NULL && connection->fd_events == events)
		return;
	if (connection->fd != NULL)
	{
		connection->fd_events = events;
		if (!loop_change_fd(connection->fd, events))
			connection_fail_soon(connection);
		return;
	}
	connection->fd = loop_add_fd(PQsocket(connection->pg), events, connection_ready, connection);
	connection->fd_events = events;
	if (connection->fd == NULL)
		connection_fail_soon(connection);
}

/* Writes what it can, and waits for what is to be waited for. */
static void
connection_flush(PoolConnection *connection)
{
	int			more = PQflush(connection->pg);

	if (more < 0)
	{
		connection_fail_soon(connection);
		return;
	}
	if (more == 0)
		connection->flushed = true;
	connection_watch(connection, EPOLLIN | (more > 0 ? EPOLLOUT : 0));
}

/*
 * Sending
 */

static void
connection_add_step(PoolConnection *connection, char step, int sent)
{
	if (!sent || connection->step_count >= MAX_STEPS)
		connection_fail_soon(connection);
	else
		connection->steps[connection->step_count++] = step;
}

static void
connection_begin_pipeline(PoolConnection *connection, ConnectionState state)
{
	connection->state = state;
	connection->step = connection->step_count = 0;
	connection->failed = connection->committed = connection->flushed = connection->is_clean = false;
	if (state != CONNECTION_SETUP && !connection->lane->on_demand && config.statement_timeout > 0)
		loop_timer_start(&connection->timer, 2 * config.statement_timeout + ANSWER_PATIENCE_MS, connection_silent,
						 connection);
}

static void
connection_end_pipeline(PoolConnection *connection)
{
	connection_add_step(connection, '.', PQpipelineSync(connection->pg));
	connection_flush(connection);
}

/* Sends one of own_statements. */
static int
connection_send_own(PoolConnection *connection, const char *name)
{
	return PQsendQueryPrepared(connection->pg, name, 0, NULL, NULL, NULL, 0);
}

static void
connection_send_text(PoolConnection *connection, char step, const char *sql)
{
	connection_add_step(connection, step, PQsendQueryParams(connection->pg, sql, 0, NULL, NULL, NULL, NULL, 0));
}

/* After the transaction. */
static void
connection_send_cleaning(PoolConnection *connection)
{
	const char *path = pool_search_path();

	connection->is_clean = !connection->needs_cleaning;
	if (connection->is_clean)
		return;
	connection_send_text(connection, 'r', "RESET ALL");
	connection_send_text(connection, 'r', "UNLISTEN *");
	connection_send_text(connection, 'r', "CLOSE ALL");
	connection_add_step(connection, 'k', PQsendQueryParams(connection->pg, find_leftovers, 1, NULL, &path, NULL,
														   NULL, 0));
}

static void
connection_setup(PoolConnection *connection)
{
	connection_begin_pipeline(connection, CONNECTION_SETUP);
	if (PQsetnonblocking(connection->pg, 1) != 0 || !PQenterPipelineMode(connection->pg))
	{
		connection_fail_soon(connection);
		return;
	}
	for (int i = 0; i < OWN_STATEMENT_COUNT; i++)
		connection_add_step(connection, 'p', PQsendPrepare(connection->pg, own_statements[i].name,
														   own_statements[i].sql, 0, NULL));
	connection_send_text(connection, 'x', find_schema);
	connection_end_pipeline(connection);
}

static bool
connection_has_prepared(const PoolConnection *connection, const char *name)
{
	for (int i = 0; i < connection->prepared_count; i++)
		if (connection->prepared[i] == name)
			return true;
	return false;
}

/* Without memory to note it, the next use prepares it again, which fails and closes the connection. */
static void
connection_note_prepared(PoolConnection *connection, const char *name)
{
	if (connection->prepared_count == connection->prepared_capacity)
	{
		int			capacity = connection->prepared_capacity + 64;
		const char **grown = realloc(connection->prepared, (size_t) capacity * sizeof(char *));

		if (grown == NULL)
			return;
		connection->prepared = grown;
		connection->prepared_capacity = capacity;
	}
	connection->prepared[connection->prepared_count++] = name;
}

void
connection_run(PoolConnection *connection, PoolJob *job)
{
	PGconn	   *pg = connection->pg;
	const char *role = job->role[0] ? job->role : "none";
	bool		reads = (job->flags & POOL_READ_ONLY) != 0;
	const PoolStatement *statement = &job->statement;

	connection->job = job;
	job->connection = connection;
	job->tries++;
	connection->needs_cleaning = !reads || strstr(statement->sql, "es_function") != NULL;
	connection_begin_pipeline(connection, CONNECTION_RUNNING);
	connection_add_step(connection, 'b', connection_send_own(connection, reads ? "begin_read" : "begin_write"));
	connection_add_step(connection, 's', PQsendQueryPrepared(pg, reads ? "become_reader" : "become_writer", 1, &role,
															 NULL, NULL, 0));
	if (!connection_has_prepared(connection, statement->name))
		connection_add_step(connection, 'p', PQsendPrepare(pg, statement->name, statement->sql, 0, NULL));
	connection_add_step(connection, 'x', PQsendQueryPrepared(pg, statement->name, job->count, job->values,
															 job->lengths, job->formats, 0));
	connection_send_text(connection, 'c', "COMMIT");
	connection_send_cleaning(connection);
	connection_end_pipeline(connection);
}

/*
 * Receiving
 */

/* Returns true if nothing is left in the session but what is ours. */
static bool
result_is_clean(const PoolConnection *connection, const PGresult *result)
{
	char		prepared[16];

	snprintf(prepared, sizeof(prepared), "%d", OWN_STATEMENT_COUNT + connection->prepared_count);
	return PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "none") == 0 &&
		strcmp(PQgetvalue(result, 0, 1), "0") == 0 && strcmp(PQgetvalue(result, 0, 3), prepared) == 0 &&
		strcmp(PQgetvalue(result, 0, 4), "0") == 0;
}

/* Keeps the statement's rows, or the first error. */
static void
connection_take_result(PoolConnection *connection, PGresult *result)
{
	char		step = connection->steps[connection->step];
	ExecStatusType status = PQresultStatus(result);
	bool		good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;

	if (good && step == 'p' && connection->job != NULL)
		connection_note_prepared(connection, connection->job->statement.name);
	else if (good && step == 'c')
		connection->committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
	else if (good && step == 'k')
		connection->is_clean = result_is_clean(connection, result);
	/* a lost connection makes results without a SQLSTATE, which say nothing; what is committed is no error any more */
	if ((good && step == 'x') ||
		(!good && !connection->failed && !connection->committed && PQresultErrorField(result, PG_DIAG_SQLSTATE) != NULL))
	{
		PQclear(connection->result);
		connection->result = result;
		connection->failed = !good;
		connection->failed_step = step;
	}
	else
		PQclear(result);
}

/* The extension is there, or the connection is of no use yet. */
static void
connection_end_setup(PoolConnection *connection)
{
	PGresult   *result = connection->result;

	if (connection->failed)
		connection_fail(connection, PQresultErrorMessage(result));
	else if (result == NULL || PQntuples(result) == 0)
		connection_fail(connection, "the database has no extension eventstore");
	else
	{
		pool_set_search_path(PQgetvalue(result, 0, 0));
		PQclear(result);
		connection->result = NULL;
		connection->failures = 0;
		connection->state = CONNECTION_IDLE;
		loop_timer_stop(&connection->timer);
		pool_totals.opened++;
		pool_connection_ready(connection);
	}
}

static void
connection_rollback(PoolConnection *connection)
{
	connection_begin_pipeline(connection, CONNECTION_ROLLBACK);
	connection_send_text(connection, 'c', "ROLLBACK");
	connection_send_cleaning(connection);
	connection_end_pipeline(connection);
}

/* Closes a connection that has something of a role's, and opens another. */
static void
connection_discard(PoolConnection *connection)
{
	log_line(LOG_LEVEL_WARNING, "connection_discarded", LOG_TEXT("pool", connection->lane->name),
			 LOG_TEXT("message", "a function has left something in the session"));
	connection_forget(connection);
	if (!connection->lane->on_demand || connection->lane->queued > 0)
		connection_open(connection, 0);
}

static void
connection_end_job(PoolConnection *connection)
{
	PoolJob    *job = connection->job;
	PGresult   *result = connection->result;
	PoolOutcome outcome = connection->failed ? POOL_SQL_ERROR : connection->committed ? POOL_DONE : POOL_UNKNOWN;

	connection->job = NULL;
	connection->result = NULL;
	if (!connection->committed)
		connection_rollback(connection);
	else if (connection->is_clean)
		connection->state = CONNECTION_IDLE;
	if (outcome == POOL_UNKNOWN)
	{
		PQclear(result);
		result = NULL;
	}
	pool_job_end(job, outcome, result);
	if (connection->state == CONNECTION_RUNNING && connection->job == NULL)
		connection_discard(connection);
	else if (connection->state == CONNECTION_IDLE)
		pool_connection_ready(connection);
}

/* The pipeline has come to its Sync. */
static void
connection_end_steps(PoolConnection *connection)
{
	if (connection->state != CONNECTION_SETUP && PQstatus(connection->pg) == CONNECTION_OK)
		loop_timer_stop(&connection->timer);
	if (connection->state == CONNECTION_SETUP)
		connection_end_setup(connection);
	else if (connection->state == CONNECTION_RUNNING)
		connection_end_job(connection);
	else if (connection->state == CONNECTION_ROLLBACK && !connection->failed && !connection->is_clean)
		connection_discard(connection);
	else if (connection->state == CONNECTION_ROLLBACK && !connection->failed)
	{
		connection->state = CONNECTION_IDLE;
		pool_connection_ready(connection);
	}
	else
		connection_fail_soon(connection);
}

/* Takes the results that are here; returns true if the pipeline has ended. */
static bool
connection_take_results(PoolConnection *connection)
{
	while (!PQisBusy(connection->pg) && connection->step < connection->step_count)
	{
		PGresult   *result = PQgetResult(connection->pg);

		if (result == NULL)
		{
			connection->step++;
			continue;
		}
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
		{
			PQclear(result);
			return true;
		}
		connection_take_result(connection, result);
		if (PQstatus(connection->pg) == CONNECTION_BAD)
			break;
	}
	return false;
}

static void
connection_read(PoolConnection *connection)
{
	bool		alive = PQconsumeInput(connection->pg);

	connection_flush(connection);
	if (connection->state != CONNECTION_IDLE && connection_take_results(connection))
	{
		connection_end_steps(connection);
		return;
	}
	for (PGnotify *notify; alive && (notify = PQnotifies(connection->pg)) != NULL;)
		PQfreemem(notify);
	if (!alive || PQstatus(connection->pg) == CONNECTION_BAD || connection->step >= MAX_STEPS)
		connection_fail(connection, PQerrorMessage(connection->pg));
}

static void
connection_poll(PoolConnection *connection)
{
	/* PQconnectPoll may close the socket and open another of the same number */
	loop_remove_fd(connection->fd);
	connection->fd = NULL;
	switch (PQconnectPoll(connection->pg))
	{
		case PGRES_POLLING_READING:
			connection_watch(connection, EPOLLIN);
			break;
		case PGRES_POLLING_WRITING:
			connection_watch(connection, EPOLLOUT);
			break;
		case PGRES_POLLING_OK:
			connection_setup(connection);
			break;
		default:
			connection_fail(connection, PQerrorMessage(connection->pg));
			break;
	}
}

static void
connection_ready(uint32_t events, void *arg)
{
	PoolConnection *connection = arg;

	(void) events;
	if (connection->state == CONNECTION_OPENING)
		connection_poll(connection);
	else
		connection_read(connection);
}

void
pool_ignore_notice(void *arg, const PGresult *result)
{
	(void) arg;
	(void) result;
}

static void
connection_start(void *arg)
{
	PoolConnection *connection = arg;

	connection->pg = PQconnectStartParams(connection->lane->keywords, connection->lane->values, 0);
	if (connection->pg != NULL)
		PQsetNoticeReceiver(connection->pg, conninfo_ignore_notice, NULL);
	if (connection->pg == NULL || PQstatus(connection->pg) == CONNECTION_BAD)
	{
		connection_fail(connection, connection->pg ? PQerrorMessage(connection->pg) : "out of memory");
		return;
	}
	PQsetNoticeReceiver(connection->pg, pool_ignore_notice, NULL);
	loop_timer_start(&connection->timer, config.connect_timeout * 1000, connection_timed_out, connection);
	connection_watch(connection, EPOLLOUT);
}

void
connection_open(PoolConnection *connection, int64_t delay)
{
	connection->state = CONNECTION_OPENING;
	loop_timer_start(&connection->timer, delay, connection_start, connection);
}
