/*
 * The text of log lines: JSON, or text for people, with secrets replaced, valid UTF-8 and safe on a
 * terminal, whatever is put into them. Not thread-safe: log.c calls it under its lock.
 */
#ifndef ROUSE_LOG_LINE_H
#define ROUSE_LOG_LINE_H

#include <string.h>

#include "log.h"
#include "redact.h"

/* Lines one after the other. */
struct log_line {
    char *text; /* malloc's */
    size_t used, room;
    bool failed; /* no memory for something that was put */
    enum log_format format; /* never AUTO */
    const struct redact *secrets;
};

/* Makes room for more; false, and `failed`, where there is no memory. */
bool log_line_grow(struct log_line *line, size_t length);

/* Puts text as it is. */
static inline void log_line_put(struct log_line *line, const char *s, size_t length)
{
    if (line->room - line->used < length && !log_line_grow(line, length))
        return;
    memcpy(line->text + line->used, s, length);
    line->used += length;
}

/* One line: its beginning, fields, its end. `component` may be NULL. */
void log_line_begin(struct log_line *line, enum log_level level, const char *component,
                    const char *message, size_t length);
void log_line_field(struct log_line *line, const struct log_field *field);
void log_line_end(struct log_line *line);

/* The two parts of a field that is an integer. */
void log_line_name(struct log_line *line, const char *name);
void log_line_integer(struct log_line *line, int64_t value);

#endif
