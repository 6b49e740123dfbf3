/* Partition lists and records as Lua tables. */
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

/*
 * Field names, in the order in which they lie on the stack while a batch is converted: names that
 * are there already cost a push, names in C strings a search.
 */
enum { TOPIC = 0, PARTITION, OFFSET, KEY, VALUE, HEADERS, TIMESTAMP, TIMESTAMP_TYPE, CREATE, APPEND,
       NAMES };
static const char *const names[NAMES] = {"topic",     "partition",      "offset", "key",   "value",
                                         "headers",
                                         "timestamp", "timestamp_type", "create", "append"};

static int no_headers_newindex(lua_State *L)
{
    return luaL_error(L, "a record's headers cannot be changed");
}

/*
 * One empty table serves all records without headers; writing to it raises, since others would see
 * it.
 */
void lua_kafka_init_records(lua_State *L)
{
    lua_newtable(L); /* L: empty */
    lua_newtable(L); /* L: empty meta */
    lua_pushcfunction(L, no_headers_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, names);
}

static void push_headers(lua_State *L, const struct kafka_record *record, int empty)
{
    const char *name, *value;
    size_t size;
    if (!kafka_record_header(record, 0, &name, &value, &size)) {
        lua_pushvalue(L, empty);
        return;
    }
    lua_newtable(L);
    lua_Integer i = 0;
    do {
        lua_createtable(L, 0, 2); /* L: ... headers header */
        lua_pushstring(L, name);
        lua_setfield(L, -2, "name");
        if (value != NULL) {
            lua_pushlstring(L, value, size);
            lua_setfield(L, -2, "value");
        }
        lua_rawseti(L, -2, ++i);
    } while (kafka_record_header(record, (size_t)i, &name, &value, &size));
}

/* L: ... record; sets record[name] to the value that `push` pushes. */
#define SET(field, push) \
    do { \
        lua_pushvalue(L, base + (field)); \
        push; \
        lua_rawset(L, -3); \
    } while (0)

static void push_record(lua_State *L, const struct kafka_record *record, int base, int topic)
{
    lua_createtable(L, 0, 8);
    SET(TOPIC, lua_pushvalue(L, topic));
    SET(PARTITION, lua_pushinteger(L, record->partition));
    SET(OFFSET, lua_pushinteger(L, record->offset));
    if (record->key != NULL)
        SET(KEY, lua_pushlstring(L, record->key, record->key_size));
    if (record->value != NULL)
        SET(VALUE, lua_pushlstring(L, record->value, record->value_size));
    SET(HEADERS, push_headers(L, record, base + NAMES));
    if (record->timestamp >= 0) {
        SET(TIMESTAMP, lua_pushnumber(L, KAFKA_SECONDS(record->timestamp)));
        SET(TIMESTAMP_TYPE, lua_pushvalue(L, base + (record->appended ? APPEND : CREATE)));
    }
}

void lua_kafka_push_records(lua_State *L, const struct kafka_event *event)
{
    luaL_checkstack(L, NAMES + 12, "kafka records");
    int base = lua_gettop(L) + 1;
    for (int i = 0; i < NAMES; i++)
        lua_pushstring(L, names[i]);
    lua_rawgetp(L, LUA_REGISTRYINDEX, names);         /* base + NAMES: empty headers */
    /* base + NAMES + 1: the last record's topic */
    lua_pushnil(L);
    int topic = base + NAMES + 1;
    const char *last = NULL;
    lua_createtable(L, (int)event->count, 0);
    for (size_t i = 0; i < event->count; i++) {
        struct kafka_record record;
        kafka_event_record(event, i, &record);
        if (record.topic != last) {
            last = record.topic;
            lua_pushstring(L, last);
            lua_replace(L, topic);
        }
        push_record(L, &record, base, topic);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_replace(L, base);
    lua_settop(L, base); /* L: ... records */
}
