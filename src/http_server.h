/*
 * An HTTP/1.1 server on a libuv loop, by libmicrohttpd without threads of its own: a mock, an admin
 * endpoint. A request is handed out when it has arrived in full, and stays open until it is
 * answered. One thread: the loop's. No Lua; bindings call it.
 */
#ifndef ROUSE_HTTP_SERVER_H
#define ROUSE_HTTP_SERVER_H

#include <stdint.h>
#include <uv.h>

#include "err.h"
#include "http_fields.h"

struct http_server;
struct http_exchange;

struct http_server_options {
    const char *host;          /* an address in numbers, or "localhost" */
    uint16_t port;             /* 0: the kernel chooses */
    size_t max_body;           /* bytes of a request's body; more is answered with 413 */
    unsigned max_connections;
    unsigned idle_timeout;     /* seconds until a silent connection is closed; 0: never */
};

/*
 * Called on the loop when a request waits to be taken. It may take, answer nothing and free no
 * server.
 */
typedef void http_request_fn(void *data);

/*
 * Listens. NULL and err on failure: code ADDRESS (not one), IN_USE, DENIED, LISTEN. Free with
 * http_server_free.
 */
struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *options,
                                    http_request_fn *on_request, void *data, struct err *err);

/*
 * Closes all connections, answered or not. Exchanges that are held stay valid, but reach nobody.
 * NULL is allowed.
 */
void http_server_free(struct http_server *server);

uint16_t http_server_port(const struct http_server *server);

/*
 * The request that waited longest, or NULL. The caller holds it until exactly one of
 * http_exchange_respond and http_exchange_drop.
 */
struct http_exchange *http_server_take(struct http_server *server);

struct http_received {
    const char *method;
    const char *target;        /* as received: path and query, undecoded */
    const char *fields;        /* header block with lower-case names (http_fields.h) */
    size_t fields_size;
    const char *body;          /* never NULL */
    size_t body_size;
};

/* What a held exchange asks; the pointers are the exchange's. */
void http_exchange_received(const struct http_exchange *exchange, struct http_received *received);

struct http_answer {
    unsigned status;           /* 200..599 */
    /* header block, checked by the caller; the length and the date are the server's own */
    const char *fields;
    size_t fields_size;
    const char *body;
    size_t body_size;
};

/*
 * Answers; everything is copied. The exchange is gone afterwards, also on failure (-1: out of
 * memory, the connection closes).
 */
int http_exchange_respond(struct http_exchange *exchange, const struct http_answer *answer);

/* Closes the connection without an answer. NULL is allowed. The exchange is gone afterwards. */
void http_exchange_drop(struct http_exchange *exchange);

#endif
