#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "redact.h"

struct fixture {
    struct log *log;
    int read_fd;
    int write_fd;
    char text[65536];
};

static void setup(struct fixture *f)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    f->read_fd = fds[0];
    f->write_fd = fds[1];
    f->log = log_new();
    assert_non_null(f->log);
    log_set_fd(f->log, f->write_fd);
}

/* What was written since, and the end of the log. */
static const char *finish(struct fixture *f)
{
    log_free(f->log);
    close(f->write_fd);
    size_t used = 0;
    ssize_t n;
    while ((n = read(f->read_fd, f->text + used, sizeof(f->text) - 1 - used)) > 0)
        used += (size_t)n;
    close(f->read_fd);
    f->text[used] = '\0';
    return f->text;
}

static void test_lines(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct log_field fields[] = {
        {.name = "s", .type = LOG_STRING, .string = "a b", .length = 3},
        {.name = "i", .type = LOG_INTEGER, .integer = INT64_MIN},
        {.name = "r", .type = LOG_REAL, .real = 0.5},
        {.name = "b", .type = LOG_BOOLEAN, .integer = 1},
        {.name = "j", .type = LOG_JSON, .string = "[1,{\"x\":\"\\n\"}]", .length = 14},
        {.name = "message", .type = LOG_STRING, .string = "", .length = 0},
    };
    log_write(f.log, LOG_LEVEL_DEBUG, NULL, "hidden");
    log_write(f.log, LOG_LEVEL_WARN, "kafka", "%d brokers\n", 3);
    log_write_fields(f.log, LOG_LEVEL_INFO, NULL, "m", 1, fields, 6);
    log_set_format(f.log, LOG_FORMAT_TEXT);
    log_write(f.log, LOG_LEVEL_WARN, "kafka", "say \"hi\"");
    log_write_fields(f.log, LOG_LEVEL_INFO, NULL, "m", 1, fields, 6);
    assert_string_equal(
        finish(&f),
        "{\"level\":\"warn\",\"message\":\"3 brokers\\n\",\"component\":\"kafka\"}\n"
        "{\"level\":\"info\",\"message\":\"m\",\"s\":\"a b\",\"i\":-9223372036854775808,\"r\":0.5,"
        "\"b\":true,\"j\":[1,{\"x\":\"\\n\"}],\"message_\":\"\"}\n"
        "WARN  kafka: say \"hi\"\n"
        "INFO  m s=\"a b\" i=-9223372036854775808 r=0.5 b=true j=[1,{\"x\":\"\\n\"}]"
        " message=\"\"\n");
}

static void test_auto_format(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    struct log *log = log_new();
    log_set_fd(log, terminal);
    log_write(log, LOG_LEVEL_INFO, NULL, "to a person");
    char text[64];
    size_t used = 0;
    while (used == 0 || text[used - 1] != '\n') { /* a terminal may hand a line over in pieces */
        ssize_t n = read(master, text + used, sizeof(text) - 1 - used);
        assert_true(n > 0);
        used += (size_t)n;
    }
    text[used] = '\0';
    assert_string_equal(text, "INFO  to a person\r\n");
    log_free(log);
    close(terminal);
    close(master);
}

static void test_redaction(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_false(log_secret(f.log, "abc", 3));
    assert_true(log_secret(f.log, "abcd", 4));
    assert_true(log_secret(f.log, "abcdefgh", 8));
    assert_true(log_secret(f.log, "abcd", 4));
    log_write(f.log, LOG_LEVEL_INFO, NULL, "abcd abcdefgh xabcdefghabcdx abc");
    log_write(f.log, LOG_LEVEL_INFO, "abcd", "%s", "");
    assert_string_equal(finish(&f), "{\"level\":\"info\",\"message\":\"*** *** x******x abc\"}\n"
                                    "{\"level\":\"info\",\"message\":\"\",\"component\":\"***\"}\n");
}

/* Secrets of every length in base64 at every alignment: what depends on them alone is found. */
static void test_base64_alignments(void **state)
{
    (void)state;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *secret = "s3cr3t-P@ssw0rd~";
    for (size_t length = 4; length <= strlen(secret); length++) {
        struct redact *redact = redact_new();
        assert_true(redact_add(redact, secret, length));
        for (size_t before = 0; before < 6; before++) {
            unsigned char bytes[40];
            size_t n = 0;
            memset(bytes, 'u', sizeof(bytes));
            memcpy(bytes + before, secret, length);
            char text[64];
            for (size_t i = 0; i < before + length + 3; i += 3) {
                unsigned v = (unsigned)(bytes[i] << 16 | bytes[i + 1] << 8 | bytes[i + 2]);
                for (int shift = 18; shift >= 0; shift -= 6)
                    text[n++] = digits[v >> shift & 63];
            }
            size_t found = 0;
            for (size_t i = 0; i < n && found == 0; i++)
                found = redact_match(redact, text + i, text + n);
            assert_true(found >= (length * 8 - 10) / 6);
        }
        redact_free(redact);
    }
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 100; i++)
        log_write(arg, LOG_LEVEL_INFO, NULL, "line %d of a thread", i);
    return NULL;
}

