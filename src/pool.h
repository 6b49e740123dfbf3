/*
 * Memory for small objects in classes of 16 bytes, for Lua's allocator: tables, closures and short
 * strings come and go by the million, and a list per class is several times quicker than malloc.
 * One thread; sizes are the caller's to remember.
 */
#ifndef ROUSE_POOL_H
#define ROUSE_POOL_H

#include <stddef.h>

#define POOL_LARGEST 256 /* bytes; larger blocks go to malloc */

struct pool;

struct pool *pool_new(void);
/* Frees every block still in use as well. NULL is allowed. */
void pool_free(struct pool *pool);

/*
 * As lua_Alloc without the user data: a size of 0 frees, NULL means out of memory (never when a
 * block shrinks).
 */
void *pool_realloc(struct pool *pool, void *block, size_t old, size_t size);

/*
 * Gives memory back in which no block is in use any more, and returns how many bytes that was. Slow: it looks at every block
 * that is free.
 */
size_t pool_trim(struct pool *pool);

#endif
