/*-------------------------------------------------------------------------
 *
 * envelope.h
 *		The form in which encrypted attributes are stored.
 *
 * The attributes of each subject are an object of JSON, in UTF-8.  What it is sealed
 * to is stored as base64, behind a byte for the format:
 *
 *		metadata: {"$personal": {"person-17": "AQ..."}}
 *
 * Authenticated with it are the format, the subject, and of the event its id, stream, type and
 * schema version.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_ENVELOPE_H
#define EVENTSTORE_ENVELOPE_H

#include "utils/jsonb.h"

#include "personal/personal.h"

#define ENVELOPE_KEY	"$personal"

/* What is authenticated.  version: 0 if metadata says none. */
extern CipherText envelope_known(text *subject, const pg_uuid_t *id, text *stream, text *type,
								 int version);

/* Seals an object of JSON.  Returns base64. */
extern char *envelope_seal(const uint8 *key, CipherText known, Datum object);

/* An attribute that was opened. */
typedef struct OpenedAttribute
{
	JsonbValue	name;
	JsonbValue	value;
} OpenedAttribute;

/* All of an event, in the current memory context. */
typedef struct OpenedAttributes
{
	OpenedAttribute *values;
	int			count;
	int			room;
} OpenedAttributes;

/* Opens what was sealed, and adds it to what was opened.  Returns false if it is anything else. */
extern bool envelope_open(const uint8 *key, CipherText known, const JsonbValue *sealed,
						  OpenedAttributes *opened);

/* Makes the metadata that has subjects, and for each a value. */
extern Datum envelope_metadata(List *subjects, List *values);

#endif							/* EVENTSTORE_ENVELOPE_H */
