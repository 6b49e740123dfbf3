/*
 * The queue of events a consumer has read and nobody has taken yet; used by kafka_consumer.c and
 * nobody else.
 */
#ifndef ROUSE_KAFKA_EVENT_H
#define ROUSE_KAFKA_EVENT_H

#include "kafka_consumer.h"
#include "kafka_internal.h"

struct kafka_events {
    struct kafka_event *first, **last;
};

void kafka_events_init(struct kafka_events *events);
void kafka_events_clear(struct kafka_events *events);
struct kafka_event *kafka_events_take(struct kafka_events *events);
void kafka_events_add(struct kafka_events *events, struct kafka_event *event);
void kafka_events_unread(struct kafka_events *events, struct kafka_event *event);

/*
 * Appends what a read returned: runs of records cut at `max_bytes`, errors and ends of partitions
 * between them.
 */
void kafka_events_read(struct kafka_events *events, rd_kafka_message_t **messages, size_t count,
                       size_t max_bytes);

/*
 * Drops records, errors and ends of these partitions (NULL: of all): they belong to an assignment
 * that is no more.
 */
void kafka_events_purge(struct kafka_events *events, const rd_kafka_topic_partition_list_t *list);

struct kafka_event *kafka_event_new(enum kafka_event_kind kind, size_t messages);

#endif
