#include "pool.h"

#include <stdlib.h>
#include <string.h>

#define STEP 16
#define CLASSES (POOL_LARGEST / STEP)
#define SLAB (32 * 1024)

struct block {
    struct block *next;
};

struct slab {
    struct slab *next;
    _Alignas(STEP) unsigned char bytes[];
};

struct pool {
    struct block *idle[CLASSES];
    struct slab *slabs;
    unsigned char *at, *end;    /* what is left of the newest slab */
};

struct pool *pool_new(void)
{
    return calloc(1, sizeof(struct pool));
}

void pool_free(struct pool *pool)
{
    if (pool == NULL)
        return;
    while (pool->slabs != NULL) {
        struct slab *next = pool->slabs->next;
        free(pool->slabs);
        pool->slabs = next;
    }
    free(pool);
}

/* AddressSanitizer is to see every block of its own. */
#if defined(__SANITIZE_ADDRESS__)
enum { POOLED = 0 };
#else
enum { POOLED = 1 };
#endif

static size_t class_of(size_t size)
{
    return (size - 1) / STEP;
}

static void put(struct pool *pool, void *memory, size_t class)
{
    struct block *block = memory;
    block->next = pool->idle[class];
    pool->idle[class] = block;
}

static void *take(struct pool *pool, size_t class)
{
    struct block *block = pool->idle[class];
    if (block != NULL) {
        pool->idle[class] = block->next;
        return block;
    }
    size_t size = (class + 1) * STEP;
    if ((size_t)(pool->end - pool->at) < size) {
        struct slab *slab = malloc(SLAB);
        if (slab == NULL)
            return NULL;
        if (pool->end > pool->at) /* the rest is a block of some class too */
            put(pool, pool->at, class_of((size_t)(pool->end - pool->at)));
        slab->next = pool->slabs;
        pool->slabs = slab;
        pool->at = slab->bytes;
        pool->end = (unsigned char *)slab + SLAB;
    }
    void *memory = pool->at;
    pool->at += size;
    return memory;
}

static void give(struct pool *pool, void *block, size_t size)
{
    if (size > POOL_LARGEST)
        free(block);
    else
        put(pool, block, class_of(size));
}

void *pool_realloc(struct pool *pool, void *block, size_t old, size_t size)
{
    if (!POOLED) {
        if (size > 0)
            return realloc(block, size);
        free(block);
        return NULL;
    }
    if (block == NULL || old == 0)
        return size == 0 ? NULL : size > POOL_LARGEST ? malloc(size) : take(pool, class_of(size));
    if (size == 0) {
        give(pool, block, old);
        return NULL;
    }
    if (old > POOL_LARGEST && size > POOL_LARGEST)
        return realloc(block, size);
    if (old <= POOL_LARGEST && size <= POOL_LARGEST && class_of(old) == class_of(size))
        return block;
    void *moved = size > POOL_LARGEST ? malloc(size) : take(pool, class_of(size));
    if (moved == NULL)
        /* shrinking must not fail: it stays, and serves a smaller class one day */
        return size < old ? block : NULL;
    memcpy(moved, block, old < size ? old : size);
    give(pool, block, old);
    return moved;
}
