#include "kafka_consumer.h"

#include <stdlib.h>
#include <string.h>

#include "kafka_event.h"
#include "kafka_internal.h"

#define WAKE_MIN 100
#define TURN_NS 2000000 /* who polls and always finds something lets the loop turn this often */
#define READ_MAX 10000 /* records of one poll, whatever was asked for */

struct kafka_consumer {
    struct kafka_client client; /* first */
    struct kafka_events events;
    struct kafka_events called; /* what callbacks reported during a read: comes after its records */
    rd_kafka_message_t **buffer;
    size_t buffer_size;
    uint64_t turned;            /* when the loop last came by, or a poll had to wait for it */
    uint64_t poll_interval;     /* max.poll.interval.ms */
    bool unanswered;            /* a rebalance was reported and not answered yet */
    bool headers;               /* are read */
    bool sleepy;                /* see wake_fetchers */
    size_t peak;                /* the most that was queued since the fetchers were woken */
    char *username, *password;  /* sasl's, for wake_fetchers */
    /* that were ever assigned: librdkafka knows their leaders, or looks for them */
    char **topics;
    size_t topic_count;
    bool finding, find_again;   /* see find_leaders */
    struct {
        void (*ready)(void *arg);
        void *arg;              /* NULL: nobody polls */
        size_t max, max_bytes;
        bool told;              /* ready was called */
        struct kafka_event *event;
    } poll;
};

/* ---- callbacks, served inside a read ---- */

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                         rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)kafka_client_of(opaque);
    if (consumer == NULL) { /* closing: treated as unassign whatever is asked */
        rd_kafka_assign(rk, NULL);
        return;
    }
    bool assign = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    struct kafka_event *event = kafka_event_new(assign ? KAFKA_EVENT_ASSIGN : KAFKA_EVENT_REVOKE,
                                                0);
    event->lost = !assign && rd_kafka_assignment_lost(rk);
    event->protocol = rd_kafka_rebalance_protocol(rk);
    event->partitions = kafka_list_result(&event->memory, list);
    kafka_events_add(&consumer->called, event);
    consumer->unanswered = true;
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)kafka_client_of(opaque);
    if (consumer == NULL)
        return;
    char text[512];
    struct kafka_event *event = kafka_event_new(KAFKA_EVENT_ERROR, 0);
    event->fatal = code == RD_KAFKA_RESP_ERR__FATAL;
    if (event->fatal) {
        code = rd_kafka_fatal_error(rk, text, sizeof(text));
        reason = text;
    }
    err_set(&event->err, rd_kafka_err2name((rd_kafka_resp_err_t)code), "%s", reason);
    kafka_events_add(&consumer->called, event);
}

/* ---- the stream ---- */

/*
 * Before 2.2.0 a broker's thread that found the queue full sleeps for up to a second, whatever is
 * read meanwhile: 20,000 records a second, or a queue that holds a second's worth in memory.
 * Setting the credentials, even to what they are, is the one call that wakes these threads and does
 * nothing else.
 */
static void wake_fetchers(struct kafka_consumer *consumer)
{
    size_t length = rd_kafka_queue_length(consumer->client.queue);
    if (length > consumer->peak)
        consumer->peak = length;
    if (length >= consumer->peak / 2 || consumer->peak < WAKE_MIN)
        return;
    consumer->peak = length;
    rd_kafka_error_t *error =
        rd_kafka_sasl_set_credentials(consumer->client.rk, consumer->username, consumer->password);
    if (error != NULL)
        rd_kafka_error_destroy(error);
}

static void read_queue(struct kafka_consumer *consumer)
{
    size_t max = consumer->poll.max;
    if (consumer->buffer_size < max) {
        free(consumer->buffer);
        consumer->buffer = kafka_alloc(max * sizeof(consumer->buffer[0]));
        consumer->buffer_size = max;
    }
    ssize_t count = rd_kafka_consume_batch_queue(consumer->client.queue, 0, consumer->buffer, max);
    if (count > 0)
        kafka_events_read(&consumer->events, consumer->buffer, (size_t)count,
                          consumer->poll.max_bytes);
    if (consumer->sleepy)
        wake_fetchers(consumer);
    struct kafka_event *event;
    while ((event = kafka_events_take(&consumer->called)) != NULL)
        kafka_events_add(&consumer->events, event);
}

