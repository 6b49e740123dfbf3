/* kafka.producer. */
#include <lauxlib.h>
#include <string.h>

#include "kafka_producer.h"
#include "lua_kafka.h"

#define TYPE "rouse.producer"

static int l_gc(lua_State *L)
{
    return lua_kafka_gc(L, TYPE);
}

static int l_close(lua_State *L)
{
    return lua_kafka_close(L, TYPE);
}

/*
 * Key and value: a string, or NULL for none. Numbers are not taken for strings, so that nothing is
 * converted silently.
 */
static const char *get_bytes(lua_State *L, const char *name, size_t *size)
{
    return opt_string(L, 2, name, NULL, size);
}

/* The array of {name=, value=} becomes a userdata on the stack. */
static void get_headers(lua_State *L, struct kafka_message *message)
{
    int type = lua_getfield(L, 2, "headers"); /* L: ... headers */
    if (type == LUA_TNIL)
        return;
    if (type != LUA_TTABLE)
        luaL_error(L, "option 'headers': table expected, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    size_t count = lua_rawlen(L, table);
    struct kafka_header *headers = lua_newuserdatauv(L, (count + 1) * sizeof(*headers), 0);
    for (size_t i = 0; i < count; i++) {
        if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TTABLE)
            luaL_error(L, "option 'headers': item %I: a table {name=, value=} expected",
                       (lua_Integer)i + 1);
        headers[i].name = opt_string(L, -1, "name", NULL, NULL);
        headers[i].value = opt_string(L, -1, "value", NULL, &headers[i].size);
        if (headers[i].name == NULL)
            luaL_error(L, "option 'headers': item %I has no name", (lua_Integer)i + 1);
        lua_pop(L, 1);
    }
    message->headers = headers;
    message->header_count = count;
}

static void get_message(lua_State *L, const char *where, struct kafka_message *message)
{
    static const char *const keys[] = {"topic", "partition", "key", "value", "headers", "timestamp",
                                       "timeout", NULL};
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, where, keys);
    memset(message, 0, sizeof(*message));
    message->topic = opt_string(L, 2, "topic", NULL, NULL);
    if (message->topic == NULL)
        luaL_error(L, "%s: option 'topic' is missing", where);
    lua_Integer partition = opt_integer(L, 2, "partition", -1);
    luaL_argcheck(L, partition >= -1 && partition <= INT32_MAX, 2,
                  "partition: an integer from 0 expected");
    message->partition = (int32_t)partition;
    message->key = get_bytes(L, "key", &message->key_size);
    message->value = get_bytes(L, "value", &message->value_size);
    message->timestamp = (int64_t)(opt_number(L, 2, "timestamp", 0) * 1000 + 0.5);
    get_headers(L, message);
}

static int push_place(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->result.failed)
        return fail(L, &self->result.err);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, self->result.partition);
    lua_setfield(L, -2, "partition");
    lua_pushinteger(L, self->result.offset);
    lua_setfield(L, -2, "offset");
    return 1;
}

static int l_produce(lua_State *L)
{
    static const struct op_type type = {"producer:produce", push_place, kafka_op_cancel,
                                        kafka_op_release};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    struct kafka_message message;
    get_message(L, "producer:produce", &message);
    double timeout = opt_number(L, 2, "timeout", -1);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
    return kafka_op_await(L, op, kafka_producer_produce(producer, &message, kafka_op_done, op),
                          timeout);
}

static int l_send(lua_State *L)
{
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    struct kafka_message message;
    struct err err;
    get_message(L, "producer:send", &message);
    if (kafka_producer_send(producer, &message, &err) < 0)
        return fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int l_flush(lua_State *L)
{
    static const struct op_type type = {"producer:flush", kafka_op_push_true, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    opt_keys(L, 2, "producer:flush", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
    return kafka_op_await(L, op, kafka_producer_flush(producer, kafka_op_done, op), timeout);
}

static int l_outstanding(lua_State *L)
{
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    lua_pushinteger(L, (lua_Integer)kafka_producer_outstanding(producer));
    return 1;
}

static int l_producer(lua_State *L)
{
    static const char *const keys[] = {"properties", NULL};
    struct kafka_options options = {0};
    struct err err;
    luaL_checktype(L, 1, LUA_TTABLE);
    opt_keys(L, 1, "kafka.producer", keys);
    lua_kafka_options(L, &options);
    struct kafka_box *box = box_new(L, sizeof(*box), TYPE);
    struct kafka_producer *producer = kafka_producer_new(&options, &err);
    if (producer == NULL)
        return fail(L, &err);
    box->handle = producer;
    box->client = kafka_producer_client(producer);
    return 1;
}

static const luaL_Reg methods[] = {
    {"close", l_close},
    {"flush", l_flush},
    {"outstanding", l_outstanding},
    {"produce", l_produce},
    {"send", l_send},
    {NULL, NULL},
};

void lua_kafka_producer(lua_State *L)
{
    box_type(L, TYPE, methods, l_gc);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_producer, 1);
    lua_setfield(L, -2, "producer");
}
