/*-------------------------------------------------------------------------
 *
 * text.c
 *		Texts in pieces: lines, words, hexadecimal digits.
 *
 *-------------------------------------------------------------------------
 */
#include <stddef.h>
#include <string.h>

#include "text.h"

#define BLANKS	" \t\r\n"

char *
text_trim(char *text)
{
	size_t		length;

	text += strspn(text, BLANKS);
	length = strlen(text);
	while (length > 0 && strchr(BLANKS, text[length - 1]) != NULL)
		text[--length] = '\0';
	return text;
}

char *
text_take_line(char **text)
{
	char	   *line = *text;

	if (line == NULL || *line == '\0')
		return NULL;
	*text = line + strcspn(line, "\n");
	if (**text == '\n')
		*(*text)++ = '\0';
	return text_trim(line);
}

char *
text_take_word(char **line)
{
	char	   *word = *line + strspn(*line, BLANKS);

	if (*word == '\0')
		return NULL;
	*line = word + strcspn(word, BLANKS);
	if (**line != '\0')
		*(*line)++ = '\0';
	return word;
}

int
text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}
