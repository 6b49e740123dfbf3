#include "log.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "redact.h"

#define STRING_MAX 16384     /* bytes of one string that are shown */
#define LINE_MAX_ROOM 262144 /* a larger buffer is not kept for the next line */
#define HELD_MAX 32768       /* bytes of lines that wait for each other */

struct log {
    pthread_mutex_t lock; /* around everything but `level` */
    atomic_int level;
    enum log_format format; /* never AUTO */
    int fd;
    struct redact *secrets;
    char *line; /* held lines, and the one being built */
    size_t used;
    size_t room;
    bool failed; /* no memory for the rest of this line */
    bool terminal; /* somebody is watching */
    bool held; /* by `holder`, see log_hold */
    pthread_t holder;
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_titles[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

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
    atomic_init(&log->level, LOG_LEVEL_INFO);
    log_set_fd(log, STDERR_FILENO);
    return log;
}

/* One write(2), unless the kernel takes less. */
static void write_all(int fd, const char *line, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, line, length);
        if (n >= 0) {
            line += n;
            length -= (size_t)n;
        } else if (errno == EAGAIN) { /* somebody made stderr non-blocking */
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            if (poll(&writable, 1, 1000) <= 0)
                return;
        } else if (errno != EINTR) {
            return; /* nowhere to say it */
        }
    }
}

