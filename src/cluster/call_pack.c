/*-------------------------------------------------------------------------
 *
 * call_pack.c
 *		The values and errors of calls between servers, as bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "eventstore.h"
#include "base/compat.h"
#include "cluster/cluster.h"

/* The length of a null. */
#define NULL_LENGTH	(-1)

void
call_type_send(CallType *type, Oid oid, MemoryContext context)
{
	Oid			function;
	bool		isvarlena;

	getTypeBinaryOutputInfo(oid, &function, &isvarlena);
	fmgr_info_cxt(function, &type->function, context);
	type->parameter = InvalidOid;
}

void
call_type_receive(CallType *type, Oid oid, MemoryContext context)
{
	Oid			function;

	getTypeBinaryInputInfo(oid, &function, &type->parameter);
	fmgr_info_cxt(function, &type->function, context);
}

void
call_pack_value(StringInfo buffer, CallType *type, Datum value, bool isnull)
{
	bytea	   *bytes;

	if (isnull)
	{
		pq_sendint32(buffer, NULL_LENGTH);
		return;
	}
	bytes = SendFunctionCall(&type->function, value);
	pq_sendint32(buffer, VARSIZE(bytes) - VARHDRSZ);
	pq_sendbytes(buffer, VARDATA(bytes), VARSIZE(bytes) - VARHDRSZ);
	pfree(bytes);
}

/* Refuses a length that the buffer does not have. */
static void
check_length(StringInfo buffer, int length)
{
	if (length < 0 || length > buffer->len - buffer->cursor)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the bytes of a call are incomplete"),
				 errdetail("A value has %d bytes, and %d are left.", length,
						   buffer->len - buffer->cursor),
				 errhint("Only routers of eventstore_cluster call es_call().")));
}

/*
 * Reads a value where it is, as record_recv() does: a type's function wants a zero behind it.
 */
Datum
call_unpack_value(StringInfo buffer, CallType *type, bool *isnull)
{
	int			length = (int) pq_getmsgint(buffer, 4);
	StringInfoData value;
	char		behind;
	Datum		result;

	*isnull = length == NULL_LENGTH;
	if (*isnull)
		return (Datum) 0;
	check_length(buffer, length);
	value.data = buffer->data + buffer->cursor;
	value.len = length;
	value.maxlen = length + 1;
	value.cursor = 0;
	behind = value.data[length];
	value.data[length] = '\0';
	result = ReceiveFunctionCall(&type->function, &value, type->parameter, -1);
	value.data[length] = behind;
	if (value.cursor != length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("a value of a call has another form than its type"),
				 errdetail("Of %d bytes %d were read.", length, value.cursor),
				 errhint("Have the same type on the router and on the shard.")));
	buffer->cursor += length;
	return result;
}

static void
pack_text(StringInfo buffer, const char *value)
{
	if (value == NULL)
		pq_sendint32(buffer, NULL_LENGTH);
	else
	{
		pq_sendint32(buffer, strlen(value));
		pq_sendbytes(buffer, value, strlen(value));
	}
}

/* The text, which is in the server's encoding on both sides; NULL for null. */
static char *
unpack_text(StringInfo buffer)
{
	int			length = (int) pq_getmsgint(buffer, 4);

	if (length == NULL_LENGTH)
		return NULL;
	check_length(buffer, length);
	return pnstrdup(pq_getmsgbytes(buffer, length), length);
}

void
call_pack_error(StringInfo buffer, const ErrorData *error)
{
	pq_sendbyte(buffer, CALL_ERROR);
	pack_text(buffer, unpack_sql_state(error->sqlerrcode));
	pack_text(buffer, error->message);
	pack_text(buffer, error->detail);
	pack_text(buffer, error->hint);
	pack_text(buffer, error->context);
	pack_text(buffer, error->schema_name);
	pack_text(buffer, error->table_name);
	pack_text(buffer, error->column_name);
	pack_text(buffer, error->datatype_name);
	pack_text(buffer, error->constraint_name);
}

static int
set_field(int field, const char *value)
{
	if (value != NULL)
		err_generic_string(field, value);
	return 0;
}

void
call_raise_error(StringInfo buffer)
{
	char	   *fields[CALL_ERROR_FIELDS];
	char	   *state;
	int			code;
	int			i;

	for (i = 0; i < CALL_ERROR_FIELDS; i++)
		fields[i] = unpack_text(buffer);
	state = fields[CALL_SQLSTATE];
	if (state == NULL || strlen(state) != 5)
		state = "XX000";
	code = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	if (code == ERRCODE_ES_WRONG_SHARD)
		fields[CALL_HINT] = "The router's map is older than the shards. Repeat the call when it is changed; es_check_shards() compares them.";
	ereport(ERROR,
			(errcode(code),
			 errmsg_internal("%s", fields[CALL_MESSAGE] != NULL ? fields[CALL_MESSAGE] : ""),
			 fields[CALL_DETAIL] != NULL ? errdetail_internal("%s", fields[CALL_DETAIL]) : 0,
			 fields[CALL_HINT] != NULL ? errhint("%s", fields[CALL_HINT]) : 0,
			 fields[CALL_CONTEXT] != NULL ? errcontext_msg("%s", fields[CALL_CONTEXT]) : 0,
			 set_field(PG_DIAG_SCHEMA_NAME, fields[CALL_SCHEMA]),
			 set_field(PG_DIAG_TABLE_NAME, fields[CALL_TABLE]),
			 set_field(PG_DIAG_COLUMN_NAME, fields[CALL_COLUMN]),
			 set_field(PG_DIAG_DATATYPE_NAME, fields[CALL_DATATYPE]),
			 set_field(PG_DIAG_CONSTRAINT_NAME, fields[CALL_CONSTRAINT])));
}

/* It is copied, as its reader writes a zero behind each value. */
void
call_buffer(StringInfo buffer, Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	initStringInfo(buffer);
	appendBinaryStringInfo(buffer, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}
