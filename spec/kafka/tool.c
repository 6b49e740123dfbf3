/*
 * What the specs and benchmarks on a real broker need and kcat cannot do: create, delete and grow topics without starting a
 * JVM, produce in transactions, load a topic fast, and compare a group's commits with the topic's ends. It uses librdkafka
 * alone, nothing of Rouse, so that its answers are a second opinion.
 *
 *   tool BROKERS create NAME:PARTITIONS[:PROPERTY=VALUE,...]...    replicas: the broker's default, or replicas=N before all else
 *   tool BROKERS delete NAME...
 *   tool BROKERS grow NAME:PARTITIONS...
 *   tool BROKERS deny NAME... | allow NAME...   nobody may read the topics, and the end of that (of a broker with an authorizer)
 *   tool BROKERS ready NAME:PARTITIONS...       waits until every partition has a leader
 *   tool BROKERS left GROUP TOPIC...            "TOPIC PARTITION COMMITTED LOW END" lines, COMMITTED -1 for none
 *   tool BROKERS load TOPIC PARTITIONS COUNT SIZE       values: JSON objects of SIZE bytes, cut where that is too short for one
 *   tool BROKERS transact TOPIC PARTITION       stdin lines: begin, key KEY, put VALUE, flush, commit, abort; each answered "ok"
 *                                               (key: of the records that follow; without one they have none)
 */
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEADLINE_MS = 30000, TEXT = 512 };

static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("tool: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[TEXT];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        die("%s: %s", name, text);
}

static rd_kafka_t *handle(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *brokers)
{
    char text[TEXT];
    set(conf, "bootstrap.servers", brokers);
    set(conf, "socket.nagle.disable", "true");
    rd_kafka_conf_set_log_cb(conf, NULL); /* a broker that restarts is no news here */
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, sizeof text);
    if (!rk)
        die("%s", text);
    return rk;
}

/* Cuts "NAME:N[:REST]" at its first colon, in place: the number, and what follows it in *rest (NULL for nothing). */
static int split(char *spec, char **rest)
{
    char *colon = strchr(spec, ':');
    char *end = NULL;
    long n = colon ? strtol(colon + 1, &end, 10) : 0;
    if (n < 1 || n > 100000 || (*end && *end != ':'))
        die("'%s' is not NAME:PARTITIONS", spec);
    *colon = '\0';
    if (rest)
        *rest = *end ? end + 1 : NULL;
    return (int)n;
}

/* Waits until the broker tells a leader for the first n partitions of a topic. */
static void wait_ready(rd_kafka_t *rk, const char *name, int n)
{
    double deadline = now() + DEADLINE_MS / 1e3;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    int ready = -1;
    while (ready < n) {
        const struct rd_kafka_metadata *meta = NULL;
        if (now() > deadline)
            die("%s: %d of %d partitions ready after %d ms", name, ready, n, DEADLINE_MS);
        if (ready >= 0)
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        ready = 0;
        if (rd_kafka_metadata(rk, 0, topic, &meta, 1000))
            continue;
        for (int i = 0; meta->topic_cnt == 1 && i < meta->topics[0].partition_cnt; i++)
            ready += meta->topics[0].partitions[i].leader >= 0;
        rd_kafka_metadata_destroy(meta);
    }
    rd_kafka_topic_destroy(topic);
}

/* The one event of an admin call; every topic in it must have succeeded. */
static void check_result(rd_kafka_queue_t *queue)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, DEADLINE_MS);
    const rd_kafka_topic_result_t **results = NULL;
    size_t n = 0;
    if (!event)
        die("no answer within %d ms", DEADLINE_MS);
    if (rd_kafka_event_error(event))
        die("%s", rd_kafka_event_error_string(event));
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_CREATETOPICS_RESULT)
        results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
    else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DELETETOPICS_RESULT)
        results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
    else
        results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event), &n);
    for (size_t i = 0; i < n; i++)
        if (rd_kafka_topic_result_error(results[i]))
            die("%s: %s", rd_kafka_topic_result_name(results[i]), rd_kafka_topic_result_error_string(results[i]));
    rd_kafka_event_destroy(event);
}

