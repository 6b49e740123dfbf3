/*
 * The end or beginning of many partitions, asked so that one dead broker, one moved leader or one
 * forbidden topic does not hide the rest. Blocking: for a job's thread. Used by kafka_admin.c and
 * nobody else.
 */
#ifndef ROUSE_KAFKA_OFFSETS_H
#define ROUSE_KAFKA_OFFSETS_H

#include "kafka_internal.h"

/* Sets offset or err of each element. */
void kafka_offsets_query(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t at,
                         int timeout_ms);

#endif
