#include "task.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "budget.h"
#include "log.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task_internal.h"

#define OP "rouse.op"

struct alarm {
    uv_timer_t timer;
    struct op *op;
};

static void task_resume(struct task *task);

/* ---- ready queue ---- */

static void run_ready(uv_idle_t *idle)
{
    struct tasks *tasks = idle->data;
    struct task *task = tasks->ready_first;
    tasks->ready_first = NULL;
    tasks->ready_last = &tasks->ready_first;
    while (task != NULL) { /* only what was ready at the start: I/O gets its turn between rounds */
        struct task *next = task->next_ready;
        task->queued = false;
        task_resume(task);
        task = next;
    }
    if (tasks->ready_first == NULL)
        uv_idle_stop(tasks->idle);
}

static void enqueue(struct task *task)
{
    struct tasks *tasks = task->tasks;
    if (task->queued)
        return;
    task->queued = true;
    task->next_ready = NULL;
    *tasks->ready_last = task;
    tasks->ready_last = &task->next_ready;
    uv_idle_start(tasks->idle, run_ready);
}

/* ---- ops ---- */

static void alarm_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void alarm_drop(struct op *op)
{
    if (op->alarm == NULL)
        return;
    op->alarm->op = NULL;
    uv_close((uv_handle_t *)&op->alarm->timer, alarm_closed);
    op->alarm = NULL;
}

static void op_interrupt(struct op *op, enum op_state state)
{
    alarm_drop(op);
    op->state = state;
    if (op->type->cancel != NULL)
        op->type->cancel(op);
}

static void op_end(struct op *op)
{
    if (op->state == OP_ENDED)
        return;
    alarm_drop(op);
    op->state = OP_ENDED;
    if (op->type->release != NULL)
        op->type->release(op);
}

static int op_gc(lua_State *L)
{
    struct op *op = lua_touserdata(L, 1);
    if (op->state == OP_PENDING)
        op_interrupt(op, OP_CANCELLED);
    op_end(op);
    return 0;
}

int task_raise_cancelled(lua_State *L)
{
    lua_pushliteral(L, "cancelled");
    return lua_error(L);
}

void *op_new(lua_State *L, const struct op_type *type, size_t size)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    struct task *task = tasks->current;
    if (task == NULL)
        luaL_error(L, "%s: cannot wait here (outside a task)", type->name);
    if (task->L != L)
        luaL_error(L, "%s: cannot wait here (inside a coroutine of the script's own)", type->name);
    if (!lua_isyieldable(L))
        luaL_error(L, "%s: cannot wait here (inside require, a sort or gsub callback, or a finalizer)", type->name);
    if (task->cancelled)
        task_raise_cancelled(L);
    struct op *op = lua_newuserdatauv(L, size, 1);
    memset(op, 0, size);
    op->type = type;
    op->task = task;
    luaL_setmetatable(L, OP);
    return op;
}

void op_ready(struct op *op)
{
    if (op->state == OP_NEW) {
        op->state = OP_READY;
    } else if (op->state == OP_PENDING) {
        alarm_drop(op);
        op->state = OP_READY;
        enqueue(op->task);
    }
}

int task_push_true(lua_State *L, struct op *op)
{
    (void)op;
    lua_pushboolean(L, 1);
    return 1;
}

const struct op_type task_sleep_type = {.name = "task.sleep", .push = task_push_true};

static int op_finish(lua_State *L, struct op *op)
{
    op->task->wait = NULL;
    int results = 0;
    if (op->state == OP_CANCELLED) {
        op_end(op);
        return task_raise_cancelled(L);
    }
    if (op->state == OP_TIMED_OUT && op->type != &task_sleep_type)
        results = fail_with(L, "TIMEDOUT", "timed out");
    else
        results = op->type->push(L, op);
    op_end(op);
    return results;
}

static int op_continue(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    return op_finish(L, (struct op *)context);
}

static void alarm_fired(uv_timer_t *timer)
{
    struct alarm *alarm = timer->data;
    struct op *op = alarm->op;
    if (op == NULL || op->state != OP_PENDING)
        return;
    op_interrupt(op, OP_TIMED_OUT);
    enqueue(op->task);
}

