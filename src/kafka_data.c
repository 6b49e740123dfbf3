#include "kafka_data.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kafka_internal.h"

/*
 * A result's memory: a chain of blocks, each as large as what was asked for, or BLOCK for many
 * small things.
 */
#define BLOCK 4096

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *kafka_alloc(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    if (memory == NULL) {
        fputs("rouse: out of memory\n", stderr);
        abort();
    }
    return memory;
}

void *kafka_result_alloc(struct kafka_result *result, size_t size)
{
    struct block *block = result->arena;
    size = (size + 15) & ~(size_t)15;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        block = kafka_alloc(sizeof(*block) + room);
        block->size = room;
        block->next = result->arena;
        result->arena = block;
    }
    void *memory = block->bytes + block->used;
    block->used += size;
    return memory;
}

const char *kafka_result_copy(struct kafka_result *result, const void *bytes, size_t size)
{
    char *copy = kafka_result_alloc(result, size + 1);
    memcpy(copy, bytes, size);
    return copy;
}

void kafka_result_free(struct kafka_result *result)
{
    struct block *block = result->arena;
    while (block != NULL) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    memset(result, 0, sizeof(*result));
}

int kafka_match(const char *pattern, const char *name, struct err *err)
{
    regex_t regex;
    int status = regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB);
    if (status != 0) {
        char text[200];
        regerror(status, &regex, text, sizeof(text));
        return err_set(err, "PATTERN", "%s: %s", pattern, text);
    }
    int matched = regexec(&regex, name, 0, NULL, 0) == 0;
    regfree(&regex);
    return matched;
}

const char *kafka_version(void)
{
    return rd_kafka_version_str();
}

size_t kafka_property_table(char *buffer, size_t size)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    if (file != NULL) {
        rd_kafka_conf_properties_show(file);
        fclose(file);
    }
    if (size > 0)
        snprintf(buffer, size, "%s", text != NULL ? text : "");
    free(text);
    return length + 1;
}

const char *kafka_err_name(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_NO_ERROR ? NULL : rd_kafka_err2name(code);
}

int kafka_err_code(const char *name, rd_kafka_resp_err_t *code)
{
    const struct rd_kafka_err_desc *all;
    size_t count;
    rd_kafka_get_err_descs(&all, &count);
    for (size_t i = 0; i < count; i++) {
        if (all[i].name != NULL && strcmp(all[i].name, name) == 0) {
            *code = all[i].code;
            return 0;
        }
    }
    return -1;
}

int kafka_err(struct err *err, rd_kafka_resp_err_t code, const char *message)
{
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    bool local_timeout = code == RD_KAFKA_RESP_ERR__TIMED_OUT;
    return err_set(err, local_timeout ? "TIMEDOUT" : rd_kafka_err2name(code), "%s",
                   message != NULL && message[0] != '\0' ? message : rd_kafka_err2str(code));
}

int kafka_err_take(struct err *err, rd_kafka_error_t *error)
{
    if (error == NULL)
        return 0;
    int status = kafka_err(err, rd_kafka_error_code(error), rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return status;
}

rd_kafka_topic_partition_list_t *kafka_list(const struct kafka_partition *items, size_t count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++) {
        rd_kafka_topic_partition_t *item =
            rd_kafka_topic_partition_list_add(list, items[i].topic, items[i].partition);
        item->offset = items[i].offset;
        if (items[i].metadata != NULL) {
            item->metadata = malloc(items[i].metadata_size + 1); /* librdkafka frees it */
            if (item->metadata == NULL)
                abort();
            memcpy(item->metadata, items[i].metadata, items[i].metadata_size);
            ((char *)item->metadata)[items[i].metadata_size] = '\0';
            item->metadata_size = items[i].metadata_size;
        }
    }
    return list;
}

void kafka_list_copy(struct kafka_result *result, struct kafka_partitions *to,
                     const rd_kafka_topic_partition_list_t *from)
{
    to->count = from != NULL ? (size_t)from->cnt : 0;
    to->items = kafka_result_alloc(result, to->count * sizeof(*to->items));
    const char *topic = "";
    for (size_t i = 0; i < to->count; i++) {
        const rd_kafka_topic_partition_t *item = &from->elems[i];
        if (strcmp(topic, item->topic) != 0) /* lists are mostly sorted by topic: share the name */
            topic = kafka_result_copy(result, item->topic, strlen(item->topic));
        to->items[i].topic = topic;
        to->items[i].partition = item->partition;
        to->items[i].offset = item->offset;
        to->items[i].error = kafka_err_name(item->err);
        if (item->metadata != NULL && item->metadata_size > 0) {
            to->items[i].metadata = kafka_result_copy(result, item->metadata, item->metadata_size);
            to->items[i].metadata_size = item->metadata_size;
        }
    }
}

struct kafka_partitions *kafka_list_result(struct kafka_result *result,
                                           const rd_kafka_topic_partition_list_t *from)
{
    struct kafka_partitions *list = kafka_result_alloc(result, sizeof(*list));
    kafka_list_copy(result, list, from);
    return list;
}

int kafka_ms(double seconds)
{
    double ms = seconds * 1000;
    if (seconds < 0 || ms > 2147483000.0)
        return 2147483000; /* -1 would wait for ever, which a thread of ours must not */
    return (int)ms;
}

uint64_t kafka_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int kafka_left(uint64_t deadline)
{
    uint64_t now = kafka_now();
    if (now >= deadline)
        return 0;
    return deadline - now > 2147483000 ? 2147483000 : (int)(deadline - now);
}
