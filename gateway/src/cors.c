/*-------------------------------------------------------------------------
 *
 * cors.c
 *		Which pages of other sites may use the gateway (CORS).
 *
 * A browser lets a page of another origin read a response only if the response names
 * that origin.  The gateway names the origins of the setting cors_origins, exactly
 * as they are there, or any if the setting is *.  It never allows credentials of the browser:
 * it has no cookies, and a token is a header that the page itself adds.  So * gives away
 * no more than what a client without a browser has.
 *
 * A response depends on the header Origin wherever the setting lists origins, also
 * for requests that have none, and says so by Vary for caches.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "cors.h"
#include "log.h"
#include "text.h"

#define REQUEST_HEADERS	"Accept, Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID"
#define RESPONSE_HEADERS "Content-Location, ETag, Link, Location, Retry-After, WWW-Authenticate, X-Request-Id"
#define PREFLIGHT_SECONDS "600"

static char *cors_text;			/* memory of the list */
static char **cors_list;		/* ends with NULL */
static bool cors_any;

/* Returns true for "https://name" and "http://name:port", as browsers write an origin. */
static bool
is_origin(const char *text)
{
	const char *name = strstr(text, "://");

	if (name == NULL || name == text || name[3] == '\0')
		return false;
	for (const char *c = text; c < name; c++)
	{
		if (!islower((unsigned char) *c))
			return false;
	}
	for (const char *c = name + 3; *c != '\0'; c++)
	{
		if (!islower((unsigned char) *c) && !isdigit((unsigned char) *c) && strchr(".-:[]", *c) == NULL)
			return false;
	}
	return true;
}

static bool
cors_complain(const char *message)
{
	log_line(LOG_LEVEL_ERROR, "unusable_setting", LOG_TEXT("setting", "cors_origins"), LOG_TEXT("message", message));
	cors_free();
	return false;
}

bool
cors_load(void)
{
	const char *setting = config.cors_origins ? config.cors_origins : "";
	size_t		places = 2;
	size_t		count = 0;
	char	   *rest;
	char	   *item;

	cors_free();
	for (const char *c = setting; *c != '\0'; c++)
		places += *c == ',';
	cors_text = strdup(setting);
	cors_list = calloc(places, sizeof(char *));
	if (cors_text == NULL || cors_list == NULL)
		return cors_complain("out of memory");
	rest = cors_text;
	while ((item = strsep(&rest, ",")) != NULL)
	{
		char	   *origin = text_trim(item);

		if (*origin == '\0')
			continue;
		if (strcmp(origin, "*") == 0)
			cors_any = true;
		else if (!is_origin(origin))
			return cors_complain("an origin is written as https://name or https://name:port, in small letters");
		cors_list[count++] = origin;
	}
	if (cors_any && count > 1)
		return cors_complain("* is any origin, so there is no other beside it");
	return true;
}

void
cors_free(void)
{
	free(cors_list);
	cors_list = NULL;
	free(cors_text);
	cors_text = NULL;
	cors_any = false;
}

/* The value that allows the request's origin, or NULL. */
static const char *
cors_allowed(const Request *request)
{
	const char *origin = request_header(request, "Origin");

	if (origin == NULL || cors_list == NULL)
		return NULL;
	if (cors_any)
		return "*";
	for (char **listed = cors_list; *listed != NULL; listed++)
	{
		if (strcmp(*listed, origin) == 0)
			return *listed;
	}
	return NULL;
}

void
cors_headers(const Request *request, struct MHD_Response *response)
{
	const char *allowed = cors_allowed(request);

	if (cors_list != NULL && cors_list[0] != NULL && !cors_any)
		MHD_add_response_header(response, "Vary", "Origin");
	if (allowed == NULL)
		return;
	MHD_add_response_header(response, "Access-Control-Allow-Origin", allowed);
	MHD_add_response_header(response, "Access-Control-Expose-Headers", RESPONSE_HEADERS);
}

void
cors_preflight(const Request *request, const char *allow, struct MHD_Response *response)
{
	if (cors_allowed(request) == NULL || request_header(request, "Access-Control-Request-Method") == NULL)
		return;
	MHD_add_response_header(response, "Access-Control-Allow-Methods", allow);
	MHD_add_response_header(response, "Access-Control-Allow-Headers", REQUEST_HEADERS);
	MHD_add_response_header(response, "Access-Control-Max-Age", PREFLIGHT_SECONDS);
}

/*
 * A form or a script may send some requests without asking first, though it cannot
 * read the answer.  Browsers say Sec-Fetch-Site where they trust the address, and
 * Origin otherwise.
 */
bool
cors_is_foreign(const Request *request)
{
	const char *site = request_header(request, "Sec-Fetch-Site");
	const char *origin = request_header(request, "Origin");
	const char *host = request_header(request, "Host");
	const char *name = origin ? strstr(origin, "://") : NULL;

	if (cors_allowed(request) != NULL)
		return false;
	if (site != NULL)
		return strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;
	return origin != NULL && (name == NULL || host == NULL || strcasecmp(name + 3, host) != 0);
}
