/*-------------------------------------------------------------------------
 *
 * cluster.h
 *		Calls that one server makes for the users of another (doc/internals/cluster.md).
 *
 * A router packs the arguments of a call, PL/Proxy carries them to a shard, es_call() makes
 * the call there, and the router unpacks what comes back.  Values travel in the binary form
 * of their types.
 *
 * The name of a call is that of the function with the names of its arguments, such as
 * es_load(stream,after_version).  Those that it leaves out have their defaults, so that a
 * shard may know more arguments than the router.
 *
 * An answer is any number of chunks.  Each begins with its kind.  Rows follow one another to
 * the end of the chunk, each with the number of its columns.  An error is the only chunk
 * that counts, and has its fields in the order of CallErrorField.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_CLUSTER_H
#define EVENTSTORE_CLUSTER_H

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/palloc.h"

#define CALL_ROWS	'R'
#define CALL_ERROR	'E'

/* Fields of an error, which may be null but for the first two. */
typedef enum CallErrorField
{
	CALL_SQLSTATE, CALL_MESSAGE, CALL_DETAIL, CALL_HINT, CALL_CONTEXT,
	CALL_SCHEMA, CALL_TABLE, CALL_COLUMN, CALL_DATATYPE, CALL_CONSTRAINT,
	CALL_ERROR_FIELDS
} CallErrorField;

/* A type, and the function that makes its binary form or reads it. */
typedef struct CallType
{
	FmgrInfo	function;
	Oid			parameter;		/* of a function that reads */
} CallType;

/* call_pack.c; the functions are kept in the context */
extern void call_type_send(CallType *type, Oid oid, MemoryContext context);
extern void call_type_receive(CallType *type, Oid oid, MemoryContext context);
extern void call_pack_value(StringInfo buffer, CallType *type, Datum value, bool isnull);
extern Datum call_unpack_value(StringInfo buffer, CallType *type, bool *isnull);
extern void call_pack_error(StringInfo buffer, const ErrorData *error);

/* Raises the error that is in the buffer behind its kind. */
extern void call_raise_error(StringInfo buffer);

/* Makes a buffer that reads a bytea. */
extern void call_buffer(StringInfo buffer, Datum value);

#endif							/* EVENTSTORE_CLUSTER_H */
