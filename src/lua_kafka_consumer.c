/* kafka.consumer. */
#include <lauxlib.h>

#include "lua_kafka.h"

#define TYPE "rouse.consumer"
#define POLL_MAX 500
#define POLL_BYTES (8 * 1024 * 1024)

static int l_gc(lua_State *L)
{
    return lua_kafka_gc(L, TYPE);
}

static int l_close(lua_State *L)
{
    return lua_kafka_close(L, TYPE);
}

/* true, or the failure */
static int answer(lua_State *L, int status, const struct err *err)
{
    if (status < 0)
        return fail(L, err);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- what is consumed ---- */

static int l_subscribe(lua_State *L)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct err err;
    const char **names = lua_kafka_strings(L, 2, "consumer:subscribe", &count);
    struct kafka_partition *topics = lua_newuserdatauv(L, (count + 1) * sizeof(*topics), 0);
    for (size_t i = 0; i < count; i++)
        topics[i] = (struct kafka_partition){.topic = names[i], .partition = -1,
                                             .offset = KAFKA_OFFSET_NONE};
    return answer(L, kafka_consumer_subscribe(consumer, topics, count, &err), &err);
}

static int assign(lua_State *L, enum kafka_assign how, const char *where)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct err err;
    struct kafka_partition *items = lua_kafka_list(L, 2, where, &count);
    return answer(L, kafka_consumer_assign(consumer, how, items, count, &err), &err);
}

static int l_assign(lua_State *L)
{
    return assign(L, KAFKA_ASSIGN, "consumer:assign");
}

static int l_incremental_assign(lua_State *L)
{
    return assign(L, KAFKA_ASSIGN_MORE, "consumer:incremental_assign");
}

static int l_incremental_unassign(lua_State *L)
{
    return assign(L, KAFKA_ASSIGN_LESS, "consumer:incremental_unassign");
}

static int set_paused(lua_State *L, bool stop, const char *where)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct err err;
    struct kafka_partition *items = lua_kafka_list(L, 2, where, &count);
    return answer(L, kafka_consumer_pause(consumer, stop, items, count, &err), &err);
}

static int l_pause(lua_State *L)
{
    return set_paused(L, true, "consumer:pause");
}

static int l_resume(lua_State *L)
{
    return set_paused(L, false, "consumer:resume");
}

static int l_seek(lua_State *L)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct err err;
    struct kafka_partition *items = lua_kafka_list(L, 2, "consumer:seek", &count);
    return answer(L, kafka_consumer_seek(consumer, items, count, &err), &err);
}

static int l_store(lua_State *L)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct err err;
    struct kafka_partition *items = lua_kafka_list(L, 2, "consumer:store", &count);
    return answer(L, kafka_consumer_store(consumer, items, count, &err), &err);
}

/*
 * A list that librdkafka knows by itself: kept in a userdata, since building the table may raise.
 */
struct list_box {
    struct kafka_result result;
};

static int list_gc(lua_State *L)
{
    kafka_result_free(&((struct list_box *)luaL_checkudata(L, 1, "rouse.kafka_list"))->result);
    return 0;
}

static struct list_box *list_new(lua_State *L)
{
    return box_new(L, sizeof(struct list_box), "rouse.kafka_list");
}

static int push_list(lua_State *L, struct list_box *box, int status)
{
    if (status < 0)
        return fail(L, &box->result.err);
    lua_kafka_push_list(L, box->result.partitions);
    kafka_result_free(&box->result);
    return 1;
}

static int l_assignment(lua_State *L)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    struct list_box *box = list_new(L);
    return push_list(L, box, kafka_consumer_assignment(consumer, &box->result));
}

static int l_position(lua_State *L)
{
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    struct kafka_partition *items = lua_kafka_list(L, 2, "consumer:position", &count);
    struct list_box *box = list_new(L);
    return push_list(L, box, kafka_consumer_position(consumer, items, count, &box->result));
}

/* ---- commits ---- */

static int l_commit(lua_State *L)
{
    static const struct op_type type = {"consumer:commit", kafka_op_push_list, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    struct kafka_partition *items = NULL;
    size_t count = 0;
    lua_settop(L, 3);
    opt_keys(L, 3, "consumer:commit", keys);
    double timeout = opt_number(L, 3, "timeout", KAFKA_CALL_SECONDS);
    if (!lua_isnil(L, 2))
        items = lua_kafka_list(L, 2, "consumer:commit", &count);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_consumer_client(consumer));
    return kafka_op_await(L, op, kafka_consumer_commit(consumer, items, count, kafka_op_done, op),
                          timeout);
}

static int l_committed(lua_State *L)
{
    static const struct op_type type = {"consumer:committed", kafka_op_push_list, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    size_t count;
    opt_keys(L, 3, "consumer:committed", keys);
    double timeout = opt_number(L, 3, "timeout", KAFKA_CALL_SECONDS);
    struct kafka_partition *items = lua_kafka_list(L, 2, "consumer:committed", &count);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_consumer_client(consumer));
    struct kafka_call *call = kafka_consumer_committed(consumer, items, count, timeout,
                                                       kafka_op_done, op);
    return kafka_op_await(L, op, call, timeout + 1);
}

/* ---- the stream ---- */

struct poll_op {
    struct op op;
    struct kafka_consumer *consumer;
    struct kafka_event *event;      /* being converted */
};

