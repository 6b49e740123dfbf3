/* rouse.process: child processes of scripts and targets. */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "lua_modules.h"
#include "lua_util.h"
#include "process.h"
#include "rouse_internal.h"
#include "task.h"

#define BOX "rouse.process"

struct box {
    struct process *process; /* NULL: closed */
};

/* A wait for anything of a child. The box is an argument of the waiting call and outlives the op. */
struct child_op {
    struct op op;
    struct process_watch watch;
    struct box *box;
    enum process_stream stream;
};

static const char *const stream_names[] = {"stdin", "stdout", "stderr"};

static struct box *check_open(lua_State *L, int index)
{
    struct box *box = box_check(L, index, BOX);
    if (box->process == NULL)
        box_closed(L, index, BOX);
    return box;
}

/* ---- spawn */

/* The string or number at the top, popped, as a C string that the table at `anchors` keeps. */
static char *keep_string(lua_State *L, int anchors, const char *what)
{
    size_t length;
    const char *s = lua_tolstring(L, -1, &length);
    if (s == NULL)
        luaL_error(L, "process.spawn: %s: string expected, got %s", what, luaL_typename(L, -1));
    if (strlen(s) != length)
        luaL_error(L, "process.spawn: %s: contains a NUL byte", what);
    lua_rawseti(L, anchors, (lua_Integer)lua_rawlen(L, anchors) + 1);
    return (char *)(size_t)s; /* uv_spawn takes char *, and does not write */
}

/* Pushes a userdata with the arguments, NULL at the end. */
static char **push_args(lua_State *L, int options, int anchors)
{
    if (lua_getfield(L, options, "command") != LUA_TTABLE)
        luaL_error(L, "process.spawn: option 'command': array of strings expected, got %s",
                   luaL_typename(L, -1));
    size_t count = lua_rawlen(L, -1);
    if (count == 0)
        luaL_error(L, "process.spawn: option 'command' is empty");
    char **args = lua_newuserdatauv(L, (count + 1) * sizeof(*args), 0); /* L: ... command args */
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1);
        args[i] = keep_string(L, anchors, "command");
    }
    args[count] = NULL;
    return args;
}

/* Pushes a userdata with "NAME=value" strings, or nothing and returns NULL to inherit. */
static char **push_env(lua_State *L, int options, int anchors)
{
    int type = lua_getfield(L, options, "env");
    if (type == LUA_TNIL)
        return NULL;
    if (type != LUA_TTABLE)
        luaL_error(L, "process.spawn: option 'env': table expected, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    size_t count = 0, i = 0;
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1))
        count++;
    char **env = lua_newuserdatauv(L, (count + 1) * sizeof(*env), 0); /* L: ... table env */
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (name == NULL || *name == '\0' || strchr(name, '=') != NULL)
            luaL_error(L, "process.spawn: env: names are strings without '='");
        if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
            luaL_error(L, "process.spawn: env.%s: string expected, got %s", name,
                       luaL_typename(L, -1));
        lua_pushvalue(L, -2);
        lua_pushliteral(L, "=");
        lua_pushvalue(L, -3);
        lua_concat(L, 3); /* L: ... env name value "name=value" */
        env[i++] = keep_string(L, anchors, name);
    }
    env[i] = NULL;
    return env;
}

static enum process_stdio check_stdio(lua_State *L, int options, enum process_stream stream)
{
    const char *def = stream == PROCESS_STDIN ? "null" : "inherit";
    const char *how = opt_string(L, options, stream_names[stream], def, NULL);
    if (strcmp(how, "null") == 0)
        return PROCESS_NULL;
    if (strcmp(how, "pipe") == 0)
        return PROCESS_PIPE;
    if (strcmp(how, "inherit") == 0)
        return PROCESS_INHERIT;
    luaL_error(L, "process.spawn: option '%s': one of inherit, null, pipe expected, got '%s'",
               stream_names[stream], how);
    return PROCESS_NULL;
}

