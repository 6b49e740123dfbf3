/*
 * Embedding: a program that gives its scripts two functions of its own and runs one of them.
 *
 *     cc -o embed embed.c $(pkg-config --cflags --libs rouse)
 *     ./embed script.lua ARGUMENT...
 */
#include <stdio.h>

#include <lauxlib.h>
#include <rouse.h>

/* What the program keeps; scripts reach it through the functions below only. */
struct stock {
    lua_Integer pieces;
    int changes;
};

/* The extra space of a Lua state is the program's; every coroutine of a script has a copy of it. */
static struct stock *stock_of(lua_State *L)
{
    return *(struct stock **)lua_getextraspace(L);
}

/* stock.take(pieces) -> left | nil, message, code */
static int take(lua_State *L)
{
    struct stock *stock = stock_of(L);
    lua_Integer pieces = luaL_checkinteger(L, 1); /* misuse raises, with the script's file and line */
    luaL_argcheck(L, pieces > 0, 1, "above 0 expected");
    if (pieces > stock->pieces) { /* what the world refuses is nil, message, code */
        luaL_pushfail(L);
        lua_pushfstring(L, "only %I left", (LUAI_UACINT)stock->pieces);
        lua_pushliteral(L, "EMPTY");
        return 3;
    }
    stock->pieces -= pieces;
    stock->changes++;
    lua_pushinteger(L, stock->pieces);
    return 1;
}

/* stock.left() -> pieces */
static int left(lua_State *L)
{
    lua_pushinteger(L, stock_of(L)->pieces);
    return 1;
}

int main(int argc, char *argv[])
{
    struct stock stock = {.pieces = 10};
    if (argc < 2) {
        fprintf(stderr, "usage: %s SCRIPT [ARGUMENT...]\n", argv[0]);
        return 2;
    }
    int code = 70;
    struct rouse *rouse = rouse_new();
    if (rouse == NULL)
        goto done;
    *(struct stock **)lua_getextraspace(rouse_lua(rouse)) = &stock; /* before any coroutine is made */
    if (rouse_add(rouse, "stock", "take", take) < 0 || rouse_add(rouse, "stock", "left", left) < 0)
        goto done;
    rouse_limits(rouse, 16 * 1024 * 1024, 0.2);
    code = rouse_run(rouse, argv[1], argc - 2, (const char *const *)argv + 2);
    printf("rouse %s: exit %d, %d changes, %lld left\n", rouse_version(), code, stock.changes, (long long)stock.pieces);
done:
    rouse_free(rouse);
    return code;
}
