/*
 * parallel.c - the one thread pool: see parallel.h
 *
 * A loop is one job in one place. The caller opens the gate, takes chunks
 * from a counter as every helper does that comes through, closes the gate
 * when none is left, and waits for the helpers that are still inside. So it
 * never waits for a thread that has not begun: where another process has the
 * second processor, the caller does the work and loses what that one chunk
 * takes. (OpenMP's static teams wait for all their members at every loop,
 * which made a busy machine up to fifteen times slower.)
 *
 * Waiting is spinning for some microseconds, since a forward pass comes back
 * that soon, then sleeping, so that the system may run what is waited for.
 *
 *   gate   bits 0..15   helpers inside
 *          bit  16      open
 *          bits 17..63  number of the job
 */
#include "config.h"

#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 256, SPINS = 2000, LINE = 64 };
static const uint64_t INSIDE = 0xffff, OPEN = 1u << 16, JOB = 1u << 17;

static struct {
    /* the job: written while the gate is shut and nobody is inside */
    qkv_body *body;
    void *context;
    int64_t n, chunk, pieces;
    int team;                   /* threads that may take part */

    alignas(LINE) _Atomic uint64_t gate;
    alignas(LINE) _Atomic int64_t next;     /* piece that nobody took yet */
    alignas(LINE) atomic_flag busy;         /* some thread's loop runs */
    atomic_int asleep;          /* helpers; changed under the lock */
    atomic_bool waiting;        /* the caller sleeps until all are out */
    pthread_mutex_t lock;
    pthread_cond_t wake, out;
    int helpers;                /* that were started */
} pool = {
    .busy = ATOMIC_FLAG_INIT, .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER, .out = PTHREAD_COND_INITIALIZER
};

static int n_threads;           /* 0: not asked yet */
static _Thread_local int self = -1;     /* inside a body: its thread */

static int processors(void)
{
#ifdef CPU_COUNT
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int qkv_threads(void)
{
    if (n_threads == 0) {
        const char *wish = getenv("OMP_NUM_THREADS");
        const long n = wish != NULL ? strtol(wish, NULL, 10) : 0;
        qkv_set_threads(n > MOST ? MOST : n > 0 ? (int)n : processors());
    }
    return n_threads;
}

void qkv_set_threads(int n)
{
    n_threads = n < 1 ? 1 : n > MOST ? MOST : n;
}

/* ---- waiting ---- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A job is open that is not number `last`. */
static bool is_news(uint64_t gate, uint64_t last)
{
    return (gate & OPEN) != 0 && gate / JOB != last;
}

static void await_job(uint64_t last)
{
    for (int i = 0; i < SPINS; i++) {
        if (is_news(atomic_load(&pool.gate), last))
            return;
        relax();
    }
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.asleep, 1);
    while (!is_news(atomic_load(&pool.gate), last))
        pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.asleep, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void await_helpers(void)
{
    for (int i = 0; i < SPINS; i++) {
        if ((atomic_load(&pool.gate) & INSIDE) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.waiting, true);
    while ((atomic_load(&pool.gate) & INSIDE) != 0)
        pthread_cond_wait(&pool.out, &pool.lock);
    atomic_store(&pool.waiting, false);
    pthread_mutex_unlock(&pool.lock);
}

/* ---- working ---- */

static void run_piece(int64_t piece, int64_t n, int64_t chunk, qkv_body *body,
                      void *context, int thread)
{
    const int64_t begin = piece * chunk;
    body(context, begin, n - begin < chunk ? n : begin + chunk, thread);
}

/* Take pieces until there are none. */
static void work(int thread)
{
    self = thread;
    for (;;) {
        const int64_t piece = atomic_fetch_add(&pool.next, 1);
        if (piece >= pool.pieces)
            break;
        run_piece(piece, pool.n, pool.chunk, pool.body, pool.context, thread);
    }
    self = -1;
}

/* Go inside unless the gate is shut, or was passed for this job before. */
static bool enter(uint64_t *last)
{
    uint64_t gate = atomic_load(&pool.gate);
    while (is_news(gate, *last)) {
        if (!atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1))
            continue;
        *last = gate / JOB;
        return true;
    }
    return false;
}

static void leave(void)
{
    atomic_fetch_sub(&pool.gate, 1);
    if (!atomic_load(&pool.waiting))
        return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.out);
    pthread_mutex_unlock(&pool.lock);
}

static void *help(void *argument)
{
    const int thread = (int)(intptr_t)argument;
    uint64_t last = 0;
    for (;;) {
        await_job(last);
        if (!enter(&last))
            continue;
        if (thread < pool.team)
            work(thread);
        leave();
    }
    return NULL;
}

/* A process that was forked has the caller's thread only. */
static void forget_helpers(void)
{
    pool.helpers = 0;
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.asleep, 0);
    atomic_store(&pool.waiting, false);
    atomic_flag_clear(&pool.busy);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.out, NULL);
}

/* Have n helpers, or as many as the system allows. Signals are for the
 * interpreter's thread. */
static void start_helpers(int n)
{
    static bool watched;
    sigset_t all, before;
    pthread_attr_t attributes;
    if (pool.helpers >= n || pthread_attr_init(&attributes) != 0)
        return;
    if (!watched)
        watched = pthread_atfork(NULL, NULL, forget_helpers) == 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t id;
    while (pool.helpers < n
           && pthread_create(&id, &attributes, help,
                             (void *)(intptr_t)(pool.helpers + 1)) == 0)
        pool.helpers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* Open the gate, and wake who sleeps behind it. */
static void announce(void)
{
    atomic_store(&pool.next, 0);
    const uint64_t job = atomic_load(&pool.gate) / JOB + 1;
    atomic_store(&pool.gate, job * JOB + OPEN);
    if (atomic_load(&pool.asleep) == 0)
        return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

void qkv_parallel(int64_t n, int64_t chunk, qkv_body *body, void *context)
{
    if (chunk < 1)
        chunk = 1;
    const int64_t pieces = n / chunk + (n % chunk != 0);
    if (pieces <= 1 || self >= 0 || qkv_threads() == 1
        || atomic_flag_test_and_set(&pool.busy)) {
        for (int64_t i = 0; i < pieces; i++)
            run_piece(i, n, chunk, body, context, self >= 0 ? self : 0);
        return;
    }
    const int team = pieces < n_threads ? (int)pieces : n_threads;
    start_helpers(team - 1);
    pool.body = body;
    pool.context = context;
    pool.n = n;
    pool.chunk = chunk;
    pool.pieces = pieces;
    pool.team = team;
    announce();
    work(0);
    atomic_fetch_and(&pool.gate, ~OPEN);
    await_helpers();
    atomic_flag_clear(&pool.busy);
}
