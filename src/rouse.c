#include "rouse.h"

#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "budget.h"
#include "log.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task.h"

#ifndef ROUSE_VERSION
#define ROUSE_VERSION "0.0.0"
#endif

#define CLOSE_SECONDS 6 /* how long rouse_free waits for what closes in the background */

struct rouse {
    lua_State *L;
    uv_loop_t *loop;
    struct log *log;
    struct budget *budget;
    struct tasks *tasks;
};

uv_loop_t *rouse_loop(struct rouse *rouse)
{
    return rouse->loop;
}

struct log *rouse_log(struct rouse *rouse)
{
    return rouse->log;
}

struct tasks *rouse_tasks(struct rouse *rouse)
{
    return rouse->tasks;
}

struct budget *rouse_budget(struct rouse *rouse)
{
    return rouse->budget;
}

const char *rouse_version(void)
{
    return ROUSE_VERSION;
}

/* ---- Lua side: modules, embedded texts, the searcher ---- */

static const struct embedded *find_embedded(const char *name)
{
    for (const struct embedded *e = rouse_embedded; e->name != NULL; e++)
        if (strcmp(e->name, name) == 0)
            return e;
    return NULL;
}

/* package.searchers entry: Lua modules that were compiled in. */
static int search_embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const struct embedded *e = find_embedded(name);
    if (e == NULL) {
        lua_pushfstring(L, "no embedded module '%s'", name);
        return 1;
    }
    lua_pushfstring(L, "@%s", e->path);
    if (luaL_loadbufferx(L, (const char *)e->text, e->size, lua_tostring(L, -1), "t") != LUA_OK)
        return lua_error(L);
    lua_pushstring(L, e->path);
    return 2;
}

/* rouse.embedded(name) -> text, path | nil: scripts and resources that were compiled in. */
static int l_embedded(lua_State *L)
{
    const struct embedded *e = find_embedded(luaL_checkstring(L, 1));
    if (e == NULL) {
        luaL_pushfail(L);
        return 1;
    }
    lua_pushlstring(L, (const char *)e->text, e->size);
    lua_pushstring(L, e->path);
    return 2;
}

/* The modules in C, each opened on first require. */
static const luaL_Reg modules[] = {
    {"rouse.core.task", task_open},
    {"rouse.core.sys", sys_open},
    {"rouse.core.kafka", kafka_open},
    {"rouse.core.http", http_open},
    {"rouse.core.pattern", pattern_open},
    {"rouse.json", json_open},
    {"rouse.yaml", yaml_open},
    {"rouse.process", process_open},
    {"rouse.log", log_open},
    {NULL, NULL},
};

/* Where the library's Lua comes from in the program: ROUSE_LUA, else what is compiled in; never the working directory. */
static void set_search_path(lua_State *L)
{
    const char *dir = getenv("ROUSE_LUA");
    lua_getglobal(L, "package"); /* L: package */
    if (dir != NULL && dir[0] != '\0')
        lua_pushfstring(L, "%s/?.lua", dir);
    else
        lua_pushliteral(L, "");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    lua_pop(L, 1);
}

/* Pushes the module table of "rouse" and makes every other module requirable. Upvalue 1: the host. */
static int open_modules(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload"); /* L: package preload */
    for (const luaL_Reg *m = modules; m->name != NULL; m++) {
        if (m->func == NULL)
            continue;
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushcclosure(L, m->func, 1);
        lua_setfield(L, -2, m->name);
    }
    lua_pop(L, 1);
    lua_getfield(L, -1, "searchers"); /* L: package searchers */
    lua_pushcfunction(L, search_embedded);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 2);

    lua_newtable(L); /* L: rouse */
    lua_pushstring(L, rouse_version());
    lua_setfield(L, -2, "version");
    lua_pushcfunction(L, l_embedded);
    lua_setfield(L, -2, "embedded");
    lua_newtable(L);
    lua_setfield(L, -2, "added"); /* modules of an embedding program, which scripts may require */
    return 1;
}

