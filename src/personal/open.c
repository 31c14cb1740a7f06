/*-------------------------------------------------------------------------
 *
 * open.c
 *		Opens the personal attributes of stored events, for who may see them.
 *
 * Presenting (read/present.c) calls it for every event that anybody gets.  Data has nulls where attributes were
 * encrypted, so that it needs no change for who does not get them.  Metadata says why, for each
 * subject:
 *
 *		hidden		the role may not see personal attributes
 *		erased		the subject's key was destroyed
 *		no key		no key file that can be used here has the key that wraps the subject's
 *		damaged		it was not sealed for this event, or was changed
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "base/compat.h"
#include "personal/envelope.h"
#include "type/type.h"

PG_FUNCTION_INFO_V1(es_sees_personal_data);

/* EXECUTE on it is the privilege. */
#define PRIVILEGE_FUNCTION "es_sees_personal_data"

/* What metadata says instead of an envelope. */
static const char *const words[] = {
	[SUBJECT_KEY_NONE] = "no key",
	[SUBJECT_KEY_ERASED] = "erased",
	[SUBJECT_KEY_UNWRAPPABLE] = "no key",
	[SUBJECT_KEY_DAMAGED] = "damaged"
};

#define HIDDEN "hidden"

/* An event that is being opened. */
typedef struct Opening
{
	Oid			log;
	SealedEvent *event;
	bool		sees;
	int			version;
	OpenedAttributes opened;
	List	   *subjects;		/* that were not */
	List	   *words;			/* why */
	OpenedState state;
} Opening;

/* The function whose privilege counts, and of which log. */
static Oid	privilege_function = InvalidOid;
static Oid	privilege_log = InvalidOid;

/* Invalidation callback: a function was dropped, say. */
static void
forget_function(Datum arg, int cache, uint32 hash)
{
	privilege_log = InvalidOid;
}

static Oid
find_privilege_function(Oid log)
{
	static bool registered = false;
	oidvector  *none;

	if (!registered)
		CacheRegisterSyscacheCallback(PROCOID, forget_function, (Datum) 0);
	registered = true;
	if (privilege_log == log)
		return privilege_function;
	none = buildoidvector(NULL, 0);
	privilege_log = log;		/* before the look-up, which may forget it */
	privilege_function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
										 CStringGetDatum(PRIVILEGE_FUNCTION),
										 PointerGetDatum(none),
										 ObjectIdGetDatum(get_rel_namespace(log)));
	pfree(none);
	return privilege_function;
}