/* Gives the poll its event if there is one. */
static void serve(struct kafka_consumer *consumer)
{
    if (consumer->poll.arg == NULL || consumer->poll.told)
        return;
    if (consumer->events.first == NULL)
        read_queue(consumer);
    consumer->poll.event = kafka_events_take(&consumer->events);
    if (consumer->poll.event == NULL)
        return;
    consumer->poll.told = true;
    consumer->poll.ready(consumer->poll.arg);
}

static void drain(struct kafka_client *client)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)client;
    consumer->turned = uv_hrtime();
    serve(consumer);
}

/*
 * Reading no message counts as a poll for max.poll.interval.ms: what that interval guards against,
 * a program that hangs, is a loop that does not get here.
 */
static void tick(struct kafka_client *client)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)client;
    rd_kafka_message_t *none = NULL;
    rd_kafka_consume_batch_queue(client->queue, 0, &none, 0);
    serve(consumer);
}

int kafka_consumer_poll(struct kafka_consumer *consumer, size_t max, size_t max_bytes, bool at_once,
                        void (*ready)(void *arg), void *arg)
{
    if (consumer->poll.arg != NULL)
        return -1;
    consumer->poll.ready = ready;
    consumer->poll.arg = arg;
    consumer->poll.max = max < 1 ? 1 : max > READ_MAX ? READ_MAX : max;
    consumer->poll.max_bytes = max_bytes;
    consumer->poll.told = false;
    if (at_once || uv_hrtime() - consumer->turned < TURN_NS)
        serve(consumer);
    else
        kafka_client_again(&consumer->client);
    return 0;
}

struct kafka_event *kafka_consumer_take(struct kafka_consumer *consumer, const void *arg)
{
    if (consumer->poll.arg != arg)
        return NULL;
    struct kafka_event *event = consumer->poll.event;
    consumer->poll.event = NULL;
    consumer->poll.arg = NULL;
    if (event != NULL)
        event->headers = consumer->headers;
    return event;
}

void kafka_consumer_unpoll(struct kafka_consumer *consumer, const void *arg)
{
    if (consumer->poll.arg != arg)
        return;
    if (consumer->poll.event != NULL)
        kafka_events_unread(&consumer->events, consumer->poll.event);
    consumer->poll.event = NULL;
    consumer->poll.arg = NULL;
}

/*
 * Also the event that a poll was told of and has not taken, which stays an event, perhaps an empty
 * one.
 */
static void purge(struct kafka_consumer *consumer, const rd_kafka_topic_partition_list_t *list)
{
    kafka_events_purge(&consumer->events, list);
    struct kafka_event *told = consumer->poll.event;
    if (told == NULL)
        return;
    struct kafka_events one;
    kafka_events_init(&one);
    kafka_events_add(&one, told);
    kafka_events_purge(&one, list);
    consumer->poll.event = kafka_events_take(&one);
    if (consumer->poll.event == NULL)
        consumer->poll.event = kafka_event_new(KAFKA_EVENT_RECORDS, 0);
}

/* ---- opening and closing ---- */

/* A copy of the property, "" where it is not set. */
static char *get_property(rd_kafka_conf_t *conf, const char *name)
{
    size_t size = 0;
    if (rd_kafka_conf_get(conf, name, NULL, &size) != RD_KAFKA_CONF_OK)
        return kafka_alloc(1);
    char *value = kafka_alloc(size + 1);
    rd_kafka_conf_get(conf, name, value, &size);
    return value;
}

static int check_conf(rd_kafka_conf_t *conf, void *client, struct err *err)
{
    char value[64];
    size_t size = sizeof(value);
    if (rd_kafka_conf_get(conf, "group.id", NULL, &size) != RD_KAFKA_CONF_OK || size <= 1)
        return err_set(err, "CONFIG",
                       "group.id is required for a consumer, also for one that joins no group");
    size = sizeof(value);
    struct kafka_consumer *consumer = client;
    rd_kafka_conf_get(conf, "max.poll.interval.ms", value, &size);
    consumer->poll_interval = strtoul(value, NULL, 10);
    consumer->username = get_property(conf, "sasl.username");
    consumer->password = get_property(conf, "sasl.password");
    return 0;
}

