#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

struct stream {
    uv_pipe_t pipe;
    struct process *process;
    bool is_pipe; /* the pipe was opened */
    bool ended;   /* no more to read, or closed for writing */
    char *buffer;
    size_t used;
    struct process_watch *watch;
};

struct process {
    uv_process_t handle;
    struct stream streams[3];
    struct process_watch *exit_watches;
    unsigned handles; /* open on the loop: they must be closed before the memory goes */
    bool ended;
    bool closed; /* by the owner */
    bool group;
    int code;
    int signal;
};

struct write {
    uv_write_t request;
    struct process_watch *watch; /* NULL: nobody waits any more */
    char data[];
};

/* ---- watches */

static void watch_add(struct process_watch **list, struct process_watch *watch)
{
    watch->status = 0;
    watch->next = *list;
    watch->where = list;
    if (watch->next != NULL)
        watch->next->where = &watch->next;
    *list = watch;
}

void process_unwatch(struct process_watch *watch)
{
    if (watch->where == NULL)
        return;
    *watch->where = watch->next;
    if (watch->next != NULL)
        watch->next->where = watch->where;
    watch->where = NULL;
    watch->next = NULL;
}

static void watch_end(struct process_watch *watch, int status, bool notify)
{
    process_unwatch(watch);
    watch->status = status;
    if (notify)
        watch->done(watch);
}

static void watches_end(struct process_watch **list, int status, bool notify)
{
    while (*list != NULL)
        watch_end(*list, status, notify);
}

/* ---- lifetime */

static void free_when_done(struct process *process)
{
    if (process->handles > 0 || !process->closed)
        return;
    for (int i = 0; i < 3; i++)
        free(process->streams[i].buffer);
    free(process);
}

static void handle_closed(uv_handle_t *handle)
{
    struct process *process = handle->data;
    process->handles--;
    free_when_done(process);
}

static void close_pipe(struct stream *stream)
{
    stream->ended = true;
    if (stream->is_pipe && !uv_is_closing((uv_handle_t *)&stream->pipe))
        uv_close((uv_handle_t *)&stream->pipe, handle_closed);
}

static int send_signal(struct process *process, int signal)
{
    if (!process->group)
        return uv_process_kill(&process->handle, signal);
    return kill(-process->handle.pid, signal) == 0 ? 0 : uv_translate_sys_error(errno);
}

static void exited(uv_process_t *handle, int64_t code, int signal)
{
    struct process *process = handle->data;
    if (process->group) /* its number stays taken while the group has members, and was free only just now if not */
        send_signal(process, SIGKILL);
    process->ended = true;
    process->signal = signal;
    process->code = signal != 0 ? 128 + signal : (int)code;
    uv_close((uv_handle_t *)handle, handle_closed);
    watches_end(&process->exit_watches, 0, true);
}

void process_close(struct process *process, bool notify)
{
    if (process == NULL || process->closed)
        return;
    process->closed = true;
    for (int i = 0; i < 3; i++) {
        watches_end(&process->streams[i].watch, UV_ECANCELED, notify);
        close_pipe(&process->streams[i]);
    }
    watches_end(&process->exit_watches, UV_ECANCELED, notify);
    if (!process->ended)
        send_signal(process, SIGKILL); /* exited() closes the handle then */
    free_when_done(process);
}

/* ---- starting */

/* Where the kernel (or a container's filter) does not know close_range. */
static void mark_one_by_one(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (fd >= 3)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    closedir(dir);
}

/*
 * libuv has no hook between fork and exec, and libraries leave descriptors without the flag
 * (librdkafka its wake-up pipes): all of ours get it now. What the child is to have is put in place
 * by dup2, which clears the flag on the copy.
 */
static void mark_close_on_exec(void)
{
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        mark_one_by_one();
}

/* Writing to a child that has gone must be an error, not our end. libuv resets it in children. */
static void ignore_sigpipe(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        action.sa_handler = SIG_IGN;
        sigaction(SIGPIPE, &action, NULL);
    }
}

