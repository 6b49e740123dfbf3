#include "budget.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

#define TICK_NS 25000000L                 /* resolution of the CPU budget: 25 ms */
#define WATCH_COUNT 1000                  /* instructions between looks in coroutines made by scripts */

struct budget {
    struct pool *pool;
    size_t used, memory;
    double burst;
    char refused[160], spent[160];        /* "file:line: " of the allocation refused, of the line stopped */
    timer_t timer;
    bool ticking;
    /* Shared with the signal handler, which runs on this very thread: volatile is enough. */
    lua_State *volatile running;          /* the guarded coroutine, NULL outside bursts */
    volatile sig_atomic_t ticks, ticks_allowed, expired;
};

static const char registry_key = 0;

struct budget *budget_new(void)
{
    struct budget *budget = calloc(1, sizeof(*budget));
    if (budget == NULL)
        return NULL;
    budget->pool = pool_new();
    if (budget->pool == NULL) {
        free(budget);
        return NULL;
    }
    budget_set(budget, 64u << 20, 0.2);
    return budget;
}

void budget_free(struct budget *budget)
{
    if (budget == NULL)
        return;
    if (budget->ticking)
        timer_delete(budget->timer);
    pool_free(budget->pool);
    free(budget);
}

void budget_set(struct budget *budget, size_t memory, double burst)
{
    budget->memory = memory;
    budget->burst = burst;
    budget->ticks_allowed = burst > 0 ? (sig_atomic_t)(burst * 1e9 / (double)TICK_NS + 0.999) : 0;
}

/* Writes "file:line: " of the innermost Lua function that runs; nothing when there is none. */
static void note_line(lua_State *L, char *where, size_t size)
{
    lua_Debug ar;
    for (int level = 0; L != NULL && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline > 0) {
            snprintf(where, size, "%s:%d: ", ar.short_src, ar.currentline);
            return;
        }
    }
}

void *budget_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct budget *budget = ud;
    size_t old = ptr != NULL ? osize : 0;
    if (nsize == 0) {
        pool_realloc(budget->pool, ptr, old, 0);
        budget->used -= old;
        return NULL;
    }
    if (budget->memory != 0 && nsize > old && budget->used - old + nsize > budget->memory) {
        /* Known here and nowhere later: the stack is unwound. */
        note_line(budget->running, budget->refused, sizeof(budget->refused));
        return NULL;
    }
    void *block = pool_realloc(budget->pool, ptr, old, nsize);
    if (block != NULL)
        budget->used = budget->used - old + nsize;
    return block;
}

void budget_trim(struct budget *budget)
{
    pool_trim(budget->pool);
}

void budget_attach(struct budget *budget, lua_State *L)
{
    lua_pushlightuserdata(L, budget);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
}

static struct budget *budget_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key);
    struct budget *budget = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return budget;
}

/* luaL_error has no position inside a hook, so it is written here. */
static int raise_spent(lua_State *L, struct budget *budget)
{
    if (budget->spent[0] == '\0') /* the first line caught is the culprit; what unwinds later only passes it on */
        note_line(L, budget->spent, sizeof(budget->spent));
    lua_pushfstring(L, "%sran %f s of CPU without waiting (the limit for one burst)", budget->spent, budget->burst);
    return lua_error(L);
}

/* Raises while the burst is over budget. */
static void hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    struct budget *budget = budget_of(L);
    if (budget == NULL || !budget->expired || budget->running == NULL)
        return;
    lua_sethook(L, hook, LUA_MASKCOUNT, 1);
    raise_spent(L, budget);
}

int budget_raise(lua_State *L)
{
    return raise_spent(L, budget_of(L));
}

static void on_tick(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    struct budget *budget = info->si_value.sival_ptr;
    lua_State *L = budget->running;
    if (L == NULL || budget->ticks_allowed == 0 || ++budget->ticks <= budget->ticks_allowed)
        return;
    budget->expired = 1;
    lua_sethook(L, hook, LUA_MASKCOUNT, 1); /* as lua.c does from its signal handler */
}

static void start_ticking(struct budget *budget)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_tick;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGRTMIN + 3, &action, NULL);

    struct sigevent event;
    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 3;
    event.sigev_value.sival_ptr = budget;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &budget->timer) != 0)
        return;
    struct itimerspec interval = {{0, TICK_NS}, {0, TICK_NS}};
    timer_settime(budget->timer, 0, &interval, NULL);
    budget->ticking = true;
}

void budget_enter(struct budget *budget, lua_State *L)
{
    if (!budget->ticking && budget->ticks_allowed != 0)
        start_ticking(budget);
    budget->ticks = 0;
    budget->expired = 0;
    budget->spent[0] = '\0';
    budget->running = L;
}

void budget_leave(struct budget *budget, lua_State *L)
{
    (void)L;
    budget->running = NULL;
}

void budget_renew(struct budget *budget, lua_State *L)
{
    budget->running = NULL; /* no tick counts from here on */
    if (budget->expired)
        budget_take_expired(budget, L);
    budget->ticks = 0;
    budget->spent[0] = '\0';
    budget->running = L;
}

bool budget_take_expired(struct budget *budget, lua_State *L)
{
    bool expired = budget->expired != 0;
    if (expired && lua_gethook(L) == hook)
        lua_sethook(L, NULL, 0, 0);
    budget->expired = 0;
    return expired;
}

const volatile sig_atomic_t *budget_expired(const struct budget *budget)
{
    return &budget->expired;
}

void budget_take_refused(struct budget *budget, char *where, size_t size)
{
    snprintf(where, size, "%s", budget->refused);
    budget->refused[0] = '\0';
}

size_t budget_used(const struct budget *budget)
{
    return budget->used;
}

size_t budget_memory(const struct budget *budget)
{
    return budget->memory;
}

double budget_burst(const struct budget *budget)
{
    return budget->burst;
}

void budget_watch(struct budget *budget, lua_State *co)
{
    (void)budget;
    lua_sethook(co, hook, LUA_MASKCOUNT, WATCH_COUNT);
}
