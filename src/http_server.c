#include "http_server.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 128,
    HEADER_MEMORY = 64 * 1024,  /* per connection: request line, fields, buffers */
    /* a body up to this many times the limit is read to its end, so that its sender sees the 413 */
    DISCARD_FACTOR = 4
};

struct http_server {
    uv_loop_t *loop;
    uv_poll_t *poll;            /* of libmicrohttpd's epoll descriptor */
    uv_timer_t *timer;
    struct MHD_Daemon *daemon;
    uint16_t port;
    size_t max_body;
    http_request_fn *on_request;
    void *data;
    bool closing;
    struct http_exchange *suspended;     /* complete requests without an answer */
    struct http_exchange *waiting;       /* of them those that nobody took, oldest first */
    struct http_exchange **waiting_last;
};

/* Lives until libmicrohttpd has finished with it and nobody holds it. */
struct http_exchange {
    struct http_server *server;       /* NULL once it is freed */
    struct MHD_Connection *connection; /* NULL once libmicrohttpd has finished */
    struct http_exchange *next, *prev; /* in server->suspended */
    struct http_exchange *next_waiting;
    struct MHD_Response *response;
    unsigned status;
    bool started;
    bool suspended;
    bool held;
    bool dropped;
    bool too_large;
    size_t received;                  /* bytes of the body, kept or discarded */
    struct http_buffer target, method, fields, body;
};

/* ---- exchanges ---- */

static void exchange_unref(struct http_exchange *exchange)
{
    if (exchange->held || exchange->connection != NULL)
        return;
    if (exchange->response != NULL)
        MHD_destroy_response(exchange->response);
    http_buffer_clear(&exchange->target);
    http_buffer_clear(&exchange->method);
    http_buffer_clear(&exchange->fields);
    http_buffer_clear(&exchange->body);
    free(exchange);
}

static void exchange_unlink(struct http_exchange *exchange)
{
    struct http_server *server = exchange->server;
    if (!exchange->suspended)
        return;
    exchange->suspended = false;
    if (exchange->prev != NULL)
        exchange->prev->next = exchange->next;
    else
        server->suspended = exchange->next;
    if (exchange->next != NULL)
        exchange->next->prev = exchange->prev;
    exchange->next = exchange->prev = NULL;
}

/* ---- libmicrohttpd's callbacks: they record, and never answer for the script ---- */

/* The first to see a request; only here is the target still as received. */
static void *on_target(void *data, const char *target, struct MHD_Connection *connection)
{
    struct http_exchange *exchange = calloc(1, sizeof(*exchange));
    if (exchange == NULL)
        return NULL;
    if (http_buffer_add(&exchange->target, target, strlen(target)) < 0) {
        free(exchange);
        return NULL;
    }
    exchange->server = data;
    exchange->connection = connection;
    return exchange;
}

static enum MHD_Result on_field(void *data, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    (void)kind;
    struct http_exchange *exchange = data;
    if (value == NULL)
        value = "";
    int added = http_field_add(&exchange->fields, name, strlen(name), value, strlen(value));
    return added < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result refuse(struct http_exchange *exchange)
{
    static const char text[] = "request body too large\n";
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(sizeof(text) - 1,
                                                           (void *)(uintptr_t)text, NULL);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, "connection", "close");
    enum MHD_Result result = MHD_queue_response(exchange->connection, MHD_HTTP_CONTENT_TOO_LARGE,
                                                response);
    MHD_destroy_response(response);
    return result;
}

/* The header has arrived. */
static enum MHD_Result begin(struct http_exchange *exchange, const char *method)
{
    struct http_server *server = exchange->server;
    exchange->started = true;
    if (http_buffer_add(&exchange->method, method, strlen(method)) < 0)
        return MHD_NO;
    int fields = MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, NULL, NULL);
    if (MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, on_field,
                                  exchange) != fields)
        return MHD_NO;
    const char *length =
        MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND,
                                    MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (length != NULL && strtoull(length, NULL, 10) / DISCARD_FACTOR > server->max_body)
        return refuse(exchange);
    return MHD_YES;
}

static enum MHD_Result collect(struct http_exchange *exchange, const char *data, size_t *size)
{
    size_t max_body = exchange->server->max_body;
    exchange->received += *size;
    if (exchange->received > max_body) {
        exchange->too_large = true;
        http_buffer_clear(&exchange->body);
        if (exchange->received / DISCARD_FACTOR > max_body)
            return MHD_NO;
    } else if (http_buffer_add(&exchange->body, data, *size) < 0) {
        return MHD_NO;
    }
    *size = 0;
    return MHD_YES;
}

