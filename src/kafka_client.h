/*
 * What all Kafka handles (consumer, producer, admin, mock) share: how they are opened, referenced,
 * closed, and how a pending call is given up. Everything here is called on the loop thread.
 */
#ifndef ROUSE_KAFKA_CLIENT_H
#define ROUSE_KAFKA_CLIENT_H

#include <uv.h>

#include "kafka_data.h"

struct kafka_client;
struct kafka_call;

/*
 * Functions that return a struct kafka_call report later through `done`. NULL means that `done` was
 * called already, with a failure; the call's pointer is valid until `done` is called or the handle
 * is closed, whichever comes first.
 */
struct kafka_options {
    uv_loop_t *loop;
    /* must stay valid until the handle has closed or was given up */
    struct kafka_log log;
    const struct kafka_property *properties;
    size_t count;
};

/* References keep the struct, not the connection: a closed handle may still be referenced. */
void kafka_client_ref(struct kafka_client *client);
void kafka_client_unref(struct kafka_client *client);

/*
 * Closes the handle in the background, once: a consumer leaves its group, a producer flushes, for
 * `seconds` at most. Pending calls end with code "CLOSED" at once. `done` (may be NULL) is called
 * when everything is freed or, a second after the deadline, when the handle is given up (code
 * "TIMEDOUT"); after kafka_client_forget it is not. The handle may be used no more.
 */
void kafka_client_close(struct kafka_client *client, double seconds, kafka_done *done, void *arg);
void kafka_client_forget(struct kafka_client *client);

/* The waiter of a call is gone: its `done` will not be called; a late answer is dropped. */
void kafka_call_cancel(struct kafka_call *call);

#endif