static void create(rd_kafka_t *rk, rd_kafka_queue_t *queue, int n, char **specs)
{
    rd_kafka_NewTopic_t **topics = calloc((size_t)n, sizeof *topics);
    int *counts = calloc((size_t)n, sizeof *counts);
    char text[TEXT];
    for (int i = 0; i < n; i++) {
        char *rest = NULL;
        int replicas = -1;
        counts[i] = split(specs[i], &rest);
        char *pair = rest ? strtok(rest, ",") : NULL;
        if (pair && sscanf(pair, "replicas=%d", &replicas) == 1)
            pair = strtok(NULL, ",");
        topics[i] = rd_kafka_NewTopic_new(specs[i], counts[i], replicas, text, sizeof text);
        if (!topics[i])
            die("%s: %s", specs[i], text);
        for (; pair; pair = strtok(NULL, ",")) {
            char *value = strchr(pair, '=');
            if (!value)
                die("'%s' is not PROPERTY=VALUE", pair);
            *value = '\0';
            rd_kafka_NewTopic_set_config(topics[i], pair, value + 1);
        }
    }
    rd_kafka_CreateTopics(rk, topics, (size_t)n, NULL, queue);
    check_result(queue);
    for (int i = 0; i < n; i++)
        wait_ready(rk, specs[i], counts[i]);
    rd_kafka_NewTopic_destroy_array(topics, (size_t)n);
    free(topics);
    free(counts);
}

static void delete(rd_kafka_t *rk, rd_kafka_queue_t *queue, int n, char **names)
{
    rd_kafka_DeleteTopic_t **topics = calloc((size_t)n, sizeof *topics);
    for (int i = 0; i < n; i++)
        topics[i] = rd_kafka_DeleteTopic_new(names[i]);
    rd_kafka_DeleteTopics(rk, topics, (size_t)n, NULL, queue);
    check_result(queue);
    rd_kafka_DeleteTopic_destroy_array(topics, (size_t)n);
    free(topics);
}

static void grow(rd_kafka_t *rk, rd_kafka_queue_t *queue, int n, char **specs)
{
    char text[TEXT];
    for (int i = 0; i < n; i++) {
        int count = split(specs[i], NULL);
        rd_kafka_NewPartitions_t *more = rd_kafka_NewPartitions_new(specs[i], (size_t)count, text, sizeof text);
        if (!more)
            die("%s: %s", specs[i], text);
        rd_kafka_CreatePartitions(rk, &more, 1, NULL, queue);
        check_result(queue);
        wait_ready(rk, specs[i], count);
        rd_kafka_NewPartitions_destroy(more);
    }
}

/* Denies everybody to read a topic (all else is allowed: a resource with a rule has no default), or takes that back. */
static void forbid(rd_kafka_t *rk, rd_kafka_queue_t *queue, int deny, char *topic)
{
    char text[TEXT];
    rd_kafka_AclBinding_t *rules[] = {
        (deny ? rd_kafka_AclBinding_new : rd_kafka_AclBindingFilter_new)(
            RD_KAFKA_RESOURCE_TOPIC, topic, RD_KAFKA_RESOURCE_PATTERN_LITERAL, "User:*", "*", RD_KAFKA_ACL_OPERATION_READ,
            RD_KAFKA_ACL_PERMISSION_TYPE_DENY, text, sizeof text),
        rd_kafka_AclBinding_new(RD_KAFKA_RESOURCE_TOPIC, topic, RD_KAFKA_RESOURCE_PATTERN_LITERAL, "User:*", "*",
                                RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW, text, sizeof text),
    };
    if (!rules[0] || !rules[1])
        die("%s: %s", topic, text);
    if (deny)
        rd_kafka_CreateAcls(rk, rules, 2, NULL, queue);
    else
        rd_kafka_DeleteAcls(rk, rules, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, DEADLINE_MS);
    if (!event || rd_kafka_event_error(event))
        die("%s: %s", topic, event ? rd_kafka_event_error_string(event) : "no answer");
    size_t n = 0, matching = 1;
    const rd_kafka_error_t *error = NULL;
    if (deny) {
        error = rd_kafka_acl_result_error(rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event), &n)[0]);
    } else {
        const rd_kafka_DeleteAcls_result_response_t *response =
            rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(event), &n)[0];
        error = rd_kafka_DeleteAcls_result_response_error(response);
        rd_kafka_DeleteAcls_result_response_matching_acls(response, &matching);
    }
    if (error || matching == 0)
        die("%s: %s", topic, error ? rd_kafka_error_string(error) : "nobody was denied it");
    rd_kafka_event_destroy(event);
    rd_kafka_AclBinding_destroy_array(rules, 2);
}

