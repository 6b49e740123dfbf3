/*
 * A set of secrets and where they occur in a text: as they are, URL-encoded, escaped as JSON, and
 * as base64 at any of its three alignments (so that "user:secret" in base64 is found too). Not
 * thread-safe; the log's lock is around it.
 */
#ifndef ROUSE_REDACT_H
#define ROUSE_REDACT_H

#include <stdbool.h>
#include <stddef.h>

struct redact;

/* NULL when out of memory. */
struct redact *redact_new(void);

/* Overwrites what it knew. NULL is allowed. */
void redact_free(struct redact *redact);

/* False when out of memory (some forms may be missing). The value is copied. */
bool redact_add(struct redact *redact, const char *value, size_t length);

/* For each byte, whether some form of a secret begins with it: where redact_match may find one. */
const bool *redact_first(const struct redact *redact);

/* The length of the longest form of a secret that begins at s (s < end), 0 if none does. */
size_t redact_match(const struct redact *redact, const char *s, const char *end);

#endif
