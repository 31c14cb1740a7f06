/*-------------------------------------------------------------------------
 *
 * command.h
 *		Commands, and deciders that turn them into events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_COMMAND_H
#define EVENTSTORE_COMMAND_H

#include "append/append.h"

/* decider.c */

/*
 * Finds the decider that the es_function names.  Errors: it names none that the
 * user may execute.
 */
extern Oid	decider_find(text *name);

/*
 * Calls the decider; returns what it decided as new events of the stream, and
 * how many.  decided: gets the array as it was returned, if not NULL.  Errors: it returns null, or no
 * array of events.
 */
extern NewEvent *decider_decide(Oid decider, text *stream, NullableDatum state,
								Datum command, int *count, Jsonb **decided);

/* command.c */

/* A command on a stream, or on what matches a query. */
typedef struct Command
{
	text	   *stream;			/* NULL: on what matches a query */
	Datum		value;			/* jsonb */
	Datum		metadata;		/* of all its events; 0: none */
	pg_uuid_t  *id;				/* NULL: it has none */
	Datum		id_metadata;	/* metadata with the id; 0: none */
} Command;

/* The events of an executed command. */
typedef struct CommandResult
{
	int64		version;		/* of the last one */
	int64		position;		/* of the last one; 0: there are none */
	int			count;
} CommandResult;

/* Makes a command; stream: NULL, metadata: 0 if none.  Errors: its command_id is not a UUID. */
extern void command_init(Command *command, text *stream, Datum value,
						 Datum metadata);

/*
 * Completes the metadata and ids of the events that were decided.  Errors: the
 * command has an id, and an event that it is recognized by one of its own.
 */
extern void command_complete_events(const Command *command, Write *write);

/*
 * Returns true if the command has an id and was executed before; found gets its
 * events as far as the caller may see them.
 */
extern bool command_find_executed(const Command *command, Oid log,
								  CommandResult *found);

/* The same of a command on a query: found gets the positions of its events, in order. */
extern bool command_find_decided(const Command *command, Oid log, Int8Array *found);

#endif							/* EVENTSTORE_COMMAND_H */
