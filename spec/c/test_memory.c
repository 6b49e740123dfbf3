/*
 * Memory errors: each script runs again and again in a fresh Lua state, whose allocator fails after
 * one more allocation every time, until it succeeds; so every allocation in it fails once. A failure
 * may only be Lua's own "not enough memory"; what leaks or is used after it is for the sanitizers.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lualib.h>

#include "rouse.h"

struct limit {
    bool on;
    long left; /* allocations until the first failure; everything fails from there on */
};

static void *allocate(void *ud, void *block, size_t old, size_t size)
{
    struct limit *limit = ud;
    (void)old;
    if (size == 0) {
        free(block);
        return NULL;
    }
    if (limit->on && (block == NULL || size > old) && limit->left-- <= 0)
        return NULL;
    return realloc(block, size);
}

/* Runs the script with so many allocations. True if it succeeded. */
static bool attempt(const char *script, long allocations)
{
    struct limit limit = {.on = false};
    lua_State *L = lua_newstate(allocate, &limit);
    assert_non_null(L);
    luaL_openlibs(L);
    luaL_requiref(L, "rouse", luaopen_rouse, 0);
    lua_settop(L, 0);
    if (luaL_dostring(L, "json = require 'rouse.json'; yaml = require 'rouse.yaml';"
                         "process = require 'rouse.process'; log = require 'rouse.log';"
                         "log.configure { level = 'error' }") != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    if (luaL_loadstring(L, script) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    lua_gc(L, LUA_GCSTOP); /* the same allocations every time */
    limit.left = allocations;
    limit.on = true;
    int status = lua_pcall(L, 0, 0, 0);
    limit.on = false;
    if (status != LUA_OK && status != LUA_ERRMEM)
        fail_msg("after %ld allocations: %s", allocations, lua_tostring(L, -1));
    lua_close(L);
    return status == LUA_OK;
}

static void run(const char *script)
{
    long allocations = 0;
    while (!attempt(script, allocations))
        allocations++;
    assert_true(allocations > 5); /* the script did allocate */
}

static void test_json(void **state)
{
    (void)state;
    run("local text = [==[{\"a\":[1,2.5,{\"b\":\"\\u00e9x\"}],\"s\":\"\\n\",\"l\":[[],{},null]}]==]\n"
        "local value = assert(json.decode(text))\n"
        "local long = {}\n"
        "for i = 1, 40 do long[i] = ('x'):rep(50) end\n"
        "value.long = long\n"
        "assert(json.decode(json.encode(value, { sorted = true })).l[3] == json.null)\n"
        "assert(#json.encode(json.array(long)) > 2000)\n"
        "assert(select(3, json.decode('[1,')) == 'JSON')\n");
}

static void test_yaml(void **state)
{
    (void)state;
    run("local node = assert(yaml.parse('a: &x [1, two, {b: c}]\\nd: *x\\n'))\n"
        "assert(#node.pairs[2].value.items == 3)\n"
        "assert(select(3, yaml.parse('a: [')) == 'YAML')\n");
}

static void test_log(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    assert_true(saved >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0);
    run("assert(log.secret('s3cr3t' .. 1))\n"
        "log.error('m' .. 1, { a = 1, b = { 1, { c = 'd' } }, f = print, s = ('x'):rep(100),\n"
        "  t = setmetatable({}, { __tostring = function() return 'shown' .. 1 end }) })\n");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(null);
}

static void test_process(void **state)
{
    (void)state;
    run("local child = assert(process.spawn { command = { 'true', 'x' }, env = { A = 'b', C = 1 },\n"
        "  cwd = '/', stdin = 'pipe', stdout = 'pipe' })\n"
        "assert(child:pid() > 0)\n"
        "child:close()\n"
        "assert(select(3, process.spawn { command = { '/nowhere' } }) == 'ENOENT')\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_process),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
