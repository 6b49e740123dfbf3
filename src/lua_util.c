#include "lua_util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rouse *util_rouse(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

int fail(lua_State *L, const struct err *err)
{
    luaL_pushfail(L);
    lua_pushstring(L, err->msg);
    lua_pushstring(L, err->code);
    return 3;
}

int fail_with(lua_State *L, const char *code, const char *fmt, ...)
{
    luaL_pushfail(L);
    va_list ap;
    va_start(ap, fmt);
    lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    lua_pushstring(L, code);
    return 3;
}

void util_functions(lua_State *L, const luaL_Reg *functions)
{
    lua_newtable(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    luaL_setfuncs(L, functions, 1);
}

static int box_tostring(lua_State *L)
{
    luaL_getmetafield(L, 1, "__name");
    lua_pushfstring(L, "%s: %p", lua_tostring(L, -1), lua_touserdata(L, 1));
    return 1;
}

void box_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close)
{
    if (!luaL_newmetatable(L, name)) { /* L: meta */
        lua_pop(L, 1);
        return;
    }
    util_functions(L, methods); /* L: meta methods */
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, close, 1);
    lua_pushvalue(L, -1); /* L: meta close close */
    lua_setfield(L, -3, "__gc");
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, box_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "locked");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void *box_new(lua_State *L, size_t size, const char *name)
{
    void *box = lua_newuserdatauv(L, size, 1);
    memset(box, 0, size);
    luaL_setmetatable(L, name);
    return box;
}

void *box_check(lua_State *L, int index, const char *name)
{
    return luaL_checkudata(L, index, name);
}

int box_closed(lua_State *L, int index, const char *name)
{
    return luaL_argerror(L, index, lua_pushfstring(L, "%s is closed", name));
}

/* Levenshtein distance of short names; anything beyond `limit` counts as limit + 1. */
static int distance(const char *a, const char *b, int limit)
{
    enum { MAX = 40 };
    size_t la = strlen(a), lb = strlen(b);
    if (la > MAX || lb > MAX)
        return limit + 1;
    int row[MAX + 1];
    for (size_t j = 0; j <= lb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= la; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= lb; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < best ? change : best;
        }
    }
    return row[lb];
}

static const char *nearest(const char *key, const char *const names[])
{
    const char *best = NULL;
    int least = 4;
    for (size_t i = 0; names[i] != NULL; i++) {
        int d = distance(key, names[i], 3);
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

void opt_keys(lua_State *L, int index, const char *where, const char *const names[])
{
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    index = lua_absindex(L, index);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) { /* L: ... key value */
        lua_pop(L, 1);
        const char *key = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        size_t i = 0;
        while (key != NULL && names[i] != NULL && strcmp(names[i], key) != 0)
            i++;
        if (key != NULL && names[i] != NULL)
            continue;
        if (key == NULL)
            luaL_error(L, "%s: options are named, got a key of type %s", where, luaL_typename(L, -1));
        const char *near = nearest(key, names);
        if (near != NULL)
            luaL_error(L, "%s: unknown option '%s', did you mean '%s'?", where, key, near);
        luaL_error(L, "%s: unknown option '%s'", where, key);
    }
}

/* Pushes the option; false (and nothing pushed) when it is absent. */
static bool get(lua_State *L, int index, const char *key)
{
    if (lua_isnoneornil(L, index))
        return false;
    luaL_checktype(L, index, LUA_TTABLE);
    index = lua_absindex(L, index);
    lua_pushstring(L, key);
    if (lua_rawget(L, index) != LUA_TNIL) /* raw: what __index returns would not be kept alive by the table */
        return true;
    lua_pop(L, 1);
    return false;
}

static int wrong(lua_State *L, const char *key, const char *expected)
{
    return luaL_error(L, "option '%s': %s expected, got %s", key, expected, luaL_typename(L, -1));
}

const char *opt_string(lua_State *L, int index, const char *key, const char *def, size_t *length)
{
    const char *value = def;
    size_t size = def != NULL ? strlen(def) : 0;
    if (get(L, index, key)) {
        if (lua_type(L, -1) != LUA_TSTRING)
            wrong(L, key, "string");
        value = lua_tolstring(L, -1, &size);
        lua_pop(L, 1); /* the table keeps it */
    }
    if (length != NULL)
        *length = size;
    return value;
}

double opt_number(lua_State *L, int index, const char *key, double def)
{
    if (!get(L, index, key))
        return def;
    if (lua_type(L, -1) != LUA_TNUMBER)
        wrong(L, key, "number");
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

lua_Integer opt_integer(lua_State *L, int index, const char *key, lua_Integer def)
{
    if (!get(L, index, key))
        return def;
    int isint = 0;
    lua_Integer value = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
    if (!isint)
        wrong(L, key, "integer");
    lua_pop(L, 1);
    return value;
}

bool opt_boolean(lua_State *L, int index, const char *key, bool def)
{
    if (!get(L, index, key))
        return def;
    if (lua_type(L, -1) != LUA_TBOOLEAN)
        wrong(L, key, "boolean");
    bool value = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return value;
}
