/*
 * The log: one line per call to stderr, JSON or text, secrets redacted. Owned by struct rouse; any thread may write.
 */
#ifndef ROUSE_LOG_H
#define ROUSE_LOG_H

enum log_level { LOG_LEVEL_DEBUG = 0, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log;

struct log *log_new(void);
void log_free(struct log *log);

/* Writes one line; `component` may be NULL. Thread-safe. */
void log_write(struct log *log, enum log_level level, const char *component, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