static void configure(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_error);
}

/*
 * Memory is bounded by the fetch size, not by a short queue, which would stall for a second each
 * time it is full.
 */
static const struct kafka_property defaults[] = {
    {"enable.metrics.push", "false"},
    {"fetch.max.bytes", "2000000"},
    {"fetch.queue.backoff.ms", "5"},
    {"log.connection.close", "false"},
    {"queued.max.messages.kbytes", "16384"},
    {"queued.min.messages", "50000"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.nagle.disable", "true"},
    {NULL, NULL},
};

static void stop(struct kafka_client *client)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)client;
    bool *unanswered = kafka_alloc(sizeof(*unanswered));
    *unanswered = consumer->unanswered;
    client->finish_state = unanswered;
    /* a message that is held would hold up the destruction for ever */
    kafka_events_clear(&consumer->events);
    kafka_event_free(consumer->poll.event);
    consumer->poll.event = NULL;
    if (consumer->poll.arg != NULL && !consumer->poll.told) {
        consumer->poll.told = true;
        consumer->poll.ready(consumer->poll.arg);
    }
}

/* Leaves the group, answering what it asks on the way, until the deadline. */
static void finish(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline)
{
    bool unanswered = *(bool *)state;
    free(state);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(rk, queue);
    if (error == NULL && unanswered)
        rd_kafka_assign(rk, NULL);
    while (error == NULL && !rd_kafka_consumer_closed(rk) && kafka_left(deadline) > 0) {
        int ms = kafka_left(deadline);
        rd_kafka_event_t *event = rd_kafka_queue_poll(queue, ms < 100 ? ms : 100);
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE)
            rd_kafka_assign(rk, NULL);
        rd_kafka_event_destroy(event);
    }
    if (error == NULL && !rd_kafka_consumer_closed(rk)) {
        result->failed = true;
        err_set(&result->err, "TIMEDOUT", "left without the coordinator's answer");
    }
    result->failed = kafka_err_take(&result->err, error) < 0 || result->failed;
    rd_kafka_queue_destroy(queue);
}

static void release(struct kafka_client *client)
{
    struct kafka_consumer *consumer = (struct kafka_consumer *)client;
    for (size_t i = 0; i < consumer->topic_count; i++)
        free(consumer->topics[i]);
    free(consumer->topics);
    free(consumer->buffer);
    free(consumer->username);
    free(consumer->password);
    free(client);
}

static const struct kafka_kind kind = {"consumer", drain, tick, stop, finish, release};

struct kafka_consumer *kafka_consumer_new(const struct kafka_options *options, bool headers,
                                          struct err *err)
{
    static const struct kafka_setup setup = {RD_KAFKA_CONSUMER, defaults, configure, check_conf};
    struct kafka_consumer *consumer = kafka_alloc(sizeof(*consumer));
    kafka_events_init(&consumer->events);
    kafka_events_init(&consumer->called);
    if (kafka_client_open(&consumer->client, &kind, &setup, options, err) < 0) {
        release(&consumer->client);
        return NULL;
    }
    consumer->headers = headers;
    consumer->sleepy = rd_kafka_version() < 0x02020000;
    rd_kafka_poll_set_consumer(consumer->client.rk);
    kafka_client_watch(&consumer->client, rd_kafka_queue_get_consumer(consumer->client.rk));
    kafka_client_every(&consumer->client, consumer->poll_interval / 4 + 1);
    return consumer;
}

struct kafka_client *kafka_consumer_client(struct kafka_consumer *consumer)
{
    return &consumer->client;
}

/* ---- what is consumed ---- */

int kafka_consumer_subscribe(struct kafka_consumer *consumer, const struct kafka_partition *topics,
                             size_t count,
                             struct err *err)
{
    rd_kafka_resp_err_t code;
    if (count == 0) {
        code = rd_kafka_unsubscribe(consumer->client.rk);
    } else {
        rd_kafka_topic_partition_list_t *list = kafka_list(topics, count);
        code = rd_kafka_subscribe(consumer->client.rk, list);
        rd_kafka_topic_partition_list_destroy(list);
    }
    return kafka_err(err, code, NULL);
}

