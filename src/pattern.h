/*
 * Lua's patterns (reference manual §6.4.1) with a way to stop. The standard library matches in one C call that no hook can
 * interrupt: a pattern like ".-.-.-x" on a long text takes minutes, and all that time nothing else runs. This matcher looks at a
 * flag at every step. No lua.h: bindings are lua_pattern.c.
 */
#ifndef ROUSE_PATTERN_H
#define ROUSE_PATTERN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

enum { PATTERN_CAPTURES = 32 };

/* Lengths of captures that are none: still open, or a position. */
enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct pattern {
    const char *text, *text_end;          /* the subject; zero bytes are bytes like others */
    const char *source, *source_end;      /* the pattern, without a leading ^ that anchors it */
    const volatile sig_atomic_t *stop;    /* not 0: give up; NULL: nobody stops it */
    const char *error;                    /* why matching failed for good, a static text; NULL: no error */
    int error_index;                      /* the capture that an error is about, from 1; -1: none */
    int depth;                            /* recursion left */
    int count;                            /* captures of the last match */
    struct capture {
        const char *start;
        ptrdiff_t length;
    } captures[PATTERN_CAPTURES];
};

/* The texts must outlive the struct, which may be used for many matches. */
void pattern_init(struct pattern *p, const char *text, size_t text_length, const char *source, size_t source_length,
                  const volatile sig_atomic_t *stop);

/* Matches at `at` exactly. Returns the end of the match, or NULL: none, or p->error. */
const char *pattern_match(struct pattern *p, const char *at);

/* The text of pattern_match's error when p->stop ended it. */
extern const char pattern_stopped[];

#endif
