/*-------------------------------------------------------------------------
 *
 * uuid.c
 *		UUIDs of version 7, which ascend with time, and of version 5, which are
 *		digests of names.
 *
 * Version 7: 48 bits of Unix time in milliseconds, 4 of version, 12 of the
 * fraction of the millisecond, 2 of variant, 62 at random (RFC 9562, method 3 for
 * the sub-millisecond part).  Within a backend each id is greater than the one
 * before, also when the clock stands still or jumps back: then the last
 * time is moved on by the smallest step there is.
 *
 * The random part comes from a buffer of strong random bytes: one call of the
 * random generator for each event would cost a tenth of an append.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/evp.h>
#include <time.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "base/base.h"

const pg_uuid_t uuid_namespace_oid = {
	{
		0x6b, 0xa7, 0xb8, 0x12, 0x9d, 0xad, 0x11, 0xd1,
		0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8
	}
};

#define SHA1_LENGTH 20

#define RANDOM_BYTES_PER_UUID	8
#define RANDOM_BUFFER_SIZE		(RANDOM_BYTES_PER_UUID * 64)

#define NS_PER_MS				INT64CONST(1000000)

/* A tick is 1/4096 of a millisecond, what 12 bits can tell apart. */
#define TICKS_PER_MS			4096

PG_FUNCTION_INFO_V1(es_uuid7);
PG_FUNCTION_INFO_V1(es_uuid5);

static unsigned char random_buffer[RANDOM_BUFFER_SIZE];
static int	random_used = RANDOM_BUFFER_SIZE;

static void
fill_random(unsigned char *bytes)
{
	if (random_used == RANDOM_BUFFER_SIZE)
	{
		if (!pg_strong_random(random_buffer, RANDOM_BUFFER_SIZE))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bytes for an id"),
					 errdetail("The random generator did not return %d bytes.",
							   RANDOM_BUFFER_SIZE)));
		random_used = 0;
	}
	memcpy(bytes, random_buffer + random_used, RANDOM_BYTES_PER_UUID);
	random_used += RANDOM_BYTES_PER_UUID;
}

/*
 * The time since 1970 in ticks, greater than at the call before.
 */
static int64
next_tick(void)
{
	static int64 last = 0;
	struct timespec now;
	int64		tick;

	clock_gettime(CLOCK_REALTIME, &now);
	tick = ((int64) now.tv_sec * 1000 + now.tv_nsec / NS_PER_MS) * TICKS_PER_MS +
		(now.tv_nsec % NS_PER_MS) * TICKS_PER_MS / NS_PER_MS;
	if (tick <= last)
		tick = last + 1;
	last = tick;
	return tick;
}

/*
 * Makes a new id.
 */
void
uuid_generate_v7(pg_uuid_t *uuid)
{
	int64		tick = next_tick();
	uint64		ms = tick / TICKS_PER_MS;
	int			fraction = tick % TICKS_PER_MS;
	int			i;

	for (i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	uuid->data[6] = 0x70 | (fraction >> 8);
	uuid->data[7] = fraction & 0xff;
	fill_random(uuid->data + 8);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}

/* An id as text, for messages. */
char *
uuid_to_cstring(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

Datum
es_uuid7(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	uuid_generate_v7(uuid);
	PG_RETURN_UUID_P(uuid);
}

/*
 * SHA-1 over the namespace and the name.  The context must not outlive an
 * error, so that nothing may be raised between its creation and its end.
 */
static void
sha1_of_name(const pg_uuid_t *namespace, const char *name, size_t length,
			 unsigned char *hash)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		done;

	done = context != NULL &&
		EVP_DigestInit_ex(context, EVP_sha1(), NULL) == 1 &&
		EVP_DigestUpdate(context, namespace->data, UUID_LEN) == 1 &&
		EVP_DigestUpdate(context, name, length) == 1 &&
		EVP_DigestFinal_ex(context, hash, NULL) == 1;
	EVP_MD_CTX_free(context);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not compute a SHA-1 digest"),
				 errdetail("OpenSSL refused SHA-1 over a name of %zu bytes.",
						   length),
				 errhint("An id of version 5 needs SHA-1, which OpenSSL's configuration may forbid.")));
}

/*
 * The UUID of version 5 of a name in the server's encoding.
 */
pg_uuid_t *
uuid_generate_v5(const pg_uuid_t *namespace, const char *name, int length)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	unsigned char hash[SHA1_LENGTH];
	char	   *utf8 = pg_server_to_any(name, length, PG_UTF8);

	if (utf8 != name)
		length = strlen(utf8);
	sha1_of_name(namespace, utf8, length, hash);
	memcpy(uuid->data, hash, UUID_LEN);
	uuid->data[6] = 0x50 | (uuid->data[6] & 0x0f);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
	return uuid;
}

Datum
es_uuid5(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(1);

	PG_RETURN_UUID_P(uuid_generate_v5(PG_GETARG_UUID_P(0), VARDATA_ANY(name),
									  VARSIZE_ANY_EXHDR(name)));
}
