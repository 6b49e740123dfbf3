/*
 * rouse.core.pattern: find, match, gmatch and gsub as Lua's string library has them, with a matcher that the CPU budget of
 * scripts can end (pattern.h). In the program they take the places of the standard ones.
 */
#include <lauxlib.h>
#include <string.h>

#include "budget.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "pattern.h"
#include "rouse_internal.h"

#define WALK "rouse.gmatch"

static int raise_error(lua_State *L, const struct pattern *p)
{
    if (p->error == pattern_stopped)
        return budget_raise(L);
    if (p->error_index >= 0)
        return luaL_error(L, "%s %%%d", p->error, p->error_index);
    return luaL_error(L, "%s", p->error);
}

/* Of the strings at 1 and 2; a ^ that anchors the pattern is taken off. */
static void init(lua_State *L, struct pattern *p, bool *anchored)
{
    size_t text_length, source_length;
    const char *t = luaL_checklstring(L, 1, &text_length), *q = luaL_checklstring(L, 2, &source_length);
    *anchored = source_length > 0 && q[0] == '^';
    if (*anchored) {
        q++;
        source_length--;
    }
    pattern_init(p, t, text_length, q, source_length, budget_expired(rouse_budget(util_rouse(L))));
}

/* pattern_match, but raises what is an error. */
static const char *match_at(lua_State *L, struct pattern *p, const char *at)
{
    const char *end = pattern_match(p, at);
    if (end == NULL && p->error != NULL)
        raise_error(L, p);
    return end;
}

/* The first match at or after *at, which moves there. */
static const char *search(lua_State *L, struct pattern *p, const char **at, bool anchored)
{
    for (;; ++*at) {
        const char *end = match_at(L, p, *at);
        if (end != NULL || anchored || *at >= p->text_end)
            return end;
    }
}

