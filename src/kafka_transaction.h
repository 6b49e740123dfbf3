/*
 * Transactions of a producer that was opened with a transactional.id. librdkafka's calls block, for
 * round trips or until their time-out, so each has a thread; one at a time. Their results say
 * whether the call may be made again (retriable), the transaction has to be aborted (abortable) or
 * the producer is of no more use (fatal: fenced, for example). Loop thread only.
 */
#ifndef ROUSE_KAFKA_TRANSACTION_H
#define ROUSE_KAFKA_TRANSACTION_H

#include "kafka_consumer.h"
#include "kafka_producer.h"

/* Registers the transactional.id: whoever had it before is fenced, what it left open is aborted. */
struct kafka_call *kafka_transaction_init(struct kafka_producer *producer, double timeout,
                                          kafka_done *done, void *arg);

/* No round trip. 0, or -1 with result->err and what it means; nothing has to be freed. */
int kafka_transaction_begin(struct kafka_producer *producer, struct kafka_result *result);

/*
 * Makes the offsets part of the transaction. With a consumer that is a member of its group, the
 * broker refuses them once it is no more; without one (NULL), the group's name is all it knows.
 */
struct kafka_call *kafka_transaction_offsets(struct kafka_producer *producer,
                                             struct kafka_consumer *consumer, const char *group,
                                             const struct kafka_partition *items, size_t count,
                                             double timeout, kafka_done *done, void *arg);

/* Delivers what was produced, then commits it with the offsets. */
struct kafka_call *kafka_transaction_commit(struct kafka_producer *producer, double timeout,
                                            kafka_done *done, void *arg);

/* Throws away what was produced, sent or not, and the offsets. */
struct kafka_call *kafka_transaction_abort(struct kafka_producer *producer, double timeout,
                                           kafka_done *done, void *arg);

#endif
