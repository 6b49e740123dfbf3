#include "kafka_admin.h"

#include <stdlib.h>
#include <string.h>

#include "kafka_internal.h"
#include "kafka_offsets.h"

#define ERRORS_KEPT 32

struct trouble {
    struct err err;
    bool fatal;
};

struct kafka_admin {
    struct kafka_client client; /* first */
    struct kafka_call *poll;
    struct trouble errors[ERRORS_KEPT]; /* a ring: the newest stay */
    size_t error_first, error_count;
};

/* ---- errors of the handle ---- */

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    struct kafka_admin *admin = (struct kafka_admin *)kafka_client_of(opaque);
    if (admin == NULL)
        return;
    if (admin->error_count == ERRORS_KEPT) {
        admin->error_first = (admin->error_first + 1) % ERRORS_KEPT;
        admin->error_count--;
    }
    char text[512];
    size_t at = (admin->error_first + admin->error_count++) % ERRORS_KEPT;
    struct trouble *trouble = &admin->errors[at];
    trouble->fatal = code == RD_KAFKA_RESP_ERR__FATAL;
    if (trouble->fatal) {
        code = rd_kafka_fatal_error(rk, text, sizeof(text));
        reason = text;
    }
    err_set(&trouble->err, rd_kafka_err2name((rd_kafka_resp_err_t)code), "%s", reason);
}

static void serve_poll(struct kafka_admin *admin)
{
    if (admin->poll == NULL || admin->error_count == 0)
        return;
    struct kafka_call *call = admin->poll;
    admin->poll = NULL;
    if (call->done == NULL) { /* cancelled: the error is for the next one */
        struct kafka_result none = {0};
        kafka_call_end(call, &none);
        return;
    }
    struct trouble *trouble = &admin->errors[admin->error_first];
    struct kafka_result result = {.failed = true, .fatal = trouble->fatal, .err = trouble->err};
    admin->error_first = (admin->error_first + 1) % ERRORS_KEPT;
    admin->error_count--;
    kafka_call_end(call, &result);
}

static void drain(struct kafka_client *client)
{
    rd_kafka_poll(client->rk, 0);
    serve_poll((struct kafka_admin *)client);
}

struct kafka_call *kafka_admin_poll(struct kafka_admin *admin, kafka_done *done, void *arg)
{
    if (admin->poll != NULL && admin->poll->done == NULL) {
        struct kafka_result none = {0};
        kafka_call_end(admin->poll, &none);
        admin->poll = NULL;
    }
    struct kafka_call *call = kafka_call_new(&admin->client, done, arg);
    if (admin->poll != NULL) {
        kafka_call_fail(call, RD_KAFKA_RESP_ERR__IN_PROGRESS, "another task polls this handle");
        return NULL;
    }
    admin->poll = call;
    if (admin->error_count > 0)
        kafka_client_again(&admin->client);
    return call;
}

/* ---- opening and closing ---- */

/*
 * A group of its own, which it never joins: at an answer like NOT_COORDINATOR to an OffsetFetch
 * librdkafka writes to the handle's group without a look whether there is one (2.0.2,
 * rd_kafka_handle_OffsetFetch).
 */
