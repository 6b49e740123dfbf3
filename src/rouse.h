/*
 * librouse: observe Kafka and decide in Lua. One opaque struct owns a Lua state, an event loop and everything opened
 * through them; nothing is global, so several may live in one program, each used by one thread at a time.
 *
 *     struct rouse *r = rouse_new();
 *     lua_State *L = rouse_lua(r);              // add functions of your own to the scripts here
 *     int status = rouse_run(r, "script.lua", argc, argv);
 *     rouse_free(r);
 */
#ifndef ROUSE_H
#define ROUSE_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

struct rouse;

/* "1.2.3" as built; static storage. */
const char *rouse_version(void);

/* A new host with a Lua state of its own under the memory limit. NULL when out of memory. Free with rouse_free. */
struct rouse *rouse_new(void);

/* Closes everything the host owns, waits briefly for what closes in the background, frees it. NULL is allowed. */
void rouse_free(struct rouse *rouse);

/* The host's Lua state, owned by the host, for use while nothing runs. Scripts see what rouse_add adds, not package.preload. */
lua_State *rouse_lua(struct rouse *rouse);

/*
 * Makes `function` callable in scripts as a member of `require "NAME"`. The function receives its arguments as usual.
 * Returns 0, or -1 when out of memory.
 */
int rouse_add(struct rouse *rouse, const char *module, const char *name, lua_CFunction function);

/* Runs a script (observer, consumer or free-form agent) to its end; argv are the script's own. Returns its exit code. */
int rouse_run(struct rouse *rouse, const char *script, int argc, const char *const argv[]);

/* Runs the command line of the rouse program (argv[0] is the program's name). Returns the exit code. */
int rouse_main(struct rouse *rouse, int argc, const char *const argv[]);

/* Sets the limits on scripts: memory in bytes, one CPU burst in seconds. 0 lifts a limit. */
void rouse_limits(struct rouse *rouse, size_t memory, double burst);

/* For plain Lua: `require "rouse"` in any Lua 5.4 state. The host then belongs to that state; no memory limit applies. */
int luaopen_rouse(lua_State *L);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
