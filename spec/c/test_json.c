#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"

/* The events of a text, one letter each; a number, string or key follows in brackets. */
static const char *trace(const char *text, size_t length, char *out, size_t size)
{
    struct json_parser p;
    json_parser_init(&p, text, length);
    size_t n = 0;
    for (;;) {
        enum json_event event = json_next(&p);
        n += (size_t)snprintf(out + n, size - n, "%c", "!.ntfirsk[]{}"[event]);
        if (event == JSON_INTEGER)
            n += (size_t)snprintf(out + n, size - n, "<%lld>", (long long)p.integer);
        if (event == JSON_STRING || event == JSON_KEY)
            n += (size_t)snprintf(out + n, size - n, "<%.*s>", (int)p.length, p.string);
        if (event == JSON_ERROR || event == JSON_END)
            return out;
    }
}

static void test_events(void **state)
{
    (void)state;
    char out[256];
    const char *text = " {\"a\" : [1, -2.5 ,\"x\"], \"b\":{}, \"c\":[], \"d\":[null,true,false]} ";
    assert_string_equal(trace(text, strlen(text), out, sizeof(out)),
                        "{k<a>[i<1>rs<x>]k<b>{}k<c>[]k<d>[ntf]}.");
    assert_string_equal(trace("[1}", 3, out, sizeof(out)), "[i<1>!");
    assert_string_equal(trace("{]", 2, out, sizeof(out)), "{!");
    assert_string_equal(trace("[[1]", 4, out, sizeof(out)), "[[i<1>]!");
    assert_string_equal(trace("1\0", 2, out, sizeof(out)), "i<1>!");
}

static void test_end_and_error_stay(void **state)
{
    (void)state;
    struct json_parser p;
    json_parser_init(&p, "1", 1);
    assert_int_equal(json_next(&p), JSON_INTEGER);
    assert_int_equal(json_next(&p), JSON_END);
    assert_int_equal(json_next(&p), JSON_END);
    json_parser_init(&p, "x", 1);
    assert_int_equal(json_next(&p), JSON_ERROR);
    assert_int_equal(json_next(&p), JSON_ERROR);
}

/* Nothing behind the end is read: every text ends with its own allocation, for a sanitizer to see. */
static void test_every_prefix(void **state)
{
    (void)state;
    const char *text = "{\"k\\u00e9\\ud83d\\ude00\":[-12.5e+3,true,null,\"\xF0\x9F\x98\x80\"]}";
    size_t length = strlen(text);
    char out[256];
    for (size_t n = 0; n <= length; n++) {
        char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, text, n);
        copy[n] = '\0';
        trace(copy, n, out, sizeof(out));
        assert_int_equal(out[strlen(out) - 1], n == length ? '.' : '!');
        free(copy);
    }
}

static void test_error_position(void **state)
{
    (void)state;
    struct json_parser p;
    struct err err;
    const char *text = "{\"\xC3\xA4\": 1,\n  \"b\" 2}";
    json_parser_init(&p, text, strlen(text));
    while (json_next(&p) != JSON_ERROR)
        ;
    assert_int_equal(json_parser_error(&p, &err), -1);
    assert_string_equal(err.code, "JSON");
    assert_string_equal(err.msg, "line 2, column 7: expected ':' after a key, found '2'");
}

static void test_strings(void **state)
{
    (void)state;
    char out[64];
    const char *escaped = "\\ud83d\\ude00\\u0000\\n/";
    assert_int_equal(json_unescape(escaped, strlen(escaped), out), 7);
    assert_memory_equal(out, "\xF0\x9F\x98\x80\0\n/", 7);
    const char raw[] = "a\"\\\x01\n\xC3\xA9";
    size_t size = json_quoted_size(raw, sizeof(raw) - 1);
    assert_int_equal(size, 17);
    assert_ptr_equal(json_quote(out, raw, sizeof(raw) - 1), out + size);
    assert_memory_equal(out, "\"a\\\"\\\\\\u0001\\n\xC3\xA9\"", size);
    assert_int_equal(json_quoted_size("\xC3", 1), 0);
    assert_int_equal(json_quoted_size("", 0), 2);
}

static const char *real(double value, char *out)
{
    out[json_write_real(out, value)] = '\0';
    return out;
}

static void test_numbers(void **state)
{
    (void)state;
    char out[JSON_NUMBER + 1];
    out[json_write_integer(out, INT64_MIN)] = '\0';
    assert_string_equal(out, "-9223372036854775808");
    out[json_write_integer(out, 0)] = '\0';
    assert_string_equal(out, "0");
    assert_string_equal(real(5, out), "5.0");
    assert_string_equal(real(-0.0, out), "-0.0");
    assert_string_equal(real(0.1, out), "0.1");
    assert_string_equal(real(0.1 + 0.2, out), "0.30000000000000004");
    assert_string_equal(real(1e300, out), "1e+300");
    assert_true(strlen(real(-2.2250738585072014e-308, out)) <= JSON_NUMBER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),       cmocka_unit_test(test_end_and_error_stay),
        cmocka_unit_test(test_every_prefix), cmocka_unit_test(test_error_position),
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
