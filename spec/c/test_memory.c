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
                         "task = require 'rouse.core.task'; http = require 'rouse.core.http';"
                         "log.configure { level = 'error' }") != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    if (luaL_loadstring(L, script) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    lua_gc(L, LUA_GCSTOP); /* the same allocations every time */
    limit.left = allocations;
    limit.on = true;
    int status = lua_pcall(L, 0, 0, 0);
    limit.on = false;
    const char *message = status == LUA_ERRRUN ? lua_tostring(L, -1) : NULL;
    bool memory = message != NULL && strstr(message, "not enough memory") != NULL; /* in a task, with a traceback */
    if (status != LUA_OK && status != LUA_ERRMEM && !memory)
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

/* Sends what is logged nowhere, until unmute. */
static int mute(void)
{
    int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    assert_true(saved >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0);
    close(null);
    return saved;
}

static void unmute(int saved)
{
    dup2(saved, STDERR_FILENO);
    close(saved);
}

static void test_log(void **state)
{
    (void)state;
    int saved = mute();
    run("assert(log.secret('s3cr3t' .. 1))\n"
        "log.error('m' .. 1, { a = 1, b = { 1, { c = 'd' } }, f = print, s = ('x'):rep(100),\n"
        "  t = setmetatable({}, { __tostring = function() return 'shown' .. 1 end }) })\n");
    unmute(saved);
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

/* Both ends of a request in one loop, so that every allocation of both bindings fails once. */
static void test_http(void **state)
{
    (void)state;
    int saved = mute();
    run("task.run(function()\n"
        "  local server <close> = assert(http.server { max_body = 100 })\n"
        "  local client <close> = assert(http.client { user_agent = 'u' .. 1 })\n"
        "  local url = 'http://127.0.0.1:' .. server:port() .. '/p?q=1'\n"
        "  local asking = task.spawn(function()\n"
        "    local ending <close> = server\n" /* a failure here ends the waits there */
        "    local response = assert(client:request { url = url, method = 'PUT', body = ('b'):rep(50),\n"
        "      headers = { ['X-A'] = 'a' .. 1, ['X-B'] = 2 }, timeout = 5 })\n"
        "    assert(response.status == 201 and response.body == ('c'):rep(60) and response.headers['x-c'] == 'd1')\n"
        "    assert(select(3, client:request { url = 'x:y', timeout = 5 }) == 'URL')\n"
        "    assert(select(3, client:request { url = url, method = 'POST', timeout = 5 }) == 'LOST')\n"
        "  end)\n"
        "  local handle, received = server:accept { timeout = 2 }\n"
        "  if not handle then error('not enough memory for the client') end\n"
        "  assert(received.body == ('b'):rep(50) and received.headers['x-b'] == '2' and received.target == '/p?q=1')\n"
        "  handle:respond { status = 201, headers = { ['X-C'] = 'd' .. 1 }, body = ('c'):rep(60) }\n"
        "  local second = server:accept { timeout = 5 }\n"
        "  if not second then error('not enough memory for the client') end\n"
        "  second:drop()\n"
        "  local ok, message, code = asking:join(5)\n"
        "  if code then error(message) end\n"
        "end)\n");
    unmute(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_http),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
