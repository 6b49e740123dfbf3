#include "kafka_client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "kafka_internal.h"

#define REPLIES_PER_TURN 64
#define TIMER_SLACK_NS 1000000
/* after the close's own deadline: destroying is known to hang in rare cases */
#define GIVE_UP_MS 1000

/* ---- callbacks: the opaque of every conf is the port ---- */

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *message)
{
    struct kafka_port *port = rd_kafka_opaque(rk);
    if (port != NULL)
        kafka_port_log(port, level, facility, message);
}

void kafka_client_log(struct kafka_client *client, int level, const char *facility,
                      const char *message)
{
    kafka_port_log(client->port, level, facility, message);
}

static void on_queue(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    kafka_port_wake(opaque);
}

struct kafka_client *kafka_client_of(void *opaque)
{
    return ((struct kafka_port *)opaque)->client;
}

/* ---- opening ---- */

static int set(rd_kafka_conf_t *conf, const struct kafka_property *property, struct err *err)
{
    char text[256];
    if (rd_kafka_conf_set(conf, property->name, property->value, text,
                          sizeof(text)) == RD_KAFKA_CONF_OK)
        return 0;
    return err_set(err, "CONFIG", "%s", text);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct kafka_property *)a)->name,
                  ((const struct kafka_property *)b)->name);
}

/*
 * librdkafka is the only judge of properties; sorted, so that of several mistakes always the same
 * one is reported.
 */
static rd_kafka_conf_t *make_conf(const struct kafka_setup *setup,
                                  const struct kafka_options *options,
                                  struct kafka_port *port, struct kafka_client *client,
                                  struct err *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    struct kafka_property *sorted = kafka_alloc(options->count * sizeof(*sorted));
    int status = 0;
    for (const struct kafka_property *p = setup->defaults; p != NULL && p->name != NULL; p++)
        /* newer than the library: it does without */
        rd_kafka_conf_set(conf, p->name, p->value, NULL, 0);
    if (options->count > 0)
        memcpy(sorted, options->properties, options->count * sizeof(*sorted));
    qsort(sorted, options->count, sizeof(*sorted), by_name);
    for (size_t i = 0; i < options->count && status == 0; i++)
        status = set(conf, &sorted[i], err);
    free(sorted);
    if (status == 0 && setup->check != NULL)
        status = setup->check(conf, client, err);
    if (status < 0) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    rd_kafka_conf_set_opaque(conf, port);
    rd_kafka_conf_set_log_cb(conf, on_log);
    if (setup->configure != NULL)
        setup->configure(conf);
    return conf;
}

static void on_async(uv_async_t *async);

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void on_tick(uv_timer_t *timer)
{
    struct kafka_client *client = timer->data;
    client->kind->tick(client);
}

static int open_loop(struct kafka_client *client, struct err *err)
{
    client->async = kafka_alloc(sizeof(*client->async));
    int status = uv_async_init(client->loop, client->async, on_async);
    if (status != 0) {
        free(client->async);
        return err_set(err, "SYSTEM", "%s", uv_strerror(status));
    }
    client->async->data = client;
    client->timer = kafka_alloc(sizeof(*client->timer));
    uv_timer_init(client->loop, client->timer);
    uv_unref((uv_handle_t *)client->timer); /* housekeeping keeps no loop alive */
    client->timer->data = client;
    client->port->async = client->async;
    return 0;
}

static void close_loop(struct kafka_client *client)
{
    kafka_port_let_go(client->port);
    uv_close((uv_handle_t *)client->async, free_handle);
    uv_close((uv_handle_t *)client->timer, free_handle);
    client->async = NULL;
    client->timer = NULL;
}

/*
 * A handle's main thread waits for its next timer in whole milliseconds and spins through the rest
 * of the last one: nearly a millisecond of CPU a second, for each handle and for ever (2.0.2,
 * rd_kafka_thread_main). With a slack of a millisecond, which threads inherit, the wait ends when
 * the timer is due. It delays time-outs by so much, and nothing that something else wakes.
 */
static rd_kafka_t *new_handle(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *text, size_t size)
{
    int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS, 0, 0, 0);
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, size);
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, (unsigned long)slack, 0, 0, 0);
    return rk;
}

int kafka_client_open(struct kafka_client *client, const struct kafka_kind *kind,
                      const struct kafka_setup *setup,
                      const struct kafka_options *options, struct err *err)
{
    client->kind = kind;
    client->loop = options->loop;
    client->refs = 1;
    client->port = kafka_port_new(&options->log);
    rd_kafka_conf_t *conf = make_conf(setup, options, client->port, client, err);
    if (conf == NULL || open_loop(client, err) < 0) {
        if (conf != NULL)
            rd_kafka_conf_destroy(conf);
        kafka_port_unref(client->port);
        return -1;
    }
    char text[256];
    client->rk = new_handle(setup->type, conf, text, sizeof(text));
    if (client->rk == NULL) {
        rd_kafka_conf_destroy(conf);
        close_loop(client);
        kafka_port_unref(client->port);
        return err_set(err, "CONFIG", "%s", text);
    }
    client->port->client = client;
    client->replies = rd_kafka_queue_new(client->rk);
    rd_kafka_queue_cb_event_enable(client->replies, on_queue, client->port);
    return 0;
}

void kafka_client_watch(struct kafka_client *client, rd_kafka_queue_t *queue)
{
    client->queue = queue;
    rd_kafka_queue_cb_event_enable(queue, on_queue, client->port);
    kafka_client_again(client); /* what was queued before raises no event */
}

void kafka_client_again(struct kafka_client *client)
{
    uv_async_send(client->async);
}

void kafka_client_every(struct kafka_client *client, uint64_t ms)
{
    uv_timer_start(client->timer, on_tick, ms, ms);
}

