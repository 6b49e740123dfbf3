/*
 * Records. A record is one userdata that holds a copy of what librdkafka's message holds; its
 * fields become Lua values when they are read. Measured beside a table of eight fields: a third of
 * the time to make one, half of the memory, and a handler that reads two fields still gains. No
 * message outlives the poll that returned it, so a script may keep records as long as it likes.
 *
 * Specs make records of plain tables: whatever reads one must do with both.
 */
#include <lauxlib.h>
#include <string.h>

#include "lua_kafka.h"

#define TYPE "rouse.record"

/*
 * A longer value is a Lua string from the start, the user value of its record: reading it in a loop
 * must not copy it each time.
 */
#define INLINE_MAX 1024

enum field { VALUE = 0, KEY, OFFSET, PARTITION, TOPIC, TIMESTAMP, TIMESTAMP_TYPE, HEADERS,
             LEADER_EPOCH, FIELDS };

static const char *const field_names[FIELDS] = {
    "value", "key", "offset", "partition", "topic", "timestamp", "timestamp_type", "headers",
    "leader_epoch"};

/*
 * Shared by all records of a state. Short strings are unique in a state, so fields are told apart
 * by the addresses of their names.
 */
struct fields {
    const char *names[FIELDS];
};

struct record {
    const void *mark;           /* &key: what tells a record, see lua_kafka_record_place */
    int64_t offset;
    int64_t timestamp;          /* milliseconds; -1: none */
    const char *topic_name;     /* the string's in the table of topics */
    int32_t partition;
    int32_t topic;              /* its index there */
    int32_t leader_epoch;       /* -1: not known */
    int32_t key_size;           /* -1: none */
    int32_t value_size;         /* -1: none; not in bytes when beyond INLINE_MAX */
    int32_t headers;            /* -1: not read */
    bool appended;
    char bytes[];               /* key, value, headers as struct header_size, name, value */
};

struct header_size {
    uint32_t name;
    int32_t value;              /* -1: none */
};

/* The registry has a table of what all records share under &key: [1] fields, [2] metatable, ... */
enum { SHARED_FIELDS = 1, SHARED_META, SHARED_EMPTY, SHARED_TOPICS, SHARED_NAMES };
static const char key = 0;

/* ---- making them ---- */

static size_t headers_size(const struct kafka_record *record, int32_t *count)
{
    const char *name, *value;
    size_t size = 0, length;
    *count = 0;
    if (record->headers == NULL)
        return 0;
    while (kafka_record_header(record, (size_t)*count, &name, &value, &length)) {
        size += sizeof(struct header_size) + strlen(name) + (value != NULL ? length : 0);
        ++*count;
    }
    return size;
}

static char *put(char *to, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(to, bytes, size);
    return to + size;
}

static void put_headers(char *to, const struct kafka_record *record, int32_t count)
{
    const char *name, *value;
    size_t length;
    for (int32_t i = 0; i < count; i++) {
        kafka_record_header(record, (size_t)i, &name, &value, &length);
        struct header_size size = {(uint32_t)strlen(name), value != NULL ? (int32_t)length : -1};
        to = put(to, &size, sizeof(size));
        to = put(to, name, size.name);
        to = put(to, value, value != NULL ? length : 0);
    }
}

struct topic {
    int32_t index;
    const char *name;
};

/* Pushes the record; its metatable is at `meta`. */
static void push_record(lua_State *L, const struct kafka_record *from, int meta,
                        const struct topic *topic)
{
    int32_t headers;
    size_t header_bytes = headers_size(from, &headers);
    bool large = from->value_size > INLINE_MAX;
    size_t inline_size = large ? 0 : from->value_size;
    struct record *record = lua_newuserdatauv(
        L, sizeof(*record) + from->key_size + inline_size + header_bytes, large ? 1 : 0);
    record->mark = &key;
    record->offset = from->offset;
    record->timestamp = from->timestamp;
    record->partition = from->partition;
    record->topic = topic->index;
    record->topic_name = topic->name;
    record->leader_epoch = from->leader_epoch;
    record->key_size = from->key != NULL ? (int32_t)from->key_size : -1;
    record->value_size = from->value != NULL ? (int32_t)from->value_size : -1;
    record->headers = from->headers_read ? headers : -1;
    record->appended = from->appended;
    char *to = put(record->bytes, from->key, from->key_size);
    to = put(to, from->value, inline_size);
    if (headers > 0)
        put_headers(to, from, headers);
    lua_pushvalue(L, meta);
    lua_setmetatable(L, -2);
    if (large) {
        lua_pushlstring(L, from->value, from->value_size);
        lua_setiuservalue(L, -2, 1);
    }
}