/* Pushes capture i (from 0); of a pattern without captures the first is the match itself. */
static void push_capture(lua_State *L, const struct pattern *p, int i, const char *start, const char *end)
{
    if (i >= p->count) {
        if (i != 0)
            luaL_error(L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(L, start, (size_t)(end - start));
    } else if (p->captures[i].length == CAPTURE_POSITION) {
        lua_pushinteger(L, p->captures[i].start - p->text + 1);
    } else if (p->captures[i].length == CAPTURE_OPEN) {
        luaL_error(L, "unfinished capture");
    } else {
        lua_pushlstring(L, p->captures[i].start, (size_t)p->captures[i].length);
    }
}

static int push_captures(lua_State *L, const struct pattern *p, const char *start, const char *end)
{
    int count = p->count == 0 && start != NULL ? 1 : p->count;
    luaL_checkstack(L, count, "too many captures");
    for (int i = 0; i < count; i++)
        push_capture(L, p, i, start, end);
    return count;
}

/* Where a search starts, from 0: negative positions count from the end. */
static size_t start_of(lua_State *L, int index, size_t length)
{
    lua_Integer at = luaL_optinteger(L, index, 1);
    if (at > 0)
        return (size_t)at - 1;
    if (at == 0 || at < -(lua_Integer)length)
        return 0;
    return length - (size_t)-at;
}

static bool is_plain(const struct pattern *p, bool anchored)
{
    if (anchored)
        return false;
    for (const char *q = p->source; q < p->source_end; q++)
        if (*q != '\0' && strchr("^$*+?.([%-", *q) != NULL)
            return false;
    return true;
}

static int find(lua_State *L, bool positions)
{
    struct pattern p;
    bool anchored;
    init(L, &p, &anchored);
    size_t length = (size_t)(p.text_end - p.text), start = start_of(L, 3, length);
    if (start > length) {
        luaL_pushfail(L);
        return 1;
    }
    const char *at = p.text + start, *end;
    if (positions && (lua_toboolean(L, 4) || is_plain(&p, anchored))) {
        const char *source = p.source - anchored; /* plain text, a leading ^ too */
        size_t size = (size_t)(p.source_end - source);
        at = size == 0 ? at : memmem(at, length - start, source, size);
        end = at != NULL ? at + size : NULL;
    } else {
        end = search(L, &p, &at, anchored);
    }
    if (end == NULL) {
        luaL_pushfail(L);
        return 1;
    }
    if (!positions)
        return push_captures(L, &p, at, end);
    lua_pushinteger(L, at - p.text + 1);
    lua_pushinteger(L, end - p.text);
    return push_captures(L, &p, NULL, NULL) + 2;
}

static int l_find(lua_State *L)
{
    return find(L, true);
}

static int l_match(lua_State *L)
{
    return find(L, false);
}

/* ---- gmatch ---- */

struct walk {
    struct pattern pattern;
    const char *at, *last; /* where to look next; the end of the last match: an empty one there is no other */
};

/* Upvalues: host, text, pattern, walk. */
static int walk_on(lua_State *L)
{
    struct walk *walk = lua_touserdata(L, lua_upvalueindex(4));
    for (; walk->at <= walk->pattern.text_end; walk->at++) {
        const char *end = match_at(L, &walk->pattern, walk->at);
        if (end != NULL && end != walk->last) {
            const char *start = walk->at;
            walk->at = walk->last = end;
            return push_captures(L, &walk->pattern, start, end);
        }
    }
    return 0;
}

static int l_gmatch(lua_State *L)
{
    size_t length, source_length;
    const char *text = luaL_checklstring(L, 1, &length), *source = luaL_checklstring(L, 2, &source_length);
    size_t start = start_of(L, 3, length);
    lua_settop(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1); /* L: host text pattern */
    struct walk *walk = lua_newuserdatauv(L, sizeof(*walk), 0);
    pattern_init(&walk->pattern, text, length, source, source_length,
                 budget_expired(rouse_budget(util_rouse(L))));
    walk->at = start > length ? walk->pattern.text_end + 1 : text + start;
    walk->last = NULL;
    lua_pushcclosure(L, walk_on, 4);
    return 1;
}

/* ---- gsub ---- */

/* Adds the replacement text at index 3, its %0 to %9 filled in. */
static void add_text(lua_State *L, luaL_Buffer *b, const struct pattern *p, const char *start, const char *end)
{
    size_t length;
    const char *text = lua_tolstring(L, 3, &length), *stop = text + length, *percent;
    while ((percent = memchr(text, '%', (size_t)(stop - text))) != NULL) {
        luaL_addlstring(b, text, (size_t)(percent - text));
        char what = percent + 1 < stop ? percent[1] : '\0';
        if (what == '%') {
            luaL_addchar(b, '%');
        } else if (what == '0') {
            luaL_addlstring(b, start, (size_t)(end - start));
        } else if (what >= '1' && what <= '9') {
            push_capture(L, p, what - '1', start, end);
            luaL_tolstring(L, -1, NULL); /* a position is a number */
            lua_remove(L, -2);
            luaL_addvalue(b);
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
        text = percent + 2;
    }
    luaL_addlstring(b, text, (size_t)(stop - text));
}

/* Adds what a match becomes. Returns whether it is something else than the match. */
static bool add_replacement(lua_State *L, luaL_Buffer *b, const struct pattern *p, const char *start, const char *end)
{
    switch (lua_type(L, 3)) {
    case LUA_TFUNCTION:
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(L, p, start, end), 1);
        break;
    case LUA_TTABLE:
        push_capture(L, p, 0, start, end);
        lua_gettable(L, 3);
        break;
    default:
        add_text(L, b, p, start, end);
        return true;
    }
    if (!lua_toboolean(L, -1)) { /* nil, false: the match stays */
        lua_pop(L, 1);
        luaL_addlstring(b, start, (size_t)(end - start));
        return false;
    }
    if (!lua_isstring(L, -1))
        return luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(b);
    return true;
}

static int l_gsub(lua_State *L)
{
    struct pattern p;
    bool anchored, changed = false;
    init(L, &p, &anchored);
    int type = lua_type(L, 3);
    luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TTABLE || type == LUA_TFUNCTION, 3,
                     "string/function/table");
    lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)(p.text_end - p.text) + 1), count = 0;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    const char *at = p.text, *last = NULL;
    while (count < most) {
        const char *end = match_at(L, &p, at);
        if (end != NULL && end != last) {
            count++;
            changed = add_replacement(L, &b, &p, at, end) || changed;
            at = last = end;
        } else if (at < p.text_end) {
            luaL_addchar(&b, *at++);
        } else {
            break;
        }
        if (anchored)
            break;
    }
    if (changed) {
        luaL_addlstring(&b, at, (size_t)(p.text_end - at));
        luaL_pushresult(&b);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, count);
    return 2;
}

int pattern_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"find", l_find}, {"match", l_match}, {"gmatch", l_gmatch}, {"gsub", l_gsub}, {NULL, NULL},
    };
    util_functions(L, functions);
    return 1;
}
