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

#include "base/base.h"
#include "stats/stats.h"
#include "log/closed.h"
#include "log/log.h"
#include "notify/notify.h"
#include "type/type.h"
#include "personal/personal.h"
#include "append/append.h"
#include "failure/failure.h"
#include "aggregate/aggregate.h"
#include "retention/rule.h"
#include "projection/projection.h"
#include "projection/projection_failure.h"
#include "reset/reset.h"
#include "health/health.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	stats_init();
	worker_slot_init();
	wakeup_init();
	notify_init();
	announce_init();
	autostart_init();
	event_type_init();
	key_file_init();
	import_init();
	tag_metadata_init();
	failure_init();
	retention_init();
	projection_sync_init();
	projection_limit_init();
	async_commit_init();
	fold_init();
	reset_init();
	health_init();
	worker_init();
	launcher_init();
	drop_guard_init();
	MarkGUCPrefixReserved("eventstore");
}
