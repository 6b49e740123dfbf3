/*
 * The log: one line per call to stderr, JSON (where stderr is not a terminal) or text, secrets
 * replaced. Owned by struct rouse; any thread may write. It knows no Lua.
 */
#ifndef ROUSE_LOG_H
#define ROUSE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG = 0, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_AUTO = 0, LOG_FORMAT_JSON, LOG_FORMAT_TEXT };
enum log_type { LOG_STRING = 0, LOG_INTEGER, LOG_REAL, LOG_BOOLEAN, LOG_JSON };

#define LOG_SECRET_MIN 4 /* bytes: shorter ones would hide half of every line */

/* One name and value of a line. Strings are borrowed and may hold any bytes. */
struct log_field {
    const char *name;
    enum log_type type;
    const char *string; /* LOG_STRING; LOG_JSON: a valid JSON text, shown as it is */
    size_t length;
    int64_t integer; /* also LOG_BOOLEAN */
    double real;
};

struct log;

/* Writes to stderr at level info, format auto. NULL when out of memory. */
struct log *log_new(void);

/* NULL is allowed. No other thread may still write. */
void log_free(struct log *log);

void log_set_level(struct log *log, enum log_level level);
void log_set_format(struct log *log, enum log_format format);

/* Lines go to this descriptor, which stays the caller's; auto is decided anew. */
void log_set_fd(struct log *log, int fd);

/* Whether a line of this level would be written. Any thread. */
bool log_enabled(const struct log *log, enum log_level level);

/*
 * From now on *** stands for this value in every line, also where it appears URL-encoded, inside
 * base64 or escaped as JSON. False: it is too short, or there was no memory. Any thread.
 */
bool log_secret(struct log *log, const char *value, size_t length);

/*
 * Copies the text with *** for every secret; returns the length, which is never more than before:
 * `to` holds `length` bytes. Any thread.
 */
size_t log_redact(struct log *log, const char *text, size_t length, char *to);

/*
 * From now on lines below LOG_LEVEL_WARN from this thread may wait for the next ones, to be written
 * together: until log_release, a line that does not wait, or 32 KiB. Not on a terminal. Whoever
 * holds releases before anything else of the program happens, so that what a line reports cannot
 * have had effects while it is not out. Releasing without holding is allowed.
 */
void log_hold(struct log *log);
void log_release(struct log *log);

/*
 * Writes one line; `component` may be NULL. Thread-safe. A line that the descriptor does not take is
 * counted, and the next one that it takes says before it how many are missing.
 */
void log_write(struct log *log, enum log_level level, const char *component, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * The same with fields, in their order. Fields called level, message or component get a trailing
 * underscore. Thread-safe.
 */
void log_write_fields(struct log *log, enum log_level level, const char *component,
                      const char *message, size_t length, const struct log_field *fields,
                      size_t count);

/* Where a record is. */
struct log_place {
    const char *topic;
    int32_t partition;
    int64_t offset;
};

/* The same with the fields topic, partition and offset: the line a consumer writes for each record. */
void log_write_place(struct log *log, enum log_level level, const char *message, size_t length,
                     const struct log_place *place);

#endif
