/*
 * plot.c - the gnuplot child: see plot.h
 *
 * Two socket pairs carry its standard input and its output and errors. Our
 * ends never block: one loop (talk) polls both with a deadline, and uses
 * send(MSG_NOSIGNAL), so that a dead child is EPIPE and never SIGPIPE, which
 * belongs to the program that may have loaded us as a library.
 *
 * A picture is one short request:
 *
 *     load '/proc/PID/fd/N'           the script, a file in memory of ours
 *     unset multiplot; unset output   back to a known state, picture closed
 *     print "\001QKV <seq> <errno> <message>\002"
 *
 * and everything up to that mark is what gnuplot had to say. `load` stops at
 * the first error, where a script on standard input would stumble on. The
 * child has a process group of its own: Ctrl-C at our terminal is for us.
 *
 * Two files in memory (memfd_create; else temporary files) carry the script
 * there and the picture back, so no path of the user's is quoted, gnuplot's
 * unchecked writes cannot fill a disk, and we alone decide when a file
 * appears.
 */
#include "config.h"

#include "repl/plot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/interrupt.h"

extern char **environ;

enum {
    TIMEOUT_MS = 60000,
    SLICE_MS = 50,              /* how often a wait looks for Ctrl-C */
    GRACE_MS = 1000,            /* from the end of its input to SIGKILL */
    TALK_MAX = 1 << 23,         /* bytes of chatter before we hang up */
    TAIL = 240                  /* bytes of it that an error quotes */
};

typedef struct child {
    pid_t pid;                  /* 0: none */
    int in, out;                /* our ends, -1 when closed */
} child;

struct qkv_plot {
    char *program;
    int timeout_ms;
    bool no_memfd;
    child gnuplot;
    unsigned long seq;          /* of the last request */
    char *terminals;            /* " canvas cgm ... xterm ", once started */
};

/* ---- time ---- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 2000000};
    nanosleep(&t, NULL);
}

/* ---- starting and ending a child ---- */

static const child NO_CHILD = {.pid = 0, .in = -1, .out = -1};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Both ends closed on exec. `ours` does not block; `theirs` is an ordinary
 * blocking stream, as a program expects. */
static bool socket_pair(int *ours, int *theirs, qkv_error *err)
{
    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) != 0)
        return qkv_fail_errno(err, "cannot make a socket pair");
    *ours = s[0];
    *theirs = s[1];
    fcntl(*ours, F_SETFL, O_NONBLOCK);
    return true;
}

/* The child gets standard input and output, its own process group, and the
 * default signals unblocked, whatever we have done with ours. */
