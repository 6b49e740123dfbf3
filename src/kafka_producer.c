#include "kafka_producer.h"

#include <stdlib.h>
#include <string.h>

#include "kafka_internal.h"

#define REPORTS_PER_TURN 1000

struct topic {
    rd_kafka_topic_t *rkt;
    struct topic *next;
};

struct flush {
    struct kafka_call *call;
    struct flush *next;
};

struct kafka_producer {
    struct kafka_client client; /* first */
    size_t outstanding;
    size_t reported;            /* in this turn */
    size_t lost;                /* sent records that failed since the last flush */
    struct err last_error;
    struct topic *topics;       /* every topic produced to, see warm_up */
    struct flush *flushes;
};

/* ---- delivery ---- */

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    struct kafka_producer *producer = (struct kafka_producer *)kafka_client_of(opaque);
    if (producer == NULL)
        return; /* closing: what stays in the queue is counted there */
    struct kafka_call *call = message->_private;
    producer->outstanding--;
    if (call != NULL) {
        struct kafka_result result = {.partition = message->partition, .offset = message->offset};
        result.failed = kafka_err(&result.err, message->err, NULL) < 0;
        kafka_call_end(call, &result);
    } else if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        producer->lost++;
        kafka_err(&producer->last_error, message->err, NULL);
    }
    if (++producer->reported >= REPORTS_PER_TURN)
        rd_kafka_yield(rk); /* leaves the rest in the queue, without a new wake-up */
}

/* A producer has no stream of events; records that are not delivered say so themselves. */
static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    (void)rk;
    struct kafka_client *client = kafka_client_of(opaque);
    if (client != NULL)
        kafka_client_log(client, 4, rd_kafka_err2name((rd_kafka_resp_err_t)code), reason);
}

static void end_flushes(struct kafka_producer *producer)
{
    if (producer->outstanding > 0 || producer->flushes == NULL)
        return;
    struct kafka_result result = {.failed = producer->lost > 0};
    if (result.failed)
        err_set(&result.err, producer->last_error.code,
                "%zu records were not delivered, the last because: %s",
                producer->lost, producer->last_error.msg);
    producer->lost = 0;
    while (producer->flushes != NULL) {
        struct flush *flush = producer->flushes;
        producer->flushes = flush->next;
        kafka_call_end(flush->call, &result);
        free(flush);
    }
}

static void drain(struct kafka_client *client)
{
    struct kafka_producer *producer = (struct kafka_producer *)client;
    producer->reported = 0;
    rd_kafka_poll(client->rk, 0);
    if (producer->reported >= REPORTS_PER_TURN)
        kafka_client_again(client);
    end_flushes(producer);
}

/* ---- opening and closing ---- */