/* Opens one of the child's streams; *child_end is what is to be closed here after the start. */
static int open_stream(struct process *process, uv_loop_t *loop, int index, enum process_stdio how,
                       uv_stdio_container_t *container, int *child_end)
{
    struct stream *stream = &process->streams[index];
    container->flags = how == PROCESS_NULL ? UV_IGNORE : UV_INHERIT_FD;
    container->data.fd = index;
    if (how != PROCESS_PIPE)
        return 0;
    /* A true pipe, not libuv's pair of sockets: a child could not open /dev/stdout on these. */
    bool input = index == PROCESS_STDIN;
    uv_file ends[2];
    int rc = uv_pipe(ends, input ? 0 : UV_NONBLOCK_PIPE, input ? UV_NONBLOCK_PIPE : 0);
    if (rc != 0)
        return rc;
    int ours = ends[input ? 1 : 0];
    *child_end = container->data.fd = ends[input ? 0 : 1];
    uv_pipe_init(loop, &stream->pipe, 0);
    stream->pipe.data = process;
    stream->is_pipe = true;
    process->handles++;
    rc = uv_pipe_open(&stream->pipe, ours);
    if (rc != 0) {
        close(ours);
        return rc;
    }
    if (input) {
        ignore_sigpipe();
        return 0;
    }
    stream->buffer = malloc(PROCESS_BUFFER);
    return stream->buffer != NULL ? 0 : UV_ENOMEM;
}

static void read_on(struct stream *stream);

static int spawn_error(const struct process_options *options, int rc, struct err *err)
{
    struct stat st;
    if (options->cwd != NULL && (stat(options->cwd, &st) != 0 || !S_ISDIR(st.st_mode)))
        return err_set(err, uv_err_name(rc), "cannot start '%s': no directory '%s'",
                       options->args[0], options->cwd);
    return err_set(err, uv_err_name(rc), "cannot start '%s': %s", options->args[0],
                   uv_strerror(rc));
}

struct process *process_spawn(uv_loop_t *loop, const struct process_options *options,
                              struct err *err)
{
    struct process *process = calloc(1, sizeof(*process));
    if (process == NULL) {
        err_set(err, "ENOMEM", "cannot start '%s': out of memory", options->args[0]);
        return NULL;
    }
    int child_ends[3] = {-1, -1, -1};
    uv_stdio_container_t stdio[3];
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        process->streams[i].process = process;
        rc = open_stream(process, loop, i, options->stdio[i], &stdio[i], &child_ends[i]);
    }
    if (rc == 0) {
        uv_process_options_t uv = {
            .exit_cb = exited,
            .file = options->args[0],
            .args = options->args,
            .env = options->env,
            .cwd = options->cwd,
            .stdio_count = 3,
            .stdio = stdio,
            .flags = options->group ? UV_PROCESS_DETACHED : 0,
        };
        process->group = options->group;
        mark_close_on_exec();
        process->handles++;
        process->handle.data = process;
        rc = uv_spawn(loop, &process->handle, &uv);
        if (rc != 0) {
            process->ended = true;
            uv_close((uv_handle_t *)&process->handle, handle_closed);
        }
    }
    for (int i = 0; i < 3; i++) {
        if (child_ends[i] >= 0)
            close(child_ends[i]);
    }
    if (rc != 0) {
        spawn_error(options, rc, err);
        process->ended = true;
        process_close(process, false);
        return NULL;
    }
    for (int i = PROCESS_STDOUT; i <= PROCESS_STDERR; i++) {
        if (process->streams[i].is_pipe)
            read_on(&process->streams[i]);
    }
    return process;
}

/* ---- state */

int process_pid(const struct process *process)
{
    return process->handle.pid;
}

bool process_ended(const struct process *process, int *code, int *signal)
{
    *code = process->code;
    *signal = process->signal;
    return process->ended;
}

int process_kill(struct process *process, int signal, struct err *err)
{
    /* Once it is reaped its number may belong to somebody else. */
    int rc = process->ended ? UV_ESRCH : send_signal(process, signal);
    return rc == 0 ? 0 : err_set(err, uv_err_name(rc), "cannot signal the process: %s",
                                 process->ended ? "it has ended" : uv_strerror(rc));
}

