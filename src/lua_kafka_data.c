/* Partition lists as Lua tables. */
#include <lauxlib.h>
#include <string.h>

#include "lua_kafka.h"

/* ---- from Lua ---- */

static int64_t check_offset(lua_State *L, const char *where, lua_Integer item)
{
    int isint = 0;
    lua_Integer offset = lua_tointegerx(L, -1, &isint);
    if (lua_isnil(L, -1))
        return KAFKA_OFFSET_NONE;
    if (lua_type(L, -1) == LUA_TNUMBER && isint && offset >= 0)
        return offset;
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (strcmp(name, "beginning") == 0)
        return KAFKA_OFFSET_BEGINNING;
    if (strcmp(name, "end") == 0)
        return KAFKA_OFFSET_END;
    if (strcmp(name, "stored") == 0)
        return KAFKA_OFFSET_STORED;
    return luaL_error(L,
                      "%s: item %I: offset: an integer from 0, \"beginning\", \"end\" or \"stored\" expected", where,
                      item);
}

/* Raw access: a string that a metamethod made up would not be kept by the table. */
static int get(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    return lua_rawget(L, -2);
}

/* L: ... item */
static void check_item(lua_State *L, struct kafka_partition *to, const char *where,
                       lua_Integer item)
{
    if (!lua_istable(L, -1))
        luaL_error(L, "%s: item %I: table expected, got %s", where, item, luaL_typename(L, -1));
    if (get(L, "topic") != LUA_TSTRING)
        luaL_error(L, "%s: item %I: topic: string expected, got %s", where, item,
                   luaL_typename(L, -1));
    to->topic = lua_tostring(L, -1);
    lua_pop(L, 1);
    int isint = 0;
    get(L, "partition");
    lua_Integer partition = lua_tointegerx(L, -1, &isint);
    if (!isint || partition < 0 || partition > INT32_MAX)
        luaL_error(L, "%s: item %I: partition: an integer from 0 expected", where, item);
    to->partition = (int32_t)partition;
    lua_pop(L, 1);
    get(L, "offset");
    to->offset = check_offset(L, where, item);
    lua_pop(L, 1);
    to->metadata = NULL;
    to->metadata_size = 0;
    int type = get(L, "metadata");
    if (type == LUA_TSTRING)
        to->metadata = lua_tolstring(L, -1, &to->metadata_size);
    else if (type != LUA_TNIL)
        luaL_error(L, "%s: item %I: metadata: string expected, got %s", where, item,
                   luaL_typename(L, -1));
    lua_pop(L, 1);
}

struct kafka_partition *lua_kafka_list(lua_State *L, int index, const char *where, size_t *count)
{
    index = lua_absindex(L, index);
    luaL_checktype(L, index, LUA_TTABLE);
    *count = lua_rawlen(L, index);
    struct kafka_partition *items = lua_newuserdatauv(L, (*count + 1) * sizeof(*items), 0);
    memset(items, 0, (*count + 1) * sizeof(*items));
    for (size_t i = 0; i < *count; i++) {
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        check_item(L, &items[i], where, (lua_Integer)i + 1);
        lua_pop(L, 1);
    }
    return items;
}

const char **lua_kafka_strings(lua_State *L, int index, const char *where, size_t *count)
{
    index = lua_absindex(L, index);
    luaL_checktype(L, index, LUA_TTABLE);
    *count = lua_rawlen(L, index);
    const char **items = lua_newuserdatauv(L, (*count + 1) * sizeof(*items), 0);
    for (size_t i = 0; i < *count; i++) {
        if (lua_rawgeti(L, index, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "%s: item %I: string expected, got %s", where, (lua_Integer)i + 1,
                       luaL_typename(L, -1));
        items[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return items;
}

/* ---- to Lua ---- */

static void push_offset(lua_State *L, int64_t offset)
{
    if (offset == KAFKA_OFFSET_BEGINNING)
        lua_pushliteral(L, "beginning");
    else if (offset == KAFKA_OFFSET_END)
        lua_pushliteral(L, "end");
    else if (offset == KAFKA_OFFSET_STORED)
        lua_pushliteral(L, "stored");
    else
        lua_pushinteger(L, offset);
}

void lua_kafka_push_list(lua_State *L, const struct kafka_partitions *list)
{
    size_t count = list != NULL ? list->count : 0;
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        const struct kafka_partition *item = &list->items[i];
        lua_createtable(L, 0, 4); /* L: list item */
        lua_pushstring(L, item->topic);
        lua_setfield(L, -2, "topic");
        lua_pushinteger(L, item->partition);
        lua_setfield(L, -2, "partition");
        if (item->offset != KAFKA_OFFSET_NONE) {
            push_offset(L, item->offset);
            lua_setfield(L, -2, "offset");
        }
        if (item->metadata != NULL) {
            lua_pushlstring(L, item->metadata, item->metadata_size);
            lua_setfield(L, -2, "metadata");
        }
        if (item->error != NULL) {
            lua_pushstring(L, item->error);
            lua_setfield(L, -2, "error");
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}