static void leaders_work(rd_kafka_t *rk, struct kafka_job *job)
{
    const struct rd_kafka_metadata *metadata = NULL;
    if (rd_kafka_metadata(rk, 0, NULL, &metadata, job->timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_metadata_destroy(metadata);
}

static void leaders_release(struct kafka_job *job)
{
    free(job);
}

static void leaders_settle(struct kafka_client *client, struct kafka_job *job);

static void ask_for_leaders(struct kafka_consumer *consumer)
{
    struct kafka_job *job = kafka_job_new(sizeof(*job), 5);
    job->work = leaders_work;
    job->settle = leaders_settle;
    job->release = leaders_release;
    consumer->find_again = false;
    consumer->finding = kafka_port_start(consumer->client.port, consumer->client.rk, job) == 0;
    if (!consumer->finding)
        leaders_release(job);
}

static void leaders_settle(struct kafka_client *client, struct kafka_job *job)
{
    (void)job;
    struct kafka_consumer *consumer = (struct kafka_consumer *)client;
    consumer->finding = false;
    if (consumer->find_again)
        ask_for_leaders(consumer);
}

/* Whether a topic is assigned for the first time; from then on it is not. */
static bool is_new_topic(struct kafka_consumer *consumer, const char *topic)
{
    for (size_t i = 0; i < consumer->topic_count; i++) {
        if (strcmp(consumer->topics[i], topic) == 0)
            return false;
    }
    char **topics = realloc(consumer->topics, (consumer->topic_count + 1) * sizeof(*topics));
    char *copy = strdup(topic);
    if (topics != NULL)
        consumer->topics = topics;
    if (topics != NULL && copy != NULL)
        topics[consumer->topic_count++] = copy;
    else
        free(copy);
    return true;
}

/*
 * Up to 2.10.0 librdkafka looks for the leaders of a topic it has just heard of once a second (its
 * issue 5032): the first record of a new assignment came after 0.95 s. Asking for the known topics'
 * metadata at once brings it in milliseconds. Nobody waits for the answer, and a failure leaves
 * things as they were. One question at a time: a hundred topics assigned one after the other
 * would ask a hundred times for ever more topics.
 */
static void find_leaders(struct kafka_consumer *consumer, const struct kafka_partition *items,
                         size_t count)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(items[i].topic, items[i - 1].topic) != 0)
            any |= is_new_topic(consumer, items[i].topic);
    }
    consumer->find_again |= any;
    if (consumer->find_again && !consumer->finding)
        ask_for_leaders(consumer);
}

int kafka_consumer_assign(struct kafka_consumer *consumer, enum kafka_assign how,
                          const struct kafka_partition *items,
                          size_t count, struct err *err)
{
    rd_kafka_t *rk = consumer->client.rk;
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    int status = 0;
    if (how == KAFKA_ASSIGN_MORE)
        status = kafka_err_take(err, rd_kafka_incremental_assign(rk, list));
    else if (how == KAFKA_ASSIGN_LESS)
        status = kafka_err_take(err, rd_kafka_incremental_unassign(rk, list));
    else
        status = kafka_err(err, rd_kafka_assign(rk, count > 0 ? list : NULL), NULL);
    if (status == 0) {
        purge(consumer, how == KAFKA_ASSIGN ? NULL : list);
        consumer->unanswered = false;
        if (how != KAFKA_ASSIGN_LESS)
            find_leaders(consumer, items, count);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

/* The first item that failed, as the call's error. */
static int item_error(const rd_kafka_topic_partition_list_t *list, rd_kafka_resp_err_t fine,
                      struct err *err)
{
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_resp_err_t code = list->elems[i].err;
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR && code != fine)
            return err_set(err, rd_kafka_err2name(code), "%s [%d]: %s", list->elems[i].topic,
                           (int)list->elems[i].partition, rd_kafka_err2str(code));
    }
    return 0;
}

