/*-------------------------------------------------------------------------
 *
 * setting.c
 *		The settings that change what users' functions and statements mean, so
 *		that it does not matter which session runs them.
 *
 * A session reads and writes values by its settings: a timestamp's date depends on
 * TimeZone, the text of a float on extra_float_digits.  Two sessions would make two
 * read models of one log.  So these settings are not the session's where users' code
 * handles events.  doc/guide/settings.md says of each setting why it is here or not:
 *
 *	- A definition that is stored, of a projection or an upcaster, keeps the values
 *	  of the session that made it, as it keeps the search_path.
 *	- A function that a call names, a reducer, decider or handler of messages, has
 *	  no definition that could keep any.  It runs with fixed values, as do the
 *	  checks of attributes.  The SET clause of a function is above either.
 *
 * Values are compared first, since mostly they are the session's.  Those that differ
 * are set within a nest level of the server's settings, and restored with it, also
 * after an error.
 *
 * A set of values is read once in a session and never freed, so that it can be
 * pointed at.  There are as many as sessions of different kinds have made
 * definitions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <locale.h>

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/base.h"
#include "base/setting.h"

/* A setting that changes what values mean. */
typedef struct MeaningSetting
{
	const char *name;
	const char *fixed;			/* NULL: the database's locale */
	bool		kept;			/* does a definition keep it? */
} MeaningSetting;

/*
 * Those that are not kept have one right value only.  Those of plpgsql exist once
 * that is loaded.
 */
static const MeaningSetting meaning_settings[] = {
	{"TimeZone", "UTC", true},
	{"timezone_abbreviations", "Default", true},
	{"DateStyle", "ISO, MDY", true},
	{"IntervalStyle", "postgres", true},
	{"extra_float_digits", "1", true},
	{"bytea_output", "hex", true},
	{"lc_messages", NULL, true},
	{"lc_monetary", NULL, true},
	{"lc_numeric", NULL, true},
	{"lc_time", NULL, true},
	{"xmlbinary", "base64", true},
	{"xmloption", "content", true},
	{"array_nulls", "on", true},
	{"default_text_search_config", "pg_catalog.english", true},
	{"standard_conforming_strings", "on", true},
	{"backslash_quote", "safe_encoding", true},
	{"quote_all_identifiers", "off", true},
	{"transform_null_equals", "off", true},
	{"plpgsql.variable_conflict", "error", true},
	{"plpgsql.check_asserts", "on", true},
	{"gin_fuzzy_search_limit", "0", false},
	{"row_security", "on", false},
	{"session_replication_role", "origin", false},
};

#define MEANING_SETTINGS ((int) lengthof(meaning_settings))

/* The values of all of them. */
struct Settings
{
	const char *values[MEANING_SETTINGS];
	int			numbers[MEANING_SETTINGS];	/* of what is no string */
	ArrayType  *stored;			/* what they were read from; NULL: fixed */
};

/* Where the server has them; NULL: not found so far. */
static struct config_generic *variables[MEANING_SETTINGS];

/* Is there one of the name, which is only remembered for a library to come? */
static bool placeholders[MEANING_SETTINGS];

/* What was read in this session. */
static Settings *fixed_settings = NULL;
static List *kept_settings = NIL;

/* Reads a value that is no string as the server has it. */
static int
value_number(struct config_generic *variable, const char *value)
{
	bool		flag = false;
	int			number = 0;

	if (variable == NULL)
		return 0;
	switch (variable->vartype)
	{
		case PGC_BOOL:
			(void) parse_bool(value, &flag);
			return flag;
		case PGC_INT:
			(void) parse_int(value, &number, variable->flags, NULL);
			return number;
		case PGC_ENUM:
			(void) config_enum_lookup_by_name((struct config_enum *) variable,
											  value, &number);
			return number;
		default:
			return 0;
	}
}

/* Takes over where a setting is, for what was read before it was there. */
static void
remember_variable(int number, struct config_generic *variable)
{
	ListCell   *cell;

	variables[number] = variable;
	if (fixed_settings != NULL)
		fixed_settings->numbers[number] =
			value_number(variable, fixed_settings->values[number]);
	foreach(cell, kept_settings)
	{
		Settings   *settings = lfirst(cell);

		settings->numbers[number] = value_number(variable, settings->values[number]);
	}
}

/*
 * Finds the server's variables, once in a session; those of a library when it has
 * been loaded.  A placeholder is not relied on, since it is freed then.
 */
static void
find_variables(void)
{
	static int	missing = MEANING_SETTINGS;
	static int	seen = -1;
	int			count = compat_setting_count();
	int			i;

	if (missing == 0 || (count > 0 && count == seen))
		return;
	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		struct config_generic *variable;

		if (variables[i] != NULL)
			continue;
		variable = compat_find_setting(meaning_settings[i].name);
		placeholders[i] = variable != NULL &&
			(variable->flags & GUC_CUSTOM_PLACEHOLDER) != 0;
		if (variable == NULL || placeholders[i])
			continue;
		remember_variable(i, variable);
		missing--;
	}
	seen = count;
}

/* The locale of the database, which exists wherever the database does. */
static const char *
database_locale(void)
{
	static char *locale = NULL;

	if (locale == NULL)
		locale = MemoryContextStrdup(TopMemoryContext, setlocale(LC_CTYPE, NULL));
	return locale;
}

static const char *
fixed_value(int number)
{
	return meaning_settings[number].fixed != NULL ?
		meaning_settings[number].fixed : database_locale();
}

/* Both names are those of one time zone, and servers have either. */
static bool
is_utc(const char *value)
{
	return strcmp(value, "UTC") == 0 || strcmp(value, "Etc/UTC") == 0;
}

