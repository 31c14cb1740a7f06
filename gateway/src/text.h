/*-------------------------------------------------------------------------
 *
 * text.h
 *		Texts in pieces: lines, words, hexadecimal digits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_TEXT_H
#define GATEWAY_TEXT_H

/* Cuts blanks and line ends off both ends of a text, which is changed. */
extern char *text_trim(char *text);

/* Takes the next line off a text, trimmed, or returns NULL at the text's end.  The text is changed. */
extern char *text_take_line(char **text);

/* Takes the next word off a line, or returns NULL.  The line is changed. */
extern char *text_take_word(char **line);

/* The value of a hexadecimal digit, or -1. */
extern int	text_hex_digit(char c);

#endif							/* GATEWAY_TEXT_H */
