#include "kafka_producer.h"

#include <stdio.h>
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

/* Records that are waited for together; lives until each of them is reported. */
struct batch {
    struct kafka_call *call;
    struct batch *prev, *next;
    struct kafka_result result;
    struct kafka_partitions *places;
    size_t left, failed;
    struct err last_error;
    /* what a record's opaque points to, with the lowest bit set: its batch, and by its place in the
       array its index */
    struct batch *slots[];
};

/* A copy of a record for which librdkafka's queue had no room. */
struct waiting {
    struct waiting *next;
    struct kafka_call *call;    /* NULL: of a batch */
    struct batch **slot;        /* NULL: not of one */
    bool queue_only;            /* the call ends when the record is queued */
    struct kafka_message message;
    char bytes[];
};

struct kafka_producer {
    struct kafka_client client; /* first */
    size_t outstanding;
    size_t lost;                /* sent records that failed since the last flush */
    struct err last_error;
    struct topic *topics;       /* every topic produced to, see warm_up */
    struct flush *flushes;
    struct batch *batches;
    struct waiting *waiting, **waiting_last;
};

/* ---- delivery ---- */

static void *slot_opaque(struct batch **slot)
{
    return (void *)((uintptr_t)slot | 1);
}

static void batch_free(struct kafka_producer *producer, struct batch *batch)
{
    if (batch->prev != NULL)
        batch->prev->next = batch->next;
    else
        producer->batches = batch->next;
    if (batch->next != NULL)
        batch->next->prev = batch->prev;
    kafka_result_free(&batch->result);
    free(batch);
}

static void batch_report(struct kafka_producer *producer, struct batch **slot, int32_t partition,
                         int64_t offset, const struct err *err)
{
    struct batch *batch = *slot;
    struct kafka_partition *place = &batch->places->items[slot - batch->slots];
    place->partition = partition;
    place->offset = offset;
    if (err != NULL) {
        batch->failed++;
        batch->last_error = *err;
        rd_kafka_resp_err_t code;
        place->error = kafka_err_code(err->code, &code) == 0 ? kafka_err_name(code) : "TIMEDOUT";
        place->offset = KAFKA_OFFSET_NONE;
    }
    if (--batch->left > 0)
        return;
    batch->result.failed = batch->failed > 0;
    if (batch->result.failed)
        err_set(&batch->result.err, batch->last_error.code,
                "%zu of %zu records were not delivered, the last because: %s", batch->failed,
                batch->places->count, batch->last_error.msg);
    kafka_call_end(batch->call, &batch->result);
    batch_free(producer, batch);
}

/* The outcome of one record, for whoever waits for it. */
static void report(struct kafka_producer *producer, void *opaque, int32_t partition,
                   int64_t offset, const struct err *err)
{
    producer->outstanding--;
    if (((uintptr_t)opaque & 1) != 0) {
        batch_report(producer, (struct batch **)((uintptr_t)opaque & ~(uintptr_t)1), partition,
                     offset, err);
    } else if (opaque != NULL) {
        struct kafka_result result = {.partition = partition, .offset = offset};
        result.failed = err != NULL;
        if (err != NULL)
            result.err = *err;
        kafka_call_end(opaque, &result);
    } else if (err != NULL) {
        producer->lost++;
        producer->last_error = *err;
    }
}

static void on_report(struct kafka_producer *producer, const rd_kafka_message_t *message)
{
    struct err err;
    const char *topic = message->rkt != NULL ? rd_kafka_topic_name(message->rkt) : "?";
    char text[200];
    snprintf(text, sizeof(text), "topic %s: %s", topic, rd_kafka_err2str(message->err));
    bool failed = kafka_err(&err, message->err, text) < 0;
    report(producer, message->_private, message->partition, message->offset, failed ? &err : NULL);
}

/* A producer has no stream of events; records that are not delivered say so themselves. */
static void on_error(struct kafka_client *client, rd_kafka_event_t *event)
{
    kafka_client_log(client, 4, rd_kafka_err2name(rd_kafka_event_error(event)),
                     rd_kafka_event_error_string(event));
}

static void end_flushes(struct kafka_producer *producer)
{
    if (producer->outstanding > 0 || producer->flushes == NULL)
        return;
    struct kafka_result result = {0};
    result.failed = kafka_producer_lost(producer, &result.err) > 0;
    while (producer->flushes != NULL) {
        struct flush *flush = producer->flushes;
        producer->flushes = flush->next;
        kafka_call_end(flush->call, &result);
        free(flush);
    }
}

size_t kafka_producer_lost(struct kafka_producer *producer, struct err *err)
{
    size_t lost = producer->lost;
    if (lost > 0)
        err_set(err, producer->last_error.code, "%zu records were not delivered, the last because: %s",
                lost, producer->last_error.msg);
    producer->lost = 0;
    return lost;
}

