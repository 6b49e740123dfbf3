#include "redact.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define FORM_MIN 4 /* bytes of a form that is worth looking for */

struct form {
    size_t length;
    char text[];
};

struct redact {
    struct form **forms; /* longest first */
    size_t count;
    bool first[256]; /* bytes that some form begins with */
};

struct redact *redact_new(void)
{
    return calloc(1, sizeof(struct redact));
}

void redact_free(struct redact *redact)
{
    if (redact == NULL)
        return;
    for (size_t i = 0; i < redact->count; i++) {
        explicit_bzero(redact->forms[i]->text, redact->forms[i]->length);
        free(redact->forms[i]);
    }
    free(redact->forms);
    free(redact);
}

static bool add_form(struct redact *redact, const char *text, size_t length)
{
    if (length < FORM_MIN)
        return true;
    size_t at = 0;
    while (at < redact->count && redact->forms[at]->length > length)
        at++;
    for (size_t i = at; i < redact->count && redact->forms[i]->length == length; i++) {
        if (memcmp(redact->forms[i]->text, text, length) == 0)
            return true;
    }
    struct form **forms = realloc(redact->forms, (redact->count + 1) * sizeof(*forms));
    if (forms == NULL)
        return false;
    redact->forms = forms;
    struct form *form = malloc(sizeof(*form) + length);
    if (form == NULL)
        return false;
    form->length = length;
    memcpy(form->text, text, length);
    memmove(forms + at + 1, forms + at, (redact->count - at) * sizeof(*forms));
    forms[at] = form;
    redact->count++;
    redact->first[(unsigned char)text[0]] = true;
    return true;
}

static bool add_url(struct redact *redact, const char *s, size_t length, const char *hex,
                    const char *space, char *room)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == ' ') {
            memcpy(room + n, space, strlen(space));
            n += strlen(space);
        } else if (isalnum(c) || strchr("-._~", c) != NULL) {
            room[n++] = (char)c;
        } else {
            room[n++] = '%';
            room[n++] = hex[c >> 4];
            room[n++] = hex[c & 15];
        }
    }
    return add_form(redact, room, n);
}

/* The base64 digits that depend on these bytes alone, with `before` (0-2) others before them. */
static bool add_base64(struct redact *redact, const char *s, size_t length, size_t before,
                       const char *last_two, char *room)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = 0;
    size_t end = (before + length) * 8; /* in bits of the group's stream */
    for (size_t bit = (before * 8 + 5) / 6 * 6; bit + 6 <= end; bit += 6) {
        unsigned value = 0;
        for (size_t i = bit; i < bit + 6; i++) {
            unsigned byte = (unsigned char)s[i / 8 - before];
            value = value << 1 | (byte >> (7 - i % 8) & 1);
        }
        room[n++] = value < 62 ? digits[value] : last_two[value - 62];
    }
    return add_form(redact, room, n);
}

bool redact_add(struct redact *redact, const char *value, size_t length)
{
    char *room = malloc(length * 6 + 2); /* the largest form: every byte as \u00XX, in quotes */
    if (room == NULL)
        return false;
    bool ok = add_form(redact, value, length);
    ok = add_url(redact, value, length, "0123456789ABCDEF", "%20", room) && ok;
    ok = add_url(redact, value, length, "0123456789abcdef", "%20", room) && ok;
    ok = add_url(redact, value, length, "0123456789ABCDEF", "+", room) && ok;
    for (size_t before = 0; before < 3; before++) {
        ok = add_base64(redact, value, length, before, "+/", room) && ok;
        ok = add_base64(redact, value, length, before, "-_", room) && ok;
    }
    size_t quoted = json_write_string(room, length * 6 + 2, value, length);
    if (quoted != 0)
        ok = add_form(redact, room + 1, quoted - 2) && ok;
    explicit_bzero(room, length * 6 + 2);
    free(room);
    return ok;
}

const bool *redact_first(const struct redact *redact)
{
    return redact->first;
}

size_t redact_match(const struct redact *redact, const char *s, const char *end)
{
    if (!redact->first[(unsigned char)*s])
        return 0;
    for (size_t i = 0; i < redact->count; i++) {
        const struct form *form = redact->forms[i];
        if ((size_t)(end - s) >= form->length && memcmp(s, form->text, form->length) == 0)
            return form->length;
    }
    return 0;
}
