/*
 * JSON without loss: a pull parser over a text in memory, and writers for strings and numbers. It
 * keeps no memory of its own, so a caller whose calls may jump out (Lua) leaks nothing. Anybody may
 * use it; it knows no Lua.
 *
 * Exactness is its purpose: integers are 64 bits or refused, 5 and 5.0 differ, NUL bytes and
 * duplicate keys are reported as they come; invalid UTF-8, NaN, hex and trailing text are errors.
 */
#ifndef ROUSE_JSON_H
#define ROUSE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define JSON_DEPTH 1000 /* of nested arrays and objects, in both directions */
#define JSON_NUMBER 32  /* bytes that hold any number written here */

enum json_event {
    JSON_ERROR = 0,
    JSON_END, /* the document was complete and nothing follows */
    JSON_NULL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_INTEGER, /* .integer */
    JSON_REAL,    /* .real, finite */
    JSON_STRING,  /* .string, .length, .escaped */
    JSON_KEY,     /* the same; its value is the next event */
    JSON_ARRAY,
    JSON_ARRAY_END,
    JSON_OBJECT,
    JSON_OBJECT_END,
};

/* On the caller's stack; read the value fields, the rest is the parser's. */
struct json_parser {
    const char *string; /* inside the text; json_unescape it when `escaped` is set */
    size_t length;
    bool escaped;
    int64_t integer;
    double real;

    const char *text;
    const char *at;
    const char *end;
    const char *problem;
    int state;
    unsigned depth;
    unsigned char objects[(JSON_DEPTH + 7) / 8]; /* one bit per open container: is it an object */
};

/* `text` must outlive the parser and text[length] must be 0, as it is in a C or Lua string. */
void json_parser_init(struct json_parser *parser, const char *text, size_t length);

/* The next event. After JSON_ERROR or JSON_END the same one again. */
enum json_event json_next(struct json_parser *parser);

/*
 * After JSON_ERROR: fills err with code "JSON" and "line 2, column 5: what" (both from 1, columns
 * in characters). Returns -1.
 */
int json_parser_error(const struct json_parser *parser, struct err *err);

/* Decodes a parser's string into `out` (`length` bytes at least). Returns the bytes written. */
size_t json_unescape(const char *string, size_t length, char *out);

/* The length of the valid UTF-8 sequence at `s` (s < end), 0 if there is none. */
size_t json_utf8(const char *s, const char *end);

/* Bytes of the string as a quoted JSON string; 0 when it is not valid UTF-8. */
size_t json_quoted_size(const char *s, size_t length);

/* Writes the string (valid UTF-8) quoted: json_quoted_size bytes, no terminator. Gives the end. */
char *json_quote(char *out, const char *s, size_t length);

/*
 * Write a number without terminator and return its length, at most JSON_NUMBER. A real (finite)
 * gets the shortest of 15 to 17 digits that reads back the same, and always a point or exponent.
 */
size_t json_write_integer(char *out, int64_t value);
size_t json_write_real(char *out, double value);

#endif
