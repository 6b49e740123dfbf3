/* rouse.yaml: a document as Lua tables, every node with its line and column. */
#include <lauxlib.h>
#include <lua.h>

#include "lua_modules.h"
#include "lua_util.h"
#include "yaml_tree.h"

#define BOX "rouse.yaml.tree"

/* Holds the C tree while Lua tables are made of it: any of those calls may raise. */
struct box {
    struct yaml_tree *tree;
};

static int l_close(lua_State *L)
{
    struct box *box = box_check(L, 1, BOX);
    yaml_tree_free(box->tree);
    box->tree = NULL;
    return 0;
}

static void push_node(lua_State *L, const struct yaml_node *node);

static void set_node(lua_State *L, const char *field, const struct yaml_node *node)
{
    push_node(L, node);
    lua_setfield(L, -2, field);
}

static void push_node(lua_State *L, const struct yaml_node *node)
{
    static const char *const kinds[] = {"scalar", "seq", "map"};
    luaL_checkstack(L, 6, "yaml.parse");
    lua_createtable(L, 0, 5);
    lua_pushstring(L, kinds[node->kind]);
    lua_setfield(L, -2, "kind");
    lua_pushinteger(L, (lua_Integer)node->line);
    lua_setfield(L, -2, "line");
    lua_pushinteger(L, (lua_Integer)node->column);
    lua_setfield(L, -2, "column");
    if (node->tag != NULL) {
        lua_pushstring(L, node->tag);
        lua_setfield(L, -2, "tag");
    }
    if (node->kind == YAML_SCALAR) {
        lua_pushlstring(L, node->value, node->length);
        lua_setfield(L, -2, "value");
        lua_pushboolean(L, node->plain);
        lua_setfield(L, -2, "plain");
        return;
    }
    lua_newtable(L); /* node, items or pairs */
    if (node->kind == YAML_SEQ) {
        for (size_t i = 0; i < node->count; i++) {
            push_node(L, node->items[i]);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        lua_setfield(L, -2, "items");
        return;
    }
    for (size_t i = 0; i + 1 < node->count; i += 2) {
        lua_createtable(L, 0, 2);
        set_node(L, "key", node->items[i]);
        set_node(L, "value", node->items[i + 1]);
        lua_rawseti(L, -2, (lua_Integer)(i / 2) + 1);
    }
    lua_setfield(L, -2, "pairs");
}

/* parse(text) -> node | nil, message, "YAML" | "EMPTY", line, column */
static int l_parse(lua_State *L)
{
    size_t length;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *text = lua_tolstring(L, 1, &length);
    struct box *box = box_new(L, sizeof(*box), BOX);
    struct err err;
    struct yaml_mark mark;
    box->tree = yaml_tree_parse(text, length, &err, &mark);
    if (box->tree == NULL) {
        fail(L, &err);
        lua_pushinteger(L, (lua_Integer)mark.line);
        lua_pushinteger(L, (lua_Integer)mark.column);
        return 5;
    }
    push_node(L, yaml_tree_root(box->tree));
    yaml_tree_free(box->tree); /* now, not when the collector comes by */
    box->tree = NULL;
    return 1;
}

int yaml_open(lua_State *L)
{
    static const luaL_Reg methods[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {{"parse", l_parse}, {NULL, NULL}};
    box_type(L, BOX, methods, l_close);
    util_functions(L, functions);
    return 1;
}
