/* rouse.core.sys: what the library (not the scripts) needs of the operating system. */
#include <errno.h>
#include <limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "budget.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task.h"

extern char **environ;

#define SIGNALS "rouse.signals"
#define MAX_FILE (64u << 20)

static int l_environ(lua_State *L)
{
    lua_newtable(L);
    for (char **entry = environ; *entry != NULL; entry++) {
        const char *equals = strchr(*entry, '=');
        if (equals == NULL)
            continue;
        lua_pushlstring(L, *entry, (size_t)(equals - *entry));
        lua_pushstring(L, equals + 1);
        lua_rawset(L, -3);
    }
    return 1;
}

/* Texts that were compiled in have been read: their pages leave the process, and come from the file again if need be. */
static void forget_texts(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = UINTPTR_MAX, end = 0;
    for (const struct embedded *e = rouse_embedded; e->name != NULL; e++) {
        uintptr_t text = (uintptr_t)e->text;
        start = text < start ? text : start;
        end = text + e->size > end ? text + e->size : end;
    }
    start = (start + page - 1) / page * page;
    if (end > start)
        madvise((void *)start, (end - start) / page * page, MADV_DONTNEED);
}

/* What the allocators keep for later goes back to the system, where it can be asked for that. */
static int l_trim(lua_State *L)
{
    forget_texts();
    budget_trim(rouse_budget(util_rouse(L)));
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    return 0;
}

/*
 * Threads share one arena from here on: each has its own else, which keeps what it once took. For a program whose threads rest.
 */
static int l_share_memory(lua_State *L)
{
    (void)L;
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);
#endif
    return 0;
}

static int fail_errno(lua_State *L, const char *path, int number)
{
    const char *code = number == ENOENT ? "ENOENT" : number == EACCES ? "EACCES" : number == EISDIR ? "EISDIR" : "EIO";
    return fail_with(L, code, "%s: %s", path, strerror(number));
}

static int l_read_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return fail_errno(L, path, errno);
    size_t total = 0, got = 0;
    char chunk[8192];
    int saved = 0;
    char *content = NULL;
    while (total < MAX_FILE && (got = fread(chunk, 1, sizeof(chunk), file)) > 0) {
        char *grown = realloc(content, total + got); /* plain memory: nothing may raise while the file is open */
        if (grown == NULL) {
            saved = ENOMEM;
            break;
        }
        content = grown;
        memcpy(content + total, chunk, got);
        total += got;
    }
    if (ferror(file))
        saved = errno;
    else if (total >= MAX_FILE)
        saved = EFBIG;
    fclose(file);
    if (saved != 0) {
        free(content);
        return fail_errno(L, path, saved);
    }
    char *room = lua_newuserdatauv(L, total + 1, 0); /* may raise: rare, and then `content` is the only loss */
    if (total > 0)
        memcpy(room, content, total);
    free(content);
    lua_pushlstring(L, room, total);
    return 1;
}

static int l_exists(lua_State *L)
{
    struct stat status;
    lua_pushboolean(L, stat(luaL_checkstring(L, 1), &status) == 0);
    return 1;
}

static int l_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int l_random(lua_State *L)
{
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof(bits), 0) != sizeof(bits))
        return luaL_error(L, "getrandom: %s", strerror(errno));
    lua_pushnumber(L, (double)(bits >> 11) * 0x1.0p-53);
    return 1;
}

static int l_hostname(lua_State *L)
{
    char name[256] = "";
    gethostname(name, sizeof(name) - 1);
    lua_pushstring(L, name);
    return 1;
}

static int l_pid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

/* Path of the running program, for starting it again (mock and demo). */
static int l_executable(lua_State *L)
{
    char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
    if (size < 0)
        return fail_errno(L, "/proc/self/exe", errno);
    lua_pushlstring(L, path, (size_t)size);
    return 1;
}

