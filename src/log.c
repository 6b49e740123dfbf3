#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct log {
    enum log_level level;
};

struct log *log_new(void)
{
    return calloc(1, sizeof(struct log));
}

void log_free(struct log *log)
{
    free(log);
}

void log_write(struct log *log, enum log_level level, const char *component, const char *fmt, ...)
{
    if (level < log->level)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", component != NULL ? component : "rouse", line);
}