void kafka_client_ref(struct kafka_client *client)
{
    client->refs++;
}

void kafka_client_unref(struct kafka_client *client)
{
    if (client != NULL && --client->refs == 0)
        client->kind->release(client);
}

/* ---- calls ---- */

struct kafka_call *kafka_call_new(struct kafka_client *client, kafka_done *done, void *arg)
{
    struct kafka_call *call = kafka_alloc(sizeof(*call));
    call->client = client;
    call->done = done;
    call->arg = arg;
    call->next = client->calls;
    if (call->next != NULL)
        call->next->prev = call;
    client->calls = call;
    return call;
}

void kafka_call_end(struct kafka_call *call, struct kafka_result *result)
{
    if (call->prev != NULL)
        call->prev->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    if (call->job != NULL)
        call->job->call = NULL;
    if (call->done != NULL)
        call->done(call->arg, result);
    free(call->group);
    free(call);
}

void kafka_call_fail(struct kafka_call *call, rd_kafka_resp_err_t code, const char *message)
{
    struct kafka_result result = {.failed = true};
    kafka_err(&result.err, code, message);
    kafka_call_end(call, &result);
}

void kafka_call_cancel(struct kafka_call *call)
{
    call->done = NULL;
}

void *kafka_job_new(size_t size, double timeout)
{
    struct kafka_job *job = kafka_alloc(size);
    job->timeout_ms = kafka_ms(timeout);
    return job;
}

struct kafka_call *kafka_call_run(struct kafka_call *call, struct kafka_job *job)
{
    call->job = job;
    job->call = call;
    if (kafka_port_start(call->client->port, call->client->rk, job) == 0)
        return call;
    call->job = NULL;
    job->release(job);
    kafka_call_fail(call, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "no thread for a blocking call");
    return NULL;
}

static void end_jobs(struct kafka_client *client)
{
    struct kafka_job *job = kafka_port_finished(client->port);
    while (job != NULL) {
        struct kafka_job *next = job->next;
        if (job->settle != NULL && !client->closing)
            job->settle(client, job);
        if (job->call != NULL) {
            job->call->job = NULL;
            kafka_call_end(job->call, &job->result);
        }
        kafka_result_free(&job->result);
        job->release(job);
        job = next;
    }
}

static void drain_replies(struct kafka_client *client)
{
    for (int i = 0; i < REPLIES_PER_TURN; i++) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(client->replies, 0);
        if (event == NULL)
            return;
        struct kafka_call *call = rd_kafka_event_opaque(event);
        if (call != NULL)
            kafka_reply(call, event);
        rd_kafka_event_destroy(event);
        if (client->closing)
            return;
    }
    kafka_client_again(client);
}

/* ---- closing ---- */

static void end_close(struct kafka_client *client, struct kafka_result *result)
{
    close_loop(client);
    kafka_port_unref(client->port);
    client->port = NULL;
    if (client->closed != NULL)
        client->closed(client->closed_arg, result);
    kafka_result_free(result);
    kafka_client_unref(client);
}

/* The outcome of the close if there is one yet. */
static bool take_outcome(struct kafka_client *client, bool ended, struct kafka_result *outcome)
{
    struct kafka_port *port = client->port;
    pthread_mutex_lock(&port->lock);
    bool there = ended ? port->ended : port->left;
    if (there) {
        *outcome = port->outcome;
        memset(&port->outcome, 0, sizeof(port->outcome));
    }
    pthread_mutex_unlock(&port->lock);
    return there;
}

/*
 * What remains is done by the thread, unseen: a job that waits for a broker, or librdkafka's own
 * end, which may hang.
 */
static void on_patience(uv_timer_t *timer)
{
    struct kafka_client *client = timer->data;
    struct kafka_result outcome = {.failed = true};
    err_set(&outcome.err, "TIMEDOUT", "the %s did not close in time and was given up",
            client->kind->name);
    take_outcome(client, false, &outcome);
    end_close(client, &outcome);
}

/* Everything the handle's threads have to say arrives here. */
static void on_async(uv_async_t *async)
{
    struct kafka_client *client = async->data;
    kafka_client_ref(client);
    end_jobs(client);
    if (client->closing) {
        struct kafka_result outcome;
        if (take_outcome(client, true, &outcome))
            end_close(client, &outcome);
    } else {
        drain_replies(client);
        if (!client->closing)
            client->kind->drain(client);
    }
    kafka_client_unref(client);
}

void kafka_client_close(struct kafka_client *client, double seconds, kafka_done *done, void *arg)
{
    if (client->closing)
        return;
    client->closing = true;
    client->closed = done;
    client->closed_arg = arg;
    client->port->client = NULL;
    kafka_client_ref(client); /* until end_close */
    rd_kafka_queue_cb_event_enable(client->replies, NULL, NULL);
    if (client->queue != NULL)
        rd_kafka_queue_cb_event_enable(client->queue, NULL, NULL);
    while (client->calls != NULL) {
        struct kafka_result result = {.failed = true};
        err_set(&result.err, "CLOSED", "the %s was closed", client->kind->name);
        kafka_call_end(client->calls, &result);
    }
    client->kind->stop(client);
    rd_kafka_queue_destroy(client->replies);
    if (client->queue != NULL)
        rd_kafka_queue_destroy(client->queue);
    int ms = kafka_ms(seconds);
    uv_timer_stop(client->timer);
    uv_ref((uv_handle_t *)client->timer);
    uv_update_time(client->loop);
    uv_timer_start(client->timer, on_patience, (uint64_t)ms + GIVE_UP_MS, 0);
    kafka_port_close(client->port, client->rk, client->kind->finish, client->finish_state, ms);
}

void kafka_client_forget(struct kafka_client *client)
{
    client->closed = NULL;
}
