/*
 * Shared by the kafka_*.c files only: the base of every handle and the helpers that know
 * librdkafka's types.
 *
 * A handle has two halves. struct kafka_client belongs to the loop thread. struct kafka_port is
 * what librdkafka's threads and the handle's own threads may touch: a mutex, a list of finished
 * jobs and the async that wakes the loop. The loop may let go of a handle (its close ran into its
 * deadline) while a thread still works on it; the port then outlives the client.
 */
#ifndef ROUSE_KAFKA_INTERNAL_H
#define ROUSE_KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <uv.h>

#include "kafka_client.h"
#include "kafka_data.h"

struct kafka_client;

/*
 * Shared by the loop and the handle's threads; freed when the last of them lets go. Everything
 * below `lock` is under it.
 */
struct kafka_port {
    pthread_mutex_t lock;
    pthread_cond_t idle;            /* jobs fell to 0 */
    int refs;
    int jobs;                       /* threads inside librdkafka on behalf of a job */
    struct kafka_job *finished;
    uv_async_t *async;              /* NULL: the loop has let go */
    struct kafka_log log;           /* write is NULL once the loop has let go */
    bool left;                      /* closing: kind->finish is done, its result is in `outcome` */
    bool ended;                     /* and everything is destroyed */
    struct kafka_result outcome;
    struct kafka_client *client;    /* loop thread only; NULL from the beginning of the close */
};

/*
 * A call whose answer comes later. Lives until its answer came or the handle closed, also when
 * nobody waits any more.
 */
struct kafka_call {
    struct kafka_client *client;
    struct kafka_call *prev, *next;
    kafka_done *done;               /* NULL: cancelled, the answer is dropped */
    void *arg;
    struct kafka_job *job;          /* the thread that works for it, if any */
    char *group;                    /* the group whose coordinator answers it, if any */
};

/*
 * A blocking call of librdkafka on a thread of its own: a pool would let a few dead brokers hold up
 * everything else.
 */
struct kafka_job {
    void (*work)(rd_kafka_t *rk, struct kafka_job *job);
    /* frees the inputs and the job; librdkafka's things `work` destroys */
    void (*release)(struct kafka_job *job);
    /* on the loop, before the call ends; may be NULL */
    void (*settle)(struct kafka_client *client, struct kafka_job *job);
    struct kafka_call *call;        /* loop thread only; NULL when the handle closed first */
    struct kafka_job *next;
    struct kafka_result result;
    int timeout_ms;
};

/*
 * What makes a consumer, producer, admin or mock of a client. Every function runs on the loop
 * thread but `finish`.
 */
struct kafka_kind {
    const char *name;
    void (*drain)(struct kafka_client *client);             /* the handle's queue has something */
    /* see kafka_client_every; may be NULL */
    void (*tick)(struct kafka_client *client);
    /* closing begins: let go of everything of librdkafka's */
    void (*stop)(struct kafka_client *client);
    /* closing thread */
    void (*finish)(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline);
    void (*release)(struct kafka_client *client);           /* frees the outer struct */
};

struct kafka_client {
    const struct kafka_kind *kind;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;        /* records, callbacks: consumer queue or main queue */
    rd_kafka_queue_t *replies;      /* answers of asynchronous calls, always drained */
    struct kafka_port *port;
    uv_loop_t *loop;
    uv_async_t *async;
    uv_timer_t *timer;
    struct kafka_call *calls;
    void *finish_state;             /* handed to kind->finish, which frees it */
    kafka_done *closed;
    void *closed_arg;
    int refs;
    bool closing;
};

/* Set on the conf before rd_kafka_new: callbacks, events and defaults that users may override. */
struct kafka_setup {
    rd_kafka_type_t type;
    /* set where the library knows them; ends with a NULL name */
    const struct kafka_property *defaults;
    void (*configure)(rd_kafka_conf_t *conf);
    /* after the user's properties; may be NULL */
    int (*check)(rd_kafka_conf_t *conf, void *client, struct err *err);
};

/*
 * Opens the base of a zeroed outer struct whose first member is `client`. On failure returns -1
 * with err, nothing is held and the caller frees the struct. On success the client has one
 * reference, the caller's.
 */
