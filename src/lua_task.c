#include <lauxlib.h>
#include <string.h>
#include <time.h>

#include "budget.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task_internal.h"

static int l_spawn(lua_State *L)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    luaL_checktype(L, 1, LUA_TFUNCTION);
    if (tasks->current == NULL)
        return luaL_error(L, "task.spawn: cannot be called here (outside a task)");
    if (tasks->current->cancelled)
        return task_raise_cancelled(L);
    task_new(L, tasks, lua_gettop(L) - 1);
    return 1;
}

static int push_outcome(lua_State *L, struct task *task)
{
    lua_State *co = task->L;
    if (task->state == TASK_DONE) {
        int n = lua_gettop(co);
        luaL_checkstack(L, n, "too many results");
        for (int i = 1; i <= n; i++)
            lua_pushvalue(co, i);
        lua_xmove(co, L, n);
        return n;
    }
    luaL_pushfail(L);
    lua_pushvalue(co, -1);
    lua_xmove(co, L, 1);
    lua_pushstring(L, task->state == TASK_CANCELLED ? "CANCELLED" : "ERROR");
    return 3;
}

struct join_op {
    struct op op;
    struct task *target;
};

static int join_push(lua_State *L, struct op *op)
{
    return push_outcome(L, ((struct join_op *)op)->target);
}

static void join_cancel(struct op *op)
{
    struct op **link = &((struct join_op *)op)->target->joiners;
    while (*link != NULL && *link != op)
        link = &(*link)->next;
    if (*link != NULL)
        *link = op->next;
}

static const struct op_type join_type = {.name = "task:join", .push = join_push, .cancel = join_cancel};

static int l_join(lua_State *L)
{
    struct task *target = luaL_checkudata(L, 1, TASK_TYPE);
    double timeout = lua_istable(L, 2) ? opt_number(L, 2, "timeout", -1) : luaL_optnumber(L, 2, -1);
    struct join_op *join = op_new(L, &join_type, sizeof(*join));
    if (join->op.task == target)
        return luaL_error(L, "task:join: a task cannot wait for itself");
    join->target = target;
    if (target->state > TASK_CLOSING) {
        op_ready(&join->op);
    } else {
        join->op.next = target->joiners;
        target->joiners = &join->op;
    }
    return op_await(L, &join->op, timeout);
}

static int l_cancel(lua_State *L)
{
    task_interrupt(luaL_checkudata(L, 1, TASK_TYPE));
    return 0;
}

static int l_status(lua_State *L)
{
    static const char *const names[] = {"running", "running", "running", "done", "failed", "cancelled"};
    lua_pushstring(L, names[((struct task *)luaL_checkudata(L, 1, TASK_TYPE))->state]);
    return 1;
}

static const struct op_type park_type = {.name = "task.park", .push = task_push_true};

static int l_park(lua_State *L)
{
    double timeout = luaL_optnumber(L, 1, -1);
    struct op *op = op_new(L, &park_type, sizeof(*op));
    if (op->task->permit)
        op_ready(op);
    op->task->permit = false;
    return op_await(L, op, timeout);
}

static int l_unpark(lua_State *L)
{
    struct task *task = luaL_checkudata(L, 1, TASK_TYPE);
    if (task->wait != NULL && task->wait->type == &park_type && task->wait->state == OP_PENDING)
        op_ready(task->wait);
    else
        task->permit = true;
    return 0;
}

static int l_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0, 1, "seconds must not be negative");
    struct op *op = op_new(L, &task_sleep_type, sizeof(*op));
    return op_await(L, op, seconds);
}

static int l_current(lua_State *L)
{
    struct task *task = rouse_tasks(util_rouse(L))->current;
    if (task == NULL)
        lua_pushnil(L);
    else
        lua_rawgetp(L, LUA_REGISTRYINDEX, task);
    return 1;
}

static int push_clock(lua_State *L, clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    lua_pushnumber(L, (double)now.tv_sec + (double)now.tv_nsec / 1e9);
    return 1;
}

static int l_now(lua_State *L)
{
    return push_clock(L, CLOCK_REALTIME);
}

static int l_monotonic(lua_State *L)
{
    return push_clock(L, CLOCK_MONOTONIC);
}

static void stop_everything(struct task *root)
{
    for (struct task *child = root->first_child; child != NULL; child = child->next_sibling)
        task_interrupt(child);
    task_interrupt(root);
}

static int l_run(lua_State *L)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    luaL_checktype(L, 1, LUA_TFUNCTION);
    if (tasks->running)
        return luaL_error(L, "task.run: already running");
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    struct task *root = task_new(L, tasks, lua_gettop(L) - 1); /* L: root */
    bool deadlock = false, exhausted = false;
    tasks->running = true;
    tasks->base = L;
    while (root->state <= TASK_CLOSING) {
        if (tasks->exhausted && !exhausted) {
            exhausted = true;
            stop_everything(root);
        }
        if (uv_run(tasks->loop, UV_RUN_ONCE) == 0 && root->state <= TASK_CLOSING && tasks->ready_first == NULL) {
            deadlock = true;
            stop_everything(root);
        }
    }
    uv_run(tasks->loop, UV_RUN_NOWAIT); /* handles that the last step closed */
    tasks->running = false;
    tasks->base = tasks->main;
    if (exhausted)
        return luaL_error(L, "the script's memory stays full: %d of %d bytes in use after a collection",
                          (int)budget_used(rouse_budget(tasks->rouse)),
                          (int)budget_memory(rouse_budget(tasks->rouse)));
    if (deadlock)
        return luaL_error(L, "task.run: every task waits and nothing can wake one");
    if (root->state == TASK_DONE)
        return push_outcome(L, root);
    lua_xmove(root->L, L, 1);
    return lua_error(L);
}

static void count_handle(uv_handle_t *handle, void *arg)
{
    if (uv_is_active(handle) && uv_has_ref(handle) && !uv_is_closing(handle))
        ++*(lua_Integer *)arg;
}

static int l_handles(lua_State *L)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    lua_Integer count = 0;
    uv_walk(tasks->loop, count_handle, &count);
    lua_pushinteger(L, count - (uv_is_active((uv_handle_t *)tasks->idle) ? 1 : 0));
    lua_pushinteger(L, (lua_Integer)tasks->count);
    return 2;
}

static int l_cocreate(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    budget_watch(rouse_budget(rouse_tasks(util_rouse(L))->rouse), co);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int l_memory(lua_State *L)
{
    struct budget *budget = rouse_budget(util_rouse(L));
    lua_pushinteger(L, (lua_Integer)budget_used(budget));
    lua_pushinteger(L, (lua_Integer)budget_memory(budget));
    return 2;
}

static int no_close(lua_State *L)
{
    (void)L;
    return 0;
}

int task_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"join", l_join}, {"cancel", l_cancel}, {"status", l_status}, {"unpark", l_unpark}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"spawn", l_spawn}, {"sleep", l_sleep}, {"park", l_park}, {"current", l_current}, {"now", l_now},
        {"monotonic", l_monotonic}, {"run", l_run}, {"handles", l_handles},
        {"memory", l_memory}, {"cocreate", l_cocreate}, {NULL, NULL}};
    box_type(L, TASK_TYPE, methods, no_close);
    task_register_op(L);
    util_functions(L, functions);
    guard_functions(L);
    return 1;
}