/* ---- lifetime ---- */

/* A peer that hangs up is an error of one write, not the end of the program. A handler of the program's own stays. */
static void ignore_broken_pipes(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

static struct rouse *host_new(void)
{
    struct rouse *rouse = calloc(1, sizeof(*rouse));
    if (rouse == NULL)
        return NULL;
    ignore_broken_pipes();
    rouse->loop = malloc(sizeof(*rouse->loop));
    rouse->log = log_new();
    rouse->budget = budget_new();
    if (rouse->loop == NULL || rouse->log == NULL || rouse->budget == NULL || uv_loop_init(rouse->loop) != 0) {
        free(rouse->loop);
        log_free(rouse->log);
        budget_free(rouse->budget);
        free(rouse);
        return NULL;
    }
    return rouse;
}

static void stop_waiting(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void close_left(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* Handles close in the background (a Kafka handle on a worker thread): give them their time, then give up: false. */
static bool drain_loop(uv_loop_t *loop)
{
    uv_timer_t patience;
    uv_timer_init(loop, &patience);
    uv_timer_start(&patience, stop_waiting, CLOSE_SECONDS * 1000, 0);
    uv_unref((uv_handle_t *)&patience);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&patience, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
    if (uv_loop_close(loop) == 0)
        return true;
    uv_walk(loop, close_left, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
    return uv_loop_close(loop) == 0;
}

/* After the Lua state's objects are gone. */
static void host_free(struct rouse *rouse)
{
    tasks_free(rouse->tasks);
    if (drain_loop(rouse->loop)) /* closed once: libuv says busy of a closed loop */
        free(rouse->loop); /* else a worker still uses it: the process is about to end, leaking beats crashing */
    budget_free(rouse->budget);
    log_free(rouse->log);
    free(rouse);
}

/* Patterns in this state obey the CPU budget, also those of methods: ("text"):find(...). */
static void bound_patterns(lua_State *L, struct rouse *rouse)
{
    lua_pushlightuserdata(L, rouse);
    lua_pushcclosure(L, pattern_open, 1);
    lua_call(L, 0, 1);
    lua_getglobal(L, "string"); /* L: pattern string */
    for (lua_pushnil(L); lua_next(L, -3) != 0; lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, -5); /* L: pattern string name function */
    }
    lua_pop(L, 2);
}

static int init_state(lua_State *L)
{
    struct rouse *rouse = lua_touserdata(L, 1);
    luaL_openlibs(L);
    budget_attach(rouse->budget, L);
    set_search_path(L);
    bound_patterns(L, rouse);
    lua_pushlightuserdata(L, rouse);
    lua_pushcclosure(L, open_modules, 1);
    lua_call(L, 0, 1); /* L: host rouse */
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "rouse");
    return 0;
}

struct rouse *rouse_new(void)
{
    struct rouse *rouse = host_new();
    if (rouse == NULL)
        return NULL;
    rouse->L = lua_newstate(budget_alloc, rouse->budget);
    if (rouse->L != NULL)
        rouse->tasks = tasks_new(rouse, rouse->L, rouse->loop);
    if (rouse->tasks != NULL) {
        lua_pushcfunction(rouse->L, init_state);
        lua_pushlightuserdata(rouse->L, rouse);
        if (lua_pcall(rouse->L, 1, 0, 0) == LUA_OK)
            return rouse;
    }
    rouse_free(rouse);
    return NULL;
}

void rouse_free(struct rouse *rouse)
{
    if (rouse == NULL)
        return;
    if (rouse->L != NULL)
        lua_close(rouse->L);
    host_free(rouse);
}

lua_State *rouse_lua(struct rouse *rouse)
{
    return rouse->L;
}

void rouse_limits(struct rouse *rouse, size_t memory, double burst)
{
    budget_set(rouse->budget, memory, burst);
}

/* ---- running ---- */

static int add_function(lua_State *L)
{
    const char *module = lua_touserdata(L, 1), *name = lua_touserdata(L, 2);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "rouse");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "added"); /* L: module name function rouse added */
    luaL_getsubtable(L, -1, module);
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, name);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, module);
    return 0;
}

