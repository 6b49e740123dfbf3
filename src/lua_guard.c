/*
 * Guarded calls: task.guard for one call under the limits of scripts, and cursors, which make the
 * calls of a whole stretch of records for the price of one guard.
 */
#include <lauxlib.h>
#include <string.h>
#include <time.h>

#include "budget.h"
#include "log.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task_internal.h"

#define CURSOR "rouse.cursor"

static int guard_handler(lua_State *L)
{
    const char *message = lua_tostring(L, 1);
    if (message == NULL)
        message = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, message, 1);
    return 1;
}

/* Replaces the error on top by false, message, code, traceback. */
static int guard_failed(lua_State *L, struct task *task, int status, bool expired)
{
    struct budget *budget = rouse_budget(task->tasks->rouse);
    char where[160];
    budget_take_refused(budget, where, sizeof(where));
    if (status == LUA_ERRMEM) { /* what the failed call held is garbage now, unless a global keeps it */
        lua_gc(L, LUA_GCCOLLECT);
        task->tasks->exhausted |= budget_memory(budget) != 0 && budget_used(budget) > budget_memory(budget) / 10 * 8;
    }
    const char *text = lua_tostring(L, -1); /* L: ... text */
    const char *trace = text != NULL ? strstr(text, "\nstack traceback:") : NULL;
    lua_pushboolean(L, 0);
    if (status == LUA_ERRMEM)
        lua_pushfstring(L, "%snot enough memory (the limit is %d MiB)", where, (int)(budget_memory(budget) >> 20));
    else if (trace != NULL)
        lua_pushlstring(L, text, (size_t)(trace - text));
    else
        lua_pushvalue(L, -2);
    lua_pushstring(L, expired ? "CPU" : status == LUA_ERRMEM ? "MEMORY" : task->cancelled ? "CANCELLED" : "ERROR");
    lua_pushstring(L, trace != NULL ? trace + 1 : "");
    return 4;
}

static int guard_continue(lua_State *L, int status, lua_KContext context)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    struct task *task = tasks->current;
    struct budget *budget = rouse_budget(tasks->rouse);
    int base = (int)context; /* index of the message handler */
    bool expired = false;
    if (--task->guards == 0) { /* an inner guard must not swallow the limits of an outer one */
        budget_leave(budget, L);
        expired = budget_take_expired(budget, L);
    }
    if (status != LUA_OK && status != LUA_YIELD)
        return guard_failed(L, task, status, expired);
    lua_pushboolean(L, 1);
    lua_replace(L, base);
    return lua_gettop(L) - base + 1;
}

int task_guard(lua_State *L, int nargs)
{
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    struct task *task = tasks->current;
    if (task == NULL || task->L != L)
        return luaL_error(L, "task.guard: cannot be called here (outside a task)");
    int base = lua_gettop(L) - nargs;
    lua_pushcfunction(L, guard_handler);
    lua_insert(L, base); /* L: ... handler f args... */
    if (task->guards++ == 0)
        budget_enter(rouse_budget(tasks->rouse), L);
    int status = lua_pcallk(L, nargs, LUA_MULTRET, base, base, guard_continue);
    return guard_continue(L, status, base);
}

static int l_guard(lua_State *L)
{
    luaL_checkany(L, 1);
    return task_guard(L, lua_gettop(L) - 1);
}

/* ---- cursors ---- */

/*
 * Goes through an array, calling fn(item, ctx) for each. User values: fn, ctx. One error handler
 * and one pcall serve a stretch, where a guard of its own for each call costs as much as a small
 * fn itself; each call still has the whole CPU budget.
 */
struct cursor {
    struct task *task;          /* NULL: not running */
    lua_Integer at, last;       /* at: the item under way; all before it are done */
    double now, started, until; /* ctx.now; the stretch */
    int stride, unseen;         /* calls from one look at the clock to the next; what is left of them */
};

/*
 * The clock is looked at for each call of a handler that takes its time, for one in eight of a
 * handler that makes many calls while it stands still: reading it costs as much as a small handler.
 */
#define STRIDE_MAX 8

/* The stack of body: its arguments and what it keeps. */
enum { CURSOR_AT = 1, ITEMS, FN, CTX, NOW, DONE };

static int body_continue(lua_State *L, int status, lua_KContext context);

/* A clock that costs next to nothing; it moves every few milliseconds. */
static double coarse_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Brings ctx.now up to date. Returns whether the stretch may go on. */
static bool look_at_clock(lua_State *L, struct cursor *cursor)
{
    double now = coarse_now();
    if (now == cursor->now) {
        if (cursor->stride < STRIDE_MAX)
            cursor->stride *= 2;
        cursor->unseen = cursor->stride;
        return true;
    }
    cursor->stride = cursor->unseen = 1;
    cursor->now = now;
    lua_pushvalue(L, NOW);
    lua_pushnumber(L, now);
    lua_rawset(L, CTX);
    return now >= cursor->started && now < cursor->until;
}

