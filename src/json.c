#include "json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPECT_VALUE = 0, EXPECT_ITEM_OR_END, EXPECT_KEY_OR_END, AFTER_VALUE, FAILED };

void json_parser_init(struct json_parser *parser, const char *text, size_t length)
{
    memset(parser, 0, sizeof(*parser));
    parser->text = parser->at = text;
    parser->end = text + length;
    parser->state = EXPECT_VALUE;
}

static enum json_event failed(struct json_parser *p, const char *at, const char *problem)
{
    p->at = at;
    p->problem = problem;
    p->state = FAILED;
    return JSON_ERROR;
}

static bool in_object(const struct json_parser *p)
{
    unsigned i = p->depth - 1;
    return (p->objects[i / 8] >> (i % 8)) & 1;
}

static enum json_event open_container(struct json_parser *p, bool object)
{
    if (p->depth == JSON_DEPTH)
        return failed(p, p->at, "nested too deeply");
    unsigned i = p->depth++;
    unsigned char bit = (unsigned char)(1u << (i % 8));
    if (object)
        p->objects[i / 8] |= bit;
    else
        p->objects[i / 8] &= (unsigned char)~bit;
    p->at++;
    p->state = object ? EXPECT_KEY_OR_END : EXPECT_ITEM_OR_END;
    return object ? JSON_OBJECT : JSON_ARRAY;
}

static enum json_event close_container(struct json_parser *p)
{
    enum json_event event = in_object(p) ? JSON_OBJECT_END : JSON_ARRAY_END;
    p->depth--;
    p->at++;
    p->state = AFTER_VALUE;
    return event;
}

size_t json_utf8(const char *text, const char *end)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = (size_t)(end - text);
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC2 || left < 2 || (s[1] & 0xC0) != 0x80)
        return 0;
    if (s[0] < 0xE0)
        return 2;
    if (left < 3 || (s[2] & 0xC0) != 0x80)
        return 0;
    if (s[0] < 0xF0) { /* neither overlong nor a surrogate */
        if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F))
            return 0;
        return 3;
    }
    if (s[0] > 0xF4 || left < 4 || (s[3] & 0xC0) != 0x80)
        return 0;
    if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return 4;
}

/* Four hex digits at `s` (which may end early: the terminator is no digit), -1 if they are not. */
static int hex4(const char *s)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if (c >= 'a' && c <= 'f')
            digit = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            digit = c - 'A' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Checks the escape at `s` (a backslash). Returns what follows it, or NULL with *problem set. */
static const char *skip_escape(const char *s, const char **problem)
{
    if (s[1] != 'u') {
        *problem = "invalid escape in a string";
        return s[1] != '\0' && strchr("\"\\/bfnrt", s[1]) != NULL ? s + 2 : NULL;
    }
    int unit = hex4(s + 2);
    *problem = "invalid \\u escape in a string";
    if (unit < 0)
        return NULL;
    if (unit < 0xD800 || unit > 0xDFFF)
        return s + 6;
    *problem = "unpaired surrogate in a string";
    if (unit > 0xDBFF || s[6] != '\\' || s[7] != 'u')
        return NULL;
    int low = hex4(s + 8);
    return low >= 0xDC00 && low <= 0xDFFF ? s + 12 : NULL;
}

/* Scans the string that begins at p->at (a quote) and leaves p->at behind it. */
static enum json_event scan_string(struct json_parser *p)
{
    const char *s = p->at + 1;
    p->string = s;
    p->escaped = false;
    for (;;) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            s++;
        } else if (c == '"') {
            break;
        } else if (c == '\\') {
            const char *problem;
            const char *next = skip_escape(s, &problem);
            if (next == NULL)
                return failed(p, s, problem);
            p->escaped = true;
            s = next;
        } else if (c < 0x20) {
            return failed(p, s, s == p->end ? "string without an end"
                                            : "control character in a string");
        } else {
            size_t n = json_utf8(s, p->end);
            if (n == 0)
                return failed(p, s, "invalid UTF-8 in a string");
            s += n;
        }
    }
    p->length = (size_t)(s - p->string);
    p->at = s + 1;
    return JSON_STRING;
}

