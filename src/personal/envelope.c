/*-------------------------------------------------------------------------
 *
 * envelope.c
 *		Makes and opens the form in which encrypted attributes are stored (envelope.h).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "personal/envelope.h"

#define ENVELOPE_FORMAT	1

/* A text in UTF-8. */
static CipherText
text_in_utf8(text *value)
{
	int			length = VARSIZE_ANY_EXHDR(value);
	char	   *bytes = pg_server_to_any(VARDATA_ANY(value), length, PG_UTF8);
	CipherText	result = {(const uint8 *) bytes, bytes == VARDATA_ANY(value) ? length : (int) strlen(bytes)};

	return result;
}

/* Writes a number, the most significant byte first.  Returns what is behind it. */
static uint8 *
put_number(uint8 *at, int number)
{
	uint32		bytes = pg_hton32((uint32) number);

	memcpy(at, &bytes, sizeof(bytes));
	return at + sizeof(bytes);
}

CipherText
envelope_known(text *subject, const pg_uuid_t *id, text *stream, text *type, int version)
{
	CipherText	texts[] = {text_in_utf8(subject), text_in_utf8(stream), text_in_utf8(type)};
	CipherText	result = {.length = 1 + UUID_LEN + sizeof(uint32)};
	uint8	   *at;
	int			i;

	for (i = 0; i < (int) lengthof(texts); i++)
		result.length += sizeof(uint32) + texts[i].length;
	result.bytes = at = palloc(result.length);
	*at++ = ENVELOPE_FORMAT;
	memcpy(at, id->data, UUID_LEN);
	at = put_number(at + UUID_LEN, version);
	for (i = 0; i < (int) lengthof(texts); i++)
	{
		at = put_number(at, texts[i].length);
		memcpy(at, texts[i].bytes, texts[i].length);
		at += texts[i].length;
	}
	return result;
}

char *
envelope_seal(const uint8 *key, CipherText known, Datum object)
{
	Jsonb	   *json = DatumGetJsonbP(object);
	char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);
	CipherText	plain = {(const uint8 *) utf8, strlen(utf8)};
	int			length = 1 + plain.length + CIPHER_MORE_BYTES;
	uint8	   *sealed = palloc(length);
	char	   *base64 = palloc(4 * ((length + 2) / 3) + 1);

	sealed[0] = ENVELOPE_FORMAT;
	cipher_seal(key, known, plain, sealed + 1);
	EVP_EncodeBlock((uint8 *) base64, sealed, length);
	OPENSSL_cleanse(text, strlen(text));
	return base64;
}

/* Decodes base64.  Returns NULL if it is none. */
static uint8 *
decode_base64(const char *text, int length, int *decoded)
{
	uint8	   *bytes;

	if (length == 0 || length % 4 != 0)
		return NULL;
	bytes = palloc(length / 4 * 3);
	*decoded = EVP_DecodeBlock(bytes, (const uint8 *) text, length);
	if (*decoded < 0)
		return NULL;
	*decoded -= (text[length - 1] == '=') +(text[length - 2] == '=');
	return bytes;
}

static void
add_opened(OpenedAttributes *opened, const JsonbValue *name, const JsonbValue *value)
{
	if (opened->count == opened->room)
	{
		opened->room = opened->room == 0 ? 8 : opened->room * 2;
		opened->values = opened->values == NULL ?
			palloc(sizeof(OpenedAttribute) * opened->room) :
			repalloc(opened->values, sizeof(OpenedAttribute) * opened->room);
	}
	opened->values[opened->count].name = *name;
	opened->values[opened->count++].value = *value;
}

/* Takes a string without escapes from the text.  Returns false if there is none. */
static bool
take_string(char **text, JsonbValue *string)
{
	char	   *begin = *text +1;
	int			length;

	if (**text !='"')
		return false;
	length = strcspn(begin, "\"\\");
	if (begin[length] != '"')
		return false;
	string->type = jbvString;
	string->val.string.val = begin;
	string->val.string.len = length;
	*text = begin + length + 1;
	return true;
}

/*
 * Takes the attributes of an object that has nothing but such strings, as most have: it is
 * several times faster than reading JSON.  It is as jsonb has printed it.  Returns false if
 * it is another one.
 */
static bool
take_strings(char *text, OpenedAttributes *opened)
{
	if (*text !='{')
		return false;
	do
	{
		JsonbValue	name;
		JsonbValue	value;

		text	  +=*text == '{' ? 1 : 2;

		if (!take_string(&text, &name) || strncmp(text, ": ", 2) != 0)
			return false;
		text	  +=2;

		if (!take_string(&text, &value))
			return false;
		add_opened(opened, &name, &value);
	}
	while (strncmp(text, ", ", 2) == 0);
	return strcmp(text, "}") == 0;
}

/* Takes the attributes of any object.  Returns false if the JSON is none. */
static bool
take_json(char *text, OpenedAttributes *opened)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	JsonbIterator *iterator;
	JsonbValue	name;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(object))
		return false;
	iterator = JsonbIteratorInit(&object->root);
	(void) JsonbIteratorNext(&iterator, &name, true);
	while (JsonbIteratorNext(&iterator, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		add_opened(opened, &name, &value);
	}
	return true;
}

bool
envelope_open(const uint8 *key, CipherText known, const JsonbValue *sealed,
			  OpenedAttributes *opened)
{
	int			before = opened->count;
	CipherText	box;
	uint8	   *bytes;
	uint8	   *plain;
	char	   *json;
	int			length;

	if (sealed->type != jbvString)
		return false;
	bytes = decode_base64(sealed->val.string.val, sealed->val.string.len, &length);
	if (bytes == NULL || length < 1 + CIPHER_MORE_BYTES || bytes[0] != ENVELOPE_FORMAT)
		return false;
	box.bytes = bytes + 1;
	box.length = length - 1;
	length = box.length - CIPHER_MORE_BYTES;
	plain = palloc(length + 1);
	if (!cipher_open(key, known, box, plain))
		return false;
	plain[length] = '\0';
	json = pg_any_to_server((char *) plain, length, PG_UTF8);
	if (take_strings(json, opened))
		return true;
	opened->count = before;
	return take_json(json, opened);
}

/* Pushes a text, as a key or as a value. */
static void
push_text(JsonbParseState **state, JsonbIteratorToken token, const char *value)
{
	JsonbValue	pushed = {
		.type = jbvString,
		.val.string.val = unconstify(char *, value),
		.val.string.len = strlen(value)
	};

	(void) pushJsonbValue(state, token, &pushed);
}

Datum
envelope_metadata(List *subjects, List *values)
{
	JsonbParseState *state = NULL;
	ListCell   *subject;
	ListCell   *value;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, WJB_KEY, ENVELOPE_KEY);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	forboth(subject, subjects, value, values)
	{
		push_text(&state, WJB_KEY, lfirst(subject));
		push_text(&state, WJB_VALUE, lfirst(value));
	}
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
