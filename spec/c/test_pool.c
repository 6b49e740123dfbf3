/* The pool of small blocks: blocks do not overlap, keep their content when they move, and are used again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pool.h"

enum { BLOCKS = 500, ROUNDS = 20000, LARGEST = 600 };

struct held {
    unsigned char *at;
    size_t size;
    unsigned char mark;
};

static void check(const struct held *held)
{
    for (size_t i = 0; i < held->size; i++)
        assert_int_equal(held->mark, held->at[i]);
}

/* Random growing, shrinking and freeing, every block filled with a mark of its own: an overlap would spoil a neighbour's. */
static void test_blocks_keep_their_content(void **state)
{
    (void)state;
    static struct held held[BLOCKS];
    struct pool *pool = pool_new();
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        struct held *one = &held[rand() % BLOCKS];
        size_t size = rand() % 4 == 0 ? 0 : (size_t)(rand() % LARGEST) + 1;
        check(one);
        unsigned char *moved = pool_realloc(pool, one->at, one->size, size);
        if (size == 0) {
            assert_null(moved);
        } else {
            assert_non_null(moved);
            assert_int_equal(0, (uintptr_t)moved % 16);
            for (size_t i = 0; i < size && i < one->size; i++)
                assert_int_equal(one->mark, moved[i]);
            one->mark = (unsigned char)rand();
            memset(moved, one->mark, size);
        }
        one->at = moved;
        one->size = size;
    }
    for (int i = 0; i < BLOCKS; i++) {
        check(&held[i]);
        pool_realloc(pool, held[i].at, held[i].size, 0);
    }
    pool_free(pool);
}

static void test_freed_blocks_are_used_again(void **state)
{
    (void)state;
    struct pool *pool = pool_new();
    void *first = pool_realloc(pool, NULL, 0, 40);
    pool_realloc(pool, first, 40, 0);
#if !defined(__SANITIZE_ADDRESS__)
    assert_ptr_equal(first, pool_realloc(pool, NULL, 0, 33)); /* the same class: 33 to 48 bytes */
    assert_ptr_equal(first, pool_realloc(pool, first, 33, 48));
#endif
    pool_free(pool);
    pool_free(NULL);
}

static void test_sizes_at_the_border(void **state)
{
    (void)state;
    struct pool *pool = pool_new();
    unsigned char *block = pool_realloc(pool, NULL, 0, POOL_LARGEST);
    memset(block, 7, POOL_LARGEST);
    block = pool_realloc(pool, block, POOL_LARGEST, POOL_LARGEST + 1);
    assert_int_equal(7, block[POOL_LARGEST - 1]);
    block = pool_realloc(pool, block, POOL_LARGEST + 1, 1);
    assert_int_equal(7, block[0]);
    assert_null(pool_realloc(pool, block, 1, 0));
    assert_null(pool_realloc(pool, NULL, 0, 0));
    pool_free(pool);
}

/* Many blocks, all but one freed: the memory goes back, but for what holds the one, which keeps its content. */
static void test_trimming(void **state)
{
    (void)state;
    enum { MANY = 20000, SIZE = 100 };
    static unsigned char *many[MANY];
    struct pool *pool = pool_new();
    assert_int_equal(0, pool_trim(pool));
    for (int i = 0; i < MANY; i++)
        many[i] = memset(pool_realloc(pool, NULL, 0, SIZE), i % 251, SIZE);
    assert_int_equal(0, pool_trim(pool));
    for (int i = 0; i < MANY; i++)
        if (i != MANY / 2)
            pool_realloc(pool, many[i], SIZE, 0);
#if !defined(__SANITIZE_ADDRESS__)
    assert_in_range(pool_trim(pool), MANY * SIZE * 9 / 10, MANY * SIZE * 2);
#endif
    check(&(struct held){.at = many[MANY / 2], .size = SIZE, .mark = MANY / 2 % 251});
    for (int i = 0; i < MANY; i++)
        if (i != MANY / 2)
            many[i] = memset(pool_realloc(pool, NULL, 0, SIZE), i % 251, SIZE);
    for (int i = 0; i < MANY; i++) {
        check(&(struct held){.at = many[i], .size = SIZE, .mark = (unsigned char)(i % 251)});
        pool_realloc(pool, many[i], SIZE, 0);
    }
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_keep_their_content),
        cmocka_unit_test(test_freed_blocks_are_used_again),
        cmocka_unit_test(test_sizes_at_the_border),
        cmocka_unit_test(test_trimming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
