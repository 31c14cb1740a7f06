/*-------------------------------------------------------------------------
 *
 * projection_define.h
 *		How a projection is defined and changed: arguments of SQL functions, and
 *		its mode.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PROJECTION_DEFINE_H
#define EVENTSTORE_PROJECTION_DEFINE_H

#include "fmgr.h"

#include "projection/projection.h"

/* projection_definition.c: checking what is given. */

/* The parts of a definition, in the order of es_create_projection's arguments. */
typedef enum DefinitionPart
{
	DEFINE_NAME, DEFINE_HANDLER, DEFINE_QUERY, DEFINE_HANDLER_SCHEMA,
	DEFINE_REFRESH, DEFINE_TABLES, DEFINE_CATEGORY, DEFINE_TYPES, DEFINE_MODE,
	DEFINE_START_POSITION, DEFINE_BATCH_SIZE, DEFINE_ON_FAILURE,
	DEFINE_MAX_ATTEMPTS, DEFINE_MIN_INTERVAL, DEFINE_EVENT_QUERY, DEFINE_PARTS
} DefinitionPart;

/* A definition, or what is to be changed in one. */
typedef struct Definition
{
	Oid			log;
	NullableDatum parts[DEFINE_PARTS];	/* null: not given */
} Definition;

/* Takes the arguments of the call, which are these parts. */
extern void definition_take(Definition *definition, FunctionCallInfo fcinfo,
							const DefinitionPart *parts, int count);

/* Returns true if the part is given. */
extern bool definition_has(const Definition *definition, DefinitionPart part);

/* Returns how many of handler, query, handler_schema and refresh are given. */
extern int	definition_count_kinds(const Definition *definition);

/*
 * Refuses what is wrong by itself.  refresh: the projection refreshes a materialized
 * view.
 */
extern void definition_check(const Definition *definition, bool refresh);

/*
 * Returns the part as it is stored, handlers and schemas by name.  null: set as for SPI.
 */
extern Datum definition_stored(const Definition *definition,
							   DefinitionPart part, char *null);

/* projection_define.c: making and dropping. */

/* Refuses a name that another projection has (42710). */
extern void projection_check_name_is_free(Oid log, const char *name);

/*
 * Opens SPI and the projection that the first argument names.  lock: finds it, if the
 * caller may change it so.
 */
extern Projection *projection_begin_change(FunctionCallInfo fcinfo,
										   const char *function,
										   Projection *(*lock) (Oid log, const char *name));

/* Changes the mode of a projection whose row is locked. */
extern void projection_change_mode(Projection *projection, const char *mode);

/* projection_mode.c: becoming sync, and ceasing to be. */

/* Refuses a projection that cannot be sync. */
extern void projection_check_sync(const Projection *projection);

/* Makes a projection sync, and writes its row, which the caller has locked. */
extern void projection_begin_sync(Projection *projection);

/*
 * Ends being sync: disables the trigger and moves projection->position to the
 * end of the log.  The caller has locked the row, and updates it.
 */
extern void projection_end_sync(Projection *projection);

/*
 * Locks the log if the projection is sync and running, so that every append is either
 * before or after what is changed now; returns false if it need not.
 */
extern bool projection_lock_sync(Projection *projection, const char *purpose);

/*
 * Gives a sync projection that is locked by projection_lock_sync a trigger of its new
 * name.
 */
extern void projection_rename_trigger(const Projection *projection,
									  const char *new_name);

/* Disables the trigger of a projection that is dropped, if it is sync. */
extern void projection_end_trigger(Projection *projection);

/* Gives sync projections that run the triggers that they miss; returns how many. */
extern int	projection_restore_triggers(Oid log);

#endif							/* EVENTSTORE_PROJECTION_DEFINE_H */