int rouse_add(struct rouse *rouse, const char *module, const char *name, lua_CFunction function)
{
    lua_State *L = rouse->L;
    lua_pushcfunction(L, add_function);
    lua_pushlightuserdata(L, (void *)(size_t)module);
    lua_pushlightuserdata(L, (void *)(size_t)name);
    lua_pushcfunction(L, function);
    if (lua_pcall(L, 3, 0, 0) == LUA_OK)
        return 0;
    lua_pop(L, 1);
    return -1;
}

static int traceback(lua_State *L)
{
    const char *message = lua_tostring(L, 1);
    luaL_traceback(L, L, message != NULL ? message : luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

struct command {
    int argc;
    const char *const *argv;
};

static int call_cli(lua_State *L)
{
    const struct command *command = lua_touserdata(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "rouse.cli");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    lua_createtable(L, command->argc, 0);
    for (int i = 0; i < command->argc; i++) {
        lua_pushstring(L, command->argv[i]);
        lua_rawseti(L, -2, i); /* argv[0], the program, is at 0 as in Lua's own `arg` */
    }
    lua_call(L, 1, 1);
    return 1;
}

int rouse_main(struct rouse *rouse, int argc, const char *const argv[])
{
    lua_State *L = rouse->L;
    struct command command = {argc, argv};
    int code = 70;
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, call_cli);
    lua_pushlightuserdata(L, &command);
    if (lua_pcall(L, 1, 1, -3) == LUA_OK)
        code = (int)lua_tointeger(L, -1);
    else
        log_write(rouse->log, LOG_LEVEL_ERROR, NULL, "%s", lua_tostring(L, -1));
    lua_pop(L, 2);
    return code;
}

int rouse_run(struct rouse *rouse, const char *script, int argc, const char *const argv[])
{
    const char **args = calloc((size_t)argc + 4, sizeof(*args));
    if (args == NULL)
        return 70;
    args[0] = "rouse";
    args[1] = "run";
    args[2] = "--"; /* the script's arguments are not ours, whatever they look like */
    args[3] = script;
    for (int i = 0; i < argc; i++)
        args[i + 4] = argv[i];
    int code = rouse_main(rouse, argc + 4, args);
    free(args);
    return code;
}

/* ---- plain Lua ---- */

#define HOST "rouse.host"

static int host_gc(lua_State *L)
{
    struct rouse **box = lua_touserdata(L, 1);
    if (*box != NULL)
        host_free(*box);
    *box = NULL;
    return 0;
}

int luaopen_rouse(lua_State *L)
{
    /* busted forgets package.loaded between files. A second host in this state would find the metatables of the first. */
    if (lua_getfield(L, LUA_REGISTRYINDEX, HOST ".module") == LUA_TTABLE)
        return 1;
    lua_pop(L, 1);
    /* Created before everything else of ours: finalizers run in reverse order, so the host goes last. */
    struct rouse **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    if (luaL_newmetatable(L, HOST)) {
        lua_pushcfunction(L, host_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2); /* L: ... box */
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *main = lua_tothread(L, -1);
    lua_pop(L, 1);
    struct rouse *rouse = *box = host_new();
    if (rouse == NULL)
        return luaL_error(L, "rouse: out of memory");
    rouse->L = main;
    budget_set(rouse->budget, 0, budget_burst(rouse->budget));
    budget_attach(rouse->budget, L);
    rouse->tasks = tasks_new(rouse, main, rouse->loop);
    if (rouse->tasks == NULL)
        return luaL_error(L, "rouse: out of memory");
    lua_setfield(L, LUA_REGISTRYINDEX, HOST ".box");
    lua_pushlightuserdata(L, rouse);
    lua_pushcclosure(L, open_modules, 1);
    lua_call(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, HOST ".module");
    return 1;
}
