/*-------------------------------------------------------------------------
 *
 * route.h
 *		The routes, as routes/generate makes them from the files beside it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_ROUTE_H
#define GATEWAY_ROUTE_H

#include <stdbool.h>

#define ROUTE_READ			0x01
#define ROUTE_WRITE			0x02
#define ROUTE_PUBLIC		0x04
#define ROUTE_WAIT			0x08
#define ROUTE_FOLLOW		0x10
#define ROUTE_BACKGROUND	0x20

typedef enum ParamPlace
{
	PARAM_PATH,
	PARAM_QUERY,
	PARAM_HEADER,
	PARAM_BODY,
	PARAM_BATCH					/* :batch of an event stream */
} ParamPlace;

typedef struct RouteParam
{
	const char *name;			/* of a header: as HTTP writes it, "If-Match" */
	const char *key;			/* as the statement writes it, "if_match" */
	ParamPlace	place;
	const char *type;			/* of SQL: "bigint", "text[]" */
	bool		is_array;		/* may be repeated in the query */
	bool		is_binary;		/* bytea: sent as it is, with NULs */
	const char *fallback;		/* the default in SQL, or NULL */
} RouteParam;

/* At most so many parameters has a route. */
#define ROUTE_MAX_PARAMS	24

typedef struct Route
{
	const char *name;			/* of the prepared statement, unique: "stream_1" */
	const char *method;
	const char *path;			/* "/v1/streams/{stream}" */
	unsigned	flags;
	const char *location;		/* of a background statement, a path with {parameters}, or NULL */
	const char *sql;			/* with $1, $2, ... in the order of params */
	const RouteParam *params;
	int			param_count;
} Route;

/* Sorted: of two that match a path, the one with fewer parameters in it comes first. */
extern const Route routes[];
extern const int route_count;

/* routes[] has as many entries as this for counters that are kept for each route. */
#define ROUTE_INDEX(route)	((int) ((route) - routes))

/* gateway/openapi.json, as /openapi.json answers it. */
extern const char openapi_text[];

#endif
