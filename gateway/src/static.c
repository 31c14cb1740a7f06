/*-------------------------------------------------------------------------
 *
 * static.c
 *		The console's files, which are read at the start.
 *
 * The files of console_dir are read into memory once, with a compressed copy where
 * that is smaller.  A request's path is looked up in the list of their names, and never
 * becomes the path of a file.  So there is no path by which to leave the folder, and
 * no file is opened while requests wait.  Names that begin with a point, links, and
 * copies that the build has compressed already (.gz) are left out.
 *
 * A name with a hash in it, as Vite writes them below /assets/, has its content for ever
 * and may be kept so long.  Everything else is asked for again with its ETag.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>
#include <zlib.h>

#include "config.h"
#include "gzip.h"
#include "log.h"
#include "response.h"
#include "static.h"

#define MAX_STATIC_FILES	1000
#define MAX_STATIC_BYTES	(64 * 1024 * 1024)
#define MAX_STATIC_DEPTH	8
#define STATIC_PATH_SIZE	1024
#define ETAG_DIGITS			32
#define ETAG_SIZE			(ETAG_DIGITS + 3)
#define MIN_HASH_LENGTH		8

typedef struct StaticFile
{
	char	   *path;			/* as in a request, from "/" on */
	const char *type;
	unsigned char *bytes;
	size_t		length;
	unsigned char *gzip;		/* NULL: it would not be smaller */
	size_t		gzip_length;
	char		etag[ETAG_SIZE];
	char		gzip_etag[ETAG_SIZE];
	bool		immutable;
} StaticFile;

typedef struct StaticType
{
	const char *ending;
	const char *type;
	bool		compress;
} StaticType;

static const StaticType static_types[] = {
	{".html", "text/html; charset=utf-8", true},
	{".js", "text/javascript; charset=utf-8", true},
	{".mjs", "text/javascript; charset=utf-8", true},
	{".css", "text/css; charset=utf-8", true},
	{".json", "application/json", true},
	{".map", "application/json", true},
	{".webmanifest", "application/manifest+json", true},
	{".svg", "image/svg+xml", true},
	{".txt", "text/plain; charset=utf-8", true},
	{".png", "image/png", false},
	{".ico", "image/x-icon", false},
	{".webp", "image/webp", false},
	{".woff2", "font/woff2", false},
	{"", "application/octet-stream", false},
};

/* Nothing but the gateway's own files and answers, no code in the page, in no frame. */
static const char *const static_policy =
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
	"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static StaticFile static_files[MAX_STATIC_FILES];
static int	static_count;
static size_t static_bytes;

static const StaticType *
static_type(const char *path)
{
	const StaticType *type = static_types;

	for (size_t length = strlen(path);; type++)
	{
		size_t		ending = strlen(type->ending);

		if (ending <= length && strcasecmp(path + length - ending, type->ending) == 0)
			return type;
	}
}

/* Returns true for "/assets/index-B3xY_9aZ.js": a hash between a hyphen and the ending. */
static bool
is_hashed_name(const char *path)
{
	const char *name = strrchr(path, '/');
	const char *end = strrchr(name, '.');
	const char *hash = end ? end - MIN_HASH_LENGTH : name;

	if (strncmp(path, "/assets/", 8) != 0 || hash <= name + 1 || hash[-1] != '-')
		return false;
	while (hash < end && (isalnum((unsigned char) *hash) || *hash == '_' || *hash == '-'))
		hash++;
	return hash == end;
}

static void
static_make_etags(StaticFile *file)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char		hex[ETAG_DIGITS + 1];

	SHA256(file->bytes, file->length, digest);
	for (int i = 0; i < ETAG_DIGITS / 2; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	snprintf(file->etag, ETAG_SIZE, "\"%s\"", hex);
	/* Another representation has another tag. */
	hex[ETAG_DIGITS - 1] = 'z';
	snprintf(file->gzip_etag, ETAG_SIZE, "\"%s\"", hex);
}

/* Reads all of an open file; NULL if that fails. */
static unsigned char *
static_file_bytes(int fd, size_t length)
{
	unsigned char *bytes = malloc(length + 1);
	size_t		have = 0;

	while (bytes != NULL && have < length)
	{
		ssize_t		got = read(fd, bytes + have, length - have);

		if (got > 0)
			have += (size_t) got;
		else if (got == 0 || errno != EINTR)
		{
			free(bytes);
			return NULL;
		}
	}
	return bytes;
}

