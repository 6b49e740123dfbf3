/* rouse.json: Lua values to JSON text and back. The grammar is jansson's, behind json.c. */
#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "lua_json.h"
#include "lua_modules.h"
#include "lua_util.h"

/* Registry keys: the sentinel for null, and the metatable that marks arrays. */
#define NULL_KEY "rouse.json.null"
#define ARRAY_KEY "rouse.json.array"

/* ---- decode */

/* Holds the C tree while Lua values are made of it: any of those calls may raise. */
#define BOX "rouse.json.tree"
struct box {
    struct json_t *root;
};

enum { SLOT_TEXT = 1, SLOT_BOX, SLOT_ARRAY, SLOT_NULL }; /* of l_decode's stack */

static int l_close(lua_State *L)
{
    struct box *box = box_check(L, 1, BOX);
    json_free(box->root);
    box->root = NULL;
    return 0;
}

static void push_value(lua_State *L, const struct json_t *value);

static void push_array(lua_State *L, const struct json_t *array, size_t length)
{
    lua_createtable(L, (int)length, 0);
    lua_pushvalue(L, SLOT_ARRAY);
    lua_setmetatable(L, -2);
    for (size_t i = 0; i < length; i++) {
        push_value(L, json_item(array, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_object(lua_State *L, const struct json_t *object, size_t length)
{
    lua_createtable(L, 0, (int)length);
    struct json_member member = {0};
    while (json_next(object, &member)) {
        lua_pushlstring(L, member.name, member.length);
        push_value(L, member.value);
        lua_rawset(L, -3);
    }
}

static void push_value(lua_State *L, const struct json_t *value)
{
    struct json_view view;
    luaL_checkstack(L, 4, "json.decode");
    json_view(value, &view);
    switch (view.kind) {
    case KIND_NULL: lua_pushvalue(L, SLOT_NULL); break;
    case KIND_FALSE: lua_pushboolean(L, 0); break;
    case KIND_TRUE: lua_pushboolean(L, 1); break;
    case KIND_INTEGER: lua_pushinteger(L, (lua_Integer)view.integer); break;
    case KIND_REAL: lua_pushnumber(L, view.real); break;
    case KIND_STRING: lua_pushlstring(L, view.string, view.length); break;
    case KIND_ARRAY: push_array(L, value, view.length); break;
    case KIND_OBJECT: push_object(L, value, view.length); break;
    }
}

static int l_decode(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_settop(L, SLOT_TEXT);
    size_t length;
    const char *text = lua_tolstring(L, SLOT_TEXT, &length);
    struct box *box = box_new(L, sizeof(*box), BOX);
    luaL_getmetatable(L, ARRAY_KEY);
    luaL_getmetatable(L, NULL_KEY);
    struct err err;
    box->root = json_read(text, length, &err);
    if (box->root == NULL)
        return fail(L, &err);
    lua_toclose(L, SLOT_BOX); /* frees the tree when this ends, not when the collector comes by */
    push_value(L, box->root);
    return 1;
}

/* ---- encode */

/* Where the encoder is, for messages and cycles: an open table and the key it is at in there. */
struct level {
    const void *table;
    const char *key; /* NULL: index counts */
    lua_Integer index;
};

struct encoder {
    char *data; /* a userdata at the slot `buffer`, so that it goes with an error */
    size_t used;
    size_t room;
    int buffer;
    int array; /* slots of the array metatable and the null sentinel */
    int null;
    bool sorted;
    unsigned depth;
    struct level levels[JSON_DEPTH];
};

struct key {
    const char *s;
    size_t length;
};

/* Room for `size` more bytes. */
static char *reserve(lua_State *L, struct encoder *e, size_t size)
{
    if (e->room - e->used < size) {
        size_t room = e->room * 2 > e->used + size ? e->room * 2 : e->used + size;
        char *data = lua_newuserdatauv(L, room, 0);
        memcpy(data, e->data, e->used);
        lua_replace(L, e->buffer);
        e->data = data;
        e->room = room;
    }
    return e->data + e->used;
}

static void put(lua_State *L, struct encoder *e, const char *s, size_t length)
{
    memcpy(reserve(L, e, length), s, length);
    e->used += length;
}

static void put_char(lua_State *L, struct encoder *e, char c)
{
    *reserve(L, e, 1) = c;
    e->used++;
}

/* Raises `what` with the path of the value at hand: json.encode: .orders[3].price: not a number */
static int refuse(lua_State *L, const struct encoder *e, const char *what)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    unsigned shown = e->depth < 20 ? e->depth : 20;
    for (unsigned i = 0; i < shown; i++) {
        const struct level *level = &e->levels[i];
        if (level->key != NULL)
            lua_pushfstring(L, ".%s", level->key);
        else
            lua_pushfstring(L, "[%I]", (LUAI_UACINT)level->index);
        luaL_addvalue(&b);
    }
    if (shown < e->depth)
        luaL_addstring(&b, "...");
    luaL_pushresult(&b);
    const char *path = lua_tostring(L, -1);
    return luaL_error(L, "json.encode: %s%s%s", path, *path != '\0' ? ": " : "", what);
}

static void put_string(lua_State *L, struct encoder *e, const char *s, size_t length)
{
    size_t room = e->room - e->used;
    size_t size = json_write_string(e->data + e->used, room, s, length);
    if (size == 0)
        refuse(L, e, "string is not valid UTF-8");
    if (size > room)
        json_write_string(reserve(L, e, size), size, s, length);
    e->used += size;
}

static void put_number(lua_State *L, struct encoder *e, int index)
{
    char *out = reserve(L, e, JSON_NUMBER);
    if (lua_isinteger(L, index)) {
        e->used += (size_t)snprintf(out, JSON_NUMBER, LUA_INTEGER_FMT, lua_tointeger(L, index));
        return;
    }
    double value = lua_tonumber(L, index);
    if (!isfinite(value))
        refuse(L, e, isnan(value) ? "NaN has no JSON form" : "infinity has no JSON form");
    size_t size = json_write_real(out, value);
    if (size == 0)
        refuse(L, e, "out of memory");
    e->used += size;
}

static void put_value(lua_State *L, struct encoder *e, int index);

/* Pushes the key at `index` for a message; not converted in place, which would confuse lua_next. */
static const char *show_key(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TSTRING)
        return lua_pushfstring(L, "key '%s'", lua_tostring(L, index));
    if (lua_isinteger(L, index))
        return lua_pushfstring(L, "key %I", (LUAI_UACINT)lua_tointeger(L, index));
    return lua_pushfstring(L, "key of type %s", luaL_typename(L, index));
}

/* The number of items if the table's keys are exactly 1..n; raises on others. */
static lua_Integer count_items(lua_State *L, const struct encoder *e, int table, const char *why)
{
    lua_Integer count = 0, highest = 0;
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        lua_pop(L, 1);
        if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1) {
            const char *key = show_key(L, -1);
            refuse(L, e, lua_pushfstring(L, "%s in %s", key, why));
        }
        count++;
        if (lua_tointeger(L, -1) > highest)
            highest = lua_tointeger(L, -1);
    }
    if (highest != count) {
        lua_pushfstring(L, "array with holes (%I items, highest index %I)", (LUAI_UACINT)count,
                        (LUAI_UACINT)highest);
        refuse(L, e, lua_tostring(L, -1));
    }
    return count;
}

