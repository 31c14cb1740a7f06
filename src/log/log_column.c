/*-------------------------------------------------------------------------
 *
 * log_column.c
 *		Columns that the owner of es_events has added.
 *
 * An append fills them like an INSERT that names the other columns only.  The value is
 * the column's default, the next value of an identity, the result of a generated
 * column, or null, which a domain may refuse.  Defaults run with the rights
 * of the role that appends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "log/log.h"

/* A column that gets a value of its own in each row. */
typedef struct AddedColumn
{
	AttrNumber	attribute;
	ExprState  *value;
} AddedColumn;

/*
 * Returns the expression for a column that an INSERT does not name, NULL if it is
 * just null.
 */
static Node *
column_expression(Relation rel, Form_pg_attribute column)
{
	Node	   *expression = build_column_default(rel, column->attnum);

	if (expression != NULL || get_typtype(column->atttypid) != TYPTYPE_DOMAIN)
		return expression;
	expression = (Node *) makeConst(column->atttypid, -1,
									column->attcollation, column->attlen,
									(Datum) 0, true, column->attbyval);
	return coerce_to_domain(expression, InvalidOid, -1, column->atttypid,
							COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1,
							false);
}

/*
 * Prepares the expressions of added columns; to be called once for a log that is
 * opened.
 */
void
log_column_prepare(Log *log)
{
	TupleDesc	desc = RelationGetDescr(log->rel);
	int			i;

	for (i = Natts_es_events; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		AddedColumn *added;
		Node	   *expression;

		if (column->attisdropped || column->attgenerated)
			continue;
		expression = column_expression(log->rel, column);
		if (expression == NULL)
			continue;
		added = palloc(sizeof(AddedColumn));
		added->attribute = column->attnum;
		added->value = ExecPrepareExpr((Expr *) expression, log->estate);
		log->added_columns = lappend(log->added_columns, added);
	}
}

/*
 * Fills the added columns of a row that has all others.  The values are in the
 * memory for a tuple, which stays until the chunk of rows is stored.
 */
void
log_column_fill(Log *log, TupleTableSlot *slot)
{
	ExprContext *context = GetPerTupleExprContext(log->estate);
	ListCell   *cell;

	foreach(cell, log->added_columns)
	{
		AddedColumn *added = lfirst(cell);
		int			column = added->attribute - 1;

		slot->tts_values[column] = ExecEvalExprSwitchContext(added->value, context,
															 &slot->tts_isnull[column]);
	}
}
