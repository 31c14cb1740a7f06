/*-------------------------------------------------------------------------
 *
 * claim_role.c
 *		From the claims of a token to a role.
 *
 * The setting roles lists which roles claims may name, and by which values.  Without
 * it a claim names a role itself.  A claim that is an array, as providers have for
 * groups, stands for the first role of the list that it has a value for: then it is the
 * list that decides on the order, and not the provider.
 *
 * Which roles exist, and whether the gateway may set them, the database knows.
 * Here are refused only names that would not do what they say: "none" means the
 * login role in SET ROLE, and a name that is too long would be cut.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "claim_role.h"
#include "request.h"
#include "secret_file.h"
#include "text.h"

#define MAX_CLAIM_NAME 256

bool
role_name_suits(const char *name)
{
	size_t		length = strlen(name);

	return length > 0 && length < ROLE_SIZE && strcmp(name, "none") != 0 && utf8_is_valid(name, length);
}

/* Adds "role" or "value=role"; blanks around either do not count. */
static const char *
claim_role_add(ClaimRoles *roles, char *item)
{
	char	   *equals = strrchr(item, '=');
	char	   *role = equals ? equals + 1 : item;
	ClaimRole  *entry = &roles->items[roles->count];

	if (equals != NULL)
		*equals = '\0';
	role = text_trim(role);
	item = text_trim(item);
	if (*item == '\0' || !role_name_suits(role))
		return "an entry is neither a role nor VALUE=ROLE";
	entry->value = strdup(item);
	entry->role = strdup(role);
	roles->count++;
	return entry->value && entry->role ? NULL : "out of memory";
}

bool
claim_roles_read(const char *text, ClaimRoles *roles, char *fault)
{
	char	   *copy = strdup(text ? text : "");
	char	   *rest = copy;
	char	   *item;
	size_t		count = 1;
	const char *reason = NULL;

	for (const char *c = text; c != NULL && *c != '\0'; c++)
		count += *c == ',';
	roles->count = 0;
	roles->items = calloc(count, sizeof(ClaimRole));
	if (copy == NULL || roles->items == NULL)
		reason = "out of memory";
	while (reason == NULL && copy[strspn(copy, " \t")] != '\0' && (item = strsep(&rest, ",")) != NULL)
		reason = claim_role_add(roles, item);
	free(copy);
	if (reason == NULL)
		return true;
	snprintf(fault, FAULT_SIZE, "%s", reason);
	claim_roles_free(roles);
	return false;
}

void
claim_roles_free(ClaimRoles *roles)
{
	for (size_t i = 0; i < roles->count; i++)
	{
		free(roles->items[i].value);
		free(roles->items[i].role);
	}
	free(roles->items);
	roles->items = NULL;
	roles->count = 0;
}

/* Replaces ~1 and ~0 in a step of a JSON pointer (RFC 6901). */
static void
pointer_unescape(char *step)
{
	char	   *to = step;

	for (; *step != '\0'; step++)
	{
		if (step[0] == '~' && (step[1] == '0' || step[1] == '1'))
			*to++ = *++step == '0' ? '~' : '/';
		else
			*to++ = *step;
	}
	*to = '\0';
}

const json_t *
claim_find(const json_t *claims, const char *name)
{
	char		path[MAX_CLAIM_NAME];
	char	   *rest = path + 1;
	char	   *step;

	if (*name != '/')
		return json_object_get(claims, name);
	if (strlen(name) >= sizeof(path))
		return NULL;
	strcpy(path, name);
	while (claims != NULL && (step = strsep(&rest, "/")) != NULL)
	{
		pointer_unescape(step);
		claims = json_object_get(claims, step);
	}
	return claims;
}

/* Returns true if a claim is a text, or has it as an element. */
static bool
claim_has(const json_t *claim, const char *text)
{
	const json_t *element;
	size_t		i;

	if (json_is_string(claim))
		return strcmp(json_string_value(claim), text) == 0;
	json_array_foreach(claim, i, element)
	{
		if (json_is_string(element) && strcmp(json_string_value(element), text) == 0)
			return true;
	}
	return false;
}

const char *
claim_role(const ClaimRoles *roles, const json_t *claim)
{
	const char *name = json_string_value(claim);

	for (size_t i = 0; i < roles->count; i++)
	{
		if (claim_has(claim, roles->items[i].value))
			return roles->items[i].role;
	}
	return roles->count == 0 && name != NULL && role_name_suits(name) ? name : NULL;
}
