#include "log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log_line.h"
#include "redact.h"

#define LINE_MAX_ROOM 262144 /* a larger buffer is not kept for the next line */
#define HELD_MAX 32768       /* bytes of lines that wait for each other */

/* What the last line about a record began with, up to its offset: the next one most likely does too. */
struct head {
    size_t length; /* 0: none */
    enum log_level level;
    int32_t partition;
    size_t message_length;
    char message[64];
    char topic[256];
    char text[640];
};

struct log {
    pthread_mutex_t lock; /* around everything but `level` */
    atomic_int level;
    int fd;
    struct redact *secrets;
    struct log_line line; /* held lines, and the one being built */
    size_t lost; /* lines that could not be written, to be told when there is room again */
    bool torn;   /* and the last of what was written is part of a line */
    struct head head;
    bool terminal; /* somebody is watching */
    bool held; /* by `holder`, see log_hold */
    pthread_t holder;
};

struct log *log_new(void)
{
    struct log *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return NULL;
    log->secrets = redact_new();
    if (log->secrets == NULL || pthread_mutex_init(&log->lock, NULL) != 0) {
        redact_free(log->secrets);
        free(log);
        return NULL;
    }
    log->line.secrets = log->secrets;
    atomic_init(&log->level, LOG_LEVEL_INFO);
    log_set_fd(log, STDERR_FILENO);
    return log;
}

/*
 * One write(2), unless the kernel takes less. Where somebody made stderr non-blocking and nobody
 * reads it for a second, the rest is given up; from then on, until there is room again, at once: a
 * program must not stand still for its log. Returns the bytes written.
 */
static size_t write_all(struct log *log, const char *line, size_t length)
{
    size_t written = 0;
    while (written < length) {
        ssize_t n = write(log->fd, line + written, length - written);
        if (n >= 0) {
            written += (size_t)n;
        } else if (errno == EAGAIN) {
            struct pollfd writable = {.fd = log->fd, .events = POLLOUT};
            if (poll(&writable, 1, log->lost > 0 ? 0 : 1000) <= 0)
                return written;
        } else if (errno != EINTR) {
            return written; /* a closed pipe, a full disk: said when there is a place for it again */
        }
    }
    return written;
}

static size_t count_lines(const char *text, const char *end)
{
    size_t lines = 0;
    for (; (text = memchr(text, '\n', (size_t)(end - text))) != NULL; text++)
        lines++;
    return lines;
}

/* Says how many lines are missing at this place. False: there is no room for that either. */
static bool tell_lost(struct log *log)
{
    static const char json[] = "{\"level\":\"error\",\"message\":\"log: lines were lost\",\"lines\":%zu}\n";
    static const char people[] = "ERROR log: lines were lost lines=%zu\n";
    char text[96] = "\n";
    size_t begin = log->torn ? 1 : 0;
    int length = snprintf(text + begin, sizeof(text) - begin,
                          log->line.format == LOG_FORMAT_JSON ? json : people, log->lost);
    length += (int)begin;
    size_t written = write_all(log, text, (size_t)length);
    log->torn = written > 0 ? written < (size_t)length : log->torn;
    if (written < (size_t)length)
        return false;
    log->lost = 0;
    return true;
}

static void flush(struct log *log)
{
    const char *end = log->line.text + log->line.used;
    size_t written = 0;
    if (log->line.used > 0 && (log->lost == 0 || tell_lost(log)))
        written = write_all(log, log->line.text, log->line.used);
    if (written < log->line.used) {
        log->lost += count_lines(log->line.text + written, end);
        if (written > 0)
            log->torn = log->line.text[written - 1] != '\n';
    }
    log->line.used = 0;
    if (log->line.room > LINE_MAX_ROOM) {
        free(log->line.text);
        log->line.text = NULL;
        log->line.room = 0;
    }
}

void log_hold(struct log *log)
{
    pthread_mutex_lock(&log->lock);
    log->held = !log->terminal;
    log->holder = pthread_self();
    pthread_mutex_unlock(&log->lock);
}

void log_release(struct log *log)
{
    pthread_mutex_lock(&log->lock);
    log->held = false;
    flush(log);
    pthread_mutex_unlock(&log->lock);
}

void log_free(struct log *log)
{
    if (log == NULL)
        return;
    flush(log);
    if (log->lost > 0)
        tell_lost(log);
    pthread_mutex_destroy(&log->lock);
    redact_free(log->secrets);
    free(log->line.text);
    free(log);
}

void log_set_level(struct log *log, enum log_level level)
{
    atomic_store(&log->level, (int)level);
}

bool log_enabled(const struct log *log, enum log_level level)
{
    return (int)level >= atomic_load(&log->level);
}

static enum log_format auto_format(int fd)
{
    return isatty(fd) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
}

void log_set_format(struct log *log, enum log_format format)
{
    pthread_mutex_lock(&log->lock);
    log->line.format = format == LOG_FORMAT_AUTO ? auto_format(log->fd) : format;
    log->head.length = 0;
    pthread_mutex_unlock(&log->lock);
}

