/*-------------------------------------------------------------------------
 *
 * restore.h
 *		Copies of the store: what was added to its tables comes along.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_RESTORE_H
#define EVENTSTORE_RESTORE_H

#include "fmgr.h"
#include "nodes/pg_list.h"

/* definitions.c */

/* Something that is defined for a table of the extension. */
typedef struct CopiedDefinition
{
	char	   *kind;
	char	   *table;
	char	   *name;
	char	   *statement;
} CopiedDefinition;

/* How many rows a table has. */
typedef struct TableRows
{
	char	   *table;
	int64		rows;
} TableRows;

/* What a dump brings. */
typedef struct CopiedDefinitions
{
	char	   *schema;			/* of the extension, in the database that was
								 * dumped */
	int64		position;		/* the last one there */
	List	   *rows;			/* of TableRows, there */
	List	   *items;			/* of CopiedDefinition */
} CopiedDefinitions;

/* Returns true if the value was restored, and is not the extension's own row. */
extern bool definitions_are_restored(Datum value);

/* Takes a restored value apart; an error if it is none that a dump has. */
extern CopiedDefinitions *definitions_read(Oid log, Datum value);

/* The definitions that the catalogs have now. */
extern List *definitions_list(Oid log);

/*
 * How many rows each table has that comes with a dump, es_events first, and the last position
 * of the log.  latest: as a new snapshot sees them, else the active one.
 */
extern List *definitions_count_rows(Oid log, bool latest);
extern int64 definitions_last_position(Oid log, bool latest);

/* Returns true if the list has the same statement. */
extern bool definitions_have(List *items, const CopiedDefinition *item);

/* restore_statement.c */

/* A definition that is replayed. */
typedef struct RestoredItem
{
	Oid			log;
	const CopiedDefinitions *from;
	const CopiedDefinition *definition;
	Oid			relid;			/* out: its table */
	bool		is_row_security;	/* out: the table's row security is to be
									 * as follows */
	bool		enable;			/* out */
} RestoredItem;

/* Runs the statement; row security is left to restore_open.  An error: it fails. */
extern void restore_run_item(RestoredItem *item);

/* restore_state.c: SPI must be connected */

/* How row security of a table is to be once the store is open. */
typedef struct WantedRowSecurity
{
	Oid			relid;
	bool		enable;
} WantedRowSecurity;

extern void restore_close(Oid log);
extern void restore_open(Oid log, List *wanted);

/* Sets the guards to ENABLE ALWAYS; returns how many were not. */
extern int	restore_guards(Oid log);

#endif							/* EVENTSTORE_RESTORE_H */
