#include "log_line.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define STRING_MAX 16384 /* bytes of one string that are shown */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_titles[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

bool log_line_grow(struct log_line *line, size_t length)
{
    size_t room = (line->used + length) * 2;
    char *text = realloc(line->text, room);
    if (text == NULL) {
        line->failed = true;
        return false;
    }
    line->text = text;
    line->room = room;
    return true;
}

static inline void put_text(struct log_line *line, const char *s)
{
    log_line_put(line, s, strlen(s));
}

/* How a string is shown: between quotes, or bare in a line of text. */
enum place { QUOTED = 0, BARE };

/* Puts one character that may not stand as it is; returns its bytes. */
static size_t put_escaped(struct log_line *line, const char *s, const char *end, enum place place)
{
    unsigned char c = (unsigned char)*s;
    char out[8];
    if (place == BARE && c == '\n') {
        put_text(line, "\n    "); /* indented, so that no message can pretend to be a line */
    } else if (place == BARE && c == '\t') {
        put_text(line, "    ");
    } else if (c < 0x7F) {
        size_t size = json_write_string(out, sizeof(out), s, 1);
        if (size == 0)
            line->failed = true;
        else
            log_line_put(line, out + 1, size - 2);
    } else if (c == 0x7F || (c == 0xC2 && json_utf8(s, end) == 2)) {
        snprintf(out, sizeof(out), "\\u00%02X", c == 0x7F ? c : (unsigned char)s[1]);
        put_text(line, out);
        return c == 0x7F ? 1 : 2;
    } else {
        put_text(line, "\xEF\xBF\xBD"); /* a byte that is no UTF-8 */
    }
    return 1;
}

/* Bytes of the character at s if it may stand as it is, else 0. */
static size_t harmless(const char *s, const char *end, enum place place)
{
    unsigned char c = (unsigned char)*s;
    if (c < 0x20 || c == 0x7F || (place == QUOTED && (c == '"' || c == '\\')))
        return 0;
    if (c == 0xC2 && end - s > 1 && (unsigned char)s[1] < 0xA0)
        return 0; /* C1 controls: some terminals obey them */
    return json_utf8(s, end);
}

/*
 * How many bytes from s on are printable ASCII, need no escape and begin no secret: of nearly every
 * string, all.
 */
static size_t plain_length(const struct log_line *line, const char *s, const char *end)
{
    const bool *first = redact_first(line->secrets);
    const char *at = s;
    while (at < end && *at >= 0x20 && *at < 0x7F && *at != '"' && *at != '\\' &&
           !first[(unsigned char)*at])
        at++;
    return (size_t)(at - s);
}

/* A string with secrets replaced, valid UTF-8 and safe on a terminal. */
static void put_safe(struct log_line *line, const char *s, size_t length, enum place place)
{
    const char *end = s + length;
    const char *shown = length > STRING_MAX ? s + STRING_MAX : end;
    const char *plain = s; /* begin of what has not been put yet */
    while ((s += plain_length(line, s, shown)) < shown) {
        size_t secret = redact_match(line->secrets, s, end);
        size_t n = secret != 0 ? 0 : harmless(s, end, place);
        if (n != 0) {
            s += n;
            continue;
        }
        log_line_put(line, plain, (size_t)(s - plain));
        if (secret != 0) {
            put_text(line, "***");
            s += secret;
        } else {
            s += put_escaped(line, s, end, place);
        }
        plain = s;
    }
    log_line_put(line, plain, (size_t)(s - plain));
    if (s < end)
        put_text(line, "...");
}

static void put_quoted(struct log_line *line, const char *s, size_t length)
{
    put_text(line, "\"");
    put_safe(line, s, length, QUOTED);
    put_text(line, "\"");
}

/* Whether a secret is anywhere in the text. */
static bool tainted(const struct log_line *line, const char *s, size_t length)
{
    const bool *first = redact_first(line->secrets);
    for (const char *end = s + length; s < end; s++) {
        if (first[(unsigned char)*s] && redact_match(line->secrets, s, end) != 0)
            return true;
    }
    return false;
}

/* A number (or other bare word) that happens to be a secret becomes a string. */
static void put_bare(struct log_line *line, const char *s, size_t length)
{
    if (tainted(line, s, length))
        put_quoted(line, s, length);
    else
        log_line_put(line, s, length);
}