void log_set_fd(struct log *log, int fd)
{
    pthread_mutex_lock(&log->lock);
    flush(log);
    log->fd = fd;
    log->line.format = auto_format(fd);
    log->terminal = isatty(fd);
    log->head.length = 0;
    pthread_mutex_unlock(&log->lock);
}

bool log_secret(struct log *log, const char *value, size_t length)
{
    if (length < LOG_SECRET_MIN)
        return false;
    pthread_mutex_lock(&log->lock);
    bool ok = redact_add(log->secrets, value, length);
    log->head.length = 0;
    pthread_mutex_unlock(&log->lock);
    return ok;
}

size_t log_redact(struct log *log, const char *text, size_t length, char *to)
{
    size_t used = 0;
    const char *end = text + length;
    pthread_mutex_lock(&log->lock);
    while (text < end) {
        size_t secret = redact_match(log->secrets, text, end);
        if (secret == 0) {
            to[used++] = *text++;
            continue;
        }
        memcpy(to + used, "***", 3);
        used += 3;
        text += secret;
    }
    pthread_mutex_unlock(&log->lock);
    return used;
}

/* ---- whole lines */

/* Ends the line that began at `start`: it is written, or waits for others. */
static void finish_line(struct log *log, enum log_level level, size_t start)
{
    static const char none[] = "{\"level\":\"error\",\"message\":\"log: out of memory\"}\n";
    if (log->line.failed) {
        log->line.used = start;
        flush(log);
        write_all(log, none, sizeof(none) - 1);
        log->line.failed = false;
    }
    bool hold = log->held && level < LOG_LEVEL_WARN && log->line.used < HELD_MAX &&
                pthread_equal(log->holder, pthread_self());
    if (!hold)
        flush(log);
}

void log_write_fields(struct log *log, enum log_level level, const char *component,
                      const char *message, size_t length, const struct log_field *fields,
                      size_t count)
{
    if (!log_enabled(log, level))
        return;
    pthread_mutex_lock(&log->lock);
    size_t start = log->line.used;
    log_line_begin(&log->line, level, component, message, length);
    for (size_t i = 0; i < count; i++)
        log_line_field(&log->line, &fields[i]);
    log_line_end(&log->line);
    finish_line(log, level, start);
    pthread_mutex_unlock(&log->lock);
}

/* Whether the last line about a record began as this one does. */
static bool begins_alike(const struct head *head, enum log_level level, const char *message,
                         size_t length, const struct log_place *place)
{
    return head->length > 0 && head->partition == place->partition && head->level == level &&
           head->message_length == length && memcmp(head->message, message, length) == 0 &&
           strcmp(head->topic, place->topic) == 0;
}

/* Keeps what stands in the line from `start` on for the next one, where it has room. */
static void keep_head(struct log *log, enum log_level level, const char *message, size_t length,
                      const struct log_place *place, size_t start)
{
    struct head *head = &log->head;
    size_t topic = strlen(place->topic) + 1, size = log->line.used - start;
    head->length = 0;
    if (log->line.failed || length > sizeof(head->message) || topic > sizeof(head->topic) ||
        size > sizeof(head->text))
        return;
    head->level = level;
    head->partition = place->partition;
    head->message_length = length;
    memcpy(head->message, message, length);
    memcpy(head->topic, place->topic, topic);
    memcpy(head->text, log->line.text + start, size);
    head->length = size;
}

void log_write_place(struct log *log, enum log_level level, const char *message, size_t length,
                     const struct log_place *place)
{
    if (!log_enabled(log, level))
        return;
    pthread_mutex_lock(&log->lock);
    size_t start = log->line.used;
    if (begins_alike(&log->head, level, message, length, place)) {
        log_line_put(&log->line, log->head.text, log->head.length);
    } else {
        struct log_field topic = {.name = "topic", .type = LOG_STRING, .string = place->topic,
                                  .length = strlen(place->topic)};
        struct log_field partition = {.name = "partition", .type = LOG_INTEGER,
                                      .integer = place->partition};
        log_line_begin(&log->line, level, NULL, message, length);
        log_line_field(&log->line, &topic);
        log_line_field(&log->line, &partition);
        log_line_name(&log->line, "offset");
        keep_head(log, level, message, length, place, start);
    }
    log_line_integer(&log->line, place->offset);
    log_line_end(&log->line);
    finish_line(log, level, start);
    pthread_mutex_unlock(&log->lock);
}

void log_write(struct log *log, enum log_level level, const char *component, const char *fmt, ...)
{
    if (!log_enabled(log, level))
        return;
    char *message = NULL;
    va_list ap;
    va_start(ap, fmt);
    int length = vasprintf(&message, fmt, ap);
    va_end(ap);
    if (length < 0)
        return;
    log_write_fields(log, level, component, message, (size_t)length, NULL, 0);
    free(message);
}