static void put_array(lua_State *L, struct encoder *e, int table, const char *why)
{
    lua_Integer count = count_items(L, e, table, why);
    struct level *level = &e->levels[e->depth++];
    *level = (struct level){.table = lua_topointer(L, table)};
    put_char(L, e, '[');
    for (lua_Integer i = 1; i <= count; i++) {
        if (i > 1)
            put_char(L, e, ',');
        level->index = i;
        lua_rawgeti(L, table, i);
        put_value(L, e, lua_gettop(L));
        lua_pop(L, 1);
    }
    put_char(L, e, ']');
    e->depth--;
}

/* One member: the key is a string of the table, the value at the top of the stack. */
static void put_member(lua_State *L, struct encoder *e, struct key key, bool first)
{
    struct level *level = &e->levels[e->depth - 1];
    if (!first)
        put_char(L, e, ',');
    level->key = key.s;
    put_string(L, e, key.s, key.length);
    put_char(L, e, ':');
    put_value(L, e, lua_gettop(L));
}

/* Raises if the key below the top (lua_next's) is no string. */
static void check_key(lua_State *L, struct encoder *e)
{
    if (lua_type(L, -2) == LUA_TSTRING)
        return;
    const char *key = show_key(L, -2);
    e->depth--; /* the path ends at the object, not in it */
    refuse(L, e, lua_pushfstring(L, "%s in an object", key));
}

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    size_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->s, y->s, shorter);
    return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

