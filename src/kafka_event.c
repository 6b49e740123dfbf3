#include "kafka_event.h"

#include <stdlib.h>
#include <string.h>

void kafka_events_init(struct kafka_events *events)
{
    events->first = NULL;
    events->last = &events->first;
}

struct kafka_event *kafka_event_new(enum kafka_event_kind kind, size_t messages)
{
    struct kafka_event *event = kafka_alloc(sizeof(*event) + messages * sizeof(event->messages[0]));
    event->kind = kind;
    event->partition = -1;
    event->offset = KAFKA_OFFSET_NONE;
    return event;
}

void kafka_event_free(struct kafka_event *event)
{
    if (event == NULL)
        return;
    for (size_t i = 0; i < event->count; i++)
        rd_kafka_message_destroy(event->messages[i]);
    kafka_result_free(&event->memory);
    free(event);
}

struct kafka_event *kafka_events_take(struct kafka_events *events)
{
    struct kafka_event *event = events->first;
    if (event == NULL)
        return NULL;
    events->first = event->next;
    if (events->first == NULL)
        events->last = &events->first;
    event->next = NULL;
    return event;
}

void kafka_events_add(struct kafka_events *events, struct kafka_event *event)
{
    event->next = NULL;
    *events->last = event;
    events->last = &event->next;
}

void kafka_events_unread(struct kafka_events *events, struct kafka_event *event)
{
    event->next = events->first;
    events->first = event;
    if (event->next == NULL)
        events->last = &event->next;
}

void kafka_events_clear(struct kafka_events *events)
{
    struct kafka_event *event;
    while ((event = kafka_events_take(events)) != NULL)
        kafka_event_free(event);
}

static struct kafka_event *from_error(rd_kafka_message_t *message)
{
    bool eof = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    struct kafka_event *event = kafka_event_new(eof ? KAFKA_EVENT_EOF : KAFKA_EVENT_ERROR, 0);
    err_set(&event->err, rd_kafka_err2name(message->err), "%s", rd_kafka_message_errstr(message));
    if (message->rkt != NULL) {
        const char *topic = rd_kafka_topic_name(message->rkt);
        event->topic = kafka_result_copy(&event->memory, topic, strlen(topic));
        event->partition = message->partition;
        event->offset = message->offset;
    }
    rd_kafka_message_destroy(message);
    return event;
}

void kafka_events_read(struct kafka_events *events, rd_kafka_message_t **messages, size_t count,
                       size_t max_bytes)
{
    size_t from = 0;
    while (from < count) {
        if (messages[from]->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            kafka_events_add(events, from_error(messages[from++]));
            continue;
        }
        size_t to = from, bytes = 0;
        while (to < count && messages[to]->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            bytes += messages[to]->len + messages[to]->key_len;
            if (bytes > max_bytes && to > from)
                break;
            to++;
        }
        struct kafka_event *event = kafka_event_new(KAFKA_EVENT_RECORDS, to - from);
        event->count = to - from;
        memcpy(event->messages, &messages[from], event->count * sizeof(event->messages[0]));
        kafka_events_add(events, event);
        from = to;
    }
}

static bool listed(const rd_kafka_topic_partition_list_t *list, const char *topic,
                   int32_t partition)
{
    if (list == NULL)
        return true;
    return rd_kafka_topic_partition_list_find((rd_kafka_topic_partition_list_t *)list, topic,
                                              partition) != NULL;
}

static void purge_records(struct kafka_event *event, const rd_kafka_topic_partition_list_t *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < event->count; i++) {
        rd_kafka_message_t *message = event->messages[i];
        if (listed(list, rd_kafka_topic_name(message->rkt), message->partition))
            rd_kafka_message_destroy(message);
        else
            event->messages[kept++] = message;
    }
    event->count = kept;
}

void kafka_events_purge(struct kafka_events *events, const rd_kafka_topic_partition_list_t *list)
{
    struct kafka_events kept;
    struct kafka_event *event;
    kafka_events_init(&kept);
    while ((event = kafka_events_take(events)) != NULL) {
        bool gone = false;
        if (event->kind == KAFKA_EVENT_RECORDS) {
            purge_records(event, list);
            gone = event->count == 0;
        } else if (event->topic != NULL) {
            gone = listed(list, event->topic, event->partition);
        }
        if (gone)
            kafka_event_free(event);
        else
            kafka_events_add(&kept, event);
    }
    while ((event = kafka_events_take(&kept)) != NULL)
        kafka_events_add(events, event);
}

void kafka_event_record(const struct kafka_event *event, size_t index, struct kafka_record *record)
{
    const rd_kafka_message_t *message = event->messages[index];
    rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    rd_kafka_headers_t *headers;
    record->topic = rd_kafka_topic_name(message->rkt);
    record->partition = message->partition;
    record->offset = message->offset;
#if RD_KAFKA_VERSION >= 0x020100ff
    record->leader_epoch = rd_kafka_message_leader_epoch(message);
#else
    record->leader_epoch = -1;
#endif
    record->key = message->key;
    record->key_size = message->key_len;
    record->value = message->payload;
    record->value_size = message->len;
    record->timestamp = rd_kafka_message_timestamp(message, &type);
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
        record->timestamp = -1;
    record->appended = type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    record->headers = NULL;
    record->headers_read = event->headers;
    if (event->headers &&
        rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
        record->headers = headers;
}

bool kafka_record_header(const struct kafka_record *record, size_t index, const char **name,
                         const char **value,
                         size_t *size)
{
    const void *bytes = NULL;
    if (record->headers == NULL ||
        rd_kafka_header_get_all(record->headers, index, name, &bytes,
                                size) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    *value = bytes;
    return true;
}
