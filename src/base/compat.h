/*-------------------------------------------------------------------------
 *
 * compat.h
 *		What differs between the server versions 15 to 18.  The only file that
 *		names PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_COMPAT_H
#define EVENTSTORE_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "eventstore needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/sinvaladt.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* The indexes that an update changes, for ExecInsertIndexTuples. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes CompatChangedIndexes;
#define COMPAT_SUMMARIZING(changed) , (changed) == TU_Summarizing
#else
typedef bool CompatChangedIndexes;
#define COMPAT_SUMMARIZING(changed)
#endif

/* Inserts the index entries of a tuple that was just stored. */
static inline List *
compat_insert_index_tuples(ResultRelInfo *relinfo, TupleTableSlot *slot,
						   EState *estate)
{
	return ExecInsertIndexTuples(relinfo, slot, estate, false, false, NULL,
								 NIL COMPAT_SUMMARIZING(0));
}

static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* For an update that may find triggers, but never a row that has changed. */
#if PG_VERSION_NUM >= 160000
#define compat_recheck_init(recheck, estate) EvalPlanQualInit(recheck, estate, NULL, NIL, -1, NIL)
#else
#define compat_recheck_init(recheck, estate) EvalPlanQualInit(recheck, estate, NULL, NIL, -1)
#endif

/* A descriptor has a second copy of what is often needed, from 18 on. */
#if PG_VERSION_NUM < 180000
#define populate_compact_attribute(desc, number) ((void) 0)
#endif

/* What ExecBRUpdateTriggers and ExecBRDeleteTriggers take, but for the row. */
#if PG_VERSION_NUM >= 180000
#define COMPAT_BEFORE_UPDATE	NULL, NULL, false
#define COMPAT_BEFORE_DELETE	NULL, NULL, NULL, false
#elif PG_VERSION_NUM >= 160000
#define COMPAT_BEFORE_UPDATE	NULL, NULL
#define COMPAT_BEFORE_DELETE	NULL, NULL, NULL
#else
#define COMPAT_BEFORE_UPDATE	NULL
#define COMPAT_BEFORE_DELETE	NULL
#endif

/*
 * Stores a new version of a row and its index entries.  Unique indexes accept
 * it whatever they have: returns those in which it may be a duplicate.
 */
static inline List *
compat_update_unchecked(ResultRelInfo *relinfo, EState *estate,
						ItemPointer tid, TupleTableSlot *slot)
{
	CompatChangedIndexes changed;

	simple_table_tuple_update(relinfo->ri_RelationDesc, tid, slot,
							  estate->es_snapshot, &changed);
	if (relinfo->ri_NumIndices == 0 || !changed)
		return NIL;
	return ExecInsertIndexTuples(relinfo, slot, estate, true, true, NULL,
								 NIL COMPAT_SUMMARIZING(changed));
}

/* Says which columns an update sets, as a statement's range table does. */
static inline void
compat_set_updated_columns(EState *estate, ResultRelInfo *relinfo,
						   Bitmapset *columns)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);

#if PG_VERSION_NUM >= 160000
	List	   *permissions = NIL;

	entry->relid = RelationGetRelid(relinfo->ri_RelationDesc);
	addRTEPermissionInfo(&permissions, entry)->updatedCols = columns;
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(entry), permissions, NULL);
#else
	ExecInitRangeTable(estate, list_make1(entry), permissions);
#endif
#else
	entry->updatedCols = columns;
	ExecInitRangeTable(estate, list_make1(entry));
#endif
	relinfo->ri_RangeTableIndex = 1;
}

/*
 * The primary key's index, InvalidOid without one.  Takes a lock for the session, if
 * it is free and there is memory for it.
 */
#if PG_VERSION_NUM >= 180000
#define compat_primary_key_index(rel) RelationGetPrimaryKeyIndex(rel, false)
#define compat_try_session_lock(tag, mode) (LockAcquireExtended(tag, mode, true, true, false, NULL, false) != LOCKACQUIRE_NOT_AVAIL)
#else
#define compat_primary_key_index(rel) RelationGetPrimaryKeyIndex(rel)
#define compat_try_session_lock(tag, mode) (LockAcquireExtended(tag, mode, true, true, false, NULL) != LOCKACQUIRE_NOT_AVAIL)
#endif

