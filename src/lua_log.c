/* rouse.log: log lines from Lua. How they look, and what must not be in them, is log.c's. */
#include <lauxlib.h>
#include <lua.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "lua_json.h"
#include "lua_kafka.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "rouse_internal.h"

#define ROOM 12         /* fields of an ordinary line */
#define FIELDS_MAX 10000

/* A value of a table as JSON, under pcall: a log line must not fail for what is in it. */
static int l_encode(lua_State *L)
{
    json_push_encoded(L, 1, true);
    return 1;
}

/*
 * Fills a field from the value at the top of the stack and leaves there what its strings belong to:
 * tables become JSON, other things their tostring.
 */
static void set_value(lua_State *L, struct log_field *field)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        field->type = LOG_BOOLEAN;
        field->integer = lua_toboolean(L, -1);
        return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1)) {
            field->type = LOG_INTEGER;
            field->integer = lua_tointeger(L, -1);
        } else {
            field->type = LOG_REAL;
            field->real = lua_tonumber(L, -1);
        }
        return;
    case LUA_TSTRING: field->type = LOG_STRING; break;
    case LUA_TTABLE:
        lua_pushcfunction(L, l_encode);
        lua_insert(L, -2);
        field->type = lua_pcall(L, 1, 1, 0) == LUA_OK ? LOG_JSON : LOG_STRING;
        break;
    default:
        luaL_tolstring(L, -1, NULL);
        lua_remove(L, -2);
        field->type = LOG_STRING;
        break;
    }
    if (lua_type(L, -1) != LUA_TSTRING) { /* an error value that is no string */
        lua_pop(L, 1);
        lua_pushliteral(L, "?");
    }
    field->string = lua_tolstring(L, -1, &field->length);
}

/* Where a record is comes first, as people look for it; the rest by name, so that lines compare. */
static int rank(const char *name)
{
    static const char *const first[] = {"job", "topic", "partition", "offset"};
    int count = (int)(sizeof(first) / sizeof(first[0]));
    for (int i = 0; i < count; i++) {
        if (first[i][0] == name[0] && strcmp(name, first[i]) == 0)
            return i;
    }
    return count;
}

static int compare_fields(const void *a, const void *b)
{
    const struct log_field *x = a, *y = b;
    int order = rank(x->name) - rank(y->name);
    return order != 0 ? order : strcmp(x->name, y->name);
}

/* A few fields come in nearly the right order: this beats qsort. */
static void sort(struct log_field *fields, size_t count)
{
    if (count > ROOM) {
        qsort(fields, count, sizeof(*fields), compare_fields);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct log_field field = fields[i];
        size_t at = i;
        for (; at > 0 && compare_fields(&field, &fields[at - 1]) < 0; at--)
            fields[at] = fields[at - 1];
        fields[at] = field;
    }
}

/* Room for all fields of the table at 2, at 3 where the caller's is too small. */
static struct log_field *make_room(lua_State *L, struct log_field *room)
{
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1))
        count++;
    if (count <= ROOM)
        return room;
    luaL_argcheck(L, count <= FIELDS_MAX, 2, "too many fields");
    luaL_checkstack(L, (int)count, "log");
    room = lua_newuserdatauv(L, count * sizeof(*room), 0);
    lua_replace(L, 3);
    return room;
}

/* The fields of the table at 2, in `room` or on the stack, which keeps their strings. */
static struct log_field *collect(lua_State *L, struct log_field *room, size_t *count)
{
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    luaL_checkstack(L, ROOM + 8, "log");
    struct log_field *fields = make_room(L, room);
    size_t n = 0;
    lua_pushnil(L);
    while (lua_next(L, 2) != 0) { /* L: message table room values... name value */
        luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, 2, "fields are named by strings");
        fields[n].name = lua_tostring(L, -2);
        set_value(L, &fields[n++]);
        lua_insert(L, -2);
    }
    sort(fields, n);
    *count = n;
    return fields;
}