static const char *skip_digits(const char *s)
{
    while (*s >= '0' && *s <= '9')
        s++;
    return s;
}

/* strtod honours the locale's decimal point; JSON does not. */
static double read_real(const char *s, const char *end)
{
    char *stop;
    double value = strtod(s, &stop);
    if (stop == end)
        return value;
    size_t length = (size_t)(end - s);
    const char *point = localeconv()->decimal_point;
    size_t room = length + strlen(point) + 1;
    char *copy = malloc(room);
    if (copy == NULL)
        return value;
    const char *dot = memchr(s, '.', length);
    snprintf(copy, room, "%.*s%s%.*s", (int)(dot - s), s, point, (int)(end - dot - 1), dot + 1);
    value = strtod(copy, NULL);
    free(copy);
    return value;
}

static enum json_event read_integer(struct json_parser *p, const char *s, const char *end)
{
    const char *start = s;
    bool negative = *s == '-';
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t value = 0;
    for (s += negative; s < end; s++) {
        unsigned digit = (unsigned)(*s - '0');
        if (value > (limit - digit) / 10)
            return failed(p, start, "integer outside 64 bits");
        value = value * 10 + digit;
    }
    p->integer = (int64_t)(negative ? 0 - value : value);
    return JSON_INTEGER;
}

static enum json_event scan_number(struct json_parser *p)
{
    const char *start = p->at;
    const char *s = start + (*start == '-');
    const char *digits = s;
    s = skip_digits(s);
    if (s == digits)
        return failed(p, start, "invalid number");
    if (*digits == '0' && s - digits > 1)
        return failed(p, start, "number with a leading zero");
    const char *integer_end = s;
    if (*s == '.') {
        digits = ++s;
        s = skip_digits(s);
        if (s == digits)
            return failed(p, start, "number without digits after the point");
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '+' || *s == '-';
        digits = s;
        s = skip_digits(s);
        if (s == digits)
            return failed(p, start, "number without digits in the exponent");
    }
    enum json_event event;
    if (s == integer_end) {
        event = read_integer(p, start, s);
    } else {
        p->real = read_real(start, s);
        event = isfinite(p->real) ? JSON_REAL : failed(p, start, "number too large for a double");
    }
    if (event != JSON_ERROR)
        p->at = s;
    return event;
}

static enum json_event scan_literal(struct json_parser *p, const char *word, enum json_event event)
{
    size_t length = strlen(word);
    if (strncmp(p->at, word, length) != 0)
        return failed(p, p->at, "expected a value");
    p->at += length;
    p->state = AFTER_VALUE;
    return event;
}

static enum json_event scan_value(struct json_parser *p)
{
    enum json_event event;
    switch (*p->at) {
    case '{': return open_container(p, true);
    case '[': return open_container(p, false);
    case 'n': return scan_literal(p, "null", JSON_NULL);
    case 't': return scan_literal(p, "true", JSON_TRUE);
    case 'f': return scan_literal(p, "false", JSON_FALSE);
    case '"': event = scan_string(p); break;
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': event = scan_number(p); break;
    default: return failed(p, p->at, "expected a value");
    }
    if (event != JSON_ERROR)
        p->state = AFTER_VALUE;
    return event;
}

