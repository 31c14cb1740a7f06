/*-------------------------------------------------------------------------
 *
 * secret_file.c
 *		Reading small files that decide who may do what.
 *
 * Keys, tokens and their lists are read when the gateway starts and at SIGHUP,
 * never while a request waits.  A file that everyone may write decides nothing
 * worth to be decided, and a secret that everyone may read is none, so both are
 * refused.  The mode is that of the open file, so that nobody can put another
 * file in its place between the look and the read.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "secret_file.h"

/* A JWKS of a large identity provider has some ten kilobytes. */
#define MAX_SECRET_FILE (1024 * 1024)

static bool
file_mode_suits(int fd, const char *path, bool secret, size_t *size, char *fault)
{
	struct stat about;

	if (fstat(fd, &about) != 0)
		snprintf(fault, FAULT_SIZE, "cannot look at \"%s\": %s", path, strerror(errno));
	else if (!S_ISREG(about.st_mode))
		snprintf(fault, FAULT_SIZE, "\"%s\" is not a file", path);
	else if (about.st_mode & S_IWOTH)
		snprintf(fault, FAULT_SIZE, "every user of this machine may write \"%s\"; try chmod o-w", path);
	else if (secret && (about.st_mode & S_IROTH))
		snprintf(fault, FAULT_SIZE, "every user of this machine may read the secret \"%s\"; try chmod o-r", path);
	else if (about.st_size > MAX_SECRET_FILE)
		snprintf(fault, FAULT_SIZE, "\"%s\" is larger than a mebibyte", path);
	else
	{
		*size = (size_t) about.st_size;
		return true;
	}
	return false;
}

/* A file that grows meanwhile is read up to the size it had. */
static char *
file_bytes(int fd, const char *path, size_t size, size_t *length, char *fault)
{
	char	   *bytes = calloc(1, size + 1);
	size_t		have = 0;
	ssize_t		got = 1;

	if (bytes == NULL)
	{
		snprintf(fault, FAULT_SIZE, "out of memory for \"%s\"", path);
		return NULL;
	}
	while (have < size && got != 0)
	{
		got = read(fd, bytes + have, size - have);
		if (got > 0)
			have += (size_t) got;
		else if (got < 0 && errno != EINTR)
		{
			snprintf(fault, FAULT_SIZE, "cannot read \"%s\": %s", path, strerror(errno));
			secret_file_free(bytes, size);
			return NULL;
		}
	}
	*length = have;
	return bytes;
}

char *
secret_file_read(const char *path, bool secret, size_t *length, char *fault)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char	   *bytes = NULL;
	size_t		size;

	if (fd < 0)
	{
		snprintf(fault, FAULT_SIZE, "cannot open \"%s\": %s", path, strerror(errno));
		return NULL;
	}
	if (file_mode_suits(fd, path, secret, &size, fault))
		bytes = file_bytes(fd, path, size, length, fault);
	close(fd);
	return bytes;
}

void
secret_file_free(char *bytes, size_t length)
{
	if (bytes == NULL)
		return;
	OPENSSL_cleanse(bytes, length);
	free(bytes);
}