/* Milliseconds for libuv, rounded up so that a wait never ends early; far futures are capped. */
static uint64_t milliseconds(double seconds)
{
    if (!(seconds > 0))
        return 0;
    return seconds > 1e9 ? (uint64_t)1e12 : (uint64_t)ceil(seconds * 1000);
}

int op_await(lua_State *L, struct op *op, double timeout)
{
    struct task *task = op->task;
    if (op->state == OP_READY)
        return op_finish(L, op);
    if (timeout >= 0) {
        struct alarm *alarm = calloc(1, sizeof(*alarm));
        if (alarm == NULL)
            return luaL_error(L, "%s: out of memory", op->type->name);
        uv_timer_init(task->tasks->loop, &alarm->timer);
        uv_update_time(task->tasks->loop);
        alarm->timer.data = alarm;
        alarm->op = op;
        op->alarm = alarm;
        uv_timer_start(&alarm->timer, alarm_fired, milliseconds(timeout), 0);
    }
    op->state = OP_PENDING;
    task->wait = op;
    return lua_yieldk(L, 0, (lua_KContext)op, op_continue);
}

/* ---- the life of a task ---- */

static void task_leave_parent(struct task *task)
{
    if (task->parent == NULL)
        return;
    struct task **link = &task->parent->first_child;
    while (*link != task)
        link = &(*link)->next_sibling;
    *link = task->next_sibling;
}

void task_interrupt(struct task *task)
{
    if (task->state > TASK_RUNNING)
        return;
    task->cancelled = true;
    if (task->wait != NULL && task->wait->state == OP_PENDING) {
        op_interrupt(task->wait, OP_CANCELLED);
        enqueue(task);
    }
}

/* Protected: pushes "message\nstack traceback:..." onto the failed coroutine in place of its error value. */
static int add_traceback(lua_State *L)
{
    lua_State *co = lua_touserdata(L, 1);
    const char *message = lua_tostring(co, -1);
    luaL_traceback(L, co, message != NULL ? message : luaL_tolstring(co, -1, NULL), 0);
    lua_xmove(L, co, 1);
    return 0;
}

static void task_report(struct task *task)
{
    if (task->outcome != TASK_FAILED || task->joiners != NULL || task->parent == NULL)
        return;
    const char *message = lua_tostring(task->L, -1);
    log_write(rouse_log(task->tasks->rouse), LOG_LEVEL_ERROR, "task", "%s", message != NULL ? message : "failed");
}

static void task_end(struct task *task)
{
    struct tasks *tasks = task->tasks;
    task->state = task->outcome;
    task_report(task);
    for (struct op *op = task->joiners, *next; op != NULL; op = next) {
        next = op->next;
        op_ready(op);
    }
    task->joiners = NULL;
    tasks->count--;
    struct task *parent = task->parent;
    task_leave_parent(task);
    task->parent = NULL;
    if (parent != NULL && parent->state == TASK_CLOSING && parent->first_child == NULL)
        task_end(parent);
    lua_pushnil(tasks->base); /* no longer anchored: may be collected from here on */
    lua_rawsetp(tasks->base, LUA_REGISTRYINDEX, task);
}

/* The function has returned or failed: what it started and left running ends with it. */
static void task_close(struct task *task, enum task_state outcome)
{
    task->outcome = outcome;
    task->state = TASK_CLOSING;
    task->wait = NULL;
    if (task->first_child == NULL) {
        task_end(task);
        return;
    }
    for (struct task *child = task->first_child; child != NULL; child = child->next_sibling)
        task_interrupt(child);
}

