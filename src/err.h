/*
 * The one carrier of errors between C layers: filled by the layer that knows what went wrong, passed up unchanged, and
 * turned into `nil, message, code` by the bindings (fail() in lua_util.h). `code` is a short constant that callers compare;
 * `msg` is for people. Any layer may use it.
 */
#ifndef ROUSE_ERR_H
#define ROUSE_ERR_H

struct err {
    char code[40];  /* librdkafka's longest error name fits */
    char msg[472];
};

/* Fills `err` (NULL: nothing is stored) and returns -1, so that a failing function can end with `return err_set(...)`. */
int err_set(struct err *err, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
