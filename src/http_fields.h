/*
 * What the HTTP client and server share: a growing buffer, and header fields as one block of text,
 * `name: value\n` per field. Blocks built here hold lower-case names; values never hold CR, LF or
 * NUL. No Lua, no HTTP library.
 */
#ifndef ROUSE_HTTP_FIELDS_H
#define ROUSE_HTTP_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialized is empty. `data` is NULL or ends with a NUL that `size` does not count. */
struct http_buffer {
    char *data;
    size_t size;
    size_t room;
};

/* Appends. 0, or -1 when out of memory: the buffer is unchanged then. */
int http_buffer_add(struct http_buffer *buffer, const void *data, size_t size);

/* Frees the contents and leaves an empty buffer. */
void http_buffer_clear(struct http_buffer *buffer);

/* One field of a block; the pointers point into the block. */
struct http_field {
    const char *name;
    size_t name_size;
    const char *value;
    size_t value_size;
};

/* The field at *at, which moves on. False at the end. Lines without a colon are skipped. */
bool http_field_next(const char **at, const char *end, struct http_field *field);

/*
 * Appends a field: the name in lower case, the value without blanks around it. A character that
 * could not stand in a block becomes a space. 0, or -1 when out of memory.
 */
int http_field_add(struct http_buffer *block, const char *name, size_t name_size, const char *value,
                   size_t value_size);

/* Appends to the value of the last field: an obsolete folded line. 0, or -1 when out of memory. */
int http_field_continue(struct http_buffer *block, const char *value, size_t value_size);

/* May this be sent as a field name or a request method (RFC 9110 token), as a field's value? */
bool http_token_valid(const char *token, size_t size);
bool http_value_valid(const char *value, size_t size);

#endif