/* Finds a topic, which is given an index when it is new: there are as many as topics consumed. */
static struct topic find_topic(lua_State *L, int topics, const char *name)
{
    lua_pushstring(L, name);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, topics) == LUA_TNIL) { /* L: ... topic nil */
        lua_pop(L, 1);
        lua_Integer index = (lua_Integer)lua_rawlen(L, topics) + 1;
        lua_pushvalue(L, -1);
        lua_rawseti(L, topics, index);
        lua_pushinteger(L, index);
        lua_pushvalue(L, -1);
        lua_insert(L, -3); /* L: ... index topic index */
        lua_rawset(L, topics);
    } else {
        lua_remove(L, -2);
    }
    struct topic topic = {.index = (int32_t)lua_tointeger(L, -1)};
    lua_rawgeti(L, topics, topic.index);
    topic.name = lua_tostring(L, -1);
    lua_pop(L, 2);
    return topic;
}

/* Records of the event that follow each other and are of one partition. */
struct slice {
    const char *topic;
    int32_t partition;
    size_t first, bytes;
};

/* Appends the slice that ends with record `last` to the table at `slices`. */
static void push_slice(lua_State *L, int slices, const struct slice *slice, size_t last)
{
    lua_createtable(L, 0, 5);
    lua_pushstring(L, slice->topic);
    lua_setfield(L, -2, "topic");
    lua_pushinteger(L, slice->partition);
    lua_setfield(L, -2, "partition");
    lua_pushinteger(L, (lua_Integer)slice->first);
    lua_setfield(L, -2, "first");
    lua_pushinteger(L, (lua_Integer)last);
    lua_setfield(L, -2, "last");
    lua_pushinteger(L, (lua_Integer)slice->bytes);
    lua_setfield(L, -2, "bytes");
    lua_rawseti(L, slices, (lua_Integer)lua_rawlen(L, slices) + 1);
}

