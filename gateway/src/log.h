/*-------------------------------------------------------------------------
 *
 * log.h
 *		Lines of JSON to standard error.
 *
 * A line has "time", "level", "event" and the fields that the caller adds.  No
 * line holds a token, a body or a parameter.
 *
 *		log_line(LOG_LEVEL_INFO, "listening", LOG_TEXT("url", url), LOG_NUMBER("routes", count));
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_LOG_H
#define GATEWAY_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LogLevel
{
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_ERROR
} LogLevel;

typedef struct LogField
{
	const char *name;
	const char *text;			/* NULL: it is a number */
	double		number;
	int			decimals;		/* -1: the field is left out */
} LogField;

static inline LogField
log_text_field(const char *name, const char *text)
{
	return (LogField) {.name = name, .text = text, .decimals = text ? 0 : -1};
}

#define LOG_TEXT(name_, text_)	log_text_field(name_, text_)
#define LOG_NUMBER(name_, number_) ((LogField) {.name = (name_), .number = (double) (number_)})
#define LOG_MS(name_, number_) ((LogField) {.name = (name_), .number = (number_), .decimals = 3})

/* Lines below this level are left out. */
extern void log_set_level(LogLevel level);

/* Writes a line.  Fields whose text is NULL are left out. */
extern void log_fields(LogLevel level, const char *event, const LogField *fields, int count);

/* The same with the fields as arguments, of which there is at least one. */
#define log_line(level, event, ...) \
	log_fields(level, event, (const LogField[]) {__VA_ARGS__}, \
			   (int) (sizeof((const LogField[]) {__VA_ARGS__}) / sizeof(LogField)))

/* A line with a "message" made by printf. */
extern void log_message(LogLevel level, const char *event, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif
