#include "pattern.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

enum { ESCAPE = '%', MAX_DEPTH = 200 }; /* the standard library's depth: deeper patterns are refused as there */

const char pattern_stopped[] = "pattern matching was stopped";

static const char *match(struct pattern *p, const char *s, const char *q);

static const char *refuse(struct pattern *p, const char *error)
{
    if (p->error == NULL)
        p->error = error;
    return NULL;
}

static bool stopped(struct pattern *p)
{
    if (p->stop == NULL || !*p->stop)
        return false;
    refuse(p, pattern_stopped);
    return true;
}

/* ---- single characters ---- */

/* Where the item (a character, %x or a set) that begins at q ends; NULL: malformed. */
static const char *item_end(struct pattern *p, const char *q)
{
    if (*q == ESCAPE) {
        if (q + 1 == p->source_end)
            return refuse(p, "malformed pattern (ends with '%')");
        return q + 2;
    }
    if (*q++ != '[')
        return q;
    if (q < p->source_end && *q == '^')
        q++;
    do { /* a ] that comes first stands for itself */
        if (q == p->source_end)
            return refuse(p, "malformed pattern (missing ']')");
        if (*q++ == ESCAPE) {
            if (q == p->source_end)
                return refuse(p, "malformed pattern (missing ']')");
            q++;
        }
    } while (q == p->source_end || *q != ']');
    return q + 1;
}

/* Whether c is of the class that the letter names; other characters stand for themselves. */
static bool in_class(int c, int letter)
{
    bool in;
    switch (tolower(letter)) {
    case 'a': in = isalpha(c); break;
    case 'c': in = iscntrl(c); break;
    case 'd': in = isdigit(c); break;
    case 'g': in = isgraph(c); break;
    case 'l': in = islower(c); break;
    case 'p': in = ispunct(c); break;
    case 's': in = isspace(c); break;
    case 'u': in = isupper(c); break;
    case 'w': in = isalnum(c); break;
    case 'x': in = isxdigit(c); break;
    case 'z': in = c == 0; break; /* deprecated there, and there */
    default: return letter == c;
    }
    return isupper(letter) ? !in : in;
}

/* A set: q at its [, last at its ]. */
static bool in_set(int c, const char *q, const char *last)
{
    bool wanted = true;
    if (q[1] == '^') {
        wanted = false;
        q++;
    }
    while (++q < last) {
        if (*q == ESCAPE) {
            if (in_class(c, (unsigned char)*++q))
                return wanted;
        } else if (q[1] == '-' && q + 2 < last) {
            if ((unsigned char)q[0] <= c && c <= (unsigned char)q[2])
                return wanted;
            q += 2;
        } else if ((unsigned char)*q == c) {
            return wanted;
        }
    }
    return !wanted;
}

/* Whether the character at s is of the item from q to end. */
static bool is_item(const struct pattern *p, const char *s, const char *q, const char *end)
{
    if (s >= p->text_end)
        return false;
    int c = (unsigned char)*s;
    switch (*q) {
    case '.': return true;
    case ESCAPE: return in_class(c, (unsigned char)q[1]);
    case '[': return in_set(c, q, end - 1);
    default: return (unsigned char)*q == c;
    }
}

/* ---- repetitions ---- */

static const char *longest(struct pattern *p, const char *s, const char *q, const char *end)
{
    ptrdiff_t count = 0;
    while (is_item(p, s + count, q, end))
        if (stopped(p))
            return NULL;
        else
            count++;
    for (; count >= 0 && p->error == NULL; count--) {
        const char *found = match(p, s + count, end + 1);
        if (found != NULL)
            return found;
    }
    return NULL;
}

static const char *shortest(struct pattern *p, const char *s, const char *q, const char *end)
{
    while (p->error == NULL) {
        const char *found = match(p, s, end + 1);
        if (found != NULL)
            return found;
        if (!is_item(p, s, q, end))
            return NULL;
        s++;
    }
    return NULL;
}

/* ---- captures ---- */

static const char *open_capture(struct pattern *p, const char *s, const char *q, ptrdiff_t kind)
{
    if (p->count >= PATTERN_CAPTURES)
        return refuse(p, "too many captures");
    p->captures[p->count].start = s;
    p->captures[p->count].length = kind;
    p->count++;
    const char *found = match(p, s, q);
    if (found == NULL)
        p->count--;
    return found;
}

static const char *close_capture(struct pattern *p, const char *s, const char *q)
{
    int last = p->count - 1;
    while (last >= 0 && p->captures[last].length != CAPTURE_OPEN)
        last--;
    if (last < 0)
        return refuse(p, "invalid pattern capture");
    p->captures[last].length = s - p->captures[last].start;
    const char *found = match(p, s, q);
    if (found == NULL)
        p->captures[last].length = CAPTURE_OPEN;
    return found;
}

/* %1 to %9: the text of a capture again. */
static const char *same_again(struct pattern *p, const char *s, int digit)
{
    int index = digit - '1';
    if (index < 0 || index >= p->count || p->captures[index].length == CAPTURE_OPEN) {
        p->error_index = index + 1;
        return refuse(p, "invalid capture index");
    }
    /* A position has no length to repeat; the standard library finds it in no text either. */
    size_t length = (size_t)p->captures[index].length;
    if ((size_t)(p->text_end - s) >= length && memcmp(p->captures[index].start, s, length) == 0)
        return s + length;
    return NULL;
}

/* ---- %b and %f ---- */

static const char *balanced(struct pattern *p, const char *s, const char *q)
{
    if (q + 1 >= p->source_end)
        return refuse(p, "malformed pattern (missing arguments to '%b')");
    if (s >= p->text_end || *s != *q)
        return NULL;
    int open = 1;
    while (++s < p->text_end) {
        if (*s == q[1]) {
            if (--open == 0)
                return s + 1;
        } else if (*s == *q) {
            open++;
        }
        if (stopped(p))
            return NULL;
    }
    return NULL;
}

/* Whether s is where the set begins to hold; the ends of the text count as zero bytes. */
static bool at_frontier(const struct pattern *p, const char *s, const char *q, const char *end)
{
    int before = s == p->text ? 0 : (unsigned char)s[-1];
    int here = s == p->text_end ? 0 : (unsigned char)*s;
    return !in_set(before, q, end - 1) && in_set(here, q, end - 1);
}

/* ---- the pattern, item by item ---- */

/*
 * What begins with % and is no class: takes it and moves *s and *q on. Returns 1 when it did, 0 when it is a class, -1 when
 * there is no match.
 */
static int take_special(struct pattern *p, const char **s, const char **q)
{
    const char *found;
    if (*q + 1 >= p->source_end)
        return 0; /* item_end complains */
    switch ((*q)[1]) {
    case 'b':
        found = balanced(p, *s, *q + 2);
        *q += 4;
        break;
    case 'f': {
        const char *set = *q + 2;
        if (set >= p->source_end || *set != '[') {
            refuse(p, "missing '[' after '%f' in pattern");
            return -1;
        }
        const char *end = item_end(p, set);
        found = end != NULL && at_frontier(p, *s, set, end) ? *s : NULL;
        *q = end;
        break;
    }
    case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        found = same_again(p, *s, (unsigned char)(*q)[1]);
        *q += 2;
        break;
    default:
        return 0;
    }
    if (found == NULL)
        return -1;
    *s = found;
    return 1;
}

/*
 * One plain item with what may follow it. Returns true when matching goes on at *s and *q; otherwise *found is how it ended.
 */
static bool take_item(struct pattern *p, const char **s, const char **q, const char **found)
{
    *found = NULL;
    const char *end = item_end(p, *q);
    if (end == NULL)
        return false;
    char suffix = end < p->source_end ? *end : '\0';
    bool here = is_item(p, *s, *q, end);
    switch (suffix) {
    case '?':
        if (here && (*found = match(p, *s + 1, end + 1)) != NULL)
            return false;
        *q = end + 1;
        return p->error == NULL;
    case '*':
        *found = longest(p, *s, *q, end);
        return false;
    case '+':
        *found = here ? longest(p, *s + 1, *q, end) : NULL;
        return false;
    case '-':
        *found = shortest(p, *s, *q, end);
        return false;
    default:
        *s += here;
        *q = end;
        return here;
    }
}

/* Matches the rest of the pattern, from q on, at s. */
static const char *match(struct pattern *p, const char *s, const char *q)
{
    if (stopped(p))
        return NULL;
    if (p->depth-- == 0)
        return refuse(p, "pattern too complex");
    const char *found = NULL;
    while (p->error == NULL) {
        if (q == p->source_end) {
            found = s;
            break;
        }
        if (*q == '(') {
            bool position = q + 1 < p->source_end && q[1] == ')';
            found = position ? open_capture(p, s, q + 2, CAPTURE_POSITION) : open_capture(p, s, q + 1, CAPTURE_OPEN);
            break;
        }
        if (*q == ')') {
            found = close_capture(p, s, q + 1);
            break;
        }
        if (*q == '$' && q + 1 == p->source_end) {
            found = s == p->text_end ? s : NULL;
            break;
        }
        int special = *q == ESCAPE ? take_special(p, &s, &q) : 0;
        if (special < 0 || (special == 0 && !take_item(p, &s, &q, &found)))
            break;
    }
    p->depth++;
    return p->error == NULL ? found : NULL;
}

void pattern_init(struct pattern *p, const char *text, size_t text_length, const char *source, size_t source_length,
                  const volatile sig_atomic_t *stop)
{
    p->text = text;
    p->text_end = text + text_length;
    p->source = source;
    p->source_end = source + source_length;
    p->stop = stop;
    p->error = NULL;
    p->error_index = -1;
    p->count = 0;
}

const char *pattern_match(struct pattern *p, const char *at)
{
    p->depth = MAX_DEPTH;
    p->count = 0;
    return match(p, at, p->source);
}
