/* rouse.core.http: the bindings of the HTTP client and server, for lua/rouse/http.lua. */
#include <string.h>
#include <strings.h>

#include "http_client.h"
#include "http_server.h"
#include "lua_modules.h"
#include "lua_util.h"
#include "rouse_internal.h"
#include "task.h"

#define CLIENT "rouse.http.client"
#define SERVER "rouse.http.server"
#define REQUEST "rouse.http.request"

/* ---- header fields ---- */

static const char *check_field(lua_State *L, size_t *size)
{ /* L: ... name value */
    size_t name_size = 0;
    if (lua_type(L, -2) != LUA_TSTRING)
        luaL_error(L, "headers: names are strings, got a %s", luaL_typename(L, -2));
    const char *name = lua_tolstring(L, -2, &name_size);
    if (!http_token_valid(name, name_size))
        luaL_error(L, "headers: a name holds a character that is not allowed");
    if (strcasecmp(name, "content-length") == 0 || strcasecmp(name, "transfer-encoding") == 0)
        luaL_error(L, "headers: %s is set by the library", name);
    if (!lua_isstring(L, -1))
        luaL_error(L, "headers: %s: string or number expected, got %s", name, luaL_typename(L, -1));
    lua_tolstring(L, -1, size); /* a number becomes text in its slot, which is a copy */
    if (!http_value_valid(lua_tostring(L, -1), *size)) /* the value may be a secret: not repeated */
        luaL_error(L, "headers: the value of %s holds a control character", name);
    return name;
}

/* Pushes `headers` of the options as a header block. Quadratic, for a dozen fields. */
static const char *push_block(lua_State *L, int options, size_t *size)
{
    lua_pushliteral(L, ""); /* L: block */
    if (lua_istable(L, options) && lua_getfield(L, options, "headers") != LUA_TNIL) {
        /* L: block headers */
        if (!lua_istable(L, -1))
            luaL_error(L, "option 'headers': table expected, got %s", luaL_typename(L, -1));
        lua_pushnil(L);
        while (lua_next(L, -2) != 0) { /* L: block headers name value */
            size_t value_size = 0;
            const char *name = check_field(L, &value_size);
            lua_pushfstring(L, "%s%s: %s\n", lua_tostring(L, -4), name, lua_tostring(L, -1));
            lua_replace(L, -5);
            lua_pop(L, 1);
        }
    }
    lua_settop(L, lua_istable(L, options) ? lua_gettop(L) - 1 : lua_gettop(L)); /* L: block */
    return lua_tolstring(L, -1, size);
}

/* Pushes a table of a block: lower-case names, values joined where a name came more than once. */
static void push_fields(lua_State *L, const char *block, size_t size)
{
    const char *at = block, *end = block + size;
    struct http_field field;
    lua_newtable(L);
    while (http_field_next(&at, end, &field)) {
        lua_pushlstring(L, field.name, field.name_size); /* L: fields name */
        lua_pushvalue(L, -1);
        if (lua_rawget(L, -3) == LUA_TNIL) { /* L: fields name earlier */
            lua_pop(L, 1);
            lua_pushlstring(L, field.value, field.value_size);
        } else {
            lua_pushliteral(L, ", ");
            lua_pushlstring(L, field.value, field.value_size);
            lua_concat(L, 3);
        }
        lua_rawset(L, -3);
    }
}

static double check_seconds(lua_State *L, const char *key, double def)
{
    double seconds = opt_number(L, 2, key, def);
    if (!(seconds > 0))
        luaL_error(L, "option '%s': a number above 0 expected", key);
    return seconds;
}

/* ---- client ---- */

struct client_box {
    struct http_client *client;
};

struct request_op {
    struct op op;
    struct http_transfer *transfer;
};

static void on_done(struct http_transfer *transfer, void *data)
{
    (void)transfer;
    struct request_op *request = data;
    op_ready(&request->op);
}

static int push_response(lua_State *L, struct op *op)
{
    struct request_op *request = (struct request_op *)op;
    struct http_response response;
    struct err err;
    if (http_transfer_response(request->transfer, &response, &err) < 0)
        return fail(L, &err);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, response.status);
    lua_setfield(L, -2, "status");
    push_fields(L, response.fields, response.fields_size);
    lua_setfield(L, -2, "headers");
    lua_pushlstring(L, response.body, response.body_size);
    lua_setfield(L, -2, "body");
    return 1;
}

static void request_end(struct op *op)
{
    struct request_op *request = (struct request_op *)op;
    http_transfer_free(request->transfer);
    request->transfer = NULL;
}

static const struct op_type request_type = {
    .name = "http.request", .push = push_response, .cancel = request_end, .release = request_end};

static struct client_box *check_client(lua_State *L)
{
    struct client_box *box = box_check(L, 1, CLIENT);
    if (box->client == NULL)
        box_closed(L, 1, "http client");
    return box;
}

