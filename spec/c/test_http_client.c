/*
 * The HTTP client against a server that answers with bytes written out here: slow, cut off, wrong. Both run in one loop, which
 * must be empty at the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <uv.h>

#include "http_client.h"

enum { PIECE_MS = 5, DEADLINE_MS = 10000 };

/* What the server does with its nth request. */
struct reply {
    const char *pieces[8]; /* sent one by one, PIECE_MS apart; NULL ends them */
    bool close;            /* the connection, after the last piece */
};

struct server {
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_timer_t deadline;
    const struct reply *replies;
    size_t count;
    size_t requests;
    size_t connections;
    int port;
    struct connection *open;
    struct http_client *client;
};

struct connection {
    uv_tcp_t tcp;
    uv_timer_t timer;
    struct server *server;
    struct connection *next;
    const struct reply *reply;
    size_t piece;
    int handles;
    bool closing;
    char seen[8192];
    size_t seen_size;
};

/* How a request ended. */
struct ended {
    bool done;
    int status;
    char code[40], msg[480], body[4096], fields[4096];
    size_t body_size;
};

static void connection_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    if (--connection->handles == 0)
        free(connection);
}

static void connection_close(struct connection *connection)
{
    if (connection->closing)
        return;
    connection->closing = true;
    struct connection **link = &connection->server->open;
    while (*link != connection)
        link = &(*link)->next;
    *link = connection->next;
    uv_close((uv_handle_t *)&connection->tcp, connection_closed);
    uv_close((uv_handle_t *)&connection->timer, connection_closed);
}

static void send_piece(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    const char *piece = connection->piece < 8 ? connection->reply->pieces[connection->piece] : NULL;
    if (piece == NULL) {
        if (connection->reply->close)
            connection_close(connection);
        return;
    }
    connection->piece++;
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)piece, (unsigned)strlen(piece));
    uv_try_write((uv_stream_t *)&connection->tcp, &buf, 1);
    uv_timer_start(timer, send_piece, PIECE_MS, 0);
}

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct connection *connection = handle->data;
    *buf = uv_buf_init(connection->seen + connection->seen_size,
                       (unsigned)(sizeof(connection->seen) - 1 - connection->seen_size));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    (void)buf;
    struct connection *connection = stream->data;
    struct server *server = connection->server;
    if (size < 0) {
        connection_close(connection);
        return;
    }
    connection->seen_size += (size_t)size;
    connection->seen[connection->seen_size] = '\0';
    char *end = strstr(connection->seen, "\r\n\r\n");
    if (end == NULL)
        return;
    char *length = strstr(connection->seen, "Content-Length: ");
    size_t body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
    if (connection->seen_size < (size_t)(end + 4 - connection->seen) + body)
        return;
    connection->seen_size = 0;
    assert_true(server->requests < server->count);
    connection->reply = &server->replies[server->requests++];
    connection->piece = 0;
    send_piece(&connection->timer);
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct server *server = stream->data;
    assert_int_equal(status, 0);
    struct connection *connection = calloc(1, sizeof(*connection));
    assert_non_null(connection);
    connection->server = server;
    connection->handles = 2;
    connection->next = server->open;
    server->open = connection;
    server->connections++;
    uv_tcp_init(&server->loop, &connection->tcp);
    uv_timer_init(&server->loop, &connection->timer);
    connection->tcp.data = connection->timer.data = connection;
    assert_int_equal(uv_accept(stream, (uv_stream_t *)&connection->tcp), 0);
    uv_read_start((uv_stream_t *)&connection->tcp, allocate, on_read);
}

static void too_late(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("the test takes too long");
}

static void start(struct server *server, const struct reply *replies, size_t count)
{
    struct sockaddr_in address;
    int size = sizeof(address);
    struct err err;
    memset(server, 0, sizeof(*server));
    server->replies = replies;
    server->count = count;
    uv_loop_init(&server->loop);
    uv_timer_init(&server->loop, &server->deadline);
    uv_timer_start(&server->deadline, too_late, DEADLINE_MS, 0);
    uv_tcp_init(&server->loop, &server->listener);
    server->listener.data = server;
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server->listener, 16, on_connection), 0);
    uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &size);
    server->port = ntohs(address.sin_port);
    struct http_client_options options = {.max_response = 1000};
    server->client = http_client_new(&server->loop, &options, &err);
    assert_non_null(server->client);
}