/*
 * Called at the header, for each piece of the body, at the end, and again after
 * MHD_resume_connection.
 */
static enum MHD_Result on_access(void *data, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **context)
{
    (void)url;
    (void)version;
    struct http_server *server = data;
    struct http_exchange *exchange = *context;
    if (exchange == NULL || exchange->dropped)
        return MHD_NO;
    if (exchange->response != NULL)
        return MHD_queue_response(connection, exchange->status, exchange->response);
    if (server->closing)
        return MHD_NO;
    if (!exchange->started)
        return begin(exchange, method);
    if (*upload_size > 0)
        return collect(exchange, upload, upload_size);
    if (exchange->too_large)
        return refuse(exchange);
    MHD_suspend_connection(connection);
    exchange->suspended = true;
    exchange->next = server->suspended;
    if (exchange->next != NULL)
        exchange->next->prev = exchange;
    server->suspended = exchange;
    *server->waiting_last = exchange;
    server->waiting_last = &exchange->next_waiting;
    server->on_request(server->data);
    return MHD_YES;
}

static void on_completed(void *data, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)data;
    (void)connection;
    (void)code;
    struct http_exchange *exchange = *context;
    *context = NULL;
    if (exchange == NULL)
        return;
    exchange_unlink(exchange);
    exchange->connection = NULL;
    exchange_unref(exchange);
}

static void log_nothing(void *data, const char *format, va_list arguments)
{
    (void)data;
    (void)format;
    (void)arguments;
}

/* ---- the loop ---- */

static void run(struct http_server *server);

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

/* Its time-out changes with everything that libmicrohttpd does. */
static void run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG milliseconds = 0;
    MHD_run(server->daemon);
    if (MHD_get_timeout(server->daemon, &milliseconds) != MHD_YES) {
        uv_timer_stop(server->timer);
        return;
    }
    uv_update_time(server->loop);
    uv_timer_start(server->timer, on_timer, milliseconds, 0);
}

static void handle_freed(uv_handle_t *handle)
{
    free(handle);
}

/* ---- listening ---- */

static int parse_address(const struct http_server_options *options,
                         struct sockaddr_storage *address, struct err *err)
{
    const char *host = strcmp(options->host, "localhost") == 0 ? "127.0.0.1" : options->host;
    memset(address, 0, sizeof(*address));
    if (uv_ip4_addr(host, options->port, (struct sockaddr_in *)address) == 0 ||
        uv_ip6_addr(host, options->port, (struct sockaddr_in6 *)address) == 0)
        return 0;
    return err_set(err, "ADDRESS", "http.server: '%s' is not an IP address", options->host);
}

static int fail_listen(const struct http_server_options *options, int error, struct err *err)
{
    const char *code = error == EADDRINUSE ? "IN_USE" : error == EACCES ? "DENIED" : "LISTEN";
    return err_set(err, code, "http.server: %s port %u: %s", options->host, options->port,
                   strerror(error));
}

/*
 * A listening socket of our own, so that errors and port are known exactly. -1 and err on failure.
 */
static int listen_on(const struct http_server_options *options, struct sockaddr_storage *address,
                     uint16_t *port, struct err *err)
{
    int one = 1;
    struct sockaddr *name = (struct sockaddr *)address;
    socklen_t length = sizeof(*address);
    if (parse_address(options, address, err) < 0)
        return -1;
    bool six = name->sa_family == AF_INET6;
    socklen_t size = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(name->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_listen(options, errno, err);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, name, size) < 0 ||
        listen(fd, BACKLOG) < 0 || getsockname(fd, name, &length) < 0) {
        int error = errno;
        close(fd);
        return fail_listen(options, error, err);
    }
    *port = ntohs(six ? ((struct sockaddr_in6 *)address)->sin6_port
                      : ((struct sockaddr_in *)address)->sin_port);
    return fd;
}

