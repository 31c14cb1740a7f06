/*-------------------------------------------------------------------------
 *
 * key_file.c
 *		The key-encryption keys, in the files that eventstore.key_file names.
 *
 * The first file wraps new keys, all of them unwrap.  A file has 32 bytes as 64 hexadecimal digits,
 * or as base64.  It must lie outside of the data directory and of tablespaces, since a base backup
 * has these, and only its owner may read it, as the server wants it of a key for TLS.
 *
 * A session reads a file when it first needs it, and again when the setting has changed, or the
 * file's inode, size or time of its last change, of its permissions, too.  Whoever reads with a key
 * gets none from a file that cannot be used, and goes on without; a writer gets the error.  Errors name the file, and never what is in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "base/base.h"
#include "personal/personal.h"

/* Files that the setting may name. */
#define MAX_KEY_FILES		8

/* Bytes of a file, with blanks at its end. */
#define MAX_FILE_BYTES		128

#define KEY_DIGITS			(2 * CIPHER_KEY_BYTES)

/* The forms of a key. */
#define KEY_FORMS			"64 hexadecimal digits, or 32 bytes in base64"

static char *key_file = NULL;	/* the setting */

/* A file as it was when it was read. */
typedef struct KeyFile
{
	char	   *path;
	bool		is_read;
	dev_t		device;
	ino_t		inode;
	off_t		size;
	time_t		time;
	long		nanoseconds;
	char	   *problem;		/* why it cannot be used; NULL: it can */
	FileKey    *key;			/* in memory for keys */
} KeyFile;

static KeyFile files[MAX_KEY_FILES];
static int	file_count = 0;
static bool list_is_current = false;
static FileKey *room = NULL;	/* for MAX_KEY_FILES */
static uint64 changes = 1;

/* Takes the setting apart, in the memory context.  Returns NIL for one that is wrong. */
static List *
split_paths(const char *value)
{
	char	   *copy = pstrdup(value);
	List	   *paths;

	if (!SplitDirectoriesString(copy, ',', &paths))
		return NIL;
	return paths;
}

static bool
check_key_file(char **newval, void **extra, GucSource source)
{
	List	   *paths;
	ListCell   *cell;

	if (*newval == NULL || (*newval)[0] == '\0')
		return true;
	paths = split_paths(*newval);
	if (paths == NIL || list_length(paths) > MAX_KEY_FILES)
	{
		GUC_check_errdetail("It is a list of 1 to %d files.", MAX_KEY_FILES);
		return false;
	}
	foreach(cell, paths)
	{
		if (!is_absolute_path((char *) lfirst(cell)))
		{
			GUC_check_errdetail("\"%s\" is no absolute path.", (char *) lfirst(cell));
			return false;
		}
	}
	return true;
}

static void
assign_key_file(const char *newval, void *extra)
{
	list_is_current = false;
	changes++;
}

void
key_file_init(void)
{
	DefineCustomStringVariable("eventstore.key_file",
							   "Files with the keys that wrap the keys of subjects.",
							   "The first one wraps, all unwrap.",
							   &key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_key_file, assign_key_file, NULL);
}

uint64
key_file_changes(void)
{
	return changes;
}

/* Reads the list of files from the setting. */
static void
make_list(void)
{
	ListCell   *cell;
	int			i;

	if (room == NULL)
		room = key_memory_alloc(sizeof(FileKey) * MAX_KEY_FILES);
	OPENSSL_cleanse(room, sizeof(FileKey) * MAX_KEY_FILES);
	for (i = 0; i < file_count; i++)
	{
		pfree(files[i].path);
		if (files[i].problem != NULL)
			pfree(files[i].problem);
	}
	memset(files, 0, sizeof(files));
	file_count = 0;
	foreach(cell, split_paths(key_file))
	{
		files[file_count].key = &room[file_count];
		files[file_count++].path = MemoryContextStrdup(TopMemoryContext, lfirst(cell));
	}
	list_is_current = true;
}

/* Returns true if the file lies in the folder. */
static bool
is_below(const char *file, const char *folder)
{
	char	   *real_file = realpath(file, NULL);
	char	   *real_folder = realpath(folder, NULL);
	size_t		length = real_folder == NULL ? 0 : strlen(real_folder);
	bool		below = real_file != NULL && real_folder != NULL &&
	strncmp(real_file, real_folder, length) == 0 && real_file[length] == '/';

	free(real_file);
	free(real_folder);
	return below;
}

/* Returns true if the file lies in a tablespace. */
static bool
is_in_tablespace(const char *path)
{
	DIR		   *folder = AllocateDir("pg_tblspc");
	struct dirent *entry;
	bool		found = false;

	while (!found && (entry = ReadDirExtended(folder, "pg_tblspc", LOG)) != NULL)
	{
		if (entry->d_name[0] != '.')
			found = is_below(path, psprintf("pg_tblspc/%s", entry->d_name));
	}
	if (folder != NULL)
		FreeDir(folder);
	return found;
}

/* Why the file must not be used; NULL: it may be. */
static const char *
find_fault_of_place(const char *path, const struct stat *found)
{
	mode_t		others = found->st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;

	if (!S_ISREG(found->st_mode))
		return "It is not a file.";
	if (found->st_uid != geteuid() && found->st_uid != 0)
		return "It must be owned by the user that runs the server, or by root.";
	if (found->st_mode & others)
		return "Others than its owner may read or change it. Its permissions must be u=rw (0600) or less, or u=rw,g=r (0640) or less if root owns it.";
	if (is_below(path, DataDir))
		return "It lies in the data directory, which base backups have.";
	if (is_in_tablespace(path))
		return "It lies in a tablespace, which base backups have.";
	return NULL;
}