static void skip_space(struct json_parser *p)
{
    while (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r')
        p->at++;
}

static enum json_event scan_key(struct json_parser *p)
{
    if (*p->at != '"')
        return failed(p, p->at, "expected a key in quotes");
    if (scan_string(p) == JSON_ERROR)
        return JSON_ERROR;
    skip_space(p);
    if (*p->at != ':')
        return failed(p, p->at, "expected ':' after a key");
    p->at++;
    p->state = EXPECT_VALUE;
    return JSON_KEY;
}

static enum json_event after_value(struct json_parser *p)
{
    if (p->depth == 0)
        return p->at == p->end ? JSON_END : failed(p, p->at, "text after the document");
    bool object = in_object(p);
    if (*p->at == (object ? '}' : ']'))
        return close_container(p);
    if (*p->at != ',')
        return failed(p, p->at, object ? "expected ',' or '}' in an object"
                                       : "expected ',' or ']' in an array");
    p->at++;
    skip_space(p);
    return object ? scan_key(p) : scan_value(p);
}

enum json_event json_next(struct json_parser *p)
{
    if (p->state == FAILED)
        return JSON_ERROR;
    skip_space(p);
    switch (p->state) {
    case EXPECT_ITEM_OR_END: return *p->at == ']' ? close_container(p) : scan_value(p);
    case EXPECT_KEY_OR_END: return *p->at == '}' ? close_container(p) : scan_key(p);
    case AFTER_VALUE: return after_value(p);
    default: return scan_value(p);
    }
}

int json_parser_error(const struct json_parser *p, struct err *err)
{
    unsigned long line = 1, column = 1;
    for (const char *s = p->text; s < p->at; s++) {
        if (*s == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*s & 0xC0) != 0x80) {
            column++;
        }
    }
    char found[40] = "";
    if (strncmp(p->problem, "expected", 8) == 0) {
        unsigned char c = (unsigned char)*p->at;
        if (p->at == p->end)
            snprintf(found, sizeof(found), ", found the end of the text");
        else if (c > 0x20 && c < 0x7F)
            snprintf(found, sizeof(found), ", found '%c'", c);
        else
            snprintf(found, sizeof(found), ", found byte 0x%02X", c);
    }
    return err_set(err, "JSON", "line %lu, column %lu: %s%s", line, column, p->problem, found);
}

static char *put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

size_t json_unescape(const char *s, size_t length, char *out)
{
    const char *end = s + length;
    char *start = out;
    while (s < end) {
        const char *escape = memchr(s, '\\', (size_t)(end - s));
        size_t plain = (size_t)((escape ? escape : end) - s);
        memcpy(out, s, plain);
        out += plain;
        if (escape == NULL)
            break;
        s = escape + 2;
        switch (escape[1]) {
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        case 'u': {
            unsigned code = (unsigned)hex4(s);
            s += 4;
            if (code >= 0xD800 && code <= 0xDBFF) {
                code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned)hex4(s + 2) - 0xDC00);
                s += 6;
            }
            out = put_utf8(out, code);
            break;
        }
        default: *out++ = escape[1]; break;
        }
    }
    return (size_t)(out - start);
}

/* The letter of a control character's short escape, 0 if it has none. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

size_t json_quoted_size(const char *s, size_t length)
{
    const char *end = s + length;
    size_t size = 2;
    while (s < end) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x80) {
            size_t n = json_utf8(s, end);
            if (n == 0)
                return 0;
            size += n;
            s += n;
            continue;
        }
        if (c == '"' || c == '\\')
            size += 2;
        else if (c < 0x20)
            size += short_escape(c) ? 2 : 6;
        else
            size++;
        s++;
    }
    return size;
}

char *json_quote(char *out, const char *s, size_t length)
{
    static const char hex[] = "0123456789abcdef";
    *out++ = '"';
    for (const char *end = s + length; s < end; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c != '"' && c != '\\') {
            *out++ = (char)c;
            continue;
        }
        *out++ = '\\';
        if (c >= 0x20) {
            *out++ = (char)c;
        } else if (short_escape(c)) {
            *out++ = short_escape(c);
        } else {
            memcpy(out, "u00", 3);
            out[3] = hex[c >> 4];
            out[4] = hex[c & 15];
            out += 5;
        }
    }
    *out++ = '"';
    return out;
}

size_t json_write_integer(char *out, int64_t value)
{
    char digits[JSON_NUMBER];
    size_t n = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0)
        digits[n++] = '-';
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

size_t json_write_real(char *out, double value)
{
    char text[JSON_NUMBER];
    size_t n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = (size_t)snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    size_t length = 0;
    bool integral = true;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool numeric = (c >= '0' && c <= '9') || c == '-' || c == '+' || c == 'e';
        if (numeric)
            out[length++] = c;
        else if (out[length - 1] != '.')
            out[length++] = '.'; /* the locale's point, of one byte or several */
        if (!numeric || c == 'e')
            integral = false;
    }
    if (integral) {
        out[length++] = '.';
        out[length++] = '0';
    }
    return length;
}