/* Output must be seen at once by whoever reads a pipe: one write, no buffer in between. */
static int l_write(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    size_t size;
    const char *text = luaL_checklstring(L, 2, &size);
    while (size > 0) {
        ssize_t n = write(fd, text, size);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return fail_errno(L, "write", errno);
        text += n;
        size -= (size_t)n;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- signals ---- */

static const struct {
    const char *name;
    int number;
} known_signals[] = {{"TERM", SIGTERM}, {"INT", SIGINT}, {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};

enum { SIGNAL_COUNT = sizeof(known_signals) / sizeof(known_signals[0]), QUEUE = 16 };

struct signals;

struct watcher {
    uv_signal_t handle;
    struct signals *signals;
    int index;
};

/* Heap memory, freed when the last watcher closed; the userdata holds a pointer. */
struct signals {
    struct watcher watchers[SIGNAL_COUNT];
    int open, queued, queue[QUEUE];
    struct op *waiting;
};

static void watcher_closed(uv_handle_t *handle)
{
    struct signals *signals = ((struct watcher *)handle->data)->signals;
    if (--signals->open == 0)
        free(signals);
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    struct watcher *watcher = handle->data;
    struct signals *signals = watcher->signals;
    if (signals->queued < QUEUE)
        signals->queue[signals->queued++] = watcher->index;
    if (signals->waiting != NULL)
        op_ready(signals->waiting);
    signals->waiting = NULL;
}

static int signals_close(lua_State *L)
{
    struct signals **box = lua_touserdata(L, 1), *signals = *box;
    *box = NULL;
    for (int i = 0; signals != NULL && i < SIGNAL_COUNT; i++)
        if (signals->watchers[i].signals != NULL)
            uv_close((uv_handle_t *)&signals->watchers[i].handle, watcher_closed);
    return 0;
}

static int signal_index(lua_State *L, const char *name)
{
    for (int i = 0; i < SIGNAL_COUNT; i++)
        if (name != NULL && strcmp(known_signals[i].name, name) == 0)
            return i;
    return luaL_error(L, "sys.signals: unknown signal '%s'", name != NULL ? name : "?");
}

static int l_signals(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    int n = (int)lua_rawlen(L, 1);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        signal_index(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    struct signals **box = box_new(L, sizeof(*box), SIGNALS);
    *box = calloc(1, sizeof(**box));
    if (*box == NULL)
        return luaL_error(L, "out of memory");
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        int index = signal_index(L, lua_tostring(L, -1));
        lua_pop(L, 1);
        struct watcher *watcher = &(*box)->watchers[index];
        if (watcher->signals != NULL)
            continue;
        uv_signal_init(rouse_loop(util_rouse(L)), &watcher->handle);
        watcher->handle.data = watcher;
        watcher->signals = *box;
        watcher->index = index;
        (*box)->open++;
        uv_signal_start(&watcher->handle, on_signal, known_signals[index].number);
    }
    return 1;
}

struct signal_op {
    struct op op;
    struct signals *signals;
};

static int signal_push(lua_State *L, struct op *op)
{
    struct signals *signals = ((struct signal_op *)op)->signals;
    int index = signals->queue[0];
    memmove(signals->queue, signals->queue + 1, sizeof(int) * (QUEUE - 1));
    signals->queued--;
    lua_pushstring(L, known_signals[index].name);
    return 1;
}

static void signal_cancel(struct op *op)
{
    ((struct signal_op *)op)->signals->waiting = NULL;
}

static const struct op_type signal_type = {.name = "signals:wait", .push = signal_push, .cancel = signal_cancel};

static int l_signals_wait(lua_State *L)
{
    struct signals **box = box_check(L, 1, SIGNALS);
    double timeout = lua_istable(L, 2) ? opt_number(L, 2, "timeout", -1) : luaL_optnumber(L, 2, -1);
    if (*box == NULL)
        return box_closed(L, 1, SIGNALS);
    if ((*box)->waiting != NULL)
        return luaL_error(L, "signals:wait: another task waits already");
    struct signal_op *wait = op_new(L, &signal_type, sizeof(*wait));
    wait->signals = *box;
    if ((*box)->queued > 0)
        op_ready(&wait->op);
    else
        (*box)->waiting = &wait->op;
    return op_await(L, &wait->op, timeout);
}

int sys_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"environ", l_environ}, {"read_file", l_read_file}, {"exists", l_exists}, {"isatty", l_isatty},
        {"random", l_random}, {"hostname", l_hostname}, {"pid", l_pid}, {"executable", l_executable},
        {"write", l_write}, {"trim", l_trim}, {"share_memory", l_share_memory}, {"signals", l_signals}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"wait", l_signals_wait}, {"close", signals_close}, {NULL, NULL}};
    box_type(L, SIGNALS, methods, signals_close);
    util_functions(L, functions);
    return 1;
}
