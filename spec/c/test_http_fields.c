/* Header blocks and the growing buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http_fields.h"

static int add(struct http_buffer *block, const char *name, const char *value)
{
    return http_field_add(block, name, strlen(name), value, strlen(value));
}

static void test_buffer(void **state)
{
    (void)state;
    struct http_buffer buffer = {0};
    for (int i = 0; i < 1000; i++)
        assert_int_equal(http_buffer_add(&buffer, "a\0b", 3), 0);
    assert_int_equal(buffer.size, 3000);
    assert_memory_equal(buffer.data + 2997, "a\0b", 4);
    assert_int_equal(http_buffer_add(&buffer, NULL, 0), 0);
    assert_int_equal(http_buffer_add(&buffer, "x", SIZE_MAX / 2), -1);
    assert_int_equal(buffer.size, 3000);
    http_buffer_clear(&buffer);
    assert_null(buffer.data);
    http_buffer_clear(&buffer);
}

static void test_add(void **state)
{
    (void)state;
    struct http_buffer block = {0};
    assert_int_equal(add(&block, "X-Name", "  value \r\n"), 0);
    assert_int_equal(add(&block, "Empty ", ""), 0);
    assert_int_equal(http_field_add(&block, "Bad", 3, "a\nb\0c\rd", 7), 0);
    assert_string_equal(block.data, "x-name: value\nempty: \nbad: a b c d\n");
    assert_int_equal(http_field_continue(&block, " \t more\n here\r\n", 14), 0);
    assert_string_equal(block.data, "x-name: value\nempty: \nbad: a b c d more  here\n");
    http_buffer_clear(&block);
    assert_int_equal(http_field_continue(&block, " nothing to continue", 20), 0);
    assert_int_equal(block.size, 0);
    http_buffer_clear(&block);
}

static void test_next(void **state)
{
    (void)state;
    static const char block[] = "a: 1\nno colon\n: no name\nB:two: three \n\nc:";
    const char *at = block, *end = block + sizeof(block) - 1;
    struct http_field field;
    static const char *const expected[][2] = {{"a", "1"}, {"B", "two: three"}, {"c", ""}};
    for (size_t i = 0; i < 3; i++) {
        assert_true(http_field_next(&at, end, &field));
        assert_int_equal(field.name_size, strlen(expected[i][0]));
        assert_memory_equal(field.name, expected[i][0], field.name_size);
        assert_int_equal(field.value_size, strlen(expected[i][1]));
        assert_memory_equal(field.value, expected[i][1], field.value_size);
    }
    assert_false(http_field_next(&at, end, &field));
    assert_false(http_field_next(&at, end, &field));
}

static void test_valid(void **state)
{
    (void)state;
    assert_true(http_token_valid("X-a_1!", 6));
    assert_false(http_token_valid("", 0));
    assert_false(http_token_valid("a b", 3));
    assert_false(http_token_valid("a:", 2));
    assert_false(http_token_valid("a\0b", 3));
    assert_false(http_token_valid("\xc3\xa9", 2));
    assert_true(http_value_valid("", 0));
    assert_true(http_value_valid("a\tb \xc3\xa9", 6));
    assert_false(http_value_valid("a\r\nb", 4));
    assert_false(http_value_valid("a\0", 2));
    assert_false(http_value_valid("\x7f", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_valid),
    };
    return cmocka_run_group_tests_name("http_fields", tests, NULL, NULL);
}
