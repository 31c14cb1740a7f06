/*-------------------------------------------------------------------------
 *
 * token.c
 *		The file of tokens.
 *
 * A line of the file is
 *
 *		DIGEST ROLE [COMMENT]
 *
 * DIGEST is SHA-256 of the token in hexadecimal digits.  So the file has no token
 * in it, and its readers cannot call the gateway.  That holds for tokens that cannot
 * be guessed: the digest is quick to compute, unlike that of a password.
 *
 * A token is looked for by its digest in all lines, so that the time says nothing
 * about how much of it was right.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "secret_file.h"
#include "text.h"
#include "token.h"

#define MAX_TOKENS			10000
#define MIN_TOKEN_LENGTH	20
#define MAX_TOKEN_LENGTH	1024

static bool
digest_of_hex(const char *hex, unsigned char *digest)
{
	if (strlen(hex) != 2 * SHA256_DIGEST_LENGTH)
		return false;
	for (size_t i = 0; i < SHA256_DIGEST_LENGTH; i++)
	{
		int			high = text_hex_digit(hex[2 * i]);
		int			low = text_hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		digest[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

/* A sentence about what is wrong with a line, or NULL. */
static const char *
token_line_fault(char *line, TokenList *list)
{
	char	   *hex = text_take_word(&line);
	char	   *role = text_take_word(&line);
	Token	   *token = &list->tokens[list->count];

	if (!digest_of_hex(hex, token->digest))
		return "it does not begin with 64 hexadecimal digits, as --hash-token prints them";
	if (role == NULL)
		return "it has no role";
	if (token_role(list, token->digest) != NULL)
		return "another line has the same token";
	token->role = strdup(role);
	if (token->role == NULL)
		return "out of memory";
	list->count++;
	return NULL;
}

static size_t
lines_of(const char *text)
{
	size_t		count = 1;

	for (; *text != '\0'; text++)
		count += *text == '\n';
	return count;
}

/* Reads the lines of a text.  Returns the number of the line that is at fault, or 0. */
static int
token_lines_read(char *text, TokenList *list, const char **reason)
{
	int			number = 0;
	char	   *line;

	while ((line = text_take_line(&text)) != NULL)
	{
		number++;
		if (*line == '\0' || *line == '#')
			continue;
		*reason = list->count == MAX_TOKENS ? "there are more than 10000 tokens" : token_line_fault(line, list);
		if (*reason != NULL)
			return number;
	}
	return 0;
}

bool
tokens_read(const char *path, TokenList *list, char *fault)
{
	size_t		length;
	char	   *bytes = secret_file_read(path, true, &length, fault);
	const char *reason = "out of memory";
	int			number;

	list->count = 0;
	list->tokens = bytes ? calloc(lines_of(bytes), sizeof(Token)) : NULL;
	number = list->tokens ? token_lines_read(bytes, list, &reason) : 1;
	if (bytes != NULL && number > 0)
		snprintf(fault, FAULT_SIZE, "line %d of \"%.200s\": %s", number, path, reason);
	secret_file_free(bytes, length);
	if (number > 0)
		tokens_free(list);
	return number == 0;
}

void
tokens_free(TokenList *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->tokens[i].role);
	free(list->tokens);
	list->tokens = NULL;
	list->count = 0;
}

const char *
token_role(const TokenList *list, const unsigned char *digest)
{
	const char *role = NULL;

	for (size_t i = 0; i < list->count; i++)
	{
		if (CRYPTO_memcmp(list->tokens[i].digest, digest, SHA256_DIGEST_LENGTH) == 0)
			role = list->tokens[i].role;
	}
	return role;
}

bool
token_is_wellformed(const char *token, size_t length)
{
	size_t		i = 0;

	while (i < length && (isalnum((unsigned char) token[i]) || strchr("-._~+/", token[i]) != NULL) && token[i] != '\0')
		i++;
	if (i == 0)
		return false;
	while (i < length && token[i] == '=')
		i++;
	return i == length;
}

int
token_print_line(FILE *input, const char *role, const char *comment)
{
	char		token[MAX_TOKEN_LENGTH + 2];
	unsigned char digest[SHA256_DIGEST_LENGTH];
	size_t		length;

	if (role == NULL || *role == '\0' || strpbrk(role, " \t\r\n") != NULL)
	{
		fprintf(stderr, "eventstore-gateway: --hash-token needs a role, which is one word\n");
		return 2;
	}
	if (fgets(token, sizeof(token), input) == NULL)
		token[0] = '\0';
	length = strcspn(token, "\r\n");
	if (length < MIN_TOKEN_LENGTH || length > MAX_TOKEN_LENGTH || !token_is_wellformed(token, length))
	{
		fprintf(stderr, "eventstore-gateway: a token has %d to %d letters, digits and characters of -._~+/\n"
				"Make one by: openssl rand -hex 32\n", MIN_TOKEN_LENGTH, MAX_TOKEN_LENGTH);
		return 1;
	}
	SHA256((const unsigned char *) token, length, digest);
	OPENSSL_cleanse(token, sizeof(token));
	for (size_t i = 0; i < sizeof(digest); i++)
		printf("%02x", digest[i]);
	printf(" %s%s%s\n", role, comment && *comment ? " " : "", comment ? comment : "");
	return fflush(stdout) == 0 ? 0 : 1;
}