/* spawn{command={...}, env=, cwd=, stdin=, stdout=, stderr=, group=} -> child | nil, message, code */
static int l_spawn(lua_State *L)
{
    static const char *const names[] = {"command", "env",    "cwd",   "stdin",
                                        "stdout",  "stderr", "group", NULL};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    opt_keys(L, 1, "process.spawn", names);
    lua_newtable(L); /* L: options anchors */
    struct process_options options = {.cwd = opt_string(L, 1, "cwd", NULL, NULL),
                                      .group = opt_boolean(L, 1, "group", false)};
    for (int i = 0; i < 3; i++)
        options.stdio[i] = check_stdio(L, 1, (enum process_stream)i);
    options.args = push_args(L, 1, 2);
    options.env = push_env(L, 1, 2);
    struct box *box = box_new(L, sizeof(*box), BOX);
    struct err err;
    box->process = process_spawn(rouse_loop(util_rouse(L)), &options, &err);
    return box->process != NULL ? 1 : fail(L, &err);
}

/* ---- waits */

static void watch_done(struct process_watch *watch)
{
    struct child_op *o = (struct child_op *)((char *)watch - offsetof(struct child_op, watch));
    op_ready(&o->op);
}

static void stop_watching(struct op *op)
{
    process_unwatch(&((struct child_op *)op)->watch);
}

static struct child_op *new_op(lua_State *L, const struct op_type *type, struct box *box)
{
    struct child_op *o = op_new(L, type, sizeof(*o));
    o->box = box;
    o->watch.done = watch_done;
    return o;
}

static double check_timeout(lua_State *L, int index, const char *where)
{
    static const char *const names[] = {"timeout", NULL};
    opt_keys(L, index, where, names);
    return opt_number(L, index, "timeout", -1);
}

static int push_exit(lua_State *L, struct op *op)
{
    struct child_op *o = (struct child_op *)op;
    int code, number;
    if (o->watch.status != 0 || o->box->process == NULL)
        return fail_with(L, "CLOSED", "the process was closed");
    process_ended(o->box->process, &code, &number);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, code);
    lua_setfield(L, -2, "code");
    if (number != 0) {
        const char *name = process_signal_name(number);
        if (name != NULL)
            lua_pushstring(L, name);
        else
            lua_pushfstring(L, "%d", number); /* a real-time signal */
        lua_setfield(L, -2, "signal");
    }
    return 1;
}

static const struct op_type wait_type = {
    .name = "process.wait", .push = push_exit, .cancel = stop_watching, .release = stop_watching};

/* child:wait{timeout=} -> {code=, signal=} */
static int l_wait(lua_State *L)
{
    struct box *box = check_open(L, 1);
    double timeout = check_timeout(L, 2, "process.wait");
    struct child_op *o = new_op(L, &wait_type, box);
    process_watch_exit(box->process, &o->watch);
    return op_await(L, &o->op, timeout);
}

static int push_chunk(lua_State *L, struct op *op)
{
    struct child_op *o = (struct child_op *)op;
    struct process *process = o->box->process;
    if (o->watch.status != 0 || process == NULL)
        return fail_with(L, "CLOSED", "the process was closed");
    const char *data;
    size_t length = process_peek(process, o->stream, &data);
    if (length == 0)
        return fail_with(L, "EOF", "end of file");
    lua_pushlstring(L, data, length);
    process_take(process, o->stream);
    return 1;
}

static const struct op_type read_type = {
    .name = "process.read", .push = push_chunk, .cancel = stop_watching, .release = stop_watching};

