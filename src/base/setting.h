/*-------------------------------------------------------------------------
 *
 * setting.h
 *		The settings with which users' code runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_SETTING_H
#define EVENTSTORE_SETTING_H

/* setting.c */

/* Values of the settings that change what users' code means, for the session. */
typedef struct Settings Settings;

/* The values for functions that a call names, which no definition keeps. */
extern const Settings *settings_fixed(void);

/* The values that a definition keeps, an array of name=value. */
extern const Settings *settings_read(Datum array);

/* The session's values, to be stored. */
extern Datum settings_of_session(void);

/* Sets what differs, within a nest level that the caller has made, as by run_as. */
extern void settings_apply(const Settings *settings);

/* Sets what differs until settings_end, which gets the result. */
extern int	settings_begin(const Settings *settings);
extern void settings_end(int level);

/*
 * Lets statements be planned by indexes, whatever is known of the tables, until settings_end:
 * they are planned once, and tables grow.
 */
extern int	settings_begin_by_index(void);

/* Adds the values to a hash. */
extern uint64 settings_hash(const Settings *settings, uint64 hash);

#endif							/* EVENTSTORE_SETTING_H */