/* Takes the socket, also on failure. */
static int start_daemon(struct http_server *server, const struct http_server_options *options,
                        int fd, int family)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
    if (family == AF_INET6)
        flags |= MHD_USE_IPv6;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, on_target, server,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_CONNECTION_LIMIT, options->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, options->idle_timeout,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_MEMORY, MHD_OPTION_END);
    if (server->daemon == NULL) {
        close(fd);
        return -1;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon,
                                                           MHD_DAEMON_INFO_EPOLL_FD);
    uv_poll_t *poll = calloc(1, sizeof(*poll));
    if (info == NULL || poll == NULL || uv_poll_init(server->loop, poll, info->epoll_fd) < 0) {
        free(poll);
        return -1;
    }
    server->poll = poll;
    server->poll->data = server;
    return uv_poll_start(server->poll, UV_READABLE, on_poll) < 0 ? -1 : 0;
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *options,
                                    http_request_fn *on_request, void *data, struct err *err)
{
    struct sockaddr_storage address;
    uint16_t port = 0;
    int fd = listen_on(options, &address, &port, err);
    if (fd < 0)
        return NULL;
    struct http_server *server = calloc(1, sizeof(*server));
    uv_timer_t *timer = calloc(1, sizeof(*timer));
    if (server == NULL || timer == NULL) {
        close(fd);
        free(server);
        free(timer);
        err_set(err, "LISTEN", "http.server: out of memory");
        return NULL;
    }
    uv_timer_init(loop, timer);
    timer->data = server;
    server->loop = loop;
    server->timer = timer;
    server->port = port;
    server->max_body = options->max_body;
    server->waiting_last = &server->waiting;
    server->on_request = on_request;
    server->data = data;
    if (start_daemon(server, options, fd, address.ss_family) < 0) {
        http_server_free(server);
        err_set(err, "LISTEN", "http.server: libmicrohttpd does not start");
        return NULL;
    }
    run(server);
    return server;
}

void http_server_free(struct http_server *server)
{
    if (server == NULL)
        return;
    /* before libmicrohttpd closes the descriptor that it watches */
    if (server->poll != NULL)
        uv_close((uv_handle_t *)server->poll, handle_freed);
    uv_close((uv_handle_t *)server->timer, handle_freed);
    server->closing = true;
    while (server->suspended != NULL) { /* libmicrohttpd aborts the program when one is left */
        struct http_exchange *exchange = server->suspended;
        exchange_unlink(exchange);
        exchange->server = NULL;
        exchange->dropped = true;
        MHD_resume_connection(exchange->connection);
    }
    if (server->daemon != NULL) {
        MHD_run(server->daemon);
        MHD_stop_daemon(server->daemon);
    }
    free(server);
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

/* ---- handing out and answering ---- */

struct http_exchange *http_server_take(struct http_server *server)
{
    struct http_exchange *exchange = server->waiting;
    if (exchange == NULL)
        return NULL;
    server->waiting = exchange->next_waiting;
    if (server->waiting == NULL)
        server->waiting_last = &server->waiting;
    exchange->held = true;
    return exchange;
}

void http_exchange_received(const struct http_exchange *exchange, struct http_received *received)
{
    received->method = exchange->method.data;
    received->target = exchange->target.data;
    received->fields = exchange->fields.data != NULL ? exchange->fields.data : "";
    received->fields_size = exchange->fields.size;
    received->body = exchange->body.data != NULL ? exchange->body.data : "";
    received->body_size = exchange->body.size;
}

/* Gives the exchange back to libmicrohttpd, which calls on_access for it at once. */
static void give_back(struct http_exchange *exchange)
{
    struct http_server *server = exchange->server;
    exchange->held = false;
    if (server == NULL || !exchange->suspended) { /* the server is gone */
        exchange_unref(exchange);
        return;
    }
    exchange_unlink(exchange);
    MHD_resume_connection(exchange->connection);
    run(server); /* resuming does not wake the epoll descriptor */
}

static void add_fields(struct MHD_Response *response, const char *fields, size_t size)
{
    const char *at = fields, *end = fields + size;
    struct http_field field;
    struct http_buffer name = {0}, value = {0};
    while (http_field_next(&at, end, &field)) {
        name.size = value.size = 0;
        if (http_buffer_add(&name, field.name, field.name_size) < 0 ||
            http_buffer_add(&value, field.value, field.value_size) < 0)
            break;
        if (strcasecmp(name.data, "content-length") != 0 && strcasecmp(name.data, "date") != 0)
            MHD_add_response_header(response, name.data, value.data);
    }
    http_buffer_clear(&name);
    http_buffer_clear(&value);
}

int http_exchange_respond(struct http_exchange *exchange, const struct http_answer *answer)
{
    int status = -1;
    exchange->status = answer->status;
    exchange->response = MHD_create_response_from_buffer(answer->body_size,
                                                         (void *)(uintptr_t)answer->body,
                                                         MHD_RESPMEM_MUST_COPY);
    if (exchange->response == NULL) {
        exchange->dropped = true;
    } else {
        if (answer->fields != NULL)
            add_fields(exchange->response, answer->fields, answer->fields_size);
        status = 0;
    }
    give_back(exchange);
    return status;
}

void http_exchange_drop(struct http_exchange *exchange)
{
    if (exchange == NULL)
        return;
    exchange->dropped = true;
    give_back(exchange);
}
