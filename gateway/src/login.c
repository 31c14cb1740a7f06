/*-------------------------------------------------------------------------
 *
 * login.c
 *		What the gateway's own role may do.
 *
 * The login role should be able to set the roles of tokens, and nothing else: a function of
 * a user that resets the role acts as the login role.  What is more than that is
 * found once after the start, and is a warning in the log, since some of it may be meant.
 *
 * Memberships have options of their own from PostgreSQL 16 on.  They are read from
 * the row as JSON, where what a version does not have is null.
 *
 *-------------------------------------------------------------------------
 */
#include <stddef.h>

#include "log.h"
#include "login.h"
#include "loop.h"
#include "pool.h"

#define LOGIN_RETRY_MS 5000

static const PoolStatement login_statement = {
	"login",
	"WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = session_user),"
	" member AS (SELECT r.*, coalesce((to_jsonb(m)->>'inherit_option')::bool, me.rolinherit) AS inherits,"
	"                   coalesce((to_jsonb(m)->>'set_option')::bool, true) AS sets"
	"              FROM me JOIN pg_catalog.pg_auth_members m ON m.member = me.oid"
	"              JOIN pg_catalog.pg_roles r ON r.oid = m.roleid),"
	" log AS (SELECT d.objid AS oid FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_depend d"
	"             ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid"
	"            AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'e'"
	"           JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relname = 'es_events'"
	"          WHERE e.extname = 'eventstore')"
	" SELECT 'it is a superuser' FROM me WHERE rolsuper"
	" UNION ALL SELECT 'it has CREATEROLE' FROM me WHERE rolcreaterole AND NOT rolsuper"
	" UNION ALL SELECT 'it has CREATEDB' FROM me WHERE rolcreatedb AND NOT rolsuper"
	" UNION ALL SELECT 'it has REPLICATION' FROM me WHERE rolreplication AND NOT rolsuper"
	" UNION ALL SELECT 'it has BYPASSRLS' FROM me WHERE rolbypassrls AND NOT rolsuper"
	" UNION ALL SELECT 'it inherits the privileges of ' || string_agg(quote_ident(rolname), ', ' ORDER BY rolname)"
	"             FROM member WHERE inherits HAVING count(*) > 0"
	" UNION ALL SELECT 'it may set ' || quote_ident(rolname) || ', which is a superuser and is refused'"
	"             FROM member WHERE rolsuper AND sets"
	" UNION ALL SELECT 'it may set no role' FROM me WHERE NOT rolsuper AND NOT EXISTS (SELECT FROM member WHERE sets)"
	" UNION ALL SELECT 'it owns the extension' FROM me JOIN pg_catalog.pg_extension ON extowner = me.oid"
	"            WHERE extname = 'eventstore' AND NOT rolsuper"
	" UNION ALL SELECT 'it has privileges on es_events' FROM me, log"
	"            WHERE has_table_privilege(me.oid, log.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AND NOT rolsuper"
	"              AND NOT EXISTS (SELECT FROM member WHERE inherits)"
};

static LoopTimer login_timer;
static PoolJob *login_job;

static void
login_timer_rings(void *arg)
{
	(void) arg;
	login_inspect();
}

static void
login_inspected(PoolOutcome outcome, PGresult *result, void *arg)
{
	(void) arg;
	login_job = NULL;
	if (outcome == POOL_DONE)
	{
		for (int i = 0; i < PQntuples(result); i++)
			log_message(LOG_LEVEL_WARNING, "login_role", "the gateway's role should have no privileges of its own, but %s",
						PQgetvalue(result, i, 0));
	}
	else if (outcome == POOL_SQL_ERROR)
		log_message(LOG_LEVEL_WARNING, "login_role", "cannot look at the gateway's role: %s",
					PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	else
		loop_timer_start(&login_timer, LOGIN_RETRY_MS, login_timer_rings, NULL);
	PQclear(result);
}

void
login_inspect(void)
{
	login_job = pool_submit(&login_statement, NULL, NULL, 0, NULL, POOL_READ_ONLY, login_inspected, NULL);
	if (login_job == NULL)
		loop_timer_start(&login_timer, LOGIN_RETRY_MS, login_timer_rings, NULL);
}

void
login_stop(void)
{
	loop_timer_stop(&login_timer);
	if (login_job != NULL)
		pool_cancel(login_job);
	login_job = NULL;
}
