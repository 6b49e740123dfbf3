#include "pool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

/* Pages of their own: among malloc's blocks, what is given back would leave holes that nothing else fits into. */
static struct slab *slab_new(void)
{
    void *pages = mmap(NULL, SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages != MAP_FAILED ? pages : NULL;
}

static void slab_free(struct slab *slab)
{
    munmap(slab, SLAB);
}

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
        slab_free(pool->slabs);
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
        struct slab *slab = slab_new();
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

/* ---- giving back ---- */

struct level {
    struct slab *slab;
    size_t idle; /* bytes of it on the lists */
};

#define CAPACITY (SLAB - offsetof(struct slab, bytes))

static int by_address(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const struct level *)a)->slab, right = (uintptr_t)((const struct level *)b)->slab;
    return (left > right) - (left < right);
}

/* The slab that a block lies in; NULL: in none, it was malloc's and did not move when it shrank. */
static struct level *level_of(struct level *levels, size_t count, const struct block *block)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        uintptr_t start = (uintptr_t)levels[middle].slab;
        if ((uintptr_t)block >= start && (uintptr_t)block - start < SLAB)
            return &levels[middle];
        if ((uintptr_t)block < start)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* The slabs but the newest, whose rest is on no list, with what is idle in each; NULL: none, or out of memory. */
static struct level *survey(struct pool *pool, size_t *count)
{
    *count = 0;
    for (struct slab *slab = pool->slabs; slab != NULL && slab->next != NULL; slab = slab->next)
        (*count)++;
    struct level *levels = calloc(*count + 1, sizeof(*levels));
    if (levels == NULL)
        return NULL;
    size_t i = 0;
    for (struct slab *slab = pool->slabs; slab != NULL && slab->next != NULL; slab = slab->next)
        levels[i++].slab = slab->next;
    qsort(levels, *count, sizeof(*levels), by_address);
    for (size_t class = 0; class < CLASSES; class++)
        for (struct block *block = pool->idle[class]; block != NULL; block = block->next) {
            struct level *level = level_of(levels, *count, block);
            if (level != NULL)
                level->idle += (class + 1) * STEP;
        }
    return levels;
}

size_t pool_trim(struct pool *pool)
{
    size_t count, freed = 0;
    struct level *levels = survey(pool, &count);
    if (levels == NULL)
        return 0;
    for (size_t class = 0; class < CLASSES; class++)
        for (struct block **at = &pool->idle[class]; *at != NULL;) {
            const struct level *level = level_of(levels, count, *at);
            if (level != NULL && level->idle == CAPACITY)
                *at = (*at)->next;
            else
                at = &(*at)->next;
        }
    for (struct slab **at = &pool->slabs; *at != NULL;) {
        struct slab *slab = *at;
        const struct level *level = level_of(levels, count, (const struct block *)slab);
        if (level != NULL && level->idle == CAPACITY) {
            *at = slab->next;
            slab_free(slab);
            freed += SLAB;
        } else {
            at = &slab->next;
        }
    }
    free(levels);
    return freed;
}
