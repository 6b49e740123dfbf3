#include "kafka_transaction.h"

#include <stdlib.h>
#include <string.h>

#include "kafka_internal.h"

struct transaction_job {
    struct kafka_job job;
    rd_kafka_error_t *(*run)(rd_kafka_t *rk, int ms);
    bool forgets;               /* what was not delivered is this call's to tell, or nobody's */
    rd_kafka_topic_partition_list_t *offsets;
    rd_kafka_consumer_group_metadata_t *group;
};

/* Destroys the error, if there is one. */
static void take(struct kafka_result *result, rd_kafka_error_t *error)
{
    if (error == NULL)
        return;
    result->fatal = rd_kafka_error_is_fatal(error);
    result->retriable = rd_kafka_error_is_retriable(error);
    result->abortable = rd_kafka_error_txn_requires_abort(error);
    result->failed = kafka_err_take(&result->err, error) < 0;
}

static void work(rd_kafka_t *rk, struct kafka_job *job)
{
    struct transaction_job *self = (struct transaction_job *)job;
    if (self->offsets != NULL)
        take(&job->result, rd_kafka_send_offsets_to_transaction(rk, self->offsets, self->group,
                                                                job->timeout_ms));
    else
        take(&job->result, self->run(rk, job->timeout_ms));
}

/* "messages failed" alone does not say why. */
static void settle(struct kafka_client *client, struct kafka_job *job)
{
    struct transaction_job *self = (struct transaction_job *)job;
    struct err lost;
    if (!self->forgets || job->result.retriable ||
        kafka_producer_lost((struct kafka_producer *)client, &lost) == 0)
        return;
    if (job->result.failed && !job->result.fatal)
        job->result.err = lost;
}

static void release(struct kafka_job *job)
{
    struct transaction_job *self = (struct transaction_job *)job;
    if (self->offsets != NULL)
        rd_kafka_topic_partition_list_destroy(self->offsets);
    if (self->group != NULL)
        rd_kafka_consumer_group_metadata_destroy(self->group);
    free(self);
}

static struct transaction_job *job_new(double timeout)
{
    struct transaction_job *self = kafka_job_new(sizeof(*self), timeout);
    self->job.work = work;
    self->job.settle = settle;
    self->job.release = release;
    return self;
}

static struct kafka_call *start(struct kafka_producer *producer,
                                rd_kafka_error_t *(*run)(rd_kafka_t *rk, int ms), bool forgets,
                                double timeout, kafka_done *done, void *arg)
{
    struct transaction_job *self = job_new(timeout);
    self->run = run;
    self->forgets = forgets;
    struct kafka_client *client = kafka_producer_client(producer);
    return kafka_call_run(kafka_call_new(client, done, arg), &self->job);
}

struct kafka_call *kafka_transaction_init(struct kafka_producer *producer, double timeout,
                                          kafka_done *done, void *arg)
{
    return start(producer, rd_kafka_init_transactions, false, timeout, done, arg);
}

int kafka_transaction_begin(struct kafka_producer *producer, struct kafka_result *result)
{
    take(result, rd_kafka_begin_transaction(kafka_producer_client(producer)->rk));
    return result->failed ? -1 : 0;
}

struct kafka_call *kafka_transaction_offsets(struct kafka_producer *producer,
                                             struct kafka_consumer *consumer, const char *group,
                                             const struct kafka_partition *items, size_t count,
                                             double timeout, kafka_done *done, void *arg)
{
    struct transaction_job *self = job_new(timeout);
    self->offsets = kafka_list(items, count);
    self->group = consumer != NULL
                      ? rd_kafka_consumer_group_metadata(kafka_consumer_client(consumer)->rk)
                      : rd_kafka_consumer_group_metadata_new(group);
    struct kafka_client *client = kafka_producer_client(producer);
    return kafka_call_run(kafka_call_new(client, done, arg), &self->job);
}

struct kafka_call *kafka_transaction_commit(struct kafka_producer *producer, double timeout,
                                            kafka_done *done, void *arg)
{
    return start(producer, rd_kafka_commit_transaction, true, timeout, done, arg);
}

struct kafka_call *kafka_transaction_abort(struct kafka_producer *producer, double timeout,
                                           kafka_done *done, void *arg)
{
    return start(producer, rd_kafka_abort_transaction, true, timeout, done, arg);
}
