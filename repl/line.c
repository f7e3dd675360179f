/*
 * line.c - lines from a person or a pipe: see line.h
 *
 * Ctrl-C: Readline's own handlers are off. SIGINT is blocked except while
 * pselect waits for a key; when one came, our getc returns the key 3, which is
 * bound to a function that gives the line up. (rl_signal_event_hook does not
 * do: Readline goes on reading until the next key.) Keys are read without
 * waiting, from a description of the terminal that is ours alone: a Ctrl-C
 * makes the kernel drop typed keys, also one that pselect just announced, and
 * a read that waited would sleep with SIGINT blocked. SIGCONT after a stop
 * sets the terminal up again.
 *
 * Every entry is appended to the history file when it is made, so that a
 * crash loses nothing and two sessions share it.
 */
#include "config.h"

#include "repl/line.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#include "base/alloc.h"
#include "base/interrupt.h"

enum { KEY_INTERRUPT = 3, MOST_ENTRIES = 10000 };

static const qkv_line_helper *helper;       /* NULL: not on a terminal */
static qkv_text history_path;               /* empty: not kept in a file */
static int keys = STDIN_FILENO;             /* where keys come from */
static bool was_interrupted;
static volatile sig_atomic_t was_continued;

/* ---- keys ---- */

static void on_continue(int signal)
{
    (void)signal;
    was_continued = 1;
}

/* After Ctrl-Z and fg the shell left the terminal in its own mode. */
static void restore_terminal(void)
{
    was_continued = 0;
    (*rl_deprep_term_function)();
    (*rl_prep_term_function)(1);
    rl_forced_update_display();
}

/* Wait for a key or, with SIGINT let through, for a signal. A key that came
 * after a Ctrl-C must not overtake it: pselect prefers keys to signals. */
static int wait_for_key(int fd, const sigset_t *mask)
{
    sigset_t before;
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(fd, &ready);
    const int n = pselect(fd + 1, &ready, NULL, NULL, NULL, mask);
    const int problem = errno;
    pthread_sigmask(SIG_SETMASK, mask, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = problem;
    return n;
}

/* A key, or KEY_INTERRUPT when SIGINT came instead. */
static int get_key(FILE *stream)
{
    (void)stream;                           /* the same terminal: see keys */
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    sigdelset(&mask, SIGINT);
    for (;;) {
        unsigned char key;
        const int n = wait_for_key(keys, &mask);
        if (n < 0 && errno != EINTR)
            return EOF;
        if (qkv_interrupted())
            return KEY_INTERRUPT;
        if (was_continued)
            restore_terminal();
        rl_check_signals();                 /* a new window size */
        if (n <= 0)
            continue;
        const ssize_t got = read(keys, &key, 1);
        if (got == 1)
            return key;
        if (got == 0 || (errno != EINTR && errno != EAGAIN))
            return EOF;
    }
}

static int give_up_line(int count, int key)
{
    (void)count;
    (void)key;
    was_interrupted = true;
    rl_point = rl_end;
    rl_redisplay();                         /* below all lines of the input */
    fputs("^C", rl_outstream);
    rl_crlf();
    rl_replace_line("", 1);
    rl_done = 1;
    return 0;
}

/* ---- completion ---- */

/* A word in memory that Readline may free with free(). */
static char *copy_word(const char *word)
{
    const size_t n = strlen(word) + 1;
    char *copy = malloc(n);
    return copy == NULL ? NULL : memcpy(copy, word, n);
}

static char *next_word(const char *text, int state)
{
    static int next, n;
    size_t start;
    (void)text;
    if (state == 0) {
        next = 0;
        n = helper->complete(helper->context, rl_line_buffer,
                             (size_t)rl_point, &start);
    }
    return next < n ? copy_word(helper->word(helper->context, next++)) : NULL;
}

/* Where the word before the cursor starts, said in Readline's way: as the
 * characters that end a word. The one before the start is such a one. */
static char *word_breaks(void)
{
    static char breaks[2];
    size_t start = 0;
    helper->complete(helper->context, rl_line_buffer, (size_t)rl_point,
                     &start);
    breaks[0] = start == 0 ? '\n' : rl_line_buffer[start - 1];
    return breaks;
}

/* Is this word all of a string? What ends in a dot goes on. */
static bool is_whole(const char *word)
{
    const size_t n = strlen(word);
    return n > 0 && word[n - 1] != '.';
}

/* The quote that a string at `from` began with closes what is complete. */
static char **complete(const char *text, int start, int end)
{
    size_t from;
    (void)start;
    (void)end;
    rl_attempted_completion_over = 1;
    const int n = helper->complete(helper->context, rl_line_buffer,
                                   (size_t)rl_point, &from);
    const char before = from > 0 ? rl_line_buffer[from - 1] : '\0';
    rl_completion_append_character =
        before == '"' || before == '\'' ? before : '\0';
    if (n < 0)
        return rl_completion_matches(text, rl_filename_completion_function);
    char **words = rl_completion_matches(text, next_word);
    if (words != NULL && !is_whole(words[0]))
        rl_completion_append_character = '\0';
    return words;
}

/* Show the choices without what they all begin with ("m:" of "m:run("). */
static void show_choices(char **words, int n, int longest)
{
    const char *last = NULL;
    for (const char *s = words[0]; *s != '\0'; s++)
        if (*s == '.' || *s == ':')
            last = s;
    const size_t skip = last == NULL || rl_filename_completion_desired
        ? 0 : (size_t)(last + 1 - words[0]);
    for (int i = 0; i <= n; i++)
        words[i] += skip;
    rl_display_match_list(words, n, longest - (int)skip);
    for (int i = 0; i <= n; i++)
        words[i] -= skip;
    rl_forced_update_display();
}

/* ---- history ---- */

/* Make the directories of path, all but its last part. */
static void make_directories(char *path)
{
    for (char *s = path + 1; (s = strchr(s, '/')) != NULL; s++) {
        *s = '\0';
        mkdir(path, 0700);
        *s = '/';
    }
}

static bool find_history(qkv_error *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state != NULL && state[0] == '/')
        return qkv_text_printf(&history_path, err, "%s/qkv/history", state);
    if (home == NULL || home[0] != '/')
        return false;
    return qkv_text_printf(&history_path, err, "%s/.local/state/qkv/history",
                           home);
}

