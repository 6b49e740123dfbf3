#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "json.h"

/* A tree as letters; numbers, strings and keys follow in brackets. Returns the end. */
static char *trace(const struct json_t *value, char *out)
{
    struct json_view view;
    json_view(value, &view);
    *out++ = "nftirs[{"[view.kind];
    if (view.kind == KIND_INTEGER)
        out += sprintf(out, "<%lld>", (long long)view.integer);
    if (view.kind == KIND_REAL)
        out += sprintf(out, "<%g>", view.real);
    if (view.kind == KIND_STRING)
        out += sprintf(out, "<%.*s>", (int)view.length, view.string);
    if (view.kind == KIND_ARRAY) {
        for (size_t i = 0; i < view.length; i++)
            out = trace(json_item(value, i), out);
        *out++ = ']';
    }
    if (view.kind == KIND_OBJECT) {
        struct json_member member = {0};
        size_t count = 0;
        while (json_next(value, &member)) {
            assert_int_equal(strlen(member.name), member.length);
            out += sprintf(out, "k<%s>", member.name);
            out = trace(member.value, out);
            count++;
        }
        assert_int_equal(count, view.length);
        *out++ = '}';
    }
    *out = '\0';
    return out;
}

static void test_tree(void **state)
{
    (void)state;
    char out[256];
    const char *text = " {\"a\" : [1, -2.5 ,\"x\"], \"b\":{}, \"\":[],"
                       " \"d\":[null,true,false], \"b\":5} ";
    struct json_t *root = json_read(text, strlen(text), NULL);
    assert_non_null(root);
    trace(root, out);
    assert_string_equal(out, "{k<a>[i<1>r<-2.5>s<x>]k<b>i<5>k<>[]k<d>[ntf]}");
    json_free(root);
    json_free(NULL);
}

static void test_nul_in_a_string(void **state)
{
    (void)state;
    struct json_view view;
    struct json_t *root = json_read("\"a\\u0000b\"", 10, NULL);
    assert_non_null(root);
    json_view(root, &view);
    assert_int_equal(view.length, 3);
    assert_memory_equal(view.string, "a\0b", 4);
    json_free(root);
}

/* Nothing behind the end is read: every text has its own allocation, for a sanitizer to see. */
static void test_every_prefix(void **state)
{
    (void)state;
    const char *text = "{\"k\\u00e9\\ud83d\\ude00\":[-12.5e+3,true,null,\"\xF0\x9F\x98\x80\"]}";
    size_t length = strlen(text);
    for (size_t n = 0; n <= length; n++) {
        char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy + 1, text, n);
        struct err err;
        struct json_t *root = json_read(copy + 1, n, &err);
        if (n == length)
            assert_non_null(root);
        else
            assert_null(root);
        if (root == NULL)
            assert_string_equal(err.code, "JSON");
        json_free(root);
        free(copy);
    }
}

static void assert_refused(const char *text, size_t length, const char *message)
{
    struct err err;
    assert_null(json_read(text, length, &err));
    assert_string_equal(err.code, "JSON");
    assert_string_equal(err.msg, message);
}

static void test_errors(void **state)
{
    (void)state;
    const char *text = "{\"\xC3\xA4\": 1,\n  \"b\" 2}";
    assert_refused(text, strlen(text), "line 2, column 7: ':' expected");
    assert_refused("[1}", 3, "line 1, column 3: ']' expected");
    assert_refused("[[1]", 4, "line 1, column 5: ']' expected near end of file");
    assert_refused("x\xFF", 2, "line 1, column 2: unable to decode byte 0xff");
    /* jansson itself would take these */
    assert_refused("1\0", 2, "line 1, column 2: NUL byte");
    assert_refused("[\"\xC3\xA4\",\n1\0, 2]", 13, "line 2, column 2: NUL byte");
}

