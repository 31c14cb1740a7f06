/*-------------------------------------------------------------------------
 *
 * token.h
 *		The file of tokens.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_TOKEN_H
#define GATEWAY_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <openssl/sha.h>

typedef struct Token
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char	   *role;
} Token;

typedef struct TokenList
{
	Token	   *tokens;
	size_t		count;
} TokenList;

/* Reads a file of tokens into a list.  Returns true, or false and a sentence in fault. */
extern bool tokens_read(const char *path, TokenList *list, char *fault);

/* Frees what a list holds. */
extern void tokens_free(TokenList *list);

/* Returns the role of the token with a digest, or NULL. */
extern const char *token_role(const TokenList *list, const unsigned char *digest);

/* Returns true if a text is what RFC 6750 allows as a token. */
extern bool token_is_wellformed(const char *token, size_t length);

/* Reads a token from input, and prints its line of a file of tokens.  Returns an exit code. */
extern int	token_print_line(FILE *input, const char *role, const char *comment);

#endif							/* GATEWAY_TOKEN_H */
