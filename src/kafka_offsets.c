#include "kafka_offsets.h"

#include <stdlib.h>
#include <string.h>

struct query {
    rd_kafka_t *rk;
    int64_t at;
    uint64_t deadline;
};

/* The partitions of one leader (or all of them), in one array of pointers into the answer. */
struct part {
    const struct query *query;
    int32_t leader;
    size_t count;
    rd_kafka_topic_partition_t **items;
    bool threaded;
    pthread_t thread;
};

/*
 * One call of librdkafka: all of it succeeds or it tells nothing. On success each item has its
 * offset or error.
 */
static rd_kafka_resp_err_t ask(const struct query *query, rd_kafka_topic_partition_t **items,
                               size_t count, int ms)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, items[i]->topic,
                                          items[i]->partition)->offset = query->at;
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(query->rk, list, ms);
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_topic_partition_t *answer = &list->elems[i]; /* in the order asked */
        items[i]->err = code != RD_KAFKA_RESP_ERR_NO_ERROR ? code : answer->err;
        if (items[i]->err == RD_KAFKA_RESP_ERR_NO_ERROR)
            items[i]->offset = answer->offset;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

static void by_topic(struct part *part)
{
    size_t from = 0;
    for (size_t to = 1; to <= part->count; to++) {
        if (to < part->count && strcmp(part->items[to]->topic, part->items[from]->topic) == 0)
            continue;
        int left = kafka_left(part->query->deadline);
        if (left == 0)
            return;
        ask(part->query, &part->items[from], to - from, left);
        from = to;
    }
}

static void *ask_part(void *arg)
{
    struct part *part = arg;
    rd_kafka_resp_err_t code = ask(part->query, part->items, part->count,
                                   kafka_left(part->query->deadline));
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR && code != RD_KAFKA_RESP_ERR__TIMED_OUT &&
        code != RD_KAFKA_RESP_ERR__TRANSPORT)
        by_topic(part);
    return NULL;
}

static int32_t leader_of(const struct rd_kafka_metadata *metadata,
                         const rd_kafka_topic_partition_t *item,
                         rd_kafka_resp_err_t *code)
{
    *code = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];
        if (strcmp(topic->topic, item->topic) != 0)
            continue;
        if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            *code = topic->err;
        for (int j = 0; j < topic->partition_cnt; j++) {
            if (topic->partitions[j].id != item->partition)
                continue;
            *code = topic->partitions[j].leader >= 0 ? RD_KAFKA_RESP_ERR_NO_ERROR
                                                     : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
            return topic->partitions[j].leader;
        }
        break;
    }
    return -1;
}

/*
 * Each leader on a thread of its own: they have the same deadline, and the dead one must not use up
 * the others' time.
 */
static void ask_parts(struct part *parts, size_t count)
{
    for (size_t i = 1; i < count; i++)
        parts[i].threaded = pthread_create(&parts[i].thread, NULL, ask_part, &parts[i]) == 0;
    for (size_t i = 0; i < count; i++)
        if (!parts[i].threaded)
            ask_part(&parts[i]);
    for (size_t i = 1; i < count; i++)
        if (parts[i].threaded)
            pthread_join(parts[i].thread, NULL);
}

static struct part *part_for(struct part *parts, size_t *count, int32_t leader, size_t room)
{
    for (size_t i = 0; i < *count; i++)
        if (parts[i].leader == leader)
            return &parts[i];
    struct part *part = &parts[(*count)++];
    part->leader = leader;
    part->items = kafka_alloc(room * sizeof(part->items[0]));
    return part;
}

static void by_leader(const struct query *query, rd_kafka_topic_partition_t **items, size_t count,
                      const struct rd_kafka_metadata *metadata)
{
    struct part *parts = kafka_alloc(count * sizeof(*parts));
    size_t part_count = 0;
    for (size_t i = 0; i < count; i++) {
        rd_kafka_resp_err_t code;
        int32_t leader = leader_of(metadata, items[i], &code);
        items[i]->err = code;
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        struct part *part = part_for(parts, &part_count, leader, count);
        part->items[part->count++] = items[i];
    }
    for (size_t i = 0; i < part_count; i++)
        parts[i].query = query;
    if (part_count > 0)
        ask_parts(parts, part_count);
    for (size_t i = 0; i < part_count; i++)
        free(parts[i].items);
    free(parts);
}

void kafka_offsets_query(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t at,
                         int timeout_ms)
{
    struct query query = {.rk = rk, .at = at, .deadline = kafka_now() + (uint64_t)timeout_ms};
    size_t count = (size_t)list->cnt;
    rd_kafka_topic_partition_t **items = kafka_alloc(count * sizeof(*items));
    for (size_t i = 0; i < count; i++) {
        items[i] = &list->elems[i];
        items[i]->err = RD_KAFKA_RESP_ERR__TIMED_OUT;
        items[i]->offset = KAFKA_OFFSET_NONE;
    }
    if (count > 0)
        ask(&query, items, count, timeout_ms / 3);
    size_t failed = 0;
    for (size_t i = 0; i < count; i++)
        if (items[i]->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            items[failed++] = items[i];

    /*
     * The library goes on asking an old leader until its metadata is refreshed, and this also says
     * who leads what.
     */
    const struct rd_kafka_metadata *metadata = NULL;
    int left = kafka_left(query.deadline);
    if (failed > 0 && left > 0) {
        rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 1, NULL, &metadata, left);
        for (size_t i = 0; code != RD_KAFKA_RESP_ERR_NO_ERROR && i < failed; i++)
            items[i]->err = code;
    }
    if (metadata != NULL) {
        by_leader(&query, items, failed, metadata);
        rd_kafka_metadata_destroy(metadata);
    }
    free(items);
}
