/*-------------------------------------------------------------------------
 *
 * personal.h
 *		Personal attributes of events: encrypted when they are stored, opened when they are
 *		read, and unreadable when the key of the person is gone (doc/internals/personal.md).
 *
 * A person is named by a subject.  Each subject has a key, which is stored in es_subject_keys,
 * wrapped by a key-encryption key from a file outside of the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PERSONAL_H
#define EVENTSTORE_PERSONAL_H

#include "utils/uuid.h"

#include "log/log.h"

/* cipher.c: AES-256-GCM */

#define CIPHER_KEY_BYTES	32
#define CIPHER_NONCE_BYTES	12
#define CIPHER_TAG_BYTES	16

/* What a sealed text has more than the plain one: a nonce before it, and a tag behind. */
#define CIPHER_MORE_BYTES	(CIPHER_NONCE_BYTES + CIPHER_TAG_BYTES)

/* Bytes that are authenticated, or encrypted. */
typedef struct CipherText
{
	const uint8 *bytes;
	int			length;
} CipherText;

/* Encrypts with a random nonce.  sealed has room for CIPHER_MORE_BYTES more. */
extern void cipher_seal(const uint8 *key, CipherText known, CipherText plain, uint8 *sealed);

/*
 * Decrypts into plain, which has room for CIPHER_MORE_BYTES less.  Returns false, and zeros, if
 * it was sealed by another key or with something else known, or was changed.
 */
extern bool cipher_open(const uint8 *key, CipherText known, CipherText sealed, uint8 *plain);

/* Random bytes.  Error: there are none. */
extern void cipher_random(uint8 *bytes, int length);

/* HMAC-SHA-256, of CIPHER_KEY_BYTES. */
extern void cipher_hash(const uint8 *key, CipherText text, uint8 *hash);

/* key_memory.c: memory for keys, which no core file has */

/* Room for so many bytes, for the session; zero at first. */
extern void *key_memory_alloc(Size size);

/* key_file.c */

/* Digits by which a key-encryption key is known. */
#define KEY_FINGERPRINT_LENGTH	16

/* A key-encryption key. */
typedef struct FileKey
{
	char		fingerprint[KEY_FINGERPRINT_LENGTH + 1];
	uint8		key[CIPHER_KEY_BYTES];
} FileKey;

/* Defines the setting eventstore.key_file. */
extern void key_file_init(void);

/* The key that wraps.  Error: there is none, or its file cannot be used. */
extern const FileKey *key_file_first(void);

/* The key of the fingerprint; NULL if no file has it, or if its file cannot be used. */
extern const FileKey *key_file_find(const char *fingerprint);

/* Why the file of this number, from 0, cannot be used; NULL: it can.  The path is NULL if there is none. */
extern const char *key_file_problem(int number, const char **path);

/* How often what the files have may have changed. */
extern uint64 key_file_changes(void);

/* subject_key.c */

/* What became of the key of a subject. */
typedef enum SubjectKeyState
{
	SUBJECT_KEY_THERE,
	SUBJECT_KEY_NONE,			/* there never was one */
	SUBJECT_KEY_ERASED,
	SUBJECT_KEY_UNWRAPPABLE,	/* no file has the key-encryption key */
	SUBJECT_KEY_DAMAGED
} SubjectKeyState;

/* Finds a key to read with.  It may be cached, until it is erased. */
extern SubjectKeyState subject_key_find(Oid log, text *subject, uint8 *key);

/*
 * The same to write with, after the subject's lock was taken; it is made if there is none.
 * Errors: ES008, or no file has a key to wrap it.
 */
extern void subject_key_get(Oid log, text *subject, uint8 *key);

/* Unwraps a key by the one of the fingerprint, and wraps it by another one.  Error: it cannot. */
extern bytea *subject_key_rewrap(text *subject, bytea *wrapped, const char *fingerprint,
								 const FileKey *wrapper);

/* A number that changes when a key was changed, and that is of this moment. */
extern uint64 subject_key_changes(Oid log);

/* subject.c */

/* Refuses a name that no subject can have. */
extern void subject_check(text *subject);

/* The tag of the subject's events. */
extern text *subject_tag(text *subject);

/* Returns true if a tag is such a one. */
extern bool subject_is_tag(text *tag);

/* The part of a stream's name behind its first "-"; NULL without one. */
extern text *subject_of_stream(text *stream);

/* seal.c */

/* Gives new events, which are identified, the tags of their subjects.  Error: ES004. */
extern void seal_identify(Oid log, NewEvent *events, int count);

/*
 * Encrypts the personal attributes of events that were checked, whose tags are locked.  Errors:
 * ES008, or no file has a key.
 */
extern void seal_events(Oid log, NewEvent *events, int count);

/* Refuses metadata that the caller has no business with. */
extern void seal_check_metadata(Datum metadata);

/* open.c */

/* Returns true if the role may see personal attributes. */
extern bool open_may_see(Oid log, Oid role);

/* An event that is stored. */
typedef struct SealedEvent
{
	const pg_uuid_t *id;
	text	   *stream;
	text	   *type;
	Datum		data;
	Datum		metadata;		/* 0: none */
} SealedEvent;

/* Returns true if some of its attributes are encrypted. */
extern bool open_is_sealed(Datum metadata);

/* What an event lacks for a reader who is not given all that is stored. */
typedef enum OpenedState
{
	OPENED_NOTHING,				/* nothing was encrypted */
	OPENED_WHOLE,				/* nothing that can ever be opened */
	OPENED_HIDDEN,				/* what the reader may not see */
	OPENED_LOCKED				/* what no key opens here and now */
} OpenedState;

/*
 * Opens the event: data and metadata become those that a reader gets.  sees: the reader may see
 * personal attributes.
 */
extern OpenedState open_event(Oid log, SealedEvent *event, bool sees);

/* Refuses to decide on, or to compare, what an event lacks. */
extern void open_refuse(OpenedState state, const char *what);

/* Metadata without what is encrypted; 0: nothing is left. */
extern Datum open_strip_metadata(Datum metadata);

#endif							/* EVENTSTORE_PERSONAL_H */