static void stop(struct server *server)
{
    http_client_free(server->client);
    uv_close((uv_handle_t *)&server->listener, NULL);
    uv_close((uv_handle_t *)&server->deadline, NULL);
    while (server->open != NULL)
        connection_close(server->open);
    uv_run(&server->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&server->loop), 0); /* nothing is left */
    assert_int_equal(server->requests, server->count);
}

static void on_done(struct http_transfer *transfer, void *data)
{
    struct ended *ended = data;
    struct http_response response;
    struct err err;
    ended->done = true;
    if (http_transfer_response(transfer, &response, &err) < 0) {
        strcpy(ended->code, err.code);
        strcpy(ended->msg, err.msg);
        return;
    }
    ended->status = response.status;
    ended->body_size = response.body_size;
    assert_true(response.body_size < sizeof(ended->body) && response.fields_size < sizeof(ended->fields));
    memcpy(ended->body, response.body, response.body_size);
    memcpy(ended->fields, response.fields, response.fields_size);
}

static struct http_transfer *begin(struct server *server, const char *method, const char *body, double timeout,
                                   struct ended *ended)
{
    char url[100];
    struct err err;
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/path?secret", server->port);
    memset(ended, 0, sizeof(*ended));
    struct http_request request = {.method = method, .url = url, .body = body, .timeout = timeout,
                                   .body_size = body != NULL ? strlen(body) : 0, .connect_timeout = timeout};
    struct http_transfer *transfer = http_client_start(server->client, &request, on_done, ended, &err);
    assert_non_null(transfer);
    assert_false(ended->done);
    return transfer;
}

static struct ended ask(struct server *server, const char *method, const char *body, double timeout)
{
    struct ended ended;
    struct http_transfer *transfer = begin(server, method, body, timeout, &ended);
    while (!ended.done)
        uv_run(&server->loop, UV_RUN_ONCE);
    http_transfer_free(transfer);
    return ended;
}

static void expect_code(const struct ended *ended, const char *code)
{
    assert_string_equal(ended->code, code);
    assert_non_null(strstr(ended->msg, "http://127.0.0.1:"));
    assert_null(strstr(ended->msg, "secret"));
}

static void test_slow(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-", "Length: 6\r\n", "\r\n", "ab", "cd", "ef"}},
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abc"}},
    };
    struct server server;
    start(&server, replies, 2);
    struct ended ended = ask(&server, "GET", NULL, 5);
    assert_int_equal(ended.status, 200);
    assert_string_equal(ended.body, "abcdef");
    ended = ask(&server, "GET", NULL, 0.05);
    expect_code(&ended, "TIMEDOUT");
    assert_int_equal(server.connections, 1);
    stop(&server);
}