static int l_request(lua_State *L)
{
    static const char *const keys[] = {"method",  "url",  "headers", "body", "timeout",
                                       "connect_timeout", NULL};
    struct client_box *box = check_client(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    opt_keys(L, 2, "http.request", keys);
    struct http_request request = {.timeout = check_seconds(L, "timeout", 30),
                                   .connect_timeout = check_seconds(L, "connect_timeout", 10)};
    size_t size = 0;
    request.method = opt_string(L, 2, "method", "GET", &size);
    if (!http_token_valid(request.method, size))
        luaL_argerror(L, 2, "option 'method': not a method");
    request.url = opt_string(L, 2, "url", NULL, &size);
    if (request.url == NULL)
        luaL_argerror(L, 2, "option 'url' is missing");
    if (strlen(request.url) != size)
        luaL_argerror(L, 2, "option 'url': holds a NUL");
    request.body = opt_string(L, 2, "body", NULL, &request.body_size);
    request.fields = push_block(L, 2, &request.fields_size); /* L: client options block */
    struct request_op *op = op_new(L, &request_type, sizeof(*op));
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1); /* the client outlives its requests */
    struct err err;
    op->transfer = http_client_start(box->client, &request, on_done, op, &err);
    if (op->transfer == NULL)
        return fail(L, &err);
    return op_await(L, &op->op, -1);
}

static int l_client_close(lua_State *L)
{
    struct client_box *box = box_check(L, 1, CLIENT);
    struct http_client *client = box->client;
    box->client = NULL;
    http_client_free(client);
    return 0;
}

static int l_client(lua_State *L)
{
    static const char *const keys[] = {"ca_file", "user_agent", "max_response", NULL};
    opt_keys(L, 1, "http.client", keys);
    lua_settop(L, 1);
    struct http_client_options options = {.ca_file = opt_string(L, 1, "ca_file", NULL, NULL),
                                          .user_agent = opt_string(L, 1, "user_agent", NULL, NULL)};
    lua_Integer max_response = opt_integer(L, 1, "max_response", 8 * 1024 * 1024);
    if (max_response < 0)
        luaL_error(L, "option 'max_response': a size in bytes expected");
    options.max_response = (size_t)max_response;
    if (options.user_agent == NULL)
        options.user_agent = lua_pushfstring(L, "rouse/%s", rouse_version());
    struct client_box *box = box_new(L, sizeof(*box), CLIENT);
    struct err err;
    box->client = http_client_new(rouse_loop(util_rouse(L)), &options, &err);
    return box->client != NULL ? 1 : fail(L, &err);
}

/* ---- server ---- */

struct server_box {
    struct http_server *server;
    struct accept_op *first, **last; /* waiting for a request, oldest first */
};

struct accept_op {
    struct op op;
    struct server_box *box;         /* NULL when it does not wait */
    struct accept_op *next;
    struct http_exchange *exchange; /* NULL when ready: the server was closed */
};

struct request_box {
    struct http_exchange *exchange;
};

static void accept_leave(struct accept_op *accept)
{
    struct server_box *box = accept->box;
    if (box == NULL)
        return;
    struct accept_op **link = &box->first;
    while (*link != accept)
        link = &(*link)->next;
    *link = accept->next;
    if (box->last == &accept->next)
        box->last = link;
    accept->box = NULL;
}

static void on_request(void *data)
{
    struct server_box *box = data;
    struct accept_op *accept = box->first;
    if (accept == NULL)
        return; /* it waits in the server until somebody accepts */
    accept_leave(accept);
    accept->exchange = http_server_take(box->server);
    op_ready(&accept->op);
}

/* Pushes the handle of a request and a table of what it holds. */
static int push_request(lua_State *L, struct op *op)
{
    struct accept_op *accept = (struct accept_op *)op;
    if (accept->exchange == NULL)
        return fail_with(L, "CLOSED", "http server closed");
    struct request_box *box = box_new(L, sizeof(*box), REQUEST);
    box->exchange = accept->exchange; /* from here on the handle answers for it */
    accept->exchange = NULL;
    struct http_received received;
    http_exchange_received(box->exchange, &received);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, received.method);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, received.target);
    lua_setfield(L, -2, "target");
    push_fields(L, received.fields, received.fields_size);
    lua_setfield(L, -2, "headers");
    lua_pushlstring(L, received.body, received.body_size);
    lua_setfield(L, -2, "body");
    return 2;
}

static void accept_cancel(struct op *op)
{
    accept_leave((struct accept_op *)op);
}

static void accept_release(struct op *op)
{
    struct accept_op *accept = (struct accept_op *)op;
    accept_leave(accept);
    http_exchange_drop(accept->exchange); /* taken for a task that ended before it looked */
    accept->exchange = NULL;
}

static const struct op_type accept_type = {
    .name = "http.accept", .push = push_request, .cancel = accept_cancel,
        .release = accept_release};

static struct server_box *check_server(lua_State *L)
{
    struct server_box *box = box_check(L, 1, SERVER);
    if (box->server == NULL)
        box_closed(L, 1, "http server");
    return box;
}