static const struct kafka_property defaults[] = {
    {"enable.metrics.push", "false"},
    {"log.connection.close", "false"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.nagle.disable", "true"},
    {NULL, NULL},
};

static void configure(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_conf_set_error_cb(conf, on_error);
}

static void stop(struct kafka_client *client)
{
    struct kafka_producer *producer = (struct kafka_producer *)client;
    while (producer->topics != NULL) {
        struct topic *topic = producer->topics;
        producer->topics = topic->next;
        rd_kafka_topic_destroy(topic->rkt);
        free(topic);
    }
    while (producer->flushes != NULL) { /* their calls have ended */
        struct flush *flush = producer->flushes;
        producer->flushes = flush->next;
        free(flush);
    }
}

static void finish(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline)
{
    (void)state;
    rd_kafka_flush(rk, kafka_left(deadline));
    int left = rd_kafka_outq_len(rk);
    if (left > 0) {
        result->failed = true;
        err_set(&result->err, "TIMEDOUT", "%d records were not delivered in time", left);
    }
}

static void release(struct kafka_client *client)
{
    free(client);
}

static const struct kafka_kind kind = {"producer", drain, NULL, stop, finish, release};

struct kafka_producer *kafka_producer_new(const struct kafka_options *options, struct err *err)
{
    static const struct kafka_setup setup = {RD_KAFKA_PRODUCER, defaults, configure, NULL};
    struct kafka_producer *producer = kafka_alloc(sizeof(*producer));
    if (kafka_client_open(&producer->client, &kind, &setup, options, err) < 0) {
        free(producer);
        return NULL;
    }
    kafka_client_watch(&producer->client, rd_kafka_queue_get_main(producer->client.rk));
    return producer;
}

struct kafka_client *kafka_producer_client(struct kafka_producer *producer)
{
    return &producer->client;
}

/* ---- producing ---- */

struct warm_job {
    struct kafka_job job;
    rd_kafka_topic_t *rkt;
};

static void warm_work(rd_kafka_t *rk, struct kafka_job *job)
{
    struct warm_job *self = (struct warm_job *)job;
    const struct rd_kafka_metadata *metadata = NULL;
    if (rd_kafka_metadata(rk, 0, self->rkt, &metadata,
                          job->timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(self->rkt);
    self->rkt = NULL;
}

static void warm_release(struct kafka_job *job)
{
    free(job);
}

/*
 * The first record for a topic waits for a one-second timer inside librdkafka (before 2.10.1);
 * asking for the topic's metadata releases it as soon as the answer is there.
 */
static void warm_up(struct kafka_producer *producer, const char *name)
{
    struct topic *topic = producer->topics;
    while (topic != NULL && strcmp(rd_kafka_topic_name(topic->rkt), name) != 0)
        topic = topic->next;
    if (topic != NULL)
        return;
    rd_kafka_t *rk = producer->client.rk;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, name, NULL);
    if (rkt == NULL)
        return; /* produce says why */
    topic = kafka_alloc(sizeof(*topic));
    topic->rkt = rkt;
    topic->next = producer->topics;
    producer->topics = topic;
    struct warm_job *self = kafka_job_new(sizeof(*self), 5);
    self->job.work = warm_work;
    self->job.release = warm_release;
    self->rkt = rd_kafka_topic_new(rk, name, NULL);
    if (kafka_port_start(producer->client.port, rk, &self->job) < 0) {
        rd_kafka_topic_destroy(self->rkt);
        free(self);
    }
}

static rd_kafka_headers_t *make_headers(const struct kafka_message *message)
{
    if (message->header_count == 0)
        return NULL;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(message->header_count);
    for (size_t i = 0; i < message->header_count; i++) {
        const struct kafka_header *header = &message->headers[i];
        rd_kafka_header_add(headers, header->name, -1, header->value,
                            header->value != NULL ? (ssize_t)header->size : 0);
    }
    return headers;
}

static int produce(struct kafka_producer *producer, const struct kafka_message *message,
                   struct kafka_call *call,
                   struct err *err)
{
    warm_up(producer, message->topic);
    rd_kafka_vu_t vus[8];
    size_t count = 0;
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = message->topic};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = message->partition};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = call};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = message->timestamp};
    rd_kafka_vu_t *value = &vus[count++];
    value->vtype = RD_KAFKA_VTYPE_VALUE;
    value->u.mem.ptr = (void *)(uintptr_t)message->value;
    value->u.mem.size = message->value_size;
    if (message->key != NULL) {
        vus[count].vtype = RD_KAFKA_VTYPE_KEY;
        vus[count].u.mem.ptr = (void *)(uintptr_t)message->key;
        vus[count++].u.mem.size = message->key_size;
    }
    rd_kafka_headers_t *headers = make_headers(message);
    if (headers != NULL)
        vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers};
    rd_kafka_error_t *error = rd_kafka_produceva(producer->client.rk, vus, count);
    if (error != NULL) {
        if (headers != NULL)
            rd_kafka_headers_destroy(headers); /* taken on success only */
        return kafka_err_take(err, error);
    }
    producer->outstanding++;
    return 0;
}

struct kafka_call *kafka_producer_produce(struct kafka_producer *producer,
                                          const struct kafka_message *message,
                                          kafka_done *done, void *arg)
{
    struct kafka_call *call = kafka_call_new(&producer->client, done, arg);
    struct kafka_result result = {0};
    if (produce(producer, message, call, &result.err) == 0)
        return call;
    result.failed = true;
    kafka_call_end(call, &result);
    return NULL;
}

int kafka_producer_send(struct kafka_producer *producer, const struct kafka_message *message,
                        struct err *err)
{
    return produce(producer, message, NULL, err);
}

size_t kafka_producer_outstanding(const struct kafka_producer *producer)
{
    return producer->outstanding;
}

struct kafka_call *kafka_producer_flush(struct kafka_producer *producer, kafka_done *done,
                                        void *arg)
{
    struct kafka_call *call = kafka_call_new(&producer->client, done, arg);
    struct flush *flush = kafka_alloc(sizeof(*flush));
    flush->call = call;
    flush->next = producer->flushes;
    producer->flushes = flush;
    if (producer->outstanding == 0)
        kafka_client_again(&producer->client); /* ends on the loop, as always */
    return call;
}