static void task_fail(struct task *task)
{
    lua_State *base = task->tasks->base;
    lua_pushcfunction(base, add_traceback);
    lua_pushlightuserdata(base, task->L);
    if (lua_pcall(base, 1, 0, 0) != LUA_OK)
        lua_pop(base, 1); /* no memory for a traceback: the bare message stays */
    lua_State *co = task->L;
    const char *text = lua_tostring(co, -1);
    bool cancelled = task->cancelled && text != NULL && strncmp(text, "cancelled", 9) == 0;
    /* lua_resetthread runs pending <close> variables and leaves one error value: keep ours beside the coroutine. */
    lua_xmove(co, base, 1);
    lua_resetthread(co);
    lua_settop(co, 0);
    lua_xmove(base, co, 1);
    task_close(task, cancelled ? TASK_CANCELLED : TASK_FAILED);
}

/* The only lua_resume of the program. */
static void task_resume(struct task *task)
{
    struct tasks *tasks = task->tasks;
    struct budget *budget = rouse_budget(tasks->rouse);
    if (task->state == TASK_STARTING && task->cancelled) {
        lua_settop(task->L, 0);
        lua_pushliteral(task->L, "cancelled");
        task_close(task, TASK_CANCELLED);
        return;
    }
    if (task->state > TASK_RUNNING)
        return;
    int nargs = task->state == TASK_STARTING ? task->nargs : 0, nresults = 0;
    task->state = TASK_RUNNING;
    tasks->current = task;
    if (task->guards > 0)
        budget_enter(budget, task->L);
    int status = lua_resume(task->L, tasks->base, nargs, &nresults);
    log_release(rouse_log(tasks->rouse)); /* before anybody else runs, and what was started takes effect */
    budget_leave(budget, task->L);
    tasks->current = NULL;
    if (status == LUA_YIELD && task->wait != NULL)
        return;
    if (status == LUA_YIELD) {
        lua_pop(task->L, nresults);
        lua_pushliteral(task->L, "coroutine.yield outside a coroutine of the script's own");
        status = LUA_ERRRUN;
    }
    if (status == LUA_OK)
        task_close(task, TASK_DONE);
    else
        task_fail(task);
}

struct task *task_new(lua_State *L, struct tasks *tasks, int nargs)
{
    struct task *task = lua_newuserdatauv(L, sizeof(*task), 1); /* L: f args... task */
    memset(task, 0, sizeof(*task));
    task->tasks = tasks;
    task->state = TASK_DONE; /* until it is complete: an error below leaves a valid ended task */
    luaL_setmetatable(L, TASK_TYPE);
    task->L = lua_newthread(L); /* L: f args... task co */
    lua_setiuservalue(L, -2, 1);
    lua_insert(L, -nargs - 2); /* L: task f args... */
    if (!lua_checkstack(task->L, nargs + LUA_MINSTACK))
        luaL_error(L, "task.spawn: too many arguments");
    lua_pushvalue(L, -nargs - 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, task);
    lua_xmove(L, task->L, nargs + 1);
    task->nargs = nargs;
    task->state = TASK_STARTING;
    task->parent = tasks->current;
    if (task->parent != NULL) {
        task->next_sibling = task->parent->first_child;
        task->parent->first_child = task;
    }
    tasks->count++;
    enqueue(task);
    return task;
}

void task_register_op(lua_State *L)
{
    if (luaL_newmetatable(L, OP)) {
        lua_pushcfunction(L, op_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
}

static void idle_closed(uv_handle_t *handle)
{
    free(handle);
}

struct tasks *tasks_new(struct rouse *rouse, lua_State *L, uv_loop_t *loop)
{
    struct tasks *tasks = calloc(1, sizeof(*tasks));
    if (tasks == NULL)
        return NULL;
    tasks->idle = calloc(1, sizeof(*tasks->idle));
    if (tasks->idle == NULL) {
        free(tasks);
        return NULL;
    }
    tasks->rouse = rouse;
    tasks->base = tasks->main = L;
    tasks->loop = loop;
    tasks->ready_last = &tasks->ready_first;
    uv_idle_init(loop, tasks->idle);
    tasks->idle->data = tasks;
    return tasks;
}

void tasks_free(struct tasks *tasks)
{
    if (tasks == NULL)
        return;
    uv_close((uv_handle_t *)tasks->idle, idle_closed);
    free(tasks);
}