static void set_string(lua_State *L, const char *name, const char *value)
{
    if (value == NULL)
        return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void push_place(lua_State *L, const struct kafka_event *event)
{
    if (event->topic == NULL)
        return;
    set_string(L, "topic", event->topic);
    lua_pushinteger(L, event->partition);
    lua_setfield(L, -2, "partition");
    if (event->offset >= 0) {
        lua_pushinteger(L, event->offset);
        lua_setfield(L, -2, "offset");
    }
}

static void push_event(lua_State *L, const struct kafka_event *event)
{
    static const char *const kinds[] = {"", "records", "assign", "revoke", "error", "eof"};
    lua_createtable(L, 0, 4); /* L: event */
    lua_pushstring(L, kinds[event->kind]);
    lua_setfield(L, -2, "kind");
    switch (event->kind) {
    case KAFKA_EVENT_RECORDS:
        lua_kafka_push_records(L, event); /* L: event records slices */
        lua_setfield(L, -3, "slices");
        lua_setfield(L, -2, "records");
        break;
    case KAFKA_EVENT_ASSIGN:
    case KAFKA_EVENT_REVOKE:
        lua_kafka_push_list(L, event->partitions);
        lua_setfield(L, -2, "partitions");
        set_string(L, "protocol", event->protocol);
        lua_pushboolean(L, event->lost);
        lua_setfield(L, -2, "lost");
        break;
    case KAFKA_EVENT_ERROR:
        set_string(L, "code", event->err.code);
        set_string(L, "message", event->err.msg);
        lua_pushboolean(L, event->fatal);
        lua_setfield(L, -2, "fatal");
        push_place(L, event);
        break;
    case KAFKA_EVENT_EOF:
        push_place(L, event);
        break;
    }
}

static int poll_push(lua_State *L, struct op *op)
{
    struct poll_op *self = (struct poll_op *)op;
    self->event = kafka_consumer_take(self->consumer, self);
    if (self->event == NULL)
        return fail_with(L, "CLOSED", "the consumer was closed");
    push_event(L, self->event);
    kafka_event_free(self->event); /* messages go back at once, never with the collector */
    self->event = NULL;
    return 1;
}

static void poll_cancel(struct op *op)
{
    struct poll_op *self = (struct poll_op *)op;
    if (self->consumer != NULL)
        kafka_consumer_unpoll(self->consumer, self);
}

static void poll_release(struct op *op)
{
    struct poll_op *self = (struct poll_op *)op;
    if (self->consumer == NULL)
        return;
    kafka_consumer_unpoll(self->consumer, self);
    kafka_event_free(self->event);
    kafka_client_unref(kafka_consumer_client(self->consumer));
    self->consumer = NULL;
}

static void poll_ready(void *arg)
{
    op_ready(&((struct poll_op *)arg)->op);
}

static int l_poll(lua_State *L)
{
    static const struct op_type type = {"consumer:poll", poll_push, poll_cancel, poll_release};
    static const char *const keys[] = {"max", "max_bytes", "timeout", NULL};
    struct kafka_consumer *consumer = lua_kafka_check(L, TYPE);
    opt_keys(L, 2, "consumer:poll", keys);
    lua_Integer max = opt_integer(L, 2, "max", POLL_MAX);
    lua_Integer max_bytes = opt_integer(L, 2, "max_bytes", POLL_BYTES);
    double timeout = opt_number(L, 2, "timeout", -1);
    luaL_argcheck(L, max >= 1 && max_bytes >= 1, 2, "max and max_bytes count from 1");
    struct poll_op *self = op_new(L, &type, sizeof(*self));
    kafka_client_ref(kafka_consumer_client(consumer));
    self->consumer = consumer;
    if (kafka_consumer_poll(consumer, (size_t)max, (size_t)max_bytes, timeout == 0, poll_ready,
                            self) < 0)
        return luaL_error(L, "consumer:poll: another task is polling this consumer");
    return op_await(L, &self->op, timeout);
}

/* ---- */

static int l_consumer(lua_State *L)
{
    static const char *const keys[] = {"properties", "headers", NULL};
    struct kafka_options options = {0};
    struct err err;
    luaL_checktype(L, 1, LUA_TTABLE);
    opt_keys(L, 1, "kafka.consumer", keys);
    lua_kafka_options(L, &options);
    bool headers = opt_boolean(L, 1, "headers", true);
    struct kafka_box *box = box_new(L, sizeof(*box), TYPE);
    struct kafka_consumer *consumer = kafka_consumer_new(&options, headers, &err);
    if (consumer == NULL)
        return fail(L, &err);
    box->handle = consumer;
    box->client = kafka_consumer_client(consumer);
    return 1;
}

static const luaL_Reg methods[] = {
    {"assign", l_assign},
    {"assignment", l_assignment},
    {"close", l_close},
    {"commit", l_commit},
    {"committed", l_committed},
    {"incremental_assign", l_incremental_assign},
    {"incremental_unassign", l_incremental_unassign},
    {"pause", l_pause},
    {"poll", l_poll},
    {"position", l_position},
    {"resume", l_resume},
    {"seek", l_seek},
    {"store", l_store},
    {"subscribe", l_subscribe},
    {NULL, NULL},
};

void lua_kafka_consumer(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    box_type(L, TYPE, methods, l_gc);
    box_type(L, "rouse.kafka_list", none, list_gc);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_consumer, 1);
    lua_setfield(L, -2, "consumer");
}
