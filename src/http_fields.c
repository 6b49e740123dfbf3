#include "http_fields.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM_FIRST = 256 };

int http_buffer_add(struct http_buffer *buffer, const void *data, size_t size)
{
    if (size >= (size_t)-1 / 4 - buffer->size)
        return -1;
    size_t need = buffer->size + size + 1;
    if (need > buffer->room) {
        size_t room = buffer->room > 0 ? buffer->room : ROOM_FIRST;
        while (room < need)
            room *= 2;
        char *grown = realloc(buffer->data, room);
        if (grown == NULL)
            return -1;
        buffer->data = grown;
        buffer->room = room;
    }
    if (size > 0)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return 0;
}

void http_buffer_clear(struct http_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct http_buffer){0};
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Leaves the text between the blanks around it. */
static void trim(const char **text, size_t *size)
{
    while (*size > 0 && is_blank(**text)) {
        (*text)++;
        (*size)--;
    }
    while (*size > 0 && is_blank((*text)[*size - 1]))
        (*size)--;
}

bool http_field_next(const char **at, const char *end, struct http_field *field)
{
    while (*at < end) {
        const char *line = *at;
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL)
            stop = end;
        *at = stop < end ? stop + 1 : end;
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        if (colon == NULL || colon == line)
            continue;
        field->name = line;
        field->name_size = (size_t)(colon - line);
        field->value = colon + 1;
        field->value_size = (size_t)(stop - colon - 1);
        trim(&field->value, &field->value_size);
        return true;
    }
    return false;
}

/* Makes what was appended from `at` on fit for one line of a block. */
static void clean(struct http_buffer *block, size_t at)
{
    for (; at < block->size; at++) {
        char c = block->data[at];
        if (c == '\r' || c == '\n' || c == '\0')
            block->data[at] = ' ';
    }
}

static void lower(struct http_buffer *block, size_t at)
{
    for (; at < block->size; at++) {
        char c = block->data[at];
        if (c >= 'A' && c <= 'Z') /* never by locale */
            block->data[at] = (char)(c - 'A' + 'a');
    }
}

/* Takes back what was appended since the block had `size` bytes. */
static int undo(struct http_buffer *block, size_t size)
{
    block->size = size;
    if (block->data != NULL)
        block->data[size] = '\0';
    return -1;
}

int http_field_add(struct http_buffer *block, const char *name, size_t name_size, const char *value,
                   size_t value_size)
{
    size_t start = block->size;
    trim(&name, &name_size);
    trim(&value, &value_size);
    if (http_buffer_add(block, name, name_size) < 0)
        return -1;
    lower(block, start);
    if (http_buffer_add(block, ": ", 2) < 0 || http_buffer_add(block, value, value_size) < 0)
        return undo(block, start);
    clean(block, start);
    if (http_buffer_add(block, "\n", 1) < 0)
        return undo(block, start);
    return 0;
}

int http_field_continue(struct http_buffer *block, const char *value, size_t value_size)
{
    if (block->size == 0)
        return 0;
    size_t start = block->size;
    trim(&value, &value_size);
    if (http_buffer_add(block, value, value_size) < 0 || http_buffer_add(block, "\n", 1) < 0)
        return undo(block, start);
    block->data[start - 1] = ' '; /* was the end of the line */
    clean(block, start);
    block->data[block->size - 1] = '\n';
    return 0;
}

bool http_token_valid(const char *token, size_t size)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < size; i++) {
        char c = token[i];
        bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            (c >= '0' && c <= '9');
        if (!alphanumeric && (c == '\0' || strchr(others, c) == NULL))
            return false;
    }
    return size > 0;
}

bool http_value_valid(const char *value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}
