/*
 * HTTP requests on a libuv loop, by libcurl's multi interface. Connections are kept and reused, TLS
 * peers are always verified, redirects are not followed, only http and https are spoken. One
 * thread: the loop's. No Lua; bindings call it.
 *
 * Error codes: URL, RESOLVE, CONNECT and TLS: the request was not sent. TIMEDOUT and LOST: it was
 * (at least in part), so the server may have acted on it. TOO_LARGE: an answer came and was cut
 * off. A request that is not idempotent is never sent twice.
 */
#ifndef ROUSE_HTTP_CLIENT_H
#define ROUSE_HTTP_CLIENT_H

#include <uv.h>

#include "err.h"
#include "http_fields.h"

struct http_client;
struct http_transfer;

struct http_client_options {
    const char *ca_file;     /* PEM file of trusted certificates; NULL: the system's */
    const char *user_agent;  /* NULL: none is sent */
    size_t max_response;     /* bytes of a response's body */
};

/* A new client; the strings are copied. NULL and err on failure. Free with http_client_free. */
struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_options *options,
                                    struct err *err);

/*
 * Ends running transfers as LOST (their done is called), closes all connections. NULL is allowed.
 * Not from inside done.
 */
void http_client_free(struct http_client *client);

struct http_request {
    const char *method;      /* a valid token */
    const char *url;
    const char *fields;      /* header block (http_fields.h), checked by the caller; NULL: none */
    size_t fields_size;
    const char *body;        /* NULL: none */
    size_t body_size;
    double timeout;          /* seconds, for everything; not above 0: no limit */
    double connect_timeout;  /* seconds, of which until the request can be sent */
};

/*
 * Called on the loop when the transfer has ended. It may free the transfer, start nothing and free
 * no client.
 */
typedef void http_done_fn(struct http_transfer *transfer, void *data);

/*
 * Starts a request; everything in `request` is copied. Returns the transfer, owned by the caller:
 * end it with http_transfer_free. NULL and err on failure, done is not called then; nor is it
 * before this returns.
 */
struct http_transfer *http_client_start(struct http_client *client,
                                        const struct http_request *request, http_done_fn *done,
                                        void *data, struct err *err);

/* Cancels a running transfer (done is not called) and frees it. NULL is allowed. */
void http_transfer_free(struct http_transfer *transfer);

/* What an ended transfer brought. */
struct http_response {
    int status;
    const char *fields;      /* header block with lower-case names, owned by the transfer */
    size_t fields_size;
    const char *body;        /* owned by the transfer; never NULL */
    size_t body_size;
};

/* 0 and the response, or -1 and err. Only after done. */
int http_transfer_response(const struct http_transfer *transfer, struct http_response *response,
                           struct err *err);

#endif