static void admit(struct kafka_producer *producer);

/*
 * Delivery reports are events, not callbacks: a thread that commits a transaction flushes, and must
 * not be the one to find them.
 */
static void drain(struct kafka_client *client)
{
    struct kafka_producer *producer = (struct kafka_producer *)client;
    size_t reported = 0;
    rd_kafka_event_t *event = NULL;
    while (reported < REPORTS_PER_TURN &&
           (event = rd_kafka_queue_poll(client->queue, 0)) != NULL) {
        const rd_kafka_message_t *message;
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
            on_error(client, event);
        while ((message = rd_kafka_event_message_next(event)) != NULL) {
            on_report(producer, message);
            reported++;
        }
        rd_kafka_event_destroy(event);
    }
    if (event != NULL)
        kafka_client_again(client);
    admit(producer);
    end_flushes(producer);
}

/* ---- opening and closing ---- */

static const struct kafka_property defaults[] = {
    {"enable.metrics.push", "false"},
    {"enable.idempotence", "true"},
    {"log.connection.close", "false"},
    /* what is queued counts as this process's memory; beyond it, who produces waits */
    {"queue.buffering.max.kbytes", "32768"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.nagle.disable", "true"},
    /* a topic that does not exist is an error after that long, not after half a minute */
    {"topic.metadata.propagation.max.ms", "3000"},
    {NULL, NULL},
};

static void configure(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
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
    while (producer->batches != NULL)
        batch_free(producer, producer->batches);
    size_t *waiting = kafka_alloc(sizeof(*waiting));
    while (producer->waiting != NULL) {
        struct waiting *next = producer->waiting->next;
        free(producer->waiting);
        producer->waiting = next;
        ++*waiting;
    }
    client->finish_state = waiting;
}

/* Delivers what is queued until the deadline, and says what it could not. */
static void finish(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline)
{
    size_t left = *(size_t *)state;
    free(state);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(rk);
    bool over = false;
    while (rd_kafka_outq_len(rk) > 0 && !over) {
        int ms = kafka_left(deadline);
        over = ms == 0; /* one more look at what is there already */
        rd_kafka_flush(rk, ms < 10 ? ms : 10); /* nothing lingers; reports count until taken */
        rd_kafka_event_t *event;
        while ((event = rd_kafka_queue_poll(queue, 0)) != NULL) {
            const rd_kafka_message_t *message;
            while ((message = rd_kafka_event_message_next(event)) != NULL)
                left += message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
            rd_kafka_event_destroy(event);
        }
    }
    rd_kafka_queue_destroy(queue);
    left += (size_t)rd_kafka_outq_len(rk);
    if (left > 0) {
        result->failed = true;
        err_set(&result->err, "TIMEDOUT", "%zu records were not delivered in time", left);
        kafka_port_log(rd_kafka_opaque(rk), 3, "PRODUCER", result->err.msg);
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
    producer->waiting_last = &producer->waiting;
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

/* Hands the record to librdkafka; its report comes with this opaque. */
static int enqueue(struct kafka_producer *producer, const struct kafka_message *message,
                   void *opaque, struct err *err)
{
    warm_up(producer, message->topic);
    rd_kafka_vu_t vus[8];
    size_t count = 0;
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = message->topic};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = message->partition};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY};
    vus[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = opaque};
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
    if (error == NULL)
        return 0;
    if (headers != NULL)
        rd_kafka_headers_destroy(headers); /* taken on success only */
    char text[200];
    snprintf(text, sizeof(text), "topic %s: %s", message->topic, rd_kafka_error_string(error));
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    rd_kafka_error_destroy(error);
    return kafka_err(err, code, text);
}

static bool is_full(const struct err *err)
{
    return strcmp(err->code, "_QUEUE_FULL") == 0;
}

static const char *put(char **to, const void *bytes, size_t size)
{
    char *copy = *to;
    if (size > 0)
        memcpy(copy, bytes, size);
    copy[size] = '\0';
    *to += size + 1;
    return copy;
}

/* Keeps a copy of the record until there is room; in order. */
static void wait_for_room(struct kafka_producer *producer, const struct kafka_message *message,
                          struct kafka_call *call, struct batch **slot, bool queue_only)
{
    size_t size = strlen(message->topic) + message->key_size + message->value_size + 3;
    for (size_t i = 0; i < message->header_count; i++)
        size += strlen(message->headers[i].name) + message->headers[i].size + 2;
    size_t table = message->header_count * sizeof(struct kafka_header);
    struct waiting *waiting = kafka_alloc(sizeof(*waiting) + table + size + sizeof(void *));
    *waiting = (struct waiting){.call = call, .slot = slot, .queue_only = queue_only,
                                .message = *message};
    uintptr_t start = (uintptr_t)waiting->bytes + sizeof(void *) - 1;
    struct kafka_header *headers = (void *)(start - start % sizeof(void *));
    char *to = (char *)headers + table;
    waiting->message.topic = put(&to, message->topic, strlen(message->topic));
    if (message->key != NULL)
        waiting->message.key = put(&to, message->key, message->key_size);
    if (message->value != NULL)
        waiting->message.value = put(&to, message->value, message->value_size);
    for (size_t i = 0; i < message->header_count; i++) {
        const struct kafka_header *from = &message->headers[i];
        headers[i] = *from;
        headers[i].name = put(&to, from->name, strlen(from->name));
        if (from->value != NULL)
            headers[i].value = put(&to, from->value, from->size);
    }
    waiting->message.headers = headers;
    *producer->waiting_last = waiting;
    producer->waiting_last = &waiting->next;
    producer->outstanding++;
}

