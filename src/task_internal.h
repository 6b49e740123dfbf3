/*
 * What task.c (the scheduler) shares with lua_task.c (the module of scripts) and lua_guard.c (guarded calls); nobody else
 * includes it.
 */
#ifndef ROUSE_TASK_INTERNAL_H
#define ROUSE_TASK_INTERNAL_H

#include "task.h"

#define TASK_TYPE "rouse.task"

enum task_state { TASK_STARTING, TASK_RUNNING, TASK_CLOSING, TASK_DONE, TASK_FAILED, TASK_CANCELLED };

/* The payload of a task's userdata; its user value 1 is the coroutine. Anchored in the registry until it ended. */
struct task {
    struct tasks *tasks;
    lua_State *L;                /* the coroutine: results or the error stay on its stack after the end */
    struct task *parent, *first_child, *next_sibling;
    struct task *next_ready;
    struct op *wait;
    struct op *joiners;
    enum task_state state, outcome;
    bool queued, cancelled, permit, joined;
    int nargs, guards;           /* guards: depth of task_guard around what runs */
};

struct tasks {
    lua_State *base;             /* who runs the loop now: resumes come from it */
    lua_State *main;
    uv_loop_t *loop;
    uv_idle_t *idle;             /* active while something is ready, so that the loop does not sleep */
    struct rouse *rouse;
    struct task *current;
    struct task *ready_first, **ready_last;
    size_t count;
    bool running, exhausted;     /* exhausted: memory stayed full after an out-of-memory */
};

extern const struct op_type task_sleep_type;

/* Registers the metatable of ops. */
void task_register_op(lua_State *L);

/* Pushes the new task's userdata; function and arguments are the `nargs` + 1 values on top, which it takes. May raise. */
struct task *task_new(lua_State *L, struct tasks *tasks, int nargs);

/* Cancels: a pending wait raises "cancelled", and so does every later one. Nothing happens to an ended task. */
void task_interrupt(struct task *task);

/* Raises "cancelled". */
int task_raise_cancelled(lua_State *L);

/* Adds guard and cursor to the module table on top of the stack (lua_guard.c). */
void guard_functions(lua_State *L);

/* The push of ops whose only result is true. */
int task_push_true(lua_State *L, struct op *op);

#endif