static void open_history(void)
{
    qkv_error err;
    using_history();
    history_write_timestamps = 1;           /* they mark where entries end */
    history_multiline_entries = 1;
    history_comment_char = '#';
    if (!find_history(&err))
        return;
    make_directories(history_path.data);
    const int fd = open(history_path.data, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        qkv_text_free(&history_path);
        return;
    }
    close(fd);
    read_history(history_path.data);
    if (history_length > MOST_ENTRIES) {
        stifle_history(MOST_ENTRIES);
        history_truncate_file(history_path.data, MOST_ENTRIES);
    }
}

static bool is_last_entry(const char *input)
{
    const HIST_ENTRY *last = history_length == 0 ? NULL
        : history_get(history_base + history_length - 1);
    return last != NULL && strcmp(last->line, input) == 0;
}

void qkv_line_remember(const char *input)
{
    if (helper == NULL || input[0] == ' ' || input[0] == '\0'
        || is_last_entry(input))
        return;
    add_history(input);
    if (history_path.data != NULL)
        append_history(1, history_path.data);
}

/* ---- opening and reading ---- */

static void catch_continue(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_continue;
    sigemptyset(&action.sa_mask);
    sigaction(SIGCONT, &action, NULL);
}

/* O_NONBLOCK on fd 0 would be shared with whoever started us. */
static void open_keys(void)
{
    const char *name = ttyname(STDIN_FILENO);
    const int fd = name == NULL ? -1
        : open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    keys = fd >= 0 ? fd : STDIN_FILENO;
}

void qkv_line_open(const qkv_line_helper *with)
{
    helper = with;
    open_keys();
    rl_readline_name = "qkv";
    rl_catch_signals = 0;
    rl_getc_function = get_key;
    rl_attempted_completion_function = complete;
    rl_completion_word_break_hook = word_breaks;
    rl_basic_quote_characters = "";         /* complete() closes strings */
    rl_completion_display_matches_hook = show_choices;
    rl_variable_bind("enable-bracketed-paste", "on");
    rl_initialize();
    rl_bind_key(KEY_INTERRUPT, give_up_line);
    catch_continue();
    open_history();
}

void qkv_line_close(void)
{
    if (helper == NULL)
        return;
    clear_history();
    qkv_text_free(&history_path);
    if (keys != STDIN_FILENO)
        close(keys);
    keys = STDIN_FILENO;
    helper = NULL;
}

static qkv_line_result read_edited(qkv_text *line, const char *prompt,
                                   qkv_error *err)
{
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    was_interrupted = false;
    char *typed = readline(prompt);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    qkv_line_result result = QKV_LINE_READ;
    if (was_interrupted)
        result = QKV_LINE_INTERRUPTED;
    else if (typed == NULL)
        result = QKV_LINE_END;
    else if (!qkv_text_put(line, typed, strlen(typed), err))
        result = QKV_LINE_FAILED;
    free(typed);                            /* Readline's own memory */
    return result;
}

static qkv_line_result read_plain(qkv_text *line, qkv_error *err)
{
    int c;
    bool has_any = false;
    while ((c = getc(stdin)) != EOF && c != '\n') {
        const char byte = (char)c;
        has_any = true;
        if (!qkv_text_put(line, &byte, 1, err))
            return QKV_LINE_FAILED;
    }
    if (qkv_interrupted())
        return QKV_LINE_INTERRUPTED;
    return has_any || c == '\n' ? QKV_LINE_READ : QKV_LINE_END;
}

qkv_line_result qkv_line_read(qkv_text *line, const char *prompt,
                              qkv_error *err)
{
    return helper != NULL ? read_edited(line, prompt, err)
                          : read_plain(line, err);
}

const char *qkv_line_version(void)
{
    return rl_library_version;
}