/* Whether the first record that waits for room is done with. */
static bool admit_one(struct kafka_producer *producer, struct waiting *waiting)
{
    struct kafka_call *call = waiting->call;
    struct kafka_result nothing = {0};
    struct err err;
    if (call != NULL && call->done == NULL) { /* given up before it was sent: it is not */
        producer->outstanding--;
        kafka_call_end(call, &nothing);
        return true;
    }
    void *opaque = waiting->slot != NULL ? slot_opaque(waiting->slot)
                                         : waiting->queue_only ? NULL : call;
    if (enqueue(producer, &waiting->message, opaque, &err) == 0) {
        if (waiting->queue_only)
            kafka_call_end(call, &nothing);
        return true;
    }
    if (is_full(&err))
        return false;
    report(producer, waiting->slot != NULL ? opaque : call, -1, KAFKA_OFFSET_NONE, &err);
    return true;
}

static void admit(struct kafka_producer *producer)
{
    while (producer->waiting != NULL) {
        struct waiting *waiting = producer->waiting;
        if (!admit_one(producer, waiting))
            return;
        producer->waiting = waiting->next;
        if (producer->waiting == NULL)
            producer->waiting_last = &producer->waiting;
        free(waiting);
    }
}

/* Queues the record. -1 with "_QUEUE_FULL": there is no room, or others wait for it already. */
static int produce(struct kafka_producer *producer, const struct kafka_message *message,
                   void *opaque, struct err *err)
{
    if (producer->waiting != NULL)
        return err_set(err, "_QUEUE_FULL", "the producer's queue is full");
    if (enqueue(producer, message, opaque, err) < 0)
        return -1;
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
    if (is_full(&result.err)) {
        wait_for_room(producer, message, call, NULL, false);
        return call;
    }
    result.failed = true;
    kafka_call_end(call, &result);
    return NULL;
}

struct kafka_call *kafka_producer_produce_all(struct kafka_producer *producer,
                                              const struct kafka_message *messages, size_t count,
                                              kafka_done *done, void *arg)
{
    struct batch *batch = kafka_alloc(sizeof(*batch) + (count + 1) * sizeof(batch->slots[0]));
    batch->places = kafka_result_alloc(&batch->result, sizeof(*batch->places));
    batch->places->count = batch->left = count;
    batch->places->items = kafka_result_alloc(&batch->result,
                                              count * sizeof(batch->places->items[0]));
    batch->result.partitions = batch->places;
    struct kafka_call *call = kafka_call_new(&producer->client, done, arg);
    batch->call = call;
    batch->next = producer->batches;
    if (batch->next != NULL)
        batch->next->prev = batch;
    producer->batches = batch;
    for (size_t i = 0; i < count; i++) {
        struct err err;
        struct batch **slot = &batch->slots[i];
        *slot = batch;
        batch->places->items[i].topic = kafka_result_copy(&batch->result, messages[i].topic,
                                                          strlen(messages[i].topic));
        if (produce(producer, &messages[i], slot_opaque(slot), &err) == 0)
            continue;
        if (is_full(&err)) {
            wait_for_room(producer, &messages[i], NULL, slot, false);
            continue;
        }
        bool all_refused = batch->left == 1; /* this is the last: reports come from the loop only */
        producer->outstanding++;
        report(producer, slot_opaque(slot), -1, KAFKA_OFFSET_NONE, &err);
        if (all_refused)
            return NULL;
    }
    if (count == 0) {
        kafka_call_end(call, &batch->result);
        batch_free(producer, batch);
        return NULL;
    }
    return call;
}

int kafka_producer_send(struct kafka_producer *producer, const struct kafka_message *message,
                        struct err *err)
{
    return produce(producer, message, NULL, err);
}

struct kafka_call *kafka_producer_send_later(struct kafka_producer *producer,
                                             const struct kafka_message *message,
                                             kafka_done *done, void *arg)
{
    struct kafka_call *call = kafka_call_new(&producer->client, done, arg);
    wait_for_room(producer, message, call, NULL, true);
    return call;
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
