/* kafka.mock: librdkafka's mock cluster. */
#include <lauxlib.h>
#include <string.h>

#include "kafka_mock.h"
#include "lua_kafka.h"
#include "rouse_internal.h"

#define TYPE "rouse.kafka_mock"

static int l_gc(lua_State *L)
{
    return lua_kafka_gc(L, TYPE);
}

/*
 * In the background: nothing of it has to be waited for, and specs close their mock outside tasks
 * too.
 */
static int l_close(lua_State *L)
{
    lua_kafka_gc(L, TYPE);
    lua_pushboolean(L, 1);
    return 1;
}

static int answer(lua_State *L, int status, const struct err *err)
{
    if (status < 0)
        return fail(L, err);
    lua_pushboolean(L, 1);
    return 1;
}

static const char *get_string(lua_State *L, const char *where, const char *key)
{
    const char *value = opt_string(L, 2, key, NULL, NULL);
    if (value == NULL)
        luaL_error(L, "%s: option '%s' is missing", where, key);
    return value;
}

static int l_bootstrap_servers(lua_State *L)
{
    lua_pushstring(L, kafka_mock_bootstrap(lua_kafka_check(L, TYPE)));
    return 1;
}

static int l_create_topic(lua_State *L)
{
    static const char *const keys[] = {"name", "partitions", "replication", NULL};
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    struct err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "mock:create_topic", keys);
    const char *name = get_string(L, "mock:create_topic", "name");
    int partitions = (int)opt_integer(L, 2, "partitions", 1);
    int replication = (int)opt_integer(L, 2, "replication", 1);
    return answer(L, kafka_mock_create_topic(mock, name, partitions, replication, &err), &err);
}

static int l_fail(lua_State *L)
{
    static const char *const keys[] = {"api", "errors", NULL};
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    struct err err;
    size_t count;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "mock:fail", keys);
    lua_Integer api = -1;
    if (lua_getfield(L, 2, "api") == LUA_TSTRING)
        api = kafka_mock_api(lua_tostring(L, -1));
    else if (lua_isinteger(L, -1))
        api = lua_tointeger(L, -1);
    if (api < 0 || api > INT16_MAX)
        return luaL_error(L,
                          "mock:fail: option 'api': a request's name (\"Fetch\") or number expected");
    lua_getfield(L, 2, "errors");
    const char **errors = lua_kafka_strings(L, -1, "mock:fail: errors", &count);
    if (kafka_mock_fail(mock, (int)api, errors, count, &err) < 0)
        return luaL_error(L, "mock:fail: %s", err.msg);
    lua_pushboolean(L, 1);
    return 1;
}

static int l_broker_down(lua_State *L)
{
    struct err err;
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    return answer(L, kafka_mock_broker_up(mock, (int32_t)luaL_checkinteger(L, 2), false, &err),
                  &err);
}

static int l_broker_up(lua_State *L)
{
    struct err err;
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    return answer(L, kafka_mock_broker_up(mock, (int32_t)luaL_checkinteger(L, 2), true, &err),
                  &err);
}

static int l_rtt(lua_State *L)
{
    struct err err;
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    int32_t broker = (int32_t)luaL_checkinteger(L, 2);
    return answer(L, kafka_mock_rtt(mock, broker, luaL_checknumber(L, 3), &err), &err);
}

static int l_set_leader(lua_State *L)
{
    static const char *const keys[] = {"topic", "partition", "broker", NULL};
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    struct err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "mock:set_leader", keys);
    const char *topic = get_string(L, "mock:set_leader", "topic");
    int32_t partition = (int32_t)opt_integer(L, 2, "partition", 0);
    int32_t broker = (int32_t)opt_integer(L, 2, "broker", -1);
    return answer(L, kafka_mock_leader(mock, topic, partition, broker, &err), &err);
}

static int l_set_coordinator(lua_State *L)
{
    static const char *const keys[] = {"group", "broker", NULL};
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    struct err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "mock:set_coordinator", keys);
    const char *group = get_string(L, "mock:set_coordinator", "group");
    return answer(L,
                  kafka_mock_coordinator(mock, group, (int32_t)opt_integer(L, 2, "broker", 1),
                                         &err), &err);
}

static int l_topic_error(lua_State *L)
{
    static const char *const keys[] = {"topic", "error", NULL};
    struct kafka_mock *mock = lua_kafka_check(L, TYPE);
    struct err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "mock:topic_error", keys);
    const char *topic = get_string(L, "mock:topic_error", "topic");
    const char *error = opt_string(L, 2, "error", NULL, NULL);
    return answer(L, kafka_mock_topic_error(mock, topic, error, &err), &err);
}

/* The option `topics`, an array of {name=, partitions=}. 0, or the results of a failure. */
static int create_topics(lua_State *L, struct kafka_mock *mock)
{
    struct err err;
    if (!lua_istable(L, 1) || lua_getfield(L, 1, "topics") == LUA_TNIL)
        return 0;
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= count; i++) {
        static const char *const keys[] = {"name", "partitions", NULL};
        lua_rawgeti(L, -1, i); /* L: ... topics topic */
        luaL_checktype(L, -1, LUA_TTABLE);
        opt_keys(L, -1, "kafka.mock: topics", keys);
        const char *name = opt_string(L, -1, "name", NULL, NULL);
        if (name == NULL)
            return luaL_error(L, "kafka.mock: topics: item %I has no name", i);
        if (kafka_mock_create_topic(mock, name, (int)opt_integer(L, -1, "partitions", 1), 1,
                                    &err) < 0)
            return fail(L, &err);
        lua_pop(L, 1);
    }
    return 0;
}

static int l_mock(lua_State *L)
{
    static const char *const keys[] = {"brokers", "properties", "topics", NULL};
    struct kafka_options options = {0};
    struct err err;
    lua_settop(L, 1);
    opt_keys(L, 1, "kafka.mock", keys);
    lua_Integer brokers = opt_integer(L, 1, "brokers", 1);
    luaL_argcheck(L, brokers >= 1 && brokers <= 100, 1, "brokers: from 1 to 100");
    if (lua_istable(L, 1) && lua_getfield(L, 1, "properties") != LUA_TNIL)
        lua_kafka_options(L, &options);
    else
        options.loop = rouse_loop(util_rouse(L));
    struct kafka_box *box = box_new(L, sizeof(*box), TYPE);
    int index = lua_gettop(L);
    struct kafka_mock *mock = kafka_mock_new(&options, (int)brokers, &err);
    if (mock == NULL)
        return fail(L, &err);
    box->handle = mock;
    box->client = kafka_mock_client(mock);
    int failed = create_topics(L, mock);
    if (failed > 0)
        return failed;
    lua_settop(L, index);
    return 1;
}

static const luaL_Reg methods[] = {
    {"bootstrap_servers", l_bootstrap_servers},
    {"broker_down", l_broker_down},
    {"broker_up", l_broker_up},
    {"close", l_close},
    {"create_topic", l_create_topic},
    {"fail", l_fail},
    {"rtt", l_rtt},
    {"set_coordinator", l_set_coordinator},
    {"set_leader", l_set_leader},
    {"topic_error", l_topic_error},
    {NULL, NULL},
};

void lua_kafka_mock(lua_State *L)
{
    box_type(L, TYPE, methods, l_gc);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_mock, 1);
    lua_setfield(L, -2, "mock");
}