bool
open_may_see(Oid log, Oid role)
{
	Oid			function = find_privilege_function(log);

	return OidIsValid(function) &&
		compat_check_acl(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK;
}

/*
 * es_sees_personal_data() returns boolean: true, for who may call it.
 */
Datum
es_sees_personal_data(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

/* What is encrypted of the event; NULL: nothing. */
static JsonbValue *
find_envelope(Datum metadata, JsonbValue *buffer)
{
	Jsonb	   *object = DatumGetJsonbP(metadata);
	JsonbValue *value = NULL;

	if (JB_ROOT_IS_OBJECT(object))
		value = event_attribute_value(object, ENVELOPE_KEY, buffer);
	return value;
}

bool
open_is_sealed(Datum metadata)
{
	JsonbValue	buffer;

	return find_envelope(metadata, &buffer) != NULL;
}

/* Metadata without the envelope that it has; 0: nothing is left. */
static Datum
strip_envelope(Datum metadata)
{
	if (JB_ROOT_COUNT(DatumGetJsonbP(metadata)) == 1)
		return (Datum) 0;
	return DirectFunctionCall2(jsonb_delete, metadata, CStringGetTextDatum(ENVELOPE_KEY));
}

Datum
open_strip_metadata(Datum metadata)
{
	return metadata == (Datum) 0 || !open_is_sealed(metadata) ? metadata : strip_envelope(metadata);
}

/* Opens what is about one subject.  Returns false, and a word, if that is not possible. */
static bool
open_subject(Opening *opening, text *subject, const JsonbValue *sealed, const char **word)
{
	const SealedEvent *event = opening->event;
	uint8		key[CIPHER_KEY_BYTES];
	SubjectKeyState state;
	CipherText	known;

	*word = HIDDEN;
	if (!opening->sees)
	{
		opening->state = OPENED_HIDDEN;
		return false;
	}
	state = subject_key_find(opening->log, subject, key);
	if (state == SUBJECT_KEY_THERE)
	{
		known = envelope_known(subject, event->id, event->stream, event->type, opening->version);
		if (!envelope_open(key, known, sealed, &opening->opened))
			state = SUBJECT_KEY_DAMAGED;
		OPENSSL_cleanse(key, sizeof(key));
	}
	if (state != SUBJECT_KEY_THERE)
		*word = words[state];
	if (state != SUBJECT_KEY_THERE && state != SUBJECT_KEY_ERASED)
		opening->state = OPENED_LOCKED;
	return state == SUBJECT_KEY_THERE;
}

/* Opens what is about each subject. */
static void
open_subjects(Opening *opening, JsonbContainer *envelope)
{
	JsonbIterator *iterator = JsonbIteratorInit(envelope);
	JsonbValue	value;

	(void) JsonbIteratorNext(&iterator, &value, true);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		text	   *subject = cstring_to_text_with_len(value.val.string.val, value.val.string.len);
		const char *word;

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (open_subject(opening, subject, &value, &word))
			continue;
		opening->subjects = lappend(opening->subjects, text_to_cstring(subject));
		opening->words = lappend(opening->words, unconstify(char *, word));
	}
}

/* The value of a key in what was opened; NULL: it is not there. */
static JsonbValue *
find_opened(const OpenedAttributes *opened, const JsonbValue *key)
{
	int			i;

	for (i = 0; i < opened->count; i++)
	{
		JsonbValue *name = &opened->values[i].name;

		if (name->val.string.len == key->val.string.len &&
			memcmp(name->val.string.val, key->val.string.val, key->val.string.len) == 0)
			return &opened->values[i].value;
	}
	return NULL;
}

/* Puts what was opened in the place of the nulls in data. */
static Datum
fill_data(const OpenedAttributes *opened, Jsonb *data)
{
	JsonbIterator *iterator = JsonbIteratorInit(&data->root);
	JsonbParseState *state = NULL;
	JsonbValue	key;
	JsonbValue	own;

	(void) JsonbIteratorNext(&iterator, &key, true);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		JsonbValue *found = find_opened(opened, &key);

		(void) JsonbIteratorNext(&iterator, &own, true);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, found != NULL ? found : &own);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Puts what was opened into data, and why not into metadata. */
static void
take_opened(Opening *opening)
{
	SealedEvent *event = opening->event;

	if (opening->opened.count > 0 && JB_ROOT_IS_OBJECT(DatumGetJsonbP(event->data)))
		event->data = fill_data(&opening->opened, DatumGetJsonbP(event->data));
	event->metadata = strip_envelope(event->metadata);
	if (opening->subjects != NIL)
	{
		Datum		said = envelope_metadata(opening->subjects, opening->words);

		event->metadata = event->metadata == (Datum) 0 ? said :
			DirectFunctionCall2(jsonb_concat, event->metadata, said);
	}
}

OpenedState
open_event(Oid log, SealedEvent *event, bool sees)
{
	Opening		opening = {.log = log,.event = event,.sees = sees,.state = OPENED_WHOLE};
	JsonbValue	buffer;
	JsonbValue *envelope;

	if (event->metadata == (Datum) 0)
		return OPENED_NOTHING;
	envelope = find_envelope(event->metadata, &buffer);
	if (envelope == NULL || envelope->type != jbvBinary ||
		!JsonContainerIsObject(envelope->val.binary.data))
		return OPENED_NOTHING;
	/* mostly there is nothing else in it */
	if (JB_ROOT_COUNT(DatumGetJsonbP(event->metadata)) > 1)
		opening.version = schema_version_read(event->metadata);
	open_subjects(&opening, envelope->val.binary.data);
	take_opened(&opening);
	return opening.state;
}

void
open_refuse(OpenedState state, const char *what)
{
	if (state == OPENED_HIDDEN)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot %s", what),
				 errdetail("It has personal attributes, which role \"%s\" may not see.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("es_grant(role, 'personal') lets a role see them.")));
	if (state == OPENED_LOCKED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s", what),
				 errdetail("It has personal attributes, which no key file that can be used here opens, or which are damaged."),
				 errhint("See eventstore.key_file, and doc/operate/keys.md.")));
}
