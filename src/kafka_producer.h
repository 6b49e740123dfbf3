/*
 * A producer on the loop: records are copied, delivery reports come back on the loop thread. Loop
 * thread only.
 */
#ifndef ROUSE_KAFKA_PRODUCER_H
#define ROUSE_KAFKA_PRODUCER_H

#include "kafka_client.h"

struct kafka_producer;

struct kafka_header {
    const char *name;
    const char *value;          /* NULL: no value */
    size_t size;
};

/* Borrowed for the call. */
struct kafka_message {
    const char *topic;
    int32_t partition;          /* -1: the partitioner's choice */
    const char *key;            /* NULL: none */
    size_t key_size;
    const char *value;          /* NULL: none (a tombstone) */
    size_t value_size;
    int64_t timestamp;          /* milliseconds; 0: now */
    const struct kafka_header *headers;
    size_t header_count;
};

struct kafka_producer *kafka_producer_new(const struct kafka_options *options, struct err *err);
struct kafka_client *kafka_producer_client(struct kafka_producer *producer);

/*
 * Queues a record; its delivery report ends the call with partition and offset. A cancelled call's
 * record is still sent.
 */
struct kafka_call *kafka_producer_produce(struct kafka_producer *producer,
                                          const struct kafka_message *message,
                                          kafka_done *done, void *arg);
/* Queues a record whose failure only the next flush reports. 0, or -1 and err. */
int kafka_producer_send(struct kafka_producer *producer, const struct kafka_message *message,
                        struct err *err);

/* Records whose delivery is not reported yet. */
size_t kafka_producer_outstanding(const struct kafka_producer *producer);

/*
 * Ends when nothing is outstanding; it fails with the last reason when records given to send were
 * not delivered since the last flush.
 */
struct kafka_call *kafka_producer_flush(struct kafka_producer *producer, kafka_done *done,
                                        void *arg);

#endif
