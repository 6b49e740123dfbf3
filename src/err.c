#include "err.h"

#include <stdarg.h>
#include <stdio.h>

int err_set(struct err *err, const char *code, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    snprintf(err->code, sizeof(err->code), "%s", code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return -1;
}
