/*-------------------------------------------------------------------------
 *
 * secret_file.h
 *		Reading small files that decide who may do what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_SECRET_FILE_H
#define GATEWAY_SECRET_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* How long a sentence about a fault of a file may be, its end included. */
#define FAULT_SIZE 512

/*
 * Returns the bytes of a file, with a zero byte behind them, or NULL and a
 * sentence in fault.  The caller wipes them by secret_file_free.
 */
extern char *secret_file_read(const char *path, bool secret, size_t *length, char *fault);

/* Wipes what secret_file_read returned, and frees it; NULL is allowed. */
extern void secret_file_free(char *bytes, size_t length);

#endif							/* GATEWAY_SECRET_FILE_H */
