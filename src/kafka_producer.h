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
 * record is still sent, unless it was waiting for room in the queue.
 */
struct kafka_call *kafka_producer_produce(struct kafka_producer *producer,
                                          const struct kafka_message *message,
                                          kafka_done *done, void *arg);
/*
 * The same for many records: ends when each is reported, with a place or an error for each in
 * result->partitions, also when it fails because some were not delivered.
 */
struct kafka_call *kafka_producer_produce_all(struct kafka_producer *producer,
                                              const struct kafka_message *messages, size_t count,
                                              kafka_done *done, void *arg);
/*
 * Queues a record whose failure only the next flush reports. 0, or -1 and err: "_QUEUE_FULL" when
 * there is no room; kafka_producer_send_later waits for it, its call ends when it is queued.
 */
int kafka_producer_send(struct kafka_producer *producer, const struct kafka_message *message,
                        struct err *err);
struct kafka_call *kafka_producer_send_later(struct kafka_producer *producer,
                                             const struct kafka_message *message,
                                             kafka_done *done, void *arg);

/* Records whose delivery is not reported yet, and those that wait for room. */
size_t kafka_producer_outstanding(const struct kafka_producer *producer);

/*
 * Ends when nothing is outstanding; it fails with the last reason when records given to send were
 * not delivered since the last flush.
 */
struct kafka_call *kafka_producer_flush(struct kafka_producer *producer, kafka_done *done,
                                        void *arg);

/* How many sent records were not delivered since this was asked last or a flush ended, and why. */
size_t kafka_producer_lost(struct kafka_producer *producer, struct err *err);

#endif