/* Returns nothing while all is well, the outcome of the first call that was not "done" otherwise. */
static int body_loop(lua_State *L, struct cursor *cursor)
{
    struct budget *budget = rouse_budget(cursor->task->tasks->rouse);
    bool outermost = cursor->task->guards == 1;
    const void *done = lua_topointer(L, DONE); /* short strings are unique in a state */
    while (cursor->at <= cursor->last && (--cursor->unseen > 0 || look_at_clock(L, cursor))) {
        if (outermost)
            budget_renew(budget, L);
        lua_pushvalue(L, FN);
        lua_rawgeti(L, ITEMS, cursor->at);
        lua_pushvalue(L, CTX);
        lua_callk(L, 2, 2, (lua_KContext)cursor, body_continue);
        if (lua_topointer(L, DONE + 1) != done)
            return 2;
        lua_settop(L, DONE);
        cursor->at++;
    }
    return 0;
}

/* A call that waited ends the stretch: meanwhile the caller may have been told to stop. */
static int body_continue(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    if (!lua_rawequal(L, DONE + 1, DONE))
        return 2;
    ((struct cursor *)context)->at++;
    return 0;
}

static int body(lua_State *L)
{
    struct cursor *cursor = lua_touserdata(L, CURSOR_AT);
    lua_getiuservalue(L, CURSOR_AT, 1);
    lua_getiuservalue(L, CURSOR_AT, 2);
    lua_pushliteral(L, "now");
    lua_pushliteral(L, "done");
    log_hold(rouse_log(cursor->task->tasks->rouse)); /* the lines of a stretch go out together */
    return body_loop(L, cursor);
}

static int run_continue(lua_State *L, int status, lua_KContext context)
{
    struct cursor *cursor = lua_touserdata(L, 1);
    log_release(rouse_log(cursor->task->tasks->rouse));
    cursor->task = NULL;
    int count = guard_continue(L, status, context); /* L: ... ok results */
    if (count == 1) {
        lua_pushinteger(L, cursor->at);
        return 1;
    }
    lua_pushinteger(L, cursor->at);
    lua_insert(L, -count - 1);
    return count + 1;
}

/* cursor:run(items, first, last, seconds) -> next, and what task.guard returned unless "done" */
static int l_cursor_run(lua_State *L)
{
    struct cursor *cursor = luaL_checkudata(L, 1, CURSOR);
    struct tasks *tasks = rouse_tasks(util_rouse(L));
    struct task *task = tasks->current;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer first = luaL_checkinteger(L, 3), last = luaL_checkinteger(L, 4);
    double seconds = luaL_checknumber(L, 5);
    if (task == NULL || task->L != L)
        return luaL_error(L, "cursor:run: cannot be called here (outside a task)");
    if (cursor->task != NULL)
        return luaL_error(L, "cursor:run: already running");
    lua_settop(L, 2);
    cursor->task = task;
    cursor->at = first;
    cursor->last = last;
    cursor->now = 0;
    cursor->unseen = 0;
    cursor->started = coarse_now();
    cursor->until = cursor->started + seconds;
    lua_pushcfunction(L, guard_handler);
    lua_pushcfunction(L, body);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    if (task->guards++ == 0)
        budget_enter(rouse_budget(tasks->rouse), L);
    int status = lua_pcallk(L, 2, LUA_MULTRET, 3, 3, run_continue);
    return run_continue(L, status, 3);
}

/* cursor:at() -> index of the item under way; all before it are done */
static int l_cursor_at(lua_State *L)
{
    lua_pushinteger(L, ((struct cursor *)luaL_checkudata(L, 1, CURSOR))->at);
    return 1;
}

/* task.cursor(fn, ctx) */
static int l_cursor(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct cursor *cursor = lua_newuserdatauv(L, sizeof(*cursor), 2);
    memset(cursor, 0, sizeof(*cursor));
    luaL_setmetatable(L, CURSOR);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 2);
    return 1;
}

static int no_close(lua_State *L)
{
    (void)L;
    return 0;
}

void guard_functions(lua_State *L)
{
    static const luaL_Reg methods[] = {{"run", l_cursor_run}, {"at", l_cursor_at}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"guard", l_guard}, {"cursor", l_cursor}, {NULL, NULL}};
    box_type(L, CURSOR, methods, no_close);
    lua_pushvalue(L, lua_upvalueindex(1));
    luaL_setfuncs(L, functions, 1);
}
