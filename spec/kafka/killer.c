/*
 * Kills the process it is loaded into (LD_PRELOAD) at one exact point of its conversation with a broker, by SIGKILL:
 *
 *   KILL_API    the number of a request of Kafka's protocol, 26 is EndTxn
 *   KILL_WHEN   "before": the request is not sent; "sent": it is, nobody knows what became of it;
 *               "answered": its answer is there and nobody has read it
 *
 * No proxy and no clock: whoever is killed so has got exactly as far. It looks at plain connections only, where
 * librdkafka sends each request with a sendmsg of its own and reads the head of each answer by itself.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The request whose answer is waited for; both written and read by the one thread of its connection. */
static int awaited_fd = -1;
static uint32_t awaited_id;

static void die(void)
{
    kill(getpid(), SIGKILL);
    pause();
}

static int is_when(const char *when)
{
    const char *wanted = getenv("KILL_WHEN");
    return wanted != NULL && strcmp(wanted, when) == 0;
}

/* The first bytes of a message's buffers. Returns how many there were. */
static size_t head_of(const struct msghdr *message, void *into, size_t size)
{
    size_t done = 0;
    for (size_t i = 0; i < message->msg_iovlen && done < size; i++) {
        size_t count = message->msg_iov[i].iov_len;
        count = count < size - done ? count : size - done;
        memcpy((char *)into + done, message->msg_iov[i].iov_base, count);
        done += count;
    }
    return done;
}

/* Size, API, its version, the number that the answer repeats. */
struct request {
    uint32_t size;
    uint16_t api, version;
    uint32_t id;
};

static int is_wanted(const struct msghdr *message, uint32_t *id)
{
    const char *api = getenv("KILL_API");
    struct request request;
    size_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    if (api == NULL || head_of(message, &request, sizeof(request)) != sizeof(request) ||
        ntohl(request.size) != size - sizeof(request.size) || ntohs(request.api) != atoi(api))
        return 0;
    *id = request.id;
    return 1;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
    uint32_t id;
    int wanted = is_wanted(message, &id);
    if (wanted && is_when("before"))
        die();
    ssize_t sent = real(fd, message, flags);
    if (wanted && sent > 0 && is_when("sent"))
        die();
    if (wanted && sent > 0) {
        awaited_id = id;
        awaited_fd = fd;
    }
    return sent;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "recvmsg");
    ssize_t got = real(fd, message, flags);
    uint32_t answer[2]; /* size, id */
    if (got >= (ssize_t)sizeof(answer) && fd == awaited_fd && is_when("answered") &&
        head_of(message, answer, sizeof(answer)) == sizeof(answer) && answer[1] == awaited_id)
        die();
    return got;
}