/* child:read{stream="stdout", timeout=} -> chunk | nil, "end of file", "EOF" */
static int l_read(lua_State *L)
{
    static const char *const names[] = {"stream", "timeout", NULL};
    struct box *box = check_open(L, 1);
    opt_keys(L, 2, "process.read", names);
    double timeout = opt_number(L, 2, "timeout", -1);
    const char *name = opt_string(L, 2, "stream", "stdout", NULL);
    enum process_stream stream = strcmp(name, "stderr") == 0 ? PROCESS_STDERR : PROCESS_STDOUT;
    if (strcmp(name, stream_names[stream]) != 0)
        return luaL_error(L, "process.read: option 'stream': stdout or stderr expected, got '%s'",
                          name);
    if (!process_is_pipe(box->process, stream))
        return luaL_error(L, "process.read: %s is no pipe", name);
    if (process_is_watched(box->process, stream))
        return luaL_error(L, "process.read: another task is reading %s", name);
    struct child_op *o = new_op(L, &read_type, box);
    o->stream = stream;
    process_watch_stream(box->process, stream, &o->watch);
    return op_await(L, &o->op, timeout);
}

static int push_written(lua_State *L, struct op *op)
{
    struct child_op *o = (struct child_op *)op;
    if (o->box->process == NULL)
        return fail_with(L, "CLOSED", "the process was closed");
    if (o->watch.status != 0)
        return fail_with(L, uv_err_name(o->watch.status), "cannot write to the process: %s",
                         uv_strerror(o->watch.status));
    lua_pushboolean(L, 1);
    return 1;
}

static const struct op_type write_type = {.name = "process.write",
                                          .push = push_written,
                                          .cancel = stop_watching,
                                          .release = stop_watching};

/* child:write(data, {timeout=}) -> true: all is in the pipe. After a time-out it still goes there. */
static int l_write(lua_State *L)
{
    size_t length;
    struct box *box = check_open(L, 1);
    const char *data = luaL_checklstring(L, 2, &length);
    double timeout = check_timeout(L, 3, "process.write");
    if (!process_is_pipe(box->process, PROCESS_STDIN))
        return luaL_error(L, "process.write: stdin is no pipe");
    struct child_op *o = new_op(L, &write_type, box);
    struct err err;
    if (process_write(box->process, data, length, &o->watch, &err) < 0)
        return fail(L, &err);
    return op_await(L, &o->op, timeout);
}

/* ---- the rest */

static int l_close_stdin(lua_State *L)
{
    struct box *box = check_open(L, 1);
    if (!process_is_pipe(box->process, PROCESS_STDIN))
        return luaL_error(L, "process.close_stdin: stdin is no pipe");
    process_close_stdin(box->process);
    return 0;
}

static int l_pid(lua_State *L)
{
    lua_pushinteger(L, process_pid(check_open(L, 1)->process));
    return 1;
}

/* child:kill("TERM") -> true | nil, message, "ESRCH" */
static int l_kill(lua_State *L)
{
    struct box *box = check_open(L, 1);
    const char *name = luaL_checkstring(L, 2);
    int number = process_signal_number(name);
    struct err err;
    if (number == 0)
        return luaL_argerror(L, 2, lua_pushfstring(L, "no signal is called '%s'", name));
    if (process_kill(box->process, number, &err) < 0)
        return fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static void close_box(lua_State *L, bool notify)
{
    struct box *box = box_check(L, 1, BOX);
    struct process *process = box->process;
    box->process = NULL;
    process_close(process, notify);
}

/* child:close(): a child that is alive gets SIGKILL; waits of other tasks end with "CLOSED". */
static int l_close(lua_State *L)
{
    close_box(L, true);
    return 0;
}

/* From the collector no waiting task can be left, and none may be woken. */
static int l_collect(lua_State *L)
{
    close_box(L, false);
    return 0;
}

int process_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"wait", l_wait},   {"read", l_read}, {"write", l_write}, {"close_stdin", l_close_stdin},
        {"kill", l_kill},   {"pid", l_pid},   {"close", l_close}, {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"spawn", l_spawn}, {NULL, NULL}};
    box_type(L, BOX, methods, l_collect);
    luaL_getmetatable(L, BOX);
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close"); /* left a scope: others may be waiting */
    lua_pop(L, 1);
    util_functions(L, functions);
    return 1;
}