static const struct kafka_property defaults[] = {
    {"group.id", "rouse-admin"},
    {"enable.metrics.push", "false"},
    {"log.connection.close", "false"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.nagle.disable", "true"},
    {NULL, NULL},
};

static void configure(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_error_cb(conf, on_error);
}

static void stop(struct kafka_client *client)
{
    ((struct kafka_admin *)client)->poll = NULL; /* its call has ended */
}

static void release(struct kafka_client *client)
{
    free(client);
}

static const struct kafka_kind kind = {"admin", drain, NULL, stop, NULL, release};

struct kafka_admin *kafka_admin_new(const struct kafka_options *options, struct err *err)
{
    static const struct kafka_setup setup = {RD_KAFKA_CONSUMER, defaults, configure, NULL};
    struct kafka_admin *admin = kafka_alloc(sizeof(*admin));
    if (kafka_client_open(&admin->client, &kind, &setup, options, err) < 0) {
        free(admin);
        return NULL;
    }
    kafka_client_watch(&admin->client, rd_kafka_queue_get_main(admin->client.rk));
    return admin;
}

struct kafka_client *kafka_admin_client(struct kafka_admin *admin)
{
    return &admin->client;
}

/* ---- metadata ---- */

struct metadata_job {
    struct kafka_job job;
    size_t count;
    char **topics;              /* NULL: all */
};

static void copy_topic(struct kafka_result *result, struct kafka_meta_topic *to,
                       const rd_kafka_metadata_topic_t *from)
{
    to->name = kafka_result_copy(result, from->topic, strlen(from->topic));
    to->error = kafka_err_name(from->err);
    to->count = (size_t)from->partition_cnt;
    to->partitions = kafka_result_alloc(result, to->count * sizeof(*to->partitions));
    for (size_t i = 0; i < to->count; i++) {
        to->partitions[i].id = from->partitions[i].id;
        to->partitions[i].leader = from->partitions[i].leader;
        to->partitions[i].error = kafka_err_name(from->partitions[i].err);
    }
}

static void copy_wanted(struct kafka_result *result, const struct metadata_job *self,
                        const struct rd_kafka_metadata *from)
{
    struct kafka_metadata *to = result->metadata;
    for (size_t i = 0; i < self->count; i++) {
        struct kafka_meta_topic *topic = &to->topics[to->topic_count++];
        int j = 0;
        while (j < from->topic_cnt && strcmp(from->topics[j].topic, self->topics[i]) != 0)
            j++;
        if (j < from->topic_cnt) {
            copy_topic(result, topic, &from->topics[j]);
        } else {
            topic->name = kafka_result_copy(result, self->topics[i], strlen(self->topics[i]));
            topic->error = kafka_err_name(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        }
    }
}

static void metadata_work(rd_kafka_t *rk, struct kafka_job *job)
{
    struct metadata_job *self = (struct metadata_job *)job;
    struct kafka_result *result = &job->result;
    const struct rd_kafka_metadata *from = NULL;
    /* always of all topics: asking for one by name creates it on brokers that auto-create */
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 1, NULL, &from, job->timeout_ms);
    result->failed = kafka_err(&result->err, code, NULL) < 0;
    if (result->failed)
        return;
    struct kafka_metadata *to = kafka_result_alloc(result, sizeof(*to));
    result->metadata = to;
    to->broker_count = (size_t)from->broker_cnt;
    to->brokers = kafka_result_alloc(result, to->broker_count * sizeof(*to->brokers));
    for (int i = 0; i < from->broker_cnt; i++) {
        to->brokers[i].id = from->brokers[i].id;
        to->brokers[i].port = from->brokers[i].port;
        to->brokers[i].host = kafka_result_copy(result, from->brokers[i].host,
                                                strlen(from->brokers[i].host));
    }
    size_t room = self->topics != NULL ? self->count : (size_t)from->topic_cnt;
    to->topics = kafka_result_alloc(result, room * sizeof(*to->topics));
    if (self->topics != NULL)
        copy_wanted(result, self, from);
    else
        for (int i = 0; i < from->topic_cnt; i++)
            copy_topic(result, &to->topics[to->topic_count++], &from->topics[i]);
    rd_kafka_metadata_destroy(from);
}

static void metadata_release(struct kafka_job *job)
{
    struct metadata_job *self = (struct metadata_job *)job;
    for (size_t i = 0; self->topics != NULL && i < self->count; i++)
        free(self->topics[i]);
    free(self->topics);
    free(self);
}

struct kafka_call *kafka_admin_metadata(struct kafka_admin *admin, const char *const *topics,
                                        size_t count, double timeout,
                                        kafka_done *done, void *arg)
{
    struct metadata_job *self = kafka_job_new(sizeof(*self), timeout);
    self->job.work = metadata_work;
    self->job.release = metadata_release;
    if (topics != NULL) {
        self->count = count;
        self->topics = kafka_alloc(count * sizeof(*self->topics));
        for (size_t i = 0; i < count; i++) {
            self->topics[i] = kafka_alloc(strlen(topics[i]) + 1);
            strcpy(self->topics[i], topics[i]);
        }
    }
    return kafka_call_run(kafka_call_new(&admin->client, done, arg), &self->job);
}

/* ---- begin and end offsets ---- */

struct offsets_job {
    struct kafka_job job;
    rd_kafka_topic_partition_list_t *list;
    int64_t at;
};

static void offsets_work(rd_kafka_t *rk, struct kafka_job *job)
{
    struct offsets_job *self = (struct offsets_job *)job;
    kafka_offsets_query(rk, self->list, self->at, job->timeout_ms);
    job->result.partitions = kafka_list_result(&job->result, self->list);
    rd_kafka_topic_partition_list_destroy(self->list);
    self->list = NULL;
}

static void offsets_release(struct kafka_job *job)
{
    struct offsets_job *self = (struct offsets_job *)job;
    if (self->list != NULL) /* it never ran */
        rd_kafka_topic_partition_list_destroy(self->list);
    free(self);
}

struct kafka_call *kafka_admin_offsets(struct kafka_admin *admin,
                                       const struct kafka_partition *items, size_t count,
                                       int64_t at, double timeout, kafka_done *done, void *arg)
{
    struct offsets_job *self = kafka_job_new(sizeof(*self), timeout);
    self->job.work = offsets_work;
    self->job.release = offsets_release;
    self->list = kafka_list(items, count);
    self->at = at;
    return kafka_call_run(kafka_call_new(&admin->client, done, arg), &self->job);
}
