/*-------------------------------------------------------------------------
 *
 * subject.c
 *		Names of persons, and the tags of their events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "eventstore.h"
#include "personal/personal.h"

void
subject_check(text *subject)
{
	int			length = VARSIZE_ANY_EXHDR(subject);

	if (length == 0 || length > ES_MAX_SUBJECT_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("subject must have 1 to %d bytes", ES_MAX_SUBJECT_LENGTH),
				 errdetail("It has %d bytes.", length),
				 errhint("Name a person by a pseudonym, such as a number.")));
}

text *
subject_tag(text *subject)
{
	int			prefix = strlen(ES_SUBJECT_TAG);
	int			length = VARSIZE_ANY_EXHDR(subject);
	text	   *tag = palloc(VARHDRSZ + prefix + length);

	SET_VARSIZE(tag, VARHDRSZ + prefix + length);
	memcpy(VARDATA(tag), ES_SUBJECT_TAG, prefix);
	memcpy(VARDATA(tag) + prefix, VARDATA_ANY(subject), length);
	return tag;
}

bool
subject_is_tag(text *tag)
{
	int			prefix = strlen(ES_SUBJECT_TAG);

	return (int) VARSIZE_ANY_EXHDR(tag) > prefix && memcmp(VARDATA_ANY(tag), ES_SUBJECT_TAG, prefix) == 0;
}

text *
subject_of_stream(text *stream)
{
	int			category = stream_category_length(stream);
	int			length = VARSIZE_ANY_EXHDR(stream);

	return category + 1 >= length ? NULL :
		cstring_to_text_with_len(VARDATA_ANY(stream) + category + 1, length - category - 1);
}
