#include "http_client.h"

#include <stdlib.h>
#include <string.h>

#include "http_transfer.h"

enum {
    MAX_IDLE = 16,     /* connections kept for reuse */
    MAX_PER_HOST = 64  /* connections open at once; further requests queue inside curl */
};

struct http_client {
    uv_loop_t *loop;
    uv_timer_t *timer;
    CURLM *multi;
    struct http_client_options options; /* with strings of its own */
    char *ca_file;
    char *user_agent;
    struct http_transfer *running;
    struct watch *watches;
};

/* A socket that curl wants watched. Freed by libuv's close callback. */
struct watch {
    uv_poll_t poll;
    struct http_client *client; /* NULL once closed */
    curl_socket_t fd;
    int events;
    struct watch *next, *prev;
};

/* ---- the end of a transfer ---- */

static void transfer_detach(struct http_transfer *transfer)
{
    struct http_client *client = transfer->client;
    if (client == NULL)
        return;
    curl_multi_remove_handle(client->multi, transfer->easy);
    if (transfer->prev != NULL)
        transfer->prev->next = transfer->next;
    else
        client->running = transfer->next;
    if (transfer->next != NULL)
        transfer->next->prev = transfer->prev;
    transfer->client = NULL;
}

static void transfer_end(struct http_transfer *transfer, CURLcode result)
{
    transfer_judge(transfer, result);
    transfer_detach(transfer);
    transfer->done(transfer, transfer->data);
}

/* The one place that reads finished transfers. Never called from inside curl. */
static void read_finished(struct http_client *client)
{
    CURLMsg *message = NULL;
    int left = 0;
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CURLcode result = message->data.result; /* the message is gone once the handle is removed */
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        transfer_end((struct http_transfer *)(void *)private, result);
    }
}

static void act(struct http_client *client, curl_socket_t fd, int what)
{
    int running = 0;
    CURLMcode code = curl_multi_socket_action(client->multi, fd, what, &running);
    read_finished(client);
    if (code == CURLM_OK || code == CURLM_BAD_SOCKET)
        return;
    while (client->running != NULL) /* out of memory inside: nothing would ever move again */
        transfer_end(client->running, CURLE_OUT_OF_MEMORY);
}

/* ---- curl's sockets and timer on the loop ---- */

static void watch_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static void watch_close(struct watch *watch)
{
    if (watch->prev != NULL)
        watch->prev->next = watch->next;
    else
        watch->client->watches = watch->next;
    if (watch->next != NULL)
        watch->next->prev = watch->prev;
    watch->client = NULL;
    uv_close((uv_handle_t *)&watch->poll, watch_freed);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    int what = 0;
    if (status < 0)
        what |= CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        what |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        what |= CURL_CSELECT_OUT;
    act(watch->client, watch->fd, what);
    /* libuv stops a handle on an error event; curl knows nothing of it and may want the socket */
    if (status < 0 && watch->client != NULL)
        uv_poll_start(poll, watch->events, on_socket);
}

static struct watch *watch_new(struct http_client *client, curl_socket_t fd)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return NULL;
    if (uv_poll_init_socket(client->loop, &watch->poll, fd) < 0) {
        free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    watch->client = client;
    watch->fd = fd;
    watch->next = client->watches;
    if (watch->next != NULL)
        watch->next->prev = watch;
    client->watches = watch;
    curl_multi_assign(client->multi, fd, watch);
    return watch;
}

/* CURLMOPT_SOCKETFUNCTION: records and arms only. */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *socket_data)
{
    (void)easy;
    struct http_client *client = data;
    struct watch *watch = socket_data;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL) {
            curl_multi_assign(client->multi, fd, NULL);
            watch_close(watch);
        }
        return 0;
    }
    if (watch == NULL)
        watch = watch_new(client, fd);
    if (watch == NULL)
        return -1;
    watch->events = what & CURL_POLL_IN ? UV_READABLE : 0;
    watch->events |= what & CURL_POLL_OUT ? UV_WRITABLE : 0;
    return uv_poll_start(&watch->poll, watch->events, on_socket) < 0 ? -1 : 0;
}