static void flush(struct log *log)
{
    if (log->used > 0)
        write_all(log->fd, log->line, log->used);
    log->used = 0;
    if (log->room > LINE_MAX_ROOM) {
        free(log->line);
        log->line = NULL;
        log->room = 0;
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
    pthread_mutex_destroy(&log->lock);
    redact_free(log->secrets);
    free(log->line);
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
    log->format = format == LOG_FORMAT_AUTO ? auto_format(log->fd) : format;
    pthread_mutex_unlock(&log->lock);
}

void log_set_fd(struct log *log, int fd)
{
    pthread_mutex_lock(&log->lock);
    flush(log);
    log->fd = fd;
    log->format = auto_format(fd);
    log->terminal = isatty(fd);
    pthread_mutex_unlock(&log->lock);
}

bool log_secret(struct log *log, const char *value, size_t length)
{
    if (length < LOG_SECRET_MIN)
        return false;
    pthread_mutex_lock(&log->lock);
    bool ok = redact_add(log->secrets, value, length);
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

/* ---- the line being built, under the lock */

static bool grow(struct log *log, size_t length)
{
    size_t room = (log->used + length) * 2;
    char *line = realloc(log->line, room);
    if (line == NULL) {
        log->failed = true;
        return false;
    }
    log->line = line;
    log->room = room;
    return true;
}

static inline void put(struct log *log, const char *s, size_t length)
{
    if (log->room - log->used < length && !grow(log, length))
        return;
    memcpy(log->line + log->used, s, length);
    log->used += length;
}

static inline void put_text(struct log *log, const char *s)
{
    put(log, s, strlen(s));
}

/* How a string is shown: between quotes, or bare in a line of text. */
enum place { QUOTED = 0, BARE };

/* Puts one character that may not stand as it is; returns its bytes. */
static size_t put_escaped(struct log *log, const char *s, const char *end, enum place place)
{
    unsigned char c = (unsigned char)*s;
    char out[8];
    if (place == BARE && c == '\n') {
        put_text(log, "\n    "); /* indented, so that no message can pretend to be a line */
    } else if (place == BARE && c == '\t') {
        put_text(log, "    ");
    } else if (c < 0x7F) {
        size_t size = json_write_string(out, sizeof(out), s, 1);
        if (size == 0)
            log->failed = true;
        else
            put(log, out + 1, size - 2);
    } else if (c == 0x7F || (c == 0xC2 && json_utf8(s, end) == 2)) {
        snprintf(out, sizeof(out), "\\u00%02X", c == 0x7F ? c : (unsigned char)s[1]);
        put_text(log, out);
        return c == 0x7F ? 1 : 2;
    } else {
        put_text(log, "\xEF\xBF\xBD"); /* a byte that is no UTF-8 */
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
static size_t plain_length(const struct log *log, const char *s, const char *end)
{
    const bool *first = redact_first(log->secrets);
    const char *at = s;
    while (at < end && *at >= 0x20 && *at < 0x7F && *at != '"' && *at != '\\' &&
           !first[(unsigned char)*at])
        at++;
    return (size_t)(at - s);
}

/* A string with secrets replaced, valid UTF-8 and safe on a terminal. */
static void put_safe(struct log *log, const char *s, size_t length, enum place place)
{
    const char *end = s + length;
    const char *shown = length > STRING_MAX ? s + STRING_MAX : end;
    const char *plain = s; /* begin of what has not been put yet */
    while ((s += plain_length(log, s, shown)) < shown) {
        size_t secret = redact_match(log->secrets, s, end);
        size_t n = secret != 0 ? 0 : harmless(s, end, place);
        if (n != 0) {
            s += n;
            continue;
        }
        put(log, plain, (size_t)(s - plain));
        if (secret != 0) {
            put_text(log, "***");
            s += secret;
        } else {
            s += put_escaped(log, s, end, place);
        }
        plain = s;
    }
    put(log, plain, (size_t)(s - plain));
    if (s < end)
        put_text(log, "...");
}

static void put_quoted(struct log *log, const char *s, size_t length)
{
    put_text(log, "\"");
    put_safe(log, s, length, QUOTED);
    put_text(log, "\"");
}

/* Whether a secret is anywhere in the text. */
static bool tainted(const struct log *log, const char *s, size_t length)
{
    const bool *first = redact_first(log->secrets);
    for (const char *end = s + length; s < end; s++) {
        if (first[(unsigned char)*s] && redact_match(log->secrets, s, end) != 0)
            return true;
    }
    return false;
}

/* A number (or other bare word) that happens to be a secret becomes a string. */
static void put_bare(struct log *log, const char *s, size_t length)
{
    if (tainted(log, s, length))
        put_quoted(log, s, length);
    else
        put(log, s, length);
}

/* printf took a quarter of the time of a line with two numbers. */
static void put_integer(struct log *log, int64_t value)
{
    char digits[24];
    char *end = digits + sizeof(digits), *at = end;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        *--at = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        *--at = '-';
    put_bare(log, at, (size_t)(end - at));
}

static void put_json_string(struct log *log, const char *quoted, size_t length)
{
    struct json_view view;
    struct json_t *string = json_read(quoted, length, NULL);
    if (string == NULL) {
        log->failed = true;
        return;
    }
    json_view(string, &view);
    put_quoted(log, view.string, view.length);
    json_free(string);
}

/* A JSON text, its strings and numbers one by one, so that what is replaced leaves it valid. */
static void put_json(struct log *log, const char *s, size_t length)
{
    const char *end = s + length;
    while (s < end) {
        const char *start = s;
        if (*s == '"') {
            for (s++; s < end && *s != '"'; s++)
                s += *s == '\\';
            s++;
            put_json_string(log, start, (size_t)(s - start));
        } else {
            s += strcspn(s, "\"[]{},:");
            if (s > start)
                put_bare(log, start, (size_t)(s - start));
            for (; s < end && *s != '"' && strchr("[]{},:", *s) != NULL; s++)
                put(log, s, 1);
        }
    }
}

static void put_value(struct log *log, const struct log_field *field)
{
    char number[JSON_NUMBER];
    switch (field->type) {
    case LOG_INTEGER: put_integer(log, field->integer); break;
    case LOG_BOOLEAN: put_text(log, field->integer ? "true" : "false"); break;
    case LOG_JSON: put_json(log, field->string, field->length); break;
    case LOG_STRING: put_quoted(log, field->string, field->length); break;
    case LOG_REAL:
        if (isfinite(field->real))
            put_bare(log, number, json_write_real(number, field->real));
        else
            put_text(log, isnan(field->real)   ? "\"nan\""
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

static void build_json(struct log *log, enum log_level level, const char *component,
                       const char *message, size_t length, const struct log_field *fields,
                       size_t count)
{
    put_text(log, "{\"level\":\"");
    put_text(log, level_names[level]);
    put_text(log, "\",\"message\":");
    put_quoted(log, message, length);
    if (component != NULL) {
        put_text(log, ",\"component\":");
        put_quoted(log, component, strlen(component));
    }
    for (size_t i = 0; i < count; i++) {
        put_text(log, ",\"");
        put_safe(log, fields[i].name, strlen(fields[i].name), QUOTED);
        put_text(log, reserved(fields[i].name) ? "_\":" : "\":");
        put_value(log, &fields[i]);
    }
    put_text(log, "}\n");
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

static void build_text(struct log *log, enum log_level level, const char *component,
                       const char *message, size_t length, const struct log_field *fields,
                       size_t count)
{
    put_text(log, level_titles[level]);
    put_text(log, " ");
    if (component != NULL) {
        put_safe(log, component, strlen(component), BARE);
        put_text(log, ": ");
    }
    put_safe(log, message, length, BARE);
    for (size_t i = 0; i < count; i++) {
        const struct log_field *field = &fields[i];
        put_text(log, " ");
        put_safe(log, field->name, strlen(field->name), BARE);
        put_text(log, "=");
        if (field->type == LOG_STRING && simple(field->string, field->length))
            put_safe(log, field->string, field->length, BARE);
        else
            put_value(log, field);
    }
    put_text(log, "\n");
}

void log_write_fields(struct log *log, enum log_level level, const char *component,
                      const char *message, size_t length, const struct log_field *fields,
                      size_t count)
{
    if (!log_enabled(log, level))
        return;
    static const char lost[] = "{\"level\":\"error\",\"message\":\"log: out of memory\"}\n";
    pthread_mutex_lock(&log->lock);
    size_t before = log->used;
    log->failed = false;
    if (log->format == LOG_FORMAT_JSON)
        build_json(log, level, component, message, length, fields, count);
    else
        build_text(log, level, component, message, length, fields, count);
    if (log->failed) {
        log->used = before;
        flush(log);
        write_all(log->fd, lost, sizeof(lost) - 1);
    }
    bool hold = log->held && level < LOG_LEVEL_WARN && log->used < HELD_MAX &&
                pthread_equal(log->holder, pthread_self());
    if (!hold)
        flush(log);
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