/* Members in byte order of their keys: an array in a userdata, of strings the table owns. */
static void put_sorted(lua_State *L, struct encoder *e, int table)
{
    size_t count = 0, i = 0;
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1))
        count++;
    struct key *keys = lua_newuserdatauv(L, count * sizeof(*keys) + 1, 0);
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) {
        check_key(L, e);
        keys[i].s = lua_tolstring(L, -2, &keys[i].length);
        i++;
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    for (i = 0; i < count; i++) {
        lua_pushlstring(L, keys[i].s, keys[i].length);
        lua_rawget(L, table);
        put_member(L, e, keys[i], i == 0);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void put_unsorted(lua_State *L, struct encoder *e, int table)
{
    bool first = true;
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) {
        check_key(L, e);
        struct key key;
        key.s = lua_tolstring(L, -2, &key.length);
        put_member(L, e, key, first);
        first = false;
    }
}

/* An array if the table is marked or its first key is an integer, else an object. */
static void put_table(lua_State *L, struct encoder *e, int table)
{
    const void *self = lua_topointer(L, table);
    for (unsigned i = 0; i < e->depth; i++) {
        if (e->levels[i].table == self)
            refuse(L, e, "table contains itself");
    }
    luaL_checkstack(L, 8, "json.encode");
    if (lua_getmetatable(L, table)) {
        bool marked = lua_rawequal(L, -1, e->array);
        lua_pop(L, 1);
        if (marked) {
            put_array(L, e, table, "an array");
            return;
        }
    }
    lua_pushnil(L);
    if (lua_next(L, table) != 0) {
        bool integer = lua_isinteger(L, -2);
        lua_pop(L, 2);
        if (integer) {
            put_array(L, e, table, "a table that begins as an array");
            return;
        }
    }
    e->levels[e->depth++] = (struct level){.table = self};
    put_char(L, e, '{');
    if (e->sorted)
        put_sorted(L, e, table);
    else
        put_unsorted(L, e, table);
    put_char(L, e, '}');
    e->depth--;
}

static void put_value(lua_State *L, struct encoder *e, int index)
{
    if (e->depth == JSON_DEPTH)
        refuse(L, e, "nested too deeply");
    switch (lua_type(L, index)) {
    case LUA_TSTRING: {
        size_t length;
        const char *s = lua_tolstring(L, index, &length);
        put_string(L, e, s, length);
        return;
    }
    case LUA_TNUMBER: put_number(L, e, index); return;
    case LUA_TTABLE: put_table(L, e, index); return;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, index))
            put(L, e, "true", 4);
        else
            put(L, e, "false", 5);
        return;
    case LUA_TUSERDATA:
        if (lua_rawequal(L, index, e->null)) {
            put(L, e, "null", 4);
            return;
        }
        if (luaL_getmetafield(L, index, "__pairs") != LUA_TNIL) { /* a record: as the table it shows */
            lua_pushvalue(L, index);
            lua_call(L, 1, 2);
            if (lua_istable(L, -1)) {
                put_table(L, e, lua_gettop(L));
                lua_pop(L, 2);
                return;
            }
        }
        break;
    default: break;
    }
    refuse(L, e, lua_pushfstring(L, "a %s has no JSON form%s", luaL_typename(L, index),
                                 lua_isnil(L, index) ? ", null is json.null" : ""));
}

void json_push_encoded(lua_State *L, int index, bool sorted)
{
    index = lua_absindex(L, index);
    int top = lua_gettop(L);
    luaL_checkstack(L, 8, "json.encode");
    struct encoder e;
    e.room = 512;
    e.used = 0;
    e.depth = 0;
    e.sorted = sorted;
    e.data = lua_newuserdatauv(L, e.room, 0);
    e.buffer = top + 1;
    luaL_getmetatable(L, ARRAY_KEY);
    e.array = top + 2;
    luaL_getmetatable(L, NULL_KEY);
    e.null = top + 3;
    put_value(L, &e, index);
    lua_pushlstring(L, e.data, e.used);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
}

static int l_encode(lua_State *L)
{
    static const char *const options[] = {"sorted", NULL};
    luaL_checkany(L, 1);
    opt_keys(L, 2, "json.encode", options);
    bool sorted = opt_boolean(L, 2, "sorted", false);
    json_push_encoded(L, 1, sorted);
    return 1;
}

/* array(t): marks t (default: a new table) so that it is an array even when empty. Returns it. */
static int l_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_getmetatable(L, ARRAY_KEY);
    if (lua_getmetatable(L, 1) && !lua_rawequal(L, -1, -2))
        return luaL_argerror(L, 1, "table has a metatable of its own");
    luaL_getmetatable(L, ARRAY_KEY);
    lua_setmetatable(L, 1);
    lua_settop(L, 1);
    return 1;
}

/* is_array(v): whether v is a table marked as an array, by decode or by array. */
static int l_is_array(lua_State *L)
{
    luaL_checkany(L, 1);
    luaL_getmetatable(L, ARRAY_KEY);
    lua_pushboolean(L, lua_type(L, 1) == LUA_TTABLE && lua_getmetatable(L, 1) &&
                           lua_rawequal(L, -1, -2));
    return 1;
}

static int l_null_tostring(lua_State *L)
{
    lua_pushliteral(L, "null");
    return 1;
}

int json_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"decode", l_decode}, {"encode", l_encode}, {"array", l_array}, {"is_array", l_is_array},
        {NULL, NULL},
    };
    static const luaL_Reg methods[] = {{NULL, NULL}};
    box_type(L, BOX, methods, l_close);
    if (luaL_newmetatable(L, ARRAY_KEY)) {
        lua_pushboolean(L, 0); /* shared by every array: not to be had, not to be replaced */
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
    if (luaL_getmetatable(L, NULL_KEY) == LUA_TNIL) {
        lua_newuserdatauv(L, 0, 0);
        lua_createtable(L, 0, 3);
        lua_pushcfunction(L, l_null_tostring);
        lua_setfield(L, -2, "__tostring");
        lua_pushliteral(L, "json.null");
        lua_setfield(L, -2, "__name");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_setmetatable(L, -2);
        lua_setfield(L, LUA_REGISTRYINDEX, NULL_KEY);
    }
    lua_pop(L, 1);
    util_functions(L, functions);
    luaL_getmetatable(L, NULL_KEY);
    lua_setfield(L, -2, "null");
    return 1;
}