/* Reads the key of so many hexadecimal digits. */
static bool
read_hex(const char *text, uint8 *key)
{
	int			i;

	for (i = 0; i < KEY_DIGITS; i++)
	{
		const char *digits = "0123456789abcdef";
		const char *digit = memchr(digits, pg_tolower((unsigned char) text[i]), 16);

		if (digit == NULL)
			return false;
		key[i / 2] = (uint8) (i % 2 == 0 ? (digit - digits) << 4 : key[i / 2] | (digit - digits));
	}
	return true;
}

/* Reads the key in one of its forms.  Returns false if it is none. */
static bool
read_key(const char *text, int length, uint8 *key)
{
	uint8		decoded[MAX_FILE_BYTES];
	bool		done;

	if (length == KEY_DIGITS)
		return read_hex(text, key);
	/* one "=" at the end: it is 32 bytes, and not 31 */
	done = length == (CIPHER_KEY_BYTES + 2) / 3 * 4 && memchr(text, '=', length) == text +length - 1 &&
				EVP_DecodeBlock(decoded, (const uint8 *) text, length) == CIPHER_KEY_BYTES + 1;

	if (done)
		memcpy(key, decoded, CIPHER_KEY_BYTES);
	OPENSSL_cleanse(decoded, sizeof(decoded));
	return done;
}

/* What a key is known by: the beginning of a hash of it. */
static void
set_fingerprint(FileKey *key)
{
	const char *words = "eventstore key-encryption key";
	uint8		hash[CIPHER_KEY_BYTES];
	CipherText	known = {(const uint8 *) words, strlen(words)};

	cipher_hash(key->key, known, hash);
	(void) hex_encode((char *) hash, KEY_FINGERPRINT_LENGTH / 2, key->fingerprint);
	key->fingerprint[KEY_FINGERPRINT_LENGTH] = '\0';
}

/*
 * Reads the bytes of the file.  Returns why that is not possible; NULL: it was.  A pipe, which is refused,
 * must not make the session wait.
 */
static const char *
read_bytes(KeyFile *file, char *bytes, int *length)
{
	int			fd = OpenTransientFile(file->path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	struct stat found;
	const char *fault;
	ssize_t		count;

	if (fd < 0)
		return psprintf("It cannot be opened: %s.", strerror(errno));
	if (fstat(fd, &found) != 0)
		fault = psprintf("It cannot be looked at: %s.", strerror(errno));
	else
	{
		fault = find_fault_of_place(file->path, &found);
		file->device = found.st_dev;
		file->inode = found.st_ino;
		file->size = found.st_size;
		file->time = found.st_ctim.tv_sec;
		file->nanoseconds = found.st_ctim.tv_nsec;
	}
	if (fault == NULL)
	{
		count = read(fd, bytes, MAX_FILE_BYTES);
		if (count < 0)
			fault = psprintf("It cannot be read: %s.", strerror(errno));
		*length = (int) Max(count, 0);
	}
	CloseTransientFile(fd);
	return fault;
}

/* Reads the file, and notes what is wrong with it. */
static void
read_file(KeyFile *file)
{
	char		bytes[MAX_FILE_BYTES];
	int			length = 0;
	const char *fault;

	changes++;
	OPENSSL_cleanse(file->key, sizeof(FileKey));
	if (file->problem != NULL)
		pfree(file->problem);
	file->problem = NULL;
	fault = read_bytes(file, bytes, &length);
	while (fault == NULL && length > 0 && memchr(" \t\r\n", bytes[length - 1], 4) != NULL)
		length--;
	if (fault == NULL && !read_key(bytes, length, file->key->key))
		fault = psprintf("It must have " KEY_FORMS ". It has %d%s characters.", length,
						 length == MAX_FILE_BYTES ? " or more" : "");
	OPENSSL_cleanse(bytes, sizeof(bytes));
	if (fault == NULL)
		set_fingerprint(file->key);
	else
		file->problem = MemoryContextStrdup(TopMemoryContext, fault);
	file->is_read = true;
}

/* Returns true if the file is as it was when it was read, and could be used. */
static bool
file_is_current(const KeyFile *file)
{
	struct stat found;

	return file->is_read && file->problem == NULL && stat(file->path, &found) == 0 &&
		found.st_dev == file->device && found.st_ino == file->inode &&
		found.st_size == file->size && found.st_ctim.tv_sec == file->time &&
		found.st_ctim.tv_nsec == file->nanoseconds;
}

/* Looks at the files. */
static void
look_at_files(void)
{
	int			i;

	if (!list_is_current)
		make_list();
	for (i = 0; i < file_count; i++)
	{
		if (!file_is_current(&files[i]))
			read_file(&files[i]);
	}
}

const FileKey *
key_file_first(void)
{
	look_at_files();
	if (file_count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no key to encrypt personal attributes with"),
				 errdetail("eventstore.key_file is not set."),
				 errhint("Make a file with " KEY_FORMS ", such as by: openssl rand -hex 32")));
	if (files[0].problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("key file \"%s\" cannot be used", files[0].path),
				 errdetail_internal("%s", files[0].problem),
				 errhint("See eventstore.key_file, and doc/operate/keys.md.")));
	return files[0].key;
}

const FileKey *
key_file_find(const char *fingerprint)
{
	int			i;

	look_at_files();
	for (i = 0; i < file_count; i++)
	{
		if (files[i].problem == NULL && strcmp(files[i].key->fingerprint, fingerprint) == 0)
			return files[i].key;
	}
	return NULL;
}

const char *
key_file_problem(int number, const char **path)
{
	look_at_files();
	*path = number < file_count ? files[number].path : NULL;
	return number < file_count ? files[number].problem : NULL;
}