void lua_kafka_push_records(lua_State *L, const struct kafka_event *event)
{
    luaL_checkstack(L, 16, "kafka records");
    int base = lua_gettop(L) + 1;
    enum { RECORDS = 0, SLICES, META, TOPICS, TOP };
    lua_createtable(L, (int)event->count, 0);
    lua_newtable(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
    lua_rawgeti(L, -1, SHARED_META);
    lua_replace(L, base + META); /* L: records slices meta */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
    lua_rawgeti(L, -1, SHARED_TOPICS);
    lua_replace(L, base + TOPICS); /* L: records slices meta topics */
    struct kafka_record record;
    struct slice slice = {.topic = NULL};
    struct topic topic = {0, NULL};
    for (size_t i = 0; i < event->count; i++) {
        kafka_event_record(event, i, &record);
        bool same = record.topic == slice.topic;
        if (!same || record.partition != slice.partition) {
            if (i > 0)
                push_slice(L, base + SLICES, &slice, i);
            slice = (struct slice){record.topic, record.partition, i + 1, 0};
        }
        if (!same)
            topic = find_topic(L, base + TOPICS, record.topic);
        push_record(L, &record, base + META, &topic);
        lua_rawseti(L, base + RECORDS, (lua_Integer)i + 1);
        slice.bytes += record.key_size + record.value_size;
    }
    if (event->count > 0)
        push_slice(L, base + SLICES, &slice, event->count);
    lua_settop(L, base + SLICES);
}

/* ---- reading them ---- */

/* Upvalues of the metamethods that push fields. */
enum { UP_FIELDS = 1, UP_TOPICS, UP_EMPTY, UP_NAMES };

static void push_headers(lua_State *L, const struct record *record)
{
    if (record->headers < 0)
        luaL_error(L, "a record's headers are not read with headers = false");
    if (record->headers == 0) {
        lua_pushvalue(L, lua_upvalueindex(UP_EMPTY));
        return;
    }
    const char *at = record->bytes + (record->key_size > 0 ? record->key_size : 0);
    if (record->value_size > 0 && record->value_size <= INLINE_MAX)
        at += record->value_size;
    lua_createtable(L, record->headers, 0);
    for (int32_t i = 1; i <= record->headers; i++) {
        struct header_size size;
        memcpy(&size, at, sizeof(size));
        at += sizeof(size);
        lua_createtable(L, 0, 2); /* L: headers header */
        lua_pushlstring(L, at, size.name);
        lua_setfield(L, -2, "name");
        at += size.name;
        if (size.value >= 0) {
            lua_pushlstring(L, at, (size_t)size.value);
            lua_setfield(L, -2, "value");
            at += size.value;
        }
        lua_rawseti(L, -2, i);
    }
}

static void push_value(lua_State *L, const struct record *record)
{
    if (record->value_size < 0)
        lua_pushnil(L);
    else if (record->value_size > INLINE_MAX)
        lua_getiuservalue(L, 1, 1);
    else
        lua_pushlstring(L, record->bytes + (record->key_size > 0 ? record->key_size : 0),
                        (size_t)record->value_size);
}

/* Pushes the field of the record at 1. */
static void push_field(lua_State *L, const struct record *record, enum field field)
{
    switch (field) {
    case VALUE: push_value(L, record); return;
    case KEY:
        if (record->key_size >= 0)
            lua_pushlstring(L, record->bytes, (size_t)record->key_size);
        else
            lua_pushnil(L);
        return;
    case OFFSET: lua_pushinteger(L, record->offset); return;
    case PARTITION: lua_pushinteger(L, record->partition); return;
    case TOPIC: lua_rawgeti(L, lua_upvalueindex(UP_TOPICS), record->topic); return;
    case TIMESTAMP:
        if (record->timestamp >= 0)
            lua_pushnumber(L, KAFKA_SECONDS(record->timestamp));
        else
            lua_pushnil(L);
        return;
    case TIMESTAMP_TYPE:
        if (record->timestamp >= 0)
            lua_pushstring(L, record->appended ? "append" : "create");
        else
            lua_pushnil(L);
        return;
    case HEADERS: push_headers(L, record); return;
    case LEADER_EPOCH:
        if (record->leader_epoch >= 0)
            lua_pushinteger(L, record->leader_epoch);
        else
            lua_pushnil(L);
        return;
    case FIELDS: break;
    }
    lua_pushnil(L);
}

/* Only records carry this metatable, which nobody can take off them: the type is not checked. */
static int l_index(lua_State *L)
{
    const struct fields *fields = lua_touserdata(L, lua_upvalueindex(UP_FIELDS));
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
    int field = 0;
    while (field < FIELDS && fields->names[field] != name)
        field++;
    push_field(L, lua_touserdata(L, 1), (enum field)field);
    return 1;
}

static int l_next(lua_State *L)
{
    lua_settop(L, 2);
    if (lua_next(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

/* pairs(record): over a plain table of its own. */
static int l_pairs(lua_State *L)
{
    const struct record *record = luaL_checkudata(L, 1, TYPE);
    lua_pushcfunction(L, l_next);
    lua_createtable(L, 0, FIELDS); /* L: record ... next table */
    for (int i = 0; i < FIELDS; i++) {
        if (i == HEADERS && record->headers < 0)
            continue;
        lua_rawgeti(L, lua_upvalueindex(UP_NAMES), i + 1);
        push_field(L, record, (enum field)i);
        lua_rawset(L, -3);
    }
    lua_pushnil(L);
    return 3;
}

/* Where it is, never what is in it. */
static int l_tostring(lua_State *L)
{
    const struct record *record = luaL_checkudata(L, 1, TYPE);
    push_field(L, record, TOPIC);
    lua_pushfstring(L, "record %s/%d@%I", lua_tostring(L, -1), (int)record->partition,
                    (LUAI_UACINT)record->offset);
    return 1;
}

bool lua_kafka_record_place(lua_State *L, int index, struct log_place *place)
{
    const struct record *record = lua_touserdata(L, index);
    if (record == NULL || lua_rawlen(L, index) < sizeof(*record) || record->mark != &key)
        return false;
    *place = (struct log_place){record->topic_name, record->partition, record->offset};
    return true;
}

static int l_newindex(lua_State *L)
{
    return luaL_error(L, "a record cannot be changed: '%s' is set in it", luaL_tolstring(L, 2, NULL));
}

static int l_headers_newindex(lua_State *L)
{
    return luaL_error(L, "a record's headers cannot be changed");
}

/* One empty table serves all records without headers; writing to it raises: others would see it. */
static void push_empty(lua_State *L)
{
    lua_newtable(L);
    lua_createtable(L, 0, 2); /* L: empty meta */
    lua_pushcfunction(L, l_headers_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

/* A metamethod that pushes fields, for the metatable on top. */
static void set_reader(lua_State *L, int shared, const char *name, lua_CFunction function)
{
    static const int upvalues[] = {SHARED_FIELDS, SHARED_TOPICS, SHARED_EMPTY, SHARED_NAMES};
    for (int i = 0; i < 4; i++)
        lua_rawgeti(L, shared, upvalues[i]);
    lua_pushcclosure(L, function, 4);
    lua_setfield(L, -2, name);
}

void lua_kafka_init_records(lua_State *L)
{
    luaL_checkstack(L, 16, "kafka records");
    int shared = lua_gettop(L) + 1;
    lua_newtable(L);
    struct fields *fields = lua_newuserdatauv(L, sizeof(*fields), 0);
    lua_rawseti(L, shared, SHARED_FIELDS);
    push_empty(L);
    lua_rawseti(L, shared, SHARED_EMPTY);
    lua_newtable(L);
    lua_rawseti(L, shared, SHARED_TOPICS);
    lua_createtable(L, FIELDS, 0);
    for (int i = 0; i < FIELDS; i++) {
        fields->names[i] = lua_pushstring(L, field_names[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_rawseti(L, shared, SHARED_NAMES);

    luaL_newmetatable(L, TYPE); /* L: shared meta */
    set_reader(L, shared, "__index", l_index);
    set_reader(L, shared, "__pairs", l_pairs);
    set_reader(L, shared, "__tostring", l_tostring);
    lua_pushcfunction(L, l_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_rawseti(L, shared, SHARED_META);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
}