static size_t waiting(struct fixture *f)
{
    fcntl(f->read_fd, F_SETFL, O_NONBLOCK);
    ssize_t n = read(f->read_fd, f->text, sizeof(f->text));
    return n > 0 ? (size_t)n : 0;
}

static void test_hold(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    log_hold(f.log);
    log_write(f.log, LOG_LEVEL_INFO, NULL, "first");
    assert_int_equal(waiting(&f), 0);
    log_write(f.log, LOG_LEVEL_WARN, NULL, "does not wait");
    assert_int_equal(waiting(&f), strlen("{'level':'info','message':'first'}\n"
                                         "{'level':'warn','message':'does not wait'}\n"));
    log_write(f.log, LOG_LEVEL_INFO, NULL, "last");
    assert_int_equal(waiting(&f), 0);
    log_release(f.log);
    assert_int_equal(waiting(&f), strlen("{'level':'info','message':'last'}\n"));
    log_release(f.log);
    log_hold(f.log);
    size_t written = 0, lines = 0;
    for (; written == 0; lines++) {
        log_write(f.log, LOG_LEVEL_INFO, NULL, "a line of some length, until enough of them wait");
        written = waiting(&f);
    }
    assert_true(written >= 32768 && written < 40000 && lines > 100);
    log_write(f.log, LOG_LEVEL_INFO, NULL, "the end");
    assert_string_equal(finish(&f), "{\"level\":\"info\",\"message\":\"the end\"}\n");
}

static void place(struct log *log, const char *message, const char *topic, int32_t partition,
                  int64_t offset)
{
    struct log_place at = {topic, partition, offset};
    log_write_place(log, LOG_LEVEL_INFO, message, strlen(message), &at);
}

/* Each line is its own, however much it has in common with the one before. */
static void test_places(void **state)
{
    (void)state;
    struct fixture f;
    struct log_place at = {"t", 1, 6};
    char name[300];
    setup(&f);
    log_hold(f.log);
    place(f.log, "m", "t", 1, 5);
    place(f.log, "m", "t", 1, 6);
    place(f.log, "m", "t", 2, 6);
    place(f.log, "m", "tt", 2, 6);
    place(f.log, "n", "tt", 2, 6);
    place(f.log, "n\n", "tt", 2, INT64_MAX);
    place(f.log, "m", "t", 1, 7);
    log_write_place(f.log, LOG_LEVEL_WARN, "m", 1, &at);
    log_set_format(f.log, LOG_FORMAT_TEXT);
    log_write_place(f.log, LOG_LEVEL_WARN, "m", 1, &at);
    place(f.log, "m", "orders", 1, 12345);
    place(f.log, "m", "orders", 1, 12346);
    assert_true(log_secret(f.log, "orders", 6) && log_secret(f.log, "12346", 5));
    place(f.log, "m", "orders", 1, 12346);
    place(f.log, "m", "orders", 1, 12347);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    place(f.log, name, name, 1, 1);
    name[sizeof(name) - 2] = 'y';
    place(f.log, name, name, 1, 2);
    const char *text = finish(&f);
    static const char start[] =
        "{\"level\":\"info\",\"message\":\"m\",\"topic\":\"t\",\"partition\":1,\"offset\":5}\n"
        "{\"level\":\"info\",\"message\":\"m\",\"topic\":\"t\",\"partition\":1,\"offset\":6}\n"
        "{\"level\":\"info\",\"message\":\"m\",\"topic\":\"t\",\"partition\":2,\"offset\":6}\n"
        "{\"level\":\"info\",\"message\":\"m\",\"topic\":\"tt\",\"partition\":2,\"offset\":6}\n"
        "{\"level\":\"info\",\"message\":\"n\",\"topic\":\"tt\",\"partition\":2,\"offset\":6}\n"
        "{\"level\":\"info\",\"message\":\"n\\n\",\"topic\":\"tt\",\"partition\":2,"
        "\"offset\":9223372036854775807}\n"
        "{\"level\":\"info\",\"message\":\"m\",\"topic\":\"t\",\"partition\":1,\"offset\":7}\n"
        "{\"level\":\"warn\",\"message\":\"m\",\"topic\":\"t\",\"partition\":1,\"offset\":6}\n"
        "WARN  m topic=t partition=1 offset=6\n"
        "INFO  m topic=orders partition=1 offset=12345\n"
        "INFO  m topic=orders partition=1 offset=12346\n"
        "INFO  m topic=*** partition=1 offset=\"***\"\n"
        "INFO  m topic=*** partition=1 offset=12347\n"
        "INFO  xxx";
    assert_memory_equal(text, start, sizeof(start) - 1);
    assert_non_null(strstr(text, "x partition=1 offset=1\n"));
    assert_non_null(strstr(text, "xy partition=1 offset=2\n"));
}

