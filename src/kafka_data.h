/*
 * Plain values that cross between the Kafka mechanism and its users: properties, partition lists,
 * metadata, group descriptions and the result of an asynchronous call. No type of librdkafka
 * appears here, so bindings include this file and never rdkafka.h.
 */
#ifndef ROUSE_KAFKA_DATA_H
#define ROUSE_KAFKA_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Offsets that are not positions (librdkafka's own numbers). */
#define KAFKA_OFFSET_BEGINNING INT64_C(-2)
#define KAFKA_OFFSET_END INT64_C(-1)
#define KAFKA_OFFSET_STORED INT64_C(-1000)
#define KAFKA_OFFSET_NONE INT64_C(-1001)

struct kafka_property {
    const char *name;
    const char *value;
};

/* Where librdkafka's log lines go. Called from any thread; `level` is syslog's (0 to 7). */
struct kafka_log {
    void (*write)(void *arg, int level, const char *facility, const char *message);
    void *arg;
};

/*
 * As an argument it borrows its strings from the caller for the call; in a kafka_partitions it
 * shares the list's memory.
 */
struct kafka_partition {
    const char *topic;
    int32_t partition;
    int64_t offset;
    const char *metadata;       /* NULL: none */
    size_t metadata_size;
    const char *error;          /* librdkafka's name of it, static; NULL: none */
};

/* Results own everything they point to, in one arena freed by kafka_result_free. */
struct kafka_partitions {
    size_t count;
    struct kafka_partition *items;
};

struct kafka_meta_partition {
    int32_t id;
    int32_t leader;
    const char *error;
};

struct kafka_meta_topic {
    const char *name;
    const char *error;
    size_t count;
    struct kafka_meta_partition *partitions;
};

struct kafka_meta_broker {
    int32_t id;
    const char *host;
    int port;
};

struct kafka_metadata {
    size_t broker_count;
    struct kafka_meta_broker *brokers;
    size_t topic_count;
    struct kafka_meta_topic *topics;
};

struct kafka_member {
    const char *id;
    const char *client;
    const char *host;
    struct kafka_partitions partitions;
};

struct kafka_group {
    const char *name;
    const char *state;          /* "Stable", "Empty", ... as the broker says */
    const char *error;
    size_t count;
    struct kafka_member *members;
};

struct kafka_groups {
    size_t count;
    struct kafka_group *items;
};

/* What an asynchronous call ended with; which member is set depends on the call. */
struct kafka_result {
    bool failed;                /* then err says why; values may still be there */
    bool fatal;                 /* an error after which the handle is of no more use */
    bool retriable;             /* of a transaction: the call may be made again */
    bool abortable;             /* of a transaction: it has to be aborted */
    struct err err;
    struct kafka_partitions *partitions;
    struct kafka_metadata *metadata;
    struct kafka_groups *groups;
    int32_t partition;          /* produce */
    int64_t offset;
    void *arena;                /* owns the values above */
};

/*
 * Called once on the loop thread; the callee takes what the result owns by copying the struct and
 * zeroing the original.
 */
typedef void kafka_done(void *arg, struct kafka_result *result);

/* Frees what the result owns and clears it. */
void kafka_result_free(struct kafka_result *result);

/*
 * Memory of a result; zeroed, never NULL (out of memory ends the process, as for all small
 * allocations here).
 */
void *kafka_result_alloc(struct kafka_result *result, size_t size);
const char *kafka_result_copy(struct kafka_result *result, const void *bytes, size_t size);

/*
 * calloc that ends the process when there is no memory: librdkafka itself does not survive that
 * either.
 */
void *kafka_alloc(size_t size);

/*
 * Whether `name` matches the POSIX extended regular expression `pattern`, as librdkafka matches
 * topics: 1, 0, or -1 and err.
 */
int kafka_match(const char *pattern, const char *name, struct err *err);

/* The version of the library in use, "2.0.2"; static. */
const char *kafka_version(void);

/*
 * librdkafka's table of properties, one a line that begins with its name: into the buffer as far as
 * its size goes (ended with NUL). Returns the size it takes, NUL included.
 */
size_t kafka_property_table(char *buffer, size_t size);

#endif