static bool
is_same_text(const char *one, const char *other)
{
	return one != NULL &&
		(strcmp(one, other) == 0 || (is_utc(one) && is_utc(other)));
}

/* Returns true if the session has this value of the setting. */
static bool
session_has_value(const Settings *settings, int number)
{
	struct config_generic *variable = variables[number];
	const char *value = settings->values[number];
	const char *current;

	if (variable == NULL)
	{
		current = placeholders[number] ?
			GetConfigOption(meaning_settings[number].name, true, false) : NULL;
		return is_same_text(current != NULL ? current : fixed_value(number),
							value);
	}
	switch (variable->vartype)
	{
		case PGC_BOOL:
			return *((struct config_bool *) variable)->variable ==
				(settings->numbers[number] != 0);
		case PGC_INT:
			return *((struct config_int *) variable)->variable ==
				settings->numbers[number];
		case PGC_ENUM:
			return *((struct config_enum *) variable)->variable ==
				settings->numbers[number];
		case PGC_STRING:
			return is_same_text(*((struct config_string *) variable)->variable,
								value);
		default:
			return false;
	}
}

/* Sets it within the present nest level; false if the value is not possible. */
static bool
try_set_value(int number, const char *value, int elevel)
{
	return set_config_option(meaning_settings[number].name, value, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, elevel,
							 false) != 0;
}

/*
 * Sets a locale, which may be missing on the server of a restored database.  Code that
 * does not print by it can go on there.  Other code must not depend on the session.
 */
static void
set_locale_value(int number, const char *value)
{
	static bool warned = false;

	if (try_set_value(number, value, DEBUG2))
		return;
	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("locale \"%s\" does not exist on this server", value),
				 errdetail("A definition was made with %s of this name. It runs with \"%s\", the locale of the database.",
						   meaning_settings[number].name, database_locale()),
				 errhint("Install the locale, or define the projection or upcaster again.")));
	warned = true;
	(void) try_set_value(number, database_locale(), ERROR);
}

void
settings_apply(const Settings *settings)
{
	int			i;

	find_variables();
	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		if (session_has_value(settings, i))
			continue;
		if (meaning_settings[i].fixed == NULL)
			set_locale_value(i, settings->values[i]);
		else
			(void) try_set_value(i, settings->values[i], ERROR);
	}
}

int
settings_begin(const Settings *settings)
{
	int			i;

	find_variables();
	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		if (!session_has_value(settings, i))
		{
			int			level = NewGUCNestLevel();

			settings_apply(settings);
			return level;
		}
	}
	return 0;
}

void
settings_end(int level)
{
	if (level > 0)
		AtEOXact_GUC(false, level);
}

int
settings_begin_by_index(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Makes the fixed values, in memory that is never freed. */
static Settings *
make_fixed_settings(void)
{
	Settings   *settings = MemoryContextAllocZero(TopMemoryContext,
												  sizeof(Settings));
	int			i;

	find_variables();
	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		settings->values[i] = fixed_value(i);
		settings->numbers[i] = value_number(variables[i], settings->values[i]);
	}
	return settings;
}

const Settings *
settings_fixed(void)
{
	if (fixed_settings == NULL)
		fixed_settings = make_fixed_settings();
	return fixed_settings;
}

/* Takes a value over from what was stored, as name=value. */
static void
read_stored_value(Settings *settings, const char *assignment)
{
	int			i;

	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		int			length = strlen(meaning_settings[i].name);

		/* in this order: what was stored may be shorter than the name */
		if (!meaning_settings[i].kept ||
			strncmp(assignment, meaning_settings[i].name, length) != 0 ||
			assignment[length] != '=')
			continue;
		settings->values[i] = MemoryContextStrdup(TopMemoryContext,
												  assignment + length + 1);
		settings->numbers[i] = value_number(variables[i], settings->values[i]);
		return;
	}
}

/* Returns what was read from the same array before; NULL if nothing was. */
static const Settings *
find_kept_settings(const ArrayType *stored)
{
	ListCell   *cell;

	foreach(cell, kept_settings)
	{
		const Settings *settings = lfirst(cell);

		if (VARSIZE(settings->stored) == VARSIZE(stored) &&
			memcmp(settings->stored, stored, VARSIZE(stored)) == 0)
			return settings;
	}
	return NULL;
}

const Settings *
settings_read(Datum array)
{
	ArrayType  *stored = DatumGetArrayTypeP(array);
	const Settings *known = find_kept_settings(stored);
	MemoryContext oldcontext;
	Settings   *settings;
	Datum	   *values;
	int			count;
	int			i;

	if (known != NULL)
		return known;
	settings = make_fixed_settings();
	count = argument_texts("settings", stored, &values);
	for (i = 0; i < count; i++)
		read_stored_value(settings, TextDatumGetCString(values[i]));
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	settings->stored = palloc(VARSIZE(stored));
	memcpy(settings->stored, stored, VARSIZE(stored));
	kept_settings = lappend(kept_settings, settings);
	MemoryContextSwitchTo(oldcontext);
	return settings;
}

Datum
settings_of_session(void)
{
	Datum		values[MEANING_SETTINGS];
	int			count = 0;
	int			i;

	for (i = 0; i < MEANING_SETTINGS; i++)
	{
		const char *name = meaning_settings[i].name;
		const char *value;

		if (!meaning_settings[i].kept)
			continue;
		value = GetConfigOptionByName(name, NULL, true);
		if (value != NULL)
			values[count++] = CStringGetTextDatum(psprintf("%s=%s", name, value));
	}
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

uint64
settings_hash(const Settings *settings, uint64 hash)
{
	int			i;

	for (i = 0; i < MEANING_SETTINGS; i++)
		hash = hash_bytes_extended((const unsigned char *) settings->values[i],
								   strlen(settings->values[i]), hash);
	return hash;
}
