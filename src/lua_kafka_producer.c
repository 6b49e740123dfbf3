/* kafka.producer. */
#include <lauxlib.h>
#include <string.h>

#include "kafka_producer.h"
#include "kafka_transaction.h"
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
static const char *get_bytes(lua_State *L, int index, const char *name, size_t *size)
{
    return opt_string(L, index, name, NULL, size);
}

/* The array of {name=, value=} of the record at `index` becomes a userdata, kept in `anchors`. */
static void get_headers(lua_State *L, int index, int anchors, struct kafka_message *message)
{
    int type = lua_getfield(L, index, "headers"); /* L: ... headers */
    if (type != LUA_TNIL && type != LUA_TTABLE)
        luaL_error(L, "option 'headers': table expected, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    size_t count = type == LUA_TNIL ? 0 : lua_rawlen(L, table);
    if (count == 0) {
        lua_pop(L, 1);
        return;
    }
    struct kafka_header *headers = lua_newuserdatauv(L, count * sizeof(*headers), 0);
    for (size_t i = 0; i < count; i++) { /* L: ... headers userdata item */
        if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TTABLE)
            luaL_error(L, "option 'headers': item %I: a table {name=, value=} expected",
                       (LUAI_UACINT)i + 1);
        headers[i].name = opt_string(L, -1, "name", NULL, NULL);
        headers[i].value = opt_string(L, -1, "value", NULL, &headers[i].size);
        if (headers[i].name == NULL)
            luaL_error(L, "option 'headers': item %I has no name", (LUAI_UACINT)i + 1);
        lua_pop(L, 1);
    }
    lua_rawseti(L, anchors, (lua_Integer)lua_rawlen(L, anchors) + 1);
    lua_pop(L, 1);
    message->headers = headers;
    message->header_count = count;
}

static void get_message(lua_State *L, int index, int anchors, const char *where,
                        const char *const keys[], struct kafka_message *message)
{
    luaL_checktype(L, index, LUA_TTABLE);
    opt_keys(L, index, where, keys);
    memset(message, 0, sizeof(*message));
    message->topic = opt_string(L, index, "topic", NULL, NULL);
    if (message->topic == NULL)
        luaL_error(L, "%s: option 'topic' is missing", where);
    lua_Integer partition = opt_integer(L, index, "partition", -1);
    luaL_argcheck(L, partition >= -1 && partition <= INT32_MAX, 2,
                  "partition: an integer from 0 expected");
    message->partition = (int32_t)partition;
    message->key = get_bytes(L, index, "key", &message->key_size);
    message->value = get_bytes(L, index, "value", &message->value_size);
    message->timestamp = (int64_t)(opt_number(L, index, "timestamp", 0) * 1000 + 0.5);
    get_headers(L, index, anchors, message);
}

/* The record at 2 of a method; the stack grows by one. */
static void get_record(lua_State *L, const char *where, struct kafka_message *message)
{
    static const char *const keys[] = {"topic", "partition", "key", "value", "headers", "timestamp",
                                       "timeout", NULL};
    lua_settop(L, 2);
    lua_newtable(L); /* L: producer record anchors */
    get_message(L, 2, 3, where, keys, message);
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
    get_record(L, "producer:produce", &message);
    double timeout = opt_number(L, 2, "timeout", -1);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
    return kafka_op_await(L, op, kafka_producer_produce(producer, &message, kafka_op_done, op),
                          timeout);
}

static int push_places(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (!self->result.failed)
        return kafka_op_push_list(L, op);
    int count = fail(L, &self->result.err);
    if (self->result.partitions == NULL)
        return count;
    lua_kafka_push_list(L, self->result.partitions);
    return count + 1;
}

