/*-------------------------------------------------------------------------
 *
 * config.h
 *		Settings: one table, from which the file is checked and --help is made.
 *
 * To add a setting, add a member to Config and a line to the table in config.c.
 * The file has lines "name = value"; the command line has --name=value, which
 * wins.  SIGHUP reads key and token files again, and no setting.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_CONFIG_H
#define GATEWAY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Config
{
	/* where it listens */
	const char *listen;			/* "address:port"; port 0: any free one */
	const char *tls_certificate;
	const char *tls_key;
	bool		allow_plain_http;	/* on an address that is not loopback */
	bool		trust_proxy;	/* X-Forwarded-For names the client */

	/* the database */
	const char *database;		/* libpq's connection string */
	int64_t		pool_size;
	int64_t		background_connections;
	int64_t		queue_limit;	/* requests that wait for a connection */
	int64_t		queue_timeout;	/* ms */
	int64_t		statement_timeout;	/* ms */
	int64_t		connect_timeout;	/* s */

	/* who may do what */
	const char *anonymous_role;
	const char *token_file;
	const char *jwt_keys;		/* the list of keys (key.c) */
	const char *jwt_issuer;
	const char *jwt_audience;
	const char *role_claim;
	const char *roles;			/* that claims may name: "role, value=role"; empty: any that may be set */
	int64_t		jwt_leeway;		/* s */
	bool		jwt_require_exp;
	const char *metrics_role;	/* may read /metrics; empty: anybody */
	const char *cors_origins;	/* separated by commas */

	/* limits */
	int64_t		max_connections;
	int64_t		max_connections_per_address;
	int64_t		max_requests_per_address;	/* at once */
	int64_t		connection_memory;	/* bytes */
	int64_t		max_body;		/* bytes */
	int64_t		max_target;		/* bytes */
	int64_t		request_timeout;	/* s, for head and body */
	int64_t		idle_timeout;	/* s, between requests */
	int64_t		drain_timeout;	/* s */

	/* event streams and long polls */
	int64_t		max_followers;
	int64_t		follow_batch;	/* events */
	int64_t		follow_queue;	/* bytes a follower may be behind before it leaves its feed */
	int64_t		poll_interval;	/* ms */
	int64_t		heartbeat;		/* s */
	int64_t		max_wait;		/* s, of a long poll */

	/* the rest */
	const char *console_dir;
	const char *log_level;
	bool		log_requests;
} Config;

typedef enum SettingType
{
	SETTING_TEXT,
	SETTING_NUMBER,
	SETTING_BOOL
} SettingType;

typedef struct Setting
{
	const char *group;			/* a heading before it, or NULL */
	const char *name;
	SettingType type;
	size_t		offset;			/* in Config */
	const char *fallback;		/* the default, as text */
	int64_t		min;
	int64_t		max;
	const char *unit;			/* for people: "ms", "bytes", or NULL */
	const char *sentence;
} Setting;

extern Config config;

/* Ends with an entry without a name. */
extern const Setting settings[];

/* Sets the defaults. */
extern bool config_init(void);

/* Reads arguments and the file that they or the default name; says what is wrong on standard error. */
extern bool config_read(int argc, char **argv, const char *default_file);

/* Prints a line or two for each setting. */
extern void config_help(void);

#endif
