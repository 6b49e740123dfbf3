/*
 * Tasks: Lua coroutines on the loop. task.c holds the program's only lua_resume. A binding that waits creates an op (a
 * userdata on the waiting coroutine's stack), starts its mechanism and yields; the mechanism's callback marks the op ready and
 * the loop resumes the task later, never from inside the callback. Bindings (lua_*.c) include this file; mechanisms do not.
 */
#ifndef ROUSE_TASK_H
#define ROUSE_TASK_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct op;
struct task;
struct tasks;

struct op_type {
    const char *name;                        /* "http.request": named when it may not wait here */
    int (*push)(lua_State *L, struct op *op); /* pushes the results of a ready op, returns their number; may raise */
    void (*cancel)(struct op *op);           /* stops the work of a pending op; no op_ready may follow. May be NULL */
    void (*release)(struct op *op);          /* once at the end, also after cancel: frees what the op holds. May be NULL */
};

/* First member of every binding's own op struct. Its fields belong to task.c. */
struct op {
    const struct op_type *type;
    struct task *task;
    struct op *next;                         /* in the ready queue */
    struct alarm *alarm;
    enum op_state { OP_NEW = 0, OP_PENDING, OP_READY, OP_TIMED_OUT, OP_CANCELLED, OP_ENDED } state;
};

struct rouse;

/* The scheduler of a Lua state; owned by struct rouse. NULL when out of memory. */
struct tasks *tasks_new(struct rouse *rouse, lua_State *L, uv_loop_t *loop);
void tasks_free(struct tasks *tasks);

/*
 * A new zeroed op of `size` bytes (its struct begins with struct op) as a userdata on the stack. Raises, naming
 * type->name, where waiting is impossible: outside a task, or inside a coroutine that the task's code made itself.
 */
void *op_new(lua_State *L, const struct op_type *type, size_t size);

/*
 * Waits: `return op_await(L, op, timeout)` must be the binding's last act, the op's userdata anywhere on its stack. timeout in
 * seconds, negative for none; a time-out cancels the op and returns nil, "timed out", "TIMEDOUT".
 */
int op_await(lua_State *L, struct op *op, double timeout);

/* The work is done (from the loop thread): the task will be resumed and type->push called. Before op_await it is allowed. */
void op_ready(struct op *op);

/*
 * Calls the function below its `nargs` arguments under the script limits (one CPU burst per stretch between waits), pushing
 * true and its results or false, message, code. May yield: use as `return task_guard(L, nargs)` from a lua_CFunction.
 */
int task_guard(lua_State *L, int nargs);

#endif
