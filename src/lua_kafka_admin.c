/* kafka.admin. */
#include <lauxlib.h>
#include <string.h>

#include "kafka_admin.h"
#include "lua_kafka.h"

#define TYPE "rouse.admin"

static int l_gc(lua_State *L)
{
    return lua_kafka_gc(L, TYPE);
}

static int l_close(lua_State *L)
{
    return lua_kafka_close(L, TYPE);
}

static void set_string(lua_State *L, const char *name, const char *value)
{
    if (value == NULL)
        return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

/*
 * The mechanism's own time-out answers first, with what it has; the wait's is only there in case.
 */
static int await(lua_State *L, struct kafka_op *op, struct kafka_call *call, double timeout)
{
    return kafka_op_await(L, op, call, timeout + 1);
}

/* ---- metadata ---- */

static void push_meta_topic(lua_State *L, const struct kafka_meta_topic *topic)
{
    lua_createtable(L, 0, 2); /* L: topic */
    set_string(L, "error", topic->error);
    lua_createtable(L, (int)topic->count, 0); /* L: topic partitions */
    for (size_t i = 0; i < topic->count; i++) {
        lua_createtable(L, 0, 3);
        set_integer(L, "id", topic->partitions[i].id);
        if (topic->partitions[i].leader >= 0)
            set_integer(L, "leader", topic->partitions[i].leader);
        set_string(L, "error", topic->partitions[i].error);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "partitions");
}

static int push_metadata(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->result.failed)
        return fail(L, &self->result.err);
    const struct kafka_metadata *metadata = self->result.metadata;
    lua_createtable(L, 0, 2);
    lua_createtable(L, (int)metadata->broker_count, 0); /* L: metadata brokers */
    for (size_t i = 0; i < metadata->broker_count; i++) {
        lua_createtable(L, 0, 3);
        set_integer(L, "id", metadata->brokers[i].id);
        set_string(L, "host", metadata->brokers[i].host);
        set_integer(L, "port", metadata->brokers[i].port);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "brokers");
    lua_createtable(L, 0, (int)metadata->topic_count); /* L: metadata topics */
    for (size_t i = 0; i < metadata->topic_count; i++) {
        push_meta_topic(L, &metadata->topics[i]);
        lua_setfield(L, -2, metadata->topics[i].name);
    }
    lua_setfield(L, -2, "topics");
    return 1;
}