static void test_broken(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"}, .close = true},
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-"}, .close = true},
        {.pieces = {"secret is not HTTP\r\n\r\n"}, .close = true},
        {.pieces = {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n"}, .close = true},
        {.pieces = {NULL}, .close = true},
    };
    struct server server;
    start(&server, replies, 5);
    for (int i = 0; i < 5; i++) {
        struct ended ended = ask(&server, "POST", "secret", 5);
        expect_code(&ended, "LOST");
    }
    stop(&server);
}

static void test_forms(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {.pieces = {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "2\r\nde\r\n0\r\n\r\n"}},
        {.pieces = {"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: 1\r\nx-a:2\r\n\r\n"}},
        {.pieces = {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nX-Folded: a\r\n  b\r\nContent-Length: 0\r\n\r\n"}},
        {.pieces = {"HTTP/1.0 200 OK\r\n\r\nuntil the end"}, .close = true},
    };
    struct server server;
    start(&server, replies, 4);
    struct ended ended = ask(&server, "GET", NULL, 5);
    assert_string_equal(ended.body, "abcde");
    ended = ask(&server, "GET", NULL, 5);
    assert_int_equal(ended.status, 204);
    assert_string_equal(ended.fields, "x-a: 1\nx-a: 2\n");
    ended = ask(&server, "GET", NULL, 5);
    assert_int_equal(ended.status, 302);
    assert_non_null(strstr(ended.fields, "location: http://127.0.0.1:1/\nx-folded: a b\n"));
    assert_int_equal(server.connections, 1);
    ended = ask(&server, "GET", NULL, 5);
    assert_string_equal(ended.body, "until the end");
    stop(&server);
}

static void test_too_large(void **state)
{
    (void)state;
    char body[1400], field[3000];
    memset(body, 'x', sizeof(body));
    memcpy(body, "HTTP/1.1 200 OK\r\n\r\n", 19);
    body[sizeof(body) - 1] = '\0';
    memset(field, 'y', sizeof(field));
    memcpy(field, "X-Long: ", 8);
    memcpy(field + sizeof(field) - 3, "\r\n", 3);
    char *fields = calloc(1, 400 * 1024);
    assert_non_null(fields);
    strcpy(fields, "HTTP/1.1 200 OK\r\n");
    for (size_t i = 0, size = strlen(fields); i < 100; i++, size += sizeof(field) - 1)
        memcpy(fields + size, field, sizeof(field));
    const struct reply replies[] = {{.pieces = {body}, .close = true}, {.pieces = {fields}, .close = true}};
    struct server server;
    start(&server, replies, 2);
    struct ended ended = ask(&server, "GET", NULL, 5);
    expect_code(&ended, "TOO_LARGE");
    ended = ask(&server, "GET", NULL, 5);
    expect_code(&ended, "TOO_LARGE");
    stop(&server);
    free(fields);
}

/* curl's own repetition of a request on a connection that died: only where it does no harm. */
static void test_repetition(void **state)
{
    (void)state;
    static const struct reply ok = {.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}};
    const struct reply replies[] = {ok, {.close = true}, ok, {.close = true}, ok, ok, {.close = true}};
    struct server server;
    start(&server, replies, 7);
    assert_int_equal(ask(&server, "GET", NULL, 5).status, 200);
    assert_int_equal(ask(&server, "PUT", "again", 5).status, 200); /* dropped, then sent once more */
    assert_int_equal(server.requests, 3);
    struct ended ended = ask(&server, "POST", "once", 5);
    expect_code(&ended, "LOST");
    assert_int_equal(server.requests, 4);
    assert_int_equal(ask(&server, "GET", NULL, 5).status, 200);
    size_t connections = server.connections;
    assert_int_equal(ask(&server, "POST", NULL, 5).status, 200); /* nothing to rewind: on a connection of its own */
    assert_int_equal(server.connections, connections + 1);
    ended = ask(&server, "PATCH", "", 5);
    expect_code(&ended, "LOST");
    stop(&server);
}

static void test_unsent(void **state)
{
    (void)state;
    struct server server;
    struct ended ended;
    start(&server, NULL, 0);
    static const char *const urls[] = {"http://192.0.2.1/", "http://127.0.0.1:1/"};
    for (size_t i = 0; i < 2; i++) {
        struct err err;
        struct http_request request = {.method = "GET", .url = urls[i], .timeout = 5, .connect_timeout = 0.05};
        ended.done = false;
        struct http_transfer *transfer = http_client_start(server.client, &request, on_done, &ended, &err);
        assert_non_null(transfer);
        while (!ended.done)
            uv_run(&server.loop, UV_RUN_ONCE);
        assert_string_equal(ended.code, "CONNECT");
        http_transfer_free(transfer);
    }
    stop(&server);
}

static void test_proxy(void **state)
{
    (void)state;
    static const struct reply replies[] = {{.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}}};
    struct server server;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    start(&server, replies, 1);
    assert_int_equal(ask(&server, "GET", NULL, 5).status, 200);
    stop(&server);
    unsetenv("http_proxy");
}

static void test_cancel(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abc"}},
        {.pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abc"}},
    };
    struct server server;
    struct ended ended, rest;
    start(&server, replies, 2);
    http_transfer_free(begin(&server, "GET", NULL, 5, &ended)); /* before anything happened */
    struct http_transfer *transfer = begin(&server, "GET", NULL, 5, &ended);
    while (server.requests < 1)
        uv_run(&server.loop, UV_RUN_ONCE);
    http_transfer_free(transfer); /* in the middle of the body */
    assert_false(ended.done);
    transfer = begin(&server, "GET", NULL, 5, &rest);
    while (server.requests < 2)
        uv_run(&server.loop, UV_RUN_ONCE);
    stop(&server); /* with a request under way */
    assert_true(rest.done);
    expect_code(&rest, "LOST");
    http_transfer_free(transfer); /* outlives its client */
    assert_false(ended.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow),       cmocka_unit_test(test_broken), cmocka_unit_test(test_forms),
        cmocka_unit_test(test_too_large),  cmocka_unit_test(test_repetition), cmocka_unit_test(test_unsent),
        cmocka_unit_test(test_proxy),      cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests_name("http_client", tests, NULL, NULL);
}