/* printf took a quarter of the time of a line with two numbers. */
void log_line_integer(struct log_line *line, int64_t value)
{
    const bool *first = redact_first(line->secrets);
    char digits[24];
    char *end = digits + sizeof(digits), *at = end;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    bool suspect = value < 0;
    do {
        *--at = (char)('0' + rest % 10);
        suspect |= first[(unsigned char)*at];
    } while ((rest /= 10) > 0);
    if (value < 0)
        *--at = '-';
    if (suspect)
        put_bare(line, at, (size_t)(end - at));
    else
        log_line_put(line, at, (size_t)(end - at));
}

static void put_json_string(struct log_line *line, const char *quoted, size_t length)
{
    struct json_view view;
    struct json_t *string = json_read(quoted, length, NULL);
    if (string == NULL) {
        line->failed = true;
        return;
    }
    json_view(string, &view);
    put_quoted(line, view.string, view.length);
    json_free(string);
}

/* A JSON text, its strings and numbers one by one, so that what is replaced leaves it valid. */
static void put_json(struct log_line *line, const char *s, size_t length)
{
    const char *end = s + length;
    while (s < end) {
        const char *start = s;
        if (*s == '"') {
            for (s++; s < end && *s != '"'; s++)
                s += *s == '\\';
            s++;
            put_json_string(line, start, (size_t)(s - start));
        } else {
            s += strcspn(s, "\"[]{},:");
            if (s > start)
                put_bare(line, start, (size_t)(s - start));
            for (; s < end && *s != '"' && strchr("[]{},:", *s) != NULL; s++)
                log_line_put(line, s, 1);
        }
    }
}

static void put_value(struct log_line *line, const struct log_field *field)
{
    char number[JSON_NUMBER];
    switch (field->type) {
    case LOG_INTEGER: log_line_integer(line, field->integer); break;
    case LOG_BOOLEAN: put_text(line, field->integer ? "true" : "false"); break;
    case LOG_JSON: put_json(line, field->string, field->length); break;
    case LOG_STRING: put_quoted(line, field->string, field->length); break;
    case LOG_REAL:
        if (isfinite(field->real))
            put_bare(line, number, json_write_real(number, field->real));
        else
            put_text(line, isnan(field->real)   ? "\"nan\""
                          : field->real > 0 ? "\"inf\""
                                            : "\"-inf\"");
        break;
    }
}

static bool reserved(const char *name)
{
    switch (name[0]) {
    case 'l': return strcmp(name, "level") == 0;
    case 'm': return strcmp(name, "message") == 0;
    case 'c': return strcmp(name, "component") == 0;
    default: return false;
    }
}

/* A word a person reads without quotes: not empty, no spaces, quotes or control characters. */
static bool simple(const char *s, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)s[i] <= 0x20 || strchr("\"\\=", s[i]) != NULL)
            return false;
    }
    return length > 0;
}

/* ---- the pieces of a line */

void log_line_begin(struct log_line *line, enum log_level level, const char *component,
                      const char *message, size_t length)
{
    if (line->format == LOG_FORMAT_JSON) {
        put_text(line, "{\"level\":\"");
        put_text(line, level_names[level]);
        put_text(line, "\",\"message\":");
        put_quoted(line, message, length);
        if (component != NULL) {
            put_text(line, ",\"component\":");
            put_quoted(line, component, strlen(component));
        }
        return;
    }
    put_text(line, level_titles[level]);
    put_text(line, " ");
    if (component != NULL) {
        put_safe(line, component, strlen(component), BARE);
        put_text(line, ": ");
    }
    put_safe(line, message, length, BARE);
}

void log_line_name(struct log_line *line, const char *name)
{
    if (line->format == LOG_FORMAT_JSON) {
        put_text(line, ",\"");
        put_safe(line, name, strlen(name), QUOTED);
        put_text(line, reserved(name) ? "_\":" : "\":");
    } else {
        put_text(line, " ");
        put_safe(line, name, strlen(name), BARE);
        put_text(line, "=");
    }
}

void log_line_field(struct log_line *line, const struct log_field *field)
{
    log_line_name(line, field->name);
    if (line->format != LOG_FORMAT_JSON && field->type == LOG_STRING &&
        simple(field->string, field->length))
        put_safe(line, field->string, field->length, BARE);
    else
        put_value(line, field);
}

void log_line_end(struct log_line *line)
{
    if (line->format == LOG_FORMAT_JSON)
        log_line_put(line, "}\n", 2);
    else
        log_line_put(line, "\n", 1);
}

