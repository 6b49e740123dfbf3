/*
 * Shared by the lua_kafka*.c bindings: handles, calls that wait, and the tables that stand for
 * lists, records and results.
 */
#ifndef ROUSE_LUA_KAFKA_H
#define ROUSE_LUA_KAFKA_H

#include <lua.h>

#include "kafka_client.h"
#include "kafka_consumer.h"
#include "log.h"
#include "lua_util.h"
#include "task.h"

#define KAFKA_CALL_SECONDS 30.0  /* a question to the cluster, when no timeout is given */
#define KAFKA_CLOSE_SECONDS 10.0 /* close() when no timeout is given */

/* A handle as Lua holds it. */
struct kafka_box {
    struct kafka_client *client;    /* NULL: closed; holds a reference */
    void *handle;                   /* the same as its own type */
};

/* Adds a handle type's constructor to the module table on top of the stack. */
void lua_kafka_consumer(lua_State *L);
void lua_kafka_producer(lua_State *L);
void lua_kafka_admin(lua_State *L);
void lua_kafka_mock(lua_State *L);

/* The open handle at index 1, or raises. */
void *lua_kafka_check(lua_State *L, const char *type);
/*
 * Reads the option `properties` of the table at 1; what it points to lives on the stack, which
 * grows by two.
 */
void lua_kafka_options(lua_State *L, struct kafka_options *options);
/* __gc and __close of every handle type: closes in the background. */
int lua_kafka_gc(lua_State *L, const char *type);
/* Method close{timeout=}: waits until the handle is closed. */
int lua_kafka_close(lua_State *L, const char *type);

/* A wait for a struct kafka_call. Its push function finds the outcome in `result`. */
struct kafka_op {
    struct op op;
    struct kafka_client *client;
    struct kafka_call *call;
    struct kafka_result result;
};

/* For a struct op_type of a struct kafka_op. */
void kafka_op_cancel(struct op *op);
void kafka_op_release(struct op *op);
/* The `done` of its call, with the op as argument. */
void kafka_op_done(void *op, struct kafka_result *result);
/* Makes one for a handle's client. Raises outside a task. */
struct kafka_op *kafka_op_new(lua_State *L, const struct op_type *type,
                              struct kafka_client *client);
/* Waits for `call`, as the binding's last act. */
int kafka_op_await(lua_State *L, struct kafka_op *op, struct kafka_call *call, double timeout);
/* Push functions: true, or the result's list. */
int kafka_op_push_true(lua_State *L, struct op *op);
int kafka_op_push_list(lua_State *L, struct op *op);

/*
 * The partition list at `index` as an array: its memory is pushed as a userdata and borrows the
 * table's strings, so both stay on the stack while it is used. Raises on anything else, naming
 * `where` and the item.
 */
struct kafka_partition *lua_kafka_list(lua_State *L, int index, const char *where, size_t *count);
/* An array of strings, likewise. */
const char **lua_kafka_strings(lua_State *L, int index, const char *where, size_t *count);
void lua_kafka_push_list(lua_State *L, const struct kafka_partitions *list);

/* Prepares what lua_kafka_push_records needs; called once by the module. */
void lua_kafka_init_records(lua_State *L);
/*
 * Pushes an array of the event's records and one of its slices: {topic=, partition=, first=, last=,
 * bytes=} for each stretch of records of one partition.
 */
void lua_kafka_push_records(lua_State *L, const struct kafka_event *event);

/*
 * Whether there is a record at `index` (which may be beyond the top), and if so its place, whose
 * topic lives as long as the state.
 */
bool lua_kafka_record_place(lua_State *L, int index, struct log_place *place);

/* Pushes seconds for a timestamp in milliseconds. */
#define KAFKA_SECONDS(ms) ((lua_Number)(ms) / 1000.0)

#endif
