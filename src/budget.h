/*
 * Limits on scripts: bytes in the Lua state and CPU time of one burst (what a guarded call runs between two waits). A CPU
 * timer of the loop's thread ticks only while that thread computes; the first tick past the budget arms a hook that raises at
 * every instruction, so a script's pcall cannot swallow it. Nothing is paid per call or per instruction before that.
 */
#ifndef ROUSE_BUDGET_H
#define ROUSE_BUDGET_H

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

struct budget;

/* Owned by the host. NULL when out of memory. */
struct budget *budget_new(void);
void budget_free(struct budget *budget);

/* 0 lifts a limit. `burst` in seconds of CPU. */
void budget_set(struct budget *budget, size_t memory, double burst);

/* The allocator for lua_newstate; `ud` is the struct budget. */
void *budget_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* Memory that the allocator keeps for later goes back to malloc. Slow. */
void budget_trim(struct budget *budget);

/* Remembers the limits in the state's registry (for the hook). Call once per state, before budget_enter. May raise. */
void budget_attach(struct budget *budget, lua_State *L);

/*
 * A burst begins on L (a guarded call starts or goes on), or ends. Between leave and enter nothing is limited. The first
 * enter starts the CPU timer on the calling thread.
 */
void budget_enter(struct budget *budget, lua_State *L);
void budget_leave(struct budget *budget, lua_State *L);

/* One burst ends and the next begins, cheaper than leave and enter. */
void budget_renew(struct budget *budget, lua_State *L);

/* Whether the burst that just ended ran out of CPU; clears the mark and the hook of L. */
bool budget_take_expired(struct budget *budget, lua_State *L);

/*
 * Not 0 while a burst is over budget: what a long C function looks at, which no hook reaches. Valid as long as the budget.
 * That function then ends with budget_raise, which names the line that called it.
 */
const volatile sig_atomic_t *budget_expired(const struct budget *budget);
int budget_raise(lua_State *L);

/* "file:line: " of the last refused allocation, or ""; cleared by the call after copying into `where`. */
void budget_take_refused(struct budget *budget, char *where, size_t size);

/* Bytes in use and the cap (0: none). */
size_t budget_used(const struct budget *budget);
size_t budget_memory(const struct budget *budget);
double budget_burst(const struct budget *budget);

/* Makes a coroutine that a script created obey the limits (hooks are per coroutine). */
void budget_watch(struct budget *budget, lua_State *co);

#endif
