#include "kafka_mock.h"

#include <stdlib.h>
#include <string.h>

#include "kafka_internal.h"

#include <librdkafka/rdkafka_mock.h> /* wants rdkafka.h before it */

struct kafka_mock {
    struct kafka_client client; /* first */
    rd_kafka_mock_cluster_t *cluster;
};

/* Index: the protocol's number. */
static const char *const apis[] = {
    "Produce", "Fetch", "ListOffsets", "Metadata", "LeaderAndIsr", "StopReplica", "UpdateMetadata",
    "ControlledShutdown", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup", "Heartbeat",
    "LeaveGroup", "SyncGroup", "DescribeGroups", "ListGroups", "SaslHandshake", "ApiVersions",
    "CreateTopics", "DeleteTopics", "DeleteRecords", "InitProducerId", "OffsetForLeaderEpoch",
    "AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn",
};

#define METADATA 3
#define METADATA_MAX 4

static void drain(struct kafka_client *client)
{
    rd_kafka_poll(client->rk, 0);
}

/*
 * Up to 2.0.2 the mock offers versions of Metadata that cannot say "do not create the topic", and
 * so creates whatever is looked for; it understands the first version that can.
 */
static void offer_metadata(rd_kafka_mock_cluster_t *cluster)
{
    if (rd_kafka_version() < 0x02010000)
        rd_kafka_mock_set_apiversion(cluster, METADATA, 0, METADATA_MAX);
}

static void stop(struct kafka_client *client)
{
    struct kafka_mock *mock = (struct kafka_mock *)client;
    client->finish_state = mock->cluster;
    mock->cluster = NULL;
}

static void finish(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline)
{
    (void)rk;
    (void)result;
    (void)deadline;
    if (state != NULL)
        rd_kafka_mock_cluster_destroy(state);
}

static void release(struct kafka_client *client)
{
    free(client);
}

static const struct kafka_kind kind = {"mock", drain, NULL, stop, finish, release};

struct kafka_mock *kafka_mock_new(const struct kafka_options *options, int brokers, struct err *err)
{
    /* it connects nowhere, and says so */
    static const struct kafka_property defaults[] = {{"log_level", "4"}, {NULL, NULL}};
    static const struct kafka_setup setup = {RD_KAFKA_PRODUCER, defaults, NULL, NULL};
    struct kafka_mock *mock = kafka_alloc(sizeof(*mock));
    if (kafka_client_open(&mock->client, &kind, &setup, options, err) < 0) {
        free(mock);
        return NULL;
    }
    kafka_client_watch(&mock->client, rd_kafka_queue_get_main(mock->client.rk));
    mock->cluster = rd_kafka_mock_cluster_new(mock->client.rk, brokers);
    if (mock->cluster != NULL) {
        offer_metadata(mock->cluster);
        return mock;
    }
    err_set(err, "SYSTEM", "the mock cluster of %d brokers did not start", brokers);
    kafka_client_close(&mock->client, 1, NULL, NULL);
    kafka_client_unref(&mock->client);
    return NULL;
}

struct kafka_client *kafka_mock_client(struct kafka_mock *mock)
{
    return &mock->client;
}

const char *kafka_mock_bootstrap(const struct kafka_mock *mock)
{
    return rd_kafka_mock_cluster_bootstraps(mock->cluster);
}

int kafka_mock_create_topic(struct kafka_mock *mock, const char *topic, int partitions,
                            int replication, struct err *err)
{
    return kafka_err(err, rd_kafka_mock_topic_create(mock->cluster, topic, partitions, replication),
                     NULL);
}

int kafka_mock_api(const char *name)
{
    for (int i = 0; i < (int)(sizeof(apis) / sizeof(apis[0])); i++)
        if (strcmp(apis[i], name) == 0)
            return i;
    return -1;
}

static int error_code(const char *name, rd_kafka_resp_err_t *code, struct err *err)
{
    if (kafka_err_code(name, code) == 0)
        return 0;
    return err_set(err, "NAME", "librdkafka knows no error '%s'", name);
}

int kafka_mock_fail(struct kafka_mock *mock, int api, const char *const *errors, size_t count,
                    struct err *err)
{
    rd_kafka_resp_err_t *codes = kafka_alloc(count * sizeof(*codes));
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++)
        status = error_code(errors[i], &codes[i], err);
    if (status == 0)
        rd_kafka_mock_push_request_errors_array(mock->cluster, (int16_t)api, count, codes);
    free(codes);
    return status;
}

int kafka_mock_broker_up(struct kafka_mock *mock, int32_t broker, bool up, struct err *err)
{
    return kafka_err(err, up ? rd_kafka_mock_broker_set_up(mock->cluster, broker)
                             : rd_kafka_mock_broker_set_down(mock->cluster, broker), NULL);
}

int kafka_mock_rtt(struct kafka_mock *mock, int32_t broker, double seconds, struct err *err)
{
    return kafka_err(err, rd_kafka_mock_broker_set_rtt(mock->cluster, broker, kafka_ms(seconds)),
                     NULL);
}

int kafka_mock_leader(struct kafka_mock *mock, const char *topic, int32_t partition, int32_t broker,
                      struct err *err)
{
    return kafka_err(err,
                     rd_kafka_mock_partition_set_leader(mock->cluster, topic, partition,
                                                        broker), NULL);
}

int kafka_mock_coordinator(struct kafka_mock *mock, const char *group, int32_t broker,
                           struct err *err)
{
    return kafka_err(err, rd_kafka_mock_coordinator_set(mock->cluster, "group", group, broker),
                     NULL);
}

int kafka_mock_topic_error(struct kafka_mock *mock, const char *topic, const char *error,
                           struct err *err)
{
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (error != NULL && error_code(error, &code, err) < 0)
        return -1;
    rd_kafka_mock_topic_set_error(mock->cluster, topic, code);
    return 0;
}