static void admin(const char *brokers, const char *command, int n, char **args)
{
    rd_kafka_t *rk = handle(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    if (!strcmp(command, "create"))
        create(rk, queue, n, args);
    else if (!strcmp(command, "delete"))
        delete(rk, queue, n, args);
    else if (!strcmp(command, "grow"))
        grow(rk, queue, n, args);
    else if (!strcmp(command, "deny") || !strcmp(command, "allow"))
        for (int i = 0; i < n; i++)
            forbid(rk, queue, !strcmp(command, "deny"), args[i]);
    else
        for (int i = 0; i < n; i++) {
            int count = split(args[i], NULL);
            wait_ready(rk, args[i], count);
        }
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

/* The offsets of a copy of `list` at RD_KAFKA_OFFSET_END or _BEGINNING. */
static rd_kafka_topic_partition_list_t *offsets_at(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list, int64_t at)
{
    rd_kafka_topic_partition_list_t *copy = rd_kafka_topic_partition_list_copy(list);
    for (int i = 0; i < copy->cnt; i++)
        copy->elems[i].offset = at;
    rd_kafka_resp_err_t err = rd_kafka_offsets_for_times(rk, copy, DEADLINE_MS);
    if (err)
        die("offsets: %s", rd_kafka_err2str(err));
    return copy;
}

/* The group's commits; a broker that has just started needs a moment to know its coordinator. */
static void committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, const char *group)
{
    double deadline = now() + DEADLINE_MS / 1e3;
    rd_kafka_resp_err_t err;
    while ((err = rd_kafka_committed(rk, list, DEADLINE_MS))) {
        if (now() > deadline)
            die("%s: %s", group, rd_kafka_err2str(err));
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    }
}

static void left(const char *brokers, const char *group, int n, char **names)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", group);
    set(conf, "isolation.level", "read_committed");
    rd_kafka_t *rk = handle(RD_KAFKA_CONSUMER, conf, brokers);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    for (int i = 0; i < n; i++) {
        const struct rd_kafka_metadata *meta = NULL;
        rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, names[i], NULL);
        rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, topic, &meta, DEADLINE_MS);
        if (err || meta->topics[0].err)
            die("%s: %s", names[i], rd_kafka_err2str(err ? err : meta->topics[0].err));
        for (int p = 0; p < meta->topics[0].partition_cnt; p++)
            rd_kafka_topic_partition_list_add(list, names[i], p);
        rd_kafka_metadata_destroy(meta);
        rd_kafka_topic_destroy(topic);
    }
    committed(rk, list, group);
    rd_kafka_topic_partition_list_t *low = offsets_at(rk, list, RD_KAFKA_OFFSET_BEGINNING);
    rd_kafka_topic_partition_list_t *end = offsets_at(rk, list, RD_KAFKA_OFFSET_END);
    for (int i = 0; i < list->cnt; i++)
        printf("%s %d %lld %lld %lld\n", list->elems[i].topic, (int)list->elems[i].partition,
               list->elems[i].offset < 0 ? -1LL : (long long)list->elems[i].offset, (long long)low->elems[i].offset,
               (long long)end->elems[i].offset);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_topic_partition_list_destroy(low);
    rd_kafka_topic_partition_list_destroy(end);
    rd_kafka_destroy(rk);
}

/* Delivery reports count the failures in the handle's opaque. */
static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    (void)rk;
    long *failed = opaque;
    if (message->err)
        ++*failed;
}

