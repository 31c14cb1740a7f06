/*-------------------------------------------------------------------------
 *
 * key_memory.c
 *		Memory for keys: it is in no core file of a backend that crashed, and the system does not
 *		write it to its swap, as far as it lets the process say so.
 *
 * Keys are on the stack, too, while they are used, which is wiped behind each use, and in the state
 * of the cipher, to the end of the transaction (cipher.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "personal/personal.h"

void *
key_memory_alloc(Size size)
{
	void	   *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not get memory for keys: %m"),
				 errdetail("%zu bytes were asked for.", size)));
#ifdef MADV_DONTDUMP
	(void) madvise(memory, size, MADV_DONTDUMP);
#endif
	(void) mlock(memory, size);
	return memory;
}