static void on_timer(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* CURLMOPT_TIMERFUNCTION: arms only. */
static int set_timer(CURLM *multi, long milliseconds, void *data)
{
    (void)multi;
    struct http_client *client = data;
    if (milliseconds < 0)
        return uv_timer_stop(client->timer);
    uv_update_time(client->loop); /* the loop's clock stands still while a task computes */
    return uv_timer_start(client->timer, on_timer, (uint64_t)milliseconds, 0);
}

/* ---- starting and cancelling ---- */

struct http_transfer *http_client_start(struct http_client *client,
                                        const struct http_request *request, http_done_fn *done,
                                        void *data, struct err *err)
{
    struct http_transfer *transfer = calloc(1, sizeof(*transfer));
    if (transfer == NULL) {
        err_set(err, "CONNECT", "%s: out of memory", request->method);
        return NULL;
    }
    transfer->done = done;
    transfer->data = data;
    if (transfer_prepare(transfer, &client->options, request, err) < 0) {
        http_transfer_free(transfer);
        return NULL;
    }
    CURLMcode code = curl_multi_add_handle(client->multi, transfer->easy);
    if (code != CURLM_OK) {
        err_set(err, "CONNECT", "%s: %s", transfer->name, curl_multi_strerror(code));
        http_transfer_free(transfer);
        return NULL;
    }
    transfer->client = client;
    transfer->next = client->running;
    if (transfer->next != NULL)
        transfer->next->prev = transfer;
    client->running = transfer;
    return transfer;
}

void http_transfer_free(struct http_transfer *transfer)
{
    if (transfer == NULL)
        return;
    transfer_detach(transfer);
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    http_buffer_clear(&transfer->request_body);
    http_buffer_clear(&transfer->fields);
    http_buffer_clear(&transfer->body);
    free(transfer);
}


/* ---- the client ---- */

static void timer_freed(uv_handle_t *handle)
{
    free(handle);
}

static int set_multi(struct http_client *client)
{
    CURLMcode bad = CURLM_OK;
    bad |= curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    bad |= curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    bad |= curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    bad |= curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    bad |= curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)MAX_IDLE);
    bad |= curl_multi_setopt(client->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)MAX_PER_HOST);
    return bad == CURLM_OK ? 0 : -1;
}

/* NULL stays NULL; false when out of memory. */
static bool copy(char **to, const char *from)
{
    *to = from != NULL ? strdup(from) : NULL;
    return from == NULL || *to != NULL;
}

struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_options *options,
                                    struct err *err)
{
    struct http_client *client = calloc(1, sizeof(*client));
    /* counted; http_client_free takes it back */
    if (client == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        err_set(err, "MEMORY", "http.client: out of memory");
        return NULL;
    }
    client->loop = loop;
    client->options = *options;
    client->multi = curl_multi_init();
    client->timer = calloc(1, sizeof(*client->timer));
    if (client->timer != NULL) {
        uv_timer_init(loop, client->timer);
        client->timer->data = client;
    }
    if (client->multi == NULL || client->timer == NULL ||
        !copy(&client->ca_file, options->ca_file) ||
        !copy(&client->user_agent, options->user_agent) || set_multi(client) < 0) {
        http_client_free(client);
        err_set(err, "MEMORY", "http.client: out of memory");
        return NULL;
    }
    client->options.ca_file = client->ca_file;
    client->options.user_agent = client->user_agent;
    return client;
}

void http_client_free(struct http_client *client)
{
    if (client == NULL)
        return;
    while (client->running != NULL) {
        struct http_transfer *transfer = client->running;
        err_set(&transfer->err, "LOST", "%s: the client was closed", transfer->name);
        transfer_detach(transfer);
        transfer->done(transfer, transfer->data);
    }
    if (client->multi != NULL)
        curl_multi_cleanup(client->multi);
    while (client->watches != NULL)
        watch_close(client->watches);
    if (client->timer != NULL)
        uv_close((uv_handle_t *)client->timer, timer_freed);
    free(client->ca_file);
    free(client->user_agent);
    free(client);
    curl_global_cleanup();
}
