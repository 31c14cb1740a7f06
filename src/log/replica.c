/*-------------------------------------------------------------------------
 *
 * replica.c
 *		Logical replicas: logs whose events a subscription brings
 *		(doc/internals/horizon.md, "Logical replicas").
 *
 * Events arrive in the order of their commits, and nothing on the replica says what is
 * still to come.  The publisher's workers write its horizon to es_published_horizon.  The
 * row travels in the same subscription, and so arrives after every event that the horizon
 * was found for.  It is the horizon of the replica.
 *
 *	1. While pg_subscription_rel has the log, the horizon is the published one.  It is 0
 *	   as long as the snapshot does not see that the copies of both tables have caught up
 *	   with each other (state "r"), or if not just one subscription brings both.
 *	2. Applied rows are marked by their next_xid (log_guard.c).  When the subscription has
 *	   ended they prove nothing, and es_promote() says up to where all is there.
 *
 * Whether a log has a subscription is looked up once, and again when the catalog changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "log/log.h"
#include "log/replica.h"

#define HORIZON_TABLE "es_published_horizon"

/* The log that was looked up last, and whether it has a subscription. */
static Oid	checked_log = InvalidOid;
static bool subscribed = false;

/* The log whose subscription was found to bring what it must. */
static Oid	applied_log = InvalidOid;

static void
forget_subscriptions(Datum arg, int cache, uint32 hash)
{
	checked_log = InvalidOid;
	applied_log = InvalidOid;
}

/* How many subscriptions bring the table; "one" becomes one of them. */
static int
count_subscriptions(Oid table, Oid *one)
{
	CatCList   *list = SearchSysCacheList1(SUBSCRIPTIONRELMAP, ObjectIdGetDatum(table));
	int			count = list->n_members;

	if (count > 0)
		*one = ((Form_pg_subscription_rel) GETSTRUCT(&list->members[0]->tuple))->srsubid;
	ReleaseSysCacheList(list);
	return count;
}

static void
look_up(Oid log)
{
	static bool registered = false;
	Oid			subscription;

	if (!registered)
		CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, forget_subscriptions, (Datum) 0);
	registered = true;
	checked_log = log;			/* before the look-up, which may forget it */
	subscribed = count_subscriptions(log, &subscription) > 0;
}

bool
replica_is_subscribed(Oid log)
{
	while (unlikely(checked_log != log))
		look_up(log);
	return subscribed;
}

/*
 * Returns true if the snapshot sees just one subscription that brings the table, in step
 * with all that it brings.
 */
static bool
is_in_step(Relation map, Oid table, Snapshot snapshot, Oid *subscription)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			count = 0;
	bool		ready = false;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(map, SubscriptionRelSrrelidSrsubidIndexId, true, snapshot,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_subscription_rel entry = (Form_pg_subscription_rel) GETSTRUCT(tuple);

		count++;
		ready = entry->srsubstate == SUBREL_STATE_READY;
		*subscription = entry->srsubid;
	}
	systable_endscan(scan);
	return count == 1 && ready;
}

int64
replica_horizon(Oid log, Snapshot snapshot)
{
	Relation	map = table_open(SubscriptionRelRelationId, AccessShareLock);
	Oid			of_log;
	Oid			of_horizon;
	bool		in_step = is_in_step(map, log, snapshot, &of_log) &&
	is_in_step(map, own_table_relid(log, HORIZON_TABLE), snapshot, &of_horizon) &&
	of_log == of_horizon;

	table_close(map, AccessShareLock);
	return in_step ? published_horizon_read(log, snapshot) : 0;
}

bool
replica_ends_applied(Oid log, Snapshot snapshot)
{
	Relation	rel = table_open(log, AccessShareLock);
	Relation	index = log_index_open_position(rel);
	uint64		next_xid = (uint64) table_row_last_number(rel, index, Anum_es_events_next_xid,
														  snapshot);

	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return next_xid == NEXT_XID_APPLIED;
}

void
replica_refuse(Oid log, const char *what)
{
	Oid			subscription;

	if (count_subscriptions(log, &subscription) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s on a logical replica", what),
				 errdetail("Subscription \"%s\" brings the events of this store.",
						   get_subscription_name(subscription, false)),
				 errhint("Do it on the publisher. To take over, drop the subscription and call es_promote().")));
}

void
replica_fail_not_promoted(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s on a logical replica", what),
			 errdetail("The last event came by a subscription that has ended."),
			 errhint("Call es_promote() to take over, or subscribe again.")));
}

void
replica_check_apply(Oid log)
{
	Oid			of_log = InvalidOid;
	Oid			of_horizon = InvalidOid;
	int			horizons;

	if (replica_is_subscribed(log) && applied_log == log)
		return;
	horizons = count_subscriptions(own_table_relid(log, HORIZON_TABLE), &of_horizon);
	if (count_subscriptions(log, &of_log) > 1 || horizons > 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("only one subscription can bring the events of a store"),
				 errdetail("Table \"%s\" is in several subscriptions of this database.",
						   horizons > 1 ? HORIZON_TABLE : "es_events"),
				 errhint("Drop all but one.")));
	if (horizons > 0 && of_log != of_horizon)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("one subscription must bring both es_events and " HORIZON_TABLE),
				 errdetail("Subscription \"%s\" brings " HORIZON_TABLE " without es_events; two subscriptions advance apart.",
						   get_subscription_name(of_horizon, false)),
				 errhint("Publish both tables in the publications of one subscription.")));
	applied_log = log;
}