static int l_metadata(lua_State *L)
{
    static const struct op_type type = {"admin:metadata", push_metadata, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"topics", "timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    lua_settop(L, 2);
    opt_keys(L, 2, "admin:metadata", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    const char **topics = NULL;
    size_t count = 0;
    if (lua_istable(L, 2) && lua_getfield(L, 2, "topics") != LUA_TNIL)
        topics = lua_kafka_strings(L, -1, "admin:metadata: topics", &count);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    return await(L, op, kafka_admin_metadata(admin, topics, count, timeout, kafka_op_done, op),
                 timeout);
}

/* ---- offsets ---- */

/* The option `partitions`, NULL when it is missing; leaves things on the stack. */
static struct kafka_partition *get_partitions(lua_State *L, const char *where, size_t *count)
{
    *count = 0;
    if (lua_getfield(L, 2, "partitions") == LUA_TNIL)
        return NULL;
    return lua_kafka_list(L, -1, where, count);
}

static int l_offsets(lua_State *L)
{
    static const struct op_type type = {"admin:offsets", kafka_op_push_list, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"partitions", "at", "timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    size_t count;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "admin:offsets", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    const char *at = opt_string(L, 2, "at", "end", NULL);
    bool end = strcmp(at, "end") == 0;
    luaL_argcheck(L, end || strcmp(at, "beginning") == 0, 2,
                  "at: \"end\" or \"beginning\" expected");
    struct kafka_partition *items = get_partitions(L, "admin:offsets: partitions", &count);
    luaL_argcheck(L, items != NULL, 2, "partitions are missing");
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    struct kafka_call *call = kafka_admin_offsets(admin, items, count,
                                                  end ? KAFKA_OFFSET_END : KAFKA_OFFSET_BEGINNING,
                                                  timeout, kafka_op_done, op);
    return await(L, op, call, timeout);
}

static const char *get_group(lua_State *L, const char *where)
{
    const char *group = opt_string(L, 2, "group", NULL, NULL);
    if (group == NULL || group[0] == '\0')
        luaL_error(L, "%s: option 'group' is missing", where);
    return group;
}

static int l_group_offsets(lua_State *L)
{
    static const struct op_type type = {"admin:group_offsets", kafka_op_push_list, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"group", "partitions", "timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    size_t count;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "admin:group_offsets", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    const char *group = get_group(L, "admin:group_offsets");
    struct kafka_partition *items = get_partitions(L, "admin:group_offsets: partitions", &count);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    struct kafka_call *call = kafka_admin_group_offsets(admin, group, items, count, kafka_op_done,
                                                        op);
    return kafka_op_await(L, op, call, timeout);
}

static int l_alter_group_offsets(lua_State *L)
{
    static const struct op_type type = {"admin:alter_group_offsets", kafka_op_push_list,
                                        kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"group", "partitions", "timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    size_t count;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "admin:alter_group_offsets", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    const char *group = get_group(L, "admin:alter_group_offsets");
    struct kafka_partition *items = get_partitions(L, "admin:alter_group_offsets: partitions",
                                                   &count);
    luaL_argcheck(L, items != NULL && count > 0, 2, "partitions are missing");
    for (size_t i = 0; i < count; i++)
        luaL_argcheck(L, items[i].offset >= 0, 2, "every partition needs an offset from 0");
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    struct kafka_call *call = kafka_admin_alter_group_offsets(admin, group, items, count,
                                                              kafka_op_done, op);
    return kafka_op_await(L, op, call, timeout);
}

/* ---- groups ---- */

static void push_member(lua_State *L, const struct kafka_member *member)
{
    lua_createtable(L, 0, 4);
    set_string(L, "id", member->id);
    set_string(L, "client", member->client);
    set_string(L, "host", member->host);
    lua_kafka_push_list(L, &member->partitions);
    lua_setfield(L, -2, "partitions");
}

static int push_groups(lua_State *L, struct op *op)
{
    struct kafka_op *self = (struct kafka_op *)op;
    if (self->result.failed)
        return fail(L, &self->result.err);
    const struct kafka_groups *groups = self->result.groups;
    lua_createtable(L, 0, (int)groups->count);
    for (size_t i = 0; i < groups->count; i++) {
        const struct kafka_group *group = &groups->items[i];
        lua_createtable(L, 0, 3); /* L: groups group */
        set_string(L, "state", group->state);
        set_string(L, "error", group->error);
        lua_createtable(L, (int)group->count, 0); /* L: groups group members */
        for (size_t j = 0; j < group->count; j++) {
            push_member(L, &group->members[j]);
            lua_rawseti(L, -2, (lua_Integer)j + 1);
        }
        lua_setfield(L, -2, "members");
        lua_setfield(L, -2, group->name);
    }
    return 1;
}

static int l_describe_groups(lua_State *L)
{
    static const struct op_type type = {"admin:describe_groups", push_groups, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"groups", "timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    size_t count;
    luaL_checktype(L, 2, LUA_TTABLE);
    opt_keys(L, 2, "admin:describe_groups", keys);
    double timeout = opt_number(L, 2, "timeout", KAFKA_CALL_SECONDS);
    lua_getfield(L, 2, "groups");
    const char **groups = lua_kafka_strings(L, -1, "admin:describe_groups: groups", &count);
    luaL_argcheck(L, count > 0, 2, "groups are missing");
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    struct kafka_call *call = kafka_admin_describe_groups(admin, groups, count, kafka_op_done, op);
    return kafka_op_await(L, op, call, timeout);
}

/* ---- errors ---- */

static int push_error(lua_State *L, struct op *op)
{
    const struct kafka_result *result = &((struct kafka_op *)op)->result;
    if (strcmp(result->err.code, "CLOSED") == 0)
        return fail(L, &result->err);
    lua_createtable(L, 0, 4);
    set_string(L, "kind", "error");
    set_string(L, "code", result->err.code);
    set_string(L, "message", result->err.msg);
    lua_pushboolean(L, result->fatal);
    lua_setfield(L, -2, "fatal");
    return 1;
}

static int l_poll(lua_State *L)
{
    static const struct op_type type = {"admin:poll", push_error, kafka_op_cancel,
                                        kafka_op_release};
    static const char *const keys[] = {"timeout", NULL};
    struct kafka_admin *admin = lua_kafka_check(L, TYPE);
    opt_keys(L, 2, "admin:poll", keys);
    double timeout = opt_number(L, 2, "timeout", -1);
    struct kafka_op *op = kafka_op_new(L, &type, kafka_admin_client(admin));
    struct kafka_call *call = kafka_admin_poll(admin, kafka_op_done, op);
    if (call == NULL)
        return luaL_error(L, "admin:poll: another task is polling this handle");
    return kafka_op_await(L, op, call, timeout);
}

static int l_admin(lua_State *L)
{
    static const char *const keys[] = {"properties", NULL};
    struct kafka_options options = {0};
    struct err err;
    luaL_checktype(L, 1, LUA_TTABLE);
    opt_keys(L, 1, "kafka.admin", keys);
    lua_kafka_options(L, &options);
    struct kafka_box *box = box_new(L, sizeof(*box), TYPE);
    struct kafka_admin *admin = kafka_admin_new(&options, &err);
    if (admin == NULL)
        return fail(L, &err);
    box->handle = admin;
    box->client = kafka_admin_client(admin);
    return 1;
}

static const luaL_Reg methods[] = {
    {"alter_group_offsets", l_alter_group_offsets},
    {"close", l_close},
    {"describe_groups", l_describe_groups},
    {"group_offsets", l_group_offsets},
    {"metadata", l_metadata},
    {"offsets", l_offsets},
    {"poll", l_poll},
    {NULL, NULL},
};

void lua_kafka_admin(lua_State *L)
{
    box_type(L, TYPE, methods, l_gc);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_admin, 1);
    lua_setfield(L, -2, "admin");
}
