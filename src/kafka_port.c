#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_internal.h"

struct start {
    struct kafka_port *port;
    rd_kafka_t *rk;
    struct kafka_job *job;
};

struct closing {
    struct kafka_port *port;
    rd_kafka_t *rk;
    void (*finish)(rd_kafka_t *rk, void *state, struct kafka_result *result, uint64_t deadline);
    void *state;
    uint64_t deadline;
};

struct kafka_port *kafka_port_new(const struct kafka_log *log)
{
    struct kafka_port *port = kafka_alloc(sizeof(*port));
    pthread_mutex_init(&port->lock, NULL);
    pthread_cond_init(&port->idle, NULL);
    port->refs = 1;
    port->log = *log;
    return port;
}

static void job_free(struct kafka_job *job)
{
    kafka_result_free(&job->result);
    job->release(job);
}

void kafka_port_unref(struct kafka_port *port)
{
    pthread_mutex_lock(&port->lock);
    int refs = --port->refs;
    pthread_mutex_unlock(&port->lock);
    if (refs > 0)
        return;
    while (port->finished != NULL) {
        struct kafka_job *job = port->finished;
        port->finished = job->next;
        job_free(job);
    }
    kafka_result_free(&port->outcome);
    pthread_cond_destroy(&port->idle);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

void kafka_port_wake(struct kafka_port *port)
{
    pthread_mutex_lock(&port->lock);
    if (port->async != NULL)
        uv_async_send(port->async);
    pthread_mutex_unlock(&port->lock);
}

void kafka_port_log(struct kafka_port *port, int level, const char *facility, const char *message)
{
    pthread_mutex_lock(&port->lock);
    if (port->log.write != NULL)
        port->log.write(port->log.arg, level, facility, message);
    pthread_mutex_unlock(&port->lock);
}

void kafka_port_let_go(struct kafka_port *port)
{
    pthread_mutex_lock(&port->lock);
    port->async = NULL;
    port->log.write = NULL;
    pthread_mutex_unlock(&port->lock);
}

struct kafka_job *kafka_port_finished(struct kafka_port *port)
{
    pthread_mutex_lock(&port->lock);
    struct kafka_job *newest = port->finished, *oldest = NULL;
    port->finished = NULL;
    pthread_mutex_unlock(&port->lock);
    while (newest != NULL) {
        struct kafka_job *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/*
 * Threads are detached: nothing may wait for one that hangs in a broker's time-out, least of all
 * the process's exit.
 */
static int run_thread(void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    if (pthread_attr_init(&attr) != 0)
        return -1;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 512 * 1024);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    int status = pthread_create(&thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return status == 0 ? 0 : -1;
}

static void *run_job(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    struct kafka_port *port = start.port;
    start.job->work(start.rk, start.job);
    pthread_mutex_lock(&port->lock);
    start.job->next = port->finished;
    port->finished = start.job;
    if (--port->jobs == 0)
        pthread_cond_broadcast(&port->idle);
    if (port->async != NULL)
        uv_async_send(port->async);
    pthread_mutex_unlock(&port->lock);
    kafka_port_unref(port);
    return NULL;
}

int kafka_port_start(struct kafka_port *port, rd_kafka_t *rk, struct kafka_job *job)
{
    struct start *start = kafka_alloc(sizeof(*start));
    *start = (struct start){.port = port, .rk = rk, .job = job};
    pthread_mutex_lock(&port->lock);
    port->refs++;
    port->jobs++;
    pthread_mutex_unlock(&port->lock);
    if (run_thread(run_job, start) == 0)
        return 0;
    pthread_mutex_lock(&port->lock);
    port->refs--;
    port->jobs--;
    pthread_mutex_unlock(&port->lock);
    free(start);
    return -1;
}

static void *run_close(void *arg)
{
    struct closing closing = *(struct closing *)arg;
    free(arg);
    struct kafka_port *port = closing.port;
    struct kafka_result outcome = {0};
    if (closing.finish != NULL)
        closing.finish(closing.rk, closing.state, &outcome, closing.deadline);
    pthread_mutex_lock(&port->lock);
    port->outcome = outcome;
    port->left = true;
    while (port->jobs > 0) /* each has a time-out of its own; destroying under them would crash */
        pthread_cond_wait(&port->idle, &port->lock);
    pthread_mutex_unlock(&port->lock);
    /*
     * kind->finish has left the group if there was time; leaving again may wait for a whole session
     * time-out
     */
    rd_kafka_destroy_flags(closing.rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    pthread_mutex_lock(&port->lock);
    port->ended = true;
    if (port->async != NULL)
        uv_async_send(port->async);
    pthread_mutex_unlock(&port->lock);
    kafka_port_unref(port);
    return NULL;
}

void kafka_port_close(struct kafka_port *port, rd_kafka_t *rk,
                      void (*finish)(rd_kafka_t *rk, void *state, struct kafka_result *result,
                                     uint64_t deadline),
                      void *state, int ms)
{
    struct closing *closing = kafka_alloc(sizeof(*closing));
    *closing = (struct closing){
        .port = port,
        .rk = rk,
        .finish = finish,
        .state = state,
        .deadline = kafka_now() + (uint64_t)ms,
    };
    pthread_mutex_lock(&port->lock);
    port->refs++;
    pthread_mutex_unlock(&port->lock);
    if (run_thread(run_close, closing) < 0)
        run_close(closing);
}