int kafka_client_open(struct kafka_client *client, const struct kafka_kind *kind,
                      const struct kafka_setup *setup,
                      const struct kafka_options *options, struct err *err);

/*
 * The client of a callback's opaque, or NULL once closing began (the callback then runs on the
 * closing thread).
 */
struct kafka_client *kafka_client_of(void *opaque);

/* A line to the handle's log, as librdkafka would write it. */
void kafka_client_log(struct kafka_client *client, int level, const char *facility,
                      const char *message);

/* Starts waking the loop for `queue`, which the client owns from now on. */
void kafka_client_watch(struct kafka_client *client, rd_kafka_queue_t *queue);

/* Makes the loop call kind->drain again soon: work was left for fairness. */
void kafka_client_again(struct kafka_client *client);

/* Calls kind->tick every `ms`; this timer keeps no loop alive. */
void kafka_client_every(struct kafka_client *client, uint64_t ms);

struct kafka_call *kafka_call_new(struct kafka_client *client, kafka_done *done, void *arg);
/* Hands `result` to whoever waits, frees the call. */
void kafka_call_end(struct kafka_call *call, struct kafka_result *result);
void kafka_call_fail(struct kafka_call *call, rd_kafka_resp_err_t code, const char *message);
/*
 * Runs `job` (from kafka_job_new) for the call and returns the call; a failure to start it ends the
 * call: NULL.
 */
struct kafka_call *kafka_call_run(struct kafka_call *call, struct kafka_job *job);
void *kafka_job_new(size_t size, double timeout);

/* The port: made with one reference, the loop's. */
struct kafka_port *kafka_port_new(const struct kafka_log *log);
void kafka_port_unref(struct kafka_port *port);
void kafka_port_wake(struct kafka_port *port);
/* A line to the handle's log, from any thread. */
void kafka_port_log(struct kafka_port *port, int level, const char *facility, const char *message);
/* From now on no thread touches the loop or the log through this port. */
void kafka_port_let_go(struct kafka_port *port);
/* The jobs that finished since the last call, oldest first. */
struct kafka_job *kafka_port_finished(struct kafka_port *port);
/* Starts the job's thread; -1 when there is none to be had. */
int kafka_port_start(struct kafka_port *port, rd_kafka_t *rk, struct kafka_job *job);
/*
 * Hands rk to a thread that runs `finish`, waits for the jobs and destroys it. Without a thread it
 * is done here and now.
 */
void kafka_port_close(struct kafka_port *port, rd_kafka_t *rk,
                      void (*finish)(rd_kafka_t *rk, void *state, struct kafka_result *result,
                                     uint64_t deadline),
                      void *state, int ms);

/* Handles the event of an answer on the replies queue, whose opaque is the call. */
void kafka_reply(struct kafka_call *call, rd_kafka_event_t *event);

/*
 * librdkafka's error as ours: code is its name ("_ALL_BROKERS_DOWN"), but a local time-out is
 * "TIMEDOUT" as for all waits.
 */
int kafka_err(struct err *err, rd_kafka_resp_err_t code, const char *message);
/* The same from an error object, which is destroyed; NULL means success. Returns 0 or -1. */
int kafka_err_take(struct err *err, rd_kafka_error_t *error);
/* The name of an error, NULL for none; static. */
const char *kafka_err_name(rd_kafka_resp_err_t code);
/* The error of that name; -1 when there is none. */
int kafka_err_code(const char *name, rd_kafka_resp_err_t *code);

rd_kafka_topic_partition_list_t *kafka_list(const struct kafka_partition *items, size_t count);
/* Copies a list of librdkafka's into the result's arena. */
void kafka_list_copy(struct kafka_result *result, struct kafka_partitions *to,
                     const rd_kafka_topic_partition_list_t *from);
struct kafka_partitions *kafka_list_result(struct kafka_result *result,
                                           const rd_kafka_topic_partition_list_t *from);

/* Seconds as milliseconds for librdkafka's time-outs; negative means its longest. */
int kafka_ms(double seconds);
/* Monotonic milliseconds, and what is left until a deadline on that clock (0 when passed). */
uint64_t kafka_now(void);
int kafka_left(uint64_t deadline);

#endif