static int l_produce_all(lua_State *L)
{
    static const struct op_type type = {"producer:produce_all", push_places, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const options[] = {"timeout", NULL};
    static const char *const keys[] = {"topic", "partition", "key", "value", "headers", "timestamp",
                                       NULL};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    opt_keys(L, 3, "producer:produce_all", options);
    double timeout = opt_number(L, 3, "timeout", -1);
    lua_newtable(L); /* L: producer records options anchors */
    size_t count = lua_rawlen(L, 2);
    struct kafka_message *messages = lua_newuserdatauv(L, (count + 1) * sizeof(*messages), 0);
    for (size_t i = 0; i < count; i++) { /* L: ... anchors userdata record */
        if (lua_rawgeti(L, 2, (lua_Integer)i + 1) != LUA_TTABLE)
            luaL_error(L, "producer:produce_all: item %I: a table expected, got %s",
                       (LUAI_UACINT)i + 1, luaL_typename(L, -1));
        get_message(L, 6, 4, "producer:produce_all", keys, &messages[i]);
        lua_pop(L, 1);
    }
    struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
    return kafka_op_await(
        L, op, kafka_producer_produce_all(producer, messages, count, kafka_op_done, op), timeout);
}

/* Waits only where the queue is full and waiting is possible. */
static int l_send(lua_State *L)
{
    static const struct op_type type = {"producer:send", kafka_op_push_true, kafka_op_cancel,
                                        kafka_op_release};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    struct kafka_message message;
    struct err err;
    get_record(L, "producer:send", &message);
    double timeout = opt_number(L, 2, "timeout", -1);
    if (kafka_producer_send(producer, &message, &err) < 0) {
        if (strcmp(err.code, "_QUEUE_FULL") != 0 || timeout == 0 || !lua_isyieldable(L))
            return fail(L, &err);
        struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
        return kafka_op_await(L, op,
                              kafka_producer_send_later(producer, &message, kafka_op_done, op),
                              timeout);
    }
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

/* ---- transactions ---- */

/* true, or nil, message, code and what the failure means. */
static int push_outcome(lua_State *L, const struct kafka_result *result)
{
    if (!result->failed) {
        lua_pushboolean(L, 1);
        return 1;
    }
    int count = fail(L, &result->err);
    const char *means = result->fatal ? "fatal" : result->abortable ? "abortable"
                        : result->retriable ? "retriable" : NULL;
    if (means == NULL)
        return count;
    lua_pushstring(L, means);
    return count + 1;
}

static int push_transaction(lua_State *L, struct op *op)
{
    return push_outcome(L, &((struct kafka_op *)op)->result);
}

typedef struct kafka_call *transaction_start(struct kafka_producer *producer, double timeout,
                                             kafka_done *done, void *arg);

static int transaction(lua_State *L, const struct op_type *type, transaction_start *start)
{
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    opt_keys(L, 2, type->name, keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    struct kafka_op *op = kafka_op_new(L, type, kafka_producer_client(producer));
    /* the call has the time-out itself: a second more for its answer */
    return kafka_op_await(L, op, start(producer, timeout, kafka_op_done, op), timeout + 1);
}

static int l_init_transactions(lua_State *L)
{
    static const struct op_type type = {"producer:init_transactions", push_transaction,
                                        kafka_op_cancel, kafka_op_release};
    return transaction(L, &type, kafka_transaction_init);
}

static int l_begin(lua_State *L)
{
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    struct kafka_result result = {0};
    kafka_transaction_begin(producer, &result);
    return push_outcome(L, &result);
}

static int l_commit(lua_State *L)
{
    static const struct op_type type = {"producer:commit", push_transaction, kafka_op_cancel,
                                        kafka_op_release};
    return transaction(L, &type, kafka_transaction_commit);
}

static int l_abort(lua_State *L)
{
    static const struct op_type type = {"producer:abort", push_transaction, kafka_op_cancel,
                                        kafka_op_release};
    return transaction(L, &type, kafka_transaction_abort);
}

/* producer:send_offsets{offsets=, consumer= or group=, timeout=} */
static int l_send_offsets(lua_State *L)
{
    static const struct op_type type = {"producer:send_offsets", push_transaction, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"consumer", "group", "offsets", "timeout", NULL};
    struct kafka_producer *producer = lua_kafka_check(L, TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    opt_keys(L, 2, type.name, keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    const char *group = opt_string(L, 2, "group", NULL, NULL);
    struct kafka_consumer *consumer = NULL;
    if (lua_getfield(L, 2, "consumer") != LUA_TNIL) { /* L: producer options consumer */
        struct kafka_box *box = luaL_testudata(L, 3, "rouse.consumer");
        if (box == NULL || box->client == NULL)
            return luaL_error(L, "%s: option 'consumer': an open consumer expected", type.name);
        consumer = box->handle;
    }
    if ((consumer == NULL) == (group == NULL))
        return luaL_error(L, "%s: either 'consumer' or 'group' is needed", type.name);
    lua_getfield(L, 2, "offsets"); /* L: producer options consumer offsets */
    size_t count;
    struct kafka_partition *items = lua_kafka_list(L, 4, type.name, &count);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_producer_client(producer));
    struct kafka_call *call = kafka_transaction_offsets(producer, consumer, group, items, count,
                                                        timeout, kafka_op_done, op);
    return kafka_op_await(L, op, call, timeout + 1);
}

/* ---- */

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
    {"abort", l_abort},
    {"begin", l_begin},
    {"close", l_close},
    {"commit", l_commit},
    {"flush", l_flush},
    {"init_transactions", l_init_transactions},
    {"outstanding", l_outstanding},
    {"produce", l_produce},
    {"produce_all", l_produce_all},
    {"send", l_send},
    {"send_offsets", l_send_offsets},
    {NULL, NULL},
};

void lua_kafka_producer(lua_State *L)
{
    box_type(L, TYPE, methods, l_gc);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_producer, 1);
    lua_setfield(L, -2, "producer");
}