int kafka_consumer_pause(struct kafka_consumer *consumer, bool pause,
                         const struct kafka_partition *items, size_t count,
                         struct err *err)
{
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    rd_kafka_resp_err_t code = pause ? rd_kafka_pause_partitions(consumer->client.rk, list)
                                     : rd_kafka_resume_partitions(consumer->client.rk, list);
    int status = kafka_err(err, code, NULL);
    if (status == 0)
        status = item_error(list, RD_KAFKA_RESP_ERR_NO_ERROR, err);
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

int kafka_consumer_seek(struct kafka_consumer *consumer, const struct kafka_partition *items,
                        size_t count,
                        struct err *err)
{
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    int status = kafka_err_take(err, rd_kafka_seek_partitions(consumer->client.rk, list, 0));
    if (status == 0)
        status = item_error(list, RD_KAFKA_RESP_ERR__IN_PROGRESS, err);
    purge(consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

int kafka_consumer_store(struct kafka_consumer *consumer, const struct kafka_partition *items,
                         size_t count,
                         struct err *err)
{
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    rd_kafka_resp_err_t code = rd_kafka_offsets_store(consumer->client.rk, list);
    int status = item_error(list, RD_KAFKA_RESP_ERR_NO_ERROR, err);
    if (status == 0)
        status = kafka_err(err, code, NULL);
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

int kafka_consumer_assignment(struct kafka_consumer *consumer, struct kafka_result *result)
{
    rd_kafka_topic_partition_list_t *list = NULL;
    rd_kafka_resp_err_t code = rd_kafka_assignment(consumer->client.rk, &list);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        result->partitions = kafka_list_result(result, list);
    if (list != NULL)
        rd_kafka_topic_partition_list_destroy(list);
    return kafka_err(&result->err, code, NULL);
}

int kafka_consumer_position(struct kafka_consumer *consumer, const struct kafka_partition *items,
                            size_t count,
                            struct kafka_result *result)
{
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    rd_kafka_resp_err_t code = rd_kafka_position(consumer->client.rk, list);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        result->partitions = kafka_list_result(result, list);
    rd_kafka_topic_partition_list_destroy(list);
    return kafka_err(&result->err, code, NULL);
}

/* ---- commits ---- */

struct kafka_call *kafka_consumer_commit(struct kafka_consumer *consumer,
                                         const struct kafka_partition *items, size_t count,
                                         kafka_done *done, void *arg)
{
    struct kafka_client *client = &consumer->client;
    struct kafka_call *call = kafka_call_new(client, done, arg);
    rd_kafka_topic_partition_list_t *list = items != NULL ? kafka_list(items, count) : NULL;
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(client->rk, list, client->replies, NULL, call);
    if (list != NULL)
        rd_kafka_topic_partition_list_destroy(list);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        kafka_call_fail(call, code, NULL);
        return NULL;
    }
    return call;
}

struct committed_job {
    struct kafka_job job;
    rd_kafka_topic_partition_list_t *list;
};

static void committed_work(rd_kafka_t *rk, struct kafka_job *job)
{
    struct committed_job *self = (struct committed_job *)job;
    rd_kafka_resp_err_t code = rd_kafka_committed(rk, self->list, job->timeout_ms);
    job->result.failed = kafka_err(&job->result.err, code, NULL) < 0;
    if (!job->result.failed)
        job->result.partitions = kafka_list_result(&job->result, self->list);
    rd_kafka_topic_partition_list_destroy(self->list);
    self->list = NULL;
}

static void committed_release(struct kafka_job *job)
{
    struct committed_job *self = (struct committed_job *)job;
    if (self->list != NULL) /* it never ran */
        rd_kafka_topic_partition_list_destroy(self->list);
    free(self);
}

struct kafka_call *kafka_consumer_committed(struct kafka_consumer *consumer,
                                            const struct kafka_partition *items,
                                            size_t count, double timeout, kafka_done *done,
                                            void *arg)
{
    struct committed_job *self = kafka_job_new(sizeof(*self), timeout);
    self->job.work = committed_work;
    self->job.release = committed_release;
    self->list = kafka_list(items, count);
    struct kafka_call *call = kafka_call_new(&consumer->client, done, arg);
    return kafka_call_run(call, &self->job);
}
