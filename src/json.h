/*
 * JSON through jansson: documents as trees to walk, and strings and reals as text. Anybody may use
 * it; it knows no Lua. Any thread.
 *
 * Nothing is lost: integers are 64 bits or refused, 5 and 5.0 differ, strings may hold NUL bytes
 * (keys may not); invalid UTF-8, NaN, hex and trailing text are errors. Of duplicate keys the last
 * one wins.
 */
#ifndef ROUSE_JSON_H
#define ROUSE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define JSON_DEPTH 2048             /* of nested values: jansson's limit for reading */
#define JSON_NUMBER 32              /* bytes that hold any number written here */
#define JSON_TREE_MAX (128UL << 20) /* bytes that a tree, and the making of it, may take */

struct json_t; /* a value in a tree: jansson's, under its own name */

enum json_kind {
    KIND_NULL = 0,
    KIND_FALSE,
    KIND_TRUE,
    KIND_INTEGER,
    KIND_REAL,
    KIND_STRING,
    KIND_ARRAY,
    KIND_OBJECT,
};

/* What a value is. The string belongs to the tree. */
struct json_view {
    enum json_kind kind;
    int64_t integer;
    double real; /* finite */
    const char *string;
    size_t length; /* of the string in bytes, of an array or object in items */
};

/* A member of an object; zeroed before the first. */
struct json_member {
    const char *name; /* the tree's */
    size_t length;
    const struct json_t *value;
    void *at;
};

/*
 * The tree of a document. NULL with code "JSON" and "line 2, column 5: what" (both from 1, columns
 * in characters), or when the tree could take more than JSON_TREE_MAX. Messages quote nothing of
 * the text.
 */
struct json_t *json_read(const char *text, size_t length, struct err *err);

/* Frees a tree; NULL is fine. Its values are gone with it. */
void json_free(struct json_t *root);

void json_view(const struct json_t *value, struct json_view *view);

/* Item `i` (from 0, below the length) of an array. */
const struct json_t *json_item(const struct json_t *array, size_t i);

/* Goes on to the next member of the object; false after the last. */
bool json_next(const struct json_t *object, struct json_member *member);

/*
 * Writes the string quoted to `out`, if `room` bytes hold it; no terminator. Returns the bytes that
 * it takes; 0 when it is not valid UTF-8 (or there is no memory).
 */
size_t json_write_string(char *out, size_t room, const char *s, size_t length);

/*
 * Writes a finite number with the fewest of 15 to 17 digits that read back the same, always with a
 * point or an exponent; no terminator. Returns its length, at most JSON_NUMBER (0: no memory).
 */
size_t json_write_real(char *out, double value);

/* The length of the valid UTF-8 sequence at `s` (s < end), 0 if there is none. */
size_t json_utf8(const char *s, const char *end);

/* No less than what json_read of the text allocates at any time, in bytes. */
size_t json_tree_bound(const char *text, size_t length);

#endif