static int l_accept(lua_State *L)
{
    static const char *const keys[] = {"timeout", NULL};
    struct server_box *box = check_server(L);
    lua_settop(L, 2);
    opt_keys(L, 2, "http.accept", keys);
    double timeout = opt_number(L, 2, "timeout", -1);
    struct accept_op *accept = op_new(L, &accept_type, sizeof(*accept));
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    accept->exchange = http_server_take(box->server);
    if (accept->exchange != NULL) {
        op_ready(&accept->op);
    } else {
        accept->box = box;
        *box->last = accept;
        box->last = &accept->next;
    }
    return op_await(L, &accept->op, timeout);
}

static int l_port(lua_State *L)
{
    lua_pushinteger(L, http_server_port(check_server(L)->server));
    return 1;
}

static int l_server_close(lua_State *L)
{
    struct server_box *box = box_check(L, 1, SERVER);
    struct http_server *server = box->server;
    box->server = NULL;
    while (box->first != NULL) {
        struct accept_op *accept = box->first;
        accept_leave(accept);
        op_ready(&accept->op);
    }
    http_server_free(server);
    return 0;
}

static int l_server(lua_State *L)
{
    static const char *const keys[] = {"host", "port", "max_body", "max_connections",
                                       "idle_timeout", NULL};
    opt_keys(L, 1, "http.server", keys);
    lua_settop(L, 1);
    lua_Integer port = opt_integer(L, 1, "port", 0);
    lua_Integer max_body = opt_integer(L, 1, "max_body", 1024 * 1024);
    lua_Integer max_connections = opt_integer(L, 1, "max_connections", 256);
    lua_Integer idle_timeout = opt_integer(L, 1, "idle_timeout", 60);
    if (port < 0 || port > 65535)
        luaL_error(L, "option 'port': 0 to 65535 expected");
    if (max_body < 0)
        luaL_error(L, "option 'max_body': a size in bytes expected");
    if (max_connections < 1 || max_connections > 100000)
        luaL_error(L, "option 'max_connections': 1 to 100000 expected");
    if (idle_timeout < 0 || idle_timeout > 86400)
        luaL_error(L, "option 'idle_timeout': 0 to 86400 seconds expected");
    struct http_server_options options = {.host = opt_string(L, 1, "host", "127.0.0.1", NULL),
                                          .port = (uint16_t)port,
                                          .max_body = (size_t)max_body,
                                          .max_connections = (unsigned)max_connections,
                                          .idle_timeout = (unsigned)idle_timeout};
    struct server_box *box = box_new(L, sizeof(*box), SERVER);
    box->last = &box->first;
    struct err err;
    box->server = http_server_new(rouse_loop(util_rouse(L)), &options, on_request, box, &err);
    return box->server != NULL ? 1 : fail(L, &err);
}

/* ---- a request that the server received ---- */

static struct request_box *check_request(lua_State *L)
{
    struct request_box *box = box_check(L, 1, REQUEST);
    if (box->exchange == NULL)
        luaL_argerror(L, 1, "the request is already answered");
    return box;
}

static int l_respond(lua_State *L)
{
    static const char *const keys[] = {"status", "headers", "body", NULL};
    struct request_box *box = check_request(L);
    lua_settop(L, 2);
    opt_keys(L, 2, "http.respond", keys);
    struct http_answer answer = {0};
    lua_Integer status = opt_integer(L, 2, "status", 200);
    if (status < 200 || status > 599)
        luaL_error(L, "option 'status': 200 to 599 expected");
    answer.status = (unsigned)status;
    answer.body = opt_string(L, 2, "body", "", &answer.body_size);
    answer.fields = push_block(L, 2, &answer.fields_size);
    struct http_exchange *exchange = box->exchange;
    box->exchange = NULL;
    if (http_exchange_respond(exchange, &answer) < 0)
        return fail_with(L, "MEMORY", "http.respond: out of memory");
    lua_pushboolean(L, 1);
    return 1;
}

static int l_drop(lua_State *L)
{
    struct request_box *box = check_request(L);
    struct http_exchange *exchange = box->exchange;
    box->exchange = NULL;
    http_exchange_drop(exchange);
    return 0;
}

/* A request that the script forgot: its sender is told instead of waiting for ever. */
static int l_request_close(lua_State *L)
{
    struct request_box *box = box_check(L, 1, REQUEST);
    struct http_exchange *exchange = box->exchange;
    box->exchange = NULL;
    if (exchange != NULL)
        http_exchange_respond(exchange, &(struct http_answer){.status = 500, .body = ""});
    return 0;
}

int http_open(lua_State *L)
{
    static const luaL_Reg client_methods[] = {{"request", l_request}, {"close", l_client_close},
                                              {NULL, NULL}};
    static const luaL_Reg server_methods[] = {
        {"accept", l_accept}, {"port", l_port}, {"close", l_server_close}, {NULL, NULL}};
    static const luaL_Reg request_methods[] = {{"respond", l_respond}, {"drop", l_drop},
                                               {NULL, NULL}};
    static const luaL_Reg functions[] = {{"client", l_client}, {"server", l_server}, {NULL, NULL}};
    box_type(L, CLIENT, client_methods, l_client_close);
    box_type(L, SERVER, server_methods, l_server_close);
    box_type(L, REQUEST, request_methods, l_request_close);
    util_functions(L, functions);
    return 1;
}