/* An empty key is none. */
static void put(rd_kafka_t *rk, const char *topic, int partition, const char *key, const void *value, size_t size)
{
    for (;;) {
        rd_kafka_resp_err_t err = rd_kafka_producev(
            rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE((void *)(size_t)value, size),
            RD_KAFKA_V_KEY((*key ? key : NULL), strlen(key)), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (!err)
            break;
        if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            die("produce: %s", rd_kafka_err2str(err));
        rd_kafka_poll(rk, 10);
    }
}

static void load(const char *brokers, const char *topic, int partitions, long count, size_t size)
{
    long failed = 0;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "linger.ms", "20");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_opaque(conf, &failed);
    rd_kafka_t *rk = handle(RD_KAFKA_PRODUCER, conf, brokers);
    enum { HEAD = 64 };
    char *value = malloc(size + HEAD);
    for (long i = 0; i < count; i++) {
        memset(value, 'x', size + HEAD);
        int n = snprintf(value, HEAD, "{\"id\":%ld,\"amount\":12.5,\"currency\":\"EUR\",\"note\":\"", i);
        value[n] = 'x';
        if (size >= (size_t)n + 2)
            memcpy(value + size - 2, "\"}", 2);
        put(rk, topic, (int)(i % partitions), "", value, size);
        if (i % 1000 == 0)
            rd_kafka_poll(rk, 0);
    }
    rd_kafka_resp_err_t err = rd_kafka_flush(rk, 2 * DEADLINE_MS);
    if (err || failed)
        die("%ld of %ld records not delivered: %s", failed, count, rd_kafka_err2str(err));
    free(value);
    rd_kafka_destroy(rk);
}

static void check(const char *what, rd_kafka_error_t *error)
{
    if (error)
        die("%s: %s", what, rd_kafka_error_string(error));
}

static void transact(const char *brokers, const char *topic, int partition)
{
    char line[4096], id[64], key[64] = "";
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    snprintf(id, sizeof id, "tool-%ld-%.0f", (long)time(NULL), now() * 1e6);
    set(conf, "transactional.id", id);
    rd_kafka_t *rk = handle(RD_KAFKA_PRODUCER, conf, brokers);
    check("init", rd_kafka_init_transactions(rk, DEADLINE_MS));
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strcmp(line, "begin"))
            check(line, rd_kafka_begin_transaction(rk));
        else if (!strncmp(line, "key ", 4))
            snprintf(key, sizeof key, "%s", line + 4);
        else if (!strncmp(line, "put ", 4))
            put(rk, topic, partition, key, line + 4, strlen(line + 4));
        else if (!strcmp(line, "flush"))
            rd_kafka_flush(rk, DEADLINE_MS);
        else if (!strcmp(line, "commit"))
            check(line, rd_kafka_commit_transaction(rk, DEADLINE_MS));
        else if (!strcmp(line, "abort"))
            check(line, rd_kafka_abort_transaction(rk, DEADLINE_MS));
        else
            die("unknown line: %s", line);
        puts("ok");
        fflush(stdout);
    }
    rd_kafka_destroy(rk);
}

int main(int argc, char **argv)
{
    static const char *const ADMIN = " create delete grow ready deny allow ";
    const char *command = argc > 3 ? argv[2] : "";
    char word[TEXT];
    snprintf(word, sizeof word, " %s ", command);
    if (*command && strstr(ADMIN, word))
        admin(argv[1], command, argc - 3, argv + 3);
    else if (!strcmp(command, "left") && argc > 4)
        left(argv[1], argv[3], argc - 4, argv + 4);
    else if (!strcmp(command, "load") && argc == 7)
        load(argv[1], argv[3], atoi(argv[4]), atol(argv[5]), (size_t)atol(argv[6]));
    else if (!strcmp(command, "transact") && argc == 5)
        transact(argv[1], argv[3], atoi(argv[4]));
    else
        die("usage: tool BROKERS create|delete|grow|ready|deny|allow|left|load|transact ... (see its source)");
    return 0;
}
