/*-------------------------------------------------------------------------
 *
 * reset_check.c
 *		What es_reset() refuses.
 *
 * Nothing brings the events back, so more than one decision is needed.  A superuser lets
 * a database be one for tests, by ALTER DATABASE or in the server's file, and whoever
 * calls es_reset() needs EXECUTE on it.  A value that comes with the session does not
 * count, though only superusers can set it: a test's options for the connection, or a SET
 * in a script, would go wherever the test is pointed at.  Nor does one of a role, which
 * holds in all databases.
 *
 * A store whose events others take away, by a publication or a logical slot, is not one
 * for tests, whatever the setting says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "base/base.h"
#include "base/compat.h"
#include "base/role.h"
#include "log/closed.h"
#include "log/log.h"
#include "log/replica.h"
#include "reset/reset.h"

#define TEST_MODE	"eventstore.test_mode"

/*
 * eventstore.test_mode: whether this database is for tests, which may empty the store.  A
 * superuser decides that nothing in it is worth keeping.
 */
static bool test_mode = false;

/* Returns true if a value of the setting holds for one database, or for the whole server. */
static bool
is_of_database(GucSource source)
{
	return source == PGC_S_DATABASE || source == PGC_S_DATABASE_USER ||
		source == PGC_S_FILE || source == PGC_S_ARGV;
}

/* Says why the present value does not count. */
static const char *
describe_test_mode(const struct config_generic *setting)
{
	if (!test_mode)
		return "Setting " TEST_MODE " is off.";
	return is_of_database(setting->reset_source) ?
		"Setting " TEST_MODE " is on in this session, and not in the database." :
		"Setting " TEST_MODE " is on for this session or its role, and not for the database.";
}

/* Refuses a database that is not for tests. */
static void
check_test_mode(void)
{
	struct config_generic *setting = compat_find_setting(TEST_MODE);

	if (test_mode && ((struct config_bool *) setting)->reset_val &&
		is_of_database(setting->reset_source))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store is not in test mode, and cannot be emptied"),
			 errdetail("%s", describe_test_mode(setting)),
			 errhint("If no event of this database is worth keeping, run ALTER DATABASE %s SET " TEST_MODE " = on as a superuser, and connect again.",
					 quote_identifier(get_database_name(MyDatabaseId)))));
}

/* Refuses a store whose events others take away. */
static void
check_not_published(Oid log)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(log);

	(void) own_sql_run(log,
					   "SELECT (SELECT 'Publication \"' || p.pubname || '\" has its log.'"
					   " FROM pg_publication p WHERE EXISTS (SELECT FROM pg_get_publication_tables(p.pubname) t"
					   " WHERE t.relid = $1) ORDER BY p.pubname LIMIT 1),"
					   " (SELECT 'Replication slot \"' || s.slot_name || '\" decodes its changes.'"
					   " FROM pg_replication_slots s WHERE s.slot_type = 'logical'"
					   " AND s.database = current_database() ORDER BY s.slot_name LIMIT 1)",
					   1, &type, &value, NULL);
	if (own_sql_value(1) == 0 && own_sql_value(2) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store is published, and cannot be emptied"),
			 errdetail("%s", own_sql_text(own_sql_value(1) ? 1 : 2)),
			 errhint("Drop it if its readers are part of the test, and create it again afterwards.")));
}

/* Refuses a transaction that has appended: it has promised others to notify them. */
static void
check_no_append(Oid log)
{
	Relation	rel = table_open(log, AccessShareLock);
	bool		appended = CheckRelationLockedByMe(rel, RowExclusiveLock, false);

	table_close(rel, NoLock);
	if (appended)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("es_reset() must come before the appends of its transaction"),
				 errdetail("This transaction has a lock on table \"es_events\" with which it may have appended."),
				 errhint("Roll the transaction back, or call es_reset() in the next one.")));
}

void
reset_check(Oid log)
{
	check_test_mode();
	replica_refuse(log, "empty the store");
	log_check_relid_open(log);
	check_not_published(log);
	check_no_append(log);
}

void
reset_define_setting(void)
{
	DefineCustomBoolVariable(TEST_MODE,
							 "Allows es_reset(), which empties the store of this database.",
							 "It must be set for the database, or in the server's file.",
							 &test_mode, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
}