static void test_strings(void **state)
{
    (void)state;
    char out[64];
    const char raw[] = "a\"\\\x01\n\0/\xC3\xA9";
    const char quoted[] = "\"a\\\"\\\\\\u0001\\n\\u0000/\xC3\xA9\"";
    size_t size = json_write_string(out, sizeof(out), raw, sizeof(raw) - 1);
    assert_int_equal(size, sizeof(quoted) - 1);
    assert_memory_equal(out, quoted, size);
    assert_int_equal(json_write_string(out, sizeof(out), "\xC3", 1), 0);
    assert_int_equal(json_write_string(out, sizeof(out), "", 0), 2);
    for (size_t room = 0; room < size; room++) { /* nothing is written past the room */
        char *exact = malloc(room + 1);
        assert_non_null(exact);
        exact[room] = '#';
        assert_int_equal(json_write_string(exact, room, raw, sizeof(raw) - 1), size);
        assert_int_equal(exact[room], '#');
        free(exact);
    }
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } cases[] = {
        {"a", 1},
        {"\xC2\x80", 2},
        {"\xDF\xBFz", 2},
        {"\xE0\xA0\x80", 3},
        {"\xED\x9F\xBF", 3},
        {"\xEF\xBF\xBFz", 3},
        {"\xF0\x90\x80\x80", 4},
        {"\xF4\x8F\xBF\xBFz", 4},
        {"\x80\x80", 0},         /* not a first byte */
        {"\xC1\xBF", 0},         /* overlong */
        {"\xE0\x9F\xBF", 0},     /* overlong */
        {"\xF0\x8F\xBF\xBF", 0}, /* overlong */
        {"\xED\xA0\x80", 0},     /* a surrogate */
        {"\xF4\x90\x80\x80", 0}, /* past U+10FFFF */
        {"\xFF\xFF\xFF\xFF", 0},
        {"\xC3", 0}, /* cut */
        {"\xE2\x82", 0},
        {"\xC3z", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = cases[i].text;
        assert_int_equal(json_utf8(text, text + strlen(text)), cases[i].length);
    }
}

static const char *real(double value, char *out)
{
    out[json_write_real(out, value)] = '\0';
    return out;
}

static void test_reals(void **state)
{
    (void)state;
    char out[JSON_NUMBER + 1];
    assert_string_equal(real(5, out), "5.0");
    assert_string_equal(real(-0.0, out), "-0.0");
    assert_string_equal(real(0.1, out), "0.1");
    assert_string_equal(real(0.1 + 0.2, out), "0.30000000000000004");
    assert_string_equal(real(1e300, out), "1e300");
    assert_string_equal(real(1e-7, out), "1e-7");
    assert_string_equal(real(5e-324, out), "4.94065645841247e-324");
    assert_string_equal(real(-2.2250738585072014e-308, out), "-2.2250738585072014e-308");
}

/* ---- what a tree takes, counted through jansson's allocator */

static size_t used, peak;

static void *count_malloc(size_t size)
{
    void *block = malloc(size);
    if (block != NULL)
        used += malloc_usable_size(block) + sizeof(size_t);
    if (used > peak)
        peak = used;
    return block;
}

static void count_free(void *block)
{
    if (block != NULL)
        used -= malloc_usable_size(block) + sizeof(size_t);
    free(block);
}

/* `count` times the piece, in it %d as a running number, between `open` and `close`. */
static void check_bound(const char *open, const char *piece, const char *close, int count)
{
    char *text = malloc(((size_t)count + 1) * (strlen(piece) + 12) + 16);
    assert_non_null(text);
    char *end = text + sprintf(text, "%s", open);
    for (int i = 0; i < count; i++) {
        for (const char *s = piece; *s != '\0'; s++) {
            if (*s == '#')
                end += sprintf(end, "%d", i);
            else
                *end++ = *s;
        }
    }
    end += sprintf(end, "%s", close);
    peak = used;
    struct err err;
    struct json_t *root = json_read(text, (size_t)(end - text), &err);
    if (root == NULL)
        fail_msg("%s: %s", piece, err.msg);
    size_t bound = json_tree_bound(text, (size_t)(end - text));
    if (peak > bound)
        fail_msg("%d times %s took %zu bytes, at most %zu foreseen", count, piece, peak, bound);
    json_free(root);
    assert_int_equal(used, 0);
    free(text);
}

static void test_tree_bound(void **state)
{
    (void)state;
    static const int counts[] = {1, 7, 8, 9, 1000, 4096, 4097, 5000, 8193, 16385};
    json_set_alloc_funcs(count_malloc, count_free);
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        check_bound("[", "[],", "0]", counts[i]);
        check_bound("[", "{},", "0]", counts[i]);
        check_bound("[", "0,", "0]", counts[i]);
        check_bound("[", "0.5,", "0]", counts[i]);
        check_bound("[", "\"\",", "0]", counts[i]);
        check_bound("[", "\"abcdefghijklmnopqrstuvwxyz\",", "0]", counts[i]);
        check_bound("[", "{\"\":0},", "0]", counts[i]);
        check_bound("[", "{\"\":\"\"},", "0]", counts[i]);
        check_bound("[", "[0],", "0]", counts[i]);
        check_bound("[", "{\"a\":{\"b\":[{}]}},", "0]", counts[i]);
        check_bound("{", "\"#\":0,", "\"\":0}", counts[i]);
        check_bound("{", "\"#\":\"\",", "\"\":0}", counts[i]);
        check_bound("{", "\"#\":{},", "\"\":0}", counts[i]);
        check_bound("\"", "x", "\"", counts[i]);
        check_bound("{\"", "x", "\":\"\"}", counts[i]);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),         cmocka_unit_test(test_nul_in_a_string),
        cmocka_unit_test(test_every_prefix), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_reals),        cmocka_unit_test(test_tree_bound),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