static int spawn(pid_t *pid, char *const argv[], int in, int out)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t defaults, none;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    sigaddset(&defaults, SIGCHLD);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP
                             | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const int rc = posix_spawnp(pid, argv[0], &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static bool start(child *c, char *const argv[], qkv_error *err)
{
    int in = -1, out = -1;
    *c = NO_CHILD;
    int rc = -1;
    if (socket_pair(&c->in, &in, err) && socket_pair(&c->out, &out, err)) {
        rc = spawn(&c->pid, argv, in, out);
        if (rc == ENOENT || rc == EACCES)
            qkv_fail(err, QKV_ENOTFOUND, "there is no program '%s' to run: %s",
                     argv[0], strerror(rc));
        else if (rc != 0)
            qkv_fail(err, QKV_EIO, "cannot start %s: %s", argv[0],
                     strerror(rc));
    }
    close_fd(&in);
    close_fd(&out);
    if (rc == 0)
        return true;
    close_fd(&c->in);
    close_fd(&c->out);
    c->pid = 0;
    return false;
}

/* Close its input, wait up to grace_ms, then kill its whole group. Returns
 * the status of waitpid, or -1 when somebody else took it. */
static int finish(child *c, int grace_ms)
{
    int status = -1;
    close_fd(&c->in);
    const int64_t deadline = now_ms() + grace_ms;
    pid_t got = 0;
    while (c->pid > 0 && got == 0) {
        got = waitpid(c->pid, &status, WNOHANG);
        if (got != 0)
            break;
        if (now_ms() >= deadline) {
            kill(-c->pid, SIGKILL);
            kill(c->pid, SIGKILL);
            while ((got = waitpid(c->pid, &status, 0)) < 0 && errno == EINTR)
                continue;
            break;
        }
        nap();
    }
    close_fd(&c->out);
    *c = NO_CHILD;
    return got > 0 ? status : -1;
}

/* ---- talking ---- */

typedef enum outcome { SAID, DIED, HUNG, STOPPED, FULL } outcome;

/* Read what is there. false at the end of its output. */
static bool hear(const child *c, qkv_text *heard, qkv_error *err, bool *full)
{
    char buffer[4096];
    for (;;) {
        const ssize_t n = recv(c->out, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n == 0)
            return false;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (heard->bytes > TALK_MAX
            || !qkv_text_put(heard, buffer, (size_t)n, err)) {
            *full = true;
            return true;
        }
    }
}

/* Where the mark begins, once all of it, up to its \002, is here. */
static char *find_mark(const qkv_text *heard, const char *mark)
{
    if (mark == NULL || heard->data == NULL)
        return NULL;
    char *at = memmem(heard->data, heard->bytes, mark, strlen(mark));
    const char *end = heard->data + heard->bytes;
    return at != NULL && memchr(at, '\002', (size_t)(end - at)) != NULL
        ? at : NULL;
}

/* Send `words` and collect what comes back until the output holds `mark`
 * (NULL: until it ends). */
static outcome talk(const child *c, const char *words, const char *mark,
                    int timeout_ms, qkv_text *heard, qkv_error *err)
{
    const int64_t deadline = now_ms() + timeout_ms;
    size_t left = strlen(words);
    for (;;) {
        const int64_t rest = deadline - now_ms();
        if (qkv_interrupted())
            return STOPPED;
        if (rest <= 0)
            return HUNG;
        struct pollfd fds[2] = {{.fd = c->out, .events = POLLIN},
                                {.fd = left > 0 ? c->in : -1,
                                 .events = POLLOUT}};
        poll(fds, 2, rest < SLICE_MS ? (int)rest : SLICE_MS);
        if (fds[1].revents & (POLLOUT | POLLERR | POLLHUP)) {
            const ssize_t n = send(c->in, words, left, MSG_NOSIGNAL);
            if (n > 0) {
                words += n;
                left -= (size_t)n;
            } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
                left = 0;           /* it is dead; its last words follow */
            }
        }
        bool full = false;
        if (fds[0].revents != 0 && !hear(c, heard, err, &full))
            return DIED;
        if (full)
            return FULL;
        if (find_mark(heard, mark) != NULL)
            return SAID;
    }
}

