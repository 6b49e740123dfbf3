/*
 * What all bindings share: handles (boxes), the failure convention, option tables. Every C function of the library carries
 * the host's struct rouse as its first upvalue (light userdata), so no binding needs a global.
 */
#ifndef ROUSE_LUA_UTIL_H
#define ROUSE_LUA_UTIL_H

#include <lua.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>

#include "err.h"

struct rouse;

/* The host of the running C function (its first upvalue). */
struct rouse *util_rouse(lua_State *L);

/* Pushes nil, message, code; returns 3. */
int fail(lua_State *L, const struct err *err);
int fail_with(lua_State *L, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Pushes a new table with these functions, each carrying the caller's upvalue. */
void util_functions(lua_State *L, const luaL_Reg *functions);

/*
 * Registers the handle type `name` ("rouse.consumer") once: `methods` become its __index; `close` becomes __gc and __close and
 * must be idempotent and must not block or raise. __tostring and __name are added.
 */
void box_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close);

/* A new zeroed handle of a registered type, pushed. Create it first (closed), open last. */
void *box_new(lua_State *L, size_t size, const char *name);

/* The handle at `index`; raises on another type. Whether it is open is the binding's own check. */
void *box_check(lua_State *L, int index, const char *name);

/* Raises "NAME is closed" as an argument error of `index`. */
int box_closed(lua_State *L, int index, const char *name);

/*
 * Options of a table argument at `index` (missing or nil table counts as empty). opt_keys raises on a key that is not in the
 * NULL-terminated list, naming the nearest one. The others raise on a wrong type, naming the option. Strings stay owned by the
 * table, which must stay on the stack.
 */
void opt_keys(lua_State *L, int index, const char *where, const char *const names[]);
const char *opt_string(lua_State *L, int index, const char *key, const char *def, size_t *length);
double opt_number(lua_State *L, int index, const char *key, double def);
lua_Integer opt_integer(lua_State *L, int index, const char *key, lua_Integer def);
bool opt_boolean(lua_State *L, int index, const char *key, bool def);

#endif