/* Of a record, only where it is. */
static int write_line(lua_State *L, enum log_level level)
{
    size_t length, count = 0;
    const char *message = luaL_checklstring(L, 1, &length);
    struct log *log = rouse_log(util_rouse(L));
    struct log_field room[ROOM], *fields = room;
    struct log_place place;
    if (!log_enabled(log, level))
        return 0;
    if (lua_kafka_record_place(L, 2, &place)) {
        log_write_place(log, level, message, length, &place);
        return 0;
    }
    if (!lua_isnoneornil(L, 2))
        fields = collect(L, room, &count);
    log_write_fields(log, level, NULL, message, length, fields, count);
    return 0;
}

static int l_debug(lua_State *L)
{
    return write_line(L, LOG_LEVEL_DEBUG);
}

static int l_info(lua_State *L)
{
    return write_line(L, LOG_LEVEL_INFO);
}

static int l_warn(lua_State *L)
{
    return write_line(L, LOG_LEVEL_WARN);
}

static int l_error(lua_State *L)
{
    return write_line(L, LOG_LEVEL_ERROR);
}

/* The index of an option's value in a list, `def` when absent; raises on others, with the list. */
static int choose(lua_State *L, const char *key, const char *const names[], int def)
{
    const char *value = opt_string(L, 1, key, NULL, NULL);
    if (value == NULL)
        return def;
    luaL_Buffer b;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], value) == 0)
            return i;
    }
    luaL_buffinit(L, &b);
    for (int i = 0; names[i] != NULL; i++) {
        luaL_addstring(&b, i == 0 ? "" : ", ");
        luaL_addstring(&b, names[i]);
    }
    luaL_pushresult(&b);
    return luaL_error(L, "log.configure: option '%s': one of %s expected, got '%s'", key,
                      lua_tostring(L, -1), value);
}

/* configure{level=, format=}: what is absent stays as it is. */
static int l_configure(lua_State *L)
{
    static const char *const options[] = {"level", "format", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    static const char *const formats[] = {"auto", "json", "text", NULL};
    luaL_checktype(L, 1, LUA_TTABLE);
    opt_keys(L, 1, "log.configure", options);
    int level = choose(L, "level", levels, -1);
    int format = choose(L, "format", formats, -1);
    struct log *log = rouse_log(util_rouse(L));
    if (level >= 0)
        log_set_level(log, (enum log_level)level);
    if (format >= 0)
        log_set_format(log, (enum log_format)format);
    return 0;
}

/* secret(value) -> whether it is hidden from now on (values under 4 bytes are not) */
static int l_secret(lua_State *L)
{
    size_t length;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *value = lua_tolstring(L, 1, &length);
    lua_pushboolean(L, log_secret(rouse_log(util_rouse(L)), value, length));
    return 1;
}

/*
 * place(record) -> fields of a line that say where the record is and nothing of what is in it: the
 * record itself, which write_line knows, or of a plain table in its place a table.
 */
static int l_place(lua_State *L)
{
    static const char *const names[] = {"topic", "partition", "offset"};
    struct log_place place;
    lua_settop(L, 1);
    if (lua_kafka_record_place(L, 1, &place))
        return 1;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_createtable(L, 0, 3);
    for (int i = 0; i < 3; i++) {
        lua_getfield(L, 1, names[i]);
        lua_setfield(L, -2, names[i]);
    }
    return 1;
}

/* redact(text) -> the text with *** for every secret: what leaves the program otherwise than by the log */
static int l_redact(lua_State *L)
{
    size_t length;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *text = lua_tolstring(L, 1, &length);
    char *to = lua_newuserdatauv(L, length + 1, 0);
    lua_pushlstring(L, to, log_redact(rouse_log(util_rouse(L)), text, length, to));
    return 1;
}

int log_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"debug", l_debug}, {"info", l_info},           {"warn", l_warn},
        {"error", l_error}, {"configure", l_configure}, {"secret", l_secret},
        {"redact", l_redact},   {"place", l_place},         {NULL, NULL},
    };
    lua_newtable(L);
    lua_pushvalue(L, lua_upvalueindex(1)); /* the host, as util_rouse finds it */
    luaL_setfuncs(L, functions, 1);
    return 1;
}
