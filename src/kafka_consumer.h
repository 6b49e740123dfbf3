/*
 * A consumer on the loop. Records, rebalances and errors arrive in one stream of events, read only
 * while somebody waits for one, so a slow reader holds librdkafka's queue back and nothing else
 * grows. Rebalances are reported, never answered here: the user answers with assign or unassign
 * whenever it is ready. Loop thread only.
 */
#ifndef ROUSE_KAFKA_CONSUMER_H
#define ROUSE_KAFKA_CONSUMER_H

#include "kafka_client.h"

struct kafka_consumer;

enum kafka_event_kind {
    KAFKA_EVENT_RECORDS = 1,
    KAFKA_EVENT_ASSIGN,
    KAFKA_EVENT_REVOKE,
    KAFKA_EVENT_ERROR,
    KAFKA_EVENT_EOF
};

struct kafka_event {
    enum kafka_event_kind kind;
    const char *topic;          /* error, eof: NULL when it concerns the handle */
    int32_t partition;
    int64_t offset;
    struct err err;
    bool fatal;
    bool lost;                  /* revoke: the partitions may already be somebody else's */
    const char *protocol;       /* assign, revoke: "EAGER", "COOPERATIVE", "NONE"; static */
    struct kafka_partitions *partitions;
    size_t count;               /* records */
    bool headers;               /* records: they are read with their headers */
    struct kafka_result memory;
    struct kafka_event *next;
    void *messages[];           /* librdkafka's, owned */
};

/* A view of one record, valid until its event is freed or given back. */
struct kafka_record {
    const char *topic;          /* the same pointer for all records of a topic */
    int32_t partition;
    int64_t offset;
    int32_t leader_epoch;       /* -1: not known */
    const char *key;            /* NULL: none */
    size_t key_size;
    const char *value;          /* NULL: none (a tombstone) */
    size_t value_size;
    int64_t timestamp;          /* milliseconds; -1: none */
    bool appended;              /* the timestamp is the broker's append time */
    const void *headers;        /* for kafka_record_header; NULL: none, or not read */
    bool headers_read;
};

/*
 * Opens a consumer; NULL and err (CONFIG with librdkafka's own text). group.id is required, even if
 * it never joins. Without `headers` those of its records are not read: librdkafka makes a parser of
 * a kilobyte for each record that is asked for them, also where there are none.
 */
struct kafka_consumer *kafka_consumer_new(const struct kafka_options *options, bool headers,
                                          struct err *err);
struct kafka_client *kafka_consumer_client(struct kafka_consumer *consumer);

/*
 * These talk to librdkafka's main thread and return in fractions of a millisecond. 0, or -1 and
 * err.
 */
int kafka_consumer_subscribe(struct kafka_consumer *consumer, const struct kafka_partition *topics,
                             size_t count,
                             struct err *err);
enum kafka_assign { KAFKA_ASSIGN = 1, KAFKA_ASSIGN_MORE, KAFKA_ASSIGN_LESS };
/*
 * Also the answer to an assign or revoke event. Events already read for partitions that go or are
 * set anew are dropped.
 */
int kafka_consumer_assign(struct kafka_consumer *consumer, enum kafka_assign how,
                          const struct kafka_partition *items,
                          size_t count, struct err *err);
int kafka_consumer_pause(struct kafka_consumer *consumer, bool pause,
                         const struct kafka_partition *items, size_t count,
                         struct err *err);
int kafka_consumer_seek(struct kafka_consumer *consumer, const struct kafka_partition *items,
                        size_t count,
                        struct err *err);
/* Offsets to be committed next (the record's offset + 1). */
int kafka_consumer_store(struct kafka_consumer *consumer, const struct kafka_partition *items,
                         size_t count,
                         struct err *err);
/* These fill result->partitions, to be freed with kafka_result_free. */
int kafka_consumer_assignment(struct kafka_consumer *consumer, struct kafka_result *result);
int kafka_consumer_position(struct kafka_consumer *consumer, const struct kafka_partition *items,
                            size_t count,
                            struct kafka_result *result);

/*
 * Asynchronous, the answer's list in result->partitions. items NULL: the stored offsets. An answer
 * of "nothing to commit" is success with an empty list. Returns the call, for kafka_call_cancel.
 */
struct kafka_call *kafka_consumer_commit(struct kafka_consumer *consumer,
                                         const struct kafka_partition *items, size_t count,
                                         kafka_done *done, void *arg);
struct kafka_call *kafka_consumer_committed(struct kafka_consumer *consumer,
                                            const struct kafka_partition *items,
                                            size_t count, double timeout, kafka_done *done,
                                            void *arg);

/*
 * One poll at a time. kafka_consumer_poll looks for an event of at most `max` records and, beyond
 * the first record, `max_bytes`; `ready` is called once, when kafka_consumer_take has something to
 * say: now or later, and every few milliseconds later in any case, so that who always finds
 * something lets the loop turn (not with `at_once`, which is for those who do not wait). Returns
 * -1, and nothing else happens, while another poll is under way. A poll ends with take, or with
 * unpoll by who does not want it any more.
 *
 * take: the event, owned by the caller; NULL when the consumer was closed meanwhile. Records of
 * partitions that were taken away between ready and take are gone from it, so it may be a records
 * event with none. unpoll: an event that nobody took is kept for the next poll. Allowed at any time
 * by the one who polls, also after take.
 */
int kafka_consumer_poll(struct kafka_consumer *consumer, size_t max, size_t max_bytes, bool at_once,
                        void (*ready)(void *arg), void *arg);
struct kafka_event *kafka_consumer_take(struct kafka_consumer *consumer, const void *arg);
void kafka_consumer_unpoll(struct kafka_consumer *consumer, const void *arg);
void kafka_event_free(struct kafka_event *event);

void kafka_event_record(const struct kafka_event *event, size_t index, struct kafka_record *record);
/*
 * The record's header number `index` (from 0); false when there is none. `value` NULL: the header
 * has no value.
 */
bool kafka_record_header(const struct kafka_record *record, size_t index, const char **name,
                         const char **value,
                         size_t *size);

#endif