/* Reads what is there; returns how many lines that were written it stands for, and checks their order. */
static long account(struct fixture *f, long next, bool *torn)
{
    size_t used = 0;
    ssize_t n;
    while (used < sizeof(f->text) - 1 && (n = read(f->read_fd, f->text + used, sizeof(f->text) - 1 - used)) > 0)
        used += (size_t)n;
    f->text[used] = '\0';
    assert_true(used > 0);
    assert_int_equal(f->text[0] == '\n', *torn); /* nothing is appended to a piece of a line */
    *torn = f->text[used - 1] != '\n';
    for (char *save = NULL, *line = strtok_r(f->text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        long value;
        int end = 0;
        if (sscanf(line, "{\"level\":\"error\",\"message\":\"log: lines were lost\",\"lines\":%ld}%n", &value, &end) == 1 &&
            end > 0) {
            assert_true(value > 0);
            next += value;
        } else if (sscanf(line, "{\"level\":\"info\",\"message\":\"line %ld of many\"}%n", &value, &end) == 1 && end > 0) {
            assert_int_equal(value, next);
            next++;
        } else { /* torn: the next one says that it is lost */
            assert_memory_equal(line, "{\"level\":\"info\",\"", strlen(line) < 17 ? strlen(line) : 17);
        }
    }
    return next;
}

/* Nobody reads for a while: every line is written whole, or counted in a line that stands in its place. */
static void test_no_room(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    fcntl(f.write_fd, F_SETFL, O_NONBLOCK);
    fcntl(f.read_fd, F_SETFL, O_NONBLOCK);
    fcntl(f.write_fd, F_SETPIPE_SZ, 16384);
    long count = 0, seen = 0;
    bool torn = false, ever = false;
    for (int round = 0; round < 4; round++) {
        if (round % 2 == 1)
            log_hold(f.log);
        for (int i = 0; i < 1500; i++)
            log_write(f.log, LOG_LEVEL_INFO, NULL, "line %ld of many", count++);
        log_release(f.log);
        seen = account(&f, seen, &torn);
        ever |= torn;
    }
    assert_true(ever);
    log_write(f.log, LOG_LEVEL_INFO, NULL, "line %ld of many", count++);
    assert_int_equal(account(&f, seen, &torn), count);
    finish(&f);
}

/* Nobody will ever read again: that is no reason to stop. */
static void test_closed_pipe(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    signal(SIGPIPE, SIG_IGN);
    close(f.read_fd);
    for (int i = 0; i < 1000; i++)
        log_write(f.log, LOG_LEVEL_INFO, NULL, "line %d", i);
    int fds[2]; /* as when the descriptor is opened anew */
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(dup2(fds[1], f.write_fd), f.write_fd);
    close(fds[1]);
    f.read_fd = fds[0];
    log_write(f.log, LOG_LEVEL_INFO, NULL, "here again");
    assert_string_equal(finish(&f), "{\"level\":\"error\",\"message\":\"log: lines were lost\",\"lines\":1000}\n"
                                    "{\"level\":\"info\",\"message\":\"here again\"}\n");
}

static void test_threads(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, f.log), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    finish(&f);
    int lines = 0;
    for (char *save = NULL, *line = strtok_r(f.text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        int n, end = 0;
        assert_int_equal(
            sscanf(line, "{\"level\":\"info\",\"message\":\"line %d of a thread\"}%n", &n, &end), 1);
        assert_int_equal(line[end], '\0');
        lines++;
    }
    assert_int_equal(lines, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),     cmocka_unit_test(test_auto_format),
        cmocka_unit_test(test_redaction), cmocka_unit_test(test_base64_alignments),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_hold),
        cmocka_unit_test(test_places),    cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_closed_pipe),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
