/*-------------------------------------------------------------------------
 *
 * log.c
 *		Lines of JSON to standard error.
 *
 * A line is one write, so that lines of programs that share a file do not mix.
 *
 *-------------------------------------------------------------------------
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buffer.h"
#include "log.h"

static LogLevel lowest = LOG_LEVEL_INFO;
static Buffer line;

void
log_set_level(LogLevel level)
{
	lowest = level;
}

static bool
log_is_on(LogLevel level)
{
	return level >= lowest;
}

static void
log_begin(LogLevel level, const char *event)
{
	static const char *const levels[] = {"debug", "info", "warning", "error"};
	struct timespec ts;
	struct tm	tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	buffer_reset(&line);
	buffer_printf(&line, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\",\"level\":\"%s\",\"event\":\"%s\"",
				  tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
				  (int) (ts.tv_nsec / 1000000), levels[level], event);
}

/* What cannot be written is lost: there is no other place to tell it. */
static void
log_end(void)
{
	const char *at;
	size_t		rest;

	buffer_text(&line, "}\n");
	if (line.failed)
	{
		buffer_free(&line);
		return;
	}
	at = line.data;
	rest = line.length;
	while (rest > 0)
	{
		ssize_t		written = write(STDERR_FILENO, at, rest);

		if (written <= 0)
			return;
		at += written;
		rest -= (size_t) written;
	}
}

void
log_fields(LogLevel level, const char *event, const LogField *fields, int count)
{
	if (!log_is_on(level))
		return;
	log_begin(level, event);
	for (int i = 0; i < count; i++)
	{
		if (fields[i].decimals < 0)
			continue;
		buffer_printf(&line, ",\"%s\":", fields[i].name);
		if (fields[i].text != NULL)
			buffer_json(&line, fields[i].text, strlen(fields[i].text));
		else
			buffer_printf(&line, "%.*f", fields[i].decimals, isfinite(fields[i].number) ? fields[i].number : 0.0);
	}
	log_end();
}

void
log_message(LogLevel level, const char *event, const char *format,...)
{
	Buffer		message = {0};
	va_list		args;
	char		text[1024];

	if (!log_is_on(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	buffer_json(&message, text, strlen(text));
	log_begin(level, event);
	if (!message.failed)
		buffer_printf(&line, ",\"message\":%s", message.data);
	log_end();
	buffer_free(&message);
}