void process_watch_exit(struct process *process, struct process_watch *watch)
{
    watch_add(&process->exit_watches, watch);
    if (process->ended)
        watch_end(watch, 0, true);
}

/* ---- reading */

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct stream *stream = container_of(handle, struct stream, pipe);
    *buffer = uv_buf_init(stream->buffer + stream->used,
                          (unsigned)(PROCESS_BUFFER - stream->used));
}

static void has_read(uv_stream_t *pipe, ssize_t n, const uv_buf_t *buffer)
{
    (void)buffer;
    struct stream *stream = container_of(pipe, struct stream, pipe);
    if (n == 0)
        return;
    if (n < 0)
        close_pipe(stream);
    else
        stream->used += (size_t)n;
    if (stream->used == PROCESS_BUFFER)
        uv_read_stop(pipe);
    watches_end(&stream->watch, 0, true);
}

static void read_on(struct stream *stream)
{
    if (!stream->ended && uv_read_start((uv_stream_t *)&stream->pipe, give_room, has_read) != 0)
        close_pipe(stream);
}

bool process_is_pipe(const struct process *process, enum process_stream stream)
{
    return process->streams[stream].is_pipe;
}

size_t process_peek(const struct process *process, enum process_stream stream, const char **data)
{
    *data = process->streams[stream].buffer;
    return process->streams[stream].used;
}

void process_take(struct process *process, enum process_stream index)
{
    struct stream *stream = &process->streams[index];
    bool stopped = stream->used == PROCESS_BUFFER;
    stream->used = 0;
    if (stopped)
        read_on(stream);
}

bool process_at_end(const struct process *process, enum process_stream stream)
{
    return process->streams[stream].ended && process->streams[stream].used == 0;
}

bool process_is_watched(const struct process *process, enum process_stream stream)
{
    return process->streams[stream].watch != NULL;
}

void process_watch_stream(struct process *process, enum process_stream index,
                          struct process_watch *watch)
{
    struct stream *stream = &process->streams[index];
    watch_add(&stream->watch, watch);
    if (stream->used > 0 || stream->ended)
        watch_end(watch, 0, true);
}

/* ---- writing */

static void has_written(uv_write_t *request, int status)
{
    struct write *write = container_of(request, struct write, request);
    watches_end(&write->watch, status, true);
    free(write);
}

int process_write(struct process *process, const char *data, size_t length,
                  struct process_watch *watch, struct err *err)
{
    struct stream *stream = &process->streams[PROCESS_STDIN];
    if (stream->ended)
        return err_set(err, "EPIPE", "the process's stdin is closed");
    struct write *write = malloc(sizeof(*write) + length);
    if (write == NULL)
        return err_set(err, "ENOMEM", "out of memory");
    memcpy(write->data, data, length);
    write->watch = NULL;
    uv_buf_t buffer = uv_buf_init(write->data, (unsigned)length);
    int rc = uv_write(&write->request, (uv_stream_t *)&stream->pipe, &buffer, 1, has_written);
    if (rc != 0) {
        free(write);
        return err_set(err, uv_err_name(rc), "cannot write to the process: %s", uv_strerror(rc));
    }
    watch_add(&write->watch, watch);
    return 0;
}

static void has_shut(uv_shutdown_t *request, int status)
{
    (void)status;
    struct process *process = request->handle->data;
    close_pipe(&process->streams[PROCESS_STDIN]);
    free(request);
}

void process_close_stdin(struct process *process)
{
    struct stream *stream = &process->streams[PROCESS_STDIN];
    if (stream->ended)
        return;
    stream->ended = true;
    uv_shutdown_t *request = malloc(sizeof(*request));
    if (request == NULL || uv_shutdown(request, (uv_stream_t *)&stream->pipe, has_shut) != 0) {
        free(request);
        close_pipe(stream);
    }
}

/* ---- signals by name */

int process_signal_number(const char *name)
{
    if (strncmp(name, "SIG", 3) == 0)
        name += 3;
    for (int i = 1; i < NSIG; i++) {
        const char *other = sigabbrev_np(i);
        if (other != NULL && strcmp(other, name) == 0)
            return i;
    }
    return 0;
}

const char *process_signal_name(int signal)
{
    return sigabbrev_np(signal);
}
