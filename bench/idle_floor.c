/*
 * The floor below the idle benchmark: what the platform's libraries take to hold the same partitions with nothing of Rouse.
 * libcurl is initialised, and one consumer of librdkafka is assigned to every partition, at its first offset.
 *
 *   idle_floor BROKERS PARTITIONS TOPIC|PROPERTY=VALUE...
 *
 * Prints a line once it is assigned, and holds until it is killed.
 */
#include <curl/curl.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[256];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK) {
        fprintf(stderr, "idle_floor: %s\n", text);
        exit(2);
    }
}

static rd_kafka_t *consumer(rd_kafka_conf_t *conf)
{
    char text[256];
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    if (!rk) {
        fprintf(stderr, "idle_floor: %s\n", text);
        exit(2);
    }
    rd_kafka_poll_set_consumer(rk);
    return rk;
}

/* Wakes when there is something to serve and at no other time. */
static void hold(rd_kafka_t *rk)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
    int ends[2];
    char bytes[64];
    if (pipe(ends) != 0)
        return;
    rd_kafka_queue_io_event_enable(queue, ends[1], "x", 1);
    do {
        rd_kafka_message_t *message;
        while ((message = rd_kafka_consumer_poll(rk, 0)) != NULL)
            rd_kafka_message_destroy(message);
    } while (read(ends[0], bytes, sizeof bytes) > 0);
}

int main(int argc, char **argv)
{
    if (argc < 4 || curl_global_init(CURL_GLOBAL_ALL) != 0 || curl_multi_init() == NULL) {
        fputs("usage: idle_floor BROKERS PARTITIONS TOPIC|PROPERTY=VALUE...\n", stderr);
        return 2;
    }
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", argv[1]);
    set(conf, "group.id", "bench-floor");
    int partitions = atoi(argv[2]);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions * (argc - 3));
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value) {
            *value = '\0';
            set(conf, argv[i], value + 1);
            continue;
        }
        for (int p = 0; p < partitions; p++)
            rd_kafka_topic_partition_list_add(list, argv[i], p)->offset = 0;
    }
    rd_kafka_t *rk = consumer(conf);
    rd_kafka_assign(rk, list);
    printf("%d\n", list->cnt);
    rd_kafka_topic_partition_list_destroy(list);
    fflush(stdout);
    hold(rk);
    return 0;
}
