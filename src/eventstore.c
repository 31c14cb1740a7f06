/*-------------------------------------------------------------------------
 *
 * eventstore.c
 *		What happens when the library is loaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "eventstore.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	stats_init();
	shmem_init();
	run_as_init();
	notify_init();
	event_type_init();
	import_init();
	projection_sync_init();
	rebuild_tables_init();
	lazy_commit_init();
	fold_init();
	worker_init();
	MarkGUCPrefixReserved("eventstore");
}
