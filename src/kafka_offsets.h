/*
 * The end or beginning of many partitions, asked so that one dead broker, one moved leader or one
 * forbidden topic does not hide the rest. Blocking: for a job's thread. Used by kafka_admin.c and
 * nobody else.
 */
#ifndef ROUSE_KAFKA_OFFSETS_H
#define ROUSE_KAFKA_OFFSETS_H

#include "kafka_internal.h"

#define KAFKA_SLOW_MAX 32

/*
 * Brokers that let the last question run into its time-out: they are asked apart from the others,
 * and briefly.
 */
struct kafka_slow {
    size_t count;
    int32_t brokers[KAFKA_SLOW_MAX];
};

/* Sets offset or err of each element; `slow` is read and updated. */
void kafka_offsets_query(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t at,
                         int timeout_ms,
                         struct kafka_slow *slow);

#endif