/* Where a relation's file is. */
#if PG_VERSION_NUM >= 160000
typedef RelFileLocator CompatFile;
#define compat_file_of(rel)		((rel)->rd_locator)
#else
typedef RelFileNode CompatFile;
#define compat_file_of(rel)		((rel)->rd_node)
#endif

/* The last leaf of a B-tree, locked for reading; InvalidBuffer if it has no page. */
#if PG_VERSION_NUM >= 170000
#define compat_last_leaf(index) _bt_get_endpoint(index, 0, true)
#else
#define compat_last_leaf(index) _bt_get_endpoint(index, 0, true, NULL)
#endif

/* The transaction id that the backend of a vxid has at this moment. */
static inline TransactionId
compat_vxid_current_xid(VirtualTransactionId vxid)
{
	TransactionId xid = InvalidTransactionId;
	TransactionId xmin;

#if PG_VERSION_NUM >= 160000
	int			nsubxid;
	bool		overflowed;
#endif

#if PG_VERSION_NUM >= 170000
	ProcNumberGetTransactionIds(vxid.procNumber, &xid, &xmin, &nsubxid,
								&overflowed);
#elif PG_VERSION_NUM >= 160000
	BackendIdGetTransactionIds(vxid.backendId, &xid, &xmin, &nsubxid,
							   &overflowed);
#else
	BackendIdGetTransactionIds(vxid.backendId, &xid, &xmin);
#endif
	return xid;
}

/*
 * The transaction of a process; whether this backend holds the lock in this mode; what
 * pg_stat_activity shows of a process that waits, if it can be named; the time-out of a
 * transaction in milliseconds, 0: none.
 */
#if PG_VERSION_NUM >= 170000
#define compat_proc_lxid(proc) ((proc)->vxid.lxid)
#define compat_lock_is_held(tag, mode) LockHeldByMe(tag, mode, false)
#define compat_wait_event(name) WaitEventExtensionNew(name)
#define compat_transaction_timeout() TransactionTimeout
#else
#define compat_proc_lxid(proc) ((proc)->lxid)
#define compat_lock_is_held(tag, mode) LockHeldByMe(tag, mode)
#define compat_wait_event(name) PG_WAIT_EXTENSION
#define compat_transaction_timeout() 0
#endif
#define compat_my_lxid() compat_proc_lxid(MyProc)

/* The process that runs the transaction of a vxid; 0: none does any more. */
static inline int
compat_vxid_pid(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM >= 170000
	PGPROC	   *proc = ProcNumberGetProc(vxid.procNumber);
#else
	PGPROC	   *proc = vxid.backendId == InvalidBackendId ? NULL :
	BackendIdGetProc(vxid.backendId);
#endif

	return proc != NULL && compat_proc_lxid(proc) == vxid.localTransactionId ?
		proc->pid : 0;
}

/* Returns true if the user may SET ROLE to the role. */
#if PG_VERSION_NUM >= 160000
#define compat_can_become(user, role) member_can_set_role(user, role)
#else
#define compat_can_become(user, role) is_member_of_role(user, role)
#endif

/* Checks a privilege of the user on a function or a schema. */
#if PG_VERSION_NUM >= 160000
#define compat_check_acl(class, object, user, mode) object_aclcheck(class, object, user, mode)
#else
#define compat_check_acl(class, object, user, mode) \
	((class) == NamespaceRelationId ? pg_namespace_aclcheck(object, user, mode) : \
	 pg_proc_aclcheck(object, user, mode))
#endif

/* A setting as the server has it, and how many there are; 0: a look costs nothing. */
#if PG_VERSION_NUM >= 160000
#define compat_find_setting(name) find_option(name, false, true, 0)
#define compat_setting_count() 0
#else
static inline struct config_generic *
compat_find_setting(const char *name)
{
	int			i = GetNumConfigOptions();

	while (--i >= 0 && strcmp(get_guc_variables()[i]->name, name) != 0);
	return i < 0 ? NULL : get_guc_variables()[i];
}
#define compat_setting_count() GetNumConfigOptions()
#endif

#endif							/* EVENTSTORE_COMPAT_H */
