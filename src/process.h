/*
 * Child processes on the loop: start, pipes, exit status. Nothing a child was not given reaches it
 * (no other descriptors), and a child does not outlive its handle. For the loop's thread only; it
 * knows no Lua.
 */
#ifndef ROUSE_PROCESS_H
#define ROUSE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "err.h"

#define PROCESS_BUFFER 65536 /* bytes of a stream that are read ahead; then the child has to wait */

enum process_stream { PROCESS_STDIN = 0, PROCESS_STDOUT, PROCESS_STDERR };
enum process_stdio { PROCESS_INHERIT = 0, PROCESS_NULL, PROCESS_PIPE };

struct process_options {
    char **args; /* ends with NULL; args[0] is looked up in PATH (the child's) */
    char **env;  /* "NAME=value", ends with NULL; NULL: this process's */
    const char *cwd; /* NULL: this process's */
    enum process_stdio stdio[3];
    bool group; /* a session of its own: signals reach all it starts, and its end is theirs */
};

struct process;

/*
 * Something awaited. The caller owns it, sets `done` and keeps it until that was called (once, from
 * the loop, with `status` 0 or a libuv error) or process_unwatch was.
 */
struct process_watch {
    void (*done)(struct process_watch *watch);
    int status;
    struct process_watch **where; /* what points to it while it waits, else NULL */
    struct process_watch *next;
};

/* Starts a child. NULL: err has what and the errno name. The options may go afterwards. */
struct process *process_spawn(uv_loop_t *loop, const struct process_options *options,
                              struct err *err);

/*
 * Ends the child with SIGKILL if it is alive, reaps it in the background and frees everything.
 * Pending watches end with UV_ECANCELED if `notify`, else without a call. NULL is allowed.
 */
void process_close(struct process *process, bool notify);

int process_pid(const struct process *process);

/* Whether the child has ended, and how: the exit code, or 128 + signal with the signal's number. */
bool process_ended(const struct process *process, int *code, int *signal);

/* -1 with "ESRCH" when the child has ended already. */
int process_kill(struct process *process, int signal, struct err *err);

/* done when the child ends (at once, before this returns, if it has). */
void process_watch_exit(struct process *process, struct process_watch *watch);

/* The watch will not be called. Harmless when it is not waiting. */
void process_unwatch(struct process_watch *watch);

bool process_is_pipe(const struct process *process, enum process_stream stream);

/* What has been read from the child and not taken yet; 0 bytes: see process_at_end. */
size_t process_peek(const struct process *process, enum process_stream stream, const char **data);

/* Discards all that peek showed, and reads on. */
void process_take(struct process *process, enum process_stream stream);

/* Whether nothing will come any more. */
bool process_at_end(const struct process *process, enum process_stream stream);

/* Whether somebody waits for the stream already. */
bool process_is_watched(const struct process *process, enum process_stream stream);

/* done when there is something to take, or the end (at once if so already). One per stream. */
void process_watch_stream(struct process *process, enum process_stream stream,
                          struct process_watch *watch);

/* Writes a copy of the data to the child's stdin; done when all of it is in the pipe. */
int process_write(struct process *process, const char *data, size_t length,
                  struct process_watch *watch, struct err *err);

/* The child reads the end of file after what was written before. */
void process_close_stdin(struct process *process);

/* "TERM" or "SIGTERM" -> its number, 0 if there is none; and back ("TERM", or NULL). */
int process_signal_number(const char *name);
const char *process_signal_name(int signal);

#endif
