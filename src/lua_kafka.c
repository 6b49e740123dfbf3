/* rouse.core.kafka: the module, and what its handles have in common. */
#include "lua_kafka.h"

#include <lauxlib.h>
#include <string.h>

#include "log.h"
#include "lua_modules.h"
#include "rouse_internal.h"

/* ---- handles ---- */

void *lua_kafka_check(lua_State *L, const char *type)
{
    struct kafka_box *box = box_check(L, 1, type);
    if (box->client == NULL)
        box_closed(L, 1, type);
    return box->handle;
}

/*
 * Failed connections are reported as error events, once per change; librdkafka's own line comes
 * with every attempt.
 */
static void write_log(void *arg, int level, const char *facility, const char *message)
{
    enum log_level as = LOG_LEVEL_DEBUG;
    if (level <= 3)
        as = LOG_LEVEL_ERROR;
    else if (level == 4)
        as = LOG_LEVEL_WARN;
    else if (level <= 6)
        as = LOG_LEVEL_INFO;
    if (strcmp(facility, "FAIL") == 0)
        as = LOG_LEVEL_DEBUG;
    log_write(arg, as, "kafka", "%s: %s", facility, message);
}

void lua_kafka_options(lua_State *L, struct kafka_options *options)
{
    struct rouse *rouse = util_rouse(L);
    options->loop = rouse_loop(rouse);
    options->log = (struct kafka_log){.write = write_log, .arg = rouse_log(rouse)};
    lua_settop(L, 1);
    lua_newtable(L); /* L: options anchors */
    if (lua_getfield(L, 1, "properties") != LUA_TTABLE) /* L: options anchors properties */
        luaL_error(L, "option 'properties': table expected, got %s", luaL_typename(L, -1));
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, 3) != 0; lua_pop(L, 1))
        count++;
    struct kafka_property *properties = lua_newuserdatauv(L, (count + 1) * sizeof(*properties), 0);
    options->properties = properties;
    lua_insert(L, 3); /* L: options anchors array properties */
    lua_pushnil(L);
    while (lua_next(L, 4) != 0) { /* L: ... properties name value */
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "option 'properties': names are strings, got %s", luaL_typename(L, -2));
        if (lua_isboolean(L, -1))
            lua_pushstring(L, lua_toboolean(L, -1) ? "true" : "false");
        else if (lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER)
            lua_pushvalue(L, -1);
        else
            luaL_error(L, "option 'properties': '%s': string, number or boolean expected, got %s",
                       lua_tostring(L, -2), luaL_typename(L, -1));
        properties[options->count].name = lua_tostring(L, -3);
        /* may turn a number into a string: keep that */
        properties[options->count++].value = lua_tostring(L, -1);
        lua_rawseti(L, 2, (lua_Integer)options->count);
        lua_pop(L, 1);
    }
    lua_pop(L, 1); /* L: options anchors array */
}

int lua_kafka_gc(lua_State *L, const char *type)
{
    struct kafka_box *box = box_check(L, 1, type);
    struct kafka_client *client = box->client;
    if (client != NULL) {
        box->client = NULL;
        /* less than what the host waits for at its end */
        kafka_client_close(client, 4, NULL, NULL);
        kafka_client_unref(client);
    }
    return 0;
}

/* ---- calls that wait ---- */

void kafka_op_cancel(struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->call != NULL)
        kafka_call_cancel(self->call);
    self->call = NULL;
}

void kafka_op_release(struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    kafka_op_cancel(op);
    kafka_result_free(&self->result);
    kafka_client_unref(self->client);
    self->client = NULL;
}

void kafka_op_done(void *op, struct kafka_result *result)
{
    struct kafka_op *self = op;
    self->call = NULL;
    self->result = *result;
    memset(result, 0, sizeof(*result)); /* taken */
    op_ready(&self->op);
}

struct kafka_op *kafka_op_new(lua_State *L, const struct op_type *type, struct kafka_client *client)
{
    struct kafka_op *self = op_new(L, type, sizeof(*self));
    kafka_client_ref(client);
    self->client = client;
    return self;
}

int kafka_op_await(lua_State *L, struct kafka_op *self, struct kafka_call *call, double timeout)
{
    self->call = call;
    return op_await(L, &self->op, timeout);
}

int kafka_op_push_true(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->result.failed)
        return fail(L, &self->result.err);
    lua_pushboolean(L, 1);
    return 1;
}

int kafka_op_push_list(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->result.failed)
        return fail(L, &self->result.err);
    lua_kafka_push_list(L, self->result.partitions);
    return 1;
}

static void close_cancel(struct op *op)
{
    kafka_client_forget(((struct kafka_op *)op)->client);
}

static void close_release(struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->client != NULL)
        kafka_client_forget(self->client);
    kafka_op_release(op);
}

int lua_kafka_close(lua_State *L, const char *type)
{
    static const struct op_type close_type = {
        .name = "close", .push = kafka_op_push_true, .cancel = close_cancel, .release = close_release};
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_box *box = box_check(L, 1, type);
    opt_keys(L, 2, "close", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CLOSE_SECONDS);
    struct kafka_client *client = box->client;
    if (client == NULL) {
        lua_pushboolean(L, 1);
        return 1;
    }
    struct kafka_op *op = kafka_op_new(L, &close_type, client);
    box->client = NULL;
    kafka_client_close(client, timeout, kafka_op_done, op);
    kafka_client_unref(client); /* the box's; the op has one */
    return op_await(L, &op->op, -1);
}

/* ---- the module ---- */

static int l_match(lua_State *L)
{
    struct err err;
    int matched = kafka_match(luaL_checkstring(L, 1), luaL_checkstring(L, 2), &err);
    if (matched < 0)
        return fail(L, &err);
    lua_pushboolean(L, matched);
    return 1;
}

static int l_version(lua_State *L)
{
    lua_pushstring(L, kafka_version());
    return 1;
}

/* In a userdata, since making a string of it may raise. */
static int l_properties(lua_State *L)
{
    size_t size = kafka_property_table(NULL, 0);
    char *text = lua_newuserdatauv(L, size, 0);
    kafka_property_table(text, size);
    lua_pushstring(L, text);
    return 1;
}

static const luaL_Reg functions[] = {
    {"match", l_match},
    {"properties", l_properties},
    {"version", l_version},
    {NULL, NULL},
};

int kafka_open(lua_State *L)
{
    lua_kafka_init_records(L);
    util_functions(L, functions); /* L: module */
    lua_kafka_consumer(L);
    lua_kafka_producer(L);
    lua_kafka_admin(L);
    lua_kafka_mock(L);
    return 1;
}
