/*
 * librdkafka's mock cluster: real protocol on loopback ports, in threads of this process, for any
 * client. Its limits are many (one group join takes seconds, 5 MiB a partition, no admin requests).
 * Loop thread only.
 */
#ifndef ROUSE_KAFKA_MOCK_H
#define ROUSE_KAFKA_MOCK_H

#include "kafka_client.h"

struct kafka_mock;

struct kafka_mock *kafka_mock_new(const struct kafka_options *options, int brokers,
                                  struct err *err);
struct kafka_client *kafka_mock_client(struct kafka_mock *mock);

/* "127.0.0.1:PORT,..."; owned by the mock. */
const char *kafka_mock_bootstrap(const struct kafka_mock *mock);

int kafka_mock_create_topic(struct kafka_mock *mock, const char *topic, int partitions,
                            int replication, struct err *err);

/*
 * The next requests of an API (number, or name as in the protocol: "Fetch") are answered with these
 * errors (librdkafka's names), one each. -1 and err for a name that is not known.
 */
int kafka_mock_api(const char *name);
int kafka_mock_fail(struct kafka_mock *mock, int api, const char *const *errors, size_t count,
                    struct err *err);

int kafka_mock_broker_up(struct kafka_mock *mock, int32_t broker, bool up, struct err *err);
int kafka_mock_rtt(struct kafka_mock *mock, int32_t broker, double seconds, struct err *err);
/* broker -1: no leader. */
int kafka_mock_leader(struct kafka_mock *mock, const char *topic, int32_t partition, int32_t broker,
                      struct err *err);
int kafka_mock_coordinator(struct kafka_mock *mock, const char *group, int32_t broker,
                           struct err *err);
/* Every request for the topic answers with this error; NULL: none any more. */
int kafka_mock_topic_error(struct kafka_mock *mock, const char *topic, const char *error,
                           struct err *err);

#endif
