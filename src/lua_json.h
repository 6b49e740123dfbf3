/* What other bindings need of rouse.json. Values on the Lua stack only; may raise. */
#ifndef ROUSE_LUA_JSON_H
#define ROUSE_LUA_JSON_H

#include <lua.h>
#include <stdbool.h>

/* Pushes the value at `index` as JSON text; raises when it cannot be encoded. */
void json_push_encoded(lua_State *L, int index, bool sorted);

#endif
