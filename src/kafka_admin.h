/*
 * Questions to a cluster: metadata, offsets of many partitions, groups and their offsets. A
 * consumer-type handle that never fetches, so its questions never wait behind a long poll. Loop
 * thread only.
 */
#ifndef ROUSE_KAFKA_ADMIN_H
#define ROUSE_KAFKA_ADMIN_H

#include "kafka_client.h"

struct kafka_admin;

struct kafka_admin *kafka_admin_new(const struct kafka_options *options, struct err *err);
struct kafka_client *kafka_admin_client(struct kafka_admin *admin);

/*
 * result->metadata of all topics, or (topics != NULL) of these; one that is not there has the error
 * UNKNOWN_TOPIC_OR_PART.
 */
struct kafka_call *kafka_admin_metadata(struct kafka_admin *admin, const char *const *topics,
                                        size_t count, double timeout,
                                        kafka_done *done, void *arg);

/*
 * The end or beginning of each partition (KAFKA_OFFSET_END, _BEGINNING), by the handle's
 * isolation.level: result->partitions in the order asked, each with its offset or its error. One
 * request per leader; what fails is asked again by leader, then by topic.
 */
struct kafka_call *kafka_admin_offsets(struct kafka_admin *admin,
                                       const struct kafka_partition *items, size_t count,
                                       int64_t at, double timeout, kafka_done *done, void *arg);

/*
 * A group's commits (items NULL: of all partitions it has any for); an offset of KAFKA_OFFSET_NONE
 * means no commit.
 */
struct kafka_call *kafka_admin_group_offsets(struct kafka_admin *admin, const char *group,
                                             const struct kafka_partition *items, size_t count,
                                             kafka_done *done, void *arg);
/* Commits for a group that has no live members. */
struct kafka_call *kafka_admin_alter_group_offsets(struct kafka_admin *admin, const char *group,
                                                   const struct kafka_partition *items, size_t count,
                                                   kafka_done *done, void *arg);
/*
 * result->groups. Not against the mock cluster: it does not answer, and librdkafka never recovers.
 */
struct kafka_call *kafka_admin_describe_groups(struct kafka_admin *admin, const char **groups,
                                               size_t count,
                                               kafka_done *done, void *arg);

/*
 * Waits for an error of the handle (brokers down, refused credentials): a failed result carries it.
 * One waiter at a time: -1.
 */
struct kafka_call *kafka_admin_poll(struct kafka_admin *admin, kafka_done *done, void *arg);

#endif