/* "killed by signal 9 (Killed)", "exit status 1" */
static void status_words(char *out, size_t room, int status)
{
    if (status == -1)
        snprintf(out, room, "status unknown");
    else if (WIFSIGNALED(status))
        snprintf(out, room, "killed by signal %d, %s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, room, "exit status %d", WEXITSTATUS(status));
}

/* The last words on one line, for an error: control bytes and runs of blanks
 * become one blank, bytes that are not ASCII a '?'. */
static void tail_words(char *out, size_t room, const qkv_text *heard)
{
    const size_t from = heard->bytes > TAIL ? heard->bytes - TAIL : 0;
    size_t n = 0;
    for (size_t i = from; i < heard->bytes && n + 1 < room; i++) {
        const unsigned char c = (unsigned char)heard->data[i];
        if (c > ' ')
            out[n++] = c < 0x7f ? (char)c : '?';
        else if (n > 0 && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = '\0';
}

/* Say what went wrong, and end the child: whatever it does now is lost. */
static bool give_up(child *c, const char *program, outcome what,
                    int timeout_ms, const qkv_text *heard, qkv_error *err)
{
    char words[TAIL + 1], status[96];
    tail_words(words, sizeof words, heard);
    const int code = finish(c, what == DIED ? GRACE_MS : 0);
    status_words(status, sizeof status, code);
    const char *said = words[0] != '\0' ? "; it said: " : ", without a word";
    switch (what) {
    case DIED:
        return qkv_fail(err, QKV_EIO, "%s ended (%s)%s%s", program, status,
                        said, words);
    case HUNG:
        return qkv_fail(err, QKV_EIO, "%s gave no answer in %g s and was "
                        "stopped%s%s", program, timeout_ms / 1000.0, said,
                        words);
    case STOPPED:
        return qkv_fail(err, QKV_EINTERRUPTED, "interrupted");
    default:
        if (heard->bytes > TALK_MAX)
            qkv_fail(err, QKV_EIO, "%s talks without end%s%s", program, said,
                     words);
        return false;               /* else memory ran out; err says so */
    }
}

/* ---- files that the child can open ---- */

typedef struct scratch {
    int fd;                     /* -1: none */
    char path[256];
    bool on_disk;
} scratch;

static bool scratch_on_disk(scratch *s, qkv_error *err)
{
    const char *dir = getenv("TMPDIR");
    /* The path goes between single quotes on one line. */
    if (dir == NULL || strlen(dir) > sizeof s->path - 32
        || strpbrk(dir, "'\n") != NULL)
        dir = "/tmp";
    snprintf(s->path, sizeof s->path, "%s/qkv-plot.XXXXXX", dir);
    s->fd = mkostemp(s->path, O_CLOEXEC);
    s->on_disk = s->fd >= 0;
    return s->fd >= 0
        || qkv_fail_errno(err, "cannot make a temporary file in %s", dir);
}

static bool scratch_open(scratch *s, bool no_memfd, qkv_error *err)
{
    *s = (scratch){.fd = no_memfd ? -1 : memfd_create("qkv", MFD_CLOEXEC)};
    if (s->fd >= 0) {
        snprintf(s->path, sizeof s->path, "/proc/%ld/fd/%d", (long)getpid(),
                 s->fd);
        if (access(s->path, R_OK | W_OK) == 0)
            return true;
        close_fd(&s->fd);           /* no /proc here */
    }
    return scratch_on_disk(s, err);
}

static void scratch_close(scratch *s)
{
    close_fd(&s->fd);
    if (s->on_disk)
        unlink(s->path);
}

static bool scratch_put(scratch *s, const char *data, size_t bytes,
                        qkv_error *err)
{
    while (bytes > 0) {
        const ssize_t n = write(s->fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qkv_fail_errno(err, "cannot hand the plot to gnuplot");
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* Append the whole file to *out. */
static bool scratch_get(qkv_text *out, const scratch *s, qkv_error *err)
{
    char buffer[16384];
    off_t at = 0;
    for (;;) {
        const ssize_t n = pread(s->fd, buffer, sizeof buffer, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qkv_fail_errno(err, "cannot read the picture back");
        if (n == 0)
            return true;
        if (!qkv_text_put(out, buffer, (size_t)n, err))
            return false;
        at += n;
    }
}

/* ---- gnuplot ---- */

/* Send a line, then ask for a mark with `values` in it, and hear up to that.
 * *answer: the values, inside *heard, which ends in NUL there. */
static bool request(const char **answer, qkv_text *heard, qkv_plot *p,
                    const char *line, const char *format, const char *values,
                    qkv_error *err)
{
    qkv_text words = {0};
    char mark[48];
    snprintf(mark, sizeof mark, "\001QKV %lu ", ++p->seq);
    /* We send the escape \001 and wait for the byte, so a child that only
     * echoes never looks like one that answers. */
    if (!qkv_text_printf(&words, err,
            "%s\nunset multiplot\nunset output\nset print '-'\n"
            "print sprintf(\"\\001QKV %lu %s\\002\", %s)\n"
            "set print\nreset errors\n", line, p->seq, format, values))
        return false;
    const outcome what = talk(&p->gnuplot, words.data, mark, p->timeout_ms,
                              heard, err);
    qkv_text_free(&words);
    if (what != SAID)
        return give_up(&p->gnuplot, p->program, what, p->timeout_ms, heard,
                       err);
    char *at = find_mark(heard, mark);
    const size_t rest = (size_t)(heard->data + heard->bytes - at);
    *(char *)memchr(at, '\002', rest) = '\0';
    *answer = at + strlen(mark);
    return true;
}

static bool missing(const char *program, qkv_error *err)
{
    return qkv_fail(err, QKV_ENOTFOUND, "pictures need gnuplot, and there is "
                    "no program '%s' in PATH; on Debian: apt-get install "
                    "gnuplot-nox", program);
}

/* The version answers, too: a child that is not gnuplot fails here. */
static bool start_gnuplot(qkv_plot *p, qkv_error *err)
{
    char dash_d[] = "-d";       /* do not read the user's ~/.gnuplot */
    char *argv[] = {p->program, dash_d, NULL};
    if (!start(&p->gnuplot, argv, err))
        return err->code == QKV_ENOTFOUND ? missing(p->program, err) : false;
    qkv_text heard = {0};
    const char *terminals = NULL;
    bool ok = request(&terminals, &heard, p, "", "%s", "GPVAL_TERMINALS", err);
    if (ok) {
        qkv_free(p->terminals);
        p->terminals = qkv_strdup(terminals, err);
        ok = p->terminals != NULL;
    }
    qkv_text_free(&heard);
    return ok;
}

/* Between pictures a child may have died: then it is time for another. */
static bool alive(qkv_plot *p)
{
    if (p->gnuplot.pid == 0)
        return false;
    struct pollfd fd = {.fd = p->gnuplot.out, .events = POLLIN};
    char stale[4096];
    while (poll(&fd, 1, 0) > 0) {
        const ssize_t n = recv(fd.fd, stale, sizeof stale, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            finish(&p->gnuplot, 0);
            return false;
        }
    }
    return true;
}

qkv_plot *qkv_plot_new(const qkv_plot_options *options, qkv_error *err)
{
    static const qkv_plot_options usual = {0};
    if (options == NULL)
        options = &usual;
    qkv_plot *p = qkv_alloc_zero(1, sizeof *p, err);
    if (p == NULL)
        return NULL;
    p->gnuplot = NO_CHILD;
    p->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    p->no_memfd = options->no_memfd;
    p->program = qkv_strdup(options->program != NULL ? options->program
                                                     : "gnuplot", err);
    if (p->program == NULL) {
        qkv_plot_free(p);
        return NULL;
    }
    return p;
}

void qkv_plot_free(qkv_plot *p)
{
    if (p == NULL)
        return;
    finish(&p->gnuplot, GRACE_MS);
    qkv_free(p->terminals);
    qkv_free(p->program);
    qkv_free(p);
}

/* The first word of `terminal` is one that this gnuplot was built with. Asked
 * here, since gnuplot 6.0 only warns about one that it does not know. */
static bool check_terminal(const qkv_plot *p, const char *terminal,
                           qkv_error *err)
{
    char word[40];
    snprintf(word, sizeof word, " %.*s ", (int)strcspn(terminal, " "),
             terminal);
    if (strstr(p->terminals, word) != NULL)
        return true;
    return qkv_fail(err, QKV_EUNSUPPORTED, "this gnuplot was built without "
                    "its terminal '%.*s'; on Debian, gnuplot-nox has it",
                    (int)strcspn(terminal, " "), terminal);
}

/* answer: "<errno> <message>" */
static bool check_answer(const char *answer, qkv_error *err)
{
    if (strtol(answer, NULL, 10) == 0)
        return true;
    const char *words = strchr(answer, ' ');
    words = words != NULL && words[1] != '\0' ? words + 1 : "no reason given";
    return qkv_fail(err, QKV_EINVAL, "gnuplot: %s", words);
}

static bool run_script(qkv_text *heard, qkv_plot *p, const scratch *script,
                       qkv_error *err)
{
    char line[sizeof script->path + 16];
    qkv_text said = {0};
    const char *answer = NULL;
    snprintf(line, sizeof line, "load '%s'", script->path);
    bool ok = request(&answer, &said, p, line, "%d %s",
                      "GPVAL_ERRNO, GPVAL_ERRMSG", err)
        && check_answer(answer, err);
    if (ok && heard != NULL) {
        const char *mark = memchr(said.data, '\001', said.bytes);
        ok = qkv_text_put(heard, said.data, (size_t)(mark - said.data), err);
    }
    qkv_text_free(&said);
    return ok;
}

/* gnuplot does not notice when a write fails, so look at the end. */
static bool check_whole(const char *terminal, const qkv_text *picture,
                        size_t before, qkv_error *err)
{
    static const struct {
        const char *terminal, *end;
    } ends[] = {{"pngcairo", "IEND\xae\x42\x60\x82"}, {"svg", "</svg>"},
                {"pdfcairo", "%%EOF"}, {"sixelgd", "\033\\"}};
    const size_t bytes = picture->bytes - before;
    if (bytes == 0)
        return qkv_fail(err, QKV_EIO, "gnuplot drew nothing");
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t n = strlen(ends[i].terminal);
        if (strncmp(terminal, ends[i].terminal, n) != 0)
            continue;
        const size_t tail = bytes < 16 ? bytes : 16;
        return memmem(picture->data + picture->bytes - tail, tail,
                      ends[i].end, strlen(ends[i].end)) != NULL
            || qkv_fail(err, QKV_EIO, "gnuplot's picture breaks off after %zu "
                        "bytes: is a disk full, or a file's size limited?",
                        bytes);
    }
    return true;
}

bool qkv_plot_draw(qkv_text *picture, qkv_text *heard, qkv_plot *p,
                   const char *terminal, const char *script, size_t bytes,
                   qkv_error *err)
{
    scratch in = {.fd = -1}, out = {.fd = -1};
    qkv_text head = {0};
    const size_t before = picture->bytes;
    bool ok = (alive(p) || start_gnuplot(p, err))
        && check_terminal(p, terminal, err)
        && scratch_open(&in, p->no_memfd, err)
        && scratch_open(&out, p->no_memfd, err)
        && qkv_text_printf(&head, err, "reset\nset terminal %s\n"
                           "set output '%s'\n", terminal, out.path)
        && scratch_put(&in, head.data, head.bytes, err)
        && scratch_put(&in, script, bytes, err)
        && run_script(heard, p, &in, err)
        && scratch_get(picture, &out, err)
        && check_whole(terminal, picture, before, err);
    if (!ok)
        picture->bytes = before;
    qkv_text_free(&head);
    scratch_close(&in);
    scratch_close(&out);
    return ok;
}

bool qkv_plot_is_installed(const char *program)
{
    if (program == NULL)
        program = "gnuplot";
    if (strchr(program, '/') != NULL)
        return access(program, X_OK) == 0;
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        const size_t n = strcspn(path, ":");
        char file[4096];
        const int length = snprintf(file, sizeof file, "%.*s/%s", (int)n,
                                    path, program);
        struct stat st;
        if (length > 0 && (size_t)length < sizeof file
            && access(file, X_OK) == 0 && stat(file, &st) == 0
            && S_ISREG(st.st_mode))
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

bool qkv_plot_ask(qkv_text *out, char *const argv[], int timeout_ms,
                  qkv_error *err)
{
    child c;
    if (!start(&c, argv, err))
        return false;
    close_fd(&c.in);
    const outcome what = talk(&c, "", NULL, timeout_ms, out, err);
    if (what != DIED)
        return give_up(&c, argv[0], what, timeout_ms, out, err);
    const int status = finish(&c, GRACE_MS);
    if (status == 0)
        return true;
    char words[96];
    status_words(words, sizeof words, status);
    return qkv_fail(err, QKV_EIO, "%s ended (%s)", argv[0], words);
}
