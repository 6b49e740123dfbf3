/*
 * The yardstick of the throughput benchmark: librdkafka's own batch call in a loop, doing nothing with the records but
 * counting them. The fetch settings come from the command line, so that they are those of the consumer beside it.
 *
 *   raw_consumer BROKERS TOPIC PARTITIONS COUNT [PROPERTY=VALUE]...
 *
 * Reads from the beginning of every partition until COUNT records are there; prints "RECORDS SECONDS", the time from the
 * first record to the last.
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 1000, GIVE_UP_SECONDS = 60 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[256];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK) {
        fprintf(stderr, "raw_consumer: %s\n", text);
        exit(2);
    }
}

static rd_kafka_t *consumer(const char *brokers, int n, char **properties)
{
    char text[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    set(conf, "group.id", "bench-raw");
    set(conf, "enable.auto.commit", "false");
    set(conf, "enable.auto.offset.store", "false");
    for (int i = 0; i < n; i++) {
        char *value = strchr(properties[i], '=');
        if (!value)
            continue;
        *value = '\0';
        set(conf, properties[i], value + 1);
    }
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    if (!rk) {
        fprintf(stderr, "raw_consumer: %s\n", text);
        exit(2);
    }
    rd_kafka_poll_set_consumer(rk);
    return rk;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fputs("usage: raw_consumer BROKERS TOPIC PARTITIONS COUNT [PROPERTY=VALUE]...\n", stderr);
        return 2;
    }
    long want = atol(argv[4]), got = 0;
    rd_kafka_t *rk = consumer(argv[1], argc - 5, argv + 5);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(atoi(argv[3]));
    for (int p = 0; p < atoi(argv[3]); p++)
        rd_kafka_topic_partition_list_add(list, argv[2], p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);

    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
    rd_kafka_message_t *batch[BATCH];
    double start = now(), first = 0, last = 0;
    while (got < want && now() - start < GIVE_UP_SECONDS) {
        /* A time-out waits for a full batch; so take what is there, and pause only when nothing is. */
        ssize_t n = rd_kafka_consume_batch_queue(queue, 0, batch, BATCH);
        if (n <= 0) {
            nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
            continue;
        }
        if (first == 0)
            first = now();
        for (ssize_t i = 0; i < n; i++) {
            got += !batch[i]->err;
            rd_kafka_message_destroy(batch[i]);
        }
        last = now();
    }
    printf("%ld %.6f\n", got, last - first);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return got == want ? 0 : 1;
}