/* Adds an open file of the folder.  Returns false if it does not fit, or cannot be read. */
static bool
static_add(int fd, const char *path, size_t length)
{
	StaticFile *file = &static_files[static_count];
	const StaticType *type = static_type(path);

	if (static_count == MAX_STATIC_FILES || length > MAX_STATIC_BYTES - static_bytes)
	{
		log_message(LOG_LEVEL_ERROR, "console", "console_dir has more than %d files or %d bytes", MAX_STATIC_FILES,
					MAX_STATIC_BYTES);
		return false;
	}
	memset(file, 0, sizeof(*file));
	file->path = strdup(path);
	file->bytes = static_file_bytes(fd, length);
	if (file->path == NULL || file->bytes == NULL)
	{
		log_message(LOG_LEVEL_ERROR, "console", "cannot read the console's file %s", path);
		free(file->path);
		free(file->bytes);
		return false;
	}
	file->length = length;
	file->type = type->type;
	file->immutable = is_hashed_name(path);
	static_make_etags(file);
	if (type->compress)
		file->gzip = gzip_make(file->bytes, length, Z_BEST_COMPRESSION, &file->gzip_length);
	static_bytes += length;
	static_count++;
	return true;
}

static bool static_scan(int fd, const char *path, int depth);

/* Adds what a folder has by a name.  What is neither a file nor a folder is passed over. */
static bool
static_add_entry(int folder, const char *path, const char *name, int depth)
{
	char		below[STATIC_PATH_SIZE];
	struct stat about;
	size_t		length = strlen(name);
	int			fd;
	bool		done = true;

	if (name[0] == '.' || (length > 3 && strcmp(name + length - 3, ".gz") == 0))
		return true;
	if (snprintf(below, sizeof(below), "%s/%s", path, name) >= (int) sizeof(below))
		return true;
	fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &about) != 0)
	{
		log_message(LOG_LEVEL_WARNING, "console", "the console's file %s is left out: %s", below, strerror(errno));
		if (fd >= 0)
			close(fd);
		return true;
	}
	if (S_ISDIR(about.st_mode) && depth < MAX_STATIC_DEPTH)
		return static_scan(fd, below, depth + 1);
	if (S_ISREG(about.st_mode))
		done = static_add(fd, below, (size_t) about.st_size);
	close(fd);
	return done;
}

/* Adds the files below a folder, whose descriptor it closes. */
static bool
static_scan(int fd, const char *path, int depth)
{
	DIR		   *folder = fdopendir(fd);
	struct dirent *entry;
	bool		done = true;

	if (folder == NULL)
	{
		close(fd);
		return false;
	}
	while (done && (entry = readdir(folder)) != NULL)
		done = static_add_entry(dirfd(folder), path, entry->d_name, depth);
	closedir(folder);
	return done;
}

static int
static_compare(const void *a, const void *b)
{
	return strcmp(((const StaticFile *) a)->path, ((const StaticFile *) b)->path);
}

bool
static_load(void)
{
	int			fd;

	if (config.console_dir == NULL || *config.console_dir == '\0')
		return true;
	fd = open(config.console_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
	{
		log_message(LOG_LEVEL_WARNING, "console", "there is no console: cannot open \"%s\": %s", config.console_dir,
					strerror(errno));
		return true;
	}
	if (!static_scan(fd, "", 0))
		return false;
	qsort(static_files, (size_t) static_count, sizeof(StaticFile), static_compare);
	log_line(LOG_LEVEL_INFO, "console", LOG_TEXT("folder", config.console_dir), LOG_NUMBER("files", static_count),
			 LOG_NUMBER("bytes", static_bytes));
	return true;
}

void
static_free(void)
{
	for (int i = 0; i < static_count; i++)
	{
		free(static_files[i].path);
		free(static_files[i].bytes);
		free(static_files[i].gzip);
	}
	static_count = 0;
	static_bytes = 0;
}

static void
static_headers(struct MHD_Response *response, const StaticFile *file, bool gzip)
{
	MHD_add_response_header(response, "ETag", gzip ? file->gzip_etag : file->etag);
	MHD_add_response_header(response, "Cache-Control",
							file->immutable ? "public, max-age=31536000, immutable" : "no-cache");
	if (file->gzip != NULL)
		MHD_add_response_header(response, "Vary", "Accept-Encoding");
	if (gzip)
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	MHD_add_response_header(response, "Content-Security-Policy", static_policy);
	MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	MHD_add_response_header(response, "X-Frame-Options", "DENY");
	MHD_add_response_header(response, "Cross-Origin-Opener-Policy", "same-origin");
	MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
}

struct MHD_Response *
static_response(Request *request, const char *path, unsigned *status)
{
	const StaticFile key = {.path = (char *) (strcmp(path, "/") == 0 ? "/index.html" : path)};
	const StaticFile *file = bsearch(&key, static_files, (size_t) static_count, sizeof(StaticFile), static_compare);
	struct MHD_Response *response;
	bool		gzip;
	bool		unchanged;

	if (file == NULL)
		return NULL;
	gzip = file->gzip != NULL && response_may_gzip(request);
	unchanged = response_is_known(request, gzip ? file->gzip_etag : file->etag);
	response = MHD_create_response_from_buffer(unchanged ? 0 : gzip ? file->gzip_length : file->length,
											   gzip ? file->gzip : file->bytes, MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return NULL;
	request->bytes = unchanged ? 0 : gzip ? file->gzip_length : file->length;
	*status = unchanged ? 304 : 200;
	if (!unchanged)
		MHD_add_response_header(response, "Content-Type", file->type);
	static_headers(response, file, gzip);
	return response;
}
